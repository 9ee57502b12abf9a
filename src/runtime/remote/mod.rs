// SPDX-License-Identifier: Apache-2.0
//! An engine on another machine: the last rung of the ladder. This end asks; [`serve`] answers.
//!
//! A question is a zenoh query under a key that hashes graph and tensors, so that two machines with different bundles or
//! precisions never meet. An empty question asks who serves; what is answered is told at load, and the bundle's fixture
//! runs through the wire as through any engine. From then on only that same server is believed: one that was started since
//! may compute with something else, so this engine is lost then, and whoever restarts processes proves it anew.
//!
//! ```text
//!  question  u64 server, then the inputs' numbers one after the other, u32 CRC
//!  answer    the outputs' numbers, u32 CRC
//! ```
//!
//! All little-endian, CRC-32/AUTOSAR. Each stage of a bundle is a question of its own: what one hands to the next travels
//! twice, caches too, so this suits bundles of one stage or of few that exchange little.

pub mod serve;
#[cfg(test)]
mod tests;

use crate::config::RemoteConfig;
use crate::core::wire::{CRC_LEN, checksum};
use crate::hash::hex;
use crate::link::session;
use crate::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use crate::runtime::clock;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::time::Duration;
use zenoh::qos::CongestionControl;
use zenoh::{Session, Wait};

/// Bytes of a server's number.
const SERVER_LEN: usize = 8;
/// What a server says to who means another one.
const ANOTHER: &str = "this server was started since";
/// The link may take so long to come up.
const STARTING_NS: u64 = 5_000_000_000;

/// Where a stage is asked for: the same at both ends if graph, names, types and shapes are.
fn key(onnx: &Path, spec: &StageSpec) -> io::Result<String> {
    let mut hash = Sha256::new();
    crate::onnx::digest(onnx, &mut hash)?;
    hash.update(&spec.id);
    for (direction, tensors) in [("in", &spec.inputs), ("out", &spec.outputs)] {
        for tensor in tensors {
            hash.update(format!("\0{direction} {tensor}"));
        }
    }
    let digest = hex(&hash.finalize());
    Ok(format!("tendon/engine/{digest}"))
}

/// Appends the numbers of all tensors.
fn put(tensors: &[Tensor], out: &mut Vec<u8>) {
    for tensor in tensors {
        match tensor {
            Tensor::F32(values) => out.extend_from_slice(bytemuck::cast_slice(values)),
            Tensor::I32(values) => out.extend_from_slice(bytemuck::cast_slice(values)),
        }
    }
}

fn bytes_of(tensors: &[Tensor]) -> usize {
    let lengths = tensors.iter().map(|tensor| match tensor {
        Tensor::F32(values) => size_of_val(values.as_slice()),
        Tensor::I32(values) => size_of_val(values.as_slice()),
    });
    lengths.sum()
}

/// Fills all tensors; nothing is written unless the bytes are theirs to the last one.
fn take(mut bytes: &[u8], tensors: &mut [Tensor]) -> Option<()> {
    if bytes.len() != bytes_of(tensors) {
        return None;
    }
    for tensor in tensors {
        let values: &mut [u8] = match tensor {
            Tensor::F32(values) => bytemuck::cast_slice_mut(values),
            Tensor::I32(values) => bytemuck::cast_slice_mut(values),
        };
        let (ours, rest) = bytes.split_at_checked(values.len())?;
        values.copy_from_slice(ours);
        bytes = rest;
    }
    Some(())
}

fn seal(bytes: &mut Vec<u8>) {
    let crc = checksum(bytes);
    bytes.extend(crc.to_le_bytes());
}

/// What was sealed, if it is whole.
fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<CRC_LEN>()?;
    (checksum(body).to_le_bytes() == *crc).then_some(body)
}

/// What came back.
enum Said {
    Answer(Vec<u8>),
    Refusal(String),
    /// Nobody is there who could answer, or went away over it.
    Nobody,
    /// In time.
    Nothing,
}

fn ask(session: &Session, key: &str, question: Vec<u8>, patience: Duration) -> Said {
    let replies = session
        .get(key)
        .payload(question)
        .congestion_control(CongestionControl::Block)
        .timeout(patience)
        .wait();
    let reply = match replies.map(|replies| replies.recv_timeout(patience)) {
        Ok(Ok(Some(reply))) => reply,
        Ok(Ok(None)) => return Said::Nothing,
        Ok(Err(_)) | Err(_) => return Said::Nobody,
    };
    match reply.result() {
        Ok(sample) => Said::Answer(sample.payload().to_bytes().into_owned()),
        Err(error) => {
            Said::Refusal(String::from_utf8_lossy(&error.payload().to_bytes()).into_owned())
        }
    }
}

/// One stage that another machine runs.
pub struct RemoteEngine {
    session: Session,
    key: String,
    spec: StageSpec,
    patience: Duration,
    server: [u8; SERVER_LEN],
    lost: bool,
}

impl std::fmt::Debug for RemoteEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteEngine")
            .field("key", &self.key)
            .field("stage", &self.spec.id)
            .finish_non_exhaustive()
    }
}

/// Opens the way to the server.
///
/// # Errors
/// [`EngineFault`].
pub fn open(remote: &RemoteConfig) -> Result<Session, EngineFault> {
    session::open(&remote.link).map_err(|error| EngineFault(format!("policy.remote: {error}")))
}

impl RemoteEngine {
    /// Asks who serves the stage; with the engine, what the server says of its own.
    ///
    /// # Errors
    /// [`EngineFault`]: the graph cannot be read, or nobody serves it.
    pub fn load(
        session: &Session,
        remote: &RemoteConfig,
        onnx: &Path,
        spec: &StageSpec,
    ) -> Result<(RemoteEngine, String), EngineFault> {
        let key =
            key(onnx, spec).map_err(|error| EngineFault(format!("{}: {error}", onnx.display())))?;
        let patience = Duration::from_nanos(remote.timeout_ns);
        let deadline = clock::now().plus_ns(STARTING_NS);
        let endpoint = remote.link.connect.as_deref().unwrap_or_default();
        let (server, words) = loop {
            match ask(session, &key, Vec::new(), patience) {
                Said::Answer(bytes) => {
                    let said = unseal(&bytes).and_then(<[u8]>::split_first_chunk::<SERVER_LEN>);
                    let (server, words) = said.ok_or_else(|| {
                        EngineFault(format!(
                            "{endpoint}: an answer that is no server's of this version"
                        ))
                    })?;
                    break (*server, String::from_utf8_lossy(words).into_owned());
                }
                Said::Refusal(words) if clock::now() >= deadline => {
                    return Err(EngineFault(format!("{endpoint}: {words}")));
                }
                Said::Nobody | Said::Nothing if clock::now() >= deadline => {
                    return Err(EngineFault(format!(
                        "{endpoint}: nobody serves stage \"{}\" of {}: is `tendon engine serve` running there, with the same bundle and precision?",
                        spec.id,
                        onnx.display()
                    )));
                }
                // The link comes up in the background, and the server may still load.
                Said::Refusal(_) | Said::Nobody | Said::Nothing => {
                    std::thread::sleep(Duration::from_millis(50))
                }
            }
        };
        let engine = RemoteEngine {
            session: session.clone(),
            key,
            spec: spec.clone(),
            patience,
            server,
            lost: false,
        };
        Ok((engine, format!("{words} at {endpoint}")))
    }

    fn fault(&self, words: impl std::fmt::Display) -> EngineFault {
        EngineFault(format!("stage \"{}\", remote: {words}", self.spec.id))
    }
}

impl Engine for RemoteEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.spec.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.spec.outputs
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let mut question = Vec::with_capacity(SERVER_LEN + bytes_of(inputs) + CRC_LEN);
        question.extend(self.server);
        put(inputs, &mut question);
        seal(&mut question);
        match ask(&self.session, &self.key, question, self.patience) {
            Said::Answer(bytes) => unseal(&bytes)
                .and_then(|numbers| take(numbers, outputs))
                .ok_or_else(|| self.fault("the answer is not whole, or has other sizes")),
            Said::Refusal(words) => {
                self.lost |= words == ANOTHER;
                Err(self.fault(words))
            }
            Said::Nobody => Err(self.fault("nobody serves it now")),
            Said::Nothing => {
                Err(self.fault(format!("no answer within {} ms", self.patience.as_millis())))
            }
        }
    }

    fn lost(&self) -> bool {
        self.lost
    }
}
