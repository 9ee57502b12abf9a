# SPDX-License-Identifier: Apache-2.0
"""The rows around the engine, of what orin.sh left in a folder, each beside the best that others published; what is missing is said
in its row. Called by orin.sh with that folder; writes around.md there and prints it.

Beside NAME.json or NAME.txt, NAME.skipped says why there is none."""

import json
import re
import sys
from pathlib import Path

out = Path(sys.argv[1])


class Missing(Exception):
    """Why a figure is not there."""


def text(name):
    why = out / f"{Path(name).stem}.skipped"
    if why.exists():
        raise Missing(why.read_text().strip())
    path = out / name
    if not path.exists() or not path.stat().st_size:
        raise Missing(f"{name} is not there or empty")
    return path.read_text()


def told(name):
    try:
        return json.loads(text(name))
    except ValueError as error:
        raise Missing(f"{name}: {error}") from None


def found(pattern, name):
    match = re.search(pattern, text(name), re.M)
    if not match:
        raise Missing(f"{name} has no line like {pattern}")
    return match


def of(times, *keys):
    return " / ".join(f"{times[key]:.1f}" for key in keys)


def deployments():
    names = sorted(path.name.removesuffix(".row.json") for path in out.glob("*.row.json"))
    if not names:
        raise Missing("no deployment was measured")
    return names


def each(measure):
    """Of each deployment; one that has no figure takes none from the others."""
    said, missing = [], []
    for name in deployments():
        try:
            said.append(f"{name} {measure(name)}")
        except Missing as why:
            missing.append(f"{name} not measured: {why}")
    if not said:
        raise Missing("; ".join(missing))
    return "; ".join(said + missing)


def overhead():
    return each(lambda name: f"{told(f'{name}.json')['outside_engine']['p99_us'] / 1000:.3f} ms p99")


def beyond():
    return each(lambda name: f"{told(f'{name}.bare.json')['bare_loop']['overhead_us'] / 1000:+.3f} ms p50")


def hand_over():
    # A run that misses its bound ends as a failure, and what it measured is there all the same.
    said = (out / "nvmm.txt").read_text() if (out / "nvmm.txt").exists() else ""
    # The last of several rounds is the one that was judged.
    ways = [re.findall(rf"^{way}: from the sample on (p50 \S+ p99 \S+) ms", said, re.M) for way in ("in NVMM", "ordinary memory")]
    if not all(ways):
        text("nvmm.txt")
        raise Missing("nvmm.txt has no line like in NVMM: from the sample on p50 .. p99 .. ms, or none of ordinary memory")
    why = out / "nvmm.skipped"
    missed = f"; FAILED: {why.read_text().strip()}" if why.exists() else ""
    return f"NVMM {ways[0][-1]} ms; ordinary memory {ways[1][-1]} ms (from the sample at the sink to inference's mailbox){missed}"


def frame_to_command():
    demo = told("demo.json")
    return f"{of(demo['frame_to_command_minus_inference_ms'], 'p50', 'p99')} ms p50 / p99, bench robot over zenoh, {demo['episodes']} episodes"


def stall():
    demo = told("demo.json")
    return f"{demo['ladder']['stalls']} stalls, {demo['chunks']} chunks"


def seams(delay=150):
    lines = [line for line in told("sched-sim.json") if line["delay_ms"] == delay and line["jitter_ms"] == 0 and not line["loss"]
             and line["name"].startswith("tendon blend")]
    if not lines:
        raise Missing(f"sched-sim.json has no seam at {delay} ms")
    return lines


def seam():
    worst = max(seams(), key=lambda line: line["seam_dqdd_rad_s2"])
    return f"{worst['seam_dqdd_rad_s2']:.2f} rad/s2 at most, {sum(line['stalled_ms'] for line in seams())} ms stalled, inference 150 ms late"


def reaction():
    times = [line["reaction_ms"] for line in seams() if line["reaction_ms"] is not None]
    if not times:
        raise Missing("sched-sim.json has no reaction")
    return f"{max(times):.0f} ms with inference 150 ms late (simulated)"


def jitter():
    def late(name):
        phase = told(name)["idle"]["tendon"]["late_us"]
        return of(phase, "p99", "p999", "max")

    return f"idle {late('rt-idle.json')} us, GPU busy {late('rt-busy.json')} us, p99 / p99.9 / max at {told('rt-idle.json')['hz']:.0f} Hz"


def hop():
    idle = told("rt-idle.json")["idle"]["command_hop_us"]
    if idle is None:
        raise Missing("rt-bench measured no hop")
    return f"{of(idle, 'p50', 'p99')} us p50 / p99"


def between_processes():
    lines = dict(re.findall(r"^(\S.*?)\s+time:\s+\[\S+ \S+ (\S+ \S+) ", text("isolation.txt"), re.M))
    if not lines:
        raise Missing("isolation.txt has no times")
    return "; ".join(f"{name} {time}" for name, time in lines.items())


def guard():
    joints = found(r"^ *7 Synchronised chase: (\S+) (\S+) (\S+)$", "governor.txt")
    return f"{joints[1]} / {joints[2]} / {joints[3]} us p50 / p99 / max, 7 joints, every step shaped"


def halt():
    rows = told("fault-sim.json")["rows"]
    row = next((row for row in rows if row["row"] == 31), None)
    if row is None:
        raise Missing("fault-sim.json has no row 31")
    return f"{row['worst_reaction_ms']:.0f} ms after the last command (simulated, {row['passed']} of {row['runs']} within {row['bound_ms']:.0f} ms)"


def cold_start():
    return each(lambda name: f"{text(f'{name}.cold.txt').strip()} s")


ROWS = [
    ("overhead over the engine, transport in the path", "16 ms (ApxInf, websocket)", overhead),
    ("overhead over graph replay, input update only", "+0.06 ms (ApxInf)", beyond),
    ("camera handed over to CUDA", "5-10 ms copied, 0.05 ms NVMM (OpenRAL)", hand_over),
    ("frame to command, inference aside", "16.2 ms capture to display (Holoscan)", frame_to_command),
    ("stall for a chunk", "the whole inference (openpi)", stall),
    ("seam of chunks", "a full stop each chunk (JTC)", seam),
    ("lateness of the control loop", "20 us at most, PREEMPT_RT and isolation", jitter),
    ("zenoh hop on one host", "50-70 us p50, 231 us p99 (copper)", hop),
    ("between inference process and control process", "0.2 us (iceoryx2)", between_processes),
    ("governor, a command", "none published", guard),
    ("halt after the last command", "100 ms (servo)", halt),
    ("cold start with the engine in its cache", "3.6 s (innate)", cold_start),
    ("reaction to what changed", "200 ms (Dexmal)", reaction),
]

lines = ["| around the engine | best published | here |", "|---|---|---|"]
for name, best, measure in ROWS:
    try:
        here = measure()
    except Missing as why:
        here = f"not measured: {why}"
    except (KeyError, TypeError) as error:
        here = f"not measured: what should say it says it in another way: {error!r}"
    here = " ".join(here.split()).replace("|", "/")
    lines.append(f"| {name} | {best} | {here} |")
(out / "around.md").write_text("\n".join(lines) + "\n")
print("\n".join(lines))
