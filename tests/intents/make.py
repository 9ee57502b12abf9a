# SPDX-License-Identifier: Apache-2.0
"""The shipped policy made to speak otherwise: a second graph turns what it says into joint targets, tool poses, or joint deltas.

Run beside torch 2, onnx, onnxruntime, safetensors, pillow: python tests/intents/make.py. Writes tests/intents/{joints,pose,delta}: manifest,
second graph, fixture. The first graph, its statistics and its tokenizer are those of engines/bench-vla; a test copies
them beside. Forward kinematics here shares nothing with the runtime's: matrices of deploy/bench/robot.urdf's numbers.
"""
import hashlib
import json
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
SHIPPED = HERE / "../../engines/bench-vla"
JOINTS = ["base_yaw", "shoulder_pitch", "elbow_pitch", "forearm_roll", "wrist_pitch", "tool_roll"]
RELATIVE = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
# Axis and height of each joint above the one before, metres.
CHAIN = [("z", 0.0), ("y", 0.12), ("y", 0.28), ("z", 0.0), ("y", 0.26), ("z", 0.0)]
FRAMES = 2
STATS = load_file(SHIPPED / "stats.safetensors")


def constant(key):
    return torch.tensor(STATS[key])


class Targets(torch.nn.Module):
    """Normalised, relative action and normalised state -> absolute targets [16, 6], gripper [16, 1], state [6]."""

    def forward(self, action, state):
        rows = action[0] * constant("action.std") + constant("action.mean")
        now = (state * (constant("observation.state.std") + 1e-8) + constant("observation.state.mean"))[0, :6]
        return rows[:, :6] + torch.tensor(RELATIVE) * now, rows[:, 6:], now


class Joints(torch.nn.Module):
    def forward(self, action, state):
        q, grip, _ = Targets()(action, state)
        return torch.cat([q, grip], 1)


class Deltas(torch.nn.Module):
    def forward(self, action, state):
        q, grip, now = Targets()(action, state)
        before = torch.cat([now.reshape(1, 6), q[:-1]], 0)
        return torch.cat([q - before, grip], 1)


class Poses(torch.nn.Module):
    """Place, and the first two columns of the rotation."""

    def forward(self, action, state):
        q, grip, _ = Targets()(action, state)
        zero, one = torch.zeros_like(q[:, 0]), torch.ones_like(q[:, 0])
        turn = torch.eye(3).reshape(1, 3, 3).repeat(16, 1, 1)
        place = torch.zeros(16, 3)
        for joint, (axis, height) in enumerate(CHAIN):
            s, c = torch.sin(q[:, joint]), torch.cos(q[:, joint])
            place = place + turn[:, :, 2] * height
            rows = [[c, -s, zero], [s, c, zero], [zero, zero, one]]
            if axis == "y":
                rows = [[c, zero, s], [zero, one, zero], [-s, zero, c]]
            step = torch.stack([torch.stack(row, 1) for row in rows], 1)
            turn = torch.matmul(turn, step)
        return torch.cat([place, turn[:, :, 0], turn[:, :, 1], grip], 1)


def pictures(rng):
    y, x = np.mgrid[0:224, 0:224]
    phase = rng.uniform(0, 6, 6)
    base = [127 + 80 * np.sin(x / (24 + c) + phase[c]) * np.cos(y / (25 - c) + phase[c + 3]) for c in range(3)]
    return np.clip(np.stack(base, -1), 0, 255).astype(np.uint8)


def make(name, module, names, units, means):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    example = (torch.zeros(1, 16, 7), torch.zeros(1, 8))
    torch.onnx.export(module, example, folder / "speak.onnx", input_names=["action", "state"], output_names=["said"],
                      opset_version=17, dynamo=False, do_constant_folding=True)
    onnx.checker.check_model(onnx.load(folder / "speak.onnx"))
    shipped = json.loads((SHIPPED / "manifest.json").read_text())["tendon"]
    fixture = load_file(SHIPPED / "parity.safetensors")
    sentences = json.loads((SHIPPED / "parity.json").read_text())["sentences"][:FRAMES]
    states = fixture["state"][:FRAMES]
    policy = onnxruntime.InferenceSession(SHIPPED / "bench_vla_fp32.onnx")
    speak = onnxruntime.InferenceSession(folder / "speak.onnx")
    rng = np.random.default_rng(4)
    frames, said = [], []
    for state, tokens in zip(states, fixture["tokens"]):
        frames.append(pictures(rng))
        small = np.asarray(Image.fromarray(frames[-1]).resize((96, 96), Image.BILINEAR), np.float32) / 255
        normal = (state - STATS["observation.state.mean"]) / (STATS["observation.state.std"] + 1e-8)
        feed = {"image": small.transpose(2, 0, 1)[None], "state": normal[None].astype(np.float32), "tokens": tokens[None]}
        action = policy.run(["action"], feed)[0]
        rows = speak.run(None, {"action": action, "state": feed["state"]})[0]
        rows[:, -1] = rows[:, -1] > 0.5
        said.append(rows)
    saved = {"state": states, "action": np.stack(said).astype(np.float32), "camera.front": np.stack(frames)}
    save_file({k: np.ascontiguousarray(v) for k, v in saved.items()}, folder / "parity.safetensors")
    (folder / "parity.json").write_text(json.dumps({"sentences": sentences}) + "\n")
    files = [*sorted(p for p in folder.iterdir()), *(SHIPPED / f for f in ("bench_vla_fp32.onnx", "stats.safetensors", "tokenizer.json"))]
    width = len(names)
    stage = shipped["stages"][0]
    inputs = {k: {**v, "from": {"image": "camera.front", "state": "state", "tokens": "text.ids"}[k]} for k, v in stage["inputs"].items()}
    tendon = {
        "schema": 2,
        "family": f"bench-vla, in {name}s",
        "cameras": [{
            "role": "front", "source_size": [224, 224],
            "ops": [{"op": "resize", "width": 96, "height": 96, "fit": "stretch", "filter": "bilinear", "library": "pillow"}],
            "levels": [{"scale": 1 / 255}],
        }],
        "text": {"kind": "prompt", "tokenizer": "tokenizer.json", "template": "{task}", "special_tokens": True, "max_len": 16},
        "state": {**{k: shipped["state"][k] for k in ("names", "units")},
                  "stats": {"file": "stats.safetensors", "key": "observation.state", "mode": "mean_std", "convention": "lerobot", "eps": 1e-8}},
        "stages": [
            {"id": "policy", "onnx": {"fp32": "bench_vla_fp32.onnx"}, "inputs": inputs, "outputs": stage["outputs"]},
            {"id": "speak", "onnx": {"fp32": "speak.onnx"},
             "inputs": {"action": {"dtype": "f32", "shape": [1, 16, 7], "from": "policy.action"},
                        "state": {"dtype": "f32", "shape": [1, 8], "from": "state"}},
             "outputs": {"said": {"dtype": "f32", "shape": [16, width]}}},
        ],
        "decoder": {"kind": "regression", "from": "speak.said", "window": {"width": width}},
        "action": {
            "names": names, "units": units, "horizon": 16, "period_ms": 50.0, "first_step_ms": 50.0,
            "post": [{"op": "binarise", "dims": [width - 1], "threshold": 0.5, "low": 0.0, "high": 1.0}],
            "means": means,
        },
        "timing": shipped["timing"],
        "parity": {"file": "parity.safetensors", "sentences": "parity.json", "frames": len(sentences), "cosine_min": 0.9999, "error_max_fraction": 0.01},
        "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }
    package = {"format": "policy_package", "version": "1.0", "policy": {"name": f"bench_vla_{name}", "source": {"repo_id": "", "class_path": ""}},
               "model": {"n_obs_steps": 1, "artifacts": {"policy": "bench_vla_fp32.onnx", "speak": "speak.onnx"}}, "tendon": tendon}
    (folder / "manifest.json").write_text(json.dumps(package, indent=1) + "\n")


make("joints", Joints(), [*JOINTS, "gripper"], ["rad"] * 6 + ["fraction"], [])
POSE = ["tool_x", "tool_y", "tool_z", "tool_ax", "tool_ay", "tool_az", "tool_bx", "tool_by", "tool_bz"]
make("pose", Poses(), [*POSE, "gripper"], ["m"] * 9 + ["fraction"], [
    {"kind": "pose", "place": [0, 1, 2], "turn": [3, 4, 5, 6, 7, 8], "rotation": "six_numbers", "frame": "base", "link": "tool"}])
make("delta", Deltas(), [*JOINTS, "gripper"], ["rad"] * 6 + ["fraction"], [{"kind": "delta", "columns": [0, 1, 2, 3, 4, 5]}])
