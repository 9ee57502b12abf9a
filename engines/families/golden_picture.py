# SPDX-License-Identifier: Apache-2.0
"""Golden pictures: resizes by the libraries themselves, and normalisation and prompts by LeRobot and tokenizers.

Run: python engines/families/golden_picture.py          (Pillow, OpenCV, torch, lerobot; writes tests/policy/golden/)
     python engines/families/golden_picture.py --tf     (TensorFlow alone, in its own environment)
     python engines/families/golden_picture.py --n17    (lerobot 0.6.1[groot]: GR00T N1.7's normalisation alone, into the rest)
"""

import json
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "tests/policy/golden"


def noise(width, height, seed=7):
    n, state = width * height * 3, seed
    out = np.empty(n, np.uint8)
    for i in range(n):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return out.reshape(height, width, 3)


def smooth(width, height):
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * 3 + y * 2 + c * 40 + (x // 16 % 2) * 90 + (y // 24 % 2) * 60) % 256).astype(np.uint8)


SIZES = [("down", (160, 120), (56, 56)), ("up", (40, 30), (56, 64)), ("odd", (101, 67), (48, 31))]
SOURCES = {"noise": noise, "smooth": smooth}


def save(name, tensors):
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, OUT / name)
    print(name, (OUT / name).stat().st_size)


def tensorflow():
    import tensorflow as tf

    out = {}
    for kind, make in SOURCES.items():
        for case, (w, h), (ow, oh) in SIZES:
            image = make(w, h)
            for filter_, name in [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("lanczos3", "lanczos3")]:
                # bicubic of tf.image.resize(antialias=True) is Keys' with a = -0.5
                r = tf.image.resize(image, (oh, ow), method=filter_, antialias=True)
                out[f"tensorflow.{name}.{kind}.{case}"] = tf.cast(tf.clip_by_value(tf.round(r), 0, 255), tf.uint8).numpy()
            side = np.sqrt(0.9)
            box = [[(1 - side) / 2, (1 - side) / 2, (1 + side) / 2, (1 + side) / 2]]
            r = tf.image.crop_and_resize(image[None].astype(np.float32), box, [0], (oh, ow))[0]
            out[f"tensorflow.area09.{kind}.{case}"] = tf.cast(tf.clip_by_value(tf.round(r), 0, 255), tf.uint8).numpy()
    save("picture_tf.safetensors", out)


def pictures():
    import cv2
    import torch
    import torch.nn.functional as F
    import torchvision.transforms.v2.functional as tvf
    from PIL import Image
    from torchvision.transforms import InterpolationMode as Mode

    out = {}
    pil = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos3": Image.LANCZOS}
    for kind, make in SOURCES.items():
        for case, (w, h), (ow, oh) in SIZES:
            image = make(w, h)
            key = f"{kind}.{case}"
            for name, filter_ in pil.items():
                out[f"pillow.{name}.{key}"] = np.asarray(Image.fromarray(image).resize((ow, oh), filter_))
            chw = torch.from_numpy(image.copy()).permute(2, 0, 1)
            for name, mode in [("bilinear", Mode.BILINEAR), ("bicubic", Mode.BICUBIC)]:
                r = tvf.resize(chw, [oh, ow], interpolation=mode, antialias=True)
                out[f"torch_antialias.{name}.{key}"] = r.permute(1, 2, 0).numpy()
            floats = chw[None].float()
            out[f"torch.bilinear.{key}"] = F.interpolate(floats, (oh, ow), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
            out[f"torch.bicubic.{key}"] = F.interpolate(floats, (oh, ow), mode="bicubic", align_corners=False)[0].permute(1, 2, 0).numpy()
            out[f"opencv.bilinear.{key}"] = cv2.resize(image, (ow, oh), interpolation=cv2.INTER_LINEAR)
            out[f"opencv.bicubic.{key}"] = cv2.resize(image, (ow, oh), interpolation=cv2.INTER_CUBIC)
            if ow <= w and oh <= h:
                out[f"opencv.area.{key}"] = cv2.resize(image, (ow, oh), interpolation=cv2.INTER_AREA)

    # Whole ways: LeRobot's own functions, and CLIP's transform.
    from lerobot.policies.pi0.modeling_pi0 import resize_with_pad_torch
    from lerobot.policies.smolvla.modeling_smolvla import resize_with_pad

    image = noise(160, 120)
    chw = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    out["way.pi0_lerobot"] = (resize_with_pad_torch(chw.permute(0, 2, 3, 1), 56, 56) * 2 - 1)[0].permute(2, 0, 1).contiguous().numpy()
    out["way.smolvla"] = (resize_with_pad(chw, 64, 64, pad_value=0) * 2 - 1)[0].contiguous().numpy()
    from torchvision import transforms as T

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    clip = T.Compose([T.Resize(56, interpolation=Mode.BICUBIC), T.CenterCrop(56), T.ToTensor(), T.Normalize(mean, std)])
    out["way.clip"] = clip(Image.fromarray(image)).numpy()
    # Multi-Task DiT: normalised first, resized in floats, cropped.
    dit = T.Compose([T.Normalize(mean, std), T.Resize((36, 48), interpolation=Mode.BILINEAR, antialias=True), T.CenterCrop(32)])
    out["way.dit"] = dit(chw[0].contiguous()).numpy()
    # GR00T N1.7: a resize, its middle, and a resize of that, in bytes.
    from torchvision.transforms.v2 import functional as tvf2

    twice = tvf2.resize(torch.from_numpy(image.copy()).permute(2, 0, 1), [64, 64], interpolation=Mode.BICUBIC, antialias=True)[:, 3:61, 3:61]
    out["way.n17"] = tvf2.resize(twice, [64, 64], interpolation=Mode.BICUBIC, antialias=True).numpy().astype(np.float32)
    small = np.asarray(Image.fromarray(image[::-1, ::-1]).resize((56, 56), Image.LANCZOS))
    half = (small.astype(np.float32) / 255 - 0.5) / 0.5
    net = (small.astype(np.float32) / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    out["way.openvla"] = np.concatenate([net, half], axis=-1).transpose(2, 0, 1).astype(np.float32)
    save("picture.safetensors", out)


def normalising():
    import torch
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor import NormalizerProcessorStep

    rng = np.random.default_rng(1)
    width = 9
    low = rng.normal(size=width).astype(np.float32)
    stats = {
        "mean": rng.normal(size=width), "std": rng.uniform(0.01, 2, width), "min": low, "max": low + rng.uniform(0, 3, width),
        "q01": low + 0.01, "q99": low + rng.uniform(0.1, 2, width), "q10": low + 0.1, "q90": low + rng.uniform(0.2, 1, width),
    }
    stats = {k: np.asarray(v, np.float32) for k, v in stats.items()}
    stats["max"][3] = stats["min"][3]
    stats["q99"][4] = stats["q01"][4]
    x = rng.normal(size=(100, width)).astype(np.float32)
    out = {"stats": {k: v.tolist() for k, v in stats.items()}, "x": x.tolist(), "lerobot": {}, "openpi": {}, "rlds": {}, "groot": {}}
    modes = {"mean_std": "MEAN_STD", "min_max": "MIN_MAX", "quantiles": "QUANTILES", "quantile10": "QUANTILE10", "identity": "IDENTITY"}
    for name, mode in modes.items():
        step = NormalizerProcessorStep(
            features={"observation.state": PolicyFeature(FeatureType.STATE, (width,))},
            norm_map={FeatureType.STATE: NormalizationMode[mode]}, stats={"observation.state": stats}, eps=1e-8)
        t = torch.from_numpy(x)
        there = step._apply_transform(t, "observation.state", FeatureType.STATE, inverse=False)
        back = step._apply_transform(t, "observation.state", FeatureType.STATE, inverse=True)
        out["lerobot"][name] = {"in": there.tolist(), "out": back.tolist()}
    f = np.float32
    m, s, lo, hi, q1, q9 = (stats[k] for k in ("mean", "std", "min", "max", "q01", "q99"))
    out["openpi"]["mean_std"] = {"in": ((x - m) / (s + f(1e-6))).tolist(), "out": (x * (s + f(1e-6)) + m).tolist()}
    out["openpi"]["quantiles"] = {"in": ((x - q1) / (q9 - q1 + f(1e-6)) * 2 - 1).tolist(), "out": ((x + 1) / 2 * (q9 - q1 + f(1e-6)) + q1).tolist()}
    out["rlds"]["quantiles"] = {"in": np.clip(2 * (x - q1) / (q9 - q1 + f(1e-8)) - 1, -1, 1).tolist(), "out": (f(0.5) * (x + 1) * (q9 - q1) + q1).tolist()}
    def groot(a, b, same):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(a != b, 2 * ((x - a) / (b - a)) - 1, same)
    out["groot"]["min_max"] = {"in": groot(lo, hi, 0).tolist(), "out": ((x + 1) / 2 * (hi - lo) + lo).tolist()}
    out["groot"]["quantiles"] = {"in": np.clip(groot(q1, q9, x), -1, 1).tolist(), "out": ((x + 1) / 2 * (q9 - q1) + q1).tolist()}
    (OUT / "normalise.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


def normalising_n17():
    """LeRobot's own steps; what it calls min and max are quantiles where a checkpoint asks for them."""
    import torch
    from lerobot.lerobot_types import TransitionKey
    from lerobot.policies.groot.processor_groot import GrootActionUnpackUnnormalizeStep, GrootN17PackInputsStep

    path = OUT / "normalise.json"
    out = json.loads(path.read_text())
    x, out["groot_n17"] = torch.tensor(out["x"]), {}
    for name, (low, high) in {"min_max": ("min", "max"), "quantiles": ("q01", "q99")}.items():
        ends = {key: {"min": out["stats"][low], "max": out["stats"][high]} for key in ("observation.state", "action")}
        packed = GrootN17PackInputsStep(stats=ends, max_state_dim=x.shape[1])(
            {TransitionKey.OBSERVATION: {"observation.state": x}, TransitionKey.COMPLEMENTARY_DATA: {}})
        back = GrootActionUnpackUnnormalizeStep(stats=ends, clip_normalized_action=True)({TransitionKey.ACTION: x})
        out["groot_n17"][name] = {"in": packed[TransitionKey.OBSERVATION]["state"][:, 0].tolist(), "out": back[TransitionKey.ACTION].tolist()}
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n")


def prompts():
    """Three small tokenizers of the three kinds in use, and the prompts of the families through Python's tokenizers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    corpus = ["In: What action should the robot take to pick up the red cube?\nOut:", "Task: open the drawer, State: 12 255 0 -1 128;\nAction: ",
              "pick up the blue block and place it in the bowl\n", "close the drawer", "['push the button']"] * 4
    corpus += [f"State: {' '.join(str(i * 7 % 256 + j) for j in range(8))};" for i in range(60)]
    makers = {}
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=360, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    makers["bpe"] = bpe
    uni = Tokenizer(models.Unigram())
    uni.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    uni.pre_tokenizer = pre_tokenizers.Metaspace()
    uni.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=200, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"))
    makers["unigram"] = uni
    word = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    word.normalizer = normalizers.BertNormalizer()
    word.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    word.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=200, show_progress=False, special_tokens=["[PAD]", "[UNK]"]))
    makers["wordpiece"] = word
    rng = np.random.default_rng(2)
    rows = []
    for sentence in ["Pick up the red cube", " open_the drawer\n", "push the 'big' button!", "mettez la tasse à gauche", "mets « la tasse » là…"]:
        state = rng.uniform(-1.3, 1.3, 7).astype(np.float32)
        digits = lambda s: " ".join(map(str, (np.digitize(s, bins=np.linspace(-1, 1, 257)[:-1]) - 1).tolist()))
        clean = sentence.strip().replace("_", " ").replace("\n", " ")
        texts = {
            "openvla": f"In: What action should the robot take to {sentence.lower()}?\nOut:",
            "pi0": clean,
            "pi05": f"Task: {clean}, State: {digits(state)};\nAction: ",
            "pi05_lerobot": f"Task: {clean}, State: {digits(np.pad(state, (0, 25)))};\nAction: ",
            "groot": str([sentence]),
            "n17": "".join(c for c in sentence.lower() if c.isalnum() or c.isspace() or c == "_"),
        }
        for family, text in texts.items():
            rows.append({"family": family, "sentence": sentence, "state": [float(v) for v in state], "text": text,
                         "ids": {k: t.encode(text, add_special_tokens=False).ids for k, t in makers.items()}})
    (OUT / "prompt.json").write_text(json.dumps({"tokenizers": {k: json.loads(t.to_str()) for k, t in makers.items()}, "rows": rows}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if "--tf" in sys.argv:
        tensorflow()
    elif "--n17" in sys.argv:
        normalising_n17()
    else:
        pictures()
        normalising()
        prompts()
