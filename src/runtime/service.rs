// SPDX-License-Identifier: Apache-2.0
//! The service manager's view of us: ready in standby, alive while every thread comes round, stopping when we stop.
//!
//! A thread of its own speaks to systemd, because a datagram to a full socket may wait and the watchdog must not. It
//! pings only when the stamps of all threads, the watchdog's included, are younger than their deadlines; there is no
//! timer that pings on its own. When it must withhold a ping it writes down who was late, as systemd is about to end us.

use crate::core::supervisor::Mode;
use crate::core::units::{MS, Mono};
use crate::runtime::clock;
use crate::runtime::crash::Recorder;
use crate::runtime::threads::{Seat, Spec};
use crate::runtime::watchdog_device::WatchdogDevice;
use crate::sync::heartbeat::Beat;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// Period when systemd asks for no pings: only for the status line.
const IDLE_NS: u64 = 250 * MS;

/// Everything the service thread touches.
#[derive(Debug)]
pub struct ServiceIo {
    /// All threads of the pipeline.
    pub beats: Vec<(Spec, Beat)>,
    /// The supervisor's mode, as [`crate::core::supervisor::Mode`] counts.
    pub mode: Arc<AtomicU8>,
    /// Who was late is written here.
    pub recorder: Option<Arc<Recorder>>,
    /// The machine's own watchdog, pinged beside.
    pub device: Option<WatchdogDevice>,
    /// Set when all that could refuse the start has been done.
    pub ready: Arc<AtomicBool>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// Whether a service manager listens.
#[must_use]
pub fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// "We are ending." Nothing to do if nobody listens.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The first thread that has not come round in time, if any.
fn late(beats: &[(Spec, Beat)], now: Mono) -> Option<(Spec, u64)> {
    beats.iter().find_map(|(spec, beat)| {
        let age_ns = beat.last().map_or(u64::MAX, |last| now.since_ns(last));
        (age_ns > spec.beat_age_max_ns).then_some((*spec, age_ns))
    })
}

/// The service thread.
pub fn run(mut io: ServiceIo, seat: &Seat) {
    let watchdog = sd_notify::watchdog_enabled();
    // Twice as often as systemd recommends: one late round is no restart.
    let asked_ns = watchdog.map_or(IDLE_NS, |limit| as_ns(limit) / 4);
    let device_ns = io
        .device
        .as_ref()
        .map_or(IDLE_NS, |device| u64::from(device.timeout_s()) * 250 * MS);
    let period_ns = asked_ns.min(device_ns).clamp(MS, IDLE_NS);
    let mut told = None;
    let mut silent_since: Option<Mono> = None;
    while !io.ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        match late(&io.beats, now) {
            None => {
                silent_since = None;
                let word = word(io.mode.load(Ordering::Relaxed));
                if told.is_some() {
                    if told.replace(word) != Some(word) {
                        tell(&[NotifyState::Status(word)]);
                    }
                } else if io.ready.load(Ordering::Acquire) {
                    tell(&[NotifyState::Ready, NotifyState::Status(word)]);
                    told = Some(word);
                }
                if watchdog.is_some() && told.is_some() {
                    tell(&[NotifyState::Watchdog]);
                }
                if let Some(device) = &mut io.device {
                    device.ping();
                }
            }
            Some((spec, age_ns)) => {
                let since = *silent_since.get_or_insert(now);
                let words = format!(
                    "thread {} has not come round for {} ms",
                    spec.name,
                    age_ns / MS
                );
                let lasting = watchdog.is_some_and(|limit| now.since_ns(since) > as_ns(limit) / 2);
                if let Some(recorder) = io.recorder.as_ref().filter(|_| told.is_some() && lasting) {
                    recorder.record(spec.name, &words, None);
                }
                tell(&[NotifyState::Status(&words)]);
            }
        }
        clock::sleep_until(now.plus_ns(period_ns));
    }
    if let Some(device) = io.device {
        device.close();
    }
}

fn as_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn tell(state: &[NotifyState<'_>]) {
    // Nobody may listen, and a service manager that went away is no reason to stop a robot.
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("service manager: {error}");
    }
}

/// The word of a mode by its number.
fn word(mode: u8) -> &'static str {
    Mode::from_code(mode).map_or("in no mode", Mode::word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::threads;

    #[test]
    fn one_old_stamp_of_many_is_late() {
        let beats: Vec<(Spec, Beat)> = [threads::CONTROL, threads::TELEMETRY]
            .map(|spec| (spec, Beat::new()))
            .into();
        assert_eq!(
            late(&beats, Mono(5)).map(|(spec, _)| spec.name),
            Some("control"),
            "never marked"
        );
        beats.iter().for_each(|(_, beat)| beat.mark(Mono(1)));
        let at = |ns| late(&beats, Mono(1 + ns)).map(|(spec, _)| spec.name);
        assert_eq!(at(threads::CONTROL.beat_age_max_ns), None);
        assert_eq!(at(threads::CONTROL.beat_age_max_ns + 1), Some("control"));
        beats[0].1.mark(Mono(10_000 * MS));
        assert_eq!(
            late(&beats, Mono(10_000 * MS)).map(|(spec, _)| spec.name),
            Some("telemetry")
        );
    }

    #[test]
    fn every_mode_has_its_word() {
        let words = [0, 1, 2, 3, 4, 5, 6, 7].map(word);
        let wants = [
            "standby", "active", "holding", "stopping", "stopped", "e-stop", "takeover", "boot",
        ];
        assert_eq!(words, wants);
    }
}
