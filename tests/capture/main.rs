// SPDX-License-Identifier: Apache-2.0
//! Cameras: the real capture code over a fake kernel camera, and GStreamer for real.
//!
//! `cargo test --release --test capture` runs what needs nothing; `--features v4l` and `--features gstreamer` the rest.
//! Figures that are printed: run with `-- --nocapture`.

#[cfg(feature = "gstreamer")]
mod broken;
#[cfg(any(feature = "v4l", feature = "gstreamer"))]
#[path = "../chaos/canary.rs"]
mod canary;
#[cfg(feature = "gstreamer")]
#[path = "../tensorrt/compile.rs"]
mod compile;
#[cfg(feature = "v4l")]
mod fake;
#[cfg(feature = "gstreamer")]
mod fake_nvmm;
#[cfg(feature = "v4l")]
mod listing;
#[cfg(feature = "gstreamer")]
mod nvmm;
mod pictures;
#[cfg(feature = "v4l")]
mod preload;
#[cfg(feature = "gstreamer")]
mod rtsp;
#[cfg(feature = "gstreamer")]
mod secrets;
#[cfg(any(feature = "v4l", feature = "gstreamer"))]
mod stage;
#[cfg(feature = "gstreamer")]
mod streams;
#[cfg(feature = "v4l")]
mod v4l;

#[global_allocator]
static ALLOCATOR: tendon::runtime::realtime::CountingAllocator =
    tendon::runtime::realtime::CountingAllocator;
