# SPDX-License-Identifier: Apache-2.0
"""pi0, pi0.5 and pi0-FAST as LeRobot has them: its own classes at a small width, its own pre- and postprocessors.

Not LeRobot's is what it loads from the network: weights, and PaliGemma's tokenizer, of whose kind a small one is made here.
"""

import json

import numpy as np
import torch
from torch import nn

from bundle import Bundle, noise_picture, seeded
from hundred import Dice, hundred
from lerobot_families import JOINTS, UNITS, features, for_onnx, observation, save_folder, stats, vector
from token_families import CORPUS, HALF, SENTENCES

ROLES = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"]
SOURCE, SIDE, LAYERS = (40, 30), 28, 2
PROMPT = {"clean": [{"op": "strip"}, {"op": "replace", "from": "_", "to": " "}, {"op": "replace", "from": "\n", "to": " "}],
          "state_digits": {"bins": 256, "low": -1.0, "high": 1.0}}
TEXTS = [*CORPUS, *["Task: , State: ;\nAction: |"] * 40]
SPECIALS, SEGMENTS = ["<pad>", "<eos>", "<bos>", "<unk>"], 16


def paligemma_tokenizer(corpus, size):
    """Of PaliGemma's kind: SentencePiece's BPE with a token for each byte that no piece has, spaces as U+2581, digits one by one,
    <bos> first. As PaliGemma's last ids are for segments, so are a few here. Returned is what stands for transformers' AutoTokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    parts = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)]
    learnt = Tokenizer(models.BPE())
    learnt.normalizer, learnt.pre_tokenizer = normalizers.Replace(" ", "▁"), pre_tokenizers.Sequence(parts)
    learnt.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(learnt.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {piece: i for i, piece in enumerate([*SPECIALS, *pieces, *(f"<0x{byte:02X}>" for byte in range(256)), *(f"<seg{i:03}>" for i in range(SEGMENTS))])}

    def load(*_, add_bos_token=True, add_eos_token=False, **__):
        t = Tokenizer(models.BPE(vocab, [tuple(pair) for pair in model["merges"]], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        t.normalizer, t.pre_tokenizer = learnt.normalizer, learnt.pre_tokenizer
        t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        ends = " ".join(["<bos>"] * add_bos_token + ["$A"] + ["<eos>"] * add_eos_token)
        t.post_processor = processors.TemplateProcessing(single=ends, special_tokens=[(one, vocab[one]) for one in ("<bos>", "<eos>") if one in ends])
        t.add_special_tokens(SPECIALS)
        return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")

    return Given(load)


class Given:
    """Stands for transformers' AutoTokenizer or AutoProcessor: what would be loaded from the network is here."""

    def __init__(self, load):
        self.from_pretrained = load


def narrow(modeling, vocab):
    """LeRobot writes the full sizes into transformers' configurations by itself; they are made small just before the model is
    built from them."""
    widths = {"gemma_2b": (32, 64), "gemma_300m": (24, 48)}
    modeling.get_gemma_config = lambda variant: modeling.GemmaConfig(width=widths[variant][0], depth=LAYERS, mlp_dim=widths[variant][1], num_heads=2, num_kv_heads=1, head_dim=16)

    def small(whole):
        def build(config):
            language = getattr(config, "text_config", config)
            language.vocab_size = vocab
            if language is not config:
                sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 14, "projection_dim": 32}
                for key, value in sizes.items():
                    setattr(config.vision_config, key, value)
            return whole(config)

        return build

    for kind in ["PaliGemmaForConditionalGenerationWithPiGemma", "PiGemmaForCausalLM"]:
        if hasattr(modeling, kind):
            setattr(modeling, kind, small(getattr(modeling, kind)))


def lively(module):
    """Weights as large as those of a trained layer: transformers begins with small ones, and with zeros where the time comes in."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape) * (p[0].numel() ** -0.5 if p.dim() > 1 else 0.1))
    return module.eval().float()


def bundle(name, family, policy, pre, post, tokenizer, prompt, mode, period_ms, **more):
    """What the three have in common: cameras, of which the wrists' may be missing, prompt, statistics."""
    ops = [{"op": "resize", "width": SIDE, "height": SIDE, "fit": "pad_center", "filter": "bilinear", "library": "torch", "bytes": False}]
    cameras = [{"role": role, "source_size": list(SOURCE), "ops": ops, "levels": [HALF]} for role in ROLES]
    for camera in cameras[1:]:
        camera["missing"] = -1.0
    b = Bundle(name, family, cameras=cameras, **more)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.save(str(b.dir / "tokenizer.json"))
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "special_tokens": True, "too_long": "cut", "max_len": policy.config.tokenizer_max_length, **prompt}
    file = save_folder(b, policy, pre, post)
    b.tendon["state"] = vector(file, "observation.state", mode)
    b.tendon["action"] = vector(file, "action", mode, horizon=policy.config.chunk_size, period_ms=period_ms, first_step_ms=0.0)
    return b


def looks(prompt):
    """Inputs of a prefix: pictures, which of them are real, token ids."""
    image, one, ids = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, dtype=torch.int32), torch.ones(1, prompt, dtype=torch.int64)
    inputs = {f"img_{role}": (image, f"camera.{role}") for role in ROLES}
    inputs.update({f"mask_{role}": (one, f"camera.{role}.seen") for role in ROLES})
    return {**inputs, "lang_tokens": (ids, "text.ids"), "lang_masks": (ids.int(), "text.mask")}


def statistics(rng):
    table = stats(rng, ROLES, len(JOINTS))
    for key in ["observation.state", "action"]:
        table[key].update({"q01": table[key]["min"] * 0.8, "q99": table[key]["max"] * 0.8})
    return table


def show(policy, pre, post):
    """LeRobot from pictures (of which some may be missing), state and sentence to a chunk."""

    def answer(pictures, state, sentence, **more):
        seen = [(role, picture) for role, picture in zip(ROLES, pictures) if picture is not None]
        batch = pre(observation([picture for _, picture in seen], [role for role, _ in seen], state, sentence))
        return post(policy.predict_action_chunk(batch, **more))[0].numpy()

    return answer


def kept(b, rng, answer, shape=None):
    """The fixture, in which two frames lack a wrist's camera, and the hundred observations."""
    away = {ROLES[1]: np.uint8([0, 1, 0, 0]), ROLES[2]: np.uint8([0, 0, 1, 0])}
    pictures = {role: [noise_picture(rng) for _ in SENTENCES] for role in ROLES}
    states = rng.uniform(-1, 1, (len(SENTENCES), len(JOINTS))).astype(np.float32)
    noise = rng.normal(size=(len(SENTENCES), *shape)).astype(np.float32) if shape else None
    given = lambda numbers: {"noise": torch.from_numpy(numbers.reshape(1, *shape))} if shape else {}
    actions = []
    with torch.no_grad():
        for i, sentence in enumerate(SENTENCES):
            shown = [None if role in away and away[role][i] else pictures[role][i] for role in ROLES]
            actions.append(answer(shown, states[i], sentence, **given(noise[i] if shape else None)))
    fixture = {"state": states, "action": np.stack(actions), **{f"camera.{role}": np.stack(p) for role, p in pictures.items()}}
    fixture.update({f"camera.{role}.missing": mask for role, mask in away.items()})
    if shape:
        fixture["noise"] = noise.reshape(len(SENTENCES), -1)
    b.finish(SENTENCES, fixture, hz=2.0)
    hundred(b, lambda seen: answer(seen.pictures, seen.state, seen.sentence, **given(seen.noise)), noise=int(np.prod(shape)) if shape else 0,
            sentences=["open the drawer", "put the blue block in the bowl"])


def flow(name, seed, tokenizer_max_length, prompt, mode):
    """pi0 and pi0.5: the prefix's keys and values go by name to the expert, which LeRobot's own step of denoising runs."""
    import importlib

    from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.processor import tokenizer_processor
    from transformers import DynamicCache

    kind = name.removesuffix("_lerobot")
    modeling = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    configuration = importlib.import_module(f"lerobot.policies.{kind}.configuration_{kind}")
    rng = seeded(seed)
    horizon, joints = 6, len(JOINTS)
    tokenizer_processor.AutoTokenizer = paligemma_tokenizer(TEXTS, 110)
    tokenizer = tokenizer_processor.AutoTokenizer.from_pretrained()
    narrow(modeling, tokenizer.vocab_size)
    inputs, outputs = features(ROLES, SOURCE, joints)
    upper = kind.upper()
    config = getattr(configuration, f"{upper}Config")(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, image_resolution=(SIDE, SIDE),
                                                      tokenizer_max_length=tokenizer_max_length, device="cpu")
    policy = lively(getattr(modeling, f"{upper}Policy")(config))
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(rng))
    answer = show(policy, pre, post)
    model = policy.model

    class Prefix(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, base, left, right, seen_base, seen_left, seen_right, ids, mask):
            embs, pads, att = self.model.embed_prefix([base, left, right], [seen > 0 for seen in (seen_base, seen_left, seen_right)], ids, mask > 0)
            see = prepare_attention_masks_4d(make_att_2d_masks(pads, att))
            position = torch.cumsum(pads, dim=1) - 1
            _, cache = self.model.paligemma_with_expert.forward(attention_mask=see, position_ids=position, past_key_values=None, inputs_embeds=[embs, None], use_cache=True)
            return (pads.to(torch.int32), *[t for keys, values, *_ in cache for t in (keys, values)])

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pads, x, t, *rest):
            flat = rest[-2 * LAYERS :]
            cache = DynamicCache(tuple((flat[2 * i], flat[2 * i + 1], None) for i in range(LAYERS)))
            state = {"state": rest[0]} if len(rest) > len(flat) else {}
            return self.model.denoise_step(prefix_pad_masks=pads > 0, past_key_values=cache, x_t=x, timestep=t, **state)

    loop = {"kind": "flow", "velocity": "expert.v_t", "flow": {"t_start": 1.0, "t_end": 0.0, "steps": 10, "time": {"kind": "f32"}, "grid": "exact"}}
    b = bundle(name, kind, policy, pre, post, tokenizer, prompt, mode, 20.0, loop=loop, decoder={"kind": "sample", "width": 32})
    names = [f"past_{kv}_{i}" for i in range(LAYERS) for kv in "kv"]
    # Both run without fused attention, as LeRobot sets it at the first chunk.
    model.paligemma_with_expert.paligemma.model.language_model.config._attn_implementation = "eager"
    model.paligemma_with_expert.gemma_expert.model.config._attn_implementation = "eager"
    with for_onnx(modeling):
        pads, *flat = b.stage("prefix", Prefix(), looks(tokenizer_max_length), ["prefix_pad_masks", *names])
        expert = {"prefix_pad_masks": (pads, "prefix.prefix_pad_masks"), "x_t": (torch.zeros(1, horizon, 32), "loop.x"), "t": (torch.ones(1), "loop.time")}
        if kind == "pi0":
            expert["state"] = (torch.zeros(1, 32), "state")
        expert.update({past: (tensor, f"prefix.{past}") for past, tensor in zip(names, flat)})
        b.stage("expert", Expert(), expert, ["v_t"])
    kept(b, rng, answer, (horizon, 32))


def pi0():
    flow("pi0_lerobot", 21, 24, {"template": "{task}", "clean": [{"op": "end_with", "text": "\n"}]}, "mean_std")


def pi05():
    flow("pi05_lerobot", 22, 80, {**PROMPT, "template": "Task: {task}, State: {state};\nAction: "}, "quantiles")


class FastTokenizer:
    """FAST (arXiv 2501.09747) as LeRobot uses it: a chunk's cosine transform, rounded, its numbers as characters, by byte-level BPE."""

    def __init__(self, chunks, scale, size):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        self.scale = scale
        self.min_token = int(min(self.rounded(chunk).min() for chunk in chunks))
        t = Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        t.train_from_iterator([self.text(chunk) for chunk in chunks], trainers.BpeTrainer(vocab_size=size, show_progress=False))
        self.bpe_tokenizer = PreTrainedTokenizerFast(tokenizer_object=t, clean_up_tokenization_spaces=False)

    def rounded(self, chunk):
        from scipy.fft import dct

        return np.around(dct(np.asarray(chunk), axis=0, norm="ortho") * self.scale).astype(int)

    def text(self, chunk):
        return "".join(chr(max(number - self.min_token, 0)) for number in self.rounded(chunk).flatten())

    def __call__(self, chunks):
        return [self.bpe_tokenizer(self.text(chunk))["input_ids"] for chunk in chunks]


class Slots:
    """A cache of fixed length for transformers' attention: keys and values of the one new token go where `here` is 1."""

    def __init__(self, past, here):
        self.past, self.here = list(past), here

    def get_seq_length(self, *_):
        return 0

    def update(self, keys, values, layer, *_, **__):
        for at, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self.past[at] = self.past[at] * (1.0 - self.here) + new * self.here
        return self.past[2 * layer], self.past[2 * layer + 1]


def lesson(index, rng, table, horizon):
    """Pictures, state, sentence, and the chunk that answers them: joints go where the signs of two joints' states say, along a slope
    of the sentence and of where the base's picture is brighter."""
    dice = Dice(index)
    pictures = [dice.picture(*SOURCE) for _ in ROLES] if index % 2 else [noise_picture(rng) for _ in ROLES]
    state = rng.uniform(-1, 1, len(JOINTS)).astype(np.float32)
    sentence = SENTENCES[index % len(SENTENCES)]
    left, right = pictures[0][:, :20].mean(), pictures[0][:, 20:].mean()
    slope = (1.5 if sentence == "open the drawer" else -1.5) * (1.0 if left > right else 0.5)
    signs = np.where([state[joint % 2] > 0 for joint in range(len(JOINTS))], 1.0, -1.0) * [1, 1, -1, 1, 1, -1]
    course = signs + slope * np.linspace(-0.5, 0.5, horizon)[:, None]
    return pictures, state, sentence, np.float32(course * table["action"]["std"].numpy() + table["action"]["mean"].numpy())


def teach(policy, pre, lessons, steps=500, batch=16):
    """LeRobot's own loss, so that the language model speaks in FAST tokens and comes to an end; of what it should do it learns what
    it can, with all cameras and without one of the wrists'."""
    rng = np.random.default_rng(0)
    policy.train()
    optimiser = torch.optim.Adam(policy.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, steps)
    for step in range(steps):
        few = [lessons[i] for i in rng.choice(len(lessons), batch)]
        roles = [role for at, role in enumerate(ROLES) if at == 0 or at != step % 3]
        each = [observation([pictures[ROLES.index(role)] for role in roles], roles, state) for pictures, state, *_ in few]
        together = {key: torch.stack([one[key] for one in each]) for key in each[0]}
        said = pre({**together, "task": [sentence for *_, sentence, _ in few], "action": torch.from_numpy(np.stack([chunk for *_, chunk in few]))})
        loss, _ = policy.forward(said)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    print(f"{policy.name:16} {steps} steps of teaching, loss {loss.item():.3f}", flush=True)


def pi0_fast():
    from lerobot.policies.common import vla_utils
    from lerobot.policies.common.vla_utils import prepare_attention_masks_4d
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.pi0_fast import modeling_pi0_fast as modeling
    from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
    from lerobot.processor import tokenizer_processor

    rng = seeded(23)
    horizon, joints, prompt, longest = 4, len(JOINTS), 64, 32
    table = statistics(rng)
    lessons = [lesson(1000 + i, rng, table, horizon) for i in range(160)]
    normal = [(chunk - table["action"]["mean"].numpy()) / table["action"]["std"].numpy() for *_, chunk in lessons]
    fast = FastTokenizer(normal, 4.0, 48)
    loader = paligemma_tokenizer(TEXTS, 110)
    tokenizer = loader.from_pretrained()
    for module in (modeling, tokenizer_processor):
        module.AutoTokenizer, module.AutoProcessor = loader, Given(lambda *_, **__: fast)
    narrow(modeling, tokenizer.vocab_size)
    inputs, outputs = features(ROLES, SOURCE, joints)
    config = PI0FastConfig(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, image_resolution=(SIDE, SIDE), tokenizer_max_length=prompt,
                           max_action_tokens=longest, max_decoding_steps=longest, fast_skip_tokens=SEGMENTS, device="cpu")
    policy = lively(modeling.PI0FastPolicy(config))
    pre, post = make_pre_post_processors(config, dataset_stats=table)
    teach(policy, pre, lessons)
    policy.eval().requires_grad_(False)
    decode = policy.decode_actions_with_fast

    def decode_whole(answers, time_horizon, action_dim):
        """What LeRobot would fill with zeros or cut, Tendon refuses: nothing of that may be kept."""
        assert all(len(fast.bpe_tokenizer.decode(answer)) == time_horizon * action_dim for answer in answers)
        return decode(answers, time_horizon, action_dim)

    policy.decode_actions_with_fast = decode_whole
    model, heart = policy.model, policy.model.paligemma_with_expert
    heart.paligemma.model.language_model.config._attn_implementation = "eager"
    slots = len(ROLES) * (SIDE // 14) ** 2 + prompt + 1
    names = [f"past_{kv}_{i}" for i in range(LAYERS) for kv in "kv"]

    class Prefill(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, base, left, right, seen_base, seen_left, seen_right, ids, mask):
            ids = torch.cat([ids, torch.full((1, 1), tokenizer.bos_token_id)], 1)
            mask = torch.cat([mask, torch.ones(1, 1, dtype=torch.int32)], 1)
            embs, pads, see, *_ = self.model.embed_prefix_fast([base, left, right], [seen > 0 for seen in (seen_base, seen_left, seen_right)], ids, mask > 0)
            heart = self.model.paligemma_with_expert
            (out, _), cache = heart.forward(attention_mask=prepare_attention_masks_4d(see), position_ids=torch.cumsum(pads, dim=1) - 1, past_key_values=None,
                                            inputs_embeds=[embs, None], use_cache=True)
            rest = (0, 0, 0, longest - 1)
            past = [nn.functional.pad(t, rest) for keys, values, *_ in cache for t in (keys, values)]
            return (heart.paligemma.lm_head(out[:, -1]), nn.functional.pad(pads.float(), (0, longest - 1)), *past)

    class Decode(nn.Module):
        """LeRobot's step of decoding on a cache of fixed length: the mask says which slots are taken, and so the token's place and position."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, token, seen, *past):
            heart = self.model.paligemma_with_expert
            here = (torch.arange(slots + longest - 1)[None] == slots + seen[:, slots:].sum(1, keepdim=True)).float()
            seen = seen + here
            cache = Slots(past, here[:, None, :, None])
            (out, _), _ = heart.forward(attention_mask=prepare_attention_masks_4d((seen > 0)[:, None]), position_ids=seen.sum(1, keepdim=True).long() - 1, past_key_values=cache,
                                        inputs_embeds=[heart.embed_language_tokens(token), None], use_cache=True)
            return (heart.paligemma.lm_head(out[:, -1]), seen, *cache.past)

    opening = tokenizer.encode("Action: ", add_special_tokens=False)
    loop = {"kind": "tokens", "first": "prefill.logits", "next": "decode.logits", "max": longest, "stop": [tokenizer.convert_tokens_to_ids("|")]}
    decoder = {"kind": "fast", "tokenizer": "fast.json", "scale": fast.scale, "min_token": fast.min_token, "horizon": horizon, "dim": joints,
               "id_from": tokenizer.vocab_size - 1 - SEGMENTS, "opening": opening}
    b = bundle("pi0_fast_lerobot", "pi0_fast", policy, pre, post, tokenizer, {**PROMPT, "template": "Task: {task}, State: {state};\n"}, "mean_std", 66.0, loop=loop, decoder=decoder)
    fast.bpe_tokenizer.backend_tokenizer.save(str(b.dir / "fast.json"))
    # Without action tokens LeRobot's mask, which it writes slice by slice, is who is no padding. Slices written to have no ONNX.
    masked, model._create_custom_attention_mask_fast = model._create_custom_attention_mask_fast, lambda _, pads, __: pads[:, None, :] & pads[:, :, None]
    with for_onnx(vla_utils):
        _, seen, *flat = b.stage("prefill", Prefill(), looks(prompt), ["logits", "seen", *names])
    model._create_custom_attention_mask_fast = masked
    later = {"token": (torch.ones(1, 1, dtype=torch.int64), "loop.token"), "seen": (seen, "prefill.seen", "decode.seen_next")}
    later.update({past: (tensor, f"prefill.{past}", f"decode.{past}_next") for past, tensor in zip(names, flat)})
    b.stage("decode", Decode(), later, ["logits", "seen_next", *(f"{past}_next" for past in names)])
    kept(b, rng, show(policy, pre, post))
