// SPDX-License-Identifier: Apache-2.0
//! Two runtimes for one robot: started by mistake, both reach its motor controller, each has a state directory of its own, as on two
//! machines.

use crate::canary::told;
use crate::stage::{
    self, Setting, Stage, connect, ended, free_endpoint, locked, over_again, signal, until,
};
use std::time::Duration;
use tendon::core::units::MS;
use tendon::link::{keys, operator_end};
use tendon::runtime::{clock, demo};

/// A process that ends with its story.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The motor controller follows one arming, and nothing of who came later: not its commands, and it is not armed. Both are told.
#[test]
fn a_second_runtime_of_the_same_robot_moves_nothing_and_is_told_of() {
    over_again(|| {
        let mut stage = Stage::new(&Setting::default());
        let folder = tempfile::tempdir().expect("a folder");
        let own = free_endpoint();
        let config = stage::deploy(folder.path(), &own, "");
        let text = std::fs::read_to_string(&config).expect("just written");
        let connects = format!("[link]\nconnect = \"{}\"\n", stage.tap);
        let joins = text.replacen("[link]\n", &connects, 1);
        assert_ne!(joins, text);
        std::fs::write(&config, joins).expect("written");
        let setting = Setting::default();
        let second = stage::runtime(&config, &folder.path().join("state"), &setting).spawn();
        let second = Other(second.expect("the second runtime starts"));
        let at_second = connect(&own);
        let ask = |key: fn(&str) -> String, words: &str| {
            let answer = operator_end::ask(&at_second, &key("bench"), words);
            answer.map_err(|error| error.to_string())
        };
        until("the second runtime is ready to be armed", || {
            ask(keys::instruction, "touch the red block").is_ok()
        });
        let from = clock::now();
        let epoch = locked(&stage.reports, |reports| {
            reports.last().map(|last| last.epoch)
        });
        let mut said = Vec::new();
        while clock::now().since_ns(from) < 4_000 * MS {
            said.push(ask(keys::mode, "active"));
            demo::pause(50);
        }
        assert!(said.iter().all(Result::is_err), "{said:?}");
        let last = said.pop().expect("asked");
        assert!(
            last.as_ref()
                .is_err_and(|why| why.contains("has not echoed our commands")),
            "{last:?}"
        );
        // What the first one does is followed on, unless the machine stood still and it stopped for that.
        locked(&stage.reports, |reports| {
            let mut after = reports.iter().filter(|report| report.state.measured > from);
            assert!(after.clone().any(|report| report.rejected > 0));
            let others = after.find(|report| report.epoch != 0 && Some(report.epoch) != epoch);
            assert!(others.is_none(), "{others:?}");
        });
        let told = "end it";
        until("the first says so", || stage.log().contains(told));
        stage.within_limits();
        // The other one is gone: the robot is armed anew as ever.
        drop(second);
        until("standby", || {
            drop(stage.ask(keys::mode, "standby"));
            drop(stage.ask(keys::mode, "reset"));
            stage
                .ask(keys::mode, "status")
                .is_ok_and(|said| said.starts_with("standby"))
        });
        stage.arm();
        stage.within_limits();
    });
}

/// What the motor controller did for an earlier one, or for an arming that came to nothing, stands in nobody's way.
#[test]
fn a_runtime_that_is_started_anew_arms_the_motor_controller_that_the_last_one_moved() {
    told(|| {
        let setting = Setting::default();
        let mut stage = Stage::new(&setting);
        let config = stage.folder.path().join("tendon.toml");
        for _ in 0..2 {
            signal(&stage.runtime, "TERM");
            assert_eq!(ended(&mut stage.runtime, Duration::from_secs(6)), Some(0));
            let again = stage::runtime(&config, &stage.state, &setting).spawn();
            stage.runtime = again.expect("the runtime starts");
            until("an answer", || stage.ask(keys::mode, "status").is_ok());
            stage.until_granted(keys::instruction, "put the red block in the left bin");
            stage.arm();
        }
        for pause_ms in [0, 1, 5, 20] {
            stage.until_granted(keys::mode, "standby");
            until("armed", || stage.ask(keys::mode, "active").is_ok());
            demo::pause(pause_ms);
            drop(stage.ask(keys::mode, "standby"));
            stage.arm();
        }
        stage.within_limits();
    });
}
