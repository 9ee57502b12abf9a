#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Eight bits from end to end on the bench: episodes are recorded, the policy is quantised on them and proven on others, and both
# kinds of graphs drive the same scenes. Takes some ten minutes.
#
#   sh tests/intents/quantise.sh TENDON PYTHON [EPISODES]     (a Python with onnx, onnxruntime, numpy and safetensors)
set -eu
tendon=$1 python=$2 episodes=${3:-200}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/fp32"
cp "$root"/tests/intents/joints/* "$work/fp32"
for file in bench_vla_fp32.onnx stats.safetensors tokenizer.json; do cp "$root/engines/bench-vla/$file" "$work/fp32"; done

drive() { "$tendon" demo --headless --lockstep --json --bundle "$@"; }
drive "$work/fp32" --episodes 6 --seed 21 --record "$work/calibrate.safetensors" > /dev/null
drive "$work/fp32" --episodes 4 --seed 22 --record "$work/prove.safetensors" > /dev/null
# The demo drives with the engine of the processor, which has no numbers of 16 bits.
"$tendon" policy quantize "$work/fp32" --out "$work/int8" --to int8 --rest fp32 --python "$python" \
    --calibrate-on "$work/calibrate.safetensors" --prove-on "$work/prove.safetensors"
for precision in fp32 int8; do
    drive "$work/int8" --precision "$precision" --episodes "$episodes" --seed 7 > "$work/$precision.json"
done
"$python" - "$work" <<'PYTHON'
import json
import sys

for precision in ("fp32", "int8"):
    with open(f"{sys.argv[1]}/{precision}.json") as file:
        report = json.load(file)
    print(f"{precision}: {report['successes']} of {report['episodes']} done as asked, {report['limit_violations']} limit violations")
PYTHON
