#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries orin.sh where there is no Orin: that it refuses in words, what it would do, and the whole of it over a made /sys with
# stand-ins for JetPack's tools and the policy on the processor. Its figures mean nothing.
#   tests/hw/orin_try.sh [tendon]       a built tendon; without one the last part is left out
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root bin=$work/bin
mkdir -p "$root/proc/device-tree" "$bin"
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
dry_run() { OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh --dry-run >"$work/said" 2>&1 || fail "the dry run"; }
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
[ -n "${1:-}" ] && [ "$(id -u)" = 0 ] || { echo "refusals and dry run: good; skipped: the whole of it needs a tendon, and root"; exit; }
for tool in jetson_clocks trtexec; do
  printf '#!/bin/sh\necho "%s $*" >>%s/calls\nexit 0\n' $tool "$work" >"$bin/$tool"
done
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
[ "\$1" = engine ] && exit
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
report["bare_loop"] = {"graph_replay": report["whole"], "input_update_and_graph": report["whole"], "overhead_us": beyond, "overhead_budget_us": 60.0}
json.dump(report, sys.stdout)
sys.exit(beyond > 60)'
END
cat >"$bin/cargo" <<'END'
#!/bin/sh
case "$*" in
*governor*) echo "  7 Synchronised chase: 3.10 4.20 9.90" ;;
*isolation*) echo "chunk 16x6              time:   [2.0 us 2.1 us 2.2 us]" ;;
esac
END
chmod +x "$bin"/*
whole() { BEYOND=$1 PATH=$bin:$PATH TENDON=$bin/tendon TENDON_SECONDS=3 OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh >"$work/said" 2>&1; }
whole 41 || fail "the whole"
# 5 V and 2 A are 10 W; the mode that was is back.
for precision in fp32 fp16 int8; do
  grep -q "^| bench_vla [0-9a-f]*, bench-$precision | MAXN_SUPER (2) |.*| 41 of 60 | 10.0 |.*| 45 -> 45 |" "$work/out/table.md" || fail "the table's row of $precision"
done
grep -q "nvpmodel -m 2" "$work/calls" && [ "$(cat "$work/mode")" = 1 ] || fail "the power mode"
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
  echo "$way: 1 cameras, 600 good of 600 due, 0 refused, processor 3 % of one core, capture to hand-over p50 0.05 p99 0.11 max 0.30 ms"
done >"$work/out/nvmm.txt"
python3 tests/hw/around.py "$work/out" >"$work/said"
row "camera handed over to CUDA" "NVMM p50 0.05 p99 0.11 ms; ordinary memory p50 0.05"
code=0
whole 61 || code=$?
[ $code = 1 ] && grep -q "FAILED: more than 2 % or 60 us beyond the bare loop: bench-fp32 bench-fp16 bench-int8" "$work/said" || fail "expected the end of a loop that is missed, found $code"
# A mode that needs a new start of the machine is left, and said.
code=0
STUBBORN=1 whole 41 || code=$?
[ $code = 77 ] && grep -q "expected power mode 2 (MAXN_SUPER), found NV Power Mode: 25W 1 : .*start the machine anew" "$work/said" ||
  fail "expected a refusal of the mode, found $code"
echo "refusals, dry run and the whole over stand-ins: good"
