# SPDX-License-Identifier: Apache-2.0
"""Link poses by another implementation, for src/config/space/tests.rs.

pip install yourdfpy==0.0.60; python tests/urdf/make_poses.py > tests/urdf/poses.json
Each pose is the upper three rows of the 4x4 matrix, row by row.
"""
import json
import pathlib

import numpy
import yourdfpy

here = pathlib.Path(__file__).parent
ROBOTS = {
    "odd": (here / "odd.urdf", {"turn": (-3, 3), "slide": (-0.3, 0.4), "bend": (-2, 2)}),
    "bench": (
        here / "../../deploy/bench/robot.urdf",
        {
            "base_yaw": (-2.9, 2.9),
            "shoulder_pitch": (-1.9, 1.9),
            "elbow_pitch": (-0.1, 2.8),
            "forearm_roll": (-2.9, 2.9),
            "wrist_pitch": (-2.2, 2.2),
            "tool_roll": (-3.1, 3.1),
        },
    ),
}
LINKS = {"odd": ["a", "b", "c", "d", "e"], "bench": ["turret", "upper", "forearm", "tool"]}

out = {}
for seed, (name, (path, ranges)) in enumerate(ROBOTS.items(), 1):
    robot = yourdfpy.URDF.load(path, load_meshes=False)
    dice = numpy.random.default_rng(seed)
    rows = []
    for _ in range(20):
        q = [round(float(dice.uniform(*ends)), 6) for ends in ranges.values()]
        robot.update_cfg(dict(zip(ranges, q)))
        poses = {
            link: [round(float(x), 10) for x in robot.get_transform(link)[:3].reshape(-1)]
            for link in LINKS[name]
        }
        rows.append({"q": q, "poses": poses})
    out[name] = {"names": list(ranges), "rows": rows}
print(json.dumps(out, separators=(",", ":")))
