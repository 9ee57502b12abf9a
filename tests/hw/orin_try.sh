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
OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh --dry-run >"$work/said" 2>&1 || fail "the dry run"
for words in "jetson_clocks" "engine build .*bench-fp32" "engine build .*bench-int8" "engine tensorrt .*seconds 300" "seconds 30 --bare-loop" "rt-bench --seconds 60"; do
  grep -q "would run: .*$words" "$work/said" || fail "expected \"$words\""
done
[ -n "${1:-}" ] && [ "$(id -u)" = 0 ] || { echo "refusals and dry run: good; skipped: the whole of it needs a tendon, and root"; exit; }
for tool in jetson_clocks nvpmodel trtexec; do
  printf '#!/bin/sh\necho "%s $*" >>%s/calls\n[ "$1" = -q ] && echo 2\nexit 0\n' $tool "$work" >"$bin/$tool"
done
cat >"$bin/tendon" <<END
#!/usr/bin/env bash
[ "\$1" = engine ] && exit
[ "\$1" = check ] && sed -i 's/engines = \["tensorrt"\]/engines = ["cpu"]/' "\$3"
words=("\$@")
bare=
for at in "\${!words[@]}"; do
  case \${words[\$at]} in tensorrt) words[\$at]=cpu ;; 60 | 70) words[\$at]=1 ;; --bare-loop) bare=1; unset "words[\$at]" ;; esac
done
[ -n "\$bare" ] || exec "$(readlink -f "$1")" "\${words[@]}"
"$(readlink -f "$1")" "\${words[@]}" | python3 -c 'import json, os, sys
report, beyond = json.load(sys.stdin), float(os.environ["BEYOND"])
report["bare_loop"] = {"graph_replay": report["whole"], "input_update_and_graph": report["whole"], "overhead_us": beyond, "overhead_budget_us": 60.0}
json.dump(report, sys.stdout)
sys.exit(beyond > 60)'
END
chmod +x "$bin"/*
whole() { BEYOND=$1 PATH=$bin:$PATH TENDON=$bin/tendon TENDON_SECONDS=3 OUT=$work/out TENDON_SYSROOT=$root tests/hw/orin.sh >"$work/said" 2>&1; }
whole 41 || fail "the whole"
# 5 V and 2 A are 10 W; the mode that was is back.
for precision in fp32 int8; do
  grep -q "^| bench_vla [0-9a-f]*, bench-$precision |.*| 41 of 60 | 10.0 |.*| 45 -> 45 |" "$work/out/table.md" || fail "the table's row of $precision"
done
grep -q "nvpmodel -m 0" "$work/calls" && tail -1 "$work/calls" | grep -q "nvpmodel -m 2" || fail "the power mode"
cat "$work/out/table.md"
code=0
whole 61 || code=$?
[ $code = 1 ] && grep -q "FAILED: more than 2 % or 60 us beyond the bare loop: bench-fp32 bench-int8" "$work/said" || fail "expected the end of a loop that is missed, found $code"
echo "refusals, dry run and the whole over stand-ins: good"
