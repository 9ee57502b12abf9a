"""Writes the bundle's small files: statistics, parity fixture, manifest with hashes."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from data import ACTION_NAMES, CHUNK_LEN, MAX_LEN, PERIOD_MS, RELATIVE, STATE_NAMES
from export_onnx import INPUTS, OUTPUTS

FP32, FP16, INT8 = "bench_vla_fp32.onnx", "bench_vla_fp16.onnx", "bench_vla_int8.onnx"
STATS, TOKENIZER, PARITY, PARITY_TEXT = "stats.safetensors", "tokenizer.json", "parity.safetensors", "parity.json"
UNITS = {"gripper": "fraction", "vacuum": "fraction"}
PARITY_FRAMES = 8


def write_stats(folder, stats):
    """LeRobot's names (`action.mean`) and, for OpenVINO's reader of the same format, `action/mean` by graph input name."""
    other = {}
    for theirs, ours in (("state", "observation.state"), ("action", "action")):
        for figure in ("mean", "std"):
            other[f"{theirs}/{figure}"] = stats[f"{ours}.{figure}"]
    save_file({key: np.ascontiguousarray(value) for key, value in (stats | other).items()}, str(Path(folder) / STATS))


def write_parity(folder, session, frames, index):
    """Observations with the chunk that the FP32 graph gives for them. A bundle that misses it does not load."""
    results = [session.run(frames.image[i], frames.state[i], frames.tokens[i]) for i in index]
    save_file({
        "image": np.ascontiguousarray(frames.image[index]), "state": np.ascontiguousarray(frames.state[index]),
        "tokens": np.ascontiguousarray(frames.tokens[index]), "action": np.stack([r[0] for r in results]),
        "keypoint": np.stack([r[1] for r in results]).astype(np.float32),
        "presence": np.array([r[2] for r in results], np.float32),
    }, str(Path(folder) / PARITY))
    text = {"sentences": [frames.text[i] for i in index]}
    (Path(folder) / PARITY_TEXT).write_text(json.dumps(text, indent=2) + "\n")


def tensors(specs, sources=None):
    out = {}
    for name, (dtype, shape) in specs.items():
        out[name] = {"dtype": dtype, "shape": shape}
        if sources:
            out[name]["from"] = sources[name]
    return out


def manifest(folder):
    folder = Path(folder)
    named = lambda names: [{"name": n, "unit": UNITS.get(n, "rad")} for n in names]
    feature = lambda kind, name, shape, dtype: {
        "class_path": "physicalai.inference.data.features.InferenceFeature",
        "init_args": {"ftype": kind, "shape": shape, "name": name, "dtype": dtype},
    }
    files = [FP32, FP16, INT8, STATS, TOKENIZER, PARITY, PARITY_TEXT, "report.json", "report.md"]
    return {
        "format": "policy_package",
        "version": "1.0",
        "policy": {"name": "bench_vla", "source": {"repo_id": "", "class_path": ""}},
        "model": {
            "n_obs_steps": 1,
            "runner": {"type": "single_pass"},
            "artifacts": {"onnx": FP32},
            "preprocessors": [{"type": "normalize", "mode": "mean_std", "artifact": STATS, "features": ["state"]}],
            "postprocessors": [{"type": "denormalize", "mode": "mean_std", "artifact": STATS, "features": ["action"]}],
            "input_features": [
                feature("VISUAL", "image", [3, 96, 96], "float32"),
                feature("STATE", "state", [len(STATE_NAMES)], "float32"),
                feature("LANGUAGE", "tokens", [MAX_LEN], "int64"),
            ],
            "output_features": [feature("ACTION", "action", [CHUNK_LEN, len(ACTION_NAMES)], "float32")],
        },
        "hardware": {
            "robots": [{
                "name": "bench", "type": "tendon-bench-6r",
                "state": {"shape": [len(STATE_NAMES)], "dtype": "float32", "order": STATE_NAMES},
                "action": {"shape": [len(ACTION_NAMES)], "dtype": "float32", "order": ACTION_NAMES},
            }],
            "cameras": [{"name": "front", "shape": [3, 224, 224], "dtype": "uint8"}],
        },
        "tendon": {
            "schema": 1,
            "stages": [{
                "id": "policy",
                "onnx": {"fp32": FP32, "fp16": FP16, "int8": INT8},
                "inputs": tensors(INPUTS, {"image": "image.front", "state": "state", "tokens": "text"}),
                "outputs": tensors(OUTPUTS),
            }],
            "image": {
                "role": "front", "source_size": [224, 224], "size": [96, 96],
                "resize": {"mode": "stretch", "filter": "bilinear", "antialias": True},
                "scale": 1.0 / 255.0, "layout": "nchw", "color": "rgb",
            },
            "text": {"tokenizer": TOKENIZER, "max_len": MAX_LEN, "pad_id": 0, "on_overflow": "refuse"},
            "state": {"names": STATE_NAMES, "units": [n["unit"] for n in named(STATE_NAMES)],
                      "stats": {"file": STATS, "key": "observation.state", "mode": "mean_std", "eps": 1e-8}},
            "action": {
                "names": ACTION_NAMES, "units": [n["unit"] for n in named(ACTION_NAMES)],
                "stats": {"file": STATS, "key": "action", "mode": "mean_std"},
                "representation": "relative_to_observation_state", "relative": RELATIVE,
                "chunk_len": CHUNK_LEN, "period_ms": PERIOD_MS, "first_step_ms": PERIOD_MS, "gripper_threshold": 0.5,
            },
            "timing": {"infer_hz": 10, "deadline_ms": 80, "max_observation_age_ms": 150},
            "parity": {"file": PARITY, "sentences": PARITY_TEXT, "frames": PARITY_FRAMES, "cosine_min": 0.999, "error_max_fraction": 0.01},
            "sha256": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        },
    }


def write_manifest(folder):
    for path in Path(folder).glob("*.safetensors"):
        path.chmod(0o644)
    (Path(folder) / "manifest.json").write_text(json.dumps(manifest(folder), indent=2) + "\n")
