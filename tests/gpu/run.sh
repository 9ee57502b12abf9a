#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a machine with an NVIDIA GPU can show, in one call of less than ten minutes; figures as JSON in $OUT (target/gpu/out).
#   tests/gpu/run.sh          there: driver, memory, the kernels of pictures and of denoising loops and their graphs against the
#                             processor; TensorRT's library; with onnxruntime-gpu the families, the bench policy and a chunk of
#                             SmolVLA's size on its CUDA provider; with trtexec and the full TensorRT also engines of the bench
#                             policy in every precision that it has, and of four families whose stages are chained on the device:
#                             built, proven by their fixtures, timed beside a bare loop on the same engines.
#                             Each part passes, fails, or is skipped with a reason; all are listed at the end and in summary.txt.
#                             Ends with 1 if one failed, was not done in its time or found none left (TENDON_GPU_SECONDS, 570, for all
#                             parts together, building the programs aside); with 77 without a GPU.
#   tests/gpu/run.sh pack     here, for a machine there without Rust: the programs, stripped, and the lean TensorRT of PyPI, in
#                             target/gpu, less than 64 MiB. Take the working tree and that folder along.
# TENDON_TENSORRT_LIB names another library, e.g. the full one of a tar or a wheel (trtexec is then looked for beside it too); one whose
# name has neither lean nor dispatch is taken for full. TENDON_ONNXRUNTIME_LIB names that of onnxruntime-gpu, whose wheel is too large
# to be packed: without the variable, the one of python3, else pip is asked for it, with the CUDA libraries that it needs.
# tests/gpu/run_try.sh tries this script out.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${TENDON_SYSROOT:-}   # where /dev is, for trying this script out
here=${TENDON_GPU_FOLDER:-$PWD/target/gpu}
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
devices=("$root/dev/nvidiactl" "$root/dev/nvgpu" "$root/dev/nvhost-gpu")
there() { local each; for each in "${devices[@]}"; do [ -e "$each" ] && return; done; return 1; }
if ! there; then
  echo "skipped: no NVIDIA GPU here: looked for ${devices[*]}" | tee "$OUT/summary.txt"
  echo '{"skipped": "no NVIDIA GPU: no /dev/nvidiactl, /dev/nvgpu, /dev/nvhost-gpu"}' >"$OUT/gpu.json"
  exit 77
fi

say "machine"
{ timeout 20 nvidia-smi 2>/dev/null || cat /proc/driver/nvidia/version 2>/dev/null || cat /etc/nv_tegra_release; } | tee "$OUT/machine.txt" || true

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

# From here on time counts.
end=$((SECONDS + ${TENDON_GPU_SECONDS:-570}))
passed=() skipped=() failed=()
skip() { skipped+=("$1: $2"); printf '\n== %s (%ss)\nskipped: %s\n' "$1" "$SECONDS" "$2"; }
fail() { failed+=("$1: $2"); echo "FAILED: $1: $2"; }
# part NAME SECONDS FILE COMMAND...: what it says goes into FILE, or, where that is JSON, its standard output alone. No longer than it
# may take, nor than is left of the whole. True if it passed.
part() {
  local name=$1 may=$2 file=$3 words=$3 code=0
  shift 3
  say "$name"
  [ "$may" -le $((end - SECONDS)) ] || may=$((end - SECONDS))
  if [ "$may" -le 0 ]; then
    fail "$name" "not begun: no time was left"
    return 1
  fi
  if [ "${file%.json}" != "$file" ]; then
    words=${file%.json}.txt
    timeout -k 5 "$may" "$@" >"$file" 2>"$words" || code=$?
  else
    timeout -k 5 "$may" "$@" >"$file" 2>&1 || code=$?
  fi
  cat "$words"
  case $code in
    0) passed+=("$name") ;;
    124 | 137) fail "$name" "did not end within $may s" ;;
    *) fail "$name" "ended with $code" ;;
  esac
  return "$code"
}

say "TensorRT's library"
full=
if [ -n "${TENDON_TENSORRT_LIB:-}" ]; then
  # What is named is what runs, whatever else is installed.
  case ${TENDON_TENSORRT_LIB##*/} in *lean* | *dispatch*) ;; *) full=$TENDON_TENSORRT_LIB ;; esac
else
  for name in libnvinfer.so.10 libnvinfer.so.11; do
    # Not grep -q: who writes into a pipe that closes early has failed.
    ldconfig -p 2>/dev/null | grep "$name " >/dev/null && full=$name
  done
fi
if [ -z "${TENDON_TENSORRT_LIB:-}" ] && [ -z "$full" ]; then
  lean=$(ls "$here"/tensorrt_lean_cu*_libs-*.whl 2>/dev/null | head -1 || true)
  if [ -n "$lean" ]; then
    python3 -m zipfile -e "$lean" "$here/lean"
    TENDON_TENSORRT_LIB=$(find "$here/lean" -name 'libnvinfer_lean.so.*' | head -1)
    export TENDON_TENSORRT_LIB
  fi
fi
library=${TENDON_TENSORRT_LIB:-$full}
if [ -n "$library" ]; then
  echo "$library"
  export TENDON_GPU_TENSORRT=required
else
  skip "TensorRT: load, logger, error recorder, garbage refused" "no libnvinfer.so.10 or .so.11, no lean wheel in $here (tests/gpu/run.sh pack), no TENDON_TENSORRT_LIB"
fi
export TENDON_GPU=required
part "driver, memory, kernels, graphs${library:+, TensorRT as far as it goes without a plan}" 200 "$OUT/gpu.txt" "$test" --nocapture || true

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
onnxruntime="ONNX Runtime with CUDA"
major=$(grep -o 'CUDA Version: [0-9]*' "$OUT/machine.txt" | grep -o '[0-9]*$' || echo 12)
# With a driver alone there is no CUDA runtime, cuFFT, cuBLAS or cuDNN: the wheel's extras bring them. From 1.26 on they are CUDA 13's.
wheels="onnxruntime-gpu[cuda,cudnn]"
[ "$major" -ge 13 ] || wheels="$wheels<1.26"
library=${TENDON_ONNXRUNTIME_LIB:-$(capi "" || true)}
if [ -z "$library" ]; then
  timeout 100 python3 -m pip --disable-pip-version-check --timeout 10 --retries 0 install --quiet --target "$here/ort" "$wheels" >"$OUT/pip.txt" 2>&1 &&
    library=$(capi "$here/ort") || true
fi
if [ -z "$library" ]; then
  skip "$onnxruntime" "no onnxruntime-gpu in python3, and pip gave none: $(tail -1 "$OUT/pip.txt" 2>/dev/null || true)"
else
  LD_LIBRARY_PATH=$(cuda_libraries):${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH TENDON_ONNXRUNTIME_LIB=$library TENDON_ORT=required TENDON_ORT_CUDA=required
  part "$onnxruntime: the families keep their fixtures" 90 "$OUT/ort.txt" "$ort" --nocapture keep_their_fixture provider || true
  name="$onnxruntime: the bench policy"
  if part "$name" 40 "$OUT/ort-bench.json" "$tendon" policy bench engines/bench-vla --engine ort --runs 1000 --json; then
    cat "$OUT/ort-bench.json"
    # A provider that refuses leaves the nodes to the processor: figures of that are not the GPU's.
    grep -q 'on cuda, the processor' "$OUT/ort-bench.json" || fail "$name: on its CUDA provider" "$(grep -A3 '"remarks"' "$OUT/ort-bench.json" | tr -d '\n')"
  fi
  name="$onnxruntime: a chunk of SmolVLA's size"
  if ! python3 -c 'import numpy, onnx' 2>"$OUT/graphs.txt"; then
    skip "$name" "its graphs need numpy and onnx in python3: $(tail -1 "$OUT/graphs.txt")"
  elif part "$name: graphs" 90 "$OUT/graphs.txt" python3 tests/gpu/smolvla_sized.py "$here/graphs"; then
    export TENDON_ORT_GRAPHS=$here/graphs
    part "$name" 100 "$OUT/ort-smolvla.txt" "$ort" --nocapture a_chunk_of_smolvlas_size || true
    rm -rf "$here/graphs"
  fi
fi

# A deployment of a bundle with engines on TensorRT alone.
deployment() { # FOLDER BUNDLE PRECISION
  mkdir -p "$1"
  cp deploy/bench/robot.* "$1/"
  sed -e "s|../../engines/bench-vla|$2|" -e "s|precision = \"fp32\"|precision = \"$3\"\nengines = [\"tensorrt\"]\nengine_cache = \"cache\"|" \
    deploy/bench/tendon.toml >"$1/tendon.toml"
}
# From frame to chunk, the bare loop, and what lies between: the verdict is the tool's.
bench() { # NAME FOLDER BUNDLE
  part "$1: beside a bare loop" 40 "$2/bench.json" "$tendon" policy bench "$3" --engine tensorrt --config "$2/tendon.toml" --runs 1000 --bare-loop --json || true
  [ ! -s "$2/bench.json" ] || cat "$2/bench.json"
}
# A tar has it in bin beside lib, and what it links beside the library.
beside=
if [ -f "$full" ]; then
  beside=$(cd "$(dirname "$full")" && pwd)
  LD_LIBRARY_PATH=$beside:${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH
fi
builder=${TENDON_TRTEXEC:-}
for each in ${beside:+"$beside/trtexec" "$beside/../bin/trtexec"} "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec; do
  [ -n "$builder" ] || [ ! -x "$each" ] || builder=$each
done
if [ -z "$builder" ] || [ -z "$full" ]; then
  skip "engines of TensorRT" "needs trtexec (found: ${builder:-none}) and the full TensorRT (found: ${full:-none})"
else
  export TENDON_TRTEXEC=$builder
  precisions=$(python3 -c 'import json; print(*json.load(open("engines/bench-vla/manifest.json"))["tendon"]["stages"][0]["onnx"])')
  for precision in fp32 fp16 int8; do
    name="the bench policy in $precision" folder=$OUT/$precision
    case " $precisions " in *" $precision "*) ;; *) skip "$name" "the bundle has no such graph, it has $precisions"; continue ;; esac
    deployment "$folder" "$PWD/engines/bench-vla" "$precision"
    part "$name: engine, proven by its fixture" 120 "$folder/build.txt" "$tendon" engine build --config "$folder/tendon.toml" || continue
    part "$name: loads again" 60 "$folder/check.txt" "$tendon" check --config "$folder/tendon.toml" || true
    part "$name: layers" 30 "$folder/layers.txt" "$tendon" engine inspect --layers --config "$folder/tendon.toml" || true
    bench "$name" "$folder" engines/bench-vla
  done
  # Which of them a deployment would run that asks for the best. Their plans are there.
  folder=$OUT/best
  deployment "$folder" "$PWD/engines/bench-vla" best
  mkdir -p "$folder/cache"
  cp "$OUT"/{fp32,fp16,int8}/cache/* "$folder/cache" 2>/dev/null || true
  part "the bench policy: the best precision" 90 "$folder/build.txt" "$tendon" engine build --config "$folder/tendon.toml" || true
  # Stages chained on the device: a prefix and a loop in one graph (flow, DDIM), a cache from token to token, a stage an instruction.
  for family in smolvla diffusion openvla clip; do
    folder=$OUT/$family
    deployment "$folder" "$PWD/tests/families/$family" fp32
    part "$family: engines, proven by its fixture" 90 "$folder/build.txt" "$tendon" engine build --config "$folder/tendon.toml" || continue
    bench "$family" "$folder" "tests/families/$family"
  done
fi

say "done"
{
  echo "${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
  [ ${#passed[@]} = 0 ] || printf 'passed: %s\n' "${passed[@]}"
  [ ${#skipped[@]} = 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
  [ ${#failed[@]} = 0 ] || printf 'FAILED: %s\n' "${failed[@]}"
} | tee "$OUT/summary.txt"
echo "figures: $OUT"
[ ${#failed[@]} = 0 ]
