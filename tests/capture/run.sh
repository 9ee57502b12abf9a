#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The cameras that need system libraries to build: the linter over them, kernel cameras over a fake device, GStreamer for real.
# Ends with 77, and says why, where the libraries are not and cannot be installed.
#   tests/capture/run.sh [arguments for the tests]
# TENDON_FEATURES: more than "jetson" in the build, for who builds more than cameras.
set -euo pipefail
cd "$(dirname "$0")/../.."
packages="libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev gstreamer1.0-plugins-base
  gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-tools libclang-dev"

missing() {
  pkg-config --exists gstreamer-1.0 gstreamer-app-1.0 gstreamer-video-1.0 2>/dev/null || { echo "GStreamer's development files"; return; }
  pkg-config --exists gstreamer-rtsp-server-1.0 2>/dev/null || { echo "GStreamer's RTSP server"; return; }
  command -v gst-launch-1.0 >/dev/null || { echo gst-launch-1.0; return; }
  for element in rtspsrc bayer2rgb; do
    gst-inspect-1.0 "$element" >/dev/null 2>&1 || { echo "$element of GStreamer"; return; }
  done
  ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || { echo libclang; return; }
}

if [ -n "$(missing)" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "skipped: no $(missing), and no right to install: apt-get install" $packages
    exit 77
  fi
  # shellcheck disable=SC2086
  if ! { timeout 60 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 420 \
    apt-get install -y -qq --no-install-recommends $packages >/dev/null; }; then
    echo "skipped: apt-get could not install" $packages
    exit 77
  fi
fi
# H.264 is sent by openh264enc of the above, and decoded as docs/cameras.md has it. Without that decoder openh264dec is taken, and where
# there is neither, the tests leave H.264 out and say so.
if ! gst-inspect-1.0 avdec_h264 >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { timeout 60 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 \
    apt-get install -y -qq --no-install-recommends gstreamer1.0-libav >/dev/null; } || echo "apt-get could not install gstreamer1.0-libav"
fi
features=jetson${TENDON_FEATURES:+,$TENDON_FEATURES}
# What only these features compile, no other step looks at.
cargo clippy --release --features "$features" --all-targets -q -- -D warnings
cargo test --release --features "$features" --test capture --test cameras -- --test-threads=1 "$@"
