# SPDX-License-Identifier: Apache-2.0
"""Tendon's own control thread at work, in the whole demo: cameras' pictures, a policy, a link, a bench robot.

    tendon rt-bench --peer "python3 tests/peers/rt_demo.py target/release/tendon" --json

Prints one JSON object: how late its control ticks came. `rt-bench` itself times a bare loop of the same clock and priority; this is
that loop with everything on it and around it, in the same run. An episode takes seven seconds or so, so it ends when it ends.
"""

import argparse
import json
import subprocess

EPISODE_S = 7.4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tendon")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hz", type=float, default=200)
    arguments = parser.parse_args()
    if arguments.hz != 200:
        parser.error("the demo's control rate is 200 Hz")
    episodes = max(1, round(arguments.seconds / EPISODE_S))
    demo = subprocess.run(
        [arguments.tendon, "demo", "--headless", "--episodes", str(episodes), "--json"],
        check=True,
        capture_output=True,
    )
    report = json.loads(demo.stdout)
    print(json.dumps({
        "loop": "tendon demo",
        "ticks": report["ticks"],
        "late_us": report["tick_lateness_us"],
    }))


if __name__ == "__main__":
    main()
