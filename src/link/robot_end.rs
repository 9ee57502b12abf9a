// SPDX-License-Identifier: Apache-2.0
//! The robot's end of the link: commands in, states and pictures out.

use super::keys;
use super::session::{LinkError, declare};
use std::sync::mpsc;
use zenoh::pubsub::{Publisher, Subscriber};
use zenoh::qos::{CongestionControl, Priority, Reliability};
use zenoh::{Session, Wait};

/// Commands that may wait to be taken; the robot's loop empties it each millisecond or two.
const COMMANDS_WAITING: usize = 64;

/// One robot's end.
#[derive(Debug)]
pub struct RobotEnd {
    /// Command frames in the order of their arrival.
    pub commands: mpsc::Receiver<Vec<u8>>,
    states: Publisher<'static>,
    _subscriber: Subscriber<()>,
}

impl RobotEnd {
    /// Declares the robot's streams.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(session: &Session, robot: &str) -> Result<RobotEnd, LinkError> {
        let (sender, commands) = mpsc::sync_channel(COMMANDS_WAITING);
        let key = keys::command(robot);
        let subscriber = session
            .declare_subscriber(&key)
            // Full means that the robot's loop stands still; it will stop by its own silence timeout.
            .callback(move |sample| drop(sender.try_send(sample.payload().to_bytes().into_owned())))
            .wait();
        let subscriber = declare(&key, subscriber)?;
        let key = keys::state(robot);
        let states = session
            .declare_publisher(key.clone())
            .congestion_control(CongestionControl::Drop)
            .priority(Priority::RealTime)
            .reliability(Reliability::BestEffort)
            .express(true)
            .wait();
        Ok(RobotEnd {
            commands,
            states: declare(&key, states)?,
            _subscriber: subscriber,
        })
    }

    /// Sends a state frame. Lost ones are seen by the receiver's age check.
    pub fn send_state(&self, frame: &[u8]) {
        drop(self.states.put(frame).wait());
    }
}

/// Sends pictures of one camera, at a priority below everything that moves the robot.
#[derive(Debug)]
pub struct PictureSender(Publisher<'static>);

impl PictureSender {
    /// Declares the picture stream of `camera`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(session: &Session, robot: &str, camera: &str) -> Result<PictureSender, LinkError> {
        let key = keys::camera(robot, camera);
        let publisher = session
            .declare_publisher(key.clone())
            .congestion_control(CongestionControl::Drop)
            .priority(Priority::Data)
            .wait();
        Ok(PictureSender(declare(&key, publisher)?))
    }

    /// Sends a picture frame; a lost one is replaced by the next.
    pub fn send(&self, frame: &[u8]) {
        drop(self.0.put(frame).wait());
    }
}
