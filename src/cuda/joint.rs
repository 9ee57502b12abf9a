// SPDX-License-Identifier: Apache-2.0
//! Recorded runs of several stages launched as one graph: those that nobody waits for go with the next that somebody does.

use super::{CudaFault, Graph, Stream};
use std::sync::Arc;

/// Most runs that wait for the next; one more and they are launched as they are.
const DUE_MAX: usize = 32;

/// A stream, and the runs that are due on it.
pub struct Line {
    /// The stream. To be waited for by way of the line, unless nothing is due.
    pub stream: Stream,
    due: Vec<Arc<Graph>>,
}

/// One graph of several, kept by the stage that is their last.
#[derive(Default)]
pub struct Joint {
    /// What was launched last time.
    last: Vec<Arc<Graph>>,
    /// What was joined, and the whole; `None` if the driver refused.
    made: Option<(Vec<Arc<Graph>>, Option<Graph>)>,
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
        }
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
        let stream = &self.stream;
        let each = self.due.drain(..).map(|graph| stream.launch(&graph));
        each.fold(Ok(()), Result::and)
    }

    /// Takes back what is due of a run that is no more.
    pub fn forget(&mut self, graph: &Arc<Graph>) {
        self.due.retain(|due| !Arc::ptr_eq(due, graph));
    }

    /// Launches `own` behind all that is due: as one graph, from the second time in a row on that the same runs come together. Making it
    /// takes the driver a while and allocates: three frames of the fixture with one sentence see to that at load, else the
    /// first three inferences do.
    ///
    /// # Errors
    /// [`CudaFault`]; nothing is due then.
    pub fn launch(&mut self, own: &Arc<Graph>, joint: &mut Joint) -> Result<(), CudaFault> {
        if self.due.is_empty() {
            return self.stream.launch(own);
        }
        self.defer(own)?;
        let known = |joint: &Joint, due: &[Arc<Graph>]| {
            joint.made.as_ref().is_some_and(|(of, _)| same(of, due))
        };
        if !known(joint, &self.due) && same(&joint.last, &self.due) {
            let whole = self.stream.join(&self.due).ok();
            joint.made = Some((self.due.clone(), whole));
        }
        if known(joint, &self.due)
            && let Some((_, Some(whole))) = &joint.made
        {
            joint.last.clone_from(&self.due);
            self.due.clear();
            return self.stream.launch(whole);
        }
        joint.last.clone_from(&self.due);
        self.flush()
    }

    /// Waits for all that was put on the stream or is due, asleep.
    ///
    /// # Errors
    /// As [`Stream::wait`].
    pub fn wait(&mut self) -> Result<(), CudaFault> {
        // Also after a fault, which is told: what the device may still read is then the host's again.
        let flushed = self.flush();
        let waited = self.stream.wait();
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
