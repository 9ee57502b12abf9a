// SPDX-License-Identifier: Apache-2.0
//! `tendon engine serve`: runs the stages of a bundle for another machine. It moves nothing and knows no robot: who asks
//! feeds the policy, reads it, and governs what follows.

use super::{ANOTHER, SERVER_LEN, key, put, seal, take, unseal};
use crate::config::link::LinkConfig;
use crate::config::problem::Problem;
use crate::config::{EngineKind, PolicyConfig};
use crate::link::session::{self, LinkError};
use crate::ports::{Engine, StageSpec, Tensor};
use crate::runtime::clock;
use crate::runtime::engines::{Wanted, choices};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zenoh::Wait;
use zenoh::handlers::RingChannel;
use zenoh::query::Query;

/// Questions that may wait: one robot asks one at a time, and what it has given up is not computed.
const WAITING: usize = 1;
/// It looks so often whether it is to end.
const IDLE: Duration = Duration::from_millis(100);

/// Why it serves no more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link was closed.
    #[error("the link was closed")]
    Closed,
    /// What an engine needs is lost for this process, such as a GPU's context.
    #[error("{0}: lost for this process: start it again")]
    Lost(String),
}

struct Served {
    engine: Box<dyn Engine>,
    words: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

/// The stages of a bundle, each with the first engine of the ladder that takes it.
pub struct Server {
    number: [u8; SERVER_LEN],
    served: HashMap<String, Served>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.words()).finish()
    }
}

impl Server {
    /// Loads them all.
    ///
    /// # Errors
    /// What spoke against each engine, for the first stage that none takes.
    pub fn load(config: &PolicyConfig) -> Result<Server, Vec<Problem>> {
        let random = std::collections::hash_map::RandomState::new();
        let mut served = HashMap::new();
        for (spec, graphs) in choices(&config.bundle, config.precision)? {
            let (onnx, (mut engine, words)) = nearest(config, &graphs, &spec)?;
            let key = key(onnx, &spec).map_err(|error| {
                let at = onnx.display().to_string();
                Problem::one(&at, "a graph that can be read", error.to_string())
            })?;
            let zeros = |specs: &[_]| -> Vec<Tensor> { specs.iter().map(Tensor::zeros).collect() };
            let (inputs, mut outputs) = (zeros(engine.inputs()), zeros(engine.outputs()));
            // A first run may take many times as long as those after it. Zeros may be no good input; that is told then.
            if let Err(fault) = engine.run(&inputs, &mut outputs) {
                log::info!("stage \"{}\", first run on zeros: {fault}", spec.id);
            }
            let words = format!("stage \"{}\" on {words}", spec.id);
            served.insert(
                key,
                Served {
                    engine,
                    words,
                    inputs,
                    outputs,
                },
            );
        }
        Ok(Server {
            number: random.hash_one(clock::now()).to_le_bytes(),
            served,
        })
    }

    /// What it serves, a line a stage.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.served.values().map(|one| one.words.clone()).collect();
        words.sort();
        words
    }

    /// Answers on `link` until `ending`; `ready` is called when it does.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn run(
        mut self,
        link: &LinkConfig,
        ending: &AtomicBool,
        ready: impl FnOnce(),
    ) -> Result<(), ServeError> {
        const KEYS: &str = "tendon/engine/*";
        let session = session::open(link)?;
        let questions = session
            .declare_queryable(KEYS)
            .with(RingChannel::new(WAITING))
            .wait();
        let questions = session::declare(KEYS, questions)?;
        ready();
        while !ending.load(Ordering::Relaxed) {
            let heard = questions.recv_timeout(IDLE);
            let Some(question) = heard.map_err(|_| ServeError::Closed)? else {
                continue;
            };
            // Who asked may be gone; then nobody misses the answer.
            let _ = match self.answer(&question) {
                Ok(bytes) => question.reply(question.key_expr(), bytes).wait(),
                Err(words) => question.reply_err(words).wait(),
            };
            if let Some(lost) = self.served.values().find(|served| served.engine.lost()) {
                return Err(ServeError::Lost(lost.words.clone()));
            }
        }
        Ok(())
    }

    fn answer(&mut self, question: &Query) -> Result<Vec<u8>, String> {
        let served = self.served.get_mut(question.key_expr().as_str());
        let served = served.ok_or("another bundle or precision is served here")?;
        let payload = question.payload();
        let bytes = payload
            .map(|payload| payload.to_bytes())
            .unwrap_or_default();
        let mut answer = Vec::new();
        if bytes.is_empty() {
            answer.extend(self.number);
            answer.extend(served.words.as_bytes());
        } else {
            let body = unseal(&bytes).ok_or("a question that is not whole")?;
            let said = body.split_first_chunk::<SERVER_LEN>();
            let (number, numbers) = said.ok_or("a question that is not whole")?;
            if *number != self.number {
                return Err(ANOTHER.to_owned());
            }
            take(numbers, &mut served.inputs).ok_or("inputs of other sizes")?;
            let run = served.engine.run(&served.inputs, &mut served.outputs);
            run.map_err(|fault| fault.to_string())?;
            put(&served.outputs, &mut answer);
        }
        seal(&mut answer);
        Ok(answer)
    }
}

/// An engine, and what is to be said of it.
type Taken = (Box<dyn Engine>, String);

/// The first of these graphs that an engine takes, with that engine and what is to be said of it. Who asks goes through them too.
fn nearest<'a>(
    config: &PolicyConfig,
    graphs: &'a [PathBuf],
    spec: &StageSpec,
) -> Result<(&'a Path, Taken), Vec<Problem>> {
    let mut refused: Option<Vec<Problem>> = None;
    for onnx in graphs {
        match first(config, onnx, spec) {
            Ok(taken) => return Ok((onnx, taken)),
            Err(problems) => {
                refused.get_or_insert(problems);
            }
        }
    }
    Err(refused.unwrap_or_default())
}

/// The first engine of the ladder that takes the stage, and what is to be said of it.
fn first(config: &PolicyConfig, onnx: &Path, spec: &StageSpec) -> Result<Taken, Vec<Problem>> {
    let mut all: Vec<Problem> = Vec::new();
    for kind in config
        .engines
        .iter()
        .filter(|kind| **kind != EngineKind::Remote)
    {
        let loaded = Wanted::of(config, *kind).with(|loader| {
            // Nothing is offered to it here: what it gives goes back over the wire.
            let loaded = loader(onnx, spec).and_then(|mut engine| {
                engine.settle()?;
                Ok(engine)
            });
            loaded.map_err(|fault| {
                let at = format!("policy.engines \"{}\"", kind.word());
                Problem::one(&at, "an engine that takes the stage", fault.to_string())
            })
        });
        match loaded {
            Ok((engine, remarks)) => {
                let mut words = vec![kind.word().to_owned()];
                words.extend(remarks);
                words.extend(all.iter().map(|problem| format!("not {problem}")));
                return Ok((engine, words.join(", ")));
            }
            Err(problems) => all.extend(problems),
        }
    }
    if all.is_empty() {
        all = Problem::one(
            "policy.engines",
            "an engine that runs on this machine",
            "\"remote\" alone".to_owned(),
        );
    }
    Err(all)
}
