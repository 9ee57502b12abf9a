#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a Jetson Orin: what a policy takes there, with pinned clocks, for 300 seconds, with energy and temperature.
#   tests/hw/orin.sh [--dry-run] [tendon.toml ...]       without one: the bench's deployment
# Needs root (clocks), the full TensorRT and trtexec of JetPack, and Rust or a tendon in TENDON. Of each deployment: engine built,
# proven by its fixture, then `tendon policy bench` on TensorRT for TENDON_SECONDS (300): p50, p95, p99, p99.9, max, each quarter of
# the time by itself, what lies outside of the engine; power and temperatures twice a second beside it; then up to 30 s in turns with a
# bare loop on the same engines. Without a deployment: the bench's, in every precision that its bundle has. Then the rows around the engine:
# lateness of the control loop at 1 kHz idle and with the GPU busy, hop, a camera's hand-over (nvmm.sh), seams, frame to command, halt,
# the governor, cold start; a row says so where its command is missing or fails. Everything goes to OUT (target/orin): one JSON and one
# CSV a deployment, table.md and around.md, whose rows stand beside the best published figures. The power mode is the one whose
# name begins with MAXN, and stands in the table; mode and clocks are given back at the end.
# Ends with 77, and says why, on anything that is not an Orin; with 1 if an observation takes more than 2 % or 60 us beyond its bare loop.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${TENDON_SYSROOT:-}   # where /proc and /sys are, for trying this script out
dry=
[ "${1:-}" = --dry-run ] && { dry=1; shift; }
seconds=${TENDON_SECONDS:-300}
OUT=${OUT:-target/orin}
refuse() { echo "refused: $1" >&2; exit 77; }
say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
do_it() { if [ -n "$dry" ]; then printf 'would run: %s\n' "$*" >&2; else "$@"; fi; }

# What machine is it? Only an Orin: its figures are compared with an Orin's.
compatible=$root/proc/device-tree/compatible
[ -r "$compatible" ] || refuse "expected a Jetson Orin, found $(uname -m) without $compatible"
grep -qa tegra234 "$compatible" || refuse "expected a Jetson Orin (nvidia,tegra234), found $(tr '\0' ' ' <"$compatible")"
model=$(cat "$root/proc/device-tree/model" 2>/dev/null | tr -d '\0' || true)
if [ -z "$dry" ]; then
  [ "$(id -u)" = 0 ] || refuse "expected root: clocks and power mode can be pinned by root only"
  for tool in jetson_clocks nvpmodel python3; do command -v "$tool" >/dev/null || refuse "expected $tool of JetPack, found none in PATH"; done
  command -v trtexec >/dev/null || [ -x /usr/src/tensorrt/bin/trtexec ] || refuse "expected trtexec (package libnvinfer-bin), found none"
fi

# Power: the rails of the INA3221 by their labels. The whole board is VDD_IN on Orin NX and Nano; on AGX Orin the sum of its rails.
rails=()
for label in "$root"/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label; do
  [ -r "$label" ] || continue
  name=$(cat "$label"); base=${label%/*}; number=${label##*/in}; number=${number%_label}
  case $name in
    VDD_IN) rails=("$base $number $name"); break ;;
    VDD_GPU_SOC | VDD_CPU_CV | VIN_SYS_5V0 | VDDQ_VDD2_1V8AO) rails+=("$base $number $name") ;;
  esac
done
[ ${#rails[@]} -gt 0 ] || refuse "expected an INA3221 under $root/sys/bus/i2c/drivers/ina3221 with VDD_IN or VDD_GPU_SOC and its like, found none"
zones=()
for zone in "$root"/sys/class/thermal/thermal_zone*; do [ -r "$zone/type" ] && zones+=("$zone"); done
[ ${#zones[@]} -gt 0 ] || refuse "expected thermal zones under $root/sys/class/thermal, found none"
gpu_clock=$(ls "$root"/sys/class/devfreq/*gpu*/cur_freq "$root"/sys/class/devfreq/*.ga10b/cur_freq 2>/dev/null | head -1 || true)

# Milliwatts of all rails, highest temperature in thousandths of a degree, the GPU's clock in Hz.
sample() {
  local mw=0 hottest=0 rail value
  for rail in "${rails[@]}"; do
    set -- $rail
    mw=$((mw + $(cat "$1/in$2_input") * $(cat "$1/curr$2_input") / 1000))
  done
  for rail in "${zones[@]}"; do
    value=$(cat "$rail/temp" 2>/dev/null || echo 0)
    [ "$value" -gt "$hottest" ] && hottest=$value
  done
  echo "$mw,$hottest,$([ -n "$gpu_clock" ] && cat "$gpu_clock" || echo 0)"
}
watch() {
  echo "seconds,milliwatts,hottest_millidegrees,gpu_hz" >"$1"
  local began=$EPOCHREALTIME
  while :; do
    echo "$(python3 -c "print(f'{$EPOCHREALTIME - $began:.2f}')"),$(sample)" >>"$1"
    sleep 0.5
  done
}

mkdir -p "$OUT"
rm -f "$OUT"/{table,around}.md "$OUT"/*.bare.json
say "machine"
{
  echo "${model:-unknown model}"
  cat "$root/etc/nv_tegra_release" 2>/dev/null || true
  echo "power: $(for rail in "${rails[@]}"; do set -- $rail; printf '%s ' "$3"; done), now $(sample)"
} | tee "$OUT/machine.txt"

# The mode without a bound on power has another number on each module: 0 is 15 W on an Orin Nano Super.
say "clocks"
mode=$(nvpmodel -q 2>/dev/null </dev/null | tail -1 || echo "?")
wanted_mode=$(sed -n 's/^< *POWER_MODEL *ID=\([0-9]*\) *NAME=\(MAXN[^ >]*\).*/\2 \1/p' "$root/etc/nvpmodel.conf" 2>/dev/null | LC_ALL=C sort | tail -1 || true)
mode_name=${wanted_mode% *} wanted_mode=${wanted_mode##* }
if [ -z "$wanted_mode" ]; then
  echo "no mode whose name begins with MAXN in $root/etc/nvpmodel.conf: mode 0 is taken"
  wanted_mode=0
fi
back() {
  [ -n "${watcher:-}" ] && kill "$watcher" 2>/dev/null || true
  [ -n "${load:-}" ] && kill "$load" 2>/dev/null || true
  [ -n "$dry" ] || { jetson_clocks --restore "$OUT/clocks.before" || true; [ "$mode" = "?" ] || nvpmodel -m "$mode" </dev/null || true; }
}
trap back EXIT
do_it jetson_clocks --store "$OUT/clocks.before"
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
[ -n "$dry" ] || { echo "power mode: $mode_name"; jetson_clocks --show; } | tee -a "$OUT/machine.txt"

tendon=${TENDON:-}
if [ -z "$tendon" ]; then
  do_it cargo build --release
  tendon=${CARGO_TARGET_DIR:-target}/release/tendon
fi

if [ $# = 0 ]; then
  for precision in $(python3 -c 'import json; print(*json.load(open("engines/bench-vla/manifest.json"))["tendon"]["stages"][0]["onnx"])'); do
    folder=$OUT/bench-$precision
    mkdir -p "$folder"
    cp deploy/bench/robot.* "$folder/"
    sed -e "s|../../engines|$PWD/engines|" -e "s|^precision = .*|precision = \"$precision\"\nengines = [\"tensorrt\"]\nengine_cache = \"cache\"|" \
      deploy/bench/tendon.toml >"$folder/tendon.toml"
    set -- "$@" "$folder/tendon.toml"
  done
fi

bare_seconds=$((seconds < 30 ? seconds : 30))
missed=()
for config in "$@"; do
  [ -r "$config" ] || refuse "expected a deployment, found no file $config"
  name=$(basename "$(dirname "$(readlink -f "$config")")")
  bundle=$(sed -n 's/^bundle *= *"\(.*\)"/\1/p' "$config" | head -1)
  case $bundle in /*) ;; *) bundle=$(dirname "$config")/$bundle ;; esac
  say "$name: engine, proven by its fixture"
  do_it "$tendon" engine build --config "$config"
  do_it "$tendon" check --config "$config"
  say "$name: cold start with the engine in its cache"
  [ -n "$dry" ] || { sync; [ ! -w "$root/proc/sys/vm/drop_caches" ] || echo 3 >"$root/proc/sys/vm/drop_caches"; }
  began=$EPOCHREALTIME
  do_it "$tendon" check --config "$config" >/dev/null
  cold=$(python3 -c "print(f'{$EPOCHREALTIME - $began:.2f}')")
  echo "$cold" >"$OUT/$name.cold.txt"
  say "$name: $seconds s"
  if [ -n "$dry" ]; then
    do_it "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds "$seconds" --json
    do_it "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds "$bare_seconds" --bare-loop --json
    continue
  fi
  watch "$OUT/$name.csv" &
  watcher=$!
  "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds "$seconds" --json >"$OUT/$name.json"
  kill "$watcher"; wait "$watcher" 2>/dev/null || true; watcher=
  # Apart from the long run, whose energy is an observation's and nobody else's.
  "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds "$bare_seconds" --bare-loop --json >"$OUT/$name.bare.json" || missed+=("$name")
  python3 - "$OUT" "$name" "$cold" "$bundle/manifest.json" "$mode_name" <<'END'
import csv, hashlib, json, pathlib, sys
out, name, cold = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
report = json.loads((out / f"{name}.json").read_text())
bare = json.loads((out / f"{name}.bare.json").read_text())["bare_loop"]
three = lambda times: " / ".join(f"{times[key] / 1000:.2f}" for key in ("p50_us", "p95_us", "p99_us"))
rows = [[float(v) for v in row] for row in list(csv.reader((out / f"{name}.csv").open()))[1:] if len(row) == 4]
quarter = max(1, len(rows) // 4)
mean = lambda part, at: sum(row[at] for row in part) / len(part)
watts, first, last = mean(rows, 1) / 1000, rows[:quarter], rows[-quarter:]
whole, each = report["whole"], [f"{value / 1000:.2f}" for value in report["quarters_p50_us"]]
ms = lambda key: f"{whole[key] / 1000:.2f}"
manifest = hashlib.sha256(pathlib.Path(sys.argv[4]).read_bytes()).hexdigest()[:12]
line = (f"| {report['policy']} {manifest}, {name} | {sys.argv[5]} | {ms('p50_us')} | {ms('p95_us')} | {ms('p99_us')} | {ms('p999_us')} | {ms('max_us')} "
        f"| {report['outside_engine']['p50_us']:.0f} / {report['outside_engine']['p99_us']:.0f} "
        f"| {three(bare['graph_replay'])} | {three(bare['input_update_and_graph'])} | {bare['overhead_us']:.0f} of {bare['overhead_budget_us']:.0f} | {watts:.1f} "
        f"| {watts * report['seconds'] / report['runs'] * 1000:.0f} | {' '.join(each)} "
        f"| {mean(first, 2) / 1000:.0f} -> {mean(last, 2) / 1000:.0f} | {mean(first, 3) / 1e6:.0f} -> {mean(last, 3) / 1e6:.0f} | {cold} |")
table = out / "table.md"
if not table.exists():
    table.write_text("| policy, its manifest's SHA-256, deployment | power mode | p50 ms | p95 | p99 | p99.9 | max | outside the engine us, p50 / p99 | graph replay ms, p50 / p95 / p99 | bare loop ms, p50 / p95 / p99 | beyond it us, of so many | W | mJ an observation "
                     "| p50 ms of each quarter | hottest C, first -> last quarter | GPU MHz | cold start s |\n" + "|---" * 17 + "|\n")
table.write_text(table.read_text() + line + "\n")
print(line)
END
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
if [ -n "$dry" ]; then
  do_it "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds 130 --json
else
  # Both of its phases, and some time to begin.
  "$tendon" policy bench "$bundle" --engine tensorrt --config "$config" --seconds 130 --json >/dev/null &
  load=$!
  sleep 5
fi
around rt-busy.json "$tendon" rt-bench --seconds 60 --hz 1000 --json
[ -n "$dry" ] || { wait "$load" || true; load=; }
around sched-sim.json "$tendon" sched-sim --json
around fault-sim.json "$tendon" fault-sim --row 31 --json
around demo.json "$tendon" demo --headless --episodes 20 --seed 7 --json
around nvmm.txt tests/hw/nvmm.sh
around governor.txt cargo bench --bench governor
around isolation.txt cargo bench --bench isolation
[ -n "$dry" ] || python3 tests/hw/around.py "$OUT" >/dev/null

say "to compare with"
cat <<'END'
| model, board | best published | by |
|---|---|---|
| ACT, Orin | TensorRT FP16 3.2 ms | innate-os pull request 447 |
| SmolVLA 450M, Orin Nano Super | 105.1 p50, 105.9 p95 | jetson-orin-nano-vla |
| SmolVLA, AGX Orin | 206 ms | vla.cpp |
| X-VLA 0.9B, Orin Nano | 353.7 ms | jetson-orin-nano-vla |
| GR00T N1.6 / N1.7, AGX Orin | 173 / 151 ms | NVIDIA |
| GR00T N1.6 / N1.7, Orin Nano | 284.7 / 286.8 ms | jetson-orin-nano-vla |
| pi0.5, AGX Orin, 2 cameras | INT8 124.25 p50, 124.29 p95; BF16 165.7 | ApxInf |
| pi0.5, Orin Nano | 440.1 ms | jetson-orin-nano-vla |
| OpenVLA-7B, AGX Orin | INT4 336 ms | Jetson AI Lab |
| LiteVLA 256M, AGX Orin | 150.5 ms | arXiv 2603.03380 |
END
for table in table around; do [ ! -r "$OUT/$table.md" ] || { echo; cat "$OUT/$table.md"; }; done
say "done: $OUT"
[ ${#missed[@]} = 0 ] || { echo "FAILED: more than 2 % or 60 us beyond the bare loop: ${missed[*]}" >&2; exit 1; }
