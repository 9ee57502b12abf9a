#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a Jetson: pictures that stay in its image processor's memory, read there by CUDA, beside the same in ordinary memory: pixels,
# what each way costs. Needs no camera: nvvidconv fills the surfaces. Needs JetPack's multimedia and CUDA, GStreamer's development
# files and Rust.
#   tests/hw/nvmm.sh
# Ends with 77, and says why, on anything else.
set -euo pipefail
cd "$(dirname "$0")/../.."
# Not grep -q: who writes into a pipe that closes early has failed.
if ! ldconfig -p | grep libnvbufsurface >/dev/null || ! gst-inspect-1.0 nvvidconv >/dev/null 2>&1; then
  echo "skipped: expected a Jetson with nvidia-l4t-multimedia and nvidia-l4t-gstreamer, found no libnvbufsurface or no nvvidconv"
  exit 77
fi
if ! command -v cargo >/dev/null; then
  echo "skipped: expected cargo in PATH, which builds what shows it, found none"
  exit 77
fi
# EGL must not look for a display.
unset DISPLAY WAYLAND_DISPLAY
cargo test --release --features gstreamer --test capture the_real_image_processor -- --ignored --nocapture
