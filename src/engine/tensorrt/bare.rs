// SPDX-License-Identifier: Apache-2.0
//! A bare loop beside a policy: what one inference had the device do, done again and nothing else. The same recorded runs on
//! the same memory, launched and waited for in the same order; the host's part is to give and to take as many bytes.
//!
//! So it is what a loop written by hand around the same engines would take at the least, and the rest of an inference is ours.

use super::{LoadFault, Platform, SharedLine};
use crate::cuda::joint::{Done, Line};
use crate::cuda::memory::PinnedBuffer;

/// What an inference did. To be run only while the stages that it heard are there: it launches their recorded runs.
pub struct BareLoop {
    steps: Vec<Done>,
    line: SharedLine,
    /// Stands for the tensors, which keep what is in them.
    pinned: PinnedBuffer,
    host: Vec<u8>,
}

impl std::fmt::Debug for BareLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BareLoop of {} launches", self.launches())
    }
}

impl Platform {
    /// Keeps what the stages of this platform do from now on.
    pub fn listen(&self) {
        self.line.hold().listen();
    }

    /// What they did since, to be done again.
    ///
    /// # Errors
    /// [`LoadFault`] if that cannot be: nothing was launched, or a stage ran that could not be recorded.
    pub fn heard(&self) -> Result<BareLoop, LoadFault> {
        self.context.make_current()?;
        let steps = self.line.hold().heard();
        let launched = |done: &Done| matches!(done, Done::Launched(_));
        let unrecorded = |done: &Done| matches!(done, Done::Unrecorded);
        if steps.iter().any(unrecorded) || !steps.iter().any(launched) {
            return Err(LoadFault::Engine(
                "a bare loop: expected an inference of CUDA graphs, found one that could not be recorded".into(),
            ));
        }
        let bytes = |done: &Done| match done {
            Done::Given(bytes) | Done::Taken(bytes) => *bytes,
            Done::Launched(_) | Done::Unrecorded | Done::Waited => 0,
        };
        let most = steps.iter().map(bytes).max().unwrap_or(0);
        Ok(BareLoop {
            steps,
            line: self.line.clone(),
            pinned: PinnedBuffer::new(&self.context, most)?,
            host: vec![0; most],
        })
    }
}

impl BareLoop {
    /// Graphs that it launches.
    #[must_use]
    pub fn launches(&self) -> usize {
        let launched = |done: &&Done| matches!(done, Done::Launched(_));
        self.steps.iter().filter(launched).count()
    }

    /// Launches and waits.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn replay(&mut self) -> Result<(), LoadFault> {
        self.go(false)
    }

    /// The same, with as many bytes given before and taken after as the inference gave and took.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn run(&mut self) -> Result<(), LoadFault> {
        self.go(true)
    }

    fn go(&mut self, crossing: bool) -> Result<(), LoadFault> {
        let mut line = self.line.hold();
        let line: &mut Line = &mut line;
        line.flush()?;
        let mark = line.stream.mark();
        for step in &self.steps {
            match step {
                Done::Launched(graph) => line.stream.launch(graph)?,
                Done::Waited => line.stream.wait()?,
                Done::Given(bytes) if crossing => {
                    let to = self.pinned.bytes().get_mut(..*bytes);
                    if let (Some(to), Some(from)) = (to, self.host.get(..*bytes)) {
                        to.copy_from_slice(from);
                    }
                }
                Done::Taken(bytes) if crossing => {
                    let to = self.host.get_mut(..*bytes);
                    if let (Some(to), Some(from)) = (to, self.pinned.bytes().get(..*bytes)) {
                        to.copy_from_slice(from);
                    }
                }
                Done::Given(_) | Done::Taken(_) | Done::Unrecorded => {}
            }
        }
        Ok(line.wait_for(mark)?)
    }
}
