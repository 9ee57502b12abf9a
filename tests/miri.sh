#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Miri over the lock-free files of src/sync that tests/loom checks, and the crate that the mailbox stands on: data races and undefined
# behaviour, in the schedules of a few seeds.
#   tests/miri.sh [SEEDS]        4
# Needs a nightly with the components miri and rust-src; exit code 77, with the reason, where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-4}
skip() { echo "skipped: $*"; exit 77; }
command -v rustup >/dev/null || skip "no rustup, so no nightly with miri"
nightly=
for each in $(rustup toolchain list | sed -n 's/^\(nightly[^ ]*\).*/\1/p'); do
  # Not cargo +nightly, which may fetch what is not there.
  if rustup run "$each" cargo miri --version >/dev/null 2>&1; then nightly=$each; break; fi
done
[ -n "$nightly" ] || skip "no nightly with miri (rustup toolchain install nightly --component miri,rust-src)"
cargo_miri() { rustup run "$nightly" cargo miri "$@"; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# It asks whether it may fetch what it lacks: not here.
if ! cargo_miri setup < /dev/null > "$work/setup" 2>&1; then
  tail -5 "$work/setup"
  skip "miri of $nightly has no standard library to run with (above: why; rustup component add rust-src)"
fi
for ((seed = 0; seed < seeds; seed++)); do
  echo "seed $seed:"
  MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-seed=$seed" cargo_miri test --lib --manifest-path tests/miri/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/miri"
done
echo "miri: nothing was found with $seeds seeds ($(cargo_miri --version))"
