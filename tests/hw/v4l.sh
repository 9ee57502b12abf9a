#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a real kernel camera: whether its rate is kept, its times are the driver's, its pictures are handed over in time, a
# plug that was pulled is found again, a covered lens is seen. Asks a person for plug and lens; what `tendon cameras` counts is judged
# (v4l.py). A step that fails ends nothing: the next ones are done, and all that failed are named at the end.
#   tests/hw/v4l.sh /dev/v4l/by-id/... [WIDTH HEIGHT RATE_HZ]       640 480 30 where nothing is said
# Needs python3, the group video, and Rust with libclang and a C compiler (Debian: libclang-dev build-essential), or a tendon with kernel
# cameras in TENDON. The reports are kept in OUT (target/v4l). TENDON_V4L_SECONDS: how long each of the four steps looks ("60 20 10 10").
# TENDON_V4L_HANDS: a program in a person's place, told the step before each look (v4l_try.sh tries all of it over a camera that is none).
# Ends with 1 if a step failed, with 77 where no camera is named.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
tendon=${TENDON:-}
if [ -z "$tendon" ]; then
  cargo build --release --features v4l
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
fi
device=${1:-} width=${2:-640} height=${3:-480} rate_hz=${4:-30}
if [ -z "$device" ]; then
  "$tendon" cameras --list
  echo "skipped: expected a device of the list above, found none named: tests/hw/v4l.sh /dev/v4l/by-id/..."
  exit 77
fi
read -r still_s replug_s cover_s uncover_s <<<"${TENDON_V4L_SECONDS:-60 20 10 10}"
out=${OUT:-target/v4l}
mkdir -p "$out"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp deploy/bench/robot.* "$folder/"
sed -e "s|../../engines|$PWD/engines|" \
  -e "s|^name = \"front\"|name = \"front\"\nsource = \"v4l\"\ndevice = \"$device\"\nrate_hz = $rate_hz|" \
  -e "s|^width = 224|width = $width|" -e "s|^height = 224|height = $height|" deploy/bench/tendon.toml >"$folder/tendon.toml"
failed=()
# look STEP SECONDS WORDS: what a person is to do, the look, the verdict.
look() {
  local step=$1 seconds=$2 code=0
  printf '\n== %s, %s s: %s\n' "$step" "$seconds" "$3"
  if [ -n "${TENDON_V4L_HANDS:-}" ]; then
    "$TENDON_V4L_HANDS" "$step"
  elif [ -t 0 ]; then
    read -r -p "Enter begins it. " _ || true
  fi
  "$tendon" cameras --config "$folder/tendon.toml" --seconds "$seconds" --json >"$out/$step.json" || code=$?
  python3 tests/hw/v4l.py "$step" "$out/$step.json" "$rate_hz" "$code" || failed+=("$step")
}
look as-it-is "$still_s" "nobody touches the camera; there is light"
look replug "$replug_s" "once it has begun, pull the plug and put it back within ten seconds; the camera goes on looking where it looked"
look cover "$cover_s" "cover the lens first, and leave it covered"
look uncover "$uncover_s" "uncover the lens first"
printf '\nreports: %s\n' "$out"
[ ${#failed[@]} = 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
echo "good: as it is, replugged, covered, uncovered"
