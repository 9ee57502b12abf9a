#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the core's unit tests as aarch64 code, under qemu-user: the numbers of the governor, the scheduler and the wire
# are the same there. Known: Debian 12's qemu-user (7.2) stood still at the first thread that any program starts, on the
# one machine where this was tried, so these tests have been built and not been seen to run. Debian's toolchain, as cross/build.sh debian; further words filter the tests (default: core::).
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="/usr/bin:$PATH" CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
timeout "${TENDON_PATIENCE_S:-1500}" /usr/bin/cargo test --release --lib --target aarch64-unknown-linux-gnu "${@:-core::}"
