# SPDX-License-Identifier: Apache-2.0
"""A hundred observations that everybody can make: numbers of a congruential generator, seeded by the observation's index. A
camera that may be missing is so in every third.

`make.py` runs LeRobot's own preprocessor, model and postprocessor on them and keeps what it answered in tests/lerobot;
`tests/policy/lerobot.rs` makes the same observations, runs the bundle and compares. With CHECK set in the environment nothing
is written: what is answered now is compared with what was kept.
"""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from bundle import WHOLE

HOME = Path(__file__).resolve().parents[2] / "tests/lerobot"
COUNT = 100
EPISODE = 10
MASK = (1 << 64) - 1


class Dice:
    def __init__(self, index):
        self.x = (index * 0x9E3779B97F4A7C15 + 1) & MASK

    def next(self):
        """31 bits."""
        self.x = (self.x * 6364136223846793005 + 1442695040888963407) & MASK
        return self.x >> 33

    def unit(self):
        return self.next() / 2.0**31

    def picture(self, width, height):
        coarse = np.array([self.next() % 200 for _ in range(6 * 8 * 3)]).reshape(6, 8, 3)
        fine = np.array([self.next() % 56 for _ in range(width * height * 3)]).reshape(height, width, 3)
        rows, columns = np.arange(height) * 6 // height, np.arange(width) * 8 // width
        return (coarse[rows][:, columns] + fine).astype(np.uint8)


class Seen:
    def __init__(self, index, tendon, noise, unit, sentences):
        dice = Dice(index)
        self.is_new = index % EPISODE == 0
        self.pictures = [dice.picture(*camera["source_size"]) for camera in tendon["cameras"]]
        for at, camera in enumerate(tendon["cameras"]):
            if "missing" in camera and (index + at) % 3 == 0:
                self.pictures[at] = None
        joints = len(tendon["state"]["names"])
        self.state = np.array([dice.unit() * 2 - 1 for _ in range(joints)]).astype(np.float32)
        drawn = [dice.unit() if unit else sum(dice.unit() for _ in range(12)) - 6 for _ in range(noise)]
        self.noise = self.unit = np.array(drawn).astype(np.float32)
        self.sentence = sentences[index % len(sentences)]


def hundred(bundle, answer, noise=0, unit=False, sentences=("",)):
    if WHOLE:
        return
    actions = []
    with torch.no_grad():
        for index in range(COUNT):
            actions.append(answer(Seen(index, bundle.tendon, noise, unit, sentences)))
    actions = np.ascontiguousarray(np.stack(actions).astype(np.float32))
    path = HOME / f"{bundle.name}.safetensors"
    if "CHECK" in os.environ:
        kept = load_file(path)["action"]
        ranges = kept.max((0, 1)) - kept.min((0, 1))
        off = np.abs(actions - kept).max((0, 1)) / ranges
        print(f"{bundle.name:16} {COUNT} observations, at most {off.max():.2e} of the range from what was kept")
        assert off.max() <= 1e-4
        return
    HOME.mkdir(exist_ok=True)
    save_file({"action": actions}, path, {"sentences": "\n".join(sentences), "unit": str(int(unit))})
