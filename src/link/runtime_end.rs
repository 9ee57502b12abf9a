// SPDX-License-Identifier: Apache-2.0
//! The pipeline's end of the link: commands out, states and pictures in, requests answered.

use super::keys;
use super::session::{LinkError, TEXT_MAX, declare};
use crate::core::units::Mono;
use crate::core::wire::Identity;
use crate::core::wire::picture;
use crate::core::wire::reject::Reject;
use crate::ports::{Frame, Source, SourceFault};
use std::time::Duration;
use zenoh::handlers::{RingChannel, RingChannelHandler};
use zenoh::pubsub::{Publisher, Subscriber};
use zenoh::qos::{CongestionControl, Priority};
use zenoh::query::Queryable;
use zenoh::sample::Sample;
use zenoh::{Session, Wait};

/// Sends command frames. Never blocks for long: real-time priority, no batching, drop when congested.
#[derive(Debug)]
pub struct CommandSender {
    key: String,
    publisher: Publisher<'static>,
}

impl CommandSender {
    /// Declares the command stream of `robot`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(session: &Session, robot: &str) -> Result<CommandSender, LinkError> {
        let key = keys::command(robot);
        let publisher = session
            .declare_publisher(key.clone())
            .congestion_control(CongestionControl::Drop)
            .priority(Priority::RealTime)
            .express(true)
            .wait();
        Ok(CommandSender {
            publisher: declare(&key, publisher)?,
            key,
        })
    }

    /// Hands a frame to the link. Ok means that it was taken, not that it arrived.
    ///
    /// # Errors
    /// [`LinkError::Put`].
    pub fn send(&self, frame: &[u8]) -> Result<(), LinkError> {
        self.publisher
            .put(frame)
            .wait()
            .map_err(|error| LinkError::Put {
                key: self.key.clone(),
                reason: error.to_string(),
            })
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

/// A camera that is reached over the link. Only its newest picture waits; an older one is dropped.
pub struct LinkCamera {
    subscriber: Subscriber<RingChannelHandler<Sample>>,
    identity: Identity,
    size: [usize; 2],
    last: Option<(u32, Mono)>,
    clock: fn() -> Mono,
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
        let key = keys::camera(robot, camera);
        let subscriber = session
            .declare_subscriber(&key)
            .with(RingChannel::new(1))
            .wait();
        Ok(LinkCamera {
            subscriber: declare(&key, subscriber)?,
            identity,
            size,
            last: None,
            clock,
        })
    }
}

impl Source for LinkCamera {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let left = Duration::from_nanos(deadline.since_ns((self.clock)()));
        let sample = match self.subscriber.recv_timeout(left) {
            Ok(Some(sample)) => sample,
            Ok(None) => return Err(SourceFault::Timeout),
            Err(_) => return Err(SourceFault::Closed("the link was closed")),
        };
        let received = (self.clock)();
        let bytes = sample.payload().to_bytes();
        let read = picture::decode(&bytes, self.identity).map_err(|reject| {
            SourceFault::Refused(match reject {
                Reject::Length => "picture frame of wrong length",
                Reject::Crc => "picture frame with a wrong CRC",
                _ => "foreign picture frame",
            })
        })?;
        if [read.width, read.height] != self.size {
            return Err(SourceFault::Refused(
                "picture of another size than tendon.toml says",
            ));
        }
        if read.captured > received {
            return Err(SourceFault::Refused(
                "picture from the future: the camera's clock is not this machine's",
            ));
        }
        // A restarted camera counts from one again; only time must not go back.
        if self
            .last
            .is_some_and(|(_, captured)| read.captured <= captured)
        {
            return Err(SourceFault::Refused("picture repeated or out of order"));
        }
        self.last = Some((read.seq, read.captured));
        frame.rgb.resize(read.rgb.len(), 0);
        frame.rgb.copy_from_slice(read.rgb);
        (frame.width, frame.height) = (read.width, read.height);
        (frame.seq, frame.captured, frame.received) = (read.seq.max(1), read.captured, received);
        Ok(())
    }
}

/// Answers requests under `key`: `answer` gets the text and returns the answer or a refusal.
///
/// # Errors
/// [`LinkError`].
pub fn answer_requests(
    session: &Session,
    key: String,
    answer: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static,
) -> Result<Queryable<()>, LinkError> {
    let own = key.clone();
    let queryable = session
        .declare_queryable(&key)
        .callback(move |query| {
            let bytes = query
                .payload()
                .map(|payload| payload.to_bytes())
                .unwrap_or_default();
            let said = match std::str::from_utf8(&bytes) {
                Ok(text) if bytes.len() <= TEXT_MAX => answer(text),
                Ok(_) => Err(format!(
                    "expected at most {TEXT_MAX} bytes, found {}",
                    bytes.len()
                )),
                Err(_) => Err("expected UTF-8 text".to_owned()),
            };
            // The one who asked may be gone; then nobody misses the answer.
            let _ = match said {
                Ok(text) => query.reply(&own, text).wait(),
                Err(text) => query.reply_err(text).wait(),
            };
        })
        .wait();
    declare(&key, queryable)
}
