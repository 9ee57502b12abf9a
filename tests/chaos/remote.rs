// SPDX-License-Identifier: Apache-2.0
//! A policy that another machine runs, here another process: it goes away, and one that is not the same comes back.

use crate::canary::told;
use crate::isolation::{PLAN_MS, child_of, goes_on, undisturbed};
use crate::stage::{
    Setting, Stage, deploy, free_endpoint, locked, over_again, patient, signal, until,
};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use tendon::runtime::{clock, demo};

/// `tendon engine serve`, until it is dropped.
struct Serving {
    server: Child,
    _folder: tempfile::TempDir,
}

impl Serving {
    fn at(endpoint: &str) -> Serving {
        let folder = tempfile::tempdir().expect("a folder");
        let config = deploy(folder.path(), "tcp/127.0.0.1:7", "");
        let mut server = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .args(["engine", "serve", "--listen", endpoint, "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(server.stdout.take().expect("piped"));
        let ready = said.lines().map_while(Result::ok);
        let serving = Serving {
            server,
            _folder: folder,
        };
        let mut ready = ready.filter(|line| line.starts_with("serving at"));
        assert!(ready.next().is_some(), "it ended");
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// A robot that moves by the plans of a server.
fn stage(endpoint: &str) -> Stage {
    let remote = format!(
        "[policy]\nengines = [\"remote\"]\nremote = \"{endpoint}\"\nremote_timeout_ms = 100"
    );
    let policy = ("[policy]", remote);
    Stage::new(&Setting {
        edits: patient().into_iter().chain([policy]).collect(),
        ..Setting::default()
    })
}

/// Its connection stands, and nothing comes: the inference process waits no longer than it should, and is not ended for it.
#[test]
fn a_server_of_the_policy_that_freezes_is_a_hold() {
    over_again(|| {
        let endpoint = free_endpoint();
        let serving = Serving::at(&endpoint);
        let stage = stage(&endpoint);
        let child = child_of(&stage);
        let from = clock::now();
        signal(&serving.server, "STOP");
        stage.held_within("the server of the policy frozen", from, PLAN_MS);
        demo::pause(2_500);
        signal(&serving.server, "CONT");
        until("it follows what the server makes", || {
            locked(&stage.commands, |commands| {
                commands.iter().rev().take(20).all(|sent| !sent.held)
            })
        });
        assert_eq!(child_of(&stage), child, "{}", stage.log());
        stage.within_limits();
    });
}

#[test]
fn a_server_of_the_policy_that_ends_is_a_hold_and_another_one_is_proven_first() {
    told(|| {
        undisturbed(|| {
            let endpoint = free_endpoint();
            let serving = Serving::at(&endpoint);
            let mut stage = stage(&endpoint);
            let child = child_of(&stage);
            let from = clock::now();
            drop(serving);
            stage.held_within("the server of the policy gone", from, PLAN_MS);
            demo::pause(500);
            let _another = Serving::at(&endpoint);
            if !goes_on(&mut stage, "another server of the policy", from, child) {
                return false;
            }
            let log = stage.log();
            assert!(log.contains("nobody serves it now"), "{log}");
            assert!(log.contains("this server was started since"), "{log}");
            true
        });
    });
}
