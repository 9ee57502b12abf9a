"""Where the suction tip is, for judging a policy in millimetres. Training does not use it where the exporter gives the tip."""

import numpy as np

BASE, UPPER, FOREARM, TOOL = 0.12, 0.24, 0.22, 0.10


def tip(joints):
    """[..., 6] joint angles (rad) -> [..., 3] metres. Forearm roll and tool roll stay at rest in this task."""
    upper = joints[..., 1]
    forearm = upper + joints[..., 2]
    tool = forearm + joints[..., 4]
    reach = UPPER * np.cos(upper) + FOREARM * np.cos(forearm) + TOOL * np.cos(tool)
    height = BASE + UPPER * np.sin(upper) + FOREARM * np.sin(forearm) + TOOL * np.sin(tool)
    return np.stack([reach * np.cos(joints[..., 0]), reach * np.sin(joints[..., 0]), height], -1)
