# SPDX-License-Identifier: Apache-2.0
"""Packages written and run by OpenVINO Physical AI's own code, for the test of `tendon policy import`.

`physicalai.inference.manifest` writes each manifest, `physicalai.inference.InferenceModel` (ONNX backend) runs the package on random
observations, and what it answers becomes the fixture. The graph is a small random one: what is tested is the way in and
out, not a policy.

Run beside physicalai 0.3, onnxruntime and onnx:
  python engines/families/physicalai_package.py OUT            the two packages of tests/physicalai
  python engines/families/physicalai_package.py --record PACKAGE FIXTURE.safetensors [--frames 8] [--camera NAME=WxH ...]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper_slide"]
HORIZON = 8


def graph(path, cameras, size, dice):
    """A convolution a camera, all of it and the state through two layers: sensitive to every pixel."""
    width, height = size
    nodes, weights, parts = [], [], ["state"]

    def tensor(name, *shape, scale=1.0):
        weights.append(numpy_helper.from_array((dice.standard_normal(shape) * scale).astype(np.float32), name))
        return name

    for camera in cameras:
        kernel = tensor(f"kernel.{camera}", 4, 3, 5, 5, scale=0.2)
        nodes += [
            helper.make_node("Conv", [f"images.{camera}", kernel], [f"c.{camera}"], strides=[4, 4], dilations=[1, 1], pads=[0] * 4, kernel_shape=[5, 5]),
            helper.make_node("Tanh", [f"c.{camera}"], [f"t.{camera}"]),
            helper.make_node("Flatten", [f"t.{camera}"], [f"f.{camera}"]),
        ]
        parts.append(f"f.{camera}")
    seen = len(JOINTS) + len(cameras) * 4 * ((height - 5) // 4 + 1) * ((width - 5) // 4 + 1)
    nodes += [
        helper.make_node("Concat", parts, ["all"], axis=1),
        helper.make_node("Gemm", ["all", tensor("w1", seen, 24, scale=seen**-0.5)], ["h"]),
        helper.make_node("Tanh", ["h"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", tensor("w2", 24, HORIZON * len(JOINTS), scale=0.5)], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["action"]),
    ]
    weights.append(numpy_helper.from_array(np.array([1, HORIZON, len(JOINTS)], np.int64), "shape"))
    inputs = [helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, len(JOINTS)])]
    inputs += [helper.make_tensor_value_info(f"images.{camera}", TensorProto.FLOAT, [1, 3, height, width]) for camera in cameras]
    outputs = [helper.make_tensor_value_info("action", TensorProto.FLOAT, [1, HORIZON, len(JOINTS)])]
    model = helper.make_model(
        helper.make_graph(nodes, "policy", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)


def statistics(dice, cameras):
    stats = {
        "state/mean": dice.uniform(-1, 1, 6),
        "state/std": dice.uniform(0.2, 0.8, 6),
        "action/mean": dice.uniform(-1, 1, 6),
        "action/std": dice.uniform(0.2, 0.8, 6),
        "state/min": dice.uniform(-2, -1, 6),
        "state/max": dice.uniform(1, 2, 6),
        "action/min": dice.uniform(-2, -1, 6),
        "action/max": dice.uniform(1, 2, 6),
    }
    for camera in cameras:
        stats[f"images.{camera}/mean"] = dice.uniform(0.4, 0.5, (3, 1, 1))
        stats[f"images.{camera}/std"] = dice.uniform(0.2, 0.3, (3, 1, 1))
    return {key: value.astype(np.float32) for key, value in stats.items()}


def record(folder, out, sizes, frames, dice):
    """The package's own runtime on random bytes and states."""
    from physicalai.inference import InferenceModel

    model = InferenceModel(folder, backend="onnx", device="cpu")
    kept = {"state": [], "action": [], **{f"camera.{camera}": [] for camera in sizes}}
    for _ in range(frames):
        state = dice.uniform(-1, 1, len(JOINTS)).astype(np.float32)
        pictures = {}
        for camera, (width, height) in sizes.items():
            # Smooth, as pictures are, and with noise on it.
            coarse = dice.integers(0, 200, (6, 8, 3)).repeat(-(-height // 6), 0).repeat(-(-width // 8), 1)[:height, :width]
            pictures[camera] = (coarse + dice.integers(0, 56, coarse.shape)).astype(np.uint8)
            kept[f"camera.{camera}"].append(pictures[camera])
        # Flat keys: a normalize of "images.NAME" passes over what is nested under "images".
        chunk = model.predict_action_chunk(
            {"state": state[None], **{f"images.{camera}": picture[None] for camera, picture in pictures.items()}}
        )
        kept["state"].append(state)
        kept["action"].append(chunk.astype(np.float32))
    save_file({key: np.ascontiguousarray(np.stack(values)) for key, values in kept.items()}, out)


def make(out):
    from physicalai.inference.manifest import (
        CameraSpec, ComponentSpec, HardwareSpec, Manifest, MetadataSpec, ModelSpec, OrderedTensorSpec, PolicySource,
        PolicySpec, RobotSpec,
    )
    from physicalai.inference.postprocessors import ActionChunkTrimmer, ActionNormalizer, StatsDenormalizer
    from physicalai.inference.preprocessors import ResizePreprocessor, StatsNormalizer

    def of(target, **arguments):
        """`from_class` also writes `artifact: null`, on which 0.3's reader fails."""
        return ComponentSpec(class_path=f"{target.__module__}.{target.__qualname__}", init_args=arguments)

    def manifest(folder, name, before, after, cameras, size):
        order = OrderedTensorSpec(shape=[6], order=JOINTS)
        shape = [3, size[1], size[0]]
        Manifest(
            policy=PolicySpec(name=name, source=PolicySource(repo_id="none", class_path="physicalai.policies.act.policy.ACT")),
            model=ModelSpec(
                runner=ComponentSpec(type="single_pass"),
                artifacts={"onnx": f"{name}.onnx"},
                preprocessors=before,
                postprocessors=after,
            ),
            hardware=HardwareSpec(
                robots=[RobotSpec(name="main", type="arm", state=order, action=order)],
                cameras=[CameraSpec(name=camera, shape=shape) for camera in cameras],
            ),
            metadata=MetadataSpec(created_by="physicalai"),
        ).save(folder / "manifest.json")

    # The short form, statistics in a file, pictures as they come.
    dice = np.random.default_rng(1)
    folder = out / "short" / "package"
    folder.mkdir(parents=True, exist_ok=True)
    cameras = ["top", "wrist"]
    graph(folder / "act.onnx", cameras, (40, 30), dice)
    save_file(statistics(dice, cameras), folder / "stats.safetensors")
    manifest(
        folder, "act",
        [
            ComponentSpec(type="to_float_tensor"),
            ComponentSpec(type="normalize", mode="mean_std", artifact="stats.safetensors",
                          features=["state", "images.top", "images.wrist"]),
        ],
        [ComponentSpec(type="denormalize", mode="mean_std", artifact="stats.safetensors", features=["action"])],
        cameras, (40, 30),
    )
    record(folder, out / "short" / "fixture.safetensors", {camera: (40, 30) for camera in cameras}, 4, dice)

    # The long form, the action's statistics in the manifest, one picture letterboxed by OpenCV, a chunk cut short.
    dice = np.random.default_rng(2)
    folder = out / "long" / "package"
    folder.mkdir(parents=True, exist_ok=True)
    graph(folder / "act.onnx", ["top"], (32, 32), dice)
    flat = statistics(dice, [])
    save_file(flat, folder / "stats.safetensors")
    inline = {}
    for key, value in flat.items():
        feature, figure = key.split("/")
        inline.setdefault(feature, {})[figure] = [float(x) for x in value]
    inline["action"]["mask"] = [True] * 5 + [False]
    manifest(
        folder, "act",
        [
            ComponentSpec.from_class(ResizePreprocessor, image_resolution=[32, 32], image_layout="BHWC", mode="letterbox"),
            # Numbers in the manifest become doubles, which the ONNX backend does not feed to a graph of floats.
            of(StatsNormalizer, artifact="stats.safetensors", mode="min_max", features=["state"]),
        ],
        [
            ComponentSpec.from_class(ActionNormalizer),
            of(StatsDenormalizer, stats=inline, mode="min_max", features=["action"]),
            ComponentSpec.from_class(ActionChunkTrimmer, n_action_steps=6),
        ],
        ["top"], (64, 48),
    )
    record(folder, out / "long" / "fixture.safetensors", {"top": (64, 48)}, 4, dice)


def size_of(text):
    name, size = text.split("=")
    width, height = size.split("x")
    return name, (int(width), int(height))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--camera", action="append", default=[], type=size_of)
    wanted = parser.parse_args()
    if wanted.record:
        package, fixture = wanted.paths
        sizes = dict(wanted.camera)
        if not sizes:
            hardware = json.loads((package / "manifest.json").read_text())["hardware"]
            sizes = {camera["name"]: (camera["shape"][2], camera["shape"][1]) for camera in hardware["cameras"]}
        record(package, fixture, sizes, wanted.frames, np.random.default_rng(0))
    else:
        make(wanted.paths[0])
