#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries run.sh where there is no GPU: what it says and how it ends when parts pass, fail, hang, find no time or are not there. Its
# programs are stand-ins that keep how they were called.
set -euo pipefail
shopt -s extglob
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root bin=$work/bin here=$work/gpu made=$work/gpu-work
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
  rm -rf "$work/out" "$here-work"
  env -u TENDON_TENSORRT_LIB -u TENDON_ONNXRUNTIME_LIB -u TENDON_TRTEXEC "PATH=$bin:$PATH" "OUT=$work/out" "TENDON_SYSROOT=$root" \
    "TENDON_GPU_FOLDER=$here" "$@" tests/gpu/run.sh >"$work/said" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "expected to end with $wanted, found $code"
  # What brings the outputs back may take few files, and no folders: there are five at most.
  local left
  left=$(find "$work/out" -mindepth 1 | sed "s|^$work/out/||" | sort | tr '\n' ' ')
  [ -z "${left//@(figures.json|gpu.json|log.txt|ort.json|summary.txt) /}" ] || fail "expected five files at most in \$OUT, found $left"
}
told() { grep -q -- "$1" "$work/out/summary.txt" || fail "expected \"$1\" in the summary"; }
called() { grep -q -- "$1" "$work/calls" || { cat "$work/calls" >>"$work/said"; fail "expected a call \"$1\""; }; }
not_called() { ! grep -q -- "$1" "$work/calls" || fail "expected no call \"$1\""; }

# A machine with everything.
everything() {
  shim "$here" gpu-test 'echo "a kernel is the same"; echo "{}" >"$OUT/gpu.json"'
  shim "$here" ort-test 'echo "{}" >"$OUT/ort.json"'
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
for words in "gpu-test --exact the_gpu --nocapture" "ort-test --nocapture keep_their_fixture provider" "ort-test --nocapture a_chunk_of_smolvlas_size" \
  "tendon policy bench engines/bench-vla --engine ort --runs 1000 --json" "smolvla_sized.py $made/graphs" \
  "tendon engine build --config $made/engines/fp32/tendon.toml" "tendon engine build --config $made/engines/best/tendon.toml" "tendon engine inspect --layers --config $made/engines/int8/tendon.toml" \
  "bench engines/bench-vla --engine tensorrt --config $made/engines/fp32/tendon.toml --runs 1000 --bare-loop --json" \
  "bench engines/bench-vla --engine tensorrt --config $made/engines/fp16/tendon.toml --runs 1000 --bare-loop --json" \
  "bench engines/bench-vla --engine tensorrt --config $made/engines/int8/tendon.toml --runs 1000 --bare-loop --json" \
  "bench tests/families/smolvla --engine tensorrt --config $made/engines/smolvla/tendon.toml --runs 1000 --bare-loop --json"; do
  called "$words"
done
grep -q 'precision = "int8"' "$made/engines/int8/tendon.toml" && grep -q 'precision = "best"' "$made/engines/best/tendon.toml" && grep -q "^bundle = \"$PWD/engines/bench-vla\"" "$made/engines/int8/tendon.toml" || fail "the deployment"

# All figures in one file, by part; all words in another.
python3 -c 'import json, sys
parts = json.load(open(sys.argv[1]))
assert set(parts) == {"ONNX Runtime with CUDA: the bench policy"} | {f"{name}: beside a bare loop" for name in
    ("the bench policy in fp32", "the bench policy in fp16", "the bench policy in int8", "smolvla", "diffusion", "openvla", "clip")}, set(parts)
assert all("remarks" in part for part in parts.values()), parts' "$work/out/figures.json" >"$work/said" 2>&1 || fail "figures.json"
grep -q "^a kernel is the same" "$work/out/log.txt" && grep -q "CUDA Version: 13.0" "$work/out/log.txt" || fail "expected the words of all parts in log.txt"

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
for version in 11.4.0.106 10.16.1.11; do told "skipped: TensorRT $version: load, logger.*no wheel of tensorrt-lean-cu1[23]-libs==$version.*pip gave none"; done
called "python3 -m pip .*download .*tensorrt-lean-cu13-libs==11[0-9.]*$"
called "python3 -m pip .*download .*tensorrt-lean-cu12-libs==10[0-9.]*$"
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

# Without numpy and onnx, pip is asked for them; what it gives is used, what it does not give is said.
everything
shim "$bin" python3 "case \"\$*\" in *'numpy, onnx'*) echo no numpy >&2; exit 1 ;; '-m pip '*) echo no network; exit 1 ;; esac; exec $python \"\$@\""
tries 0 $with
told "skipped: ONNX Runtime with CUDA: a chunk of SmolVLA's size: its graphs need numpy and onnx in python3: no numpy; of pip: no network"
called "python3 -m pip .*install .*--target $made/python onnx numpy$"
shim "$bin" python3 "case \"\$*\" in *'numpy, onnx'*) [ -n \"\${PYTHONPATH:-}\" ]; exit ;; '-m pip '*) exit 0 ;; *smolvla_sized.py*) echo \"with \$PYTHONPATH\" >>'$work/calls'; exit 0 ;; esac; exec $python \"\$@\""
tries 0 $with
told "passed: ONNX Runtime with CUDA: a chunk of SmolVLA's size"
called "^with $made/python$"

# The lean TensorRT, which goes as far as it can without a plan, in both layouts: packed in any of the folders, or given by pip. All parts
# with the first of them, TensorRT alone with the other.
lean() { # FOLDER CUDA VERSION
  rm -rf "$work/wheel"
  mkdir -p "$1" "$work/wheel/tensorrt_lean"
  touch "$work/wheel/tensorrt_lean/libnvinfer_lean.so.${3%%.*}"
  (cd "$work/wheel" && "$python" -m zipfile -c "$1/tensorrt_lean_cu$2_libs-$3-py3-none-any.whl" tensorrt_lean)
}
everything
shim "$bin" ldconfig 'exit 0'
shim "$here" gpu-test "echo \"with \${TENDON_TENSORRT_LIB#$made/} \${TENDON_GPU_TENSORRT:-free}, \${TENDON_GPU_PART:-all}\" >>'$work/calls'; echo '{\"of\": \"'\${TENDON_GPU_PART:-all}'\"}' >\"\$OUT/gpu.json\""
eleven=tensorrt_lean/libnvinfer_lean.so.11 ten=tensorrt_lean/libnvinfer_lean.so.10
for folder in "$here" "$here-lean"; do
  # Of a newer CUDA than the driver's: not taken.
  lean "$folder" 14 11.4.0.106
  tries 0 $with
  told "skipped: TensorRT 11.4.0.106: load, logger"
  # Of an older one: taken, unless there is the driver's.
  lean "$folder" 12 11.4.0.106
  tries 0 $with
  called "^with lean/tensorrt-lean-cu12-libs==11.4.0.106/$eleven required, all$"
  told "skipped: TensorRT 10.16.1.11: load, logger"
  lean "$folder" 13 11.4.0.106
  lean "$here-lean-10" 12 10.16.1.11
  tries 0 $with
  called "^with lean/tensorrt-lean-cu13-libs==11.4.0.106/$eleven required, all$"
  called "^with lean/tensorrt-lean-cu12-libs==10.16.1.11/$ten required, tensorrt$"
  not_called "tensorrt-lean.*download"
  [ "$(grep -c '^gpu-test' "$work/calls")" = 2 ] || fail "expected two runs of gpu-test"
  grep -q '"of": "all"' "$work/out/gpu.json" || fail "expected the figures of all parts in gpu.json"
  "$python" -c 'import json, sys
assert json.load(open(sys.argv[1]))["TensorRT as far as it goes without a plan, by libnvinfer_lean.so.10 too"] == {"of": "tensorrt"}' "$work/out/figures.json" || fail "expected the other layout in figures.json"
  rm "$folder"/*.whl "$here-lean-10"/*.whl
done
# That one of them fails is told, whatever the other does.
lean "$here-lean" 13 11.4.0.106
lean "$here-lean" 12 10.16.1.11
for failing in all tensorrt; do
  shim "$here" gpu-test "[ \"\${TENDON_GPU_PART:-all}\" != $failing ]"
  tries 1 $with
  told " 1 failed,"
done
told "FAILED: TensorRT as far as it goes without a plan, by libnvinfer_lean.so.10 too: ended with 1"
# Both full ones.
rm "$here-lean"/*.whl
shim "$bin" ldconfig 'for major in 10 11; do echo "libnvinfer.so.$major (libc6,x86-64) => /lib/libnvinfer.so.$major"; done'
shim "$here" gpu-test "echo \"with \$TENDON_TENSORRT_LIB, \${TENDON_GPU_PART:-all}\" >>'$work/calls'"
tries 0 $with
called "^with libnvinfer.so.10, all$"
called "^with libnvinfer.so.11, tensorrt$"
shim "$bin" ldconfig 'exit 0'
lean "$work/given" 12 11.4.0.106
shim "$bin" nvidia-smi 'echo "CUDA Version: 12.6"'
shim "$bin" python3 "case \"\$*\" in '-m pip '*download*cu12-libs==11*) cp '$work/given/'*.whl '$made/'; exit ;; '-m pip '*) exit 1 ;; *'numpy, onnx'* | *smolvla_sized.py*) exit 0 ;; '- '*) cat >/dev/null; exit 0 ;; esac; exec $python \"\$@\""
tries 0 $with
called "^with $made/lean/tensorrt-lean-cu12-libs==11.4.0.106/$eleven, all$"

# Packed for a machine that takes so many MiB a call, the working tree (here of 2 MiB) among them.
mkdir -p "$work/tree/target"
truncate -s 2M "$work/tree/big"
shim "$bin" git "printf '%s\0' '$work/tree/big' '$work/tree/removed'"
shim "$bin" cargo "case \"\$*\" in *'--test '*) for name in gpu ort; do truncate -s 3M '$work/tree/'\$name; echo '{\"executable\": \"$work/tree/'\$name'\", \"target\": {\"name\": \"'\$name'\"}}'; done ;;
  *) mkdir -p '$work/tree/target/release'; truncate -s 3M '$work/tree/target/release/tendon' ;; esac"
shim "$bin" strip 'exit 0'
# Stand-ins are mostly zeros; the programs that they stand for shrink less.
shim "$bin" gzip 'shift 2; for file; do mv "$file" "$file.gz"; done'
# pip gives a file of LEAN_MIB, or of LEAN_WHEELS what was asked for, or fails.
shim "$bin" python3 "case \"\$*\" in '-m pip '*)
  all=\"\$*\" && folder=\"\${all##*--dest }\" && folder=\"\${folder%% *}\"
  if [ -n \"\${LEAN_MIB:-}\" ]; then truncate -s \"\${LEAN_MIB}M\" \"\$folder/lean.whl\"
  else cp \"\${LEAN_WHEELS:-/nowhere}\"/*-\"\${all##*==}\"-*.whl \"\$folder/\"; fi
  exit ;; esac; exec $python \"\$@\""
packs() { # CODE MIB [VARIABLE=VALUE...]
  local wanted=$1 most=$2 code=0
  shift 2
  env "PATH=$bin:$PATH" "TENDON_GPU_FOLDER=$here" "CARGO_TARGET_DIR=$work/tree/target" "$@" tests/gpu/run.sh pack "$most" >"$work/said" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "expected pack to end with $wanted, found $code"
}
said() { grep -q -- "$1" "$work/said" || fail "expected \"$1\""; }
rm -rf "$here" "$here-lean"
packs 0 64 LEAN_MIB=20
said "^call 1: take along $here $here-lean $here-lean-10; run: tests/gpu/run.sh (51.0 MiB)$"
said "lean.whl stays as large as it is"
# What does not fit into one call goes with another, the programs last.
packs 0 64 LEAN_MIB=42
said "^call 1: take along $here-lean-10; run: true (44.0 MiB)$"
said "^call 2: take along $here $here-lean; run: tests/gpu/run.sh (53.0 MiB)$"
packs 0 52 LEAN_MIB=42
said "at most 52.0 MiB a call, of them the working tree 2.0 MiB"
said "^call 1: take along $here-lean; run: true (44.0 MiB)$"
said "^call 2: take along $here-lean-10; run: true (44.0 MiB)$"
said "^call 3: take along $here; run: tests/gpu/run.sh (11.0 MiB)$"
packs 1 43 LEAN_MIB=42
said "^call 1: .*(44.0 MiB: TOO MUCH)$"
packs 0 52
said "skipped: the lean TensorRT could not be fetched: tensorrt-lean-cu13-libs==11"
said "skipped: the lean TensorRT could not be fetched: tensorrt-lean-cu12-libs==10"
said "^call 1: take along $here; run: tests/gpu/run.sh (11.0 MiB)$"
packs 1 many
said "expected whole MiB a call, found 'many'"
# A wheel is packed again where that makes it smaller: what comes again a MiB later is too far for deflate. What was packed is unpacked.
"$python" - "$work/wheels" <<'END'
import pathlib, random, sys, zipfile
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
for cuda, version in ((13, "11.4.0.106"), (12, "10.16.1.11")):
    with zipfile.ZipFile(folder / f"tensorrt_lean_cu{cuda}_libs-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"tensorrt_lean/libnvinfer_lean.so.{version[:2]}", random.Random(version).randbytes(1 << 20) * 4)
END
packs 0 64 "LEAN_WHEELS=$work/wheels"
said "^call 1: take along $here $here-lean $here-lean-10; run: tests/gpu/run.sh (13.0 MiB)$"
rm -rf "$here"
mkdir -p "$here"
rm "$bin/gzip" "$bin/cargo" "$bin/strip" "$bin/git"
everything
shim "$bin" ldconfig 'exit 0'
shim "$here" gpu-test "echo \"with \$(stat -c %s \"\$TENDON_TENSORRT_LIB\") bytes of \${TENDON_TENSORRT_LIB##*/}\" >>'$work/calls'"
tries 0 $with
for major in 11 10; do called "^with 4194304 bytes of libnvinfer_lean.so.$major$"; done
rm -rf "$here-lean" "$here-lean-10"

# What hangs is ended, and what is then left without time fails.
everything
shim "$here" gpu-test 'exec sleep 60'
began=$SECONDS
tries 1 $with TENDON_GPU_SECONDS=2
[ $((SECONDS - began)) -lt 30 ] || fail "expected an end within 30 s, found $((SECONDS - began))"
told "FAILED: driver, memory, kernels, graphs.*did not end within"
told "FAILED: the bench policy in fp32: .*no time was left"
echo "passes, failures, skips and the end of time over stand-ins: good"
