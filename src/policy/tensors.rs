// SPDX-License-Identifier: Apache-2.0
//! Named tensors from a safetensors file, with type and shape checked and refusals that name file and key.
//!
//! The file is in memory already and of bounded size; the `safetensors` crate checks header length and offsets
//! against it before anything is copied.

use crate::config::problem::Problem;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A safetensors file in memory.
#[derive(Debug)]
pub struct TensorFile<'a> {
    name: &'a str,
    tensors: SafeTensors<'a>,
}

impl<'a> TensorFile<'a> {
    /// Reads the header of `bytes`; `name` is the file's, for messages.
    ///
    /// # Errors
    /// A [`Problem`] if this is no whole safetensors file.
    pub fn parse(name: &'a str, bytes: &'a [u8]) -> Result<TensorFile<'a>, Problem> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Problem {
            at: name.into(),
            expected: "a whole safetensors file".into(),
            found: format!("{} bytes that are not one: {error}", bytes.len()),
        })?;
        Ok(TensorFile { name, tensors })
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.tensors.tensor(key).is_ok()
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.tensors
            .names()
            .into_iter()
            .map(|name| (*name).to_owned())
    }

    /// Floats of the given shape, row-major.
    ///
    /// # Errors
    /// A [`Problem`]: no such key, another type or shape.
    pub fn f32(&self, key: &str, shape: &[usize]) -> Result<Vec<f32>, Problem> {
        let view = self.get(key, Dtype::F32, shape)?;
        Ok(words(view.data()).map(f32::from_le_bytes).collect())
    }

    /// Integers of the given shape, row-major.
    ///
    /// # Errors
    /// As [`TensorFile::f32`].
    pub fn i32(&self, key: &str, shape: &[usize]) -> Result<Vec<i32>, Problem> {
        let view = self.get(key, Dtype::I32, shape)?;
        Ok(words(view.data()).map(i32::from_le_bytes).collect())
    }

    /// Bytes of the given shape, row-major, lent from the file.
    ///
    /// # Errors
    /// As [`TensorFile::f32`].
    pub fn u8(&self, key: &str, shape: &[usize]) -> Result<&'a [u8], Problem> {
        Ok(self.get(key, Dtype::U8, shape)?.data())
    }

    fn get(&self, key: &str, dtype: Dtype, shape: &[usize]) -> Result<TensorView<'a>, Problem> {
        let expected = format!("{dtype:?} {shape:?}");
        let wrong = |found: String| Problem {
            at: format!("{}: {key}", self.name),
            expected: expected.clone(),
            found,
        };
        let view = self
            .tensors
            .tensor(key)
            .map_err(|_| wrong("no such key".into()))?;
        if view.dtype() != dtype || view.shape() != shape {
            return Err(wrong(format!("{:?} {:?}", view.dtype(), view.shape())));
        }
        Ok(view)
    }
}

/// The format is little-endian and promises no alignment.
fn words(data: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    data.chunks_exact(4)
        .map(|word| [word[0], word[1], word[2], word[3]])
}
