# SPDX-License-Identifier: Apache-2.0
"""physicalai's RobotRuntime, its robot and its policy being two that do nothing: the loop as published and no work in it.

    tendon rt-bench --peer "ENVIRONMENT/bin/python tests/peers/rt_physicalai.py" --json

in an environment that has it (pip install physicalai==0.3.0). Prints one JSON object, as rt_loop.py does and judged in the
same way: how far each period between two actions was from the nominal one, and how late the loop was in the end.
"""

import argparse
import importlib.metadata
import json
import logging
import time
import types

import numpy as np

JOINTS = 7


class Robot:
    """Stands still, and notes when it was sent what."""

    joint_names = [f"joint_{number}" for number in range(JOINTS)]
    device_ids = ("nothing",)

    def __init__(self):
        self.sent = []
        self.state = np.zeros(JOINTS, dtype=np.float32)

    def connect(self):
        pass

    def disconnect(self):
        pass

    def is_connected(self):
        return True

    def get_observation(self):
        return types.SimpleNamespace(
            joint_positions=self.state, state=self.state, timestamp=time.monotonic(), sensor_data=None, images=None)

    def send_action(self, action, *, goal_time=0.1):
        self.sent.append(time.perf_counter())


class Still:
    """A source of actions: always the same."""

    def __init__(self):
        self.action = np.zeros(JOINTS, dtype=np.float32)

    def connect(self, *, bus, session_id):
        pass

    def update(self, robot_state, camera_frames, step):
        return self.action

    def disconnect(self):
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hz", type=float, default=200)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    from physicalai.runtime import RobotRuntime

    period, robot = 1.0 / arguments.hz, Robot()
    with RobotRuntime(robot=robot, action_source=Still(), fps=arguments.hz) as runtime:
        runtime.run(duration_s=arguments.seconds)
    late_us = sorted((later - sooner - period) * 1e6 for sooner, later in zip(robot.sent, robot.sent[1:]))
    drift_ms = (robot.sent[-1] - robot.sent[0] - len(late_us) * period) * 1e3

    def at(quantile: float) -> float:
        return round(late_us[min(int(quantile * len(late_us)), len(late_us) - 1)], 3)

    print(json.dumps({
        "loop": "physicalai " + importlib.metadata.version("physicalai") + " RobotRuntime",
        "ticks": len(late_us),
        "late_us": {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": round(late_us[-1], 3)},
        "drift_ms": round(drift_ms, 3),
    }))


if __name__ == "__main__":
    main()
