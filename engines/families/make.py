# SPDX-License-Identifier: Apache-2.0
"""Makes the small bundles of tests/families: every family at a reduced width, with random but fixed weights.

Run: python engines/families/make.py [NAME ...]     (torch, onnx, lerobot 0.4.4, diffusers, Pillow, tokenizers)
"""

import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])

import lerobot_families  # noqa: E402
import token_families  # noqa: E402

ALL = {"act": lerobot_families.act, "diffusion": lerobot_families.diffusion, "openvla": token_families.openvla, "openvla_oft": token_families.oft,
       "rt2": token_families.rt2, "planner": token_families.planner, "pi0_fast": token_families.pi0_fast}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name]()
