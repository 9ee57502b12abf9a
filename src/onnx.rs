// SPDX-License-Identifier: Apache-2.0
//! What an ONNX file says of files beside it: a graph of more than 2 GiB cannot have its weights in itself, as protobuf
//! ends there, and exporters put them into a file next to it. And which of its inputs it leaves open in shape.
//!
//! Field numbers are those of `onnx.proto` (IR version 10). Weights are skipped, so memory is bounded by the depth. The way
//! goes through every message that an engine reads, because `rten-onnx` 0.27 never comes back from a number that goes on
//! for more than ten bytes.

use crate::hash;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

/// Messages in messages: graphs in graphs (the branches of `If`, the body of `Loop`) are three each; no exporter nests further.
const DEPTH_MAX: usize = 64;
/// A file's name is no longer.
const NAME_BYTES_MAX: u64 = 4096;
/// Field of a tensor in which its sides are.
const DIMS: u64 = 1;
/// Field of a tensor in which its type is, and of what is said of one.
const DATA_TYPE: u64 = 2;
const ELEMENT_TYPE: u64 = 1;
/// That type, of 16 bits.
const FLOAT16: u64 = 10;
/// Field of an input in which its name is; of a side in which its number is, or a name that stands for one.
const NAME: u64 = 1;
const SIDE: u64 = 1;
const SIDE_NAME: u64 = 2;
/// Bytes of a 64-bit number.
const VARINT_BYTES_MAX: usize = 10;

/// The messages of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    Function,
    /// The model's own.
    Main,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
    /// Two strings.
    Entry,
    /// Two strings that name no file.
    Property,
    Opset,
    /// What the model is given.
    Input,
    Value,
    Type,
    /// What a sequence is of, or an optional.
    Element,
    TensorType,
    Shape,
    Dimension,
}

/// What is in a field of variable length.
enum Inside {
    Message(Message),
    /// Numbers one after the other.
    Numbers,
    /// The key or the value of an entry.
    Text,
    /// Nothing that is looked at, such as weights, or not as a message: [`Walk::message`] itself takes the name of an input.
    Other,
}

impl Message {
    fn field(self, number: u64) -> Inside {
        Inside::Message(match (self, number) {
            (Message::Model, 7) => Message::Main,
            (Message::Training, 1 | 2) | (Message::Attribute, 6 | 11) => Message::Graph,
            (Message::Model, 8) | (Message::Function, 9) => Message::Opset,
            (Message::Model, 14) => Message::Property,
            (Message::Model, 20) => Message::Training,
            (Message::Model, 25) => Message::Function,
            (Message::Main | Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
            (Message::Main | Message::Graph, 5)
            | (Message::Attribute, 5 | 10)
            | (Message::Sparse, 1 | 2) => Message::Tensor,
            (Message::Main | Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::Sparse,
            (Message::Main, 11) => Message::Input,
            (Message::Main | Message::Graph, 11..=13) => Message::Value,
            (Message::Input | Message::Value, 2)
            | (Message::Attribute, 14 | 15)
            | (Message::Element, 1) => Message::Type,
            (Message::Type, 4 | 9) => Message::Element,
            (Message::Type, 1) => Message::TensorType,
            (Message::TensorType, 2) => Message::Shape,
            (Message::Shape, 1) => Message::Dimension,
            (Message::Tensor, 13) => Message::Entry,
            (Message::Tensor, 1 | 5 | 7 | 11) | (Message::Attribute, 8) | (Message::Sparse, 3) => {
                return Inside::Numbers;
            }
            (Message::Entry, 1 | 2) => return Inside::Text,
            _ => return Inside::Other,
        })
    }
}

/// Numbers in the tensors that the graph in `path` has in itself or beside it: its weights, and some constants.
///
/// # Errors
/// In words: it cannot be read, or is no ONNX file.
pub fn elements(path: &Path) -> Result<u64, String> {
    walked(path).map(|walk| walk.elements)
}

/// Whether a tensor of the graph in `path` has floats of 16 bits.
///
/// # Errors
/// In words: it cannot be read, or is no ONNX file.
pub fn has_halves(path: &Path) -> Result<bool, String> {
    walked(path).map(|walk| walk.halves)
}

/// Names of the inputs of the graph in `path` that have a side without a number: it may be as long as who runs the graph likes.
///
/// # Errors
/// In words: it cannot be read, or is no ONNX file.
pub fn open_inputs(path: &Path) -> Result<BTreeSet<String>, String> {
    walked(path).map(|walk| walk.open)
}

fn walked(path: &Path) -> Result<Walk, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let length = file
        .metadata()
        .map_err(|error| format!("cannot be read: {error}"))?
        .len();
    let mut walk = Walk {
        file: BufReader::new(file),
        at: 0,
        names: BTreeSet::new(),
        elements: 0,
        halves: false,
        open: BTreeSet::new(),
        is_open: false,
    };
    walk.message(Message::Model, length, DEPTH_MAX)
        .map_err(|why| {
            format!(
                "expected an ONNX graph, found {length} bytes that are none: at {}, {why}",
                walk.at
            )
        })?;
    Ok(walk)
}

/// Names of the files that the tensors of the graph in `path` lie in, as it gives them: relative to its own folder.
///
/// # Errors
/// In words: it cannot be read, is no ONNX file, or a name leads out of that folder.
pub fn outside(path: &Path) -> Result<BTreeSet<String>, String> {
    let walk = walked(path)?;
    let leaves = |name: &&String| {
        let mut parts = Path::new(name.as_str()).components().peekable();
        parts.peek().is_none() || !parts.all(|part| matches!(part, Component::Normal(_)))
    };
    match walk.names.iter().find(leaves) {
        Some(name) => Err(format!(
            "expected weights in this folder, found them in \"{}\"",
            name.escape_debug()
        )),
        None => Ok(walk.names),
    }
}

struct Walk {
    file: BufReader<File>,
    /// Bytes that lie behind.
    at: u64,
    names: BTreeSet<String>,
    /// Numbers in all tensors.
    elements: u64,
    /// Whether there are floats of 16 bits.
    halves: bool,
    /// Inputs with a side without a number.
    open: BTreeSet<String>,
    /// Whether the value that is being read has one.
    is_open: bool,
}

impl Walk {
    /// A message that ends at byte `end`.
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Result<(), String> {
        let depth = depth
            .checked_sub(1)
            .ok_or("messages are nested too deeply")?;
        let (mut key, mut value) = (String::new(), String::new());
        let mut elements = 1_u64;
        let is_side = |tag: u64| message == Message::Tensor && tag >> 3 == DIMS;
        let (mut side, mut has_name) = (None, false);
        if message == Message::Input {
            self.is_open = false;
        }
        while self.at < end {
            let tag = self.number(end)?;
            // Readers disagree about what is beyond.
            if tag > u64::from(u32::MAX) {
                return Err(format!("a field of number {}", tag >> 3));
            }
            let length = match tag & 7 {
                0 => {
                    let number = self.number(end)?;
                    if is_side(tag) {
                        elements = elements.saturating_mul(number);
                    }
                    if message == Message::Dimension && tag >> 3 == SIDE {
                        side = Some(number as i64);
                    }
                    self.halves |= number == FLOAT16
                        && matches!(
                            (message, tag >> 3),
                            (Message::Tensor, DATA_TYPE) | (Message::TensorType, ELEMENT_TYPE)
                        );
                    continue;
                }
                1 => 8,
                2 => self.number(end)?,
                5 => 4,
                other => return Err(format!("a field of wire type {other}")),
            };
            // Before anything is allocated for it or skipped.
            if length > end - self.at {
                return Err(format!(
                    "a field of {length} bytes where {} are left",
                    end - self.at
                ));
            }
            let field_end = self.at + length;
            let is_bytes = |number: u64| tag & 7 == 2 && tag >> 3 == number;
            has_name |= message == Message::Dimension && is_bytes(SIDE_NAME) && length > 0;
            if message == Message::Input && is_bytes(NAME) {
                key = String::from_utf8_lossy(&self.bytes(length)?).into_owned();
                continue;
            }
            match message.field(tag >> 3) {
                Inside::Message(inner) if tag & 7 == 2 => self.message(inner, field_end, depth)?,
                Inside::Numbers if tag & 7 == 2 => {
                    while self.at < field_end {
                        let number = self.number(field_end)?;
                        if is_side(tag) {
                            elements = elements.saturating_mul(number);
                        }
                    }
                }
                Inside::Text if tag & 7 == 2 => {
                    let text = self.text(length)?;
                    if tag >> 3 == 1 {
                        key = text;
                    } else {
                        value = text;
                    }
                }
                _ => self.skip(length)?,
            }
        }
        if message == Message::Tensor {
            self.elements = self.elements.saturating_add(elements);
        }
        // As TensorRT's parser has it: the name of a side that has one counts more than a number.
        self.is_open |=
            message == Message::Dimension && (has_name || side.is_none_or(|side| side < 0));
        if message == Message::Input && self.is_open {
            self.open.insert(key);
        } else if message == Message::Entry && key == "location" {
            self.names.insert(value);
        }
        Ok(())
    }

    /// A number in the base of 128, the least significant part first.
    fn number(&mut self, end: u64) -> Result<u64, String> {
        let mut value = 0_u64;
        for part in 0..VARINT_BYTES_MAX {
            if self.at >= end {
                return Err("a number that is cut".into());
            }
            let mut byte = [0_u8];
            self.file
                .read_exact(&mut byte)
                .map_err(|error| error.to_string())?;
            self.at += 1;
            // The tenth has one bit; what is beyond is lost, as everywhere.
            value |= u64::from(byte[0] & 127) << (7 * part);
            if byte[0] < 128 {
                return Ok(value);
            }
        }
        Err("a number that goes on for more than ten bytes".into())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        let way = i64::try_from(bytes).map_err(|error| error.to_string())?;
        self.file
            .seek_relative(way)
            .map_err(|error| error.to_string())?;
        self.at += bytes;
        Ok(())
    }

    fn text(&mut self, bytes: u64) -> Result<String, String> {
        if bytes > NAME_BYTES_MAX {
            return Err(format!("a file's name of {bytes} bytes"));
        }
        String::from_utf8(self.bytes(bytes)?).map_err(|error| error.to_string())
    }

    /// So many bytes, or the first of them where they are more than a name has.
    fn bytes(&mut self, bytes: u64) -> Result<Vec<u8>, String> {
        let kept = bytes.min(NAME_BYTES_MAX);
        let mut text = vec![0; kept as usize];
        self.file
            .read_exact(&mut text)
            .map_err(|error| error.to_string())?;
        self.at += kept;
        self.skip(bytes - kept)?;
        Ok(text)
    }
}

/// Feeds `digest` with the graph in `path` and with the files its weights are in: another weight is another graph.
///
/// # Errors
/// One of them cannot be read, or the graph is none.
pub fn digest(path: &Path, digest: &mut Sha256) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let beside = outside(path).map_err(io::Error::other)?;
    let files = std::iter::once(path.to_owned()).chain(beside.iter().map(|name| folder.join(name)));
    for path in files {
        hash::feed(File::open(path)?, digest)?;
    }
    Ok(())
}
