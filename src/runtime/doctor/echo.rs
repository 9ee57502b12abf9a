// SPDX-License-Identifier: Apache-2.0
//! Whether commands reach the motor controller and are taken there, as arming asks for it: keep-alives, which move nothing,
//! and their echo in its states. Only where nobody else speaks to it.

use super::Finding;
use super::deployment::Fitted;
use crate::core::action::Setpoint;
use crate::core::units::{MS, Mono};
use crate::core::wire::command::{self, COMMAND_LEN_MAX, Command};
use crate::core::wire::reject::Reject;
use crate::core::wire::state::{MotorMode, Report};
use crate::link::keys;
use crate::link::runtime_end::CommandSender;
use crate::runtime::clock;
use std::sync::mpsc;
use std::time::Duration;
use zenoh::Session;

/// What the subscriber hands on: when a frame came, and what it said.
pub(super) type Heard = (Mono, Result<(Report, bool), Reject>);

/// Sent for so long.
const ASKING_NS: u64 = 300 * MS;
/// Echoes that come for so long after the last one count.
const WAITING_NS: u64 = 200 * MS;

/// Whether somebody commands it, as `reports` tell.
pub(super) fn is_spoken_to(reports: &[(Mono, Report)]) -> bool {
    let said = |report: &Report| (report.echo_counter, report.accepted, report.rejected);
    let first = reports.first().map(|(_, report)| said(report));
    reports
        .iter()
        .any(|(_, report)| report.mode == MotorMode::Following || Some(said(report)) != first)
}

/// Sends keep-alives at the control rate with the pose that was measured, and waits for their echo.
pub(super) fn asked(
    session: &Session,
    fitted: &Fitted,
    states: &mpsc::Receiver<Heard>,
    state: &Report,
) -> Finding {
    const CHECK: &str = "commands";
    let robot = &fitted.config.robot.name;
    let sender = match CommandSender::new(session, robot) {
        Ok(sender) => sender,
        Err(error) => {
            let fix = "restart zenoh, or this machine's network";
            return Finding::bad(CHECK, error.to_string(), fix);
        }
    };
    let period_ns = fitted.config.control.period_ns;
    let pose = Setpoint::at_rest(state.state.positions());
    let mut frame = [0; COMMAND_LEN_MAX];
    // By counter, from 1.
    let mut sent: Vec<Mono> = Vec::new();
    let mut way_ns: Vec<u64> = Vec::new();
    let mut last: Option<Report> = None;
    let mut echoed = 0;
    let end = clock::now().plus_ns(ASKING_NS);
    let mut now = clock::now();
    while now < end.plus_ns(WAITING_NS) {
        if now < end {
            let counter = u32::try_from(sent.len() + 1).unwrap_or(u32::MAX);
            let command = Command::keep_alive(counter, now, pose);
            let length = command::encode(&command, fitted.identities.commands, &mut frame);
            // A refused put is one that is not echoed.
            drop(sender.send(frame.get(..length.unwrap_or(0)).unwrap_or_default()));
            sent.push(now);
        }
        let next = now.plus_ns(period_ns);
        while let Ok((at, heard)) =
            states.recv_timeout(Duration::from_nanos(next.since_ns(clock::now())))
        {
            let Ok((report, _)) = heard else { continue };
            let of = (report.echo_counter as usize).checked_sub(1);
            // One that was echoed before tells no way.
            if report.echo_counter > echoed
                && let Some(left) = of.and_then(|of| sent.get(of))
            {
                echoed = report.echo_counter;
                way_ns.push(at.since_ns(*left));
            }
            last = Some(report);
        }
        now = clock::now();
    }
    way_ns.sort_unstable();
    match (way_ns.get(way_ns.len() / 2), last) {
        (Some(median_ns), _) => Finding::good(
            CHECK,
            format!(
                "keep-alives are echoed after {:.1} ms: zenoh, its loop, and back (median of {})",
                *median_ns as f64 / 1e6,
                way_ns.len()
            ),
        ),
        (None, Some(report)) => {
            let refused = report.rejected.wrapping_sub(state.rejected);
            let reject = Reject::from_code(report.last_reject).filter(|_| refused > 0);
            let none = format!("it echoes none of {} keep-alives", sent.len());
            let (found, fix) = match reject {
                Some(reject) => (
                    format!("{none} and refuses {refused}: {reject}"),
                    "what each reason means: docs/wire.md".to_owned(),
                ),
                None => (
                    format!("{none} and refuses none: they do not arrive"),
                    format!(
                        "does it listen to {}, and does the access list let this end put it?",
                        keys::command(robot)
                    ),
                ),
            };
            Finding::bad(CHECK, found, fix)
        }
        (None, None) => Finding::bad(
            CHECK,
            "its states ended while it was asked",
            "look at its log, and at the network",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::link::LinkConfig;
    use crate::core::observation::JointState;
    use crate::core::wire::state::{self, STATE_LEN_MAX, StateReceiver};
    use crate::link::robot_end::RobotEnd;
    use crate::link::runtime_end::subscribe;
    use crate::link::session;
    use crate::runtime::deployment::Identities;
    use crate::runtime::doctor::Verdict;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn report(counter: u32, joints: usize) -> Report {
        Report {
            counter,
            epoch: 0,
            boot_id: 1,
            echo_counter: 0,
            accepted: 0,
            rejected: 0,
            limit_violations: 0,
            mode: MotorMode::Idle,
            last_reject: 0,
            state: JointState {
                joints,
                measured: clock::now(),
                ..JointState::NEVER
            },
        }
    }

    #[test]
    fn one_that_is_commanded_is_not_asked() {
        let quiet = |counter| (Mono(u64::from(counter)), report(counter, 1));
        assert!(!is_spoken_to(&[]) && !is_spoken_to(&[quiet(1), quiet(2)]));
        type Change = fn(&mut Report);
        let signs: [Change; 4] = [
            |report| report.echo_counter += 1,
            |report| report.accepted += 1,
            |report| report.rejected += 1,
            |report| report.mode = MotorMode::Following,
        ];
        for sign in signs {
            let mut later = quiet(2);
            sign(&mut later.1);
            assert!(is_spoken_to(&[quiet(1), later]), "{later:?}");
        }
    }

    /// A motor controller that hears every command and answers as `answer` says.
    fn asked_of(answer: fn(&mut Report, u32)) -> Finding {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench/tendon.toml");
        let mut config = crate::config::Config::load(&bench).expect("the bench's deployment");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let endpoint = format!("tcp/{}", port.expect("a free port"));
        config.link.listen = Some(endpoint.clone());
        let ours = session::open(&config.link).expect("opens");
        let theirs = LinkConfig {
            connect: Some(endpoint),
            ..LinkConfig::default()
        };
        let theirs = session::open(&theirs).expect("opens");
        let fitted = Fitted {
            path: bench,
            identities: Identities::of(&config.robot.name, &config.robot.joints),
            config,
        };
        let (robot, joints) = (
            fitted.config.robot.name.clone(),
            fitted.config.robot.joints.len(),
        );
        let (sender, states) = mpsc::sync_channel(1024);
        let mut receiver = StateReceiver::new(fitted.identities.states);
        let _states = subscribe(&ours, keys::state(&robot), move |frame| {
            let now = clock::now();
            let _ = sender.try_send((now, receiver.accept(now, frame)));
        })
        .expect("declared");
        let ending = Arc::new(AtomicBool::new(false));
        let (end, identities) = (Arc::clone(&ending), fitted.identities);
        let motor = std::thread::spawn(move || {
            let link = RobotEnd::new(&theirs, &robot).expect("declared");
            let mut said = report(0, joints);
            let mut frame = [0; STATE_LEN_MAX];
            while !end.load(Ordering::Relaxed) {
                for bytes in link.commands.try_iter() {
                    let command = command::decode(&bytes, identities.commands).expect("ours");
                    assert_eq!(command.mode, command::MODE_KEEP_ALIVE, "nothing moves");
                    answer(&mut said, command.counter);
                }
                said.counter += 1;
                said.state.measured = clock::now();
                let length = state::encode(&said, identities.states, &mut frame).expect("fits");
                link.send_state(&frame[..length]);
                clock::sleep_until(clock::now().plus_ns(5 * MS));
            }
        });
        let first = loop {
            let heard: Heard = states
                .recv_timeout(Duration::from_secs(10))
                .expect("a state");
            if let Ok((report, _)) = heard.1 {
                break report;
            }
        };
        let found = asked(&ours, &fitted, &states, &first);
        ending.store(true, Ordering::Relaxed);
        motor.join().expect("no panic");
        found
    }

    #[test]
    fn an_echo_is_timed_a_refusal_named_and_silence_told() {
        let good = asked_of(|report, counter| report.echo_counter = counter);
        assert_eq!(good.verdict, Verdict::Good, "{good:?}");
        assert!(good.found.contains("are echoed after"), "{good:?}");
        let refused = asked_of(|report, _| {
            report.rejected += 1;
            report.last_reject = Reject::Schema as u8;
        });
        assert_eq!(refused.verdict, Verdict::Bad);
        assert!(refused.found.contains("joint schema"), "{refused:?}");
        let deaf = asked_of(|_, _| {});
        assert_eq!(deaf.verdict, Verdict::Bad);
        assert!(deaf.found.contains("they do not arrive"), "{deaf:?}");
    }
}
