#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a Jetson Orin: what a policy takes there, with pinned clocks, for 300 seconds, with energy and temperature.
#   tests/hw/orin.sh [--dry-run] [tendon.toml ...]       without one: the bench's deployment
# Needs root (clocks), the full TensorRT and trtexec of JetPack, and Rust (root's, or that of the user who calls sudo) or a tendon in
# TENDON; without Rust the rows that need it say so. Of each deployment: engine built, proven by its fixture, then `tendon policy bench`
# on TensorRT for TENDON_SECONDS (300): p50, p95, p99, p99.9, max, each quarter of the time by itself, what lies outside of the engine;
# power and temperatures twice a second beside it; then up to 30 s in turns with a bare loop on the same engines. Where one of these
# fails, the deployment's row says why, and the next one's turn comes. Without a deployment: the bench's, in every precision that its
# bundle has; others: docs/engines.md. Then the rows around the engine: lateness of the control loop at 1 kHz idle and with the GPU busy,
# hop, a camera's hand-over (nvmm.sh), seams, frame to command, halt, the governor, cold start; a row says so where its command is
# missing or fails. Everything goes to OUT (target/orin): one JSON and one CSV a deployment, table.md, around.md, whose rows stand beside
# the best published figures, and models.md: every model of which somebody published a figure on an Orin, measured or not. The power
# mode is the one whose name begins with MAXN, and stands in the table; mode and clocks are given back at the end.
# Ends with 77, and says why, on anything that is not an Orin; with 1, once everything else is done, if a deployment could not be measured
# or an observation takes more than 2 % or 60 us beyond its bare loop.
set -euo pipefail
# Numbers with a decimal point, whatever is set around.
export LC_ALL=C
dry=
[ "${1:-}" = --dry-run ] && { dry=1; shift; }
from=$PWD
absolute() { case $1 in /*) echo "$1" ;; *) echo "$from/$1" ;; esac; }
configs=()
for config; do configs+=("$(absolute "$config")"); done
tendon=${TENDON:-}
case $tendon in */*) tendon=$(absolute "$tendon") ;; esac
cd "$(dirname "$0")/../.."
root=${TENDON_SYSROOT:-}   # where /proc and /sys are, for trying this script out
seconds=${TENDON_SECONDS:-300}
OUT=${OUT:-target/orin}
case $OUT in /*) ;; *) OUT=$PWD/$OUT ;; esac
refuse() { echo "refused: $1" >&2; exit 77; }
say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
do_it() { if [ -n "$dry" ]; then printf 'would run: %s\n' "$*" >&2; else "$@"; fi; }

# What machine is it? Only an Orin: its figures are compared with an Orin's.
compatible=$root/proc/device-tree/compatible
[ -r "$compatible" ] || refuse "expected a Jetson Orin, found $(uname -m) without $compatible"
grep -qa tegra234 "$compatible" || refuse "expected a Jetson Orin (nvidia,tegra234), found $(tr '\0' ' ' <"$compatible")"
model=$(cat "$root/proc/device-tree/model" 2>/dev/null | tr -d '\0' || true)
for config in ${configs[@]+"${configs[@]}"}; do [ -r "$config" ] || refuse "expected a deployment, found no file $config"; done
# Under sudo, Rust is where the user who called it has it. What root builds with it goes to a folder of its own: beside the user's
# outputs it would be in the way of the user's next build.
if ! command -v cargo >/dev/null && [ -n "${SUDO_USER:-}" ]; then
  home=$(getent passwd "$SUDO_USER" | cut -d: -f6 || true)
  if [ -n "$home" ] && [ -x "$home/.cargo/bin/cargo" ]; then
    export PATH=$PATH:$home/.cargo/bin RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$OUT/cargo}
  fi
fi
if [ -z "$dry" ]; then
  [ "$(id -u)" = 0 ] || refuse "expected root: clocks and power mode can be pinned by root only"
  for tool in jetson_clocks nvpmodel python3; do command -v "$tool" >/dev/null || refuse "expected $tool of JetPack, found none in PATH"; done
  command -v trtexec >/dev/null || [ -x /usr/src/tensorrt/bin/trtexec ] || refuse "expected trtexec (package libnvinfer-bin), found none"
  if [ -n "$tendon" ]; then
    command -v "$tendon" >/dev/null || refuse "expected a program in TENDON, found none that can be run at $tendon"
  else
    command -v cargo >/dev/null ||
      refuse "expected cargo in root's PATH${SUDO_USER:+ or in ~$SUDO_USER/.cargo/bin}, or a built tendon in TENDON (sudo env TENDON=target/release/tendon tests/hw/orin.sh), found neither"
  fi
fi

# Power: the rails of the INA3221 by their labels. The whole board is VDD_IN on Orin NX and Nano; on AGX Orin the sum of its rails.
rails=() sampler=(python3 tests/hw/watch.py)
for label in "$root"/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label; do
  [ -r "$label" ] || continue
  name=$(cat "$label"); base=${label%/*}; number=${label##*/in}; number=${number%_label}
  rail=(--rail "$base/in${number}_input" "$base/curr${number}_input")
  case $name in
    VDD_IN) rails=("$name") sampler=(python3 tests/hw/watch.py "${rail[@]}"); break ;;
    VDD_GPU_SOC | VDD_CPU_CV | VIN_SYS_5V0 | VDDQ_VDD2_1V8AO) rails+=("$name") sampler+=("${rail[@]}") ;;
  esac
done
[ ${#rails[@]} -gt 0 ] || refuse "expected an INA3221 under $root/sys/bus/i2c/drivers/ina3221 with VDD_IN or VDD_GPU_SOC and its like, found none"
zones=0
for zone in "$root"/sys/class/thermal/thermal_zone*; do [ ! -r "$zone/type" ] || { zones=$((zones + 1)); sampler+=(--zone "$zone/temp"); }; done
[ "$zones" -gt 0 ] || refuse "expected thermal zones under $root/sys/class/thermal, found none"
gpu_clock=$(ls "$root"/sys/class/devfreq/*gpu*/cur_freq "$root"/sys/class/devfreq/*.ga10b/cur_freq 2>/dev/null | head -1 || true)
[ -z "$gpu_clock" ] || sampler+=(--clock "$gpu_clock")

# Before any clock is touched: a build that fails leaves nothing behind.
if [ -z "$tendon" ]; then
  say "programs"
  do_it cargo build --release
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
fi

mkdir -p "$OUT"
# A dry run takes nothing away of what was measured.
machine=/dev/null
[ -n "$dry" ] || { machine=$OUT/machine.txt; rm -f "$OUT"/{table,around,models}.md "$OUT"/*.row.json; }
say "machine"
{
  echo "${model:-unknown model}"
  cat "$root/etc/nv_tegra_release" 2>/dev/null || true
  echo "power: ${rails[*]}, now $("${sampler[@]}" --once) (mW, thousandths of a degree, Hz)"
} | tee "$machine"

# The mode without a bound on power has another number on each module: 0 is 15 W on an Orin Nano Super.
say "clocks"
mode=$(nvpmodel -q 2>/dev/null </dev/null | tail -1 || echo "?")
wanted_mode=$(sed -n 's/^< *POWER_MODEL *ID=\([0-9]*\) *NAME=\(MAXN[^ >]*\).*/\2 \1/p' "$root/etc/nvpmodel.conf" 2>/dev/null | sort | tail -1 || true)
mode_name=${wanted_mode% *} wanted_mode=${wanted_mode##* }
if [ -z "$wanted_mode" ]; then
  echo "no mode whose name begins with MAXN in $root/etc/nvpmodel.conf: mode 0 is taken"
  wanted_mode=0
fi
back() {
  [ -n "${watcher:-}" ] && kill "$watcher" 2>/dev/null || true
  [ -n "${load:-}" ] && kill "$load" 2>/dev/null || true
  [ -z "$dry" ] || return 0
  [ ! -e "$clocks" ] || give_back || echo "FAILED: the clocks are not given back: jetson_clocks --restore $clocks fails; another run tries again" >&2
  [ "$mode" = "?" ] || nvpmodel -m "$mode" </dev/null || true
}
# The file is the only record of the clocks that were: it goes when they are back, so that one that is there is of a run that was killed.
clocks=$OUT/clocks.before
give_back() { jetson_clocks --restore "$clocks" && rm -f "$clocks"; }
if [ -z "$dry" ] && [ -e "$clocks" ]; then
  echo "an earlier run did not end: its clocks are given back first, from $clocks"
  give_back || refuse "expected clocks that an earlier run did not give back to be restored from $clocks, found that jetson_clocks --restore fails: start the machine anew, which gives them back too, remove the file, then again"
fi
trap back EXIT
do_it jetson_clocks --store "$clocks"
# Between some modes it asks whether to start the machine anew; without an answer it leaves the mode as it was.
do_it nvpmodel -m "$wanted_mode" </dev/null || true
if [ -z "$dry" ]; then
  found_mode=$(nvpmodel -q </dev/null)
  [ "$(tail -1 <<<"$found_mode")" = "$wanted_mode" ] ||
    refuse "expected power mode $wanted_mode${mode_name:+ ($mode_name)}, found $(tr '\n' ' ' <<<"$found_mode"): nvpmodel -m $wanted_mode, start the machine anew, then again"
  mode_name=$(sed -n 's/^NV Power Mode: *//p' <<<"$found_mode" | head -1)
fi
mode_name="${mode_name:-?} ($wanted_mode)"
do_it jetson_clocks
[ -n "$dry" ] || { echo "power mode: $mode_name"; jetson_clocks --show; } | tee -a "$machine"

if [ ${#configs[@]} = 0 ]; then
  precisions=$(python3 -c 'import json; print(*json.load(open("engines/bench-vla/manifest.json"))["tendon"]["stages"][0]["onnx"])')
  for precision in $precisions; do
    folder=$OUT/bench-$precision
    mkdir -p "$folder"
    cp deploy/bench/robot.* "$folder/"
    sed -e "s|../../engines|$PWD/engines|" -e "s|^precision = .*|precision = \"$precision\"\nengines = [\"tensorrt\"]\nengine_cache = \"cache\"|" \
      deploy/bench/tendon.toml >"$folder/tendon.toml"
    configs+=("$folder/tendon.toml")
  done
fi

# step WHAT FILE COMMAND...: its output into FILE ("": here), its errors here and kept; where it fails `why` says so with its last words.
step() {
  local what=$1 file=$2 code=0
  shift 2
  if [ -n "$dry" ]; then do_it "$@"; return; fi
  if [ -n "$file" ]; then exec 3>"$file"; else exec 3>&1; fi
  "$@" 2>&1 >&3 3>&- | tee "$OUT/$name.err" >&2 || code=$?
  exec 3>&-
  [ "$code" != 0 ] || return 0
  why="$what ended with $code: $(tail -1 "$OUT/$name.err")"
  return 1
}
bare_seconds=$((seconds < 30 ? seconds : 30))
missed=() failed=() busy=()
# One deployment, from its engine to its line of the table. False at the first thing that fails, with `why`. Called where a failure is
# looked at, so that errexit is off in it: each step is looked at by itself.
measure() {
  say "$name: engine, proven by its fixture"
  step "tendon engine build" "" "$tendon" engine build --config "$config" || return
  step "tendon check" "" "$tendon" check --config "$config" || return
  say "$name: cold start with the engine in its cache"
  [ -n "$dry" ] || { sync; [ ! -w "$root/proc/sys/vm/drop_caches" ] || echo 3 >"$root/proc/sys/vm/drop_caches"; }
  local began_us=${EPOCHREALTIME/./} took_us cold
  step "tendon check once more" /dev/null "$tendon" check --config "$config" || return
  took_us=$((${EPOCHREALTIME/./} - began_us))
  cold=$(printf '%d.%02d' $((took_us / 1000000)) $((took_us / 10000 % 100)))
  say "$name: $seconds s"
  local bench=("$tendon" policy bench "$bundle" --engine tensorrt --config "$config")
  if [ -n "$dry" ]; then
    do_it "${bench[@]}" --seconds "$seconds" --json
    do_it "${bench[@]}" --seconds "$bare_seconds" --bare-loop --json
    return
  fi
  echo "$cold" >"$OUT/$name.cold.txt"
  nice -n 10 "${sampler[@]}" "$OUT/$name.csv" &
  watcher=$!
  local code=0
  step "tendon policy bench" "$OUT/$name.json" "${bench[@]}" --seconds "$seconds" --json || code=$?
  kill "$watcher" 2>/dev/null
  wait "$watcher" 2>/dev/null
  watcher=
  [ "$code" = 0 ] || return
  # Apart from the long run, whose energy is an observation's and nobody else's. Beyond its budget it ends with 1, and its report is there.
  if ! step "tendon policy bench --bare-loop" "$OUT/$name.bare.json" "${bench[@]}" --seconds "$bare_seconds" --bare-loop --json; then
    if python3 -c 'import json, sys; assert not json.load(open(sys.argv[1]))["bare_loop"]["within_budget"]' "$OUT/$name.bare.json" 2>/dev/null; then
      missed+=("$name")
    else
      echo "$why" >"$OUT/$name.bare.skipped"
      rm -f "$OUT/$name.bare.json"
      failed+=("$name: $why")
    fi
  fi
  step "tests/hw/table.py" "" python3 tests/hw/table.py "$OUT" row "$name" "$bundle" "$mode_name" "$cold"
}
for config in "${configs[@]}"; do
  name=$(basename "$(dirname "$(readlink -f "$config")")")
  bundle=$(sed -n 's/^bundle *= *"\(.*\)"/\1/p' "$config" | head -1)
  case $bundle in /*) ;; *) bundle=$(dirname "$config")/$bundle ;; esac
  [ -n "$dry" ] || rm -f "$OUT/$name".{json,bare.json,csv,cold.txt,skipped,bare.skipped,cold.skipped}
  why="not known"
  if measure; then
    busy=("$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds 130 --json)
    continue
  fi
  echo "FAILED: $name: $why" >&2
  failed+=("$name: $why")
  rm -f "$OUT/$name".{json,bare.json}
  for each in "" .bare; do echo "$why" >"$OUT/$name$each.skipped"; done
  [ -e "$OUT/$name.cold.txt" ] || echo "$why" >"$OUT/$name.cold.skipped"
  python3 tests/hw/table.py "$OUT" missed "$name" "$bundle" "$mode_name" "$why"
done

say "around the engine"
# around FILE COMMAND...: what it says, into FILE; where there is no such command, or it fails, a file beside it says so.
around() {
  local file=$1 code=0 words
  shift
  words=$OUT/${file%.*}
  rm -f "$OUT/$file" "$words.skipped"
  if [ -n "$dry" ]; then do_it "$@"; return; fi
  echo "$*"
  if ! command -v "$1" >/dev/null; then
    echo "no $1 in PATH, for: $*" >"$words.skipped"
    return
  fi
  "$@" >"$OUT/$file" 2>"$words.err" </dev/null || code=$?
  [ $code = 0 ] || echo "ended with $code: $* ($(cat "$OUT/$file" "$words.err" | tail -1))" >"$words.skipped"
}
around rt-idle.json "$tendon" rt-bench --seconds 60 --hz 1000 --json
if [ ${#busy[@]} = 0 ]; then
  rm -f "$OUT/rt-busy.json"
  echo "no deployment could be measured, so that nothing kept the GPU busy" >"$OUT/rt-busy.skipped"
elif [ -n "$dry" ]; then
  do_it "${busy[@]}"
  around rt-busy.json "$tendon" rt-bench --seconds 60 --hz 1000 --json
else
  # Both of its phases, and some time to begin.
  "${busy[@]}" >/dev/null &
  load=$!
  sleep 5
  around rt-busy.json "$tendon" rt-bench --seconds 60 --hz 1000 --json
  code=0
  wait "$load" || code=$?
  load=
  if [ "$code" != 0 ]; then
    rm -f "$OUT/rt-busy.json"
    echo "what was to keep the GPU busy ended with $code: ${busy[*]}" >"$OUT/rt-busy.skipped"
  fi
fi
around sched-sim.json "$tendon" sched-sim --json
around fault-sim.json "$tendon" fault-sim --row 31 --json
around demo.json "$tendon" demo --headless --episodes 20 --seed 7 --json
around nvmm.txt tests/hw/nvmm.sh
around governor.txt cargo bench --bench governor
around isolation.txt cargo bench --bench isolation
if [ -z "$dry" ]; then
  python3 tests/hw/around.py "$OUT" >/dev/null
  python3 tests/hw/table.py "$OUT" models "${model:-an unknown board}" >/dev/null
  for table in table around models; do [ ! -r "$OUT/$table.md" ] || { echo; cat "$OUT/$table.md"; }; done
fi
say "done: $OUT"
for each in ${failed[@]+"${failed[@]}"}; do echo "FAILED: $each" >&2; done
[ ${#missed[@]} = 0 ] || echo "FAILED: more than 2 % or 60 us beyond the bare loop: ${missed[*]}" >&2
[ ${#failed[@]} = 0 ] && [ ${#missed[@]} = 0 ]
