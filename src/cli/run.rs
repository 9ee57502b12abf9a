// SPDX-License-Identifier: Apache-2.0
//! `tendon run`: the pipeline of a deployment. Starts in standby; `tendon instruct` and `tendon mode active` do the rest.

use crate::cli::Failure;
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tendon::config::Config;
use tendon::config::link::LinkConfig;
use tendon::config::realtime::RealtimeMode;
use tendon::link::session;
use tendon::operator::{self, Operator};
use tendon::runtime::crash::{self, Recorder};
use tendon::runtime::crew::Crew;
use tendon::runtime::deployment::Deployment;
use tendon::runtime::isolation::{self, How};
use tendon::runtime::latch::LatchFile;
use tendon::runtime::memory::Memory;
use tendon::runtime::mind::Mind;
use tendon::runtime::pipeline;
use tendon::runtime::service;
use tendon::runtime::threads;
use tendon::sync::heartbeat::Failing;
use zenoh::Session;

/// How long the robot is given to come to rest before the program ends.
const REST: Duration = Duration::from_secs(3);

/// Arguments of `tendon run`.
#[derive(Debug, Args)]
pub struct Options {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
    /// For drills: at SIGUSR1 this thread fails, e.g. panic:governor, hang:inference or babble:capture.
    #[arg(long, value_name = "HOW:THREAD", hide = true, value_parser = parse_drill)]
    drill: Option<(&'static str, Failing)>,
    #[command(flatten)]
    unproven: super::Unproven,
}

pub(super) fn parse_drill(text: &str) -> Result<(&'static str, Failing), String> {
    let (how, name) = text.split_once(':').unwrap_or((text, ""));
    let failing = match how {
        "panic" => Failing::Panic,
        "hang" => Failing::Hang,
        "babble" => Failing::Babble,
        other => return Err(format!("expected panic, hang or babble, found \"{other}\"")),
    };
    let names = threads::ALL.map(|spec| spec.name);
    match names.into_iter().find(|known| *known == name) {
        Some(name) => Ok((name, failing)),
        None => Err(format!(
            "expected one of {}, found \"{name}\"",
            names.join(", ")
        )),
    }
}

/// At SIGUSR1, makes a thread fail. The signal reaches a thread that does nothing else.
pub(super) fn drill(crew: &Crew, name: &str, failing: Failing) -> Result<(), String> {
    let beat = crew.beats.iter().find(|(spec, _)| spec.name == name);
    let Some((_, beat)) = beat.cloned() else {
        return Err(format!("--drill: no thread {name} runs"));
    };
    let mut signals = Signals::new([SIGUSR1]).map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            beat.fail(failing);
        }
    });
    Ok(())
}

/// Where a crash and a latched stop of this process would be written, and what an earlier one left.
fn memory(robot: &str) -> Result<Memory, Failure> {
    let directory = crash::state_directory().ok_or_else(|| {
        Failure::Failed(
            "no state directory: set STATE_DIRECTORY to one that can be written to".to_owned(),
        )
    })?;
    let recorder = Arc::new(Recorder::open(&directory, robot).map_err(Failure::failed)?);
    let latch = LatchFile::open(&directory, robot).map_err(Failure::failed)?;
    if let Some(cause) = latch.kept() {
        eprintln!(
            "tendon: stopped before the restart: {}\ntendon: the robot is not armed before: tendon mode reset",
            cause.words()
        );
    }
    crash::hook(Arc::clone(&recorder));
    if let Some(crash) = recorder.pending() {
        eprintln!(
            "tendon: an earlier run crashed: {}\ntendon: the robot is not armed before: tendon mode reset",
            crash.words()
        );
    }
    Ok(Memory { recorder, latch })
}

/// Runs the verb, until Ctrl-C or SIGTERM; the robot comes to rest first.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let ending = super::ending()?;
    let config = Config::load(&options.config).map_err(super::problems)?;
    let miss = options.unproven.parity_miss();
    // A thread of the inference process fails there.
    let apart = |(name, _): &(&str, Failing)| ["inference", "capture"].contains(name);
    let mut here = options.drill;
    if !config.isolation.process {
        let deployment = Deployment::load_with(config, miss).map_err(super::problems)?;
        return drive(deployment, here, &ending);
    }
    let mut how = How {
        config: options.config.clone(),
        parity_miss: miss,
        arguments: Vec::new(),
    };
    if let Some((name, failing)) = here.take_if(|drill| apart(drill)) {
        let how_it_fails = match failing {
            Failing::Panic => "panic",
            Failing::Hang => "hang",
            Failing::Babble => "babble",
        };
        how.arguments = vec!["--drill".into(), format!("{how_it_fails}:{name}").into()];
    }
    let deployment = isolation::load(config, how).map_err(super::problems)?;
    drive(deployment, here, &ending)
}

/// The link, its threads ahead of other normal ones as `[realtime]` says.
fn open_link(link: &LinkConfig, mode: RealtimeMode) -> Result<Session, Failure> {
    if mode == RealtimeMode::Off {
        return session::open(link).map_err(Failure::failed);
    }
    let (session, nice) = session::open_ahead(link).map_err(Failure::failed)?;
    log::info!("threads of the link: nice {nice}");
    if nice <= session::NICE {
        return Ok(session);
    }
    let missing = format!(
        "threads of the link asked for nice {}, the kernel gives {nice}: on a busy machine commands come late; start as a \
         service with LimitNICE={0}, or give the user \"- nice {0}\" in /etc/security/limits.conf and log in again",
        session::NICE
    );
    if mode == RealtimeMode::Require {
        return Err(Failure::Failed(missing));
    }
    log::warn!("{missing}");
    Ok(session)
}

/// The pipeline of a deployment that is loaded, until `ending`.
fn drive(
    deployment: Deployment<impl Mind>,
    failing: Option<(&'static str, Failing)>,
    ending: &AtomicBool,
) -> Result<(), Failure> {
    let config = &deployment.config;
    let (page, link) = (config.page.clone(), config.link.clone());
    let robot = config.robot.name.clone();
    for miss in &deployment.parity.missed {
        eprintln!("tendon: the policy misses its parity fixture and was let through: {miss}");
    }
    let session = open_link(&link, config.realtime.mode)?;
    let memory = memory(&robot)?;
    let running =
        pipeline::start_recorded(deployment, &session, 0, Some(memory)).map_err(Failure::failed)?;
    if let Some((name, failing)) = failing {
        drill(&running.crew, name, failing).map_err(Failure::Usage)?;
    }
    let page = match page {
        Some(page) => {
            let desk = Arc::clone(&running.desk) as Arc<dyn Operator>;
            let served = operator::serve(page.listen, desk).map_err(Failure::failed)?;
            if let Some(path) = &page.token_file {
                served.leave_token(path).map_err(Failure::failed)?;
            }
            Some(served)
        }
        None => None,
    };
    if let Some(page) = &page {
        println!("Watch and instruct: {}", page.url);
    }
    println!("standby; arm with: tendon mode active");
    // The flag is set before this wakes: its handlers are older.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::failed)?;
    running.ready();
    while !ending.load(Ordering::Relaxed) {
        signals.wait();
    }
    // The robot first: a service manager that does not read keeps whoever tells it something.
    let at_rest = running.desk.come_to_rest(REST);
    service::stopping();
    if at_rest {
        println!("at rest");
        Ok(())
    } else {
        Err(Failure::Failed(
            "the robot did not report rest in time; its motor controller stops it by itself"
                .to_owned(),
        ))
    }
}
