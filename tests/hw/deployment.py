# SPDX-License-Identifier: Apache-2.0
"""A deployment in which a bundle can be measured: a robot with the joints that it moves, and cameras of the sizes that it was trained on.
Its limits are no robot's: for `tendon check`, `engine build`, `policy bench` and orin.sh. It drives nothing.

    python3 tests/hw/deployment.py BUNDLE FOLDER [--precision fp32] [--engine tensorrt]
"""

import argparse
import json
import math
import sys
from pathlib import Path

# As robot.toml wants them, by the unit that the bundle names: kind, and what stands behind its name there. A gripper has no limits.
MOVES = {"rad": ("revolute", "rad", (-3.1, 3.1, 2.5, 15.0, 1500.0, 0.2)), "m": ("prismatic", "m", (-1.0, 1.0, 0.5, 5.0, 500.0, 0.1)),
         "fraction": ("gripper", "", ())}
LIMITS = ("position_min_{}", "position_max_{}", "velocity_max_{}_s", "acceleration_max_{}_s2", "jerk_max_{}_s3", "tracking_error_max_{}")


def refuse(expected, found):
    sys.exit(f"deployment.py: expected {expected}, found {found}")


def text(value):
    return json.dumps(value, ensure_ascii=False)


def joints(action):
    lines = ['name = "to-measure"']
    for name, unit in zip(action["names"], action["units"]):
        kind, letters, values = MOVES[unit]
        lines += ["", "[[joint]]", f"name = {text(name)}", f'kind = "{kind}"']
        lines += [f"{key.format(letters)} = {value}" for key, value in zip(LIMITS, values)]
    return "\n".join(lines) + "\n"


def rate_hz(tendon):
    """Often enough for its plans to meet, and for what it is to remember; as often as it was made for, if that is more."""
    action = tendon["action"]
    spans_ms = [each.get("spacing_ms", 0) for each in [*tendon["cameras"], tendon.get("state") or {}]]
    wanted = [1000 / span_ms for span_ms in spans_ms if span_ms > 0]
    wanted += [tendon["timing"]["infer_hz"], 1250 / (action["horizon"] * action["period_ms"])]
    # Up to the next thousandth: rounded down it would be too seldom.
    return min(120.0, math.ceil(max(wanted) * 1000) / 1000)


def deployment(tendon, bundle, precision, engine):
    lines = ['robot = "robot.toml"', "", "[policy]", f"bundle = {text(str(bundle))}", f'precision = "{precision}"', f"rate_hz = {rate_hz(tendon):.3f}",
             f'engines = ["{engine}"]', 'engine_cache = "cache"', "", "[link]", 'listen = "tcp/127.0.0.1:7447"']
    for camera in tendon["cameras"]:
        width, height = camera["source_size"]
        lines += ["", "[[camera]]", f"name = {text(camera['role'])}", f"width = {width}", f"height = {height}", "age_max_ms = 150"]
    lines += ["", "[control]", "hz = 200.0", "state_age_max_ms = 25", "", "[schedule]", 'merge = "replace"']
    return "\n".join(lines) + "\n"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--precision", choices=("fp32", "fp16", "int8", "best"), default="fp32")
    options.add_argument("--engine", choices=("tensorrt", "ort", "cpu"), default="tensorrt")
    asked = options.parse_args()
    manifest = asked.bundle / "manifest.json"
    try:
        tendon = json.loads(manifest.read_text())["tendon"]
    except (OSError, ValueError, KeyError) as error:
        refuse(f"the manifest of a bundle at {manifest}", repr(error))
    if tendon.get("schema") != 2:
        refuse(f"a bundle of schema 2 in {asked.bundle} (of schema 1: deploy/bench)", tendon.get("schema"))
    action = tendon.get("action")
    if not action or action.get("means"):
        refuse(f"a policy of joints' targets in {asked.bundle} (others need their robot's own URDF)", "none" if not action else "poses or speeds")
    named = dict(zip(action["names"], action["units"]))
    for name, unit in zip(*((tendon.get("state") or {}).get(key, []) for key in ("names", "units"))):
        # Whether it holds something tells the motor controller, as src/policy/binding.rs has it.
        if name not in ("vacuum", "holding") and named.get(name) != unit:
            refuse(f"a state of the joints that are moved ({', '.join(action['names'])})", f"{name} in {unit}")
    if not tendon["cameras"]:
        refuse(f"a camera in {manifest}", "none")
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "robot.toml").write_text(joints(action))
    path = asked.folder / "tendon.toml"
    path.write_text(deployment(tendon, asked.bundle.resolve(), asked.precision, asked.engine))
    print(path)


main()
