// SPDX-License-Identifier: Apache-2.0
//! `tendon rt-bench`: how late this machine wakes a control loop.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use tendon::config::link::Tls;
use tendon::runtime::rtbench::{self, Lateness, Settings};
use tendon::runtime::threads;

/// Arguments of `tendon rt-bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Beside cyclictest (Debian: rt-tests), a loop in Python and that of physicalai, in the same run:
  python3 -m venv ENV && ENV/bin/pip install physicalai==0.3.0
  tendon rt-bench --seconds 60 --peer \"python3 tests/peers/rt_loop.py\" \\
    --peer \"ENV/bin/python tests/peers/rt_physicalai.py\" --json"
)]
pub struct Options {
    /// Length of each of the two phases, idle and loaded.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Control rate.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=1_000))]
    hz: u64,
    /// A program that takes --seconds and --hz and prints one JSON object; may be given several times.
    #[arg(long = "peer", value_name = "COMMAND")]
    peers: Vec<String>,
    /// A folder of `systemd/zenoh/make-test-ca.sh`: measures the hop over mutual TLS, by TCP and by QUIC, as well. Needs a build with tls.
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let report = rtbench::run(&Settings {
        seconds: options.seconds,
        hz: options.hz,
        fifo: threads::CONTROL.fifo,
        peers: options.peers.clone(),
        tls: options.tls.as_ref().map(|folder| Tls {
            ca: folder.join("ca.pem"),
            certificate: folder.join("router.pem"),
            key: folder.join("router.key"),
        }),
    })
    .map_err(Failure::failed)?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).map_err(Failure::failed)?
        );
        return Ok(());
    }
    for (name, phase) in [("idle", &report.idle), ("loaded", &report.loaded)] {
        println!(
            "{name}, {} busy threads, microseconds late: p50 p99 p99.9 max",
            phase.load_threads
        );
        line("tendon", Some(&phase.tendon));
        line("cyclictest", phase.cyclictest.as_ref());
        for peer in &phase.peers {
            println!("  peer        {peer}");
        }
        let hop = phase.command_hop_us;
        println!(
            "  command hop {:.0} {:.0} {:.0} {:.0}, nice {}",
            hop.p50, hop.p99, hop.p999, hop.max, phase.link_nice
        );
        for (name, hop) in [
            ("over TLS", phase.command_hop_tls_us),
            ("over QUIC", phase.command_hop_quic_us),
        ] {
            if let Some(hop) = hop {
                println!(
                    "  {name:11} {:.0} {:.0} {:.0} {:.0}",
                    hop.p50, hop.p99, hop.p999, hop.max
                );
            }
        }
    }
    Ok(())
}

fn line(name: &str, lateness: Option<&Lateness>) {
    match lateness {
        Some(Lateness { late_us, fifo, .. }) => println!(
            "  {name:11} {:.0} {:.0} {:.0} {:.0}, SCHED_FIFO {fifo}",
            late_us.p50, late_us.p99, late_us.p999, late_us.max
        ),
        None => println!("  {name:11} not installed, or not permitted"),
    }
}
