# SPDX-License-Identifier: Apache-2.0
"""The verdict of v4l.sh on what `tendon cameras --json` counted in one step.

    v4l.py STEP REPORT RATE_HZ CODE     as-it-is, replug, cover or uncover; the report's file; what was asked for; how the look ended
"""

import json
import sys
from pathlib import Path

step, path, rate_hz, code = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
period_ms = 1000 / rate_hz
failed = 0


def claim(good, expected, found):
    global failed
    failed += not good
    print(f"{'good' if good else 'FAILED'}: {step}: expected {expected}, found {found}")


def few(count, of, what):
    # One of a hundred may be lost or spoilt on the bus; the policy does without it.
    claim(count * 100 <= of, f"at most 1 in 100 {what}", f"{count} of {of}")


def as_it_is(camera):
    counts = camera["counts"]
    claim(camera["fault"] is None, "a good camera at the end", camera["fault"])
    claim(abs(camera["rate_hz"] / rate_hz - 1) <= 0.05, f"{rate_hz:g} good pictures a second, within 5 %", f"{camera['rate_hz']:.2f}")
    few(sum(camera["refused"].values()), camera["good"], f"refused {camera['refused'] or ''}".strip())
    few(counts["missing"] + counts["stale"], camera["good"], "missing by their numbers or passed over")
    claim(counts["starts"] == 1, "a camera that was opened once", counts["starts"])
    claim(camera["gap_max_ms"] <= 2.5 * period_ms, f"no gap at which the robot would hold ({2.5 * period_ms:.0f} ms)", f"{camera['gap_max_ms']:.1f} ms")
    claim(camera["stamped"] in ("start of exposure", "end of frame"), "capture times that the driver gives, of the monotonic clock", camera["stamped"])
    claim(0 < camera["age_p99_ms"] <= 2 * period_ms, f"99 of 100 pictures decoded and handed over within two periods of capture ({2 * period_ms:.0f} ms)",
          f"{camera['age_p99_ms']:.1f} ms (half of them {camera['age_p50_ms']:.1f} ms)")


def replug(camera):
    starts = camera["counts"]["starts"]
    claim(starts >= 2, "a camera that was opened again after the plug was pulled", f"{starts - 1} restarts; longest time without a picture {camera['gap_max_ms']:.0f} ms")
    claim(camera["fault"] is None and camera["quiet_ms"] <= 2.5 * period_ms, "good pictures again at the end", camera["fault"] or f"none for {camera['quiet_ms']:.0f} ms")


def cover(camera):
    # A sensor that turns its gain up in the dark is grey: that shows nothing either.
    blind = {words: count for words, count in camera["refused"].items() if words.endswith(("is black", "is of one colour"))}
    claim(sum(blind.values()) >= 3, "pictures refused as black, or as of one colour", camera["refused"] or "none refused")


def uncover(camera):
    claim(camera["fault"] is None and camera["good"] > 0, "a good camera at the end", camera["fault"] or f"{camera['good']} good pictures")


try:
    seen = json.loads(path.read_text())["cameras"][0]
except (OSError, ValueError, KeyError, IndexError):
    seen = None
claim(seen is not None, "a report of the look", "none" if seen is None else f"{seen['good']} good pictures")
if seen is not None:
    {"as-it-is": as_it_is, "replug": replug, "cover": cover, "uncover": uncover}[step](seen)
    # What is bad at the end ends the look with 1; a covered lens is.
    claim(code == 0 or (code == 1 and seen["fault"] is not None), "an end that fits the report", f"{code}")
sys.exit(failed > 0)
