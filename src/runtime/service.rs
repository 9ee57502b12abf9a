// SPDX-License-Identifier: Apache-2.0
//! The service manager's view of us: ready in standby, alive while every thread comes round, stopping when we stop.
//!
//! A thread of its own speaks to systemd, because a datagram to a full socket may wait and the watchdog must not. It
//! pings only when the stamps of all threads, the watchdog's included, are younger than their deadlines; there is no
//! timer that pings on its own. When it must withhold pings it writes down who was late, as systemd or the machine's own
//! watchdog is about to end us; should the thread come back before, that record is void.

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
    beats
        .iter()
        .find_map(|(spec, beat)| Some((*spec, spec.late_ns(beat, now)?)))
}

/// Without pings for so long we are ended, by the service manager or by the machine; `None` if nobody asks for pings.
fn limit_ns(manager: Option<Duration>, device_timeout_s: Option<u32>) -> Option<u64> {
    let device_ns = device_timeout_s.map(|timeout_s| u64::from(timeout_s) * 1_000 * MS);
    [manager.map(as_ns), device_ns].into_iter().flatten().min()
}

/// A time in which the pings are withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence {
    since: Mono,
    /// Who was found late last, and when that thread had last come round.
    thread: &'static str,
    last: Mono,
    /// For so long that it must be written down.
    lasting: bool,
}

/// What is known of silences, from round to round.
#[derive(Debug)]
struct Silences {
    limit_ns: Option<u64>,
    now: Option<Silence>,
}

impl Silences {
    /// One is late by so much: the silence that it is part of, and whether it has just become a lasting one.
    fn late(&mut self, now: Mono, thread: &'static str, age_ns: u64) -> (Silence, bool) {
        let (since, known) = self
            .now
            .map_or((now, false), |silence| (silence.since, silence.lasting));
        let lasting = self
            .limit_ns
            .is_some_and(|limit_ns| now.since_ns(since) > limit_ns / 2);
        let silence = Silence {
            since,
            thread,
            last: now.minus_ns(age_ns),
            lasting,
        };
        self.now = Some(silence);
        (silence, lasting && !known)
    }

    /// All come round: what is over, if it was a lasting one.
    fn over(&mut self) -> Option<Silence> {
        self.now.take().filter(|silence| silence.lasting)
    }
}

/// The service thread.
pub fn run(mut io: ServiceIo, seat: &Seat) {
    let watchdog = sd_notify::watchdog_enabled();
    let limit_ns = limit_ns(watchdog, io.device.as_ref().map(WatchdogDevice::timeout_s));
    // Twice as often as systemd recommends: one late round is no restart.
    let period_ns = limit_ns.map_or(IDLE_NS, |limit_ns| (limit_ns / 4).clamp(MS, IDLE_NS));
    let mut told = None;
    let mut silences = Silences {
        limit_ns,
        now: None,
    };
    while !io.ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        match late(&io.beats, now) {
            None => {
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
                // After the pings: until they are heard nobody is spared.
                if let Some(silence) = silences.over() {
                    log::warn!(
                        "thread {} was silent for {} ms and came back",
                        silence.thread,
                        now.since_ns(silence.last) / MS
                    );
                    if let Some(recorder) = &io.recorder {
                        recorder.came_back();
                    }
                }
            }
            Some((spec, age_ns)) => {
                let (silence, just_lasting) = silences.late(now, spec.name, age_ns);
                let words = format!(
                    "thread {} has not come round for {} ms",
                    spec.name,
                    age_ns / MS
                );
                if just_lasting {
                    log::error!("{words}: nobody is told any more that all is well");
                }
                // What is late before is no crash, but a start that takes its time.
                if let Some(recorder) = &io.recorder
                    && io.ready.load(Ordering::Acquire)
                    && silence.lasting
                {
                    recorder.silent(spec.name, &words);
                }
                tell(&[NotifyState::Status(&words)]);
                // When all come round again, the mode is told again.
                told = told.map(|_| "");
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
    use crate::runtime::crash::unacknowledged;
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
    fn who_loses_patience_first_sets_the_limit() {
        let limit_ms = |manager_ms: Option<u64>, device_s| {
            limit_ns(manager_ms.map(Duration::from_millis), device_s).map(|ns| ns / MS)
        };
        assert_eq!(limit_ms(None, None), None);
        assert_eq!(limit_ms(Some(500), None), Some(500));
        assert_eq!(limit_ms(None, Some(2)), Some(2_000), "no service manager");
        assert_eq!(limit_ms(Some(500), Some(2)), Some(500));
        assert_eq!(limit_ms(Some(5_000), Some(2)), Some(2_000));
    }

    #[test]
    fn a_silence_is_a_lasting_one_after_half_the_limit_and_told_of_once_when_it_is_over() {
        let at = |ms: u64| Mono(ms * MS);
        let mut silences = Silences {
            limit_ns: Some(2_000 * MS),
            now: None,
        };
        let late = |silences: &mut Silences, ms: u64, thread, age_ms: u64| {
            let (silence, just) = silences.late(at(ms), thread, age_ms * MS);
            (silence.lasting, just)
        };
        assert_eq!(late(&mut silences, 10_000, "control", 60), (false, false));
        assert_eq!(silences.over(), None, "too short to be told of");
        assert_eq!(late(&mut silences, 11_000, "control", 60), (false, false));
        assert_eq!(
            late(&mut silences, 12_000, "control", 1_060),
            (false, false)
        );
        assert_eq!(late(&mut silences, 12_001, "control", 1_061), (true, true));
        // Another one, which waited for it: the pings are withheld all the time.
        assert_eq!(late(&mut silences, 12_100, "egress", 1_000), (true, false));
        let over = silences.over().expect("it lasted");
        assert_eq!((over.thread, over.last), ("egress", at(11_100)));
        assert_eq!(silences.over(), None);
        assert_eq!(late(&mut silences, 12_200, "control", 60), (false, false));
        // Nobody asks for pings.
        silences = Silences {
            limit_ns: None,
            now: None,
        };
        assert_eq!(late(&mut silences, 1_000, "control", 60), (false, false));
        assert_eq!(late(&mut silences, 99_000, "control", 60), (false, false));
    }

    #[track_caller]
    fn until(what: &str, mut is: impl FnMut() -> bool) {
        let deadline = clock::now().plus_ns(10_000 * MS);
        while !is() {
            assert!(clock::now() < deadline, "not within 10 s: {what}");
            clock::sleep_until(clock::now().plus_ns(MS));
        }
    }

    /// No service manager: the machine's own watchdog sets the limit.
    #[test]
    fn a_hung_thread_is_on_record_before_the_machine_is_reset_and_no_longer_when_it_came_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let device = folder.path().join("watchdog");
        let file = std::fs::File::create(&device).expect("a file");
        let recorder = Arc::new(Recorder::open(folder.path(), "arm").expect("opens"));
        let (beat, ending) = (Beat::new(), Arc::new(AtomicBool::new(false)));
        let io = ServiceIo {
            beats: vec![(threads::CONTROL, beat.clone())],
            mode: Arc::default(),
            recorder: Some(Arc::clone(&recorder)),
            device: Some(WatchdogDevice::over(file, 1)),
            ready: Arc::new(AtomicBool::new(true)),
            ending: Arc::clone(&ending),
        };
        let seat = Seat {
            beat: Beat::new(),
            fifo_granted: false,
        };
        let service = std::thread::spawn(move || run(io, &seat));
        let pings = || std::fs::read(&device).expect("there").len();
        until("it is pinged", || {
            beat.mark(clock::now());
            pings() > 0
        });
        let left = || unacknowledged(folder.path(), "arm").expect("read");
        until("the hung thread is on record", || left().is_some());
        let crash = left().expect("on record");
        assert_eq!(crash.thread, "control");
        assert!(crash.cause.contains("has not come round"), "{crash:?}");
        let before = pings();
        until("all is well again", || {
            beat.mark(clock::now());
            recorder.forget_silence();
            pings() > before && left().is_none()
        });
        ending.store(true, Ordering::Relaxed);
        service.join().expect("no panic");
        assert_eq!(std::fs::read(&device).expect("there").last(), Some(&b'V'));
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
