// SPDX-License-Identifier: Apache-2.0
//! Opens a zenoh session for commands: one explicit endpoint, no discovery, short lease, small queues.
//!
//! Over `quic/` what is best effort (commands, states, a deadman's frames) goes as datagrams, and everything else as streams of the
//! same connection: a packet that is lost is one command that is lost, not a wait for all that come after it.

use crate::config::link::{LinkConfig, is_secure};
use rustix::process::{getpriority_process, setpriority_process};
use std::time::Duration;
use zenoh::{Session, Wait};

/// A request that is not answered within this time is not answered.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest request or answer in bytes.
pub const TEXT_MAX: usize = 4096;

/// What went wrong with the link; says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The configuration was refused by zenoh.
    #[error("link configuration: {0}")]
    Config(String),
    /// The password file could not be used.
    #[error("{path}: expected a readable file whose first line is the password: {reason}")]
    Password {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The session did not open.
    #[error("could not open the link ({endpoints}): {reason}")]
    Open {
        /// Where.
        endpoints: String,
        /// Why.
        reason: String,
    },
    /// A publisher, subscriber or queryable was not declared.
    #[error("{key}: could not be declared: {reason}")]
    Declare {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// Nobody answered.
    #[error("{key}: no answer within {} s: is the other side running, and connected to the same endpoint?", ANSWER_TIMEOUT.as_secs())]
    NoAnswer {
        /// What was asked.
        key: String,
    },
    /// The other side answered with a refusal.
    #[error("{0}")]
    Refused(String),
}

/// Niceness that is asked for the link's own threads: they are normal threads, and on a machine that is busy a command
/// would wait for its turn among all others until the motor controller stops by itself.
pub const NICE: i32 = -10;

/// Opens a session whose threads run ahead of other normal ones, as far as the kernel grants it (`RLIMIT_NICE`): also
/// returns their niceness as the kernel tells it.
///
/// # Errors
/// [`LinkError`].
pub fn open_ahead(link: &LinkConfig) -> Result<(Session, i32), LinkError> {
    // On Linux the niceness is a thread's own, and one that is started takes over that of who starts it. What is refused
    // shows in what is read back.
    let was = getpriority_process(None).unwrap_or(0);
    let _ = setpriority_process(None, was.min(NICE));
    let has = getpriority_process(None).unwrap_or(was);
    let opened = open(link);
    let _ = setpriority_process(None, was);
    opened.map(|session| (session, has))
}

/// Opens a session.
///
/// # Errors
/// [`LinkError`].
pub fn open(link: &LinkConfig) -> Result<Session, LinkError> {
    let endpoints: Vec<&str> = [&link.listen, &link.connect]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if !cfg!(feature = "tls")
        && let Some(secure) = endpoints.iter().find(|endpoint| is_secure(endpoint))
    {
        return Err(LinkError::Config(format!(
            "{secure}: needs a build with --features tls"
        )));
    }
    let config = configure(link)?;
    zenoh::open(config).wait().map_err(|error| LinkError::Open {
        endpoints: endpoints.join(", "),
        reason: error.to_string(),
    })
}

/// Peer to peer at the given endpoints; nothing is looked for on the network. The lease is short, because a restarted
/// peer must be able to come back at once; it is not what detects a lost peer.
fn configure(link: &LinkConfig) -> Result<zenoh::Config, LinkError> {
    let mut config = zenoh::Config::default();
    let mut set = |key: &str, value: serde_json::Value| {
        config
            .insert_json5(key, &value.to_string())
            .map_err(|error| LinkError::Config(format!("{key}: {error}")))
    };
    set("mode", "peer".into())?;
    set("scouting/multicast/enabled", false.into())?;
    set("scouting/gossip/enabled", false.into())?;
    for (key, endpoint) in [("listen", &link.listen), ("connect", &link.connect)] {
        let endpoints: Vec<String> = endpoint.iter().map(|given| written(given)).collect();
        set(&format!("{key}/endpoints"), endpoints.into())?;
    }
    // A peer that is not there yet is waited for in the background.
    set("connect/timeout_ms", (-1).into())?;
    set("connect/exit_on_failure", false.into())?;
    set(
        "connect/retry",
        serde_json::json!({"period_init_ms": 50, "period_max_ms": 500, "period_increase_factor": 2}),
    )?;
    set("transport/link/tx/lease", 1000.into())?;
    set("transport/link/tx/queue/batching/enabled", false.into())?;
    set("transport/link/tx/queue/allocation/mode", "init".into())?;
    // A question waits so long for a peer that takes nothing, in microseconds; then the link to it is closed.
    set(
        "transport/link/tx/queue/congestion_control/block/wait_before_close",
        800_000.into(),
    )?;
    if let Some(tls) = &link.tls {
        let text = |path: &std::path::Path| path.display().to_string();
        set(
            "transport/link/tls/root_ca_certificate",
            text(&tls.ca).into(),
        )?;
        for end in ["listen", "connect"] {
            set(
                &format!("transport/link/tls/{end}_certificate"),
                text(&tls.certificate).into(),
            )?;
            set(
                &format!("transport/link/tls/{end}_private_key"),
                text(&tls.key).into(),
            )?;
        }
        set("transport/link/tls/enable_mtls", true.into())?;
        set("transport/link/tls/verify_name_on_connect", true.into())?;
        // A certificate that expires must not cut the link of a robot that moves.
        set("transport/link/tls/close_link_on_expiration", false.into())?;
    }
    if let Some((user, path)) = &link.credentials {
        let text = std::fs::read_to_string(path).map_err(|error| LinkError::Password {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        let password = text.lines().next().unwrap_or_default().trim();
        if password.is_empty() {
            return Err(LinkError::Password {
                path: path.display().to_string(),
                reason: "it is empty".into(),
            });
        }
        set("transport/auth/usrpwd/user", user.as_str().into())?;
        set("transport/auth/usrpwd/password", password.into())?;
        if link.listen.is_some() {
            // Whoever connects must know the same user and password; zenoh takes its list as a file.
            let list = path.with_extension("users");
            // Another process may read it meanwhile: it is there whole, or not yet.
            let draft = path.with_extension(format!("users-{}", std::process::id()));
            std::fs::write(&draft, "")
                .and_then(|()| restrict(&draft))
                .and_then(|()| std::fs::write(&draft, format!("{user}:{password}\n")))
                .and_then(|()| std::fs::rename(&draft, &list))
                .map_err(|error| LinkError::Password {
                    path: list.display().to_string(),
                    reason: error.to_string(),
                })?;
            set(
                "transport/auth/usrpwd/dictionary_file",
                list.display().to_string().into(),
            )?;
        }
    }
    Ok(config)
}

/// An endpoint as zenoh is told it. Both ends must say that datagrams are wanted.
fn written(endpoint: &str) -> String {
    match endpoint.starts_with("quic/") {
        true => format!("{endpoint}?mixed_rel=1"),
        false => endpoint.to_owned(),
    }
}

/// For the owner's eyes only.
fn restrict(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Maps a declaration's failure.
///
/// # Errors
/// [`LinkError::Declare`].
pub fn declare<T>(key: &str, result: zenoh::Result<T>) -> Result<T, LinkError> {
    result.map_err(|error| LinkError::Declare {
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use super::*;

    #[test]
    fn what_this_build_cannot_speak_is_refused_and_not_waited_for() {
        for endpoint in ["tls/localhost:7447", "quic/localhost:7447"] {
            let link = LinkConfig {
                connect: Some(endpoint.to_owned()),
                ..LinkConfig::default()
            };
            let said = open(&link).expect_err("no certificates").to_string();
            assert!(
                said.contains(endpoint) && said.contains("--features tls"),
                "{said}"
            );
        }
    }
}
