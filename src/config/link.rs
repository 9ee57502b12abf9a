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
    /// Endpoint to listen on, e.g. `tcp/127.0.0.1:7447`.
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
    for (key, endpoint) in [
        ("link.listen", &link.listen),
        ("link.connect", &link.connect),
    ] {
        let Some(endpoint) = endpoint else { continue };
        if let Some(address) = endpoint.get_ref().strip_prefix("tls/") {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                at.push(
                    endpoint,
                    key,
                    "an endpoint such as \"tls/tendon.local:7448\"",
                    format!("\"{}\"", endpoint.get_ref()),
                );
            } else if tls.is_none() {
                at.push(
                    endpoint,
                    key,
                    "link.tls_ca, link.tls_certificate and link.tls_key beside it",
                    "not all of them".into(),
                );
            }
            continue;
        }
        match endpoint.get_ref().strip_prefix("tcp/").map(str::parse::<SocketAddr>) {
            Some(Ok(address)) if !address.ip().is_loopback() && credentials.is_none() => at.push(
                endpoint,
                key,
                "a loopback address, or link.user and link.password_file beside it: what can move a robot over a network needs authentication",
                format!("\"{}\"", endpoint.get_ref()),
            ),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                at.push(endpoint, key, "an endpoint such as \"tcp/127.0.0.1:7447\"", format!("\"{}\"", endpoint.get_ref()));
            }
        }
    }
    let text = |endpoint: &Option<Spanned<String>>| {
        endpoint.as_ref().map(|endpoint| endpoint.get_ref().clone())
    };
    LinkConfig {
        listen: text(&link.listen),
        connect: text(&link.connect),
        credentials,
        tls,
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
