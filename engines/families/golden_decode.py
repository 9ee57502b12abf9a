# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the decoders: each family's published formula, computed by numpy, scipy, diffusers and tokenizers.

Run: python engines/families/golden_decode.py   (writes tests/policy/golden/decode.json)
Needs: numpy scipy diffusers torch tokenizers. Figures are of seed 0 and do not change between runs.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from scipy.fft import dct, idct
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parents[2] / "tests/policy/golden/decode.json"
rng = np.random.default_rng(0)


def floats(a):
    return [float(x) for x in np.asarray(a, dtype=np.float32).reshape(-1)]


def openvla():
    """openvla/openvla c8f03f48, prismatic/vla/action_tokenizer.py and modeling_prismatic.py: vocabulary tail."""
    vocab, edges = 32000, np.linspace(-1, 1, 256)
    centres = (edges[:-1] + edges[1:]) / 2.0
    ids = list(range(31744, 32000))
    values = [centres[int(np.clip(vocab - i - 1, 0, centres.size - 1))] for i in ids]
    q01 = rng.uniform(-0.05, 0.0, 7)
    q99 = q01 + rng.uniform(0.01, 0.1, 7)
    mask = [True] * 6 + [False]
    rows = []
    for _ in range(20):
        pick = rng.integers(31744, 32000, 7)
        n = np.array([values[i - 31744] for i in pick])
        rows.append({"ids": pick.tolist(), "action": floats(np.where(mask, 0.5 * (n + 1) * (q99 - q01) + q01, n))})
    return {"ids": ids, "values": floats(values), "q01": floats(q01), "q99": floats(q99), "mask": mask, "rows": rows}


def digitize():
    """openpi tokenizer.py and lerobot pi05: the state written into the prompt as bin numbers."""
    x = np.concatenate([[-1.5, -1.0001, -1, -0.9999, 0, 0.5, 0.992, 0.9921875, 1, 2], rng.uniform(-1.2, 1.2, 200)]).astype(np.float32)
    return {"x": floats(x), "bins": (np.digitize(x, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1).tolist()}


def rt1():
    """robotics_transformer 4569641b, tokenizers/action_tokenizer.py: continuous and one-hot dimensions."""
    rows = []
    for lo, hi in [(-1.0, 1.0), (-math.pi / 2, math.pi / 2), (-math.pi, math.pi), (-2.0, 2.0)]:
        for tok in range(256):
            rows.append([lo, hi, tok, float(np.float32(tok / 255 * (hi - lo) + lo))])
    enc = []
    for x in np.concatenate([[0.0, 0.5, -1.0, 1.0, 1.7], rng.uniform(-1.1, 1.1, 50)]).astype(np.float32):
        a = np.clip(x, np.float32(-1), np.float32(1))
        enc.append([float(x), int(((a + np.float32(1)) / np.float32(2) * np.float32(255)).astype(np.int32))])
    return {"decode": rows, "encode": enc}


def fast():
    """FAST (arXiv 2501.09747): quantised DCT of the chunk, as characters, byte-level BPE."""
    horizon, dim, scale, lowest = 10, 7, 10.0, -354
    chunks = []
    for _ in range(300):
        t = np.linspace(0, 1, horizon)[:, None]
        chunks.append(np.clip(rng.normal(0, 0.5, (1, dim)) + rng.normal(0, 0.6, (1, dim)) * np.sin(t * rng.uniform(1, 6, (1, dim))) + rng.normal(0, 0.02, (horizon, dim)), -1, 1))
    text = ["".join(chr(int(c) - lowest) for c in np.around(dct(c, axis=0, norm="ortho") * scale).reshape(-1)) for c in chunks]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(text, trainers.BpeTrainer(vocab_size=512, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    rows = []
    for chunk, line in zip(chunks[:12], text[:12]):
        ids = bpe.encode(line).ids
        back = np.array([ord(ch) for ch in bpe.decode(ids)]) + lowest
        rows.append({"ids": ids, "paligemma_ids": [257152 - 1 - 128 - i for i in ids],
                     "coefficients": back.tolist(), "chunk": floats(idct(back.reshape(horizon, dim) / scale, axis=0, norm="ortho")),
                     "before": floats(chunk)})
    return {"horizon": horizon, "dim": dim, "scale": scale, "min_token": lowest, "tokenizer": json.loads(bpe.to_str()), "rows": rows,
            "dct_of_1234": floats(dct([1.0, 2, 3, 4], norm="ortho"))}


def flow():
    """openpi pi0.py (t 1 -> 0, f32 accumulation) and Isaac-GR00T flow_matching_action_head.py (t 0 -> 1, buckets)."""
    out = {}
    start = rng.normal(size=6).astype(np.float32)

    def velocity(x, t):
        return (np.sin(x * np.float32(1.3)) - np.float32(t) * x).astype(np.float32)

    for steps in (5, 7, 10, 15):
        x, t, dt, times = start.copy(), np.float32(1.0), np.float32(-1.0 / steps), []
        while t >= -dt / 2:
            times.append(float(t))
            x = x + dt * velocity(x, t)
            t = np.float32(t + dt)
        out[f"down_{steps}"] = {"times": times, "x": floats(x)}
    x, buckets = start.copy(), []
    for i in range(4):
        buckets.append(int(i / 4 * 1000))
        x = x + np.float32(0.25) * velocity(x, np.float32(i / 4))
    out["up_4"] = {"buckets": buckets, "x": floats(x)}
    out["start"] = floats(start)
    return out


def fake_model(x, t):
    return torch.tanh(x * 0.7) * (0.5 + t / 200.0)


def run_scheduler(scheduler, steps, x0, noises, **kwargs):
    scheduler.set_timesteps(steps)
    x, taken = x0.clone(), []
    for i, t in enumerate(scheduler.timesteps):
        taken.append(int(t))
        extra = dict(kwargs)
        if isinstance(scheduler, DDPMScheduler):
            # Its own noise is replaced by ours, so that both sides draw the same.
            import diffusers.schedulers.scheduling_ddpm as module
            module.randn_tensor = lambda *a, i=i, **k: noises[i][None].clone()
        x = scheduler.step(fake_model(x, float(t))[None], t, x[None], **extra).prev_sample[0]
    return taken, x


def diffusion():
    """diffusers' own schedulers, and Octo's loop (octo 241fb351, model/components/action_heads.py)."""
    x0 = torch.tensor(rng.normal(size=8), dtype=torch.float32)
    noises = torch.tensor(rng.normal(size=(100, 8)), dtype=torch.float32)
    out = {"x0": floats(x0), "noises": [floats(n) for n in noises]}
    common = dict(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    out["betas"] = floats(DDPMScheduler(**common).betas)
    for prediction in ("epsilon", "sample", "v_prediction"):
        for steps in (100, 10):
            ts, x = run_scheduler(DDPMScheduler(**common, clip_sample=True, variance_type="fixed_small", prediction_type=prediction), steps, x0, noises)
            out[f"ddpm_{prediction}_{steps}"] = {"timesteps": ts, "x": floats(x)}
        for steps in (16, 10):
            ts, x = run_scheduler(DDIMScheduler(**common, clip_sample=True, set_alpha_to_one=True, steps_offset=0, prediction_type=prediction), steps, x0, noises)
            out[f"ddim_{prediction}_{steps}"] = {"timesteps": ts, "x": floats(x)}
    n, s = 20, 0.008
    t = np.linspace(0, n, n + 1) / n
    ac = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    betas = np.clip(1 - ac[1:] / ac[:-1], 0, 0.999)
    alphas, hats = 1 - betas, np.cumprod(1 - betas)
    x = x0.numpy().astype(np.float64)
    for i, step in enumerate(range(n - 1, -1, -1)):
        eps = np.tanh(x * 0.7) * (0.5 + step / 200.0)
        x = 1 / np.sqrt(alphas[step]) * (x - (1 - alphas[step]) / np.sqrt(1 - hats[step]) * eps)
        if step > 0:
            x = x + np.sqrt(betas[step]) * noises[i].numpy()
        x = np.clip(x, -5, 5)
    out["octo"] = {"betas": floats(betas), "hats": floats(hats), "x": floats(x)}
    return out


def pose():
    """BC-Z residual way-points: the offset is added to position and axis-angle of the pose at the observation."""
    now = rng.normal(size=6)
    delta = rng.normal(size=(10, 7))
    want = delta.copy()
    want[:, :6] += now
    want[:, 6] = 1 / (1 + np.exp(-delta[:, 6])) > 0.5
    return {"now": floats(now), "raw": floats(delta), "want": floats(want)}


OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps({"openvla": openvla(), "digitize": digitize(), "rt1": rt1(), "fast": fast(), "flow": flow(), "diffusion": diffusion(), "bcz": pose()}, separators=(",", ":")) + "\n")
print(OUT, OUT.stat().st_size)
