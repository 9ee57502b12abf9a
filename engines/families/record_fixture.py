# SPDX-License-Identifier: Apache-2.0
"""Records the fixture that `tendon policy import` asks for: LeRobot's own preprocessor, model and postprocessor on observations
of a data set, with joints in radians.

Run beside torch and lerobot 0.4: python engines/families/record_fixture.py CHECKPOINT DATASET OUT.safetensors [--frames 8] [--deg]
"""

import argparse

import numpy as np
import torch
from safetensors.numpy import save_file


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("dataset")
    parser.add_argument("out")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--deg", action="store_true", help="the data set's joints are in degrees")
    wanted = parser.parse_args()

    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(wanted.checkpoint)
    policy = get_policy_class(config.type).from_pretrained(wanted.checkpoint).eval()
    before, after = make_pre_post_processors(config, pretrained_path=wanted.checkpoint)
    data = LeRobotDataset(wanted.dataset)
    to_rad = np.float32(np.pi / 180 if wanted.deg else 1.0)
    cameras = [key for key in config.input_features if key.startswith("observation.images.")]
    out = {"state": [], "action": [], **{f"camera.{key.rsplit('.', 1)[-1]}": [] for key in cameras}}
    torch.manual_seed(0)
    for index in np.linspace(0, len(data) - 1, wanted.frames).astype(int):
        item = data[int(index)]
        batch = {key: item[key] for key in [*cameras, "observation.state"]}
        for key in cameras:
            # The robot's cameras give bytes, so the reference is shown bytes.
            byte = (item[key] * 255).round().clamp(0, 255).to(torch.uint8)
            batch[key] = byte.float() / 255
            out[f"camera.{key.rsplit('.', 1)[-1]}"].append(byte.permute(1, 2, 0).numpy())
        with torch.no_grad():
            chunk = after(policy.predict_action_chunk(before(batch)))
        out["state"].append(item["observation.state"].numpy() * to_rad)
        out["action"].append(chunk[0].cpu().numpy() * to_rad)
    save_file({key: np.ascontiguousarray(np.stack(values)) for key, values in out.items()}, wanted.out)
    print(f"{wanted.frames} observations in {wanted.out}")


if __name__ == "__main__":
    main()
