// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime in a Python process of its own, told stage by stage what to run and for how often: what `tendon policy bench`
//! measures beside the engine here. The times are taken around its run calls, so the way to it does not count.

use crate::config::problem::Problem;
use crate::ports::StageSpec;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = include_str!("onnxruntime_peer.py");

/// The process. Ends with this value.
pub(crate) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Its version.
    pub(crate) version: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Peer {
    /// Loads `stages` with `python`.
    pub(crate) fn start(
        python: &Path,
        stages: &[(StageSpec, PathBuf)],
        threads: usize,
    ) -> Result<Peer, Vec<Problem>> {
        let wrong = |found: String| {
            let expected = "a Python with onnxruntime and numpy that loads the stages";
            Problem::one(python.display().to_string(), expected, found)
        };
        let all: Vec<Value> = stages
            .iter()
            .map(|(spec, path)| {
                let inputs: Map<String, Value> = spec
                    .inputs
                    .iter()
                    .map(|input| {
                        let tensor =
                            json!({"dtype": input.dtype.to_string(), "shape": input.shape});
                        (input.name.clone(), tensor)
                    })
                    .collect();
                json!({"path": path, "inputs": inputs})
            })
            .collect();
        let mut child = Command::new(python)
            .arg("-c")
            .arg(SCRIPT)
            .arg(json!({"threads": threads, "stages": all}).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| wrong(error.to_string()))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(wrong("a process without pipes".into()));
        };
        let mut peer = Peer {
            child,
            orders,
            answers: BufReader::new(answers).lines(),
            version: String::new(),
        };
        peer.version = peer.line().map_err(wrong)?;
        Ok(peer)
    }

    fn line(&mut self) -> Result<String, String> {
        match self.answers.next() {
            Some(Ok(line)) => Ok(line),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("it ended; its own words are above".into()),
        }
    }

    /// Times of `count` runs of a stage, in nanoseconds.
    pub(crate) fn times(&mut self, stage: usize, count: u32) -> Result<Vec<u64>, Vec<Problem>> {
        let wrong = |found: String| Problem::one("onnxruntime", "times in microseconds", found);
        writeln!(self.orders, "{stage} {count}").map_err(|error| wrong(error.to_string()))?;
        let line = self.line().map_err(wrong)?;
        line.split_whitespace()
            .map(|word| {
                let us: f64 = word.parse().map_err(|_| wrong(line.clone()))?;
                Ok((us * 1e3) as u64)
            })
            .collect()
    }
}
