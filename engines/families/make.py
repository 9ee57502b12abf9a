# SPDX-License-Identifier: Apache-2.0
"""Makes the small bundles of tests/families: every family at a reduced width, with random but fixed weights.

Run: python engines/families/make.py [NAME ...]     (Python 3.12: lerobot[pi,smolvla,groot,multi-task-dit,xvla] 0.6.1, onnx, diffusers, Pillow,
tokenizers). With WHOLE=FOLDER in the environment `act` and `smolvla` are made there at their published size.
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])

import flow_families  # noqa: E402
import lerobot_dit  # noqa: E402
import lerobot_families  # noqa: E402
import lerobot_groot  # noqa: E402
import lerobot_pi  # noqa: E402
import lerobot_xvla  # noqa: E402
import other_families  # noqa: E402
import token_families  # noqa: E402

ALL = {
    "act": lerobot_families.act,
    "bcz": other_families.bcz,
    "clip": other_families.clip,
    "diffusion": lerobot_families.diffusion,
    "groot": flow_families.groot,
    "groot_n17": lerobot_groot.groot_n17,
    "humanoid": other_families.humanoid,
    "multi_task_dit": lerobot_dit.multi_task_dit,
    "octo": flow_families.octo,
    "openvla": token_families.openvla,
    "openvla_oft": token_families.oft,
    "pi0": flow_families.pi0,
    "pi05": flow_families.pi05,
    "pi05_lerobot": lerobot_pi.pi05,
    "pi0_fast": token_families.pi0_fast,
    "pi0_fast_lerobot": lerobot_pi.pi0_fast,
    "pi0_lerobot": lerobot_pi.pi0,
    "planner": token_families.planner,
    "rt1": other_families.rt1,
    "rt2": token_families.rt2,
    "smolvla": lerobot_families.smolvla,
    "vqbet": lerobot_families.vqbet,
    "xvla": lerobot_xvla.xvla,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name]()
