// SPDX-License-Identifier: Apache-2.0
//! The pipeline's end of the link: commands out, states and pictures in, requests answered.

use super::keys;
use super::session::{LinkError, NICE, TEXT_MAX, declare};
use crate::core::units::Mono;
use crate::core::wire::Identity;
use crate::core::wire::command::COMMAND_LEN_MAX;
use crate::core::wire::picture;
use crate::core::wire::reject::Reject;
use crate::ports::{Counts, Frame, Source, SourceFault};
use crate::sync::mailbox;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use zenoh::bytes::ZBytes;
use zenoh::pubsub::{Publisher, Subscriber};
use zenoh::qos::{CongestionControl, Priority, Reliability};
use zenoh::query::{Query, Queryable};
use zenoh::{Session, Wait};
use zenoh_buffers::{ZBuf, ZSlice};

/// A command frame's memory, made once: what is handed to the link is a reference to it, so that a put allocates
/// nothing.
#[derive(Debug)]
pub struct FrameBuffer(Arc<[u8; COMMAND_LEN_MAX]>);

impl Default for FrameBuffer {
    fn default() -> Self {
        FrameBuffer(Arc::new([0; COMMAND_LEN_MAX]))
    }
}

impl FrameBuffer {
    /// The frame as the link takes it; empty if it is longer than any command. Allocates only while somebody still holds
    /// the frame before: the link itself has let go of it when its put returns.
    pub fn holding(&mut self, frame: &[u8]) -> ZBytes {
        let Some(room) = Arc::make_mut(&mut self.0).get_mut(..frame.len()) else {
            return ZBytes::new();
        };
        room.copy_from_slice(frame);
        let buffer: Arc<[u8; COMMAND_LEN_MAX]> = Arc::clone(&self.0);
        // It was just written: its length lies inside.
        ZSlice::new(buffer, 0, frame.len())
            .map_or_else(|_| ZBytes::new(), |slice| ZBuf::from(slice).into())
    }
}

/// The link did not take a frame. Without words: it is counted on a thread that formats nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link did not take the frame")]
pub struct NotTaken;

/// Sends command frames. Never blocks for long: real-time priority, no batching, drop when congested.
#[derive(Debug)]
pub struct CommandSender {
    publisher: Publisher<'static>,
}

impl CommandSender {
    /// Declares the command stream of `robot`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(session: &Session, robot: &str) -> Result<CommandSender, LinkError> {
        Self::under(session, keys::command(robot))
    }

    /// Declares the stream of a deadman switch of `robot`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn of_deadman(session: &Session, robot: &str) -> Result<CommandSender, LinkError> {
        Self::under(session, keys::deadman(robot))
    }

    fn under(session: &Session, key: String) -> Result<CommandSender, LinkError> {
        let publisher = session
            .declare_publisher(key.clone())
            .congestion_control(CongestionControl::Drop)
            .priority(Priority::RealTime)
            .reliability(Reliability::BestEffort)
            .express(true)
            .wait();
        Ok(CommandSender {
            publisher: declare(&key, publisher)?,
        })
    }

    /// Hands a frame to the link. Ok means that it was taken, not that it arrived. Bytes are copied into new memory
    /// first; what a [`FrameBuffer`] holds is not.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn send(&self, frame: impl Into<ZBytes>) -> Result<(), NotTaken> {
        self.publisher.put(frame).wait().map_err(|_| NotTaken)
    }
}

/// Tells whoever listens what happened. Nobody need listen.
#[derive(Debug)]
pub struct Announcer {
    publisher: Publisher<'static>,
}

impl Announcer {
    /// Declares the events of `robot`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(session: &Session, robot: &str) -> Result<Announcer, LinkError> {
        let key = keys::event(robot);
        let publisher = session
            .declare_publisher(key.clone())
            .congestion_control(CongestionControl::Drop)
            .wait();
        Ok(Announcer {
            publisher: declare(&key, publisher)?,
        })
    }

    /// Hands an event frame to the link. That nobody hears it is no fault.
    pub fn tell(&self, frame: &[u8]) {
        let _ = self.publisher.put(frame).wait();
    }
}

/// Calls `take` for each frame under `key`, on a thread of the link. `take` must not wait.
///
/// # Errors
/// [`LinkError`].
pub fn subscribe(
    session: &Session,
    key: String,
    mut take: impl FnMut(&[u8]) + Send + Sync + 'static,
) -> Result<Subscriber<()>, LinkError> {
    let subscriber = session
        .declare_subscriber(&key)
        .callback_mut(move |sample| take(&sample.payload().to_bytes()))
        .wait();
    declare(&key, subscriber)
}

/// A camera that is reached over the link. Only its newest picture waits; an older one is dropped. The link's thread leaves it
/// where the camera's takes it up; neither waits for the other nor allocates once the first is there.
pub struct LinkCamera {
    _subscriber: Subscriber<()>,
    came: mailbox::Receiver<Came>,
    identity: Identity,
    size: [usize; 2],
    clock: fn() -> Mono,
    /// Its number of the last picture.
    last: Option<u32>,
    missing: u64,
}

/// A frame as it came, and when.
#[derive(Clone, Default)]
struct Came {
    bytes: Vec<u8>,
    at: Mono,
}

impl LinkCamera {
    /// Subscribes to `camera` of `robot`, whose pictures must be `size` (width, height) pixels.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(
        session: &Session,
        robot: &str,
        camera: &str,
        identity: Identity,
        size: [usize; 2],
        clock: fn() -> Mono,
    ) -> Result<LinkCamera, LinkError> {
        let (mut leave, came) = mailbox::mailbox(&Came::default());
        let longest = picture::PICTURE_OVERHEAD + size[0] * size[1] * 3;
        let key = keys::camera(robot, camera);
        let subscriber = session
            .declare_subscriber(&key)
            .callback_mut(move |sample| {
                let payload = sample.payload();
                leave.put_with(|slot: &mut Came| {
                    slot.at = clock();
                    slot.bytes.clear();
                    // What is longer is refused for its length, and must not make the buffer grow.
                    if payload.len() <= longest {
                        // It may have come in several parts, which zenoh would join in a new buffer each time.
                        let parts = payload.slices();
                        parts.for_each(|part| slot.bytes.extend_from_slice(part));
                    }
                });
            })
            .wait();
        Ok(LinkCamera {
            _subscriber: declare(&key, subscriber)?,
            came,
            identity,
            size,
            clock,
            last: None,
            missing: 0,
        })
    }
}

impl Source for LinkCamera {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let came = self.came.wait_until(deadline, self.clock);
        let came = came.ok_or(SourceFault::Timeout)?;
        let received = came.at;
        let read = picture::decode(&came.bytes, self.identity).map_err(|reject| {
            SourceFault::Broken(match reject {
                Reject::Length => "picture frame of wrong length",
                Reject::Crc => "picture frame with a wrong CRC",
                _ => "foreign picture frame",
            })
        })?;
        let gap = self
            .last
            .map_or(0, |last| read.seq.wrapping_sub(last).wrapping_sub(1));
        // A number that went back is a camera that began anew.
        self.missing += if gap < 1 << 31 { u64::from(gap) } else { 0 };
        self.last = Some(read.seq);
        // A picture of another size is judged, as its times and its content are, by whoever asked for it; but it must
        // not make the buffer grow.
        if [read.width, read.height] != self.size {
            return Err(SourceFault::Broken(
                "picture of another size than tendon.toml says",
            ));
        }
        frame.rgb.resize(read.rgb.len(), 0);
        frame.rgb.copy_from_slice(read.rgb);
        (frame.width, frame.height) = (read.width, read.height);
        (frame.seq, frame.captured, frame.received) = (read.seq.max(1), read.captured, received);
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts {
            missing: self.missing,
            starts: u64::from(self.last.is_some()),
            ..Counts::default()
        }
    }
}

/// Requests that may wait for one clerk; more are turned away.
const WAITING: usize = 16;

/// Which clerk answers a request: each answers one after the other, and waits for none of the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A stop: never turned away, and ahead of other normal threads, as far as the kernel grants it.
    Stop,
    /// A question.
    Look,
    /// What may wait, for a disk.
    Patient,
}

/// What a request is: its text, and when it came.
type Asked = (Query, String, Mono);

/// Answers requests under `key`: `answer` gets the text, and when by `clock` it came, and returns the answer or a refusal. In threads of
/// their own, one for each lane that `lane` names of a text, or one for all: an answer may wait for a disk, and what else comes over the link must not.
///
/// # Errors
/// [`LinkError`].
pub fn answer_requests(
    session: &Session,
    key: String,
    clock: fn() -> Mono,
    lane: Option<fn(&str) -> Lane>,
    answer: impl Fn(&str, Mono) -> Result<String, String> + Send + Sync + 'static,
) -> Result<Queryable<()>, LinkError> {
    let answer = Arc::new(answer);
    let clerk = |lane| seat_clerk(&key, lane, Arc::clone(&answer));
    let patient = clerk(Lane::Patient)?;
    let lanes = lane.map(|lane| Ok::<_, LinkError>((lane, clerk(Lane::Stop)?, clerk(Lane::Look)?)));
    let lanes = lanes.transpose()?;
    let queryable = session
        .declare_queryable(&key)
        .callback(move |query| {
            let came = clock();
            let text = match text_of(&query) {
                Ok(text) => text,
                Err(why) => return refuse(&query, why),
            };
            let to = match &lanes {
                None => &patient,
                Some((lane, stop, look)) => match lane(&text) {
                    Lane::Stop => return drop(stop.send((query, text, came))),
                    Lane::Look => look,
                    Lane::Patient => &patient,
                },
            };
            if let Err(TrySendError::Full((query, ..))) = to.try_send((query, text, came)) {
                let why = format!("{WAITING} requests wait already: ask again");
                refuse(&query, why);
            }
        })
        .wait();
    declare(&key, queryable)
}

/// A thread that answers until nobody can ask any more.
fn seat_clerk(
    key: &str,
    lane: Lane,
    answer: Arc<impl Fn(&str, Mono) -> Result<String, String> + Send + Sync + 'static>,
) -> Result<SyncSender<Asked>, LinkError> {
    let (asked, asks) = mpsc::sync_channel::<Asked>(WAITING);
    let own = key.to_owned();
    let body = move || {
        if lane == Lane::Stop {
            // Refused, it answers as soon as other normal threads let it.
            let _ = rustix::process::setpriority_process(None, NICE);
        }
        for (query, text, came) in asks {
            let said = catch_unwind(AssertUnwindSafe(|| answer(&text, came)));
            let broken = |_| Err("the program failed over this request: see its log".to_owned());
            match said.unwrap_or_else(broken) {
                // The one who asked may be gone; then nobody misses the answer.
                Ok(text) => drop(query.reply(&own, text).wait()),
                Err(why) => refuse(&query, why),
            }
        }
    };
    let thread = std::thread::Builder::new().name("clerk".to_owned());
    thread.spawn(body).map_err(|error| LinkError::Declare {
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(asked)
}

fn text_of(query: &Query) -> Result<String, String> {
    let bytes = query.payload().map(|payload| payload.to_bytes());
    let bytes = bytes.unwrap_or_default();
    if bytes.len() > TEXT_MAX {
        return Err(format!(
            "expected at most {TEXT_MAX} bytes, found {}",
            bytes.len()
        ));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "expected UTF-8 text".to_owned())?;
    Ok(text.to_owned())
}

fn refuse(query: &Query, why: String) {
    drop(query.reply_err(why).wait());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_lies_where_the_one_before_did_unless_somebody_holds_that() {
        let at = |frame: &ZBytes| frame.slices().next().map(<[u8]>::as_ptr);
        let mut buffer = FrameBuffer::default();
        let first = buffer.holding(b"first");
        let second = buffer.holding(b"another");
        assert_ne!(at(&first), at(&second));
        assert_eq!(
            first.to_bytes().as_ref(),
            b"first",
            "it is not written over"
        );
        assert_eq!(second.to_bytes().as_ref(), b"another");
        let place = at(&second);
        drop((first, second));
        assert_eq!(at(&buffer.holding(b"third")), place);
        assert!(buffer.holding(&[0; COMMAND_LEN_MAX + 1]).is_empty());
    }
}
