# SPDX-License-Identifier: Apache-2.0
"""A control loop as Python robot stacks write it: do the work, sleep for the rest of the period (a relative time).

    tendon rt-bench --peer "python3 tests/peers/rt_loop.py" --json

Prints one JSON object: how far each period was from the nominal one, and how late the loop was in the end. The standard
library only. Lateness is judged as for the other loops: against the schedule of whole periods since the start, but
with the drift taken out (a loop that sleeps a relative time is later each round), so the comparison favours this loop.
"""

import argparse
import json
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hz", type=float, default=200)
    arguments = parser.parse_args()
    period = 1.0 / arguments.hz
    late_us = []
    start = time.perf_counter()
    while True:
        began = time.perf_counter()
        if began - start >= arguments.seconds:
            break
        spent = time.perf_counter() - began
        time.sleep(max(period - spent, 0.0))
        late_us.append((time.perf_counter() - began - period) * 1e6)
    late_us.sort()
    drift_ms = (time.perf_counter() - start - len(late_us) * period) * 1e3

    def at(quantile: float) -> float:
        return round(late_us[min(int(quantile * len(late_us)), len(late_us) - 1)], 3)

    print(json.dumps({
        "loop": "python time.sleep",
        "ticks": len(late_us),
        "late_us": {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": round(late_us[-1], 3)},
        "drift_ms": round(drift_ms, 3),
    }))


if __name__ == "__main__":
    main()
