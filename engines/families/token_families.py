# SPDX-License-Identifier: Apache-2.0
"""OpenVLA, OpenVLA-OFT, RT-2, pi0-FAST and a planner: policies that are language models. From papers and published code;
the reference runs the model unsplit, without cache and padding, and decodes by the published formula in numpy."""

import json

import numpy as np
import torch
from PIL import Image
from torch import nn

from bundle import Bundle, noise_picture, seeded, vivid
from mini import RMS, Block, Speaker, ViT, bpe_tokenizer, speaking_stages, words_tokenizer

EE = ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]
EE_UNITS = ["m"] * 3 + ["rad"] * 3 + ["fraction"]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}
NET = {"scale": 1 / 255, "mean": IMAGENET[0], "std": IMAGENET[1]}
CORPUS = ["In: What action should the robot take to pick up the red cube?\nOut:", "open the drawer", "put the blue block in the bowl", "close it"] * 3 + \
         [f"Task: push, State: {i} {255 - i};\n" for i in range(0, 256, 5)]
SENTENCES = ["Pick up the red cube", "Pick up the red cube", "open the drawer", "put the blue block in the bowl"]


def channels_first(picture, mean, std):
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


class TwoEyes(nn.Module):
    """DINOv2 beside SigLIP on six channels, features side by side, projector of three layers."""

    def __init__(self, size=28, patch=14, d=32):
        super().__init__()
        self.dino, self.siglip = ViT(12, size, patch), ViT(16, size, patch)
        self.projector = nn.Sequential(nn.Linear(28, 48), nn.GELU(), nn.Linear(48, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, pixel_values):
        return self.projector(torch.cat([self.dino(pixel_values[:, :3]), self.siglip(pixel_values[:, 3:])], -1))


def openvla_levels(picture):
    small = Image.fromarray(picture).resize((28, 28), Image.LANCZOS)
    return torch.cat([channels_first(small, *IMAGENET), channels_first(small, [0.5] * 3, [0.5] * 3)])


def bridge_statistics(rng, width=7):
    low = rng.uniform(-0.05, -0.02, width).round(6).tolist()
    high = rng.uniform(0.02, 0.06, width).round(6).tolist()
    return {"q01": low, "q99": high, "mean": [0.0] * width, "std": [0.02] * width, "min": low, "max": high, "mask": [True] * (width - 1) + [False]}


def q99(n, s):
    q01, top, mask = (np.array(s[k]) for k in ("q01", "q99", "mask"))
    return np.where(mask, 0.5 * (n + 1) * (top - q01) + q01, n)


def openvla():
    rng = seeded(3)
    vocab, bins, prompt, patches = 576, 256, 48, 4
    eyes, speaker = vivid(TwoEyes(d=24), 1.5), vivid(Speaker(vocab, patches, prompt, 7, d=24), 1.5)
    camera = {"role": "primary", "source_size": [40, 30], "levels": [NET, HALF],
              "ops": [{"op": "resize", "width": 28, "height": 28, "fit": "stretch", "filter": "lanczos3", "library": "pillow"}]}
    b = Bundle("openvla", "openvla", cameras=[camera],
               loop={"kind": "tokens", "first": "prefill.logits", "next": "decode.logits", "max": 7, "exactly": True, "allowed": {"from": vocab - bins, "count": bins}, "position_offset": patches},
               decoder={"kind": "vocabulary_tail", "vocab": vocab, "bins": bins})
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)
    last = 300
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": [{"op": "lower"}], "template": "In: What action should the robot take to {task}?\nOut:",
                        "prepend": [1], "append_if_missing": last, "max_len": prompt}
    stats = bridge_statistics(rng)
    (b.dir / "dataset_statistics.json").write_text(json.dumps({"bridge_orig": {"action": stats}}) + "\n")
    b.tendon["action"] = {"names": EE, "units": EE_UNITS, "horizon": 1, "period_ms": 200.0, "first_step_ms": 0.0,
                          "stats": {"file": "dataset_statistics.json", "key": "bridge_orig.action", "mode": "quantiles", "convention": "rlds"},
                          "post": [{"op": "binarise", "dims": [6], "threshold": 0.5, "low": 0.0, "high": 1.0}]}
    patches_ = b.stage("vision", eyes, {"pixel_values": (torch.zeros(1, 6, 28, 28), "camera.primary")}, ["patches"])[0]
    speaking_stages(b, speaker, patches_)
    pictures, actions = [noise_picture(rng) for _ in SENTENCES], []
    edges = np.linspace(-1, 1, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    with torch.no_grad():
        for picture, sentence in zip(pictures, SENTENCES):
            ids = [1] + tokenizer.encode(f"In: What action should the robot take to {sentence.lower()}?\nOut:", add_special_tokens=False).ids
            ids += [last] if ids[-1] != last else []
            said = speaker.speak(ids, eyes(openvla_levels(picture)[None]), 7, allowed=(vocab - bins, bins))
            n = centres[np.clip(vocab - np.array(said) - 1, 0, bins - 2)]
            a = q99(n, stats)
            a[6] = 1.0 if a[6] > 0.5 else 0.0
            actions.append(a)
    b.finish(SENTENCES, {"camera.primary": np.stack(pictures), "action": np.float32(actions)[:, None]}, hz=5.0)


class OftHead(nn.Module):
    """MLPResNet: all hidden states of one action side by side -> that action."""

    def __init__(self, d, dim, hidden=32):
        super().__init__()
        self.n0, self.fc1 = nn.LayerNorm(d * dim), nn.Linear(d * dim, hidden)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU()) for _ in range(2))
        self.n1, self.fc2, self.dim = nn.LayerNorm(hidden), nn.Linear(hidden, dim), dim

    def forward(self, hidden):
        x = hidden.reshape(1, -1, self.dim * hidden.shape[-1])
        x = torch.relu(self.fc1(self.n0(x)))
        for block in self.blocks:
            x = x + block(x)
        return self.fc2(self.n1(x))


class OftPass(nn.Module):
    """[BOS] + patches + state token + prompt + empty places + stop, every token seeing every other; padding is not seen."""

    def __init__(self, vocab, patches, joints, places, d=32):
        super().__init__()
        self.embed, self.blocks, self.norm = nn.Embedding(vocab, d), nn.ModuleList(Block(d) for _ in range(2)), RMS(d)
        self.proprio = nn.Sequential(nn.Linear(joints, d), nn.GELU(), nn.Linear(d, d))
        self.places, self.n_patches = places, patches

    def forward(self, ids, mask, patches, state):
        e = self.embed(ids)
        stop = self.embed(torch.full((1, 1), 2, dtype=torch.int64))
        extra = self.n_patches + 1
        x = torch.cat([e[:, :1], patches, self.proprio(state)[:, None], e[:, 1:], torch.zeros(1, self.places, e.shape[-1]), stop], 1)
        m = mask.float()
        m = torch.cat([m[:, :1], torch.ones(1, extra), m[:, 1:], torch.ones(1, self.places + 1)], 1)
        position = torch.cumsum(m, 1)[0] - 1
        for block in self.blocks:
            x = block.whole(x, position, m)[0]
        start = extra + ids.shape[1]
        return self.norm(x)[:, start:start + self.places]


def oft():
    rng = seeded(4)
    vocab, prompt, k, dim, joints = 330, 48, 4, 7, 8
    size, patch = 28, 14
    eye = vivid(TwoEyes(size, patch), 1.5)
    body, head = vivid(OftPass(vocab, 8, joints, k * dim), 1.3), vivid(OftHead(32, dim), 1.2)

    class Vision(nn.Module):
        def __init__(self):
            super().__init__()
            self.eye = eye

        def forward(self, pixel_values):
            return torch.cat([self.eye(pixel_values[:, :6]), self.eye(pixel_values[:, 6:])], 1)

    ops = [{"op": "rotate180"}, {"op": "resize", "width": 28, "height": 28, "fit": "stretch", "filter": "lanczos3", "library": "pillow"}]
    b = Bundle("openvla_oft", "openvla-oft", cameras=[{"role": r, "source_size": [40, 30], "ops": ops, "levels": [NET, HALF]} for r in ("primary", "wrist")],
               decoder={"kind": "regression", "from": "head.actions", "window": {"width": dim}})
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": [{"op": "lower"}], "template": "In: What action should the robot take to {task}?\nOut:",
                        "prepend": [1], "max_len": prompt}
    action, proprio = bridge_statistics(rng), bridge_statistics(rng, joints)
    del proprio["mask"]
    (b.dir / "dataset_statistics.json").write_text(json.dumps({"libero": {"action": action, "proprio": proprio}}) + "\n")
    stats = lambda key: {"file": "dataset_statistics.json", "key": f"libero.{key}", "mode": "quantiles", "convention": "rlds"}
    b.tendon["state"] = {"names": [f"p{i}" for i in range(joints)], "units": ["m"] * 3 + ["rad"] * 3 + ["m"] * 2, "stats": stats("proprio")}
    # LIBERO: 0 close, 1 open in the data; -1 open, +1 close for the robot.
    b.tendon["action"] = {"names": EE, "units": EE_UNITS, "horizon": k, "period_ms": 50.0, "first_step_ms": 0.0, "stats": stats("action"),
                          "post": [{"op": "affine", "dims": [6], "mul": 2.0, "add": -1.0}, {"op": "binarise", "dims": [6], "threshold": 0.0, "low": -1.0, "high": 1.0},
                                   {"op": "affine", "dims": [6], "mul": -1.0, "add": 0.0}]}
    patches = b.stage("vision", Vision(), {"pixel_values": (torch.zeros(1, 12, 28, 28), ["camera.primary", "camera.wrist"])}, ["patches"])[0]
    ids = torch.ones(1, prompt, dtype=torch.int64)
    hidden = b.stage("llm", body, {"input_ids": (ids, "text.ids"), "mask": (ids, "text.mask"), "patches": (patches, "vision.patches"), "proprio": (torch.zeros(1, joints), "state")}, ["hidden"])[0]
    b.stage("head", head, {"hidden": (hidden, "llm.hidden")}, ["actions"])
    pics = {r: [noise_picture(rng) for _ in SENTENCES] for r in ("primary", "wrist")}
    states = rng.uniform(-0.04, 0.04, (len(SENTENCES), joints)).astype(np.float32)
    actions = []
    with torch.no_grad():
        for i, sentence in enumerate(SENTENCES):
            ids = torch.tensor([[1] + tokenizer.encode(f"In: What action should the robot take to {sentence.lower()}?\nOut:", add_special_tokens=False).ids])
            pixels = torch.cat([openvla_levels(np.ascontiguousarray(pics[r][i][::-1, ::-1])) for r in ("primary", "wrist")])[None]
            lo, hi = np.float32(proprio["q01"]), np.float32(proprio["q99"])
            state = torch.from_numpy(np.clip(2 * (states[i] - lo) / (hi - lo + np.float32(1e-8)) - 1, -1, 1))[None]
            out = head(body(ids, torch.ones_like(ids), Vision()(pixels), state))[0].numpy()
            a = q99(out, action)
            a[:, 6] = np.where(2 * a[:, 6] - 1 > 0, -1.0, 1.0)
            actions.append(a)
    # One of 255 at a half of the resize is 4e-4 of the range here: random weights and a layer norm make much of little.
    b.finish(SENTENCES, {"action": np.float32(actions), "state": states, **{f"camera.{r}": np.stack(p) for r, p in pics.items()}}, hz=5.0, bound=1e-3)


def one_eye(role="front", size=28):
    return {"role": role, "source_size": [40, 30], "levels": [HALF],
            "ops": [{"op": "resize", "width": size, "height": size, "fit": "stretch", "filter": "bicubic", "library": "pillow"}]}


def one_eye_reference(picture, size=28):
    return channels_first(Image.fromarray(picture).resize((size, size), Image.BICUBIC), [0.5] * 3, [0.5] * 3)[None]


class Eye(nn.Module):
    def __init__(self, size=28, patch=14, d=32):
        super().__init__()
        self.vit, self.projector = ViT(16, size, patch), nn.Linear(16, d)

    def forward(self, pixel_values):
        return self.projector(self.vit(pixel_values))


def rt2():
    rng = seeded(5)
    words = ["Q", ":", "what", "action", "should", "the", "robot", "take", "to", "?", "A", "pick", "up", "red", "cube", "open", "drawer", "put", "blue", "block", "in", "bowl"]
    numbers = [str(i) for i in range(256)]
    base, prompt, patches = 4 + len(words), 32, 4
    vocab = base + 256
    eye, speaker = vivid(Eye(d=24), 1.5), vivid(Speaker(vocab, patches, prompt, 8, d=24), 1.5)
    bounds = [("terminate", 0.0, 1.0), ("dx", -0.1, 0.1), ("dy", -0.1, 0.1), ("dz", -0.1, 0.1), ("droll", -0.5, 0.5), ("dpitch", -0.5, 0.5), ("dyaw", -0.5, 0.5), ("gripper", 0.0, 1.0)]
    b = Bundle("rt2", "rt2", cameras=[one_eye()],
               loop={"kind": "tokens", "first": "prefill.logits", "next": "decode.logits", "max": 8, "exactly": True, "allowed": {"from": base, "count": 256}, "position_offset": patches},
               decoder={"kind": "text_integers", "tokenizer": "tokenizer.json", "integers": {"bins": 256, "fields": [{"name": n, "low": lo, "high": hi} for n, lo, hi in bounds]}})
    tokenizer = words_tokenizer(b.dir / "tokenizer.json", words + numbers)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "template": "Q: what action should the robot take to {task}? A:", "clean": [{"op": "lower"}], "prepend": [1], "max_len": prompt}
    b.tendon["action"] = {"names": [n for n, *_ in bounds], "units": ["fraction", "m", "m", "m", "rad", "rad", "rad", "fraction"], "horizon": 1, "period_ms": 333.0, "first_step_ms": 0.0}
    p = b.stage("vision", eye, {"pixel_values": (torch.zeros(1, 3, 28, 28), "camera.front")}, ["patches"])[0]
    speaking_stages(b, speaker, p)
    pictures, actions = [noise_picture(rng) for _ in SENTENCES], []
    with torch.no_grad():
        for picture, sentence in zip(pictures, SENTENCES):
            ids = [1] + tokenizer.encode(f"Q: what action should the robot take to {sentence.lower()}? A:").ids
            said = speaker.speak(ids, eye(one_eye_reference(picture)), 8, allowed=(base, 256))
            integers = [int(w) for w in tokenizer.decode(said).split()]
            actions.append([lo + i / 255 * (hi - lo) for i, (_, lo, hi) in zip(integers, bounds)])
    b.finish(SENTENCES, {"camera.front": np.stack(pictures), "action": np.float32(actions)[:, None]}, hz=3.0)


def planner():
    rng = seeded(6)
    words = ["Human", ":", "Robot", ".", "bring", "me", "the", "apple", "pick", "up", "go", "to", "table", "drawer", "open", "place", "it", "hand", "wipe", "sponge"]
    prompt, patches, vocab = 24, 4, 4 + len(words)
    eye, speaker = vivid(Eye(), 2.0), vivid(Speaker(vocab, patches, prompt, 4), 2.0)
    b = Bundle("planner", "palm-e", cameras=[one_eye()],
               loop={"kind": "tokens", "first": "prefill.logits", "next": "decode.logits", "max": 4, "stop": [2], "position_offset": patches,
                     "allowed": {"from": 2, "count": vocab - 2}},
               decoder={"kind": "sentence", "tokenizer": "tokenizer.json"})
    tokenizer = words_tokenizer(b.dir / "tokenizer.json", words)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "template": "Human: {task}. Robot:", "prepend": [1], "max_len": prompt}
    p = b.stage("vision", eye, {"pixel_values": (torch.zeros(1, 3, 28, 28), "camera.front")}, ["patches"])[0]
    speaking_stages(b, speaker, p)
    sentences = ["bring me the apple", "wipe the table", "open the drawer"]
    pictures, answers = [noise_picture(rng) for _ in sentences], []
    with torch.no_grad():
        for picture, sentence in zip(pictures, sentences):
            ids = [1] + tokenizer.encode(f"Human: {sentence}. Robot:").ids
            answers.append(tokenizer.decode(speaker.speak(ids, eye(one_eye_reference(picture)), 4, allowed=(2, vocab - 2), stop=(2,))).strip())
    b.finish(sentences, {"camera.front": np.stack(pictures)}, answers=answers, hz=1.0)
    return answers


def digits(state):
    return " ".join(map(str, (np.digitize(state, bins=np.linspace(-1, 1, 257)[:-1]) - 1).tolist()))


def openpi_stats(b, rng, joints):
    make = lambda: {"mean": rng.uniform(-0.3, 0.3, joints).round(5).tolist(), "std": rng.uniform(0.3, 0.9, joints).round(5).tolist(),
                    "q01": rng.uniform(-1.2, -0.6, joints).round(5).tolist(), "q99": rng.uniform(0.6, 1.2, joints).round(5).tolist()}
    stats = {"norm_stats": {"state": make(), "actions": make()}}
    (b.dir / "norm_stats.json").write_text(json.dumps(stats) + "\n")
    return stats["norm_stats"]


def pi0_fast():
    from scipy.fft import idct
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    rng = seeded(7)
    horizon, dim, prompt, patches = 4, 3, 80, 4
    # FAST's own alphabet: one token a character, of the middle of the coefficients' range.
    chars = [chr(354 + c) for c in range(-30, 31)]
    alphabet = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = [alphabet.pre_tokenize_str(c)[0][0] for c in chars]
    letters = sorted(set("".join(pieces)) | set(pre_tokenizers.ByteLevel.alphabet()))
    vocab = {c: i for i, c in enumerate(letters)}
    merges = []
    for piece in pieces:
        vocab[piece] = len(vocab)
        merges.append((piece[0], piece[1]))
    fast = Tokenizer(models.BPE(vocab, merges))
    fast.pre_tokenizer, fast.decoder = alphabet, decoders.ByteLevel()
    first, count, words = len(letters), len(chars), 400
    eye, speaker = vivid(Eye(d=24), 1.5), vivid(Speaker(words, patches, prompt, horizon * dim, d=24, prefix_sees_all=True), 1.5)
    id_from = words - 1
    camera = {"role": "base_0_rgb", "source_size": [40, 30], "levels": [HALF],
              "ops": [{"op": "resize", "width": 28, "height": 28, "fit": "pad_center", "filter": "bilinear", "library": "pillow"}]}
    # A language model of random weights would not count: it may only say one-character tokens, and as many as there are numbers.
    b = Bundle("pi0_fast", "pi0-fast", cameras=[camera],
               loop={"kind": "tokens", "first": "prefill.logits", "next": "decode.logits", "max": horizon * dim, "exactly": True, "position_offset": patches,
                     "allowed": {"from": id_from - (first + count - 1), "count": count}},
               decoder={"kind": "fast", "tokenizer": "fast.json", "scale": 10.0, "min_token": -354, "horizon": horizon, "dim": dim, "id_from": id_from})
    fast.save(str(b.dir / "fast.json"))
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "template": "Task: {task}, State: {state};\n", "prepend": [1], "max_len": prompt,
                        "clean": [{"op": "strip"}, {"op": "replace", "from": "_", "to": " "}, {"op": "lower"}], "state_digits": {"bins": 256, "low": -1.0, "high": 1.0}}
    stats = openpi_stats(b, rng, dim)
    names = ["j1", "j2", "slide"]
    ref = lambda key: {"file": "norm_stats.json", "key": f"norm_stats.{key}", "mode": "quantiles", "convention": "openpi"}
    b.tendon["state"] = {"names": names, "units": ["rad", "rad", "m"], "stats": ref("state")}
    b.tendon["action"] = {"names": names, "units": ["rad", "rad", "m"], "horizon": horizon, "period_ms": 66.0, "first_step_ms": 0.0, "stats": ref("actions")}
    p = b.stage("vision", eye, {"pixel_values": (torch.zeros(1, 3, 28, 28), "camera.base_0_rgb")}, ["patches"])[0]
    speaking_stages(b, speaker, p)
    pictures = [noise_picture(rng) for _ in SENTENCES]
    states = rng.uniform(-1.3, 1.3, (len(SENTENCES), dim)).astype(np.float32)
    actions = []
    one = np.float32(1e-6)
    with torch.no_grad():
        for i, sentence in enumerate(SENTENCES):
            q1, q9 = (np.float32(stats["state"][k]) for k in ("q01", "q99"))
            state = (states[i] - q1) / (q9 - q1 + one) * 2 - 1
            ids = [1] + tokenizer.encode(f"Task: {sentence.strip().replace('_', ' ').lower()}, State: {digits(state)};\n", add_special_tokens=False).ids
            canvas = Image.new("RGB", (28, 28))
            canvas.paste(Image.fromarray(pictures[i]).resize((28, 21), Image.BILINEAR), (0, 3))
            pixels = channels_first(canvas, [0.5] * 3, [0.5] * 3)[None]
            said = speaker.speak(ids, eye(pixels), horizon * dim, allowed=(id_from - (first + count - 1), count))
            text = fast.decode([id_from - t for t in said])
            coefficients = (np.array([ord(c) for c in text]) - 354).reshape(horizon, dim)
            n = idct(coefficients / 10.0, axis=0, norm="ortho")
            q1, q9 = (np.float64(stats["actions"][k]) for k in ("q01", "q99"))
            actions.append((n + 1) / 2 * (q9 - q1 + 1e-6) + q1)
    b.finish(SENTENCES, {"camera.base_0_rgb": np.stack(pictures), "state": states, "action": np.float32(actions)}, hz=1.0)
