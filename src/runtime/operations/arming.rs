// SPDX-License-Identifier: Apache-2.0
//! How the desk asks for an arming, a stop, or other hands: what must be noted, looked at and held meanwhile.

use super::{ANSWER, Desk};
use crate::core::supervisor::deadlines::Deadline;
use crate::core::supervisor::{Asked, Mode, Refused, Request};
use crate::core::units::Mono;
use crate::runtime::clock;
use crate::runtime::views::Views;
use crate::runtime::wheel::Driver;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError, mpsc};

/// Whether nobody waits for the answer any more.
pub(super) fn too_old(made: Mono) -> bool {
    clock::now().since_ns(made) > Deadline::Request.ns()
}

impl Desk {
    /// Lets somebody else than the policy propose, armed for a person: one until that is granted, the other from then on.
    pub(super) fn drive(
        &self,
        until: Driver,
        driver: Driver,
        made: Mono,
    ) -> Result<String, String> {
        let _hands = self.hands();
        if too_old(made) {
            return Err(Refused::TooOld.to_string());
        }
        let before = self.wheel.driver();
        self.wheel.give(clock::now(), until);
        let answer = self.ask(Request::TakeOver, made);
        // Without an answer it may be granted yet: then to nobody.
        let (driver, answer) = match answer {
            Some(Ok(mode)) => (driver, Ok(mode)),
            Some(Err(refused)) => (before, Err(Some(refused))),
            None => (Driver::Nobody, Err(None)),
        };
        self.wheel.give(clock::now(), driver);
        match answer {
            Ok(mode) => Ok(mode.word().to_owned()),
            Err(Some(refused)) => Err(self.refusal(refused)),
            Err(None) => Err("the watchdog does not answer".to_owned()),
        }
    }

    /// Asks the supervisor for what somebody asked at this time; `None` if the watchdog does not answer.
    pub(super) fn request_of(&self, request: Request, made: Mono) -> Option<Result<Mode, Refused>> {
        if request == Request::EmergencyStop {
            self.counters.emergency_stop.store(true, Ordering::Release);
        }
        if request != Request::Activate {
            return self.ask(request, made);
        }
        // Before anybody waits for this hand.
        if self.forbids(request) {
            return Some(Err(Refused::FilesChanged));
        }
        let _hands = self.hands();
        if too_old(made) {
            return Some(Err(Refused::TooOld));
        }
        let before = self.wheel.driver();
        if !matches!(before, Driver::Policy) {
            self.wheel.give(clock::now(), Driver::Nobody);
        }
        let answer = self.ask(request, made);
        let driver = match (&answer, before) {
            (Some(Ok(_)), _) | (None, Driver::Policy) => Driver::Policy,
            (Some(Err(_)), before) => before,
            // It may be granted yet, and not to whoever drove before.
            (None, _) => Driver::Nobody,
        };
        self.wheel.give(clock::now(), driver);
        answer
    }

    /// To be held by who changes hands, until it is known whether that was granted: two at a time could leave the robot in the hands
    /// of one, armed for the other. Who stops it holds nothing.
    fn hands(&self) -> MutexGuard<'_, ()> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this arming must wait for files that are others than at the start. Not a change of hands: a person who takes over must not
    /// wait for who wrote them.
    fn forbids(&self, request: Request) -> bool {
        let takes_over = request == Request::TakeOver && self.mode().is_some_and(Mode::armed);
        !takes_over && self.files.changed().is_some()
    }

    /// What arms the robot is noted for the next start before it is asked for. Not while an earlier end is unacknowledged: that
    /// is refused, and the note that may tell of that end must stay.
    fn ask(&self, request: Request, made: Mono) -> Option<Result<Mode, Refused>> {
        let asked = Asked { request, made };
        if !matches!(request, Request::Activate | Request::TakeOver) {
            return self.put(asked);
        }
        if request == Request::TakeOver && self.forbids(request) {
            return Some(Err(Refused::FilesChanged));
        }
        let Some(recorder) = &self.recorder else {
            return self.put(asked);
        };
        if recorder.unacknowledged() {
            return Some(Err(Refused::Crashed));
        }
        let put = || match request {
            Request::Activate => self.put_after_a_look(asked, &recorder.views),
            // The disk took its time.
            Request::TakeOver if self.forbids(request) => Some(Err(Refused::FilesChanged)),
            _ => self.put(asked),
        };
        let granted = |answer: &Option<Result<Mode, Refused>>| !matches!(answer, Some(Err(_)));
        recorder.armed.note(put, granted).unwrap_or_else(|fault| {
            log::error!("{fault}");
            Some(Err(Refused::Unnoted))
        })
    }

    /// As the watchdog has just decided.
    fn mode(&self) -> Option<Mode> {
        Mode::from_code(self.counters.mode.load(Ordering::Relaxed))
    }

    /// The policy is not armed while cameras look exchanged.
    fn put_after_a_look(&self, asked: Asked, views: &Views) -> Option<Result<Mode, Refused>> {
        let cameras = &self.counters.cameras;
        let look = match views.look(cameras) {
            Ok(look) => look,
            Err(refused) => {
                // A reset is for the stop first, as long as there is one.
                let latched = self.mode().filter(|mode| mode.latched());
                return Some(Err(latched.map_or(refused, Refused::Latched)));
            }
        };
        let answer = self.put(asked);
        // Without an answer it may have been armed all the same.
        if !matches!(answer, Some(Err(_))) {
            views.armed(cameras, &look);
        }
        answer
    }

    fn put(&self, asked: Asked) -> Option<Result<Mode, Refused>> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.requests.try_send((asked, answer)).ok()?;
        if let Some(watchdog) = self.watchdog.get() {
            watchdog.unpark();
        }
        answered.recv_timeout(ANSWER).ok()
    }
}
