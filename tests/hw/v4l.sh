#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a real kernel camera: looks at it through tendon for a while and asks for a pulled plug.
#   tests/hw/v4l.sh /dev/v4l/by-id/... [WIDTH HEIGHT RATE_HZ]
# Ends with 77 where there is no camera.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --features v4l
tendon=$PWD/${CARGO_TARGET_DIR:-target}/release/tendon
case ${CARGO_TARGET_DIR:-} in /*) tendon=$CARGO_TARGET_DIR/release/tendon ;; esac
"$tendon" cameras --list
device=${1:-}
if [ -z "$device" ]; then
  echo "skipped: name a device of the list above: tests/hw/v4l.sh /dev/v4l/by-id/..."
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp deploy/bench/robot.* "$folder/"
sed -e "s|../../engines|$PWD/engines|" \
  -e "s|^name = \"front\"|name = \"front\"\nsource = \"v4l\"\ndevice = \"$device\"\nrate_hz = ${4:-30}|" \
  -e "s|^width = 224|width = ${2:-640}|" -e "s|^height = 224|height = ${3:-480}|" deploy/bench/tendon.toml >"$folder/tendon.toml"
echo "== one minute as it is"
"$tendon" cameras --config "$folder/tendon.toml" --seconds 60
echo "== pull the plug now, and put it back within ten seconds: pictures must come again (twenty seconds)"
"$tendon" cameras --config "$folder/tendon.toml" --seconds 20
echo "== cover the lens now: \"black\" must be counted (ten seconds)"
"$tendon" cameras --config "$folder/tendon.toml" --seconds 10 || true
