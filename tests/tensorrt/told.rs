// SPDX-License-Identifier: Apache-2.0
//! What is told in the log alone, because nobody is left, or there, to be answered.

use crate::chain::cpu;
use crate::fake::{BOTH, machine};
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::policy::LoadOptions;
use tendon::policy::staged::Staged;
use tendon::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};

/// What was logged in this process as a warning: other tests run beside.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));
static SET: Once = Once::new();

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Warnings are kept from now on.
fn listen() {
    SET.call_once(|| {
        log::set_logger(&LOG).expect("the only one of this process");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// Warnings that have these words.
fn with(words: &str) -> Vec<String> {
    let lines = LOG.0.lock().unwrap_or_else(PoisonError::into_inner);
    let found = lines.iter().filter(|line| line.contains(words));
    found.cloned().collect()
}

#[test]
fn what_tensorrt_says_while_it_lets_go_is_told_once() {
    listen();
    let fakes = machine();
    for tables in BOTH {
        let library = Library::open(Some(&fakes.tensorrt(tables))).expect("the fake");
        let library = Arc::new(library);
        let plan = format!("FAKEPLAN laments, {tables:?}");
        let session = Session::open(&library, plan.clone().into_bytes()).expect("reads");
        assert_eq!(with(&plan), [""; 0], "it lives");
        drop(session);
        for object in ["context", "engine"] {
            let line = format!("warning: gone: {object} of {plan}");
            let told = with(&line);
            assert_eq!(told.len(), 1, "{line}: {told:?}");
        }
        // What a refusal said is told by the refusal.
        let garbage = format!("garbage of {tables:?}");
        let refused = Session::open(&library, garbage.into_bytes()).expect_err("refused");
        assert!(refused.to_string().contains("kMAGIC_TAG"), "{refused}");
        assert_eq!(with("kMAGIC_TAG"), [""; 0]);
    }
    assert_eq!(fakes.live().1, 0);
}

/// Never runs as before, if it is one of those.
struct Restless {
    inner: Box<dyn Engine>,
    is_restless: bool,
}

impl Engine for Restless {
    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.inner.run(inputs, outputs)
    }

    fn is_steady(&self) -> bool {
        !self.is_restless
    }
}

#[test]
fn stages_that_do_not_run_as_they_will_before_the_fixture_are_named() {
    listen();
    // No other test of this process has this one.
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/xvla");
    let load = |restless: &str| {
        let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
            Ok(Box::new(Restless {
                inner: cpu(path, spec)?,
                is_restless: spec.id == restless,
            }))
        };
        Staged::load(&bundle, LoadOptions::default(), &engine).expect("loads all the same")
    };
    let words = format!("{}: expected every stage to run", load("").name());
    assert_eq!(with(&words), [""; 0]);
    load("denoise");
    let told = with(&words);
    let [line] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(line.contains("these do not: denoise;"), "{line}");
}
