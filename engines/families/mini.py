# SPDX-License-Identifier: Apache-2.0
"""Parts that the families share: transformer blocks with a key-value cache, a small ViT, FiLM, small tokenizers.

Written from the papers: RMSNorm, rotary positions, grouped queries and gated MLP (Llama, Gemma); pre-norm ViT.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class RMS(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.w = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.w


def rope(x, position):
    """x [.., T, d], position [T] float."""
    half = x.shape[-1] // 2
    freq = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angle = position[:, None] * freq[None]
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """One layer of a language model. `key_dim` is of the shared keys, so that an expert of another width can read them."""

    def __init__(self, d, heads=2, hd=8, hidden=None, kv_heads=1):
        super().__init__()
        self.heads, self.hd, self.kvh = heads, hd, kv_heads
        hidden = hidden or 2 * d
        self.n1, self.n2 = RMS(d), RMS(d)
        self.q, self.k, self.v = (nn.Linear(d, h * hd, bias=False) for h in (heads, kv_heads, kv_heads))
        self.o = nn.Linear(heads * hd, d, bias=False)
        self.gate, self.up, self.down = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False), nn.Linear(hidden, d, bias=False)

    def keys(self, x, position):
        """x normed [1,T,d] -> k, v [1,kvh,T,hd]"""
        t = x.shape[1]
        k = self.k(x).reshape(1, t, self.kvh, self.hd).transpose(1, 2)
        v = self.v(x).reshape(1, t, self.kvh, self.hd).transpose(1, 2)
        return rope(k, position), v

    def attend(self, x, position, k, v, mask):
        """mask [T, S]: 1 where a row may look."""
        t = x.shape[1]
        q = rope(self.q(x).reshape(1, t, self.heads, self.hd).transpose(1, 2), position)
        k, v = k.repeat(1, self.heads // self.kvh, 1, 1), v.repeat(1, self.heads // self.kvh, 1, 1)
        score = q @ k.transpose(2, 3) / math.sqrt(self.hd) + (1.0 - mask) * -1e9
        out = (torch.softmax(score, -1) @ v).transpose(1, 2).reshape(1, t, self.heads * self.hd)
        return self.o(out)

    def mlp(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))

    def whole(self, x, position, mask):
        n = self.n1(x)
        k, v = self.keys(n, position)
        x = x + self.attend(n, position, k, v, mask)
        return x + self.mlp(self.n2(x)), k, v


class ViT(nn.Module):
    """Patches, learned positions, pre-norm layers; the output of the last but one, as OpenVLA takes it."""

    def __init__(self, d, size, patch, layers=2, channels=3):
        super().__init__()
        self.patch = nn.Conv2d(channels, d, patch, patch)
        self.pos = nn.Parameter(torch.randn(1, (size // patch) ** 2, d) * 0.3)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(d, 2, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(layers))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.pos
        for layer in self.layers[:-1] if len(self.layers) > 1 else self.layers:
            x = plain_layer(layer, x)
        return x


def plain_layer(layer, x, mask=None):
    """nn.TransformerEncoderLayer without its fused path, which has no ONNX."""
    n, d = layer.norm1(x), x.shape[-1]
    heads = layer.self_attn.num_heads
    q, k, v = F.linear(n, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, -1)
    b, t = x.shape[0], x.shape[1]
    split = lambda z: z.reshape(b, t, heads, d // heads).transpose(1, 2)
    score = split(q) @ split(k).transpose(2, 3) / math.sqrt(d // heads)
    if mask is not None:
        score = score + (1.0 - mask) * -1e9
    out = (torch.softmax(score, -1) @ split(v)).transpose(1, 2).reshape(b, t, d)
    x = x + layer.self_attn.out_proj(out)
    return x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))


class Speaker(nn.Module):
    """A vision-language model: `[first token] + patches + the rest of the prompt`, then tokens one by one."""

    def __init__(self, vocab, patches, prompt, answer, d=32, layers=2, prefix_sees_all=False):
        super().__init__()
        self.embed = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList(Block(d) for _ in range(layers))
        self.norm, self.head = RMS(d), nn.Linear(d, vocab, bias=False)
        self.patches, self.prompt, self.slots, self.sees_all = patches, prompt, patches + prompt + answer, prefix_sees_all

    def join(self, ids, patches):
        e = self.embed(ids)
        return torch.cat([e[:, :1], patches, e[:, 1:]], 1)

    def prefill(self, ids, used, patches):
        x = self.join(ids, patches)
        t = x.shape[1]
        place = torch.arange(t)
        position = place.float()
        valid = (place[None] < (used + self.patches)[:, None]).float()
        mask = valid.expand(t, t) if self.sees_all else torch.tril(torch.ones(t, t)) * valid
        cache = []
        for block in self.blocks:
            x, k, v = block.whole(x, position, mask)
            cache += [k, v]
        rest = self.slots - t
        kv = F.pad(torch.stack(cache), (0, 0, 0, rest))
        last = (place[None] == (used + self.patches - 1)[:, None]).float()
        return self.head(self.norm((x * last[..., None]).sum(1))), kv

    def decode(self, token, position, kv):
        x = self.embed(token)
        here = (torch.arange(self.slots)[None] == position[:, None]).float()
        mask = (torch.arange(self.slots)[None] <= position[:, None]).float()
        out = []
        for i, block in enumerate(self.blocks):
            n = block.n1(x)
            k, v = block.keys(n, position.float())
            k = kv[2 * i] * (1 - here[0, :, None]) + k * here[0, :, None]
            v = kv[2 * i + 1] * (1 - here[0, :, None]) + v * here[0, :, None]
            out += [k, v]
            x = x + block.attend(n, position.float(), k, v, mask)
            x = x + block.mlp(block.n2(x))
        return self.head(self.norm(x))[:, 0], torch.stack(out)

    def speak(self, ids, patches, count, allowed=None, stop=()):
        """The reference: no cache, no padding, the whole sequence anew for each token."""
        said = []
        for _ in range(count):
            x = self.join(torch.tensor([ids]), patches)
            if said:
                x = torch.cat([x, self.embed(torch.tensor([said]))], 1)
            t, prefix = x.shape[1], len(ids) + self.patches
            mask = torch.tril(torch.ones(t, t))
            if self.sees_all:
                mask[:prefix, :prefix] = 1
            for block in self.blocks:
                x = block.whole(x, torch.arange(t).float(), mask)[0]
            logits = self.head(self.norm(x))[0, -1]
            if allowed:
                logits = logits[allowed[0]:allowed[0] + allowed[1]]
            token = int(logits.argmax()) + (allowed[0] if allowed else 0)
            if token in stop:
                break
            said.append(token)
        return said


class Prefill(nn.Module):
    def __init__(self, speaker):
        super().__init__()
        self.speaker = speaker

    def forward(self, ids, used, patches):
        return self.speaker.prefill(ids, used, patches)


class Decode(nn.Module):
    def __init__(self, speaker):
        super().__init__()
        self.speaker = speaker

    def forward(self, token, position, kv):
        return self.speaker.decode(token, position, kv)


def speaking_stages(bundle, speaker, patches):
    """The stages of every policy that answers in tokens."""
    ids = torch.ones(1, speaker.prompt, dtype=torch.int64)
    used = torch.ones(1, dtype=torch.int64)
    _, kv = bundle.stage("prefill", Prefill(speaker), {"input_ids": (ids, "text.ids"), "used": (used, "text.used"), "patches": (patches, "vision.patches")}, ["logits", "kv"])
    bundle.stage("decode", Decode(speaker), {"token": (torch.ones(1, 1, dtype=torch.int64), "loop.token"), "position": (used, "loop.position"),
                                             "past": (kv, "prefill.kv", "decode.kv")}, ["logits", "kv"])


def words_tokenizer(path, words, specials=("<pad>", "<s>", "</s>", "<unk>")):
    """Whole words and numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {w: i for i, w in enumerate([*specials, *words])}
    t = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.save(str(path))
    return t


def bpe_tokenizer(path, corpus, size=320):
    """Byte-level BPE, as SmolLM2, Qwen and FAST have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<pad>", "<s>", "</s>"],
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.save(str(path))
    return t


class FiLM(nn.Module):
    """A sentence that scales and shifts the channels of a picture."""

    def __init__(self, text, channels):
        super().__init__()
        self.mul, self.add = nn.Linear(text, channels), nn.Linear(text, channels)

    def forward(self, x, text):
        return x * (1 + self.mul(text)[..., None, None]) + self.add(text)[..., None, None]
