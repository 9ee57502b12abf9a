#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the core's unit tests as aarch64 code, under qemu-user: what holds for governor, scheduler and wire here holds there.
#   cross/test.sh [--whole] [words that filter the tests]
# Built from tests/core, the core alone. qemu is slow: the adversary's rounds are a twentieth (TENDON_SHORT_TESTS), and two days of
# the scheduler are left out; --whole takes them all. Needs what cross/build.sh debian needs, and qemu-user-static; exit code 77 where that is not.
# TENDON_PATIENCE_S: after so long (1500) it is ended, and has failed.
set -euo pipefail
cd "$(dirname "$0")/.."
for need in /usr/bin/cargo /usr/lib/rustlib/aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc qemu-aarch64-static; do
  [ -e "$need" ] || command -v "$need" >/dev/null || { echo "skipped: no $need (cross/toolchain.sh)"; exit 77; }
done
left_out=(--skip two_days_without_a_slip)
if [ "${1:-}" = --whole ]; then shift; unset TENDON_SHORT_TESTS; left_out=(); else export TENDON_SHORT_TESTS=1; fi
# Debian's rustc: rustup's has no standard library for the other processor unless it is asked for.
export PATH="/usr/bin:$PATH" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/cross/qemu.sh"
# Optimising across crates costs minutes and is not what is tried here.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 timeout "${TENDON_PATIENCE_S:-1500}" /usr/bin/cargo test --release --lib \
  --manifest-path tests/core/Cargo.toml --target aarch64-unknown-linux-gnu --target-dir "${CARGO_TARGET_DIR:-target/core}" -- "${left_out[@]}" "$@"
