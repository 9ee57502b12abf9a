// SPDX-License-Identifier: Apache-2.0
//! Two runtimes for one robot: started by mistake, both reach its motor controller, each has a state directory of its own, as on two
//! machines.

use crate::stage::{self, Setting, Stage, connect, free_endpoint, locked, over_again, until};
use tendon::core::wire::state::{MotorMode, Report};
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

/// The motor controller hears two streams where one should be: it stops, and follows neither of them as long as there are two.
#[test]
fn a_second_runtime_of_the_same_robot_ends_the_arming_and_moves_nothing() {
    over_again(|| {
        let mut stage = Stage::new(&Setting::default());
        let folder = tempfile::tempdir().expect("a folder");
        let own = free_endpoint();
        let config = stage::deploy(folder.path(), &own, "");
        let text = std::fs::read_to_string(&config).expect("just written");
        let (listens, connects) = ("[link]\n", format!("[link]\nconnect = \"{}\"\n", stage.tap));
        let joins = text.replacen(listens, &connects, 1);
        assert_ne!(joins, text);
        std::fs::write(&config, joins).expect("written");
        let setting = Setting::default();
        let second = stage::runtime(&config, &folder.path().join("state"), &setting).spawn();
        let second = Other(second.expect("the second runtime starts"));
        let follows = |reports: &Vec<Report>| {
            let newest = reports.last();
            newest.is_some_and(|report| report.mode == MotorMode::Following)
        };
        until("the motor controller stops", || {
            !locked(&stage.reports, follows)
        });
        let from = locked(&stage.reports, Vec::len);
        // It is said, and nobody gets it to move: both answer.
        let began = clock::now();
        let mut said = Vec::new();
        let at_second = connect(&own);
        let asks_second = |key: fn(&str) -> String, words: &str| {
            drop(operator_end::ask(&at_second, &key("bench"), words));
        };
        asks_second(keys::instruction, "touch the red block");
        while clock::now().since_ns(began) < 3_000_000_000 {
            for word in ["reset", "active"] {
                drop(stage.ask(keys::mode, word));
                asks_second(keys::mode, word);
            }
            said.extend(stage.ask(keys::mode, "status"));
            demo::pause(50);
        }
        locked(&stage.reports, |reports| {
            let after = reports.get(from..).unwrap_or_default();
            let followed = after
                .iter()
                .filter(|report| report.mode == MotorMode::Following);
            assert_eq!(followed.count(), 0, "{said:?}");
            assert!(after.iter().any(|report| report.rejected > 0), "{said:?}");
        });
        let why =
            |words: &String| words.contains("refuses our commands") || words.starts_with("stopped");
        assert!(said.iter().any(why), "{said:?}");
        stage.within_limits();
        // The other one is gone; what it cost is acknowledged, if it latched, and the robot armed anew.
        drop(second);
        until("reset", || {
            drop(stage.ask(keys::mode, "reset"));
            stage
                .ask(keys::mode, "status")
                .is_ok_and(|said| said.starts_with("standby"))
        });
        stage.arm();
        stage.within_limits();
    });
}
