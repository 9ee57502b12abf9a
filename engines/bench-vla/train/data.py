"""Exported frames: loading, tokenising, statistics, augmentation.

A frame is one observation with the expert's chunk from exactly there. The Rust exporter draws the pictures,
resizes them and writes the sentences, so that training sees what the runtime will see, made by the same code.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers import models, normalizers, pre_tokenizers

MAX_LEN = 16
CHUNK_LEN = 16
PERIOD_MS = 50
PAD, UNK = 0, 1
JOINTS = ["base_yaw", "shoulder_pitch", "elbow_pitch", "forearm_roll", "wrist_pitch", "tool_roll"]
STATE_NAMES = JOINTS + ["gripper", "vacuum"]
ACTION_NAMES = JOINTS + ["gripper"]
# Joints that work are commanded relative to where they were seen; joints that rest are commanded to their rest, or the
# noise of each observation would move them.
RELATIVE = ["base_yaw", "shoulder_pitch", "elbow_pitch", "wrist_pitch"]
IS_RELATIVE = np.array([name in RELATIVE for name in JOINTS])
COLOURS = ["red", "green", "blue", "yellow", "purple", "orange"]
# Words that carry the meaning: never dropped from a sentence while its label stays.
KEEP = set(COLOURS + ["left", "right"])


@dataclass
class Frames:
    image: np.ndarray  # u8 [N,96,96,3]
    state: np.ndarray  # f32 [N,8] raw
    action: np.ndarray  # f32 [N,16,7] raw: joint targets (minus state if relative), gripper 0/1
    uv: np.ndarray  # f32 [N,2] named block in the picture, 0..1; -1 if absent
    xyz: np.ndarray  # f32 [N,3] named block, metres
    tip: np.ndarray  # f32 [N,3] suction tip, metres
    present: np.ndarray  # f32 [N]
    text: list
    tokens: np.ndarray = None  # i32 [N,16]

    def __len__(self):
        return len(self.state)


def load(folders):
    """Reads and joins exported folders."""
    parts = []
    for folder in map(Path, folders):
        arrays = {
            name: np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in ("images", "state", "actions", "block_uv", "block_xyz", "tip_xyz", "present")
        }
        text = json.loads((folder / "text.json").read_text())
        count = len(text)
        expected = {
            "images": (count, 96, 96, 3), "state": (count, 8), "actions": (count, CHUNK_LEN, 7),
            "block_uv": (count, 2), "block_xyz": (count, 3), "tip_xyz": (count, 3), "present": (count,),
        }
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise SystemExit(f"{folder}/{name}.npy: expected shape {shape}, found {arrays[name].shape}")
        floats = {name: array.astype(np.float32) for name, array in arrays.items() if name != "images"}
        floats["actions"][:, :, :6] += np.where(IS_RELATIVE, 0.0, floats["state"][:, None, :6]).astype(np.float32)
        parts.append(Frames(
            image=arrays["images"], state=floats["state"], action=floats["actions"], uv=floats["block_uv"],
            xyz=floats["block_xyz"], tip=floats["tip_xyz"], present=floats["present"], text=text,
            tokens=np.zeros((count, MAX_LEN), np.int32),
        ))
    return join(parts)


def absolute(state, joints):
    """Joint targets [N,6] of a chunk's step as angles."""
    return joints + np.where(IS_RELATIVE, state[:, :6], 0.0)


def join(parts):
    """Several sets of frames as one."""
    merge = lambda values: np.concatenate(values) if isinstance(values[0], np.ndarray) else sum(values, [])
    return Frames(*(merge([getattr(part, field.name) for part in parts]) for field in fields(Frames)))


def build_tokenizer(sentences, min_count=2):
    """One id a word: lower-case, punctuation removed, words seen in training; everything else is [UNK]."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": PAD, "[UNK]": UNK}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("removed"), pre_tokenizers.WhitespaceSplit()])
    counts = {}
    for sentence in sentences:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(sentence.lower()):
            counts[word] = counts.get(word, 0) + 1
    words = sorted(word for word, count in counts.items() if count >= min_count)
    vocabulary = {"[PAD]": PAD, "[UNK]": UNK} | {word: 2 + i for i, word in enumerate(words)}
    tokenizer.model = models.WordLevel(vocabulary, unk_token="[UNK]")
    return tokenizer


def encode(tokenizer, sentences):
    """Ids padded with 0 to 16. A longer sentence is an error, here as at run time: it is never cut."""
    cache = {}
    rows = np.zeros((len(sentences), MAX_LEN), np.int32)
    for row, sentence in zip(rows, sentences):
        if sentence not in cache:
            ids = tokenizer.encode(sentence).ids
            if len(ids) > MAX_LEN:
                raise ValueError(f"{len(ids)} words, at most {MAX_LEN}: {sentence!r}")
            cache[sentence] = ids
        row[: len(cache[sentence])] = cache[sentence]
    return rows


def statistics(frames):
    """LeRobot's flat keys. A dimension that never moves gets a std of 1e-3, not 0."""
    out = {}
    for key, values in (("observation.state", frames.state), ("action", frames.action.reshape(-1, 7))):
        values = values.astype(np.float64)
        out[f"{key}.mean"] = values.mean(0)
        out[f"{key}.std"] = np.maximum(values.std(0), 1e-3)
        out[f"{key}.min"] = values.min(0)
        out[f"{key}.max"] = values.max(0)
        out[f"{key}.q01"] = np.quantile(values, 0.01, axis=0)
        out[f"{key}.q99"] = np.quantile(values, 0.99, axis=0)
    return {key: value.astype(np.float32) for key, value in out.items()}


class Batcher:
    """Random augmented batches. Photometric changes only: moving the picture would falsify the geometry."""

    def __init__(self, frames, tokenizer, seed):
        self.frames = frames
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(512, 3, 96, 96, generator=self.torch_rng)
        vocabulary = tokenizer.get_vocab()
        self.keep = np.array([vocabulary[word] for word in KEEP if word in vocabulary] + [PAD])
        self.meaning, self.wordings = wordings(frames)
        self.colours = np.array([vocabulary[word] for word in COLOURS if word in vocabulary])

    def geometry(self, size):
        """Labels without pictures: cheap, for the head alone."""
        index = self.rng.integers(0, len(self.frames), size)
        return self._labels(index)

    def pictures(self, size):
        index = np.sort(self.rng.integers(0, len(self.frames), size))
        batch = self._labels(index)
        batch["image"] = self._augment(torch.from_numpy(self.frames.image[index]))
        return batch

    def _labels(self, index):
        f = self.frames
        tokens, action, present = f.tokens[index].copy(), f.action[index], f.present[index].copy()
        # The same order in other words.
        for row in np.flatnonzero(self.rng.random(len(index)) < 0.5):
            same = self.wordings.get(self.meaning[index[row]])
            if same is not None:
                tokens[row] = same[self.rng.integers(len(same))]
        # An unknown colour is an absent colour: hold, whatever the rest of the sentence says.
        is_colour = np.isin(tokens, self.colours)
        unknown = is_colour.any(1) & (self.rng.random(len(index)) < 0.03)
        if unknown.any():
            tokens[unknown[:, None] & is_colour] = UNK
            present[unknown] = 0.0
            action = action.copy()
            action[unknown, :, :6] = 0.0
            action[unknown, :, 6] = f.state[index][unknown, None, 6]
        # Words that carry no colour or side may be unknown.
        drop = (self.rng.random(tokens.shape) < 0.15) & ~np.isin(tokens, self.keep)
        drop &= (self.rng.random(len(index)) < 0.6)[:, None]
        tokens[drop] = UNK
        as_tensor = torch.from_numpy
        return {
            "state": as_tensor(f.state[index]), "tokens": as_tensor(tokens), "action": as_tensor(action),
            "uv": as_tensor(f.uv[index]), "xyz": as_tensor(f.xyz[index]), "tip": as_tensor(f.tip[index]),
            "present": as_tensor(present),
        }

    def _augment(self, pixels):
        n, g = len(pixels), self.torch_rng
        image = pixels.permute(0, 3, 1, 2).float().div_(255.0)
        uniform = lambda lo, hi, *shape: torch.rand(n, *shape, generator=g) * (hi - lo) + lo
        gain = uniform(0.88, 1.12, 1, 1, 1) * uniform(0.95, 1.05, 3, 1, 1)
        offset = uniform(-0.05, 0.05, 1, 1, 1)
        image = image.mul_(gain).add_(offset)
        # Noise from a stock: drawing it afresh would cost as much as a convolution.
        start = int(self.rng.integers(0, len(self.noise) - n))
        image.add_(self.noise[start : start + n] * uniform(-0.025, 0.025, 1, 1, 1))
        # Now and then a small patch hides something.
        for i in range(0, n, 5):
            x, y, side = self.rng.integers(0, 90), self.rng.integers(0, 90), self.rng.integers(3, 7)
            image[i, :, y : y + side, x : x + side] = float(self.rng.random())
        return image.clamp_(0.0, 1.0)


def wordings(frames):
    """What each sentence asks for (colour and side; None if unclear), and all sentences that ask the same."""
    # A sentence that never asked for anything stays what it is.
    asks = {sentence for sentence, present in zip(frames.text, frames.present) if present}
    meaning, tokens = [], {}
    for sentence, row in zip(frames.text, frames.tokens):
        said = set(sentence.lower().replace(",", " ").split())
        colours, sides = said & set(COLOURS), said & {"left", "right"}
        clear = sentence in asks and len(colours) == 1 and len(sides) < 2
        key = (min(colours), min(sides, default="")) if clear else None
        meaning.append(key)
        if key:
            tokens.setdefault(key, {})[row.tobytes()] = row
    return meaning, {key: np.stack(list(rows.values())) for key, rows in tokens.items()}
