// SPDX-License-Identifier: Apache-2.0
//! Configuration, bundle, link, motor controller and cameras: what arming asks for.

use super::unit::{Grant, Unit};
use super::{Finding, asked, cameras, echo, hosts, sandbox};
use crate::config::Config;
use crate::config::lines::Wire;
use crate::config::link::LinkConfig;
use crate::config::problem::Problem;
use crate::core::wire::command::{CommandReceiver, MODE_FOLLOW};
use crate::core::wire::state::{Report, StateReceiver};
use crate::link::runtime_end::subscribe;
use crate::link::session::{self, LinkError};
use crate::link::{keys, operator_end};
use crate::runtime::cameras::Reach;
use crate::runtime::clock;
use crate::runtime::deployment::{Deployment, Identities};
use crate::runtime::health::Tree;
use crate::runtime::lines;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use zenoh::Session;

/// What the configuration check gives to those after it.
#[derive(Debug)]
pub struct Fitted {
    /// Where it was read from.
    pub path: PathBuf,
    /// The deployment's configuration.
    pub config: Config,
    /// Its streams.
    pub identities: Identities,
}

/// Reads the configuration and fits bundle and robot to it.
#[must_use]
pub fn configuration(path: &Path) -> (Vec<Finding>, Option<Fitted>) {
    const CHECK: &str = "configuration";
    let bad = |check, problems: Vec<Problem>| {
        let findings = problems.into_iter().map(|problem| {
            Finding::bad(
                check,
                format!("{}: found {}", problem.at, problem.found),
                format!("expected {}", problem.expected),
            )
        });
        findings.collect::<Vec<Finding>>()
    };
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => return (bad(CHECK, problems), None),
    };
    let mut findings = vec![Finding::good(
        CHECK,
        format!(
            "{}: robot \"{}\", {} joints",
            path.display(),
            config.robot.name,
            config.robot.joints.len()
        ),
    )];
    let identities = Identities::of(&config.robot.name, &config.robot.joints);
    match Deployment::load(config.clone()) {
        Ok(deployment) => findings.push(Finding::good(
            "bundle",
            format!(
                "\"{}\" fits robot and camera, hashes and parity fixture agree",
                deployment.policy_name
            ),
        )),
        Err(problems) => findings.extend(bad("bundle", problems)),
    }
    let contacts = config.lines.emergency.iter().chain(&config.lines.deadman);
    let wired = contacts.filter(|contact| !matches!(contact.wire, Wire::Link { .. }));
    let unreadable = lines::unreadable(&config.lines);
    match (wired.count(), unreadable.is_empty()) {
        (0, _) => {}
        (_, true) => findings.push(Finding::good("lines", "each wired contact can be read")),
        (_, false) => findings.extend(unreadable.into_iter().map(|why| {
            let fix = "what docs/operating.md says of contacts; until then it counts as open, and nothing is armed";
            Finding::bad("lines", why, fix)
        })),
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let fitted = Fitted {
        path,
        config,
        identities,
    };
    (findings, Some(fitted))
}

/// What the deployment asks of the machine by name, judged by the unit that starts it where one is installed, and what that
/// unit keeps from it. With `acknowledged`, a crash or stop of an earlier run counts as acknowledged.
#[must_use]
pub fn machine(tree: &Tree, fitted: &Fitted, acknowledged: bool) -> Vec<Finding> {
    let config = &fitted.config;
    let unit = Unit::that_starts(tree, &fitted.path);
    let unit = unit.as_ref();
    let grant = Grant::of(tree, unit);
    let mut findings = asked::realtime(tree, &config.realtime, &grant);
    findings.extend(asked::state(tree, &config.robot.name, unit, acknowledged));
    if let Some(watchdog) = &config.watchdog {
        findings.push(asked::hardware_watchdog(tree, watchdog, unit));
    }
    if let Some(unit) = unit {
        findings.push(hosts::finding(config, unit));
        findings.extend(sandbox::gpu(tree, &config.policy, unit));
        findings.push(sandbox::files(tree, &fitted.path, config, unit));
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.link.tls {
        let now_s = clock::utc_s();
        findings.extend(super::certificates::of_link(tls, now_s));
    }
    findings
}

/// Looks at the link for `patience`: is the motor controller there, and do pictures come? Or, if a runtime holds the link
/// already, does that one answer? Then cameras of this machine, unless that runtime has them. Without `patience` nothing is
/// looked for on the link but such a runtime.
#[must_use]
pub fn world(fitted: &Fitted, patience: Option<Duration>) -> Vec<Finding> {
    const CHECK: &str = "link";
    let (config, link) = (&fitted.config, &fitted.config.link);
    let Some(patience) = patience else {
        // Only whether a runtime has the cameras is asked.
        let mut findings = match asked_for_status(fitted) {
            Some(answer) => [vec![answer], cameras::in_use(config)].concat(),
            None => cameras::here(config),
        };
        findings.extend(cameras::far_unseen(config));
        return findings;
    };
    let mut findings = match session::open(link) {
        Ok(session) => {
            // Behind a router it is not the endpoint that tells of another runtime.
            let running = link.connect.as_ref().and_then(|_| status(&session, fitted));
            let mut findings = motor_controller(&session, fitted, patience, running.is_none());
            let reach = Reach {
                session: &session,
                robot: &config.robot.name,
                pictures: fitted.identities.pictures,
            };
            findings.extend(cameras::over_link(config, reach, as_ns(patience)));
            if config.lines.deadman_over_link() {
                findings.push(far_switch(&session, fitted, patience));
            }
            if let Some(answer) = running {
                findings.push(answer);
                findings.extend(cameras::in_use(config));
                return findings;
            }
            findings
        }
        Err(error) if link.listen.is_some() => {
            return match asked_for_status(fitted) {
                Some(answer) => [vec![answer], cameras::in_use(config)].concat(),
                None => vec![Finding::bad(
                    CHECK,
                    format!(
                        "{error}; and no runtime of robot \"{}\" answers there",
                        config.robot.name
                    ),
                    "end what holds the endpoint (ss -ltnp), or change link.listen",
                )],
            };
        }
        Err(error) => vec![Finding::bad(
            CHECK,
            error.to_string(),
            "check link.connect in tendon.toml",
        )],
    };
    findings.extend(cameras::here(config));
    findings
}

fn as_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn ends(link: &LinkConfig) -> String {
    let listen = link
        .listen
        .iter()
        .map(|endpoint| format!("listening on {endpoint}"));
    let connect = link
        .connect
        .iter()
        .map(|endpoint| format!("connecting to {endpoint}"));
    listen.chain(connect).collect::<Vec<String>>().join(", ")
}

/// We hold the link ourselves: what the motor controller tells and, if we are `alone` and nobody else commands it, whether it
/// takes what is sent.
fn motor_controller(
    session: &Session,
    fitted: &Fitted,
    patience: Duration,
    alone: bool,
) -> Vec<Finding> {
    const CHECK: &str = "motor controller";
    const COUNTED: usize = 20;
    let robot = &fitted.config.robot.name;
    let mut findings = vec![Finding::good("link", ends(&fitted.config.link))];
    let (sender, states) = mpsc::sync_channel(1024);
    let mut receiver = StateReceiver::new(fitted.identities.states);
    let subscriber = subscribe(session, keys::state(robot), move |frame| {
        let now = clock::now();
        // Full, or nobody there any more: enough was seen.
        let _ = sender.try_send((now, receiver.accept(now, frame)));
    });
    let subscriber = match subscriber {
        Ok(subscriber) => subscriber,
        Err(error) => {
            findings.push(Finding::bad(
                CHECK,
                error.to_string(),
                "restart zenoh, or this machine's network",
            ));
            return findings;
        }
    };
    let give_up = clock::now().plus_ns(as_ns(patience));
    let mut reports: Vec<(crate::core::units::Mono, Report)> = Vec::new();
    let (mut refused, mut asked) = (None, None);
    while reports.len() < COUNTED {
        let left = Duration::from_nanos(give_up.since_ns(clock::now()));
        match states.recv_timeout(left) {
            Ok((at, Ok((report, _)))) => reports.push((at, report)),
            Ok((_, Err(reject))) => refused = Some(reject),
            Err(_) => break,
        }
    }
    if let Some((_, last)) = reports.last()
        && alone
        && !echo::is_spoken_to(&reports)
    {
        asked = Some(echo::asked(session, fitted, &states, last));
    }
    drop(subscriber);
    findings.push(match (reports.first(), reports.last(), refused) {
        (Some((first_at, first)), Some((last_at, last)), _) => {
            let spent_ns = last_at.since_ns(*first_at).max(1);
            let hz = (reports.len() - 1) as f64 * 1e9 / spent_ns as f64;
            let lost = last.counter.wrapping_sub(first.counter).saturating_sub(u32::try_from(reports.len() - 1).unwrap_or(0));
            let found = format!("reports at {hz:.0} Hz, {lost} lost, mode {:?}", last.mode);
            let needed_hz = 1e9 / fitted.config.control.state_age_max_ns as f64;
            if reports.len() < 2 || hz < needed_hz {
                Finding::bad(
                    CHECK,
                    found,
                    format!("control.state_age_max_ms asks for more than {needed_hz:.0} Hz: raise the controller's rate, or that age"),
                )
            } else {
                Finding::good(CHECK, found)
            }
        }
        (_, _, Some(reject)) => Finding::bad(
            CHECK,
            format!("its state frames are refused: {reject:?}"),
            "robot.toml must name the same robot and the same joints in the same order as the motor controller; docs/wire.md",
        ),
        (_, _, None) => Finding::bad(
            CHECK,
            format!("no state under {} within {:.1} s", keys::state(robot), patience.as_secs_f64()),
            "is it running, and set to this endpoint? beyond loopback: same user and password, and a firewall that lets it through?",
        ),
    });
    findings.extend(asked);
    findings
}

/// A deadman switch that is told over the link: nobody need be there yet to hold it.
fn far_switch(session: &Session, fitted: &Fitted, patience: Duration) -> Finding {
    const CHECK: &str = "deadman switch";
    let key = keys::deadman(&fitted.config.robot.name);
    let (sender, frames) = mpsc::sync_channel(1);
    let mut receiver = CommandReceiver::new(fitted.identities.deadman);
    let subscriber = subscribe(session, key.clone(), move |frame| {
        // Full, or nobody there any more: enough was seen.
        let _ = sender.try_send(receiver.accept(clock::now(), frame));
    });
    let heard = subscriber.map(|_subscriber| frames.recv_timeout(patience));
    let fix = "nothing is armed before one tells: `tendon deadman` at whoever holds it";
    match heard {
        Ok(Ok(Ok((command, _)))) if command.mode == MODE_FOLLOW => {
            Finding::good(CHECK, format!("told under {key}: held"))
        }
        Ok(Ok(Ok(_))) => Finding::good(CHECK, format!("told under {key}: not held")),
        Ok(Ok(Err(reject))) => Finding::warning(
            CHECK,
            format!("frames under {key} are refused: {reject}"),
            fix,
        ),
        Ok(Err(_)) => {
            let waited_s = patience.as_secs_f64();
            let found = format!("nothing under {key} within {waited_s:.1} s");
            Finding::warning(CHECK, found, fix)
        }
        Err(error) => Finding::warning(CHECK, error.to_string(), fix),
    }
}

/// What a runtime of this robot that runs already answers, asked as anybody may; `None` if none does. Nothing changes.
fn asked_for_status(fitted: &Fitted) -> Option<Finding> {
    let link = &fitted.config.link;
    let client = LinkConfig {
        listen: None,
        connect: link.listen.clone().or_else(|| link.connect.clone()),
        credentials: link.credentials.clone(),
        tls: link.tls.clone(),
    };
    status(&session::open(&client).ok()?, fitted)
}

fn status(session: &Session, fitted: &Fitted) -> Option<Finding> {
    const CHECK: &str = "running runtime";
    let asked = clock::now();
    match operator_end::ask(session, &keys::mode(&fitted.config.robot.name), "status") {
        Ok(status) | Err(LinkError::Refused(status)) => {
            let round_trip_ms = clock::now().since_ns(asked) as f64 / 1e6;
            Some(Finding::good(
                CHECK,
                format!(
                    "answers in {round_trip_ms:.1} ms, zenoh and back: \"{status}\"; it watches motor controller and cameras itself"
                ),
            ))
        }
        Err(_) => None,
    }
}
