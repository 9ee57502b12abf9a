# SPDX-License-Identifier: Apache-2.0
"""pi0, pi0.5, GR00T and Octo: a prefix read once, an action denoised in steps. From papers and published code; the
reference runs prefix and suffix together in one pass without cache or padding, and its own loop in torch."""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bundle import Bundle, noise_picture, seeded, vivid
from mini import RMS, Block, ViT, bpe_tokenizer, plain_layer
from token_families import CORPUS, HALF, SENTENCES, digits, openpi_stats


def sincos(t, d, low=4e-3, high=4.0):
    period = low * (high / low) ** torch.linspace(0, 1, d // 2, dtype=torch.float64).float()
    angle = t[:, None] * (2 * math.pi / period)[None]
    return torch.cat([angle.sin(), angle.cos()], -1)


class AdaRMS(nn.Module):
    """RMSNorm whose scale, shift and gate come from the time (pi0.5)."""

    def __init__(self, d):
        super().__init__()
        self.mod = nn.Linear(d, 3 * d)

    def forward(self, x, cond):
        scale, shift, gate = self.mod(cond)[:, None].chunk(3, -1)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + scale) + shift, gate


class Pi(nn.Module):
    """PaliGemma beside an action expert that reads its keys and values; a state token (pi0) or adaRMS (pi0.5)."""

    def __init__(self, vocab, horizon, ada, d=32, e=24, layers=2, width=32):
        super().__init__()
        self.ada, self.horizon, self.e = ada, horizon, e
        self.vit, self.project = ViT(16, 28, 14), nn.Linear(16, d)
        self.embed = nn.Embedding(vocab, d)
        self.vlm = nn.ModuleList(Block(d, 2, 8) for _ in range(layers))
        self.expert = nn.ModuleList(Block(e, 2, 8) for _ in range(layers))
        self.action_in, self.action_out, self.last = nn.Linear(width, e), nn.Linear(e, width), RMS(e)
        if ada:
            self.time1, self.time2 = nn.Linear(e, e), nn.Linear(e, e)
            self.mods = nn.ModuleList(nn.ModuleList([AdaRMS(e), AdaRMS(e)]) for _ in range(layers))
            self.last = AdaRMS(e)
        else:
            self.state_proj, self.mlp1, self.mlp2 = nn.Linear(width, e), nn.Linear(2 * e, e), nn.Linear(e, e)

    def join(self, images, ids):
        return torch.cat([self.project(self.vit(i)) for i in images] + [self.embed(ids) * math.sqrt(32)], 1)

    def prefix(self, x, valid):
        """valid [1, S] of 1 and 0; every valid token sees every other."""
        position = torch.cumsum(valid, 1)[0] - 1
        cache = []
        for block in self.vlm:
            x, k, v = block.whole(x, position, valid)
            cache.append((k, v))
        return cache

    def velocity(self, cache, valid, x_t, t, state=None):
        a = self.action_in(x_t)
        emb = sincos(t, self.e)
        if self.ada:
            cond = F.silu(self.time2(F.silu(self.time1(emb))))
            suffix, n_state = a, 0
        else:
            a = self.mlp2(F.silu(self.mlp1(torch.cat([a, emb[:, None].expand_as(a)], -1))))
            suffix, n_state = torch.cat([self.state_proj(state)[:, None], a], 1), 1
        n = suffix.shape[1]
        position = valid.sum() + torch.arange(n).float()
        own = torch.ones(n, n)
        if n_state:
            own[0, 1:] = 0  # the state sees no action; the actions see the state and one another
        mask = torch.cat([valid.expand(n, valid.shape[1]), own], 1)
        x = suffix
        for i, block in enumerate(self.expert):
            if self.ada:
                h, gate = self.mods[i][0](x, cond)
            else:
                h, gate = block.n1(x), 1.0
            k, v = block.keys(h, position)
            k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
            x = x + gate * block.attend(h, position, k, v, mask)
            if self.ada:
                h, gate = self.mods[i][1](x, cond)
            else:
                h = block.n2(x)
            x = x + gate * block.mlp(h)
        x = self.last(x, cond)[0] if self.ada else self.last(x)
        return self.action_out(x[:, n_state:])


class PiPrefix(nn.Module):
    def __init__(self, pi, patches):
        super().__init__()
        self.pi, self.patches = pi, patches

    def forward(self, base, left, right, mask_base, mask_left, mask_right, ids, mask):
        valid = torch.cat([m.reshape(1, 1).expand(1, self.patches) for m in (mask_base, mask_left, mask_right)] + [mask], 1).float()
        cache = self.pi.prefix(self.pi.join([base, left, right], ids), valid)
        return (valid, *[t for kv in cache for t in kv])


class PiExpert(nn.Module):
    def __init__(self, pi):
        super().__init__()
        self.pi = pi

    def forward(self, valid, x_t, t, *rest):
        state, flat = (None, rest) if self.pi.ada else (rest[0], rest[1:])
        return self.pi.velocity(list(zip(flat[::2], flat[1::2])), valid, x_t, t, state)


def pi(name, family, ada, seed):
    rng = seeded(seed)
    horizon, prompt, patches, joints = 6, 80 if ada else 24, 4, 7
    model = vivid(Pi(400, horizon, ada), 1.2)
    roles = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"]
    ops = [{"op": "resize", "width": 28, "height": 28, "fit": "pad_center", "filter": "bilinear", "library": "pillow"}]
    cameras = [{"role": r, "source_size": [40, 30], "ops": ops, "levels": [HALF]} for r in roles]
    for camera in cameras[1:]:
        camera["missing"] = -1.0
    b = Bundle(name, family, cameras=cameras, loop={"kind": "flow", "velocity": "expert.v_t", "flow": {"t_start": 1.0, "t_end": 0.0, "steps": 10, "time": {"kind": "f32"}}},
               decoder={"kind": "sample", "width": 32})
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)
    clean = [{"op": "strip"}, {"op": "replace", "from": "_", "to": " "}, {"op": "replace", "from": "\n", "to": " "}]
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": clean, "prepend": [1], "max_len": prompt}
    if ada:
        b.tendon["text"].update({"template": "Task: {task}, State: {state};\nAction: ", "state_digits": {"bins": 256, "low": -1.0, "high": 1.0}})
    else:
        b.tendon["text"].update({"template": "{task}", "append": newline})
    stats = openpi_stats(b, rng, joints)
    mode = "quantiles" if ada else "mean_std"
    ref = lambda key: {"file": "norm_stats.json", "key": f"norm_stats.{key}", "mode": mode, "convention": "openpi"}
    names = [f"joint_{i}" for i in range(6)] + ["gripper"]
    units = ["rad"] * 6 + ["fraction"]
    delta = [True] * 6 + [False]
    b.tendon["state"] = {"names": names, "units": units, "stats": ref("state")}
    b.tendon["action"] = {"names": names, "units": units, "horizon": horizon, "period_ms": 20.0, "first_step_ms": 0.0, "stats": ref("actions"),
                          "post": [{"op": "add_state", "mask": delta}]}
    image, one, ids = torch.zeros(1, 3, 28, 28), torch.ones(1, dtype=torch.int32), torch.ones(1, prompt, dtype=torch.int64)
    inputs = {f"img_{i}": (image, f"camera.{r}") for i, r in enumerate(roles)}
    inputs.update({f"mask_{i}": (one, f"camera.{r}.seen") for i, r in enumerate(roles)})
    inputs.update({"lang_tokens": (ids, "text.ids"), "lang_masks": (ids.int(), "text.mask")})
    past = [f"past_{kv}_{i}" for i in range(2) for kv in "kv"]
    valid, *flat = b.stage("prefix", PiPrefix(model, patches), inputs, ["valid", *past])
    inputs = {"valid": (valid, "prefix.valid"), "x_t": (torch.zeros(1, horizon, 32), "loop.x"), "t": (torch.ones(1), "loop.time")}
    if not ada:
        inputs["state"] = (torch.zeros(1, 32), "state")
    inputs.update({p: (t, f"prefix.{p}") for p, t in zip(past, flat)})
    b.stage("expert", PiExpert(model), inputs, ["v_t"])
    # The third camera is missing in two frames: a picture of -1 that nothing looks at.
    missing = np.uint8([0, 1, 1, 0])
    pics = {r: [noise_picture(rng) for _ in SENTENCES] for r in roles}
    states = rng.uniform(-1, 1, (4, joints)).astype(np.float32)
    noise = rng.normal(size=(4, horizon, 32)).astype(np.float32)
    actions = []
    from PIL import Image

    from token_families import channels_first

    def prepared(picture):
        canvas = Image.new("RGB", (28, 28))
        canvas.paste(Image.fromarray(picture).resize((28, 21), Image.BILINEAR), (0, 3))
        return channels_first(canvas, [0.5] * 3, [0.5] * 3)[None]

    f = np.float32
    with torch.no_grad():
        for i, sentence in enumerate(SENTENCES):
            s, a = ({k: f(v) for k, v in stats[key].items()} for key in ("state", "actions"))
            state = (states[i] - s["mean"]) / (s["std"] + f(1e-6)) if not ada else (states[i] - s["q01"]) / (s["q99"] - s["q01"] + f(1e-6)) * 2 - 1
            clean = sentence.strip().replace("_", " ").replace("\n", " ")
            text = f"Task: {clean}, State: {digits(state)};\nAction: " if ada else clean
            ids = [1] + tokenizer.encode(text, add_special_tokens=False).ids + ([] if ada else newline)
            images = [prepared(pics[r][i]) for k, r in enumerate(roles) if not (k == 2 and missing[i])]
            x = model.join(images, torch.tensor([ids]))
            valid = torch.ones(1, x.shape[1])
            padded = torch.from_numpy(np.pad(state, (0, 32 - joints)).astype(f))[None]
            x_t, dt = torch.from_numpy(noise[i])[None], torch.tensor(-0.1)
            t = torch.tensor(1.0)
            while t >= -dt / 2:
                cache = model.prefix(x, valid)
                x_t = x_t + dt * model.velocity(cache, valid, x_t, t[None], padded)
                t = t + dt
            out = x_t[0, :, :joints].numpy()
            out = out * (a["std"] + f(1e-6)) + a["mean"] if not ada else (out + 1) / 2 * (a["q99"] - a["q01"] + f(1e-6)) + a["q01"]
            out[:, delta] += states[i][delta]
            actions.append(out)
    fixture = {"state": states, "action": np.float32(actions), "noise": noise.reshape(4, -1), "camera.right_wrist_0_rgb.missing": missing}
    b.finish(SENTENCES, {**fixture, **{f"camera.{r}": np.stack(p) for r, p in pics.items()}}, hz=2.0)


def pi0():
    pi("pi0", "pi0", False, 9)


def pi05():
    pi("pi05", "pi0.5", True, 10)


class GrootHead(nn.Module):
    """State and action encoders of an embodiment, a DiT that looks at the backbone at every other layer, a decoder."""

    def __init__(self, d=24, dim=32, embodiments=3, vl=32):
        super().__init__()
        table = lambda i, o: nn.Parameter(torch.randn(embodiments, i, o) / math.sqrt(i))
        self.state_w, self.act_w, self.act_w2, self.out_w = table(64, d), table(dim, d), table(2 * d, d), table(d, dim)
        self.d, self.future = d, nn.Parameter(torch.randn(1, 2, d) * 0.3)
        self.pos, self.vl = nn.Parameter(torch.randn(1, 8, d) * 0.3), nn.Linear(vl, d)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2))
        self.ada = nn.ModuleList(nn.Linear(d, 2 * d) for _ in range(2))
        self.q, self.k, self.v, self.cross = (nn.Linear(d, d) for _ in range(4))

    def forward(self, vl, vl_mask, state, actions, bucket, embodiment):
        pick = lambda w: w[embodiment][0]
        emb = sincos(bucket.float() / 1000.0, self.d, 1e-3, 1.0)
        a = actions @ pick(self.act_w)
        a = F.silu(torch.cat([a, emb[:, None].expand_as(a)], -1) @ pick(self.act_w2)) + self.pos[:, :a.shape[1]]
        x = torch.cat([(state @ pick(self.state_w))[:, None], self.future, a], 1)
        vl = self.vl(vl)
        for i, layer in enumerate(self.layers):
            scale, shift = self.ada[i](F.silu(emb))[:, None].chunk(2, -1)
            x = x * (1 + scale) + shift
            if i % 2 == 0:
                score = self.q(x) @ self.k(vl).transpose(1, 2) / math.sqrt(self.d) + (1 - vl_mask[:, None]) * -1e9
                x = x + self.cross(torch.softmax(score, -1) @ self.v(vl))
            x = plain_layer(layer, x)
        return x[:, -actions.shape[1]:] @ pick(self.out_w)


def groot():
    from PIL import Image

    from token_families import channels_first

    rng = seeded(11)
    joints, horizon, prompt = 6, 4, 40
    vit, project, embed = vivid(ViT(16, 28, 14), 1.3), vivid(nn.Linear(16, 32)), vivid(nn.Embedding(400, 32))
    llm, head = vivid(nn.ModuleList(Block(32) for _ in range(2)), 1.2), vivid(GrootHead(), 1.2)

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit, self.project, self.embed, self.llm = vit, project, embed, llm

        def forward(self, pixel_values, ids, mask):
            x = torch.cat([self.project(self.vit(pixel_values)), self.embed(ids)], 1)
            valid = torch.cat([torch.ones(1, 4), mask.float()], 1)
            position = torch.cumsum(valid, 1)[0] - 1
            t = x.shape[1]
            see = torch.tril(torch.ones(t, t)) * valid
            for block in self.llm:
                x = block.whole(x, position, see)[0]
            return x, valid

    ops = [{"op": "resize", "width": 28, "height": 28, "fit": "stretch", "filter": "bicubic", "library": "pillow"}]
    b = Bundle("groot", "gr00t-n1.5", cameras=[{"role": "ego_view", "source_size": [40, 30], "ops": ops, "levels": [HALF]}], constants={"embodiment": {"fill": 2.0}},
               loop={"kind": "flow", "velocity": "dit.velocity", "flow": {"t_start": 0.0, "t_end": 1.0, "steps": 4, "time": {"kind": "bucket", "count": 1000}}},
               decoder={"kind": "sample", "width": 32})
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": [{"op": "python_list"}], "max_len": prompt, "pad_side": "left"}
    low, high = rng.uniform(-1.5, -0.5, joints).round(5), rng.uniform(0.5, 1.5, joints).round(5)
    (b.dir / "statistics.json").write_text(json.dumps({"so100": {"min": low.tolist(), "max": high.tolist()}}) + "\n")
    names = [f"j{i}" for i in range(joints)]
    ref = {"file": "statistics.json", "key": "so100", "mode": "min_max", "convention": "groot"}
    b.tendon["state"] = {"names": names, "units": ["rad"] * joints, "stats": ref}
    b.tendon["action"] = {"names": names, "units": ["rad"] * joints, "horizon": horizon, "period_ms": 50.0, "first_step_ms": 0.0, "stats": ref}
    ids = torch.ones(1, prompt, dtype=torch.int64)
    vl, valid = b.stage("backbone", Backbone(), {"pixel_values": (torch.zeros(1, 3, 28, 28), "camera.ego_view"), "input_ids": (ids, "text.ids"), "attention_mask": (ids, "text.mask")}, ["embeddings", "mask"])
    b.stage("dit", head, {"vl_embs": (vl, "backbone.embeddings"), "vl_mask": (valid, "backbone.mask"), "state": (torch.zeros(1, 64), "state"), "actions": (torch.zeros(1, horizon, 32), "loop.x"),
                          "timesteps_tensor": (torch.zeros(1, dtype=torch.int64), "loop.time"), "embodiment_id": (torch.full((1,), 2, dtype=torch.int64), "const.embodiment")}, ["velocity"])
    sentences = ["pick up the cube", "don't stop", "don't stop"]
    pics = [noise_picture(rng) for _ in sentences]
    states = rng.uniform(-0.4, 0.4, (3, joints)).astype(np.float32)
    noise = rng.normal(size=(3, horizon, 32)).astype(np.float32)
    actions = []
    lo, hi = np.float32(low), np.float32(high)
    with torch.no_grad():
        for i, sentence in enumerate(sentences):
            ids = torch.tensor([tokenizer.encode(str([sentence]), add_special_tokens=False).ids])
            pixels = channels_first(Image.fromarray(pics[i]).resize((28, 28), Image.BICUBIC), [0.5] * 3, [0.5] * 3)[None]
            vl, valid = Backbone()(pixels, ids, torch.ones_like(ids))
            state = torch.from_numpy(np.pad(2 * (states[i] - lo) / (hi - lo) - 1, (0, 64 - joints)).astype(np.float32))[None]
            x = torch.from_numpy(noise[i])[None]
            for step in range(4):
                x = x + 0.25 * head(vl, valid, state, x, torch.tensor([int(step / 4 * 1000)]), torch.tensor([2]))
            actions.append((x[0, :, :joints].numpy() + 1) / 2 * (hi - lo) + lo)
    b.finish(sentences, {"camera.ego_view": np.stack(pics), "state": states, "action": np.float32(actions), "noise": noise.reshape(3, -1)}, hz=5.0)


def octo():
    rng = seeded(12)
    d, horizon, dim, prompt, steps = 24, 4, 7, 16, 20
    layer = lambda: nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True)

    class T5(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer = nn.Embedding(250, d), layer()

        def forward(self, ids, mask):
            return plain_layer(self.layer, self.embed(ids), mask.float()[:, None, None])

    class Obs(nn.Module):
        """Picture tokens of two times, a readout each; a time sees itself and what came before, and what is padding nobody."""

        def __init__(self):
            super().__init__()
            self.stem, self.layers = nn.Conv2d(3, d, 8, 8), nn.ModuleList(layer() for _ in range(2))
            self.pos, self.readout = nn.Parameter(torch.randn(1, 2, 1, d) * 0.3), nn.Parameter(torch.randn(1, 2, 1, d) * 0.3)

        def forward(self, image, seen, lang, lang_mask):
            x = (image / 127.5 - 1.0)[0].permute(0, 3, 1, 2)
            x = self.stem(x).flatten(2).transpose(1, 2)[None] + self.pos
            n = x.shape[2]
            x = torch.cat([x, self.readout], 2).reshape(1, 2 * (n + 1), d)
            tokens = torch.cat([lang, x], 1)
            time = torch.cat([torch.full((lang.shape[1],), -1.0), torch.zeros(n + 1), torch.ones(n + 1)])
            valid = torch.cat([lang_mask.float(), seen.reshape(1, 2, 1).expand(1, 2, n + 1).reshape(1, -1)], 1)
            readouts = torch.cat([torch.zeros(lang.shape[1] + n), torch.ones(1), torch.zeros(n), torch.ones(1)])
            see = (time[:, None] >= time[None]).float() * valid * torch.clamp(1 - readouts[None] + torch.eye(len(time)), max=1.0)
            for one in self.layers:
                tokens = plain_layer(one, tokens, see)
            out = tokens[:, lang.shape[1]:].reshape(1, 2, n + 1, d)
            return out[:, :, n]

    class Eps(nn.Module):
        def __init__(self):
            super().__init__()
            self.freq, self.time = nn.Parameter(torch.randn(1, 8)), nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 16))
            self.inp, self.blocks, self.out = nn.Linear(d + 16 + horizon * dim, 32), nn.ModuleList(nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32)) for _ in range(2)), nn.Linear(32, horizon * dim)

        def forward(self, readout, x, t):
            angle = 2 * math.pi * (t.float() / steps) @ self.freq
            h = self.inp(torch.cat([self.time(torch.cat([angle.cos(), angle.sin()], -1)), readout, x], -1))
            for block in self.blocks:
                h = h + block(h)
            return self.out(F.silu(h))

    t5, obs, eps = vivid(T5(), 1.2), vivid(Obs(), 1.2), vivid(Eps(), 1.0)
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    camera = {"role": "primary", "source_size": [40, 30], "levels": [{"scale": 1.0}], "layout": "nhwc", "history": 2, "spacing_ms": 200.0,
              "ops": [{"op": "resize", "width": 32, "height": 32, "fit": "stretch", "filter": "lanczos3", "library": "pillow"}]}
    schedule = {"scheduler": "octo", "train_steps": steps, "steps": steps, "betas": {"kind": "squared_cosine", "max": 0.999}, "prediction": "epsilon", "clip": 5.0}
    b = Bundle("octo", "octo", cameras=[camera], loop={"kind": "diffusion", "said": "denoise.eps", "schedule": schedule}, decoder={"kind": "sample", "start": horizon * dim, "width": dim})
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=200, show_progress=False, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(b.dir / "tokenizer.json"))
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "special_tokens": True, "max_len": prompt, "too_long": "cut"}
    names = ["dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"]
    stats = {"mean": rng.uniform(-0.01, 0.01, dim).round(5).tolist(), "std": rng.uniform(0.01, 0.05, dim).round(5).tolist(), "mask": [True] * 6 + [False]}
    (b.dir / "dataset_statistics.json").write_text(json.dumps({"bridge_dataset": {"action": stats}}) + "\n")
    b.tendon["action"] = {"names": names, "units": ["m"] * 3 + ["rad"] * 3 + ["fraction"], "horizon": horizon, "period_ms": 200.0, "first_step_ms": 0.0,
                          "stats": {"file": "dataset_statistics.json", "key": "bridge_dataset.action", "mode": "mean_std", "convention": "rlds"}}
    ids = torch.ones(1, prompt, dtype=torch.int64)
    lang = b.stage("t5", t5, {"input_ids": (ids, "text.ids"), "attention_mask": (ids, "text.mask")}, ["lang"])[0]
    readout = b.stage("obs", obs, {"image_primary": (torch.zeros(1, 2, 32, 32, 3), "camera.primary"), "timestep_pad_mask": (torch.ones(1, 2), "camera.primary.seen"), "lang": (lang, "t5.lang"),
                                   "lang_mask": (ids, "text.mask")}, ["readout"])[0]
    b.stage("denoise", eps, {"readout": (readout, "obs.readout"), "x": (torch.zeros(1, 2, horizon * dim), "loop.x"), "t": (torch.zeros(1, 2, 1, dtype=torch.int32), "loop.time")}, ["eps"])
    sentences = ["open the drawer", "open the drawer", "put the blue block in the bowl and then close it and wipe the table with the sponge twice"]
    from PIL import Image

    pics = [noise_picture(rng) for _ in sentences]
    noise = rng.normal(size=(3, steps, 2, horizon * dim)).astype(np.float32)
    ac = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.float32([min(1 - ac((i + 1) / steps) / ac(i / steps), 0.999) for i in range(steps)])
    alphas = 1 - betas
    hats = np.cumprod(alphas, dtype=np.float32)
    restart = np.uint8([1, 0, 1])
    actions, window = [], None
    with torch.no_grad():
        for i, sentence in enumerate(sentences):
            small = torch.from_numpy(np.array(Image.fromarray(pics[i]).resize((32, 32), Image.LANCZOS))).float()
            if restart[i]:
                window = None
            window, seen = ((small, small), [0.0, 1.0]) if window is None else ((window[1], small), [1.0, 1.0])
            tokens = tokenizer.encode(sentence).ids[:prompt]
            padded = torch.tensor([tokens + [0] * (prompt - len(tokens))])
            mask = torch.tensor([[1] * len(tokens) + [0] * (prompt - len(tokens))])
            readout = obs(torch.stack(window)[None], torch.tensor([seen]), t5(padded, mask), mask)
            x = torch.from_numpy(noise[i, 0])[None]
            for turn, t in enumerate(range(steps - 1, -1, -1)):
                said = eps(readout, x, torch.full((1, 2, 1), t, dtype=torch.int32))
                x = 1 / math.sqrt(alphas[t]) * (x - float((1 - alphas[t]) / math.sqrt(1 - hats[t])) * said)
                if t > 0:
                    x = x + math.sqrt(betas[t]) * torch.from_numpy(noise[i, turn + 1])[None]
                x = x.clamp(-5, 5)
            n = x[0, 1].reshape(horizon, dim).numpy()
            actions.append(np.where(stats["mask"], n * np.float32(stats["std"]) + np.float32(stats["mean"]), n))
    b.finish(sentences, {"camera.primary": np.stack(pics), "action": np.float32(actions), "noise": noise.reshape(3, -1), "new_episode": restart, "time_ms": np.int32([0, 200, 900])}, hz=5.0)
