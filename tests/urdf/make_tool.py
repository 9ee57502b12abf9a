# SPDX-License-Identifier: Apache-2.0
"""The bench tool's Jacobian and inverse by other implementations, for src/config/space/tests.rs.

pip install yourdfpy==0.0.60 scipy==1.17.1; python tests/urdf/make_tool.py > tests/urdf/tool.json
The Jacobian is the central difference of yourdfpy's poses; the inverse is scipy's least squares on them, from `from`.
"""
import json
import pathlib

import numpy
import yourdfpy
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

JOINTS = {
    "base_yaw": (-2.9, 2.9),
    "shoulder_pitch": (-1.9, 1.9),
    "elbow_pitch": (-0.1, 2.8),
    "forearm_roll": (-2.9, 2.9),
    "wrist_pitch": (-2.2, 2.2),
    "tool_roll": (-3.1, 3.1),
}
path = pathlib.Path(__file__).parent / "../../deploy/bench/robot.urdf"
robot = yourdfpy.URDF.load(path, load_meshes=False)


def pose(q):
    robot.update_cfg(dict(zip(JOINTS, q)))
    matrix = robot.get_transform("tool")
    return matrix[:3, 3].copy(), matrix[:3, :3].copy()


def apart(a, b):
    return numpy.concatenate([a[0] - b[0], Rotation.from_matrix(a[1] @ b[1].T).as_rotvec()])


dice = numpy.random.default_rng(3)
rows = []
while len(rows) < 12:
    q = numpy.array([round(float(dice.uniform(0.8 * a, 0.8 * b)), 6) for a, b in JOINTS.values()])
    if abs(q[4]) < 0.3 or q[2] < 0.3:
        continue
    h = 1e-6
    unit = numpy.eye(6) * h
    jacobian = [apart(pose(q + d), pose(q - d)) / (2 * h) for d in unit]
    start = numpy.round(q + dice.uniform(-0.08, 0.08, 6), 6)
    found = least_squares(lambda x: apart(pose(x), pose(q)), start, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    place, turn = pose(q)
    rows.append(
        {
            "q": q.tolist(),
            "jacobian": numpy.round(jacobian, 8).tolist(),
            "place": numpy.round(place, 10).tolist(),
            "quaternion_xyzw": numpy.round(Rotation.from_matrix(turn).as_quat(), 10).tolist(),
            "from": start.tolist(),
            "inverse": numpy.round(found.x, 8).tolist(),
        }
    )
print(json.dumps(rows, separators=(",", ":")))
