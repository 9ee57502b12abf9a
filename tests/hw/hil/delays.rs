// SPDX-License-Identifier: Apache-2.0
//! How old a state is when it comes: found by letting frames go to and fro between two clocks. How late the joints follow, how
//! late the camera's stamps are: found by moving one joint to and fro and shifting what was seen until it fits.

use crate::rig::{Heard, Rig};
use crate::stages::Bench;
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::config::camera::CameraConfig;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::Identity;
use tendon::ports::Frame;
use tendon::runtime::cameras::{self, Reach};
use tendon::runtime::clock;
use zenoh::Session;

/// Turns of the joint while it is watched, and how long each takes.
const TURNS: f64 = 8.0;
const TURN_S: f64 = 0.9;
/// How far it goes, rad: slow enough for any arm, fast enough to be seen.
const REACH: f64 = 0.06;
/// Joints that follow later than this are not followed by a policy either.
const RESPONSE_MAX_S: f64 = 0.15;
/// Below this correlation the picture does not show the joint's motion.
const SEEN_LEAST: f64 = 0.6;

/// One number over time, times in seconds, rising.
type Series = Vec<(f64, f64)>;

/// What the camera saw: how much each picture differs from the one before.
fn watch(
    camera: &CameraConfig,
    reach: Reach<'_>,
    ending: &AtomicBool,
) -> Result<Vec<(Mono, f64)>, String> {
    let mut source = cameras::open(camera, &mut |camera| cameras::open_over_link(camera, reach))
        .map_err(|error| error.to_string())?;
    let mut frame = Frame::black(camera.width, camera.height);
    let mut before: Option<(Mono, Vec<u8>)> = None;
    let mut changes = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        let deadline = clock::now().plus_ns(100 * MS);
        // A lost picture is no reason to give up: the rest tells enough.
        if source.next_frame(deadline, &mut frame).is_err() {
            continue;
        }
        let green: Vec<u8> = frame.rgb.iter().skip(1).step_by(3).copied().collect();
        if let Some((captured, old)) = &before {
            let apart = green
                .iter()
                .zip(old)
                .map(|(a, b)| f64::from(a.abs_diff(*b)));
            let middle = Mono(captured.0 / 2 + frame.captured.0 / 2);
            // Noise is in every pixel, motion in few: what is large counts.
            changes.push((middle, apart.filter(|apart| *apart > 24.0).sum::<f64>()));
        }
        before = Some((frame.captured, green));
    }
    Ok(changes)
}

/// What was found, in milliseconds.
#[derive(Debug, Default)]
pub struct Delays {
    /// How old a state is when it comes by the fastest way: `state_delay_ms` of robot.toml.
    pub state_ms: Option<f64>,
    /// How long before its stamps a picture was taken, against the states as they come.
    pub camera_ms: Option<f64>,
}

impl Delays {
    /// At rest first, then in motion.
    pub fn measure(
        &mut self,
        on: &mut Bench<'_>,
        session: &Session,
        camera: &CameraConfig,
        pictures: Identity,
    ) -> Result<(), String> {
        self.state_ms = age_of_a_state(on)?.map(|age_s| age_s * 1e3);
        self.camera_ms = in_motion(on, session, camera, pictures)?;
        Ok(())
    }
}

/// So long are commands sent at all phases of the controller's own period.
const OUT_OF_STEP_MS: u64 = 3_000;

/// How old a state is when it comes by the fastest way, in seconds; `None` if what was seen makes no sense.
fn age_of_a_state(on: &mut Bench<'_>) -> Result<Option<f64>, String> {
    let (mark, sent_before) = (on.rig.mark(), on.rig.sent.len());
    on.rig.keep_alive_out_of_step(OUT_OF_STEP_MS)?;
    let heard = on.rig.since(mark);
    let sent: Vec<(u32, Mono)> = on.rig.sent[sent_before..]
        .iter()
        .map(|(counter, at, _)| (*counter, *at))
        .collect();
    let states: Vec<(Mono, Mono, u32)> = heard
        .iter()
        .map(|heard| {
            (
                heard.at,
                heard.report.state.measured,
                heard.report.echo_counter,
            )
        })
        .collect();
    let both = both_ways(&sent, &states).ok_or("no state echoed a command")?;
    let most_s = both.there_s + both.back_s;
    // As if both ways took the same.
    let age_s = most_s / 2.0;
    let sensible = (0.0..0.5).contains(&most_s);
    on.ledger.judge(
        "delays",
        "frames that go and come tell how old a state is when it comes",
        sensible,
        format!("{:.2} ms, {:.2} at most", age_s * 1e3, most_s * 1e3),
        "from 0 to 500 ms",
    );
    if on.canary.is_some() {
        // Both ends are on this machine and read one clock: it is known.
        let truth_s = both.back_s;
        on.ledger.judge(
            "delays",
            "as one clock at both ends has it",
            (age_s - truth_s).abs() < 2e-3,
            format!("{:.2} ms", truth_s * 1e3),
            "2 ms apart",
        );
    }
    let figures = &mut on.ledger.figures;
    figures.insert("state_delay_ms".into(), age_s * 1e3);
    figures.insert("state_delay_ms_most".into(), most_s * 1e3);
    Ok(sensible.then_some(age_s))
}

/// What the fastest frames took to the controller and back, in seconds, each with the unknown difference of two clocks in it:
/// added to the one and taken off the other: the sum is free of it.
struct BothWays {
    there_s: f64,
    back_s: f64,
}

/// `sent`: counter and when. `states`: when each came, when it was measured on the controller's clock, whom it echoes.
fn both_ways(sent: &[(u32, Mono)], states: &[(Mono, Mono, u32)]) -> Option<BothWays> {
    let s = |to: Mono, from: Mono| (to.0 as f64 - from.0 as f64) * 1e-9;
    let back = states.iter().map(|(came, measured, _)| s(*came, *measured));
    // The first that echoes a command was measured after that command had come.
    let there = states.windows(2).filter(|pair| pair[0].2 != pair[1].2);
    let there = there.filter_map(|pair| {
        let (_, measured, echoed) = pair[1];
        let (_, at) = sent.iter().find(|(counter, _)| *counter == echoed)?;
        Some(s(measured, *at))
    });
    Some(BothWays {
        there_s: there.min_by(f64::total_cmp)?,
        back_s: back.min_by(f64::total_cmp)?,
    })
}

/// Moves and measures; the camera's delay in milliseconds, if it sees the joint.
fn in_motion(
    on: &mut Bench<'_>,
    session: &Session,
    camera: &CameraConfig,
    pictures: Identity,
) -> Result<Option<f64>, String> {
    let pose = on.rig.arm()?;
    let scale = REACH.min(0.2 * on.rig.robot.joints[on.joint].1.limits.velocity_max);
    let sway = on.rig.sway(on.joint, &pose)?.turning_in(TURN_S, scale);
    let (mark, sent_before) = (on.rig.mark(), on.rig.sent.len());
    let ending = AtomicBool::new(false);
    let name = on.rig.robot.name.clone();
    let reach = Reach {
        session,
        robot: &name,
        pictures,
    };
    let rig = &mut *on.rig;
    let changes = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(camera, reach, &ending));
        let moved = rig.follow(|s, _| (s < TURNS * TURN_S).then(|| sway.at(s)));
        ending.store(true, Ordering::Relaxed);
        let seen = watching
            .join()
            .unwrap_or_else(|_| Err("the camera's thread ended".into()));
        moved.map(|()| seen)
    })?;
    let heard = on.rig.since(mark);
    on.rig.keep_alive(300)?;
    let start = heard.first().map_or(Mono(0), |heard| heard.at);
    let s = |at: Mono| at.0 as f64 * 1e-9 - start.0 as f64 * 1e-9;
    let joint = on.joint;
    let asked: Series = on.rig.sent[sent_before..]
        .iter()
        .map(|(_, at, setpoint)| (s(*at), setpoint.position[joint]))
        .collect();
    let went: Series = heard
        .iter()
        .map(|heard| (s(heard.at), heard.report.state.position[joint]))
        .collect();
    link(on, &heard, sent_before);
    let (response_s, error) = best(-0.005, RESPONSE_MAX_S, |lag_s| {
        -mean_square(&went, |time_s| at(&asked, time_s - lag_s))
    });
    let error = (-error).sqrt();
    on.ledger.judge(
        "delays",
        "the joint follows its command",
        response_s < RESPONSE_MAX_S - 0.005 && error < 0.15 * scale,
        format!("{:.1} ms later, {error:.4} off", response_s * 1e3),
        "145 ms, 15 % of the way",
    );
    on.ledger
        .figures
        .insert("response_ms".into(), response_s * 1e3);
    let changes = match changes {
        Ok(changes) if changes.len() > 30 => changes,
        Ok(changes) => return Err(format!("the camera gave {} pictures", changes.len())),
        Err(error) => return Err(format!("the camera: {error}")),
    };
    let speed: Series = heard
        .iter()
        .map(|heard| (s(heard.at), heard.report.state.velocity[joint].abs()))
        .collect();
    let seen: Series = changes
        .iter()
        .map(|(time, change)| (s(*time), *change))
        .collect();
    let (camera_s, likeness) = best(-0.2, 0.3, |lag_s| {
        correlation(&seen, |time_s| at(&speed, time_s - lag_s))
    });
    let claim = "the camera shows the joint's motion";
    if likeness < SEEN_LEAST {
        on.ledger.note(
            "delays",
            claim,
            crate::ledger::Outcome::NotRun,
            format!("correlation {likeness:.2}: it does not see this joint; name another by TENDON_HIL_JOINT"),
            "0.6",
        );
        return Ok(None);
    }
    on.ledger.judge(
        "delays",
        claim,
        true,
        format!(
            "{:.1} ms after its stamps, correlation {likeness:.2}",
            camera_s * 1e3
        ),
        "0.6",
    );
    on.ledger
        .figures
        .insert("camera_delay_ms".into(), camera_s * 1e3);
    Ok(Some(camera_s * 1e3))
}

/// From a command to the state that echoes it.
fn link(on: &mut Bench<'_>, heard: &[Heard], sent_before: usize) {
    let sent = &on.rig.sent[sent_before..];
    let mut trips: Vec<f64> = heard
        .windows(2)
        .filter(|pair| pair[0].report.echo_counter != pair[1].report.echo_counter)
        .filter_map(|pair| {
            let echoed = pair[1].report.echo_counter;
            let (_, at, _) = sent.iter().find(|(counter, ..)| *counter == echoed)?;
            Some(pair[1].at.since_ns(*at) as f64 / 1e6)
        })
        .collect();
    trips.sort_by(f64::total_cmp);
    let at = |share: f64| trips.get((trips.len() as f64 * share) as usize).copied();
    for (name, value) in [
        ("round_trip_ms_p50", at(0.5)),
        ("round_trip_ms_p99", at(0.99)),
    ] {
        if let Some(value) = value {
            on.ledger.figures.insert(name.into(), value);
        }
    }
}

/// Where `good` is best between `from_s` and `to_s`, and how good: each millisecond, then the top of a parabola.
fn best(from_s: f64, to_s: f64, good: impl Fn(f64) -> f64) -> (f64, f64) {
    let steps = ((to_s - from_s) * 1e3) as usize;
    let each: Vec<f64> = (0..=steps)
        .map(|step| good(from_s + step as f64 * 1e-3))
        .collect();
    let top = (0..each.len())
        .max_by(|a, b| each[*a].total_cmp(&each[*b]))
        .unwrap_or(0);
    let shift = match (top.checked_sub(1).map(|left| each[left]), each.get(top + 1)) {
        (Some(left), Some(right)) => {
            let bend = left - 2.0 * each[top] + right;
            if bend < 0.0 {
                0.5 * (left - right) / bend
            } else {
                0.0
            }
        }
        _ => 0.0,
    };
    (from_s + (top as f64 + shift) * 1e-3, each[top])
}

/// On a line between its neighbours; the ends reach on.
fn at(series: &Series, time_s: f64) -> f64 {
    let next = series.partition_point(|(time, _)| *time < time_s);
    let (Some(last), Some(first)) = (series.last(), series.first()) else {
        return 0.0;
    };
    if next == 0 {
        return first.1;
    }
    let (t0, v0) = series[next - 1];
    let Some((t1, v1)) = series.get(next).copied() else {
        return last.1;
    };
    v0 + (v1 - v0) * (time_s - t0) / (t1 - t0).max(1e-9)
}

fn mean_square(series: &Series, other: impl Fn(f64) -> f64) -> f64 {
    let apart = series
        .iter()
        .map(|(time, value)| (value - other(*time)).powi(2));
    apart.sum::<f64>() / series.len().max(1) as f64
}

fn correlation(series: &Series, other: impl Fn(f64) -> f64) -> f64 {
    let n = series.len().max(1) as f64;
    let others: Vec<f64> = series.iter().map(|(time, _)| other(*time)).collect();
    let mean = series.iter().map(|(_, value)| value).sum::<f64>() / n;
    let other_mean = others.iter().sum::<f64>() / n;
    let (mut both, mut one, mut two) = (0.0, 0.0, 0.0);
    for ((_, value), other) in series.iter().zip(&others) {
        let (a, b) = (value - mean, other - other_mean);
        (both, one, two) = (both + a * b, one + a * a, two + b * b);
    }
    both / (one * two).sqrt().max(1e-12)
}

/// `text` of a TOML file with a number set in the first table that has one of these heads, or before all tables; everything else
/// stays as it is. `None` if there is no such table, or what came of it does not say so.
pub fn with_number(text: &str, heads: &[&str], key: &str, number: f64) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let head = lines.iter().position(|line| heads.contains(&line.trim()));
    let begin = if heads.is_empty() { 0 } else { head? + 1 };
    let table = lines[begin..]
        .iter()
        .take_while(|line| !line.trim_start().starts_with('['));
    let keys: Vec<&str> = table
        .map(|line| line.split_once('=').map_or("", |(key, _)| key.trim()))
        .collect();
    let number = format!("{number:.1}");
    let written = format!("{key} = {number}");
    match keys.iter().position(|found| *found == key) {
        Some(at) => lines[begin + at] = written,
        None => {
            let is_key = |found: &&str| !found.is_empty() && !found.starts_with('#');
            let first = keys.iter().position(is_key).unwrap_or(0);
            lines.insert(begin + first, written);
        }
    }
    let text = lines.join("\n") + "\n";
    let table: toml::Table = text.parse().ok()?;
    let table = match heads.first() {
        None => &table,
        Some(head) => {
            let table = table.get(head.trim_matches(['[', ']']))?;
            let first = table.as_array().map_or(Some(table), |all| all.first());
            first?.as_table()?
        }
    };
    let said = table.get(key)?.as_float()?;
    (Some(said) == number.parse().ok()).then_some(text)
}

/// What the estimators must find in series whose delay is known, before they are trusted with a robot.
pub fn check_yourself(_: &Rig) -> Result<(), String> {
    let wave = |time_s: f64| (time_s * 7.0).sin();
    let truth: Series = (0..2_000)
        .map(|n| (f64::from(n) * 0.005, wave(f64::from(n) * 0.005)))
        .collect();
    for delay_s in [0.0, 0.0123, 0.08] {
        let late: Series = (0..300)
            .map(|n| {
                (
                    f64::from(n) * 0.0333,
                    3.0 + 20.0 * wave(f64::from(n) * 0.0333 - delay_s),
                )
            })
            .collect();
        let (found_s, _) = best(-0.1, 0.2, |lag| {
            correlation(&late, |time| at(&truth, time - lag))
        });
        if (found_s - delay_s).abs() > 0.001 {
            return Err(format!("a delay of {delay_s} s was taken for {found_s} s"));
        }
    }
    // The controller's clock is five seconds ahead; 1.2 ms there and 2 ms back at the fastest, states each 5 ms.
    let at = |ms: f64| Mono((ms * 1e6) as u64);
    let sent: Vec<(u32, Mono)> = (0..400)
        .map(|n| (n, at(1_000.0 + f64::from(n) * 5.1)))
        .collect();
    let came = |n: u32| sent[n as usize].1.0 as f64 * 1e-6 + 1.2 + f64::from(n % 7) * 0.3;
    let states: Vec<(Mono, Mono, u32)> = (1..400)
        .filter_map(|n| {
            let measured = 1_000.0 + f64::from(n) * 5.0;
            let echoed = (0..400).filter(|n| came(*n) <= measured).max()?;
            let back = 2.0 + f64::from(n % 5) * 0.4;
            Some((at(measured + back), at(measured + 5_000.0), echoed))
        })
        .collect();
    let found = both_ways(&sent, &states).map(|both| both.there_s + both.back_s);
    if !found.is_some_and(|both_s| (both_s - 3.2e-3).abs() < 2e-4) {
        return Err(format!("3.2 ms both ways were taken for {found:?} s"));
    }
    let camera = &["[camera]", "[[camera]]"];
    for (text, heads, key, expected) in [
        (
            "a = 1\n[camera]\nname = \"x\"\n[page]\ndelay_ms = 3\n",
            &camera[..],
            "delay_ms",
            "a = 1\n[camera]\ndelay_ms = 15.0\nname = \"x\"\n[page]\ndelay_ms = 3\n",
        ),
        (
            "# A robot.\nname = \"x\"\n\n[[joint]]\nname = \"y\"\n",
            &[][..],
            "state_delay_ms",
            "# A robot.\nstate_delay_ms = 15.0\nname = \"x\"\n\n[[joint]]\nname = \"y\"\n",
        ),
    ] {
        let once = with_number(text, heads, key, 12.0);
        let twice = once.and_then(|text| with_number(&text, heads, key, 15.0));
        if twice.as_deref() != Some(expected) {
            return Err(format!("{key} was written so: {twice:?}"));
        }
    }
    Ok(())
}
