#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tendon's merge rules and the published code of others on the same streams of chunks, and on the demo's robot, in one report.
# Needs python3 with pip, and a built tendon (argument 1, default target/release/tendon). Argument 2: episodes of each on the
# robot, default 100; 0: none. Writes docs/schedule.svg, and the report as JSON to argument 3 if there is one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tendon=${1:-$here/../../target/release/tendon}
episodes=${2:-100}
json=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" -q install numpy typing_extensions
# Their packages as published, without what they depend on: only files that need no more than arrays are run.
"$work/env/bin/pip" -q install --no-deps --ignore-requires-python --target "$work/peers" lerobot==0.4.4 physicalai==0.3.0
"$tendon" sched-sim --record "$work/demo.json"
"$tendon" sched-sim --recorded "$work/demo.json" --export "$work/streams.json" --json > /dev/null
set --
if [ "$episodes" -gt 0 ]; then
    set -- "$tendon" "$episodes"
fi
"$work/env/bin/python" "$here/peers.py" "$work/peers" "$work/streams.json" "$@" > "$work/peers.json"
if [ "$episodes" -gt 0 ]; then
    set -- --episodes "$episodes" --bench-rules "replace,blend 100 ms,aggregate weighted_average,ensemble 0.01 oldest first"
fi
if [ -n "$json" ]; then
    "$tendon" sched-sim --recorded "$work/demo.json" --peers "$work/peers.json" "$@" --json > "$json"
    set --
fi
"$tendon" sched-sim --recorded "$work/demo.json" --peers "$work/peers.json" "$@" --plot "$here/../../docs/schedule.svg"
