"""Where the suction tip is, to judge a policy in millimetres. Training takes the tip from the exporter.

The bench arm's own numbers: all zeros points straight up, a positive pitch bends it forward, a positive yaw turns left.
"""

import numpy as np

BASE, UPPER, FOREARM, TOOL = 0.12, 0.26, 0.25, 0.10


def tip(joints):
    """[..., 6] joint angles (rad) -> [..., 3] metres."""
    q = np.moveaxis(np.asarray(joints, np.float64), -1, 0)
    along = np.zeros(q.shape[1:] + (3, 1))
    along[..., 2, 0] = TOOL
    point = turn_z(q[5]) @ along
    point = turn_y(q[4]) @ point + up(FOREARM)
    point = turn_y(q[2]) @ (turn_z(q[3]) @ point) + up(UPPER)
    point = turn_z(q[0]) @ (turn_y(q[1]) @ point) + up(BASE)
    return point[..., 0]


def up(length):
    return np.array([[0.0], [0.0], [length]])


def turn_y(angle):
    c, s, one, nil = np.cos(angle), np.sin(angle), np.ones_like(angle), np.zeros_like(angle)
    return np.stack([np.stack([c, nil, s], -1), np.stack([nil, one, nil], -1), np.stack([-s, nil, c], -1)], -2)


def turn_z(angle):
    c, s, one, nil = np.cos(angle), np.sin(angle), np.ones_like(angle), np.zeros_like(angle)
    return np.stack([np.stack([c, -s, nil], -1), np.stack([s, c, nil], -1), np.stack([nil, nil, one], -1)], -2)
