#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries orin.sh where there is no Orin: that it refuses in words, what it would do, and the whole of it over a made /sys with
# stand-ins for JetPack's tools and the policy on the processor. Its figures mean nothing.
#   tests/hw/orin_try.sh [tendon]       a built tendon; without one the last part is left out
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root bin=$work/bin rust=$work/rust
mkdir -p "$root/proc/device-tree" "$bin" "$rust"
fail() { echo "FAILED: $1"; cat "$work/said"; exit 1; }
# refused WORDS [ARGUMENT...]: ends with 77 and these words.
refused() {
  local words=$1 code=0
  shift
  OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh "$@" >"$work/said" 2>&1 || code=$?
  [ $code = 77 ] || fail "expected 77, found $code"
  grep -q "$words" "$work/said" || fail "expected \"$words\""
}
refused "expected a Jetson Orin"
printf 'nvidia,p3509\0nvidia,tegra194\0' >"$root/proc/device-tree/compatible"
refused "found nvidia,p3509 nvidia,tegra194"
printf 'nvidia,p3768\0nvidia,tegra234\0' >"$root/proc/device-tree/compatible"
printf 'NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0' >"$root/proc/device-tree/model"
refused "expected a deployment, found no file $work/none/tendon.toml" --dry-run "$work/none/tendon.toml"
refused "expected an INA3221" --dry-run
power=$root/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3
mkdir -p "$power"
echo VDD_IN >"$power/in1_label"
echo 5000 >"$power/in1_input"
echo 2000 >"$power/curr1_input"
refused "expected thermal zones" --dry-run
zone=$root/sys/class/thermal/thermal_zone0
mkdir -p "$zone"
echo cpu-thermal >"$zone/type"
echo 45000 >"$zone/temp"
# A dry run takes nothing away of what was measured before.
mkdir -p "$work/out"
touch "$work/out/table.md" "$work/out/clocks.before"
dry_run() { OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh --dry-run >"$work/said" 2>&1 && [ -e "$work/out/table.md" ] && [ -e "$work/out/clocks.before" ] || fail "the dry run"; }
# Which mode is without a bound: a Nano Super's has another number than an AGX Orin's, and where none is named so, it is said.
dry_run
grep -q "would run: nvpmodel -m 0$" "$work/said" && grep -q "no mode whose name begins with MAXN" "$work/said" || fail "expected mode 0, and why"
mkdir -p "$root/etc"
printf '< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=MODE_15W >\n' >"$root/etc/nvpmodel.conf"
dry_run
grep -q "would run: nvpmodel -m 0$" "$work/said" && ! grep -q "no mode whose" "$work/said" || fail "expected mode 0 by its name"
printf '# modes\n< POWER_MODEL ID=%s >\n' '0 NAME=15W' '1 NAME=25W' '2 NAME=MAXN_SUPER' '3 NAME=7W' >"$root/etc/nvpmodel.conf"
echo '< PM_CONFIG DEFAULT=1 >' >>"$root/etc/nvpmodel.conf"
dry_run
for words in "nvpmodel -m 2$" "sched-sim --json" "fault-sim --row 31" "demo --headless" "tests/hw/nvmm.sh" "cargo bench --bench governor" \
  "jetson_clocks" "engine build .*bench-fp32" "engine build .*bench-fp16" "engine build .*bench-int8" "engine tensorrt .*seconds 300" "seconds 30 --bare-loop" "rt-bench --seconds 60 --hz 1000"; do
  grep -q "would run: .*$words" "$work/said" || fail "expected \"$words\""
done
# Deployments to measure a bundle in: written, and taken by the program; what has no joints to move is refused.
deployment() { python3 tests/hw/deployment.py "tests/families/$1" "$work/$1" --engine cpu >"$work/said" 2>&1; }
for family in act smolvla pi0 diffusion; do
  deployment $family || fail "a deployment of $family"
  [ -z "${1:-}" ] || "$1" check --config "$work/$family/tendon.toml" >"$work/said" 2>&1 || fail "expected a deployment of $family that fits it"
done
! deployment planner && grep -q "expected a policy of joints' targets" "$work/said" || fail "expected a refusal of a policy without joints"
[ -n "${1:-}" ] || { echo "refusals and dry run: good; no tendon named for the whole of it"; exit; }
[ "$(id -u)" = 0 ] || { echo "skipped: refusals and dry run are good; the whole of it needs root"; exit 77; }
printf '#!/bin/sh\necho "trtexec $*" >>%s/calls\nexit 0\n' "$work" >"$bin/trtexec"
# Clocks as NVIDIA's script has them: over a file that exists it asks, and stops without an answer; without one there is nothing to restore.
echo free >"$work/clocks"
cat >"$bin/jetson_clocks" <<END
#!/bin/sh
echo "jetson_clocks \$*" >>$work/calls
case "\$1" in
--store)
  if [ -e "\$2" ]; then
    echo "File \$2 already exists. Can I overwrite it? Y/N:"
    read -r answer
    case \$answer in y | Y) ;; *) echo "Error: file \$2 already exists!"; exit 1 ;; esac
  fi
  cp $work/clocks "\$2"
  ;;
--restore)
  [ -z "\$STUCK" ] || { echo "Error: no clocks today"; exit 1; }
  [ -e "\$2" ] || { echo "Error: \$2 file not found !"; exit 1; }
  cp "\$2" $work/clocks
  ;;
--show) cat $work/clocks ;;
"") echo pinned >$work/clocks ;;
esac
END
# In mode 1 at first. Asked for 2 with STUBBORN set it wants to start the machine anew, and without an answer changes nothing.
echo 1 >"$work/mode"
cat >"$bin/nvpmodel" <<END
#!/bin/sh
echo "nvpmodel \$*" >>$work/calls
if [ "\$1" = -q ]; then
  [ "\$(cat $work/mode)" = 2 ] && echo "NV Power Mode: MAXN_SUPER" || echo "NV Power Mode: 25W"
  exec cat $work/mode
fi
if [ -n "\$STUBBORN" ] && [ "\$2" = 2 ]; then
  echo "Reboot required for changing to this power mode: YES/yes?"
  read -r answer && sleep 600
  exit 1
fi
echo "\$2" >$work/mode
END
cat >"$bin/tendon" <<END
#!/usr/bin/env bash
if [ "\$1" = engine ]; then
  case \$4 in *"/\${MISSES:-none}/"*) echo "  parity: expected a cosine of 0.9999, found 0.7" >&2; exit 1 ;; esac
  exit
fi
[ "\$1" = demo ] && { echo "no episode today" >&2; exit 1; }
# The processor has no numbers of 16 bits.
[ "\$1" = check ] && sed -i -e 's/engines = \["tensorrt"\]/engines = ["cpu"]/' -e 's/precision = "fp16"/precision = "fp32"/' "\$3"
words=("\$@")
bare=
for at in "\${!words[@]}"; do
  case \${words[\$at]} in tensorrt) words[\$at]=cpu ;; 60 | 130) words[\$at]=1 ;; --bare-loop) bare=1; unset "words[\$at]" ;; esac
done
[ -n "\$bare" ] || exec "$(readlink -f "$1")" "\${words[@]}"
"$(readlink -f "$1")" "\${words[@]}" | python3 -c 'import json, os, sys
report, beyond = json.load(sys.stdin), float(os.environ["BEYOND"])
report["bare_loop"] = {"graph_replay": report["whole"], "input_update_and_graph": report["whole"], "overhead_us": beyond, "overhead_budget_us": 60.0, "within_budget": beyond <= 60}
json.dump(report, sys.stdout)
sys.exit(beyond > 60)'
END
cat >"$rust/cargo" <<'END'
#!/bin/sh
case "$*" in
*governor*) echo "  7 Synchronised chase: 3.10 4.20 9.90" ;;
*isolation*) echo "chunk 16x6              time:   [2.0 us 2.1 us 2.2 us]" ;;
esac
END
# The user alice has Rust; root has none where PATH is $bin:$bare.
home=$work/home/alice
mkdir -p "$home/.cargo/bin"
printf '#!/bin/sh\necho "cargo $* with $RUSTUP_HOME to $CARGO_TARGET_DIR" >>%s/calls\n' "$work" >"$home/.cargo/bin/cargo"
printf '#!/bin/sh\n[ "$*" = "passwd alice" ] && echo "alice:x:1000:1000::%s:/bin/sh"\n' "$home" >"$bin/getent"
bare=$work/bare
mkdir "$bare"
IFS=: read -ra folders <<<"$PATH"
for folder in "${folders[@]}"; do ln -s "$folder"/* "$bare/" 2>/dev/null || true; done
rm -f "$bare/cargo"
chmod +x "$bin"/* "$rust"/* "$home"/.cargo/bin/*
# whole BEYOND [VARIABLE=VALUE...]: with nobody there to answer a question.
whole() {
  local beyond=$1
  shift
  : >"$work/calls"
  env -u SUDO_USER "BEYOND=$beyond" "PATH=$bin:$rust:$PATH" "TENDON=$bin/tendon" TENDON_SECONDS=3 "OUT=$work/out" "TENDON_SYSROOT=$root" "$@" \
    tests/hw/orin.sh >"$work/said" 2>&1 </dev/null
}
# ends CODE WORDS BEYOND [VARIABLE=VALUE...]
ends() {
  local wanted=$1 words=$2 code=0
  shift 2
  whole "$@" || code=$?
  [ $code = "$wanted" ] && grep -q "$words" "$work/said" || fail "expected \"$words\" and an end with $wanted, found $code"
}
# Nothing to build with and nothing built: said before any clock is touched.
ends 77 "expected cargo in root's PATH, or a built tendon in TENDON" 41 "PATH=$bin:$bare" TENDON=
ends 77 "expected a program in TENDON, found none that can be run at $work/nowhere" 41 "TENDON=$work/nowhere"
! grep -q jetson_clocks "$work/calls" || fail "expected clocks as they were"
# A run that was killed left its clocks pinned, and the file that says what they were. Where they cannot be given back nothing is touched.
echo pinned >"$work/clocks"
echo free >"$work/out/clocks.before"
ends 77 "expected clocks that an earlier run did not give back to be restored" 41 STUCK=1
[ "$(cat "$work/out/clocks.before")" = free ] && ! grep -q -e "--store" -e "nvpmodel -m" "$work/calls" || fail "expected the record of the clocks to stay"
# Under sudo the user's Rust builds, into a folder of its own, before any clock is touched. A mode that needs a new start of the machine
# is left, and said. What the killed run had pinned is given back first.
ends 77 "expected power mode 2 (MAXN_SUPER), found NV Power Mode: 25W 1 : .*start the machine anew" 41 "PATH=$bin:$bare" TENDON= SUDO_USER=alice STUBBORN=1
[ "$(head -1 "$work/calls")" = "cargo build --release with $home/.rustup to $work/out/cargo" ] || fail "expected the user's Rust first, found $(head -1 "$work/calls")"
[ "$(grep -o -e "--restore" -e "--store" "$work/calls" | tr '\n' ' ')" = "--restore --store --restore " ] || fail "expected clocks given back, kept, and given back"
[ ! -e "$work/out/clocks.before" ] && [ "$(cat "$work/clocks")" = free ] || fail "expected the clocks of before the killed run, and no record of any"
# The whole of it, where numbers have a decimal comma, if such a place can be made here. It is another run in this folder: the clocks
# that it keeps and gives back are those that it found, not the first one's.
echo found >"$work/clocks"
comma=()
mkdir "$work/locales"
if localedef --quiet -i de_DE -f UTF-8 "$work/locales/de_DE.utf8" 2>/dev/null; then comma=("LOCPATH=$work/locales" LC_ALL=de_DE.utf8); fi
whole 41 ${comma[@]+"${comma[@]}"} || fail "the whole"
# 5 V and 2 A are 10 W; the mode that was is back.
for precision in fp32 fp16 int8; do
  grep -q "^| bench_vla [0-9a-f]*, bench-$precision | MAXN_SUPER (2) |.*| 41 of 60 | 10.0 |.*| 45 -> 45 |" "$work/out/table.md" || fail "the table's row of $precision"
done
grep -q "nvpmodel -m 2" "$work/calls" && [ "$(cat "$work/mode")" = 1 ] || fail "the power mode"
grep -q "^pinned" "$work/out/machine.txt" && [ "$(cat "$work/clocks")" = found ] && [ ! -e "$work/out/clocks.before" ] || fail "the clocks: expected them pinned, then as found, found $(cat "$work/clocks")"
cat "$work/out/table.md" "$work/out/around.md"
# Each row is there: with a figure, or with the reason why not.
row() { grep -q "^| $1 |.*$2" "$work/out/around.md" || fail "the row \"$1\", expected \"$2\""; }
row "overhead over the engine.*" "bench-fp16 [0-9.]* ms p99; bench-fp32 [0-9.]* ms p99; bench-int8"
row "overhead over graph replay.*" "bench-fp32 +0.041 ms p50"
row "camera handed over to CUDA" "not measured: ended with 77: tests/hw/nvmm.sh (skipped: expected a Jetson"
row "frame to command.*" "not measured: ended with 1: .*demo --headless .*(no episode today)"
row "seam of chunks" "[0-9] rad/s2 at most, 0 ms stalled"
row "lateness of the control loop" "idle [0-9./ ]* us, GPU busy [0-9./ ]* us.*at 1000 Hz"
row "zenoh hop.*" "[0-9] us p50 / p99"
row "between inference.*" "chunk 16x6 2.1 us"
row "governor, a command" "3.10 / 4.20 / 9.90 us"
row "halt after.*" "15 ms after the last command (simulated"
row "cold start.*" "bench-fp32 [0-9.]* s; bench-int8 [0-9.]* s"
row "reaction.*" "[0-9] ms with inference 150 ms late"
[ "$(grep -c '^|' "$work/out/around.md")" = 15 ] || fail "expected 13 rows"
# On a Jetson the row of the camera has what nvmm.sh prints.
rm "$work/out/nvmm.skipped"
for way in "in NVMM" "ordinary memory"; do
  echo "$way: 1 cameras, 600 good of 600 due, 0 refused, processor 3 % of one core, capture to hand-over p50 9.05 p99 9.11 max 9.30 ms"
  for p99 in 0.310 0.110; do
    echo "$way: from the sample on p50 0.050 p99 $p99 ms, beyond having one that waits p50 0.010 p99 0.020 ms, 200 pictures 640x480, priority 45"
  done
done >"$work/out/nvmm.txt"
python3 tests/hw/around.py "$work/out" >"$work/said"
row "camera handed over to CUDA" "NVMM p50 0.050 p99 0.110 ms; ordinary memory p50 0.050 p99 0.110 ms (from the sample at the sink to inference's mailbox) |"
# One that missed its bound has its figures, and says so.
echo "ended with 101: tests/hw/nvmm.sh" >"$work/out/nvmm.skipped"
python3 tests/hw/around.py "$work/out" >"$work/said"
row "camera handed over to CUDA" "NVMM p50 0.050 p99 0.110 ms; .*; FAILED: ended with 101"
rm "$work/out/nvmm.skipped"
# The models that others published of: measured only by a deployment of their family, of their size, on their board.
model() { grep -qF "| $1 |" "$work/out/models.md" && grep -F "| $1 |" "$work/out/models.md" | grep "$2" >/dev/null || fail "the model \"$1\", expected \"$2\""; }
[ "$(grep -c 'not measured: no deployment of it was given' "$work/out/models.md")" = 12 ] || fail "expected 12 models, none of them measured"
made() { printf '{"name": "%s", "family": "smolvla", "bytes": %s, "mode": "MAXN_SUPER (2)", "p50_ms": 90, "p95_ms": 91, "p99_ms": 92}\n' "$1" "$2" >"$work/out/$1.row.json"; }
made small 400000
made large 1600000000
python3 tests/hw/table.py "$work/out" models "NVIDIA Jetson Orin Nano Super" >"$work/said"
model "SmolVLA 450M, Orin Nano Super" "large: 90.00 p50, 91.00 p95, 92.00 ms p99 (MAXN_SUPER (2)); not measured: small has 0.4 MB"
model "SmolVLA, AGX Orin" "not measured: this is NVIDIA Jetson Orin Nano Super"
model "ACT, Orin" "not measured: no deployment of it was given"
# One engine that misses its fixture, loops beyond their budget, no Rust: each has its words, and everything else is measured all the same.
ends 1 "FAILED: more than 2 % or 60 us beyond the bare loop: bench-fp32 bench-int8$" 61 "PATH=$bin:$bare" MISSES=bench-fp16
why="tendon engine build ended with 1: parity: expected a cosine of 0.9999, found 0.7"
grep -q "^FAILED: bench-fp16: tendon engine build ended with 1: .*parity: expected a cosine" "$work/said" || fail "expected the engine that missed its fixture"
grep -q "^| bench_vla [0-9a-f]*, bench-fp16 | MAXN_SUPER (2) | not measured: $why |" "$work/out/table.md" || fail "the table's row of what failed"
for precision in fp32 int8; do
  grep -q "^| bench_vla [0-9a-f]*, bench-$precision | MAXN_SUPER (2) |.*| 61 of 60 | 10.0 |" "$work/out/table.md" || fail "the table's row of $precision"
done
row "overhead over graph replay.*" "bench-fp32 +0.061 ms p50; bench-int8 +0.061 ms p50; bench-fp16 not measured: $why"
row "cold start.*" "bench-int8 [0-9.]* s; bench-fp16 not measured: $why"
row "lateness of the control loop" "GPU busy [0-9./ ]* us"
row "governor, a command" "not measured: no cargo in PATH, for: cargo bench --bench governor"
[ "$(cat "$work/mode")" = 1 ] || fail "the power mode after a failure"
[ ${#comma[@]} -gt 0 ] || echo "skipped: decimal commas: localedef could make no de_DE here"
echo "refusals, dry run and the whole over stand-ins: good"
