#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows that supervisor, governor and wire give the same bits on another processor: runs the small program `golden` there
# and compares what it prints with the committed golden.txt, which the runtime's own tests compare on this machine
# (tests/proofs.rs).
#   tests/core/golden.sh              this machine, optimised and not
#   tests/core/golden.sh aarch64      aarch64 code under qemu-user. Debian: dpkg --add-architecture arm64; apt install
#                                     rustc-web cargo-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu
#                                     libc6-dev-arm64-cross qemu-user-static
#   tests/core/golden.sh write        after a change of the arithmetic that is meant
set -eu
cd "$(dirname "$0")"
out=${CARGO_TARGET_DIR:-../../target/core}
golden() { cargo run --quiet --bin golden --target-dir "$out" "$@"; }
compare() { diff golden.txt - >&2 || { echo "golden.txt: differs, $1" >&2; exit 1; }; echo "golden.txt: the same, $1"; }

case ${1:-here} in
here)
    golden --release | compare "$(uname -m), optimised"
    golden --config 'profile.dev.opt-level=0' | compare "$(uname -m), not optimised" ;;
aarch64)
    for need in /usr/bin/cargo /usr/lib/rustlib/aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc qemu-aarch64-static; do
        [ -e "$need" ] || command -v "$need" > /dev/null || { echo "no $need" >&2; exit 77; }
    done
    # Debian's rustc: rustup's has no standard library for the other processor unless it is asked for.
    PATH="/usr/bin:$PATH"
    export PATH CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/../../cross/qemu.sh"
    golden --release --target aarch64-unknown-linux-gnu | compare "aarch64 under $(qemu-aarch64-static --version | head -1)" ;;
write)
    golden --release > golden.txt ;;
*)
    sed -n '3,11s/^# //p' "$0" >&2; exit 2 ;;
esac
