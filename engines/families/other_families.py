# SPDX-License-Identifier: Apache-2.0
"""RT-1, BC-Z, a humanoid with eight cameras, and a policy grounded by CLIP. From papers and published code; the reference
is the same network unsplit, fed by Pillow and numpy."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

from bundle import Bundle, noise_picture, seeded, vivid
from mini import FiLM, ViT, bpe_tokenizer, plain_layer
from token_families import CORPUS, channels_first


def table(b, rng, sentences, width):
    vectors = {s: rng.normal(size=width).astype(np.float32) for s in sentences}
    save_file(vectors, b.dir / "sentences.safetensors")
    b.tendon["text"] = {"kind": "table", "file": "sentences.safetensors", "width": width}
    return vectors


def rt1():
    rng = seeded(13)
    width, d, per, frames = 16, 24, 4, 6
    order = [{"kind": "choice", "name": "terminate_episode", "choices": 3}]
    for name, count, top in [("world_vector", 3, 1.0), ("rotation_delta", 3, math.pi / 2), ("gripper_closedness_action", 1, 1.0),
                             ("base_displacement_vertical_rotation", 1, math.pi), ("base_displacement_vector", 2, 1.0)]:
        order.append({"kind": "range", "name": name, "count": count, "low": -top, "high": top})
    tokens = 11

    class Tokenizer(nn.Module):
        """EfficientNet's inverted bottleneck with FiLM, then TokenLearner: `per` weighted sums of the picture's places."""

        def __init__(self):
            super().__init__()
            self.stem, self.expand, self.depth, self.project = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.Conv2d(16, d, 1)
            self.f1, self.f2, self.learn = FiLM(width, 8), FiLM(width, d), nn.Conv2d(d, per, 1)

        def forward(self, image, lang):
            x = self.f1(F.silu(self.stem(image.permute(0, 3, 1, 2))), lang)
            x = self.f2(self.project(F.silu(self.depth(F.silu(self.expand(x))))), lang)
            where = torch.softmax(self.learn(x).flatten(2), -1)
            return where @ x.flatten(2).transpose(1, 2)

    class Transformer(nn.Module):
        """Six times of picture tokens and action tokens; action tokens are masked, so they may be zeros; one pass gives all."""

        def __init__(self):
            super().__init__()
            layer = lambda: nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True)
            self.layers, self.head = nn.ModuleList(layer() for _ in range(2)), nn.Linear(d, 256)
            self.pos = nn.Parameter(torch.randn(1, frames * (per + tokens), d) * 0.5)

        def forward(self, ring, seen):
            x = torch.cat([ring.reshape(1, frames, per, d), torch.zeros(1, frames, tokens, d)], 2).reshape(1, -1, d) + self.pos
            step = per + tokens
            place = torch.arange(frames * step)
            is_action = ((place % step) >= per).float()
            valid = seen.reshape(1, frames, 1).expand(1, frames, step).reshape(1, -1)
            causal = (place[:, None] >= place[None]).float()
            see = torch.clamp(causal * valid * (1 - is_action[None]) + torch.eye(len(place)), max=1.0)
            for layer in self.layers:
                x = plain_layer(layer, x, see)
            return self.head(x[:, -tokens:])

    tok, tf = vivid(Tokenizer(), 1.5), vivid(Transformer(), 1.5)
    camera = {"role": "head", "source_size": [40, 30], "layout": "nhwc", "levels": [{"scale": 1 / 255}],
              "ops": [{"op": "resize", "width": 32, "height": 32, "fit": "stretch", "filter": "bilinear", "library": "pillow"}]}
    b = Bundle("rt1", "rt1", cameras=[camera], rings={"frames": {"of": "tok.tokens", "len": frames}},
               decoder={"kind": "rt1", "from": "tf.logits", "tokens": {"vocab": 256, "order": order}})
    sentences = ["pick apple", "open drawer"]
    vectors = table(b, rng, sentences, width)
    names = ["terminate", "dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper", "base_yaw", "base_x", "base_y"]
    units = ["fraction"] + ["m"] * 3 + ["rad"] * 3 + ["fraction", "rad", "m", "m"]
    b.tendon["action"] = {"names": names, "units": units, "horizon": 1, "period_ms": 333.0, "first_step_ms": 0.0, "post": [{"op": "deadband", "dims": [7], "below": 0.01}]}
    out = b.stage("tok", tok, {"image": (torch.zeros(1, 32, 32, 3), "camera.head"), "lang": (torch.zeros(1, width), "text.embedding")}, ["tokens"])[0]
    b.stage("tf", tf, {"frames": (torch.zeros(1, frames, *out.shape[1:]), "ring.frames"), "valid": (torch.zeros(1, frames), "ring.frames.seen")}, ["logits"])
    n, restart = 9, np.uint8([1, 0, 0, 0, 0, 0, 0, 1, 0])
    pics, said = [noise_picture(rng) for _ in range(n)], [sentences[0]] * 7 + [sentences[1]] * 2
    actions, window = [], []
    low = np.concatenate([[0]] + [[e["low"]] * e["count"] for e in order[1:]])
    high = np.concatenate([[0]] + [[e["high"]] * e["count"] for e in order[1:]])
    with torch.no_grad():
        for i in range(n):
            window = [] if restart[i] else window
            small = torch.from_numpy(np.array(Image.fromarray(pics[i]).resize((32, 32), Image.BILINEAR))).float()[None] / 255
            window = (window + [tok(small, torch.from_numpy(vectors[said[i]])[None])])[-frames:]
            gap = frames - len(window)
            ring = torch.cat([torch.zeros(gap, *out.shape[1:])] + window)[None]
            picked = tf(ring, torch.tensor([[0.0] * gap + [1.0] * len(window)]))[0].argmax(-1).numpy()
            a = picked / 255 * (high - low) + low
            a[0] = picked[0] if picked[0] < 3 else 0
            a[7] = 0 if abs(a[7]) < 0.01 else a[7]
            actions.append(a)
    b.finish(said, {"camera.head": np.stack(pics), "action": np.float32(actions)[:, None], "new_episode": restart, "time_ms": np.arange(n, dtype=np.int32) * 333}, hz=3.0)


def bcz():
    rng = seeded(14)
    width, points = 16, 10

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 5, 2, 2)
            self.convs, self.films = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(4)), nn.ModuleList(FiLM(width, 16) for _ in range(2))
            head = lambda n: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, points * n))
            self.xyz, self.angle, self.close = head(3), head(3), head(1)

        def forward(self, image, task):
            x = F.relu(self.stem(image))
            for i, film in enumerate(self.films):
                y = self.convs[2 * i + 1](F.relu(self.convs[2 * i](x)))
                x = F.relu(x + film(y, task))
            x = x.mean((2, 3))
            return torch.cat([h(x).reshape(1, points, -1) for h in (self.xyz, self.angle, self.close)], -1)

    net = vivid(Net(), 1.5)
    camera = {"role": "head", "source_size": [40, 30], "levels": [{"scale": 1 / 255}],
              "ops": [{"op": "center_crop", "width": 28, "height": 28}, {"op": "resize", "width": 20, "height": 20, "fit": "stretch", "filter": "bilinear", "library": "pillow"}]}
    b = Bundle("bcz", "bc-z", cameras=[camera], decoder={"kind": "regression", "from": "net.waypoints", "window": {"width": 7}})
    from token_families import planner

    # What the planner answers for its own fixture is among the sentences that this policy knows: together they are the hierarchy.
    plans = sorted(set(planner()))
    sentences = plans + ["place grapes in bowl"]
    vectors = table(b, rng, sentences, width)
    names = ["x", "y", "z", "ax", "ay", "az", "target_close"]
    units = ["m"] * 3 + ["rad"] * 3 + ["fraction"]
    b.tendon["state"] = {"names": names, "units": units}
    b.tendon["action"] = {"names": names, "units": units, "horizon": points, "period_ms": 100.0, "first_step_ms": 100.0,
                          "post": [{"op": "add_state", "mask": [True] * 6 + [False]}, {"op": "sigmoid", "dims": [6]}, {"op": "binarise", "dims": [6], "threshold": 0.5, "low": 0.0, "high": 1.0}]}
    b.stage("net", net, {"image": (torch.zeros(1, 3, 20, 20), "camera.head"), "task": (torch.zeros(1, width), "text.embedding")}, ["waypoints"])
    said = [sentences[-1], sentences[0], sentences[0]]
    pics, states, actions = [noise_picture(rng) for _ in said], rng.uniform(-0.5, 0.5, (3, 7)).astype(np.float32), []
    with torch.no_grad():
        for i, sentence in enumerate(said):
            cut = np.ascontiguousarray(pics[i][1:29, 6:34])
            small = channels_first(Image.fromarray(cut).resize((20, 20), Image.BILINEAR), [0.0] * 3, [1.0] * 3)[None]
            a = net(small, torch.from_numpy(vectors[sentence])[None])[0].numpy()
            a[:, :6] += states[i, :6]
            a[:, 6] = (1 / (1 + np.exp(-a[:, 6])) > 0.5).astype(np.float32)
            actions.append(a)
    b.finish(said, {"camera.head": np.stack(pics), "state": states, "action": np.float32(actions)}, hz=10.0)


def humanoid():
    rng = seeded(15)
    joints, horizon, memory, cams = 40, 4, 16, 8
    limbs = [f"{side}_{part}_{i}" for side in ("left", "right") for part, n in (("leg", 6), ("arm", 5), ("hand", 8)) for i in range(n)] + ["waist", "neck"]
    assert len(limbs) == joints

    class Net(nn.Module):
        """One backbone over all cameras as a batch, a learned mark for each camera, a memory, one head."""

        def __init__(self):
            super().__init__()
            self.c1, self.c2 = nn.Conv2d(3, 8, 5, 2, 2), nn.Conv2d(8, 16, 3, 2, 1)
            self.mark, self.query = nn.Parameter(torch.randn(cams, 16) * 0.5), nn.Parameter(torch.randn(1, 16))
            self.cell, self.head = nn.GRUCell(16 + joints, memory), nn.Linear(memory + joints, horizon * joints)

        def forward(self, images, joints_, memory_in):
            x = F.relu(self.c2(F.relu(self.c1(images)))).mean((2, 3)) + self.mark
            x = torch.softmax(self.query @ x.T, -1) @ x
            gi = F.linear(torch.cat([x, joints_], -1), self.cell.weight_ih, self.cell.bias_ih)
            gh = F.linear(memory_in, self.cell.weight_hh, self.cell.bias_hh)
            (ir, iz, in_), (hr, hz, hn) = gi.chunk(3, -1), gh.chunk(3, -1)
            r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
            h = (1 - z) * torch.tanh(in_ + r * hn) + z * memory_in
            return self.head(torch.cat([h, joints_], -1)).reshape(1, horizon, joints), h

    net = vivid(Net(), 1.3)
    level = {"scale": 1 / 255, "mean": [0.45] * 3, "std": [0.225] * 3}
    ops = [{"op": "resize", "width": 20, "height": 16, "fit": "stretch", "filter": "area", "library": "opencv"}]
    roles = [f"cam{i}" for i in range(cams)]
    b = Bundle("humanoid", "humanoid", cameras=[{"role": r, "source_size": [40, 32], "ops": ops, "levels": [level]} for r in roles], constants={"zero": {"fill": 0.0}},
               decoder={"kind": "regression", "from": "net.action", "window": {"width": joints}})
    stats = {f"{k}.{n}": v for k in ("state", "action") for n, v in (("mean", rng.uniform(-0.2, 0.2, joints).astype(np.float32)), ("std", rng.uniform(0.2, 0.6, joints).astype(np.float32)))}
    save_file(stats, b.dir / "stats.safetensors")
    ref = lambda key: {"file": "stats.safetensors", "key": key, "mode": "mean_std", "convention": "lerobot", "eps": 1e-8}
    b.tendon["state"] = {"names": limbs, "units": ["rad"] * joints, "stats": ref("state")}
    b.tendon["action"] = {"names": limbs, "units": ["rad"] * joints, "horizon": horizon, "period_ms": 20.0, "first_step_ms": 0.0, "stats": ref("action")}
    b.stage("net", net, {"images": (torch.zeros(cams, 3, 16, 20), [f"camera.{r}" for r in roles]), "joints": (torch.zeros(1, joints), "state"),
                         "memory_in": (torch.zeros(1, memory), "const.zero", "net.memory_out")}, ["action", "memory_out"])
    n, restart = 4, np.uint8([1, 0, 0, 1])
    pics = {r: [noise_picture(rng, 40, 32) for _ in range(n)] for r in roles}
    states, actions = rng.uniform(-0.6, 0.6, (n, joints)).astype(np.float32), []
    with torch.no_grad():
        for i in range(n):
            held = torch.zeros(1, memory) if restart[i] else held
            # Twice as large in both directions: OpenCV's area is the mean of four, its halves rounded up.
            small = [np.floor(pics[r][i].astype(np.float32).reshape(16, 2, 20, 2, 3).mean((1, 3)) + 0.5) for r in roles]
            images = torch.stack([(torch.from_numpy(s).permute(2, 0, 1) / 255 - 0.45) / 0.225 for s in small])
            state = torch.from_numpy((states[i] - stats["state.mean"]) / (stats["state.std"] + np.float32(1e-8)))[None]
            out, held = net(images, state, held)
            actions.append(out[0].numpy() * stats["action.std"] + stats["action.mean"])
    b.finish([""] * n, {**{f"camera.{r}": np.stack(p) for r, p in pics.items()}, "state": states, "action": np.float32(actions), "new_episode": restart}, hz=20.0)


def clip():
    rng = seeded(16)
    d, context, joints = 16, 24, 4
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    class ImageEncoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit, self.project = ViT(16, 28, 7), nn.Linear(16, d, bias=False)

        def forward(self, image):
            x = self.project(self.vit(image))
            return x / x.norm(dim=-1, keepdim=True)

    class TextEncoder(nn.Module):
        """Pooled at the end-of-text token, which has the highest id."""

        def __init__(self):
            super().__init__()
            self.embed, self.pos = nn.Embedding(322, 16), nn.Parameter(torch.randn(1, context, 16) * 0.3)
            self.layer, self.project = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True), nn.Linear(16, d, bias=False)

        def forward(self, ids):
            x = plain_layer(self.layer, self.embed(ids) + self.pos, torch.tril(torch.ones(context, context)))
            end = (ids == ids.max(1, keepdim=True)[0]).float()
            first = end * (torch.cumsum(end, 1) == 1).float()
            x = self.project((x * first[..., None]).sum(1))
            return x / x.norm(dim=-1, keepdim=True)

    class Ground(nn.Module):
        """Where in the picture the words are: cosine times the learned scale, softmax over the places, then a small policy."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
            self.mlp = nn.Sequential(nn.Linear(2 + d + joints, 32), nn.ReLU(), nn.Linear(32, 3 * joints))

        def forward(self, image, text, state):
            score = torch.clamp(self.scale.exp(), max=100.0) * (image @ text[:, :, None])[..., 0]
            where = torch.softmax(score, -1)
            place = torch.stack(torch.meshgrid(torch.linspace(0, 1, 4), torch.linspace(0, 1, 4), indexing="ij"), -1).reshape(1, 16, 2)
            at = (where[..., None] * place).sum(1)
            seen = (where[..., None] * image).sum(1)
            return self.mlp(torch.cat([at, seen, state], -1)).reshape(1, 3, joints), score

    image, text, ground = vivid(ImageEncoder(), 1.5), vivid(TextEncoder(), 1.5), vivid(Ground(), 1.3)
    camera = {"role": "wrist", "source_size": [40, 30], "levels": [{"scale": 1 / 255, "mean": list(mean), "std": list(std)}],
              "ops": [{"op": "resize", "width": 28, "height": 28, "fit": "cover", "filter": "bicubic", "library": "pillow"}]}
    b = Bundle("clip", "clip-grounded", cameras=[camera], decoder={"kind": "regression", "from": "ground.action", "window": {"width": joints}})
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", [c.lower() for c in CORPUS])
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "template": "{task}", "clean": [{"op": "strip"}, {"op": "lower"}], "prepend": [320], "append": [321], "max_len": context}
    names = [f"j{i}" for i in range(joints)]
    b.tendon["state"] = {"names": names, "units": ["rad"] * joints}
    b.tendon["action"] = {"names": names, "units": ["rad"] * joints, "horizon": 3, "period_ms": 100.0, "first_step_ms": 100.0, "post": [{"op": "add_state", "mask": [True] * joints}]}
    i = b.stage("image_encoder", image, {"image": (torch.zeros(1, 3, 28, 28), "camera.wrist")}, ["patches"])[0]
    t = b.stage("text_encoder", text, {"input_ids": (torch.ones(1, context, dtype=torch.int64), "text.ids")}, ["text"])[0]
    b.stage("ground", ground, {"image": (i, "image_encoder.patches"), "text": (t, "text_encoder.text"), "state": (torch.zeros(1, joints), "state")}, ["action", "score"])
    sentences = ["Pick up the red cube", "open the drawer", "open the drawer"]
    pics, states, actions = [noise_picture(rng) for _ in sentences], rng.uniform(-1, 1, (3, joints)).astype(np.float32), []
    from torchvision import transforms as T

    way = T.Compose([T.Resize(28, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(28), T.ToTensor(), T.Normalize(mean, std)])
    with torch.no_grad():
        for k, sentence in enumerate(sentences):
            ids = [320] + tokenizer.encode(sentence.strip().lower(), add_special_tokens=False).ids + [321]
            out = ground(image(way(Image.fromarray(pics[k]))[None]), text(torch.tensor([ids + [0] * (context - len(ids))])), torch.from_numpy(states[k])[None])[0]
            actions.append(out[0].numpy() + states[k])
    b.finish(sentences, {"camera.wrist": np.stack(pics), "state": states, "action": np.float32(actions)}, hz=10.0)
