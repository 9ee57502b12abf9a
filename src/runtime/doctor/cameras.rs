// SPDX-License-Identifier: Apache-2.0
//! Cameras of a deployment, opened and looked through as the pipeline does: a robot is not armed without their pictures.

use super::{Finding, Verdict};
use crate::config::Config;
use crate::config::camera::{CameraConfig, CameraSource};
use crate::core::camera::Health;
use crate::core::camera::skew::Need;
use crate::core::units::{MS, Mono};
use crate::ports::{Frame, Source};
use crate::runtime::camera_look::{Seen, Watch, watch};
use crate::runtime::cameras::{self, Reach};
use crate::runtime::capture::{Look, look};
use crate::runtime::clock;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const CHECK: &str = "camera";
/// How long cameras of this machine are looked through at most: a stream may need eight seconds before its first picture.
const LOOK_NS: u64 = 10_000 * MS;
/// Good pictures that are enough.
const ENOUGH: u64 = 5;
/// Without a good picture for so long at the end, what was the matter is.
const LOST_MS: f64 = 1_000.0;
const FIX: &str = "docs/cameras.md; tendon cameras --list tells devices and modes; is it in use, by a runtime perhaps (fuser -v /dev/video*)?";

/// How bad it is that a camera gives nothing.
pub(super) fn worst(camera: &CameraConfig) -> Verdict {
    match camera.need {
        Need::Required => Verdict::Bad,
        Need::Optional => Verdict::Warning,
    }
}

/// A camera that gives nothing, or nothing good: bad where the robot needs it.
fn failing(camera: &CameraConfig, why: &str, fix: &str) -> Finding {
    let found = format!("\"{}\" ({}): {why}", camera.name, camera.source.word());
    match camera.need {
        Need::Required => Finding::bad(CHECK, found, fix),
        Need::Optional => Finding::warning(CHECK, format!("{found}; the robot goes without"), fix),
    }
}

/// Those of this machine; the ones that are reached over the link are left out.
pub(super) fn here(config: &Config) -> Vec<Finding> {
    let near: Vec<CameraConfig> = config
        .cameras()
        .filter(|camera| camera.source != CameraSource::Link)
        .cloned()
        .collect();
    let mut findings = Vec::new();
    let mut opened = Vec::new();
    for camera in near {
        // Each by itself first, so that one that cannot be opened does not hide the others.
        match watch(
            std::slice::from_ref(&camera),
            config.skew_max_ns,
            0,
            None,
            None,
            &idle(),
        ) {
            Ok(_) => opened.push(camera),
            Err(error) => findings.push(failing(&camera, &error.to_string(), FIX)),
        }
    }
    if opened.is_empty() {
        return findings;
    }
    let enough = Some(ENOUGH);
    match watch(&opened, config.skew_max_ns, LOOK_NS, enough, None, &idle()) {
        Err(error) => findings.push(Finding::bad(CHECK, error.to_string(), FIX)),
        Ok(watched) => {
            findings.extend(opened.iter().map(|camera| {
                let seen = watched.cameras.iter().find(|seen| seen.name == camera.name);
                judged(camera, seen)
            }));
            findings.extend(of_one_moment(&opened, &watched, config.skew_max_ns));
        }
    }
    findings
}

/// Of several needed cameras of this machine: whether their pictures make observations, at the end of the look; at its beginning one may
/// have nothing yet that is old enough.
fn of_one_moment(cameras: &[CameraConfig], watched: &Watch, skew_max_ns: u64) -> Option<Finding> {
    let needed = |camera: &&CameraConfig| camera.need == Need::Required;
    let gives = |camera: &CameraConfig| {
        let mut seen = watched.cameras.iter();
        seen.any(|seen| seen.name == camera.name && seen.good >= ENOUGH)
    };
    // What is wrong with one that gives nothing is said of that one.
    if cameras.iter().filter(needed).count() < 2 || !cameras.iter().filter(needed).all(gives) {
        return None;
    }
    let slowest_ns = cameras.iter().filter_map(|camera| camera.period_ns).max();
    let lost_ms = LOST_MS.max(slowest_ns.unwrap_or(0) as f64 * 3e-6);
    let most_ms = skew_max_ns / MS;
    let Watch {
        observations,
        apart,
        skew_max_ms,
        ..
    } = watched;
    if *observations > 0 && watched.unobserved_ms < lost_ms {
        let found = format!(
            "pictures of one moment: {observations} observations, at most {skew_max_ms:.0} ms apart, of {most_ms}"
        );
        return Some(Finding::good(CHECK, found));
    }
    let found = format!(
        "pictures of no one moment: {observations} observations, none for the last {:.0} ms; {apart} times one was missing that is within {most_ms} ms of the others",
        watched.unobserved_ms
    );
    let fix = "a camera that is far behind the others: say so with its delay_ms, lower its latency, or allow more with policy.max_skew_ms";
    Some(Finding::bad(CHECK, found, fix))
}

/// Nobody ends the look before its time.
fn idle() -> Arc<AtomicBool> {
    Arc::default()
}

fn judged(camera: &CameraConfig, seen: Option<&Seen>) -> Finding {
    let Some(seen) = seen else {
        return failing(camera, "its thread ended", FIX);
    };
    let refused: Vec<&str> = seen.refused.keys().map(String::as_str).collect();
    match (&seen.fault, seen.good) {
        (Some(fault), ENOUGH..) if seen.quiet_ms > LOST_MS => failing(camera, fault, FIX),
        // What is the matter in the one moment in which the look ends may be over in the next.
        (_, ENOUGH..) => Finding::good(
            CHECK,
            format!(
                "\"{}\" ({}): {}x{} at {:.1} Hz, {:.0} ms old when it is handed over",
                camera.name,
                camera.source.word(),
                camera.width,
                camera.height,
                seen.rate_hz,
                seen.age_p50_ms
            ),
        ),
        (_, good) if !refused.is_empty() => {
            let why = format!(
                "{good} good pictures, others refused: {}",
                refused.join(", ")
            );
            failing(camera, &why, FIX)
        }
        (Some(fault), _) => failing(camera, fault, FIX),
        (None, good) => failing(camera, &format!("{good} pictures only"), FIX),
    }
}

/// Those that are reached over the link, each for `patience_ns` at most.
pub(super) fn over_link(config: &Config, reach: Reach<'_>, patience_ns: u64) -> Vec<Finding> {
    let far = config
        .cameras()
        .filter(|camera| camera.source == CameraSource::Link);
    let findings = far.map(|camera| {
        match cameras::open(camera, &mut |camera| cameras::open_over_link(camera, reach)) {
            Ok(mut source) => heard(camera, &mut *source, clock::now().plus_ns(patience_ns)),
            Err(error) => failing(camera, &error.to_string(), "restart zenoh"),
        }
    });
    findings.collect()
}

fn heard(camera: &CameraConfig, source: &mut dyn Source, until: Mono) -> Finding {
    let fix = "is what sends its pictures running, under this name, in this size, and connected to the same endpoint?";
    let mut health = Health::new(camera.expected());
    let mut frame = Frame::black(camera.width, camera.height);
    let mut good = 0;
    while good < ENOUGH && clock::now() < until {
        match look(source, &mut health, until, &mut frame) {
            Look::Good => good += 1,
            Look::Refused | Look::Nothing => {}
        }
    }
    let size = format!("{}x{}", camera.width, camera.height);
    match (good, health.last_fault()) {
        (ENOUGH.., _) => Finding::good(CHECK, format!("\"{}\" (link): {size}", camera.name)),
        (_, Some(fault)) => failing(camera, &fault.to_string(), fix),
        (0, None) => failing(camera, "no picture", fix),
        (_, None) => failing(camera, &format!("{good} pictures only"), fix),
    }
}

/// Those over a link that is not opened.
pub(super) fn far_unseen(config: &Config) -> Vec<Finding> {
    let far = config
        .cameras()
        .filter(|camera| camera.source == CameraSource::Link);
    let findings = far.map(|camera| {
        let found = format!(
            "\"{}\" (link): not looked for, nor is the motor controller",
            camera.name
        );
        Finding::absent(CHECK, found)
    });
    findings.collect()
}

/// Those of this machine while a runtime has them open.
pub(super) fn in_use(config: &Config) -> Vec<Finding> {
    let near = config
        .cameras()
        .filter(|camera| camera.source != CameraSource::Link);
    let findings = near.map(|camera| {
        let word = camera.source.word();
        let found = format!("\"{}\" ({word}): the running runtime has it", camera.name);
        Finding::absent(CHECK, found)
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(need: Need) -> CameraConfig {
        CameraConfig {
            name: "wrist".into(),
            source: CameraSource::Images("nowhere".into()),
            need,
            width: 64,
            height: 48,
            age_max_ns: 100 * MS,
            delay_ns: 0,
            period_ns: Some(50 * MS),
            noisy: true,
            moves: false,
        }
    }

    #[test]
    fn needed_cameras_that_make_no_observations_are_bad_however_they_began() {
        let named = |name: &str, need| CameraConfig {
            name: name.into(),
            ..camera(need)
        };
        let two = |need| [named("front", Need::Required), named("wrist", need)];
        let seen = |good| Watch {
            cameras: ["front", "wrist"]
                .map(|name| Seen {
                    name: name.into(),
                    good,
                    ..Seen::default()
                })
                .to_vec(),
            ..Watch::default()
        };
        let began_apart = Watch {
            observations: 20,
            apart: 30,
            unobserved_ms: 30.0,
            ..seen(ENOUGH)
        };
        let apart = Watch {
            observations: 3,
            apart: 5,
            unobserved_ms: 1_100.0,
            ..seen(ENOUGH)
        };
        let never = Watch {
            unobserved_ms: 900.0,
            ..seen(ENOUGH)
        };
        let verdict = |need, watched| {
            of_one_moment(&two(need), watched, 50 * MS).map(|finding| finding.verdict)
        };
        assert_eq!(verdict(Need::Required, &began_apart), Some(Verdict::Good));
        assert_eq!(verdict(Need::Required, &apart), Some(Verdict::Bad));
        assert_eq!(verdict(Need::Required, &never), Some(Verdict::Bad));
        assert_eq!(verdict(Need::Optional, &never), None);
        assert_eq!(
            verdict(Need::Required, &seen(ENOUGH - 1)),
            None,
            "said of it"
        );
    }

    #[test]
    fn what_was_seen_of_a_camera_is_judged_by_whether_the_robot_needs_it() {
        let good = Seen {
            good: 40,
            rate_hz: 20.0,
            age_p50_ms: 12.0,
            ..Seen::default()
        };
        let lost = Seen {
            fault: Some("gives nothing".into()),
            good: 4,
            ..good.clone()
        };
        let died = Seen {
            fault: Some("gives nothing".into()),
            quiet_ms: 2_000.0,
            ..good.clone()
        };
        let late = Seen {
            quiet_ms: 200.0,
            ..died.clone()
        };
        let refused = Seen {
            refused: [("one picture again and again".to_owned(), 9)].into(),
            ..Seen::default()
        };
        let none = Seen::default();
        for (need, seen, verdict, says) in [
            (
                Need::Required,
                Some(&good),
                Verdict::Good,
                "64x48 at 20.0 Hz, 12 ms",
            ),
            (
                Need::Required,
                Some(&lost),
                Verdict::Bad,
                "\"wrist\" (images): gives nothing",
            ),
            (
                Need::Required,
                Some(&died),
                Verdict::Bad,
                "\"wrist\" (images): gives nothing",
            ),
            (Need::Required, Some(&late), Verdict::Good, "20.0 Hz"),
            (
                Need::Optional,
                Some(&lost),
                Verdict::Warning,
                "goes without",
            ),
            (
                Need::Required,
                Some(&refused),
                Verdict::Bad,
                "again and again",
            ),
            (Need::Required, Some(&none), Verdict::Bad, "0 pictures only"),
            (Need::Required, None, Verdict::Bad, "its thread ended"),
        ] {
            let finding = judged(&camera(need), seen);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(says), "{says}: {finding:?}");
            assert_eq!(finding.fix.is_some(), verdict != Verdict::Good);
        }
    }
}
