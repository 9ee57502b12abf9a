// SPDX-License-Identifier: Apache-2.0
//! An engine that makes its pictures itself is given the camera's bytes, and the families' fixtures hold with it: here one
//! that works the offered tables out pixel by pixel and lets the CPU engine run. And when an engine is offered what.

use crate::families::folder;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::staged::Staged;
use tendon::policy::{LoadOptions, Policy};
use tendon::ports::{
    Engine, EngineFault, Lent, LoopWay, PictureWay, StageSpec, Tensor, TensorSpec,
};

struct Device {
    inner: CpuEngine,
    /// For each input its way and the camera's bytes, if it was taken.
    taken: Vec<Option<(PictureWay, Vec<u8>)>>,
    count: Arc<AtomicUsize>,
}

fn byte(value: f32) -> f32 {
    (value.clamp(0.0, 255.0) + 0.5).floor()
}

/// The meaning of a way, written down as plainly as can be.
fn made(way: &PictureWay, rgb: &[u8]) -> Vec<f32> {
    let [width, height] = way.size;
    let channels = 3 * way.levels.len();
    let mut tensor = vec![0.0; width * height * channels];
    for at in 0..width * height {
        let column = (at % width) as isize + way.shift[0];
        let row = (at / width) as isize + way.shift[1];
        let inside = (0..way.columns.starts.len() as isize).contains(&column)
            && (0..way.rows.starts.len() as isize).contains(&row);
        let mut pixel = [way.pad; 3];
        if inside {
            let (column, row) = (column as usize, row as usize);
            for (colour, value) in pixel.iter_mut().enumerate() {
                let mut sum = 0.0;
                for down in 0..way.rows.count {
                    let mut line = 0.0;
                    for across in 0..way.columns.count {
                        let x = (way.columns.starts[column] + across) as isize;
                        let y = (way.rows.starts[row] + down) as isize;
                        let place = way.origin as isize + x * way.steps[0] + y * way.steps[1];
                        let weight = way.columns.weights[column * way.columns.count + across];
                        line += weight * f32::from(rgb[place as usize + colour]);
                    }
                    if way.rounds[0] {
                        line = byte(line);
                    }
                    sum += way.rows.weights[row * way.rows.count + down] * line;
                }
                *value = if way.rounds[1] { byte(sum) } else { sum };
            }
        }
        for channel in 0..channels {
            let colour = if way.blue_first {
                2 - channel % 3
            } else {
                channel % 3
            };
            let [factor, addend] = way.levels[channel / 3][channel % 3];
            let place = if way.channels_last {
                at * channels + channel
            } else {
                channel * width * height + at
            };
            tensor[place] = pixel[colour] * factor + addend;
        }
    }
    tensor
}

impl Engine for Device {
    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let mut inputs = inputs.to_vec();
        for (input, taken) in inputs.iter_mut().zip(&self.taken) {
            if let Some((way, rgb)) = taken {
                *input = Tensor::F32(made(way, rgb));
            }
        }
        self.inner.run(&inputs, outputs)
    }

    fn take_picture(&mut self, input: usize, way: &PictureWay) -> Result<bool, EngineFault> {
        let bytes = vec![0; way.source[0] * way.source[1] * 3];
        self.taken[input] = Some((way.clone(), bytes));
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn picture(&mut self, input: usize) -> Option<&mut [u8]> {
        self.taken[input].as_mut().map(|(_, rgb)| &mut rgb[..])
    }
}

/// Loads a family with such engines, its fixture included; how many pictures they took.
fn taken(family: &str) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let load = |path: &Path, spec: &StageSpec| {
        Ok(Box::new(Device {
            inner: CpuEngine::load(path, spec, CpuOptions::default())?,
            taken: vec![None; spec.inputs.len()],
            count: Arc::clone(&count),
        }) as Box<dyn Engine>)
    };
    let policy = Staged::load(&folder(family), LoadOptions::default(), &load);
    let policy = policy.unwrap_or_else(|problems| panic!("{family}: {problems:?}"));
    println!(
        "{family}: {} pictures, {}",
        count.load(Ordering::Relaxed),
        policy.parity()
    );
    count.load(Ordering::Relaxed)
}

#[test]
fn pictures_that_an_engine_makes_itself_keep_the_fixtures() {
    assert_eq!(taken("act"), 2);
    assert_eq!(taken("openvla"), 1);
    assert_eq!(taken("groot"), 1);
    // Two of its three cameras may be missing.
    assert_eq!(taken("pi0"), 1);
    // Of several frames, or several cameras in one tensor: the processor's.
    assert_eq!(taken("diffusion"), 0);
    assert_eq!(taken("humanoid"), 0);
    let others = ["smolvla", "openvla_oft", "bcz"];
    let sum: usize = others.iter().map(|family| taken(family)).sum();
    assert!(sum > 0, "nobody took a picture");
}

/// What engines were asked for: which stage, and what.
type Asked = Arc<Mutex<Vec<(String, &'static str)>>>;

/// Declines every offer and says that it chose something when there are no more; from then on it gives so much more.
struct Declines {
    inner: CpuEngine,
    stage: String,
    asked: Asked,
    more: f32,
    settled: bool,
}

impl Declines {
    fn ask(&self, what: &'static str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push((self.stage.clone(), what));
    }
}

impl Engine for Declines {
    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.ask("run");
        self.inner.run(inputs, outputs)?;
        let more = if self.settled { self.more } else { 0.0 };
        let floats = outputs.iter_mut().filter_map(Tensor::f32_mut);
        floats.flatten().for_each(|value| *value += more);
        Ok(())
    }

    fn take_picture(&mut self, _: usize, _: &PictureWay) -> Result<bool, EngineFault> {
        self.ask("offer");
        Ok(false)
    }

    fn lend(&mut self, _: usize) -> Result<Option<Lent>, EngineFault> {
        self.ask("offer");
        Ok(None)
    }

    fn take_loop(&mut self, _: &LoopWay) -> Result<bool, EngineFault> {
        self.ask("offer");
        Ok(false)
    }

    fn settle(&mut self) -> Result<bool, EngineFault> {
        self.ask("settle");
        self.settled = true;
        Ok(true)
    }
}

/// Makes such engines.
fn declining(
    asked: &Asked,
    more: f32,
) -> impl Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    let asked = Arc::clone(asked);
    move |path: &Path, spec: &StageSpec| {
        Ok(Box::new(Declines {
            inner: CpuEngine::load(path, spec, CpuOptions::default())?,
            stage: spec.id.clone(),
            asked: Arc::clone(&asked),
            more,
            settled: false,
        }) as Box<dyn Engine>)
    }
}

/// What was asked for one after the other, each once in a row; and who settled.
fn order(asked: &Asked) -> (Vec<&'static str>, Vec<String>) {
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let mut phases: Vec<&str> = asked.iter().map(|(_, what)| *what).collect();
    phases.dedup();
    let settled = asked.iter().filter(|(_, what)| *what == "settle");
    (phases, settled.map(|(stage, _)| stage.clone()).collect())
}

/// Runs otherwise at first: before its run of this number it gives so much more.
struct Warms {
    inner: CpuEngine,
    runs: Arc<AtomicUsize>,
    steady: usize,
    more: f32,
}

impl Engine for Warms {
    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        self.inner.run(inputs, outputs)?;
        let more = if run < self.steady { self.more } else { 0.0 };
        let floats = outputs.iter_mut().filter_map(Tensor::f32_mut);
        floats.flatten().for_each(|value| *value += more);
        Ok(())
    }

    fn is_steady(&self) -> bool {
        self.runs.load(Ordering::Relaxed) >= self.steady
    }
}

/// What is judged is what an engine gives when it runs as it will, and it is not waited for without end.
#[test]
fn a_fixture_is_judged_when_the_engines_are_steady() {
    const FRAMES: usize = 4;
    let load = |family: &str, more: f32, steady: usize| {
        let runs = Arc::new(AtomicUsize::new(0));
        let engine = |path: &Path, spec: &StageSpec| {
            Ok(Box::new(Warms {
                inner: CpuEngine::load(path, spec, CpuOptions::default())?,
                runs: Arc::clone(&runs),
                steady,
                more,
            }) as Box<dyn Engine>)
        };
        let loaded = Staged::load(&folder(family), LoadOptions::default(), &engine);
        (loaded.is_ok(), runs.load(Ordering::Relaxed))
    };
    let act = |steady| load("act", 1.0, steady);
    assert_eq!(act(0), (true, FRAMES), "nothing is run for nothing");
    assert_eq!(act(1), (true, 1 + FRAMES));
    assert_eq!(act(3), (true, 3 + FRAMES));
    assert_eq!(act(usize::MAX), (false, 4 + FRAMES));
    // Three stages, of which one runs once an instruction: as of a new one each time, then as of the same.
    let clip = |steady| load("clip", 0.0, steady);
    let (_, judged) = clip(0);
    assert_eq!(clip(1), (true, 3 + 2 + judged));
    assert_eq!(clip(usize::MAX), (true, 4 * 3 + 4 * 2 + judged));
}

/// What an engine chooses by trying, it tries as what will run, and what proves a policy proves what was chosen.
#[test]
fn engines_settle_after_the_last_offer_and_before_what_proves_them() {
    let asked = Asked::default();
    let load = declining(&asked, 0.0);
    Staged::load(&folder("pi0"), LoadOptions::default(), &load).expect("loads");
    let settled = ["prefix", "expert"].map(str::to_owned).to_vec();
    assert_eq!(order(&asked), (vec!["offer", "settle", "run"], settled));
    // The fixture of one graph goes another way than its camera's picture, and comes first.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let asked = Asked::default();
    let load = declining(&asked, 0.0);
    Policy::load(&shipped, LoadOptions::default(), &load).expect("loads");
    let phases = vec!["run", "offer", "settle", "run"];
    assert_eq!(order(&asked), (phases, vec!["policy".to_owned()]));
    let load = declining(&asked, 1.0);
    let refused = Policy::load(&shipped, LoadOptions::default(), &load);
    let said = format!("{:?}", refused.expect_err("it answers otherwise"));
    for words in ["another answer", "wherever it has its tensors"] {
        assert!(said.contains(words), "{said}");
    }
}
