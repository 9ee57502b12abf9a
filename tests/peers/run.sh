#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tendon's merge rules and the published code of others on the same streams of chunks, in one report.
# Needs python3 with pip, and a built tendon (argument 1, default target/release/tendon). Writes docs/schedule.svg.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tendon=${1:-$here/../../target/release/tendon}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" -q install numpy typing_extensions
# Their packages as published, without what they depend on: only files that need no more than arrays are run.
"$work/env/bin/pip" -q install --no-deps --ignore-requires-python --target "$work/peers" lerobot==0.4.4 physicalai==0.3.0
"$tendon" sched-sim --record "$work/demo.json"
"$tendon" sched-sim --recorded "$work/demo.json" --export "$work/streams.json" --json > /dev/null
"$work/env/bin/python" "$here/peers.py" "$work/peers" "$work/streams.json" > "$work/peers.json"
"$tendon" sched-sim --recorded "$work/demo.json" --peers "$work/peers.json" --plot "$here/../../docs/schedule.svg"
