#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what cross/build.sh debian, cross/test.sh and tests/core/golden.sh aarch64 need on an x86-64 Debian: the
# distribution's own cross toolchain, and an emulator. Exit code 77, with the reason, where that is not to be had.
set -euo pipefail
packages="rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
missing() {
  local need
  for need in /usr/bin/rustc /usr/bin/cargo /usr/lib/rustlib/aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc qemu-aarch64-static; do
    [ -e "$need" ] || command -v "$need" >/dev/null || { echo "$need"; return; }
  done
}
[ -n "$(missing)" ] || exit 0
if [ "$(uname -m)" != x86_64 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "skipped: no $(missing), and no right to install: apt-get install $packages"
  exit 77
fi
dpkg --add-architecture arm64
# shellcheck disable=SC2086
if ! { timeout 120 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 600 \
  apt-get install -y -qq --no-install-recommends $packages >/dev/null; }; then
  dpkg --remove-architecture arm64 || true
  echo "skipped: apt-get could not install $packages"
  exit 77
fi
[ -z "$(missing)" ] || { echo "skipped: still no $(missing)"; exit 77; }
