#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries run.sh where there is no GPU: what it says and how it ends when parts pass, fail, hang, find no time or are not there. Its
# programs are stand-ins that keep how they were called.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root bin=$work/bin here=$work/gpu
mkdir -p "$root/dev" "$bin" "$here"
python=$(command -v python3)
fail() { echo "FAILED: $1"; cat "$work/said"; exit 1; }
# A stand-in called NAME in FOLDER: writes down its arguments, then does what COMMANDS say.
shim() { # FOLDER NAME COMMANDS
  printf '#!/usr/bin/env bash\necho "%s $*" >>"%s/calls"\n%s\n' "$2" "$work" "$3" >"$1/$2"
  chmod +x "$1/$2"
}
# tries CODE [VARIABLE=VALUE...]: runs it, expects this end.
tries() {
  local wanted=$1 code=0
  shift
  : >"$work/calls"
  rm -rf "$work/out"
  env -u TENDON_TENSORRT_LIB -u TENDON_ONNXRUNTIME_LIB -u TENDON_TRTEXEC "PATH=$bin:$PATH" "OUT=$work/out" "TENDON_SYSROOT=$root" \
    "TENDON_GPU_FOLDER=$here" "$@" tests/gpu/run.sh >"$work/said" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "expected to end with $wanted, found $code"
}
told() { grep -q -- "$1" "$work/out/summary.txt" || fail "expected \"$1\" in the summary"; }
called() { grep -q -- "$1" "$work/calls" || { cat "$work/calls" >>"$work/said"; fail "expected a call \"$1\""; }; }
not_called() { ! grep -q -- "$1" "$work/calls" || fail "expected no call \"$1\""; }

# A machine with everything.
everything() {
  shim "$here" gpu-test 'exit 0'
  shim "$here" ort-test 'exit 0'
  shim "$here" tendon '[ "$1 $2" = "policy bench" ] && echo "{\"remarks\": [\"ONNX Runtime on cuda, the processor\"]}"; exit 0'
  shim "$bin" nvidia-smi 'echo "CUDA Version: 13.0"'
  shim "$bin" ldconfig 'echo "libnvinfer.so.10 (libc6,x86-64) => /lib/libnvinfer.so.10"; head -c 300000 /dev/zero | tr "\0" "\n"'
  shim "$bin" trtexec 'exit 0'
  shim "$bin" python3 "case \"\$*\" in *'numpy, onnx'*) exit 0 ;; *smolvla_sized.py*) mkdir -p \"\$2\"; exit 0 ;; '-m pip '*) exit 1 ;; '- '*) cat >/dev/null; exit 0 ;; esac; exec $python \"\$@\""
}
with=TENDON_ONNXRUNTIME_LIB=/somewhere/capi

everything
tries 77 $with
grep -q "no NVIDIA GPU" "$work/out/gpu.json" && told "skipped: no NVIDIA GPU"
not_called gpu-test

# One of the devices is enough: a desktop has the first, a Jetson another.
touch "$root/dev/nvhost-gpu"
tries 0 $with
rm "$root/dev/nvhost-gpu"
touch "$root/dev/nvidiactl"
tries 0 $with
told " 0 failed, 0 skipped"
for words in "gpu-test --nocapture" "ort-test --nocapture keep_their_fixture provider" "ort-test --nocapture a_chunk_of_smolvlas_size" \
  "tendon policy bench engines/bench-vla --engine ort --runs 1000 --json" "smolvla_sized.py $here/graphs" \
  "tendon engine build --config $work/out/fp32/tendon.toml" "tendon engine build --config $work/out/best/tendon.toml" "tendon engine inspect --layers --config $work/out/int8/tendon.toml" \
  "bench engines/bench-vla --engine tensorrt --config $work/out/fp32/tendon.toml --runs 1000 --bare-loop --json" \
  "bench engines/bench-vla --engine tensorrt --config $work/out/fp16/tendon.toml --runs 1000 --bare-loop --json" \
  "bench engines/bench-vla --engine tensorrt --config $work/out/int8/tendon.toml --runs 1000 --bare-loop --json" \
  "bench tests/families/smolvla --engine tensorrt --config $work/out/smolvla/tendon.toml --runs 1000 --bare-loop --json"; do
  called "$words"
done
grep -q 'precision = "int8"' "$work/out/int8/tendon.toml" && grep -q 'precision = "best"' "$work/out/best/tendon.toml" && grep -q "^bundle = \"$PWD/engines/bench-vla\"" "$work/out/int8/tendon.toml" || fail "the deployment"

# What fails fails the whole, and the rest is done all the same.
shim "$here" gpu-test 'echo "a kernel differs"; exit 101'
tries 1 $with
told "FAILED: driver, memory, kernels, graphs.*ended with 101"
grep -q "a kernel differs" "$work/said" && called "bench tests/families/clip"
everything
shim "$here" tendon 'case "$*" in *bare-loop*int8*|*int8*bare-loop*) echo "beyond a bare loop" >&2; exit 1 ;; *bench*) echo "on cuda, the processor" ;; esac; exit 0'
tries 1 $with
told "FAILED: the bench policy in int8: beside a bare loop: ended with 1"
told "passed: the bench policy in fp32: beside a bare loop"
grep -q "beyond a bare loop" "$work/said" || fail "expected the tool's words"
everything
shim "$here" tendon '[ "$1 $2" = "engine build" ] && exit 2; echo "on cuda, the processor"; exit 0'
tries 1 $with
told "FAILED: the bench policy in fp32: engine, proven by its fixture: ended with 2"
not_called "bare-loop"
everything
shim "$here" ort-test 'exit 101'
tries 1 $with
told "FAILED: ONNX Runtime with CUDA: a chunk of SmolVLA's size: ended with 101"
everything
shim "$here" tendon '[ "$1 $2" = "policy bench" ] && echo "{\"remarks\": [\"ONNX Runtime on the processor\", \"not on cuda: no cuDNN\"]}"; exit 0'
tries 1 $with
told "FAILED: ONNX Runtime with CUDA: the bench policy: on its CUDA provider.*no cuDNN"

# What is not there is skipped, with the reason.
everything
tries 0
told "skipped: ONNX Runtime with CUDA: no onnxruntime-gpu in python3"
not_called ort-test
shim "$bin" ldconfig 'exit 0'
tries 0 $with
told "skipped: TensorRT: load, logger"
told "skipped: engines of TensorRT: needs trtexec (found: $bin/trtexec) and the full TensorRT (found: none)"
# A full TensorRT that only the variable names, as a tar or a wheel has it: with its own trtexec, found beside it, and its libraries.
full=$work/TensorRT
mkdir -p "$full/lib" "$full/bin"
touch "$full/lib/libnvinfer.so.10.16.1" "$full/lib/libnvinfer_lean.so.10"
rm "$bin/trtexec"
shim "$full/bin" trtexec 'exit 0'
shim "$here" tendon "echo \"with \$LD_LIBRARY_PATH \$TENDON_TENSORRT_LIB \$TENDON_TRTEXEC\" >>'$work/calls'; echo 'on cuda, the processor'; exit 0"
tries 0 $with "TENDON_TENSORRT_LIB=$full/lib/libnvinfer.so.10.16.1"
told "passed: the bench policy in int8: engine, proven by its fixture"
called "with $full/lib:.* $full/lib/libnvinfer.so.10.16.1 $full/lib/../bin/trtexec"
tries 0 $with "TENDON_TENSORRT_LIB=$full/lib/libnvinfer_lean.so.10"
told "skipped: engines of TensorRT: needs trtexec .* and the full TensorRT (found: none)"
not_called "engine build"

# CUDA's own libraries come with the wheel, of the driver's generation.
everything
tries 0
called "python3 -m pip .* onnxruntime-gpu\[cuda,cudnn\]$"
shim "$bin" nvidia-smi 'echo "CUDA Version: 12.4"'
tries 0
called "python3 -m pip .* onnxruntime-gpu\[cuda,cudnn\]<1.26$"

everything
shim "$bin" python3 "case \"\$*\" in *'numpy, onnx'*) echo no numpy >&2; exit 1 ;; esac; exec $python \"\$@\""
tries 0 $with
told "skipped: ONNX Runtime with CUDA: a chunk of SmolVLA's size: its graphs need numpy and onnx in python3: no numpy"

# What hangs is ended, and what is then left without time fails.
everything
shim "$here" gpu-test 'exec sleep 60'
began=$SECONDS
tries 1 $with TENDON_GPU_SECONDS=2
[ $((SECONDS - began)) -lt 30 ] || fail "expected an end within 30 s, found $((SECONDS - began))"
told "FAILED: driver, memory, kernels, graphs.*did not end within"
told "FAILED: the bench policy in fp32: .*no time was left"
echo "passes, failures, skips and the end of time over stand-ins: good"
