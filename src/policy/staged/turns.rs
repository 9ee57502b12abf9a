// SPDX-License-Identifier: Apache-2.0
//! What is repeated for one action, and the noise that it begins with.

use crate::policy::decode::Invalid;
use crate::policy::decode::diffusion::Diffusion;
use crate::policy::decode::doubt;
use crate::policy::staged::chance::{allowed, open_unit, pick};
use crate::policy::staged::manifest::{Noise, TokenLoop};
use crate::policy::staged::plan::{Place, Source};
use crate::policy::staged::run::Clock;
use crate::policy::staged::{Fault, Staged};
use crate::ports::{LoopStep, Update};
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// What is repeated.
pub(super) enum Turns {
    None,
    Flow {
        flow: crate::policy::decode::flow::Flow,
        velocity: Place,
        noise: Noise,
    },
    Diffusion {
        steps: Diffusion,
        said: Place,
    },
    Tokens {
        file: TokenLoop,
        first: Place,
        next: Place,
    },
    Draw {
        noise: Noise,
    },
}

impl Turns {
    /// A denoising loop in numbers, and the output that says where it goes; `None` if a step needs more than the sample and
    /// what the graph says of it.
    pub(super) fn steps(&self) -> Option<(Place, Vec<LoopStep>)> {
        match self {
            Turns::Flow { flow, velocity, .. } => {
                let update = Update::Euler { by: flow.dt() };
                let time = |step| {
                    flow.bucket(step)
                        .map_or(flow.time(step), |time| time as f32)
                };
                let steps = (0..flow.steps).map(|step| LoopStep {
                    time: time(step),
                    update,
                });
                Some((*velocity, steps.collect()))
            }
            Turns::Diffusion { steps, said } => {
                let each = (0..steps.steps()).map(|step| {
                    Some(LoopStep {
                        time: steps.time(step)? as f32,
                        update: steps.update(step)?,
                    })
                });
                Some((*said, each.collect::<Option<_>>()?))
            }
            Turns::None | Turns::Tokens { .. } | Turns::Draw { .. } => None,
        }
    }
}

impl Staged {
    pub(super) fn draw(&mut self, given: Option<&[f32]>) -> Result<(), Fault> {
        if let Some(given) = given {
            if given.len() != self.noise.len() {
                return Err(Fault::Noise {
                    expected: self.noise.len(),
                    found: given.len(),
                });
            }
            self.noise.copy_from_slice(given);
            return Ok(());
        }
        if let Some(seed) = self.seed {
            self.dice = Pcg64Mcg::seed_from_u64(seed);
        }
        self.draw_more();
        Ok(())
    }

    /// The dice go on from where they are.
    pub(super) fn draw_more(&mut self) {
        let noise = match self.turns {
            Turns::Flow { noise, .. } | Turns::Draw { noise } => noise,
            Turns::None | Turns::Diffusion { .. } | Turns::Tokens { .. } => Noise::Normal,
        };
        for pair in self.noise.chunks_mut(2) {
            let [first, second] = [open_unit(&mut self.dice), open_unit(&mut self.dice)];
            let drawn = match noise {
                Noise::Uniform => [2.0 * first - 1.0, 2.0 * second - 1.0],
                Noise::Unit => [first, second],
                Noise::Normal => {
                    let radius = (-2.0 * first.ln()).sqrt();
                    let angle = core::f64::consts::TAU * second;
                    [radius * angle.cos(), radius * angle.sin()]
                }
            };
            for (slot, value) in pair.iter_mut().zip(drawn) {
                *slot = value as f32;
            }
        }
    }

    pub(super) fn turn(&mut self, clock: Option<Clock<'_>>) -> Result<(), Fault> {
        let Staged {
            turns,
            run,
            x,
            noise,
            tokens,
            used,
            token_doubt,
            onward,
            denoised,
            ..
        } = self;
        *token_doubt = None;
        if let Some(end) = denoised {
            run.feed(Source::X, |slot| slot.copy_from_slice(noise));
            run.step(clock)?;
            x.copy_from_slice(run.output(*end));
            return Ok(());
        }
        match turns {
            Turns::None => {}
            Turns::Flow { flow, velocity, .. } => {
                x.copy_from_slice(noise);
                if let Some(onward) = onward {
                    onward.seed(x);
                }
                for step in 0..flow.steps {
                    match flow.bucket(step) {
                        Some(bucket) => run.feed_number(Source::Time, bucket as f32),
                        None => run.feed_number(Source::Time, flow.time(step)),
                    }
                    if let Some(onward) = onward {
                        onward.hold(x);
                        onward.feed(run, step);
                    }
                    run.feed(Source::X, |slot| slot.copy_from_slice(x));
                    run.step(clock)?;
                    match onward {
                        Some(onward) => onward.step(step, x, run.output(*velocity)),
                        None => flow.step(x, run.output(*velocity)),
                    }
                }
                if let Some(onward) = onward {
                    onward.hold(x);
                }
            }
            Turns::Draw { .. } => {
                run.feed(Source::X, |slot| slot.copy_from_slice(noise));
                run.step(clock)?;
            }
            Turns::Diffusion { steps, said } => {
                let (first, rest) = noise.split_at(x.len());
                x.copy_from_slice(first);
                let mut draws = rest.chunks_exact(x.len().max(1));
                for step in 0..steps.steps() {
                    run.feed_number(Source::Time, steps.time(step).unwrap_or(0) as f32);
                    run.feed(Source::X, |slot| slot.copy_from_slice(x));
                    run.step(clock)?;
                    let drawn = if steps.is_noisy(step) {
                        draws.next()
                    } else {
                        None
                    };
                    steps.step(step, x, run.output(*said), drawn.unwrap_or_default());
                }
            }
            Turns::Tokens { file, first, next } => {
                tokens.clear();
                while tokens.len() < file.max {
                    let logits = match tokens.last() {
                        None => run.output(*first),
                        Some(last) => {
                            let last = *last;
                            let place = *used + tokens.len() - 1 + file.position_offset as usize;
                            run.feed_whole(Source::Token, &[last]);
                            run.feed_whole(Source::Position, &[place as i32]);
                            run.step(clock)?;
                            run.output(*next)
                        }
                    };
                    let id = pick(file, logits)?;
                    // Among all words of a language the figure would say nothing of the action.
                    if file.allowed.is_some()
                        && let Ok(doubt) = doubt::of_logits(allowed(file, logits)?.1)
                    {
                        *token_doubt = Some(token_doubt.map_or(doubt, |worst| worst.worse(doubt)));
                    }
                    if file.stop.contains(&id) {
                        break;
                    }
                    tokens.push(id as i32);
                }
                if file.exactly && tokens.len() != file.max {
                    return Err(Fault::Invalid(Invalid::Count {
                        what: "tokens of an answer",
                        expected: file.max,
                        found: tokens.len(),
                    }));
                }
            }
        }
        Ok(())
    }
}
