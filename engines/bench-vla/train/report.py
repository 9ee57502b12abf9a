"""How good it is, in millimetres and radians, on frames it has not seen; and how near the graphs are to one another."""

import json
from pathlib import Path

import numpy as np
import torch

from data import ACTION_NAMES, absolute


@torch.no_grad()
def judge(model, frames, tip_of, batch=256):
    """Figures of an open loop: every frame by itself, against the expert."""
    model.eval()
    out = {k: [] for k in ("xyz", "presence", "point", "joints", "grip")}
    for start in range(0, len(frames), batch):
        part = slice(start, start + batch)
        image = torch.from_numpy(frames.image[part]).permute(0, 3, 1, 2).float() / 255.0
        state, tokens = torch.from_numpy(frames.state[part]), torch.from_numpy(frames.tokens[part])
        text = model.text(tokens)
        xyz, presence, seen, point, _ = model.see(image, text, state)
        joints, grip, _ = model.act(state, text, xyz, presence, seen)
        for key, value in (("xyz", xyz), ("presence", presence), ("point", point), ("joints", joints), ("grip", torch.sigmoid(grip))):
            out[key].append(value.numpy())
    out = {key: np.concatenate(value) for key, value in out.items()}

    present = frames.present > 0.5
    held = frames.state[:, 7] > 0.5
    seen = present & ~held
    error_mm = np.linalg.norm((out["xyz"] - frames.xyz)[:, :2], axis=1) * 1e3
    wanted = tip_of(absolute(frames.state, frames.action[:, -1, :6]))
    got = tip_of(absolute(frames.state, out["joints"][:, -1]))
    tip_mm = np.linalg.norm(got - wanted, axis=1) * 1e3
    start = tip_of(frames.state[:, :6])
    distance = np.linalg.norm((frames.xyz - start)[:, :2], axis=1)
    near = seen & (distance < 0.03)
    absent_move = np.linalg.norm(got - start, axis=1)[~present] * 1e3
    spread = lambda values: {"median": round(float(np.median(values)), 3), "p95": round(float(np.quantile(values, 0.95)), 3)} if len(values) else None
    return {
        "frames": len(frames),
        "block_position_mm": spread(error_mm[seen]),
        "block_position_near_mm": spread(error_mm[near]),
        "block_bias_near_mm": [round(float(v) * 1e3, 3) for v in (out["xyz"] - frames.xyz)[near].mean(0)] if near.any() else None,
        "keypoint_pixels_of_96": spread(np.linalg.norm(out["point"] - frames.uv, axis=1)[seen] * 96),
        "presence_accuracy": round(float(((out["presence"] > 0) == present).mean()), 4),
        "tip_after_16_steps_mm": spread(tip_mm[present]),
        "tip_after_16_steps_near_mm": spread(tip_mm[near]),
        "tip_after_16_steps_held_mm": spread(tip_mm[present & held]),
        "tip_motion_when_absent_mm": spread(absent_move),
        "gripper_accuracy": round(float(((out["grip"] >= 0.5) == (frames.action[:, :, 6] >= 0.5)).mean()), 4),
    }


def difference(ours, reference):
    """Per joint, in radians (gripper: 0..1): what one graph gives more or less than the other."""
    error = np.abs(ours - reference)
    span = np.quantile(reference, 0.99, axis=(0, 1)) - np.quantile(reference, 0.01, axis=(0, 1))
    a, b = ours.reshape(len(ours), -1), reference.reshape(len(ours), -1)
    # A chunk that holds is all but zero: its direction says nothing.
    moves = np.linalg.norm(b, axis=1) > 0.1
    a, b = a[moves], b[moves]
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {
        "mean": {n: float(f"{v:.3g}") for n, v in zip(ACTION_NAMES, error.mean((0, 1)))},
        "max": {n: float(f"{v:.3g}") for n, v in zip(ACTION_NAMES, error.max((0, 1)))},
        "span_of_reference": {n: float(f"{v:.3g}") for n, v in zip(ACTION_NAMES, span)},
        "chunks": len(ours), "chunks_that_move": int(moves.sum()), "cosine_median": float(f"{np.median(cosine):.6g}"), "cosine_min": float(f"{cosine.min():.6g}"),
    }


def write(folder, figures):
    folder = Path(folder)
    (folder / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
    lines = ["# bench-vla: how it was made and how good it is", "", "Written by `train/make.py`; the same figures are in report.json.", ""]
    for title, section in figures.items():
        lines += [f"## {title.replace('_', ' ')}", ""]
        lines += table(section) if isinstance(section, dict) else [str(section)]
        lines.append("")
    (folder / "report.md").write_text("\n".join(lines))


def table(section):
    rows = ["| figure | value |", "|---|---|"]
    for key, value in section.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        rows.append(f"| {key.replace('_', ' ')} | {value} |")
    return rows
