// SPDX-License-Identifier: Apache-2.0
//! `[link]` of `tendon.toml`: how the motor controller is reached, and what proves who is there.

use crate::config::file::Located;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// `[link]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkTable {
    /// Endpoint to listen on.
    pub listen: Option<Spanned<String>>,
    /// Endpoint to connect to.
    pub connect: Option<Spanned<String>>,
    /// User name, needed beyond loopback.
    pub user: Option<Spanned<String>>,
    /// File whose first line is the password, relative to this file.
    pub password_file: Option<Spanned<String>>,
    /// Mutual TLS: the authority's certificate, relative to this file.
    pub tls_ca: Option<Spanned<String>>,
    /// Our certificate.
    pub tls_certificate: Option<Spanned<String>>,
    /// Its key.
    pub tls_key: Option<Spanned<String>>,
}

/// How the motor controller is reached.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    /// Endpoint to listen on, e.g. `tcp/127.0.0.1:7447` or `quic/tendon.local:7448`.
    pub listen: Option<String>,
    /// Endpoint to connect to.
    pub connect: Option<String>,
    /// User and password file: one of the two that are needed beyond loopback.
    pub credentials: Option<(String, PathBuf)>,
    /// Certificates: the other.
    pub tls: Option<Tls>,
}

/// PEM files for mutual TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Of the authority that signed both ends'.
    pub ca: PathBuf,
    /// Ours.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Checks the table; every mistake is noted with its line. `robot` is a key of the same file, to say that the table is empty.
pub(super) fn check(
    link: &LinkTable,
    robot: &Spanned<String>,
    folder: &Path,
    at: &mut Located<'_>,
) -> LinkConfig {
    if link.listen.is_none() && link.connect.is_none() {
        at.push(
            robot,
            "link",
            "listen or connect, e.g. listen = \"tcp/127.0.0.1:7447\"",
            "neither".into(),
        );
    }
    let credentials = match (&link.user, &link.password_file) {
        (Some(user), Some(file)) => Some((user.get_ref().clone(), folder.join(file.get_ref()))),
        (None, None) => None,
        (Some(given), None) => {
            at.push(
                given,
                "link.password_file",
                "a file beside link.user",
                "nothing".into(),
            );
            None
        }
        (None, Some(given)) => {
            at.push(
                given,
                "link.user",
                "a name beside link.password_file",
                "nothing".into(),
            );
            None
        }
    };
    let tls = check_tls(link, folder, at);
    let text = |endpoint: &Option<Spanned<String>>| {
        endpoint.as_ref().map(|endpoint| endpoint.get_ref().clone())
    };
    let made = LinkConfig {
        listen: text(&link.listen),
        connect: text(&link.connect),
        credentials,
        tls,
    };
    for (key, endpoint) in [
        ("link.listen", &link.listen),
        ("link.connect", &link.connect),
    ] {
        if let Some(endpoint) = endpoint {
            check_endpoint(key, endpoint, &made, at);
        }
    }
    made
}

/// Whether an endpoint is one, and proves who is there where it must.
pub(super) fn check_endpoint(
    key: &str,
    endpoint: &Spanned<String>,
    link: &LinkConfig,
    at: &mut Located<'_>,
) {
    if let Err((expected, found)) = proven(endpoint.get_ref(), link) {
        at.push(endpoint, key, expected, found);
    }
}

/// Whether `endpoint` is one whose ends prove themselves by certificates.
pub fn is_secure(endpoint: &str) -> bool {
    ["tls/", "quic/"].iter().any(|of| endpoint.starts_with(of))
}

/// Whether `endpoint` may be used with these credentials and certificates.
///
/// # Errors
/// What was expected, and what was found.
pub fn proven(endpoint: &str, link: &LinkConfig) -> Result<(), (&'static str, String)> {
    let found = format!("\"{endpoint}\"");
    if is_secure(endpoint) {
        let port = endpoint
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        return match (port, &link.tls) {
            (Some(Ok(_)), Some(_)) => Ok(()),
            (Some(Ok(_)), None) => Err((
                "link.tls_ca, link.tls_certificate and link.tls_key beside it",
                "not all of them".into(),
            )),
            _ => Err((
                "an endpoint such as \"tls/tendon.local:7448\" or \"quic/tendon.local:7448\"",
                found,
            )),
        };
    }
    match endpoint.strip_prefix("tcp/").map(str::parse::<SocketAddr>) {
        Some(Ok(address)) if !address.ip().is_loopback() && link.credentials.is_none() => Err((
            "a loopback address, or link.user and link.password_file beside it: what can move a robot over a network needs authentication",
            found,
        )),
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(("an endpoint such as \"tcp/127.0.0.1:7447\"", found)),
    }
}

/// All three files or none.
fn check_tls(link: &LinkTable, folder: &Path, at: &mut Located<'_>) -> Option<Tls> {
    let keys = [
        ("link.tls_ca", &link.tls_ca),
        ("link.tls_certificate", &link.tls_certificate),
        ("link.tls_key", &link.tls_key),
    ];
    let given = keys.iter().find_map(|(_, file)| file.as_ref())?;
    for (key, file) in keys {
        if file.is_none() {
            at.push(
                given,
                key,
                "a file, as the others of link.tls_* are there",
                "nothing".into(),
            );
        }
    }
    if !cfg!(feature = "tls") {
        at.push(
            given,
            "link.tls_*",
            "a build with --features tls",
            "one without".into(),
        );
    }
    let path =
        |file: &Option<Spanned<String>>| file.as_ref().map(|file| folder.join(file.get_ref()));
    Some(Tls {
        ca: path(&link.tls_ca)?,
        certificate: path(&link.tls_certificate)?,
        key: path(&link.tls_key)?,
    })
}
