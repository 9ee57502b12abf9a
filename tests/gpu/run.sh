#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a machine with an NVIDIA GPU can show, in one call of a few minutes; figures as JSON in $OUT (target/gpu/out).
#   tests/gpu/run.sh          there: driver, memory, kernel and graph against the processor; TensorRT's library; with
#                             trtexec and the full TensorRT also engines of the bench policy, built, proven and timed.
#                             Without a GPU: says so, and ends with 0 (77 with TENDON_GPU=required).
#   tests/gpu/run.sh pack     here, for a machine there without Rust: the programs, stripped, and the lean TensorRT of PyPI, in
#                             target/gpu, less than 64 MiB. Take the working tree and that folder along.
# TENDON_TENSORRT_LIB names another library, e.g. the full one.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/target/gpu
wheel=tensorrt-lean-cu13-libs==11.4.0.106
say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# The program of the test `gpu`, as cargo tells where it is.
program() {
  cargo test --release --test gpu --no-run --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("executable") and said["target"]["name"] == "gpu": print(said["executable"])'
}

if [ "${1:-}" = pack ]; then
  mkdir -p "$here"
  say "programs"
  cp "$(program)" "$here/gpu-test"
  cargo build --release
  cp "${CARGO_TARGET_DIR:-target}/release/tendon" "$here/tendon"
  strip "$here/gpu-test" "$here/tendon"
  gzip -f -9 "$here/tendon"
  say "lean TensorRT"
  python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --dest "$here" "$wheel" ||
    echo "skipped: the lean TensorRT could not be fetched"
  say "done"
  du -sm "$here" | cut -f1 | { read -r mib; echo "$mib MiB in $here"; [ "$mib" -lt 64 ]; }
  exit
fi

OUT=${OUT:-$here/out}
export OUT
mkdir -p "$OUT"
if ! ls /dev/nvidiactl /dev/nvgpu /dev/nvhost-gpu >/dev/null 2>&1; then
  echo "skipped: no NVIDIA GPU here: looked for /dev/nvidiactl, /dev/nvgpu, /dev/nvhost-gpu"
  echo '{"skipped": "no NVIDIA GPU: no /dev/nvidiactl, /dev/nvgpu, /dev/nvhost-gpu"}' >"$OUT/gpu.json"
  [ "${TENDON_GPU:-}" = required ] && exit 77
  exit 0
fi

say "machine"
{ nvidia-smi 2>/dev/null || cat /proc/driver/nvidia/version 2>/dev/null || cat /etc/nv_tegra_release; } | tee "$OUT/machine.txt" || true

say "programs"
test=$here/gpu-test
tendon=$here/tendon
if [ ! -x "$test" ]; then
  test=$(program)
  cargo build --release
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
elif [ -f "$tendon.gz" ]; then
  gunzip -kf "$tendon.gz"
  chmod +x "$tendon"
fi

say "TensorRT's library"
full=
for name in libnvinfer.so.10 libnvinfer.so.11; do
  ldconfig -p 2>/dev/null | grep -q "$name " && full=$name
done
if [ -z "${TENDON_TENSORRT_LIB:-}" ] && [ -z "$full" ]; then
  lean=$(ls "$here"/tensorrt_lean_cu*_libs-*.whl 2>/dev/null | head -1 || true)
  if [ -n "$lean" ]; then
    python3 -m zipfile -e "$lean" "$here/lean"
    TENDON_TENSORRT_LIB=$(find "$here/lean" -name 'libnvinfer_lean.so.*' | head -1)
    export TENDON_TENSORRT_LIB
  fi
fi
echo "${TENDON_TENSORRT_LIB:-${full:-none: that part is skipped}}"

say "driver, memory, kernel, graph"
TENDON_GPU=required timeout 240 "$test" --nocapture | tee "$OUT/gpu.txt"

say "engines of the bench policy"
builder=${TENDON_TRTEXEC:-$(command -v trtexec || ls /usr/src/tensorrt/bin/trtexec 2>/dev/null || true)}
if [ -z "$builder" ] || [ -z "$full" ]; then
  echo "skipped: needs trtexec (found: ${builder:-none}) and the full TensorRT (found: ${full:-none})" | tee "$OUT/engines.txt"
else
  export TENDON_TRTEXEC=$builder
  for precision in fp32 int8; do
    folder=$OUT/$precision
    mkdir -p "$folder"
    cp deploy/bench/robot.* "$folder/"
    sed -e "s|../../engines|$PWD/engines|" -e "s|precision = \"fp32\"|precision = \"$precision\"\nengines = [\"tensorrt\"]\nengine_cache = \"cache\"|" \
      deploy/bench/tendon.toml >"$folder/tendon.toml"
    timeout 240 "$tendon" engine build --config "$folder/tendon.toml" 2>&1 | tee "$folder/build.txt" || true
    timeout 60 "$tendon" check --config "$folder/tendon.toml" 2>&1 | tee "$folder/check.txt" || true
    timeout 60 "$tendon" engine inspect --layers --config "$folder/tendon.toml" >"$folder/layers.txt" 2>&1 || true
  done
fi
say "done"
echo "figures: $OUT/gpu.json"
