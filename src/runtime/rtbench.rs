// SPDX-License-Identifier: Apache-2.0
//! How late this machine wakes the control loop, idle and with all cores busy, beside other loops at the same rate in
//! the same run: `cyclictest` at the same priority, and whatever peer program is named. And how long a command takes to
//! a motor controller over the link.
//!
//! The loops of a phase run at the same time, so that each meets the same machine.

use crate::config::link::{LinkConfig, Tls};
use crate::core::action::Setpoint;
use crate::core::units::MS;
use crate::core::wire::command::{self, COMMAND_LEN_MAX, Command as MotorCommand};
use crate::core::wire::{Identity, Kind, data_id};
use crate::link::robot_end::RobotEnd;
use crate::link::runtime_end::CommandSender;
use crate::link::session::{self, LinkError};
use crate::runtime::clock::{self, Ticks};
use crate::runtime::realtime::{self, MemoryLock};
use crate::runtime::telemetry::{Spread, histogram, spread};
use serde::Serialize;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of each phase.
    pub seconds: u64,
    /// Ticks a second.
    pub hz: u64,
    /// `SCHED_FIFO` priority of our loop and of `cyclictest`.
    pub fifo: i32,
    /// Programs that are given `--seconds S --hz H` and print one JSON object each.
    pub peers: Vec<String>,
    /// Certificates, good for both ends: the hop over mutual TLS and over QUIC is measured as well.
    pub tls: Option<Tls>,
}

/// How late one loop woke.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lateness {
    /// Rounds.
    pub ticks: u64,
    /// Whole periods in which it did not come round; absent where the program does not tell.
    pub missed: Option<u64>,
    /// Priority that the kernel granted; 0 for none.
    pub fifo: i32,
    /// Time between when a tick was due and when it came.
    pub late_us: Spread,
}

/// One phase.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Busy threads beside it: one a core, or none.
    pub load_threads: usize,
    /// Our control loop's ticks.
    pub tendon: Lateness,
    /// `cyclictest` of rt-tests; absent if it is not installed.
    pub cyclictest: Option<Lateness>,
    /// What the peers printed, in the order in which they were named.
    pub peers: Vec<serde_json::Value>,
    /// From just before the put to the motor controller's side of another session, TCP on loopback.
    pub command_hop_us: Spread,
    /// Commands of it that arrived.
    pub hops: u64,
    /// Niceness of the link's threads as granted; the runtime asks for -10.
    pub link_nice: i32,
    /// The same over mutual TLS, in the same seconds; absent without certificates.
    pub command_hop_tls_us: Option<Spread>,
    /// The same over QUIC, whose commands are datagrams.
    pub command_hop_quic_us: Option<Spread>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nominal rate.
    pub hz: u64,
    /// Length of each phase.
    pub seconds: u64,
    /// Cores of the machine.
    pub cores: usize,
    /// Memory that is locked.
    pub locked_kib: u64,
    /// Nothing else of ours runs.
    pub idle: Phase,
    /// One busy thread a core.
    pub loaded: Phase,
}

/// Runs both phases.
///
/// # Errors
/// [`LinkError`] if the link between the two sessions cannot be opened.
pub fn run(settings: &Settings) -> Result<Report, LinkError> {
    let MemoryLock { locked_kib, .. } = realtime::lock_memory();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Report {
        hz: settings.hz,
        seconds: settings.seconds,
        cores,
        locked_kib,
        idle: phase(settings, 0)?,
        loaded: phase(settings, cores)?,
    })
}

fn phase(settings: &Settings, load_threads: usize) -> Result<Phase, LinkError> {
    let ending = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..load_threads)
        .map(|_| {
            let ends = Arc::clone(&ending);
            std::thread::spawn(move || multiply(&ends))
        })
        .collect();
    let copy = settings.clone();
    let cyclic = std::thread::spawn(move || cyclictest(&copy));
    let peers = settings.peers.iter().map(|peer| {
        let (copy, peer) = (settings.clone(), peer.clone());
        std::thread::spawn(move || run_peer(&copy, &peer))
    });
    let peers: Vec<_> = peers.collect();
    let copy = settings.clone();
    let own = std::thread::spawn(move || tick(&copy));
    let secure = ["tls", "quic"].map(|protocol| {
        settings.tls.as_ref()?;
        let copy = settings.clone();
        Some(std::thread::spawn(move || hops(&copy, protocol)))
    });
    let hop = hops(settings, "tcp");
    let [tls, quic] = secure.map(|thread| thread.and_then(|thread| thread.join().ok()).transpose());
    let tendon = own.join();
    let cyclictest = cyclic.join().ok().flatten();
    let peers = peers.into_iter().filter_map(|peer| peer.join().ok());
    let peers = peers.collect();
    ending.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| drop(thread.join()));
    let hop = hop?;
    let command_hop_tls_us = tls?.map(|hop| hop.took_us);
    let command_hop_quic_us = quic?.map(|hop| hop.took_us);
    Ok(Phase {
        load_threads,
        // The loop has no way to panic; a thread that did would have said so.
        tendon: tendon.unwrap_or(Lateness {
            ticks: 0,
            missed: None,
            fifo: 0,
            late_us: Spread::default(),
        }),
        cyclictest,
        peers,
        command_hop_us: hop.took_us,
        hops: hop.arrived,
        link_nice: hop.nice,
        command_hop_tls_us,
        command_hop_quic_us,
    })
}

/// Our loop: the control thread's clock and nothing else.
fn tick(settings: &Settings) -> Lateness {
    let seat = realtime::take_seat(settings.fifo, &[]);
    let mut late = histogram();
    let mut ticks = Ticks::new(clock::now(), 1_000 * MS / settings.hz.max(1));
    let end = clock::now().plus_ns(settings.seconds * 1_000 * MS);
    loop {
        let tick = ticks.wait();
        late.saturating_record(tick.late_ns);
        if tick.woke >= end {
            break;
        }
    }
    Lateness {
        ticks: late.len(),
        missed: Some(ticks.missed),
        fifo: seat.fifo,
        late_us: spread(&late, 1e-3),
    }
}

/// What a CPU engine does all day: multiply and add, over more than the first cache holds.
fn multiply(ending: &AtomicBool) {
    const SIDE: usize = 160;
    let (a, b) = (
        vec![1.000_1_f32; SIDE * SIDE],
        vec![0.999_9_f32; SIDE * SIDE],
    );
    let mut c = vec![0.0_f32; SIDE * SIDE];
    while !ending.load(Ordering::Relaxed) {
        for (row, out) in a.chunks(SIDE).zip(c.chunks_mut(SIDE)) {
            for (factor, column) in row.iter().zip(b.chunks(SIDE)) {
                out.iter_mut()
                    .zip(column)
                    .for_each(|(sum, x)| *sum += factor * x);
            }
        }
        std::hint::black_box(&mut c);
    }
}

/// Longest lateness that `cyclictest` keeps apart, in microseconds.
const CYCLIC_US: usize = 100_000;

fn cyclictest(settings: &Settings) -> Option<Lateness> {
    let output = Command::new("cyclictest")
        .args(["-q", "-m", "-t1"])
        .arg(format!("-p{}", settings.fifo))
        .arg(format!("-i{}", 1_000_000 / settings.hz.max(1)))
        .arg(format!("-D{}s", settings.seconds))
        .arg(format!("-h{CYCLIC_US}"))
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let mut late = histogram();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        if let (Some(Ok(us)), Some(Ok(count))) = (
            words.next().map(str::parse::<u64>),
            words.next().map(str::parse::<u64>),
        ) {
            late.saturating_record_n(us.saturating_mul(1_000), count);
        }
        if let Some(max) = line.strip_prefix("# Max Latencies:")
            && let Ok(us) = max.trim().parse::<u64>()
            && us as usize >= CYCLIC_US
        {
            late.saturating_record(us.saturating_mul(1_000));
        }
    }
    Some(Lateness {
        ticks: late.len(),
        missed: None,
        fifo: settings.fifo,
        late_us: spread(&late, 1e-3),
    })
}

fn run_peer(settings: &Settings, peer: &str) -> serde_json::Value {
    let mut words = peer.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .args([
            "--seconds",
            &settings.seconds.to_string(),
            "--hz",
            &settings.hz.to_string(),
        ])
        .output();
    match output {
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            serde_json::json!({"error": format!("{peer}: {error}: {}", said.trim())})
        }),
        Err(error) => serde_json::json!({"error": format!("{peer}: {error}")}),
    }
}

/// What came of them.
struct Hops {
    arrived: u64,
    /// Of the link's threads, as the kernel tells it.
    nice: i32,
    took_us: Spread,
}

/// Commands from one session to another at the control rate.
fn hops(settings: &Settings, protocol: &str) -> Result<Hops, LinkError> {
    const ROBOT: &str = "rt-bench";
    let identity = Identity {
        data_id: data_id(ROBOT, Kind::Command),
        schema: 0,
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.map_err(|error| LinkError::Open {
        endpoints: "tcp/127.0.0.1:0".into(),
        reason: error.to_string(),
    })?;
    let endpoint = Some(format!("{protocol}/{port}"));
    let listen = LinkConfig {
        listen: endpoint.clone(),
        tls: settings.tls.clone(),
        ..LinkConfig::default()
    };
    let connect = LinkConfig {
        connect: endpoint,
        tls: settings.tls.clone(),
        ..LinkConfig::default()
    };
    // As the runtime opens its own. The other end stands for hardware that the load here does not reach: as far ahead.
    let (runtime, nice) = session::open_ahead(&listen)?;
    let (robot, _) = session::open_ahead(&connect)?;
    let sender = CommandSender::new(&runtime, ROBOT)?;
    let end = RobotEnd::new(&robot, ROBOT)?;
    let wait = std::time::Duration::from_millis(200);
    let receiver = std::thread::spawn(move || {
        // As a motor controller's loop would be.
        let _ = realtime::take_seat(60, &[]);
        let mut taken = histogram();
        let mut silent = 0;
        while silent < 10 {
            let Ok(frame) = end.commands.recv_timeout(wait) else {
                silent += 1;
                continue;
            };
            let now = clock::now();
            silent = 0;
            if let Ok(command) = command::decode(&frame, identity) {
                taken.saturating_record(now.since_ns(command.sent));
            }
        }
        taken
    });
    let fifo = settings.fifo;
    let copy = settings.clone();
    let sending = std::thread::spawn(move || {
        let _ = realtime::take_seat(fifo, &[]);
        let mut ticks = Ticks::new(clock::now(), 1_000 * MS / copy.hz.max(1));
        let end = clock::now().plus_ns(copy.seconds * 1_000 * MS);
        let mut frame = [0; COMMAND_LEN_MAX];
        let mut counter = 0;
        while ticks.wait().woke < end {
            counter += 1;
            let at = Setpoint::at_rest(&[0.0; 7]);
            let command = MotorCommand::keep_alive(counter, clock::now(), at);
            let length = command::encode(&command, identity, &mut frame).unwrap_or(0);
            // A refused put is a hop that does not arrive, and is counted as such.
            drop(sender.send(frame.get(..length).unwrap_or(&[])));
        }
    });
    drop(sending.join());
    let taken = receiver.join().unwrap_or_else(|_| histogram());
    Ok(Hops {
        arrived: taken.len(),
        nice,
        took_us: spread(&taken, 1e-3),
    })
}
