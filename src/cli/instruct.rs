// SPDX-License-Identifier: Apache-2.0
//! `tendon instruct`: tell a running robot what to do.

use crate::cli::Failure;
use clap::Args;
use tendon::config::link::{LinkConfig, Tls};
use tendon::link::{keys, operator_end, session};

/// Where the running robot is.
#[derive(Debug, Args)]
pub struct Robot {
    /// The robot's name in robot.toml.
    #[arg(long, default_value = "bench")]
    pub robot: String,
    /// The endpoint on which its runtime listens.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp/127.0.0.1:7447")]
    pub connect: String,
    /// User name, if the endpoint asks for one.
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, requires = "user")]
    pub password_file: Option<std::path::PathBuf>,
    /// Certificate of the authority, for an endpoint that starts with tls/ or quic/.
    #[arg(long, requires_all = ["tls_certificate", "tls_key"])]
    pub tls_ca: Option<std::path::PathBuf>,
    /// Our certificate.
    #[arg(long, requires = "tls_ca")]
    pub tls_certificate: Option<std::path::PathBuf>,
    /// Its key.
    #[arg(long, requires = "tls_ca")]
    pub tls_key: Option<std::path::PathBuf>,
}

impl Robot {
    /// Asks under a key of this robot and prints the answer.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn ask(&self, key: fn(&str) -> String, text: &str) -> Result<(), Failure> {
        let session = self.session()?;
        println!(
            "{}",
            operator_end::ask(&session, &key(&self.robot), text).map_err(Failure::failed)?
        );
        Ok(())
    }

    /// A session with its runtime.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn session(&self) -> Result<zenoh::Session, Failure> {
        let credentials = self.user.clone().zip(self.password_file.clone());
        let files = [&self.tls_ca, &self.tls_certificate, &self.tls_key];
        let tls = match files.map(Clone::clone) {
            [Some(ca), Some(certificate), Some(key)] => Some(Tls {
                ca,
                certificate,
                key,
            }),
            _ => None,
        };
        let link = LinkConfig {
            listen: None,
            connect: Some(self.connect.clone()),
            credentials,
            tls,
        };
        session::open(&link).map_err(Failure::failed)
    }
}

/// Arguments of `tendon instruct`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tendon instruct \"touch the red block\"")]
pub struct Options {
    /// What the robot shall do, in plain words.
    text: String,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    options.robot.ask(keys::instruction, &options.text)
}
