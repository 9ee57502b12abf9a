// SPDX-License-Identifier: Apache-2.0
//! `[page]`: where the operator's page listens, and where programs find its token.

use crate::config::file::{Located, TendonFile};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The operator's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageConfig {
    /// Loopback address.
    pub listen: SocketAddr,
    /// Where each start leaves its token, for programs that read the metrics.
    pub token_file: Option<PathBuf>,
}

pub(super) fn check(
    written: &TendonFile,
    folder: &Path,
    at: &mut Located<'_>,
) -> Option<PageConfig> {
    let page = written.page.as_ref()?;
    let text = page.listen.get_ref();
    let expected = match text.parse::<SocketAddr>() {
        Ok(listen) if listen.ip().is_loopback() => {
            let token_file = page.token_file.as_ref();
            return Some(PageConfig {
                listen,
                token_file: token_file.map(|path| folder.join(path)),
            });
        }
        Ok(_) => {
            "a loopback address such as \"127.0.0.1:8765\"; reach it from elsewhere through an SSH tunnel"
        }
        Err(_) => "an address such as \"127.0.0.1:8765\"",
    };
    at.push(&page.listen, "page.listen", expected, format!("\"{text}\""));
    None
}
