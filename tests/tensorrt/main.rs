// SPDX-License-Identifier: Apache-2.0
//! TensorRT without a GPU: the whole path over a fake driver and a fake library in both layouts; the real lean
//! libraries as far as they go without a driver; building with a fake `trtexec`; the layout against NVIDIA's headers,
//! where they are.
//!
//! What only a GPU can show is `tests/gpu/run.sh`.

mod building;
mod chain;
mod compile;
mod fake;
#[path = "../gpu/heard.rs"]
mod heard;
mod hearing;
mod ladder;
mod path;
mod picture;
mod proof;
mod real;
mod told;
mod turns;
mod whole;

#[global_allocator]
static ALLOCATOR: fake::Watching = fake::Watching;
