// SPDX-License-Identifier: Apache-2.0
//! The engine's tensors against those that the bundle promises.

use super::LoadFault;
use super::nvinfer::{Io, Mode};
use crate::ports::{Dtype, StageSpec, TensorSpec};

/// `nvinfer1::DataType`, as far as a stage may have it.
const FLOAT: i32 = 0;
const INT32: i32 = 3;
const INT64: i32 = 8;

fn type_code(dtype: Dtype) -> i32 {
    match dtype {
        Dtype::F32 => FLOAT,
        Dtype::I32 => INT32,
        Dtype::I64 => INT64,
    }
}

fn type_words(code: i32) -> &'static str {
    match code {
        FLOAT => "f32",
        1 => "f16",
        2 => "i8",
        INT32 => "i32",
        4 => "bool",
        5 => "u8",
        6 => "f8",
        7 => "bf16",
        INT64 => "i64",
        _ => "of an unknown type",
    }
}

pub(super) fn spec_of<'a>(spec: &'a StageSpec, tensor: &Io) -> Option<&'a TensorSpec> {
    let list = match tensor.mode {
        Mode::Input => &spec.inputs,
        Mode::Output => &spec.outputs,
    };
    list.iter()
        .find(|each| each.name.as_bytes() == tensor.name.as_bytes())
}

/// The engine's tensors against the bundle's: all differences at once.
pub(super) fn agree(tensors: &[Io], spec: &StageSpec) -> Result<(), LoadFault> {
    let mut wrong = Vec::new();
    for tensor in tensors {
        let found = format!(
            "{} {} {:?}",
            tensor.name.to_string_lossy(),
            type_words(tensor.data_type),
            tensor.shape
        );
        let direction = if tensor.mode == Mode::Input {
            "input"
        } else {
            "output"
        };
        let Some(expected) = spec_of(spec, tensor) else {
            wrong.push(format!(
                "{direction} {found}: the bundle's stage \"{}\" has none of that name",
                spec.id
            ));
            continue;
        };
        let fits = tensor.shape.len() == expected.shape.len()
            && tensor
                .shape
                .iter()
                .zip(&expected.shape)
                .all(|(has, wants)| *has == -1 || usize::try_from(*has) == Ok(*wants));
        if !fits || tensor.data_type != type_code(expected.dtype) {
            wrong.push(format!("{direction}: expected {expected}, found {found}"));
        }
    }
    for expected in spec.inputs.iter().chain(&spec.outputs) {
        let has = |tensor: &Io| tensor.name.as_bytes() == expected.name.as_bytes();
        if !tensors.iter().any(has) {
            wrong.push(format!("expected {expected}, found no tensor of that name"));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(LoadFault::Engine(wrong.join("; ")))
    }
}
