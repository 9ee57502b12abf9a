#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a machine with an NVIDIA GPU can show, in one call of a few minutes; figures as JSON in $OUT (target/gpu/out).
#   tests/gpu/run.sh          there: driver, memory, the kernels of pictures and of denoising loops and their graphs against the
#                             processor; TensorRT's library; with onnxruntime-gpu the families and a chunk of SmolVLA's size on
#                             its CUDA provider; with trtexec and the full TensorRT also engines of the bench policy and of four
#                             families, whose stages are then chained on the device, built, proven by their fixtures and timed.
#                             Without a GPU: says so, and ends with 0 (77 with TENDON_GPU=required).
#   tests/gpu/run.sh pack     here, for a machine there without Rust: the programs, stripped, and the lean TensorRT of PyPI, in
#                             target/gpu, less than 64 MiB. Take the working tree and that folder along.
# TENDON_TENSORRT_LIB names another library, e.g. the full one; TENDON_ONNXRUNTIME_LIB that of onnxruntime-gpu, whose wheel is too
# large to be packed: without the variable, the one of python3, else pip is asked for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/target/gpu
wheel=tensorrt-lean-cu13-libs==11.4.0.106
say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

# The program of a test, as cargo tells where it is.
program() {
  cargo test --release --test "$1" --no-run --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("executable") and said["target"]["name"] == sys.argv[1]: print(said["executable"])' "$1"
}

if [ "${1:-}" = pack ]; then
  mkdir -p "$here"
  say "programs"
  cp "$(program gpu)" "$here/gpu-test"
  cp "$(program ort)" "$here/ort-test"
  cargo build --release
  cp "${CARGO_TARGET_DIR:-target}/release/tendon" "$here/tendon"
  strip "$here/gpu-test" "$here/ort-test" "$here/tendon"
  gzip -f -9 "$here/tendon" "$here/ort-test"
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
ort=$here/ort-test
tendon=$here/tendon
if [ ! -x "$test" ]; then
  test=$(program gpu)
  ort=$(program ort)
  cargo build --release
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
elif [ -f "$tendon.gz" ]; then
  gunzip -kf "$tendon.gz" "$ort.gz"
  chmod +x "$tendon" "$ort"
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

say "driver, memory, kernels, graphs"
TENDON_GPU=required timeout 240 "$test" --nocapture | tee "$OUT/gpu.txt"

say "ONNX Runtime with CUDA"
# Of a wheel: its folder, if the CUDA provider is in it.
capi() { python3 - "$1" <<'END'
import importlib.util, pathlib, sys
if sys.argv[1]: sys.path.insert(0, sys.argv[1])
found = importlib.util.find_spec("onnxruntime")
folder = pathlib.Path(found.origin).parent / "capi" if found and found.origin else None
print(folder if folder and (folder / "libonnxruntime_providers_cuda.so").exists() else "")
END
}
# Where CUDA's own libraries lie, as NVIDIA's wheels have them.
cuda_libraries() { python3 - "$here/ort" <<'END'
import glob, sys
roots = sys.path + sys.argv[1:]
print(":".join(sorted({f for r in roots if r for p in ("nvidia/*/lib", "nvidia/*/lib64") for f in glob.glob(f"{r}/{p}")})))
END
}
major=$(grep -o 'CUDA Version: [0-9]*' "$OUT/machine.txt" | grep -o '[0-9]*$' || echo 12)
wheels="onnxruntime-gpu nvidia-cudnn-cu$major"
library=${TENDON_ONNXRUNTIME_LIB:-$(capi "")}
if [ -z "$library" ]; then
  timeout 150 python3 -m pip --disable-pip-version-check --timeout 10 --retries 0 install --quiet --target "$here/ort" $wheels >"$OUT/ort.txt" 2>&1 &&
    library=$(capi "$here/ort") || true
fi
if [ -z "$library" ]; then
  echo "skipped: needs onnxruntime-gpu: not in python3, and pip gave none: $(tail -1 "$OUT/ort.txt" 2>/dev/null || true)" | tee "$OUT/ort.txt"
else
  LD_LIBRARY_PATH=$(cuda_libraries):${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH TENDON_ONNXRUNTIME_LIB=$library TENDON_ORT=required TENDON_ORT_CUDA=required
  timeout 120 "$ort" --nocapture keep_their_fixture provider 2>&1 | tee "$OUT/ort.txt" || true
  if timeout 100 python3 tests/gpu/smolvla_sized.py "$here/graphs"; then
    TENDON_ORT_GRAPHS=$here/graphs timeout 120 "$ort" --nocapture a_chunk_of_smolvlas_size 2>&1 | tee -a "$OUT/ort.txt" || true
    rm -r "$here/graphs"
  else
    echo "skipped: the graphs need numpy and onnx in python3" | tee -a "$OUT/ort.txt"
  fi
fi

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
  # Stages chained on the device: a prefix and a loop in one graph (flow, DDIM), a cache from token to token, a stage an instruction.
  for family in smolvla diffusion openvla clip; do
    say "engines of $family"
    folder=$OUT/$family
    mkdir -p "$folder"
    cp deploy/bench/robot.* "$folder/"
    sed -e "s|../../engines/bench-vla|$PWD/tests/families/$family|" -e "s|precision = \"fp32\"|precision = \"fp32\"\nengines = [\"tensorrt\"]\nengine_cache = \"cache\"|" \
      deploy/bench/tendon.toml >"$folder/tendon.toml"
    timeout 90 "$tendon" engine build --config "$folder/tendon.toml" 2>&1 | tee "$folder/build.txt" || true
    timeout 30 "$tendon" policy bench "tests/families/$family" --engine tensorrt --config "$folder/tendon.toml" --json \
      >"$folder/bench.json" 2>"$folder/bench.txt" || cat "$folder/bench.txt"
  done
fi
say "done"
echo "figures: $OUT/gpu.json"
