// SPDX-License-Identifier: Apache-2.0
//! Who may ask. Any page open in the same browser can send requests to loopback, so an address alone proves nothing:
//! a request needs the token, a `Host` that is ours (against DNS rebinding) and, if it has an `Origin`, ours too.

use std::{fmt::Write, fs::File, io::Read, net::SocketAddr};

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

use super::PageError;

/// 128 bits: nobody guesses it while a robot runs.
const TOKEN_BYTES: usize = 16;
/// Header of the token on a POST. A foreign page cannot set it without asking first, and nobody answers that question.
const TOKEN_HEADER: &str = "x-tendon-token";
/// Scheme of the token in `Authorization` (RFC 6750), as Prometheus sends it.
const BEARER: &str = "bearer";

/// Why a request is turned away; each answers 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("this name is not the page's address")]
    Host,
    #[error("requests from other sites are refused")]
    Origin,
    #[error("token missing or wrong; open the address printed at start")]
    Token,
}

/// What a request is measured against.
pub(super) struct Gate {
    /// `127.0.0.1:8765` and `localhost:8765`.
    hosts: [String; 2],
    pub token: String,
}

impl Gate {
    /// A gate with a new token, for the address that is truly listened on.
    pub fn new(at: SocketAddr) -> Result<Self, PageError> {
        let mut bytes = [0; TOKEN_BYTES];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(PageError::Token)?;
        let token = bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let hosts = [at.to_string(), format!("localhost:{}", at.port())];
        Ok(Self { hosts, token })
    }

    /// Lets a request pass or says why not. GET carries the token in the query, as pictures and event streams can set
    /// no header, or as a bearer's, for programs; everything else must carry it in the page's own header, so that no link
    /// or form can ask for anything.
    pub fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        let host = only(headers, &header::HOST).ok_or(Denied::Host)?;
        // An authority in the request line would overrule `Host`; browsers send none to a server.
        if uri.authority().is_some() || !self.ours(host) {
            return Err(Denied::Host);
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, &header::ORIGIN).and_then(|o| o.strip_prefix("http://"));
            if !origin.is_some_and(|o| self.ours(o)) {
                return Err(Denied::Origin);
            }
        }
        let token = if method == Method::GET {
            uri.query()
                .and_then(|query| query.split('&').find_map(|p| p.strip_prefix("token=")))
                .or_else(|| bearer(headers))
        } else {
            only(headers, &HeaderName::from_static(TOKEN_HEADER))
        };
        match token {
            Some(token) if same(token.as_bytes(), self.token.as_bytes()) => Ok(()),
            _ => Err(Denied::Token),
        }
    }

    fn ours(&self, host: &str) -> bool {
        self.hosts.iter().any(|h| h.eq_ignore_ascii_case(host))
    }
}

/// The token that a program sends.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(BEARER).then_some(token)
}

/// The value of a header that stands there once; two of a kind are one too many to trust either.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Compares without stopping at the first difference, so that the time taken tells nothing of the token.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
