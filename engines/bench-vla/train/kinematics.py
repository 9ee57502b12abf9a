"""Where the suction tip is, to judge a policy in millimetres.

All zeros points straight up, a positive pitch bends the arm forward, a positive yaw turns left. The lengths are not
written down a second time: for given angles the tip is linear in them, so the exported frames give them.
"""

import numpy as np


# Only base minus tool shows while the tool points down; the guess settles the rest.
GUESS = np.array([0.12, 0.26, 0.25, 0.10])


def lengths(joints, tips):
    """Base height, upper arm, forearm and tool (metres) that explain where the tip was."""
    columns = np.stack([tip(joints, unit) for unit in np.eye(4)], -1)
    left = tips - tip(joints, GUESS)
    found = GUESS + np.linalg.lstsq(columns.reshape(-1, 4), left.reshape(-1), rcond=1e-3)[0]
    error = np.abs(tip(joints, found) - tips).max()
    if error > 0.005:
        raise SystemExit(f"the exported tip is up to {error * 1e3:.1f} mm away from any arm of this kind")
    return found


def tip(joints, sizes):
    """[..., 6] joint angles (rad) -> [..., 3] metres."""
    base, upper, forearm, tool = sizes
    q = np.moveaxis(np.asarray(joints, np.float64), -1, 0)
    along = np.zeros(q.shape[1:] + (3, 1))
    along[..., 2, 0] = tool
    point = turn_z(q[5]) @ along
    point = turn_y(q[4]) @ point + up(forearm)
    point = turn_y(q[2]) @ (turn_z(q[3]) @ point) + up(upper)
    point = turn_z(q[0]) @ (turn_y(q[1]) @ point) + up(base)
    return point[..., 0]


def up(length):
    return np.array([[0.0], [0.0], [length]])


def turn_y(angle):
    c, s, one, nil = np.cos(angle), np.sin(angle), np.ones_like(angle), np.zeros_like(angle)
    return np.stack([np.stack([c, nil, s], -1), np.stack([nil, one, nil], -1), np.stack([-s, nil, c], -1)], -2)


def turn_z(angle):
    c, s, one, nil = np.cos(angle), np.sin(angle), np.ones_like(angle), np.zeros_like(angle)
    return np.stack([np.stack([c, -s, nil], -1), np.stack([s, c, nil], -1), np.stack([nil, nil, one], -1)], -2)
