// SPDX-License-Identifier: Apache-2.0
//! Recorded runs of several stages launched as one graph: those that nobody waits for go with the next that somebody does.

use super::{CudaFault, Graph, Stream};
use std::sync::Arc;

/// Most runs that wait for the next; one more and they are launched as they are.
const DUE_MAX: usize = 32;
/// Most joint graphs of one stage: that of an observation, and that of one with a new instruction, whose stages come before. Both are to
/// be made at load.
const MADE_MAX: usize = 2;

/// Recorded runs, one after the other.
type Runs = Vec<Arc<Graph>>;

/// A stream, and the runs that are due on it.
pub struct Line {
    /// The stream. To be waited for by way of the line, unless nothing is due.
    pub stream: Stream,
    due: Runs,
    /// What was done, for who listens.
    tape: Option<Vec<Done>>,
}

/// What was done on a line.
#[derive(Clone)]
pub enum Done {
    /// A recorded run was launched.
    Launched(Arc<Graph>),
    /// Something was put on the stream that is not recorded.
    Unrecorded,
    /// All before was waited for.
    Waited,
    /// The host gave so many bytes.
    Given(usize),
    /// The host took so many bytes.
    Taken(usize),
}

/// One graph of several, kept by the stage that is their last.
#[derive(Default)]
pub struct Joint {
    /// What was launched last time.
    last: Runs,
    /// What was joined, and the whole; `None` if the driver refused. The oldest first.
    made: Vec<(Runs, Option<Arc<Graph>>)>,
}

impl Joint {
    /// Whether what was launched together last time is launched the same way when it comes again.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.last.is_empty() || self.of(&self.last).is_some()
    }

    /// What these runs were joined to, if they were.
    fn of(&self, runs: &[Arc<Graph>]) -> Option<&Option<Arc<Graph>>> {
        let mut made = self.made.iter();
        made.find(|(of, _)| same(of, runs)).map(|(_, whole)| whole)
    }
}

fn same(a: &[Arc<Graph>], b: &[Arc<Graph>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Line {
    /// Nothing is due.
    #[must_use]
    pub fn new(stream: Stream) -> Line {
        Line {
            stream,
            due: Vec::with_capacity(DUE_MAX),
            tape: None,
        }
    }

    /// Keeps what is done from now on.
    pub fn listen(&mut self) {
        self.tape = Some(Vec::with_capacity(2 * DUE_MAX));
    }

    /// What was done since, in its order; from now on nothing is kept.
    pub fn heard(&mut self) -> Vec<Done> {
        self.tape.take().unwrap_or_default()
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn is_listened_to(&self) -> bool {
        self.tape.is_some()
    }

    /// Tells who listens.
    pub fn tell(&mut self, done: Done) {
        if let Some(tape) = &mut self.tape {
            tape.push(done);
        }
    }

    fn start(&mut self, graph: &Arc<Graph>) -> Result<(), CudaFault> {
        self.stream.launch(graph)?;
        if let Some(tape) = &mut self.tape {
            tape.push(Done::Launched(Arc::clone(graph)));
        }
        Ok(())
    }

    /// A run whose end nobody waits for.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn defer(&mut self, graph: &Arc<Graph>) -> Result<(), CudaFault> {
        if self.due.len() == DUE_MAX {
            self.flush()?;
        }
        self.due.push(Arc::clone(graph));
        Ok(())
    }

    /// Puts what is due on the stream, as it is.
    ///
    /// # Errors
    /// [`CudaFault`]; nothing is due then.
    pub fn flush(&mut self) -> Result<(), CudaFault> {
        let mut all = Ok(());
        for graph in self.due.drain(..) {
            all = all.and(self.stream.launch(&graph));
            if let Some(tape) = &mut self.tape {
                tape.push(Done::Launched(graph));
            }
        }
        all
    }

    /// Takes back what is due of a run that is no more.
    pub fn forget(&mut self, graph: &Arc<Graph>) {
        self.due.retain(|due| !Arc::ptr_eq(due, graph));
    }

    /// Launches `own` behind all that is due: as one graph, from the second time in a row on that the same runs come together. Making it
    /// takes the driver a while and allocates: who proves a policy runs it at load until [`Joint::is_steady`], with a new instruction and
    /// without.
    ///
    /// # Errors
    /// [`CudaFault`]; nothing is due then.
    pub fn launch(&mut self, own: &Arc<Graph>, joint: &mut Joint) -> Result<(), CudaFault> {
        if self.due.is_empty() {
            return self.start(own);
        }
        self.defer(own)?;
        if joint.of(&self.due).is_none() && same(&joint.last, &self.due) {
            let whole = self.stream.join(&self.due).ok().map(Arc::new);
            if joint.made.len() == MADE_MAX {
                joint.made.remove(0);
            }
            joint.made.push((self.due.clone(), whole));
        }
        let whole = joint.of(&self.due).cloned().flatten();
        joint.last.clone_from(&self.due);
        match whole {
            Some(whole) => {
                self.due.clear();
                self.start(&whole)
            }
            None => self.flush(),
        }
    }

    /// Waits for all that was put on the stream or is due, asleep.
    ///
    /// # Errors
    /// As [`Stream::wait`].
    pub fn wait(&mut self) -> Result<(), CudaFault> {
        // Also after a fault, which is told: what the device may still read is then the host's again.
        let flushed = self.flush();
        let waited = self.stream.wait();
        self.tell(Done::Waited);
        flushed.and(waited)
    }

    /// Waits, asleep, unless the run of this number was waited for.
    ///
    /// # Errors
    /// As [`Stream::wait`].
    pub fn wait_for(&mut self, mark: u64) -> Result<(), CudaFault> {
        if self.stream.waited_for(mark) {
            return Ok(());
        }
        self.wait()
    }
}
