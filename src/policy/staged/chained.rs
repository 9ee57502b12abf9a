// SPDX-License-Identifier: Apache-2.0
//! Tensors that never come to the host: each engine is offered, once, what another computes for it.
//!
//! On the host stay a tensor that something here reads (loop, decoder, ring, map), one that is put together of parts, and a
//! memory whose beginning is not made anew at each observation.

use super::Run;
use crate::policy::staged::manifest::StagedFile;
use crate::policy::staged::plan::{Place, Rate, Source};
use crate::policy::staged::readers::{Reader, read_on_host};
use crate::ports::{EngineFault, LoopStep, LoopWay};

impl Run {
    /// Makes the offers. To be done before the fixture, which then proves what came of them.
    ///
    /// # Errors
    /// [`EngineFault`] of an engine that would and could not, with its stage.
    pub(crate) fn chain(&mut self, file: &StagedFile) -> Result<(), (usize, EngineFault)> {
        let outputs: Vec<Place> = (0..self.plan.stages.len())
            .flat_map(|stage| {
                let outputs = self.plan.stages.get(stage).map(|it| it.spec.outputs.len());
                (0..outputs.unwrap_or(0)).map(move |tensor| Place { stage, tensor })
            })
            .collect();
        let mut here = read_on_host(file);
        here.extend(self.plan.rings.iter().map(|(place, _)| *place));
        // Where the loop is run again for the same observation, what it carries begins again without its maker.
        let again = file
            .uncertainty
            .as_ref()
            .is_some_and(|doubt| doubt.from.is_none());
        for of in &outputs {
            let alone = !here.contains(of) && self.plan.readers(*of).len() == 1;
            for reader in self.plan.readers(*of) {
                if let Some(carried) = self.fits(*of, reader, alone && !again) {
                    self.offer_output(*of, reader.input, carried)?;
                }
            }
        }
        for of in outputs {
            let mut readers = self.plan.readers(of).into_iter();
            if !here.contains(&of)
                && readers.all(|reader| self.is_borrowed(reader.input))
                && let Some(stage) = self.stages.get_mut(of.stage)
            {
                stage.engine.keep(of.tensor);
            }
        }
        Ok(())
    }

    /// Whether an input may take an output where it is, and which of its own stage's outputs it then carries.
    fn fits(&self, of: Place, reader: Reader, may_overwrite: bool) -> Option<Option<usize>> {
        let maker = self.plan.stages.get(of.stage)?;
        let stage = self.plan.stages.get(reader.input.stage)?;
        let input = stage.inputs.get(reader.input.tensor)?;
        if reader.carries || !reader.whole {
            return None;
        }
        let Some(carried) = input.carry else {
            return Some(None);
        };
        let begins_anew = maker.rate == Rate::Observation && stage.rate == Rate::Step;
        (begins_anew && may_overwrite && carried.stage == reader.input.stage)
            .then_some(Some(carried.tensor))
    }

    fn offer_output(
        &mut self,
        of: Place,
        to: Place,
        carried: Option<usize>,
    ) -> Result<(), (usize, EngineFault)> {
        let Some(maker) = self.stages.get_mut(of.stage) else {
            return Ok(());
        };
        let lent = maker
            .engine
            .lend(of.tensor)
            .map_err(|fault| (of.stage, fault))?;
        if let (Some(lent), Some(stage)) = (lent, self.stages.get_mut(to.stage)) {
            let taken = stage
                .engine
                .borrow(to.tensor, &lent, carried)
                .map_err(|fault| (to.stage, fault))?;
            if let Some(borrowed) = stage.borrowed.get_mut(to.tensor) {
                *borrowed = taken;
            }
        }
        Ok(())
    }

    /// Offers the loop to the engine of its only stage, if between two steps nobody needs more than that stage's sample and
    /// what it says of it; whether it runs it whole.
    pub(crate) fn offer_loop(
        &mut self,
        file: &StagedFile,
        said: Place,
        steps: Vec<LoopStep>,
    ) -> Result<bool, EngineFault> {
        let planned = self.plan.stages.iter();
        let bodies = planned.filter(|stage| stage.rate == Rate::Step).count();
        let carries = self.plan.stages.get(said.stage).is_none_or(|stage| {
            stage.rate != Rate::Step || stage.inputs.iter().any(|input| input.carry.is_some())
        });
        let ringed = self.plan.rings.iter().any(|(of, _)| of.stage == said.stage);
        let read = read_on_host(file).iter().filter(|of| **of == said).count();
        let alone = read == 1 && self.plan.readers(said).is_empty();
        // The one input of that stage, whole, that is fed with it; outer `None`: something else is.
        let input = |source: Source| {
            let mut fed = self.targets.iter().filter(|(found, _)| *found == source);
            match fed.next().map(|(_, targets)| &targets[..]) {
                None => Some(None),
                Some([target]) => {
                    let stage = self.plan.stages.get(said.stage)?;
                    let spec = stage.spec.inputs.get(target.place.tensor)?;
                    let whole = spec.values() == target.part.len;
                    (whole && target.place.stage == said.stage).then_some(Some(target.place.tensor))
                }
                Some(_) => None,
            }
        };
        let (Some(Some(sample)), Some(time)) = (input(Source::X), input(Source::Time)) else {
            return Ok(false);
        };
        if bodies != 1 || carries || ringed || !alone {
            return Ok(false);
        }
        let way = LoopWay {
            sample,
            time,
            said: said.tensor,
            steps,
        };
        match self.stages.get_mut(said.stage) {
            Some(stage) => stage.engine.take_loop(&way),
            None => Ok(false),
        }
    }

    /// Every offer was made: each engine chooses what it has left to choose, in the order in which they run, so that none tries it on a
    /// tensor that its maker never wrote.
    ///
    /// # Errors
    /// [`EngineFault`] of an engine that does not run, with its stage.
    pub(crate) fn settle(&mut self) -> Result<(), (usize, EngineFault)> {
        let Run { plan, stages, .. } = self;
        for index in &plan.order {
            if let Some(stage) = stages.get_mut(*index) {
                stage.engine.settle().map_err(|fault| (*index, fault))?;
            }
        }
        Ok(())
    }

    fn is_borrowed(&self, input: Place) -> bool {
        let stage = self.stages.get(input.stage);
        stage.and_then(|stage| stage.borrowed.get(input.tensor)) == Some(&true)
    }

    /// How many inputs come from where another engine computes them.
    pub(crate) fn borrowed(&self) -> usize {
        let all = self.stages.iter().flat_map(|stage| &stage.borrowed);
        all.filter(|borrowed| **borrowed).count()
    }
}
