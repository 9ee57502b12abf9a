#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a machine with an NVIDIA GPU can show, in one call of less than ten minutes.
#   tests/gpu/run.sh            there: driver, memory, the kernels of pictures and of denoising loops and their graphs against the
#                               processor, graphs joined, an error that sticks; TensorRT's library, where only lean ones are there
#                               one of each layout; with onnxruntime-gpu the families, the bench policy and a chunk of
#                               SmolVLA's size on its CUDA provider; with trtexec and the full TensorRT also engines of the bench
#                               policy in every precision that it has, and of four families whose stages are chained on the device:
#                               built, proven by their fixtures, timed beside a bare loop on the same engines.
#                               Each part passes, fails, or is skipped with a reason; all are listed at the end.
#                               Ends with 1 if one failed, was not done in its time or found none left (TENDON_GPU_SECONDS, 570, for all
#                               parts together, building the programs aside); with 77 without a GPU. In $OUT (target/gpu-out) it
#                               leaves five files: summary.txt, log.txt, and as JSON gpu.json, ort.json, figures.json (all others).
#   tests/gpu/run.sh pack [MIB] here, for a machine there without Rust that takes at most so many MiB a call (64), the working tree among
#                               them: the programs in target/gpu, the lean TensorRT of PyPI in target/gpu-lean (11, for CUDA 13 or what
#                               TENDON_GPU_CUDA says) and target/gpu-lean-10 (10, whose tables a Jetson's has). Then it says what to
#                               take along in which call; ends with 1 if that cannot be.
# TENDON_TENSORRT_LIB names another library, e.g. the full one of a tar or a wheel (trtexec is then looked for beside it too); one whose
# name has neither lean nor dispatch is taken for full. TENDON_ONNXRUNTIME_LIB names that of onnxruntime-gpu, whose wheel is too large
# to be packed. What python3 there does not have, pip is asked for: onnxruntime-gpu with the CUDA libraries that it needs, the lean
# TensorRT, onnx and numpy. tests/gpu/run_try.sh tries this script out.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."
root=${TENDON_SYSROOT:-}   # where /dev is, for trying this script out
here=${TENDON_GPU_FOLDER:-$PWD/target/gpu}
lean=$here-lean lean_10=$here-lean-10
made=$here-work            # what is made or fetched there
log=/dev/null
say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS" | tee -a "$log"; }
# The lean TensorRT of PyPI in the two layouts that are known: the newest, for a CUDA's major, and the last of 10, as JetPack has 10.3.
newest() { echo "tensorrt-lean-cu$1-libs==11.4.0.106"; }
ten=tensorrt-lean-cu12-libs==10.16.1.11

# The program of a test, as cargo tells where it is.
program() {
  cargo test --release --test "$1" --no-run --message-format=json |
    python3 -c 'import json,sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("executable") and said["target"]["name"] == sys.argv[1]: print(said["executable"])' "$1"
}

# The wheels of a folder, packed by LZMA in place of deflate, which makes 14 MB of 46: python3 unpacks both.
smaller() { python3 - "$1" <<'END'
import pathlib, sys, zipfile
for wheel in pathlib.Path(sys.argv[1]).glob("*.whl"):
    packed = wheel.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as new:
            for each in old.infolist(): new.writestr(each.filename, old.read(each), zipfile.ZIP_LZMA)
        packed.replace(wheel)
    except (zipfile.BadZipFile, RuntimeError, OSError) as error:
        packed.unlink(missing_ok=True)
        print(f"{wheel.name} stays as large as it is: {error}")
END
}

if [ "${1:-}" = pack ]; then
  mkdir -p "$here" "$lean" "$lean_10"
  rm -f "$here"/{gpu-test,ort-test,tendon}{,.gz} "$here"/*.whl "$lean"/*.whl "$lean_10"/*.whl
  say "programs"
  cp "$(program gpu)" "$here/gpu-test"
  cp "$(program ort)" "$here/ort-test"
  cargo build --release
  cp "${CARGO_TARGET_DIR:-target}/release/tendon" "$here/tendon"
  strip "$here/gpu-test" "$here/ort-test" "$here/tendon"
  gzip -f -9 "$here/gpu-test" "$here/ort-test" "$here/tendon"
  say "lean TensorRT"
  # pack_lean FOLDER NAME==VERSION
  pack_lean() {
    if python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --dest "$1" "$2"; then
      smaller "$1"
    else
      echo "skipped: the lean TensorRT could not be fetched: $2"
    fi
  }
  pack_lean "$lean" "$(newest "${TENDON_GPU_CUDA:-13}")"
  pack_lean "$lean_10" "$ten"
  say "what to take along"
  python3 tests/gpu/calls.py "${2:-64}" "$here" "$lean" "$lean_10"
  exit
fi

OUT=${OUT:-$here-out}
export OUT
mkdir -p "$OUT" "$made"
rm -rf "$OUT"/{summary.txt,log.txt,gpu.json,ort.json,figures.json} "$made/engines"
devices=("$root/dev/nvidiactl" "$root/dev/nvgpu" "$root/dev/nvhost-gpu")
there() { local each; for each in "${devices[@]}"; do [ -e "$each" ] && return; done; return 1; }
if ! there; then
  echo "skipped: no NVIDIA GPU here: looked for ${devices[*]}" | tee "$OUT/summary.txt"
  echo '{"skipped": "no NVIDIA GPU: no /dev/nvidiactl, /dev/nvgpu, /dev/nvhost-gpu"}' >"$OUT/gpu.json"
  exit 77
fi

log=$OUT/log.txt
say "machine"
{ timeout 20 nvidia-smi 2>/dev/null || cat /proc/driver/nvidia/version 2>/dev/null || cat /etc/nv_tegra_release; } | tee "$made/machine.txt" || true
cat "$made/machine.txt" >>"$log"
# The newest CUDA that the driver runs. A Jetson's says none: 12.
cuda=$(sed -n '/CUDA [A-Z ]*Version: *[0-9]/{s/.*CUDA [A-Z ]*Version: *\([0-9]*\).*/\1/p;q;}' "$made/machine.txt")
cuda=${cuda:-12}

say "programs"
test=$here/gpu-test
ort=$here/ort-test
tendon=$here/tendon
if [ -f "$test" ] || [ -f "$test.gz" ]; then
  for each in "$test" "$ort" "$tendon"; do
    [ ! -f "$each.gz" ] || gunzip -kf "$each.gz"
    chmod +x "$each"
  done
else
  test=$(program gpu)
  ort=$(program ort)
  cargo build --release
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
fi

# From here on time counts.
end=$((SECONDS + ${TENDON_GPU_SECONDS:-570}))
passed=() skipped=() failed=()
skip() { skipped+=("$1: $2"); printf '\n== %s (%ss)\nskipped: %s\n' "$1" "$SECONDS" "$2" | tee -a "$log"; }
fail() { failed+=("$1: $2"); echo "FAILED: $1: $2" | tee -a "$log"; }
# Keeps a report beside the others, by the name of its part.
figure() { # NAME FILE
  python3 -c 'import json, pathlib, sys
all, text = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3]).read_text()
figures = json.loads(all.read_text()) if all.exists() else {}
try: figures[sys.argv[2]] = json.loads(text)
except ValueError: figures[sys.argv[2]] = text
all.write_text(json.dumps(figures, indent=1) + "\n")' "$OUT/figures.json" "$1" "$2" || fail "$1: its figures" "could not be kept in $OUT/figures.json"
}
# part NAME SECONDS FILE COMMAND...: what it says goes into the log; its standard output into FILE, as JSON that is kept, unless that is
# "-". No longer than it may take, nor than is left of the whole. True if it passed.
part() {
  local name=$1 may=$2 file=$3 code=0 before
  shift 3
  say "$name"
  [ "$may" -le $((end - SECONDS)) ] || may=$((end - SECONDS))
  if [ "$may" -le 0 ]; then
    fail "$name" "not begun: no time was left"
    return 1
  fi
  before=$(wc -c <"$log")
  if [ "$file" = - ]; then
    timeout -k 5 "$may" "$@" >>"$log" 2>&1 || code=$?
  else
    timeout -k 5 "$may" "$@" >"$file" 2>>"$log" || code=$?
  fi
  tail -c "+$((before + 1))" "$log"
  if [ "$file" != - ] && [ -s "$file" ]; then
    cat "$file"
    figure "$name" "$file"
  fi
  case $code in
    0) passed+=("$name") ;;
    124 | 137) fail "$name" "did not end within $may s" ;;
    *) fail "$name" "ended with $code" ;;
  esac
  return "$code"
}
# fetch VERB WORDS...: asks pip, no longer than 100 s, nor than is left. Where there is no network it soon says so.
fetch() {
  local verb=$1 left=$((end - SECONDS))
  shift
  if [ "$left" -le 0 ]; then
    echo "no time was left to ask" >"$made/pip.txt"
    return 1
  fi
  timeout $((left < 100 ? left : 100)) python3 -m pip --disable-pip-version-check --timeout 10 --retries 0 "$verb" --quiet "$@" >"$made/pip.txt" 2>&1
}
pip_said() { tail -1 "$made/pip.txt" 2>/dev/null || true; }

say "TensorRT's library"
full= libraries=()
if [ -n "${TENDON_TENSORRT_LIB:-}" ]; then
  # What is named is what runs, whatever else is installed.
  libraries=("$TENDON_TENSORRT_LIB")
  case ${TENDON_TENSORRT_LIB##*/} in *lean* | *dispatch*) ;; *) full=$TENDON_TENSORRT_LIB ;; esac
else
  for name in libnvinfer.so.10 libnvinfer.so.11; do
    # Not grep -q: who writes into a pipe that closes early has failed.
    if ldconfig -p 2>/dev/null | grep "$name " >/dev/null; then full=$name libraries+=("$name"); fi
  done
fi
# packed NAME==VERSION: the wheel, in whichever of the folders.
packed() {
  local name=${1%%==*}
  ls {"$lean","$lean_10","$here","$made"}/"${name//-/_}-${1##*==}"-*.whl 2>/dev/null | head -1 || true
}
# unpacked NAME==VERSION: `library` of a wheel that was packed or is fetched here; false where there is none, with `why`.
unpacked() {
  local found
  found=$(packed "$1")
  if [ -z "$found" ]; then
    fetch download --no-deps --only-binary=:all: --dest "$made" "$1" || true
    found=$(packed "$1")
  fi
  if [ -z "$found" ]; then
    why="no libnvinfer.so.10 or .so.11, no wheel of $1 in $lean, $lean_10 or $here (tests/gpu/run.sh pack), no TENDON_TENSORRT_LIB, and pip gave none: $(pip_said)"
    return 1
  fi
  rm -rf "$made/lean/$1"
  python3 -m zipfile -e "$found" "$made/lean/$1" 2>"$made/unpack.txt" || true
  library=$(find "$made/lean/$1" -name 'libnvinfer_lean.so.*' 2>/dev/null | head -1 || true)
  why="no libnvinfer_lean.so in $found: $(tail -1 "$made/unpack.txt")"
  [ -n "$library" ]
}
if [ ${#libraries[@]} = 0 ]; then
  # A library of a newer CUDA than the driver's would not start; one of an older CUDA does.
  eleven=$(newest "$cuda")
  for major in $(seq "$cuda" -1 12); do
    if [ -n "$(packed "$(newest "$major")")" ]; then
      eleven=$(newest "$major")
      break
    fi
  done
  for each in "$eleven" "$ten"; do
    if unpacked "$each"; then libraries+=("$library"); else skip "TensorRT ${each##*==}: load, logger, error recorder, garbage refused" "$why"; fi
  done
fi
if [ ${#libraries[@]} -gt 0 ]; then
  printf '%s\n' "${libraries[@]}" | tee -a "$log"
  export TENDON_GPU_TENSORRT=required
fi
export TENDON_GPU=required
library=${libraries[0]:-}
# Each of its parts is a process of its own. gpu.json is written before the first, with every name, and around each: what this time, or what
# is left of the whole, is too short for stands in it. If each part hangs, they take ten times PART_MAX of main.rs.
part "driver, memory, kernels, graphs, an error that sticks${library:+, TensorRT as far as it goes without a plan}" 320 - \
  env ${library:+"TENDON_TENSORRT_LIB=$library"} "$test" --exact the_gpu --nocapture || true
for library in "${libraries[@]:1}"; do
  name="TensorRT as far as it goes without a plan, by ${library##*/} too" folder=$made/${library##*/}
  mkdir -p "$folder"
  rm -f "$folder/gpu.json"
  part "$name" 60 - env "OUT=$folder" "TENDON_TENSORRT_LIB=$library" TENDON_GPU_PART=tensorrt "$test" --exact the_gpu --nocapture || true
  [ ! -s "$folder/gpu.json" ] || figure "$name" "$folder/gpu.json"
done

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
cuda_libraries() { python3 - "$made/ort" <<'END'
import glob, sys
roots = sys.path + sys.argv[1:]
print(":".join(sorted({f for r in roots if r for p in ("nvidia/*/lib", "nvidia/*/lib64") for f in glob.glob(f"{r}/{p}")})))
END
}
onnxruntime="ONNX Runtime with CUDA"
# With a driver alone there is no CUDA runtime, cuFFT, cuBLAS or cuDNN: the wheel's extras bring them. From 1.26 on they are CUDA 13's.
wheels="onnxruntime-gpu[cuda,cudnn]"
[ "$cuda" -ge 13 ] || wheels="$wheels<1.26"
library=${TENDON_ONNXRUNTIME_LIB:-$(capi "" || true)}
if [ -z "$library" ]; then
  fetch install --target "$made/ort" "$wheels" && library=$(capi "$made/ort") || true
fi
if [ -z "$library" ]; then
  skip "$onnxruntime" "no onnxruntime-gpu in python3, and pip gave none: $(pip_said)"
else
  LD_LIBRARY_PATH=$(cuda_libraries):${LD_LIBRARY_PATH:-}
  export LD_LIBRARY_PATH TENDON_ONNXRUNTIME_LIB=$library TENDON_ORT=required TENDON_ORT_CUDA=required
  part "$onnxruntime: the families keep their fixtures" 90 - "$ort" --nocapture keep_their_fixture provider || true
  name="$onnxruntime: the bench policy" report=$made/ort-bench.json
  if part "$name" 40 "$report" "$tendon" policy bench engines/bench-vla --engine ort --runs 1000 --json; then
    # A provider that refuses leaves the nodes to the processor: figures of that are not the GPU's.
    grep -q 'on cuda, the processor' "$report" || fail "$name: on its CUDA provider" "$(grep -A3 '"remarks"' "$report" | tr -d '\n')"
  fi
  name="$onnxruntime: a chunk of SmolVLA's size"
  python=(python3)
  if ! python3 -c 'import numpy, onnx' 2>/dev/null && fetch install --target "$made/python" onnx numpy; then
    python=(env "PYTHONPATH=$made/python${PYTHONPATH:+:$PYTHONPATH}" python3)
  fi
  if ! "${python[@]}" -c 'import numpy, onnx' 2>"$made/import.txt"; then
    skip "$name" "its graphs need numpy and onnx in python3: $(tail -1 "$made/import.txt"); of pip: $(pip_said)"
  elif part "$name: graphs" 90 - "${python[@]}" tests/gpu/smolvla_sized.py "$made/graphs"; then
    export TENDON_ORT_GRAPHS=$made/graphs
    part "$name" 100 - "$ort" --nocapture a_chunk_of_smolvlas_size || true
    rm -rf "$made/graphs"
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
    name="the bench policy in $precision" folder=$made/engines/$precision
    case " $precisions " in *" $precision "*) ;; *) skip "$name" "the bundle has no such graph, it has $precisions"; continue ;; esac
    deployment "$folder" "$PWD/engines/bench-vla" "$precision"
    part "$name: engine, proven by its fixture" 120 - "$tendon" engine build --config "$folder/tendon.toml" || continue
    part "$name: loads again" 60 - "$tendon" check --config "$folder/tendon.toml" || true
    part "$name: layers" 30 - "$tendon" engine inspect --layers --config "$folder/tendon.toml" || true
    bench "$name" "$folder" engines/bench-vla
  done
  # Which of them a deployment would run that asks for the best. Their plans are there.
  folder=$made/engines/best
  deployment "$folder" "$PWD/engines/bench-vla" best
  mkdir -p "$folder/cache"
  cp "$made"/engines/{fp32,fp16,int8}/cache/* "$folder/cache" 2>/dev/null || true
  part "the bench policy: the best precision" 90 - "$tendon" engine build --config "$folder/tendon.toml" || true
  # Stages chained on the device: a prefix and a loop in one graph (flow, DDIM), a cache from token to token, a stage an instruction.
  for family in smolvla diffusion openvla clip; do
    folder=$made/engines/$family
    deployment "$folder" "$PWD/tests/families/$family" fp32
    part "$family: engines, proven by its fixture" 90 - "$tendon" engine build --config "$folder/tendon.toml" || continue
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
echo "figures: $OUT; engines and what was fetched: $made"
[ ${#failed[@]} = 0 ]
