# SPDX-License-Identifier: Apache-2.0
"""ACT, Diffusion Policy, VQ-BeT, SmolVLA: LeRobot's own classes at a small width; its own pre- and postprocessors are the reference."""

import contextlib

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from bundle import OUT, WHOLE, Bundle, noise_picture, seeded, vivid
from hundred import hundred


class NarrowResNet(nn.Module):
    """torchvision's ResNet-18 with other widths."""

    def __init__(self, widths, norm_layer=nn.BatchNorm2d):
        super().__init__()
        self.norm, self.inplanes = norm_layer, widths[0]
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = norm_layer(widths[0]), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        for i, w in enumerate(widths):
            setattr(self, f"layer{i + 1}", self._layer(w, 1 if i == 0 else 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(widths[-1], 2)

    def _layer(self, planes, stride):
        down = None
        if stride != 1 or self.inplanes != planes:
            down = nn.Sequential(nn.Conv2d(self.inplanes, planes, 1, stride, bias=False), self.norm(planes))
        blocks = [BasicBlock(self.inplanes, planes, stride, down, norm_layer=self.norm)]
        self.inplanes = planes
        return nn.Sequential(*blocks, BasicBlock(planes, planes, norm_layer=self.norm))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1))


def narrow(widths):
    torchvision.models.resnet18 = lambda norm_layer=nn.BatchNorm2d, **_: NarrowResNet(widths, norm_layer)


def features(cameras, size, joints):
    from lerobot.configs.types import FeatureType, PolicyFeature

    w, h = size
    inputs = {f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, h, w)) for c in cameras}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (joints,))
    return inputs, {"action": PolicyFeature(FeatureType.ACTION, (joints,))}


def stats(rng, cameras, joints):
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    out = {f"observation.images.{c}": {"mean": mean.reshape(3, 1, 1), "std": std.reshape(3, 1, 1)} for c in cameras}
    for key in ["observation.state", "action"]:
        low = rng.uniform(-1.5, -0.5, joints).astype(np.float32)
        high = rng.uniform(0.5, 1.5, joints).astype(np.float32)
        out[key] = {"mean": ((low + high) / 2).astype(np.float32), "std": rng.uniform(0.2, 0.8, joints).astype(np.float32), "min": low, "max": high}
    return {k: {n: torch.from_numpy(v) for n, v in s.items()} for k, s in out.items()}


def save_folder(bundle, policy, pre, post):
    """What LeRobot itself writes beside the weights."""
    pre.save_pretrained(bundle.dir)
    post.save_pretrained(bundle.dir)
    policy.config._save_pretrained(bundle.dir)
    return next(p.name for p in bundle.dir.glob("policy_preprocessor_step_*_normalizer_processor.safetensors"))


JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper_slide"]
UNITS = ["rad"] * 5 + ["m"]
IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def observation(pictures, cameras, state, task=None):
    batch = {f"observation.images.{c}": torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for c, p in zip(cameras, pictures)}
    batch["observation.state"] = torch.from_numpy(state)
    if task is not None:
        batch["task"] = task
    return batch


def vector(file, key, mode, **more):
    return {"names": JOINTS, "units": UNITS, "stats": {"file": file, "key": key, "mode": mode, "convention": "lerobot", "eps": 1e-8}, **more}


def act():
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    rng = seeded(1)
    size, horizon = ((640, 480), 100) if WHOLE else ((40, 30), 8)
    widths = {} if WHOLE else dict(dim_model=32, n_heads=2, dim_feedforward=64, n_encoder_layers=2, n_decoder_layers=1, latent_dim=8)
    if not WHOLE:
        narrow([4, 6, 8, 12])
    cameras, n = ["top", "wrist"], 6
    inputs, outputs = features(cameras, size, n)
    config = ACTConfig(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, pretrained_backbone_weights=None, device="cpu", **widths)
    policy = vivid(ACTPolicy(config), 1.5)
    pre, post = make_pre_post_processors(config, dataset_stats=stats(rng, cameras, n))

    class Graph(nn.Module):
        def forward(self, state, top, wrist):
            return policy.model({"observation.state": state, "observation.images": [top, wrist]})[0]

    b = Bundle("act", "act", cameras=[{"role": c, "source_size": list(size), "levels": [IMAGENET]} for c in cameras],
               decoder={"kind": "regression", "from": "act.actions", "window": {"width": n}})
    file = save_folder(b, policy, pre, post)
    b.tendon["state"] = vector(file, "observation.state", "mean_std")
    b.tendon["action"] = vector(file, "action", "mean_std", horizon=horizon, period_ms=20.0, first_step_ms=0.0)
    g = Graph()
    g.policy = policy
    b.stage("act", g, {"observation.state": (torch.zeros(1, n), "state"), "observation.images.top": (torch.zeros(1, 3, *size[::-1]), "camera.top"),
                       "observation.images.wrist": (torch.zeros(1, 3, *size[::-1]), "camera.wrist")}, ["actions"])
    frames = 4
    pics = {c: [noise_picture(rng, *size) for _ in range(frames)] for c in cameras}
    states = rng.uniform(-1, 1, (frames, n)).astype(np.float32)
    actions = []
    with torch.no_grad():
        for i in range(frames):
            out = policy.predict_action_chunk(pre(observation([pics[c][i] for c in cameras], cameras, states[i])))
            actions.append(post(out)[0].numpy())
    b.finish([""] * frames, {"state": states, "action": np.stack(actions), **{f"camera.{c}": np.stack(pics[c]) for c in cameras}})
    hundred(b, lambda seen: post(policy.predict_action_chunk(pre(observation(seen.pictures, cameras, seen.state))))[0].numpy())


def diffusion():
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    rng = seeded(2)
    narrow([16, 16, 16, 16])
    n, size, spacing = 6, (40, 30), 100
    inputs, outputs = features(["front"], size, n)
    config = DiffusionConfig(input_features=inputs, output_features=outputs, n_obs_steps=2, horizon=8, n_action_steps=4, crop_shape=(26, 36), crop_is_random=False,
                             pretrained_backbone_weights=None, use_group_norm=True, spatial_softmax_num_keypoints=8, down_dims=(8, 16), kernel_size=3, n_groups=4,
                             diffusion_step_embed_dim=16, noise_scheduler_type="DDIM", num_train_timesteps=100, num_inference_steps=10, drop_n_last_frames=1, device="cpu",
                             use_separate_rgb_encoder_per_camera=False)
    policy = vivid(DiffusionPolicy(config), 1.3)
    table = stats(rng, ["front"], n)
    pre, post = make_pre_post_processors(config, dataset_stats=table)
    model = policy.diffusion

    class Encode(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images, state):
            return self.model._prepare_global_conditioning({"observation.images": images, "observation.state": state})

    class Denoise(nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = model.unet

        def forward(self, sample, timestep, global_cond):
            return self.unet(sample, timestep, global_cond)

    levels = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    schedule = {"scheduler": "ddim", "train_steps": 100, "steps": 10, "betas": {"kind": "squared_cosine", "max": 0.999}, "prediction": "epsilon", "clip": 1.0}
    # The crop is the runtime's; of the graph it would make a size that is worked out anew at each run.
    crop = [{"op": "center_crop", "width": 36, "height": 26}]
    b = Bundle("diffusion", "diffusion_policy", cameras=[{"role": "front", "source_size": list(size), "ops": crop, "levels": [levels], "history": 2, "spacing_ms": spacing}],
               loop={"kind": "diffusion", "said": "unet.noise_pred", "schedule": schedule},
               decoder={"kind": "sample", "start": n, "width": n})
    file = save_folder(b, policy, pre, post)
    b.tendon["state"] = vector(file, "observation.state", "min_max", history=2, spacing_ms=spacing)
    b.tendon["action"] = vector(file, "action", "min_max", horizon=4, period_ms=float(spacing), first_step_ms=0.0)
    model.rgb_encoder.do_crop = False
    cond = b.stage("encoder", Encode(), {"images": (torch.zeros(1, 2, 1, 3, 26, 36), "camera.front"), "state": (torch.zeros(1, 2, n), "state")}, ["global_cond"])[0]
    b.stage("unet", Denoise(), {"sample": (torch.zeros(1, 8, n), "loop.x"), "timestep": (torch.zeros(1, dtype=torch.int64), "loop.time"),
                                "global_cond": (cond, "encoder.global_cond")}, ["noise_pred"])
    model.rgb_encoder.do_crop = True
    frames = 5
    pics = [noise_picture(rng) for _ in range(frames)]
    states = rng.uniform(-0.5, 0.5, (frames, n)).astype(np.float32)
    noise = rng.normal(size=(frames, 1, 8, n)).astype(np.float32)
    restart = np.uint8([1, 0, 0, 1, 0])
    windows = []

    def answer(picture, state, noise, is_new):
        batch = pre(observation([picture], ["front"], state))
        now = (batch["observation.images.front"], batch["observation.state"])
        windows[:] = [now, now] if is_new else [windows[1], now]
        images = torch.stack([w[0] for w in windows], 1).unsqueeze(2)
        state = torch.stack([w[1] for w in windows], 1)
        cond = model._prepare_global_conditioning({"observation.images": images, "observation.state": state})
        sample = model.conditional_sample(1, cond, noise=torch.from_numpy(noise.reshape(1, 8, n)))
        return post(sample[:, 1:5])[0].numpy()

    with torch.no_grad():
        actions = [answer(pics[i], states[i], noise[i], restart[i]) for i in range(frames)]
    b.finish([""] * frames, {"state": states, "action": np.stack(actions), "noise": noise.reshape(frames, -1), "camera.front": np.stack(pics), "new_episode": restart,
                             "time_ms": np.int32([0, 100, 200, 300, 400])})
    hundred(b, lambda seen: answer(seen.pictures[0], seen.state, seen.noise, seen.is_new), noise=8 * n)


def split_sines(time, dimension, min_period, max_period, device="cpu"):
    """LeRobot's sines of time, which it works out in 64 bits, in 32: an angle of 1571 rad is known to 1e-4 rad only, so turns
    are split into factors of 11 bits, whose products are exact, and whole turns are taken away before the sine."""
    fraction = torch.linspace(0.0, 1.0, dimension // 2, dtype=torch.float64)
    turns = 1.0 / (min_period * (max_period / min_period) ** fraction)
    high = (turns * 2.0**3).round() / 2.0**3
    low = (turns - high).to(torch.float32)[None]
    high = high.to(torch.float32)[None]
    time = time.to(torch.float32)[:, None]
    coarse = torch.floor(time * 2.0**10) / 2.0**10
    rest = time - coarse
    exact = high * coarse
    turn = (exact - torch.floor(exact)) + (high * rest + low * time)
    angle = (turn - torch.floor(turn)) * (2 * np.pi)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


@contextlib.contextmanager
def for_onnx(modeling):
    """What LeRobot works out in 64 bits or of booleans, in what ONNX has: sines of time in 32 bits, running sums of whole numbers."""
    sines, sums = modeling.create_sinusoidal_pos_embedding, torch.cumsum
    modeling.create_sinusoidal_pos_embedding = split_sines
    torch.cumsum = lambda x, dim: sums(x.to(torch.int64) if x.dtype == torch.bool else x, dim=dim)
    try:
        yield
    finally:
        modeling.create_sinusoidal_pos_embedding, torch.cumsum = sines, sums


def drawn(uniforms):
    """`torch.multinomial` of one draw from numbers that are given: the first entry at which the sum of probabilities is above
    the number. Rows repeat the numbers."""

    def draw(probabilities, num_samples=1, **_):
        rows, choices = probabilities.shape
        sums = probabilities @ torch.triu(torch.ones(choices, choices))
        wanted = uniforms.reshape(-1, 1).repeat(rows // uniforms.numel(), 1)
        below = (sums <= wanted).to(torch.int64).sum(1, keepdim=True)
        return torch.clamp(below, max=choices - 1)

    return draw


def vqbet():
    import einops
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy

    rng = seeded(9)
    narrow([16, 16, 16, 16])
    n, size, spacing, past, chunk = 6, (40, 30), 100, 3, 5
    inputs, outputs = features(["front"], size, n)
    config = VQBeTConfig(input_features=inputs, output_features=outputs, n_obs_steps=past, n_action_pred_token=2, action_chunk_size=chunk, crop_shape=(26, 36),
                         crop_is_random=False, spatial_softmax_num_keypoints=8, vqvae_n_embed=8, vqvae_embedding_dim=16, vqvae_enc_hidden_dim=16, gpt_block_size=40,
                         gpt_input_dim=32, gpt_output_dim=32, gpt_n_layer=2, gpt_n_head=2, gpt_hidden_dim=32, device="cpu",
                         pretrained_backbone_weights=None, use_group_norm=True)
    policy = vivid(VQBeTPolicy(config), 1.3)
    model = policy.vqbet
    head = model.action_head
    head.vqvae_model.discretized = torch.tensor(True)
    head.vqvae_model.vq_layer.freeze_codebook = torch.tensor(True)
    with torch.no_grad():
        # Codebooks begin as zeros, and training fills them.
        for layer in head.vqvae_model.vq_layer.layers:
            codes = layer._codebook.embed
            codes.copy_(torch.randn(codes.shape) * 0.7)
    pre, post = make_pre_post_processors(config, dataset_stats=stats(rng, ["front"], n))

    class Look(nn.Module):
        """Up to the feature of the newest action token: the others are of no use when it drives."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images, state):
            kept = {}
            whole = self.model.action_head.forward
            self.model.action_head.forward = lambda x: kept.update(x=x) or {"predicted_action": torch.zeros(1, past + 1, chunk * n)}
            self.model({"observation.images": images, "observation.state": state}, rollout=True)
            self.model.action_head.forward = whole
            return kept["x"][:, past - 1 : past]

    class Codes(nn.Module):
        """The two codes by the numbers that are drawn."""

        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, feature, drawn_numbers):
            logits = einops.rearrange(self.head.map_to_cbet_preds_bin(feature[0]), "t (g c) -> (t g) c", g=2)
            one_hot = nn.functional.one_hot(drawn(drawn_numbers)(torch.softmax(logits / config.bet_softmax_temperature, -1))[:, 0], config.vqvae_n_embed).float()
            offsets = einops.rearrange(self.head.map_to_cbet_preds_offset(feature[0]), "t (g c wa) -> (t g) c wa", g=2, c=config.vqvae_n_embed)
            books = torch.stack([layer._codebook.embed[0] for layer in self.head.vqvae_model.vq_layer.layers])
            latent = torch.einsum("gc,gcd->d", one_hot, books)[None]
            offset = torch.einsum("gc,gcw->w", one_hot, offsets)
            return self.head.vqvae_model.get_action_from_latent(latent) + offset.reshape(1, chunk, n)

    crop = [{"op": "center_crop", "width": 36, "height": 26}]
    b = Bundle("vqbet", "vqbet", cameras=[{"role": "front", "source_size": list(size), "ops": crop, "levels": [{"scale": 1 / 255}], "history": past, "spacing_ms": spacing}],
               loop={"kind": "draw", "noise": "unit"}, decoder={"kind": "regression", "from": "codes.action", "window": {"width": n}})
    file = save_folder(b, policy, pre, post)
    b.tendon["state"] = vector(file, "observation.state", "min_max", history=past, spacing_ms=spacing)
    b.tendon["action"] = vector(file, "action", "min_max", horizon=chunk, period_ms=float(spacing), first_step_ms=0.0)
    model.rgb_encoder.do_crop = False
    feature = b.stage("look", Look(), {"images": (torch.zeros(1, past, 1, 3, 26, 36), "camera.front"), "state": (torch.zeros(1, past, n), "state")}, ["feature"])[0]
    model.rgb_encoder.do_crop = True
    b.stage("codes", Codes(), {"feature": (feature, "look.feature"), "drawn": (torch.full((1, 2), 0.5), "loop.x")}, ["action"])
    by_chance = torch.multinomial
    windows = []

    def answer(picture, state, numbers, is_new):
        """LeRobot's own model as a whole, with its draws given."""
        batch = pre(observation([picture], ["front"], state))
        now = (batch["observation.images.front"], batch["observation.state"])
        windows[:] = [now] * past if is_new else [*windows[1:], now]
        images = torch.stack([w[0] for w in windows], 1).unsqueeze(2)
        torch.multinomial = drawn(torch.from_numpy(numbers))
        out = model({"observation.images": images, "observation.state": torch.stack([w[1] for w in windows], 1)}, rollout=True)
        torch.multinomial = by_chance
        return post(out)[0].numpy()

    frames = 5
    pics = [noise_picture(rng) for _ in range(frames)]
    states = rng.uniform(-0.5, 0.5, (frames, n)).astype(np.float32)
    numbers = rng.uniform(0, 1, (frames, 2)).astype(np.float32)
    restart = np.uint8([1, 0, 0, 0, 1])
    with torch.no_grad():
        actions = [answer(pics[i], states[i], numbers[i], restart[i]) for i in range(frames)]
    b.finish([""] * frames, {"state": states, "action": np.stack(actions), "noise": numbers, "camera.front": np.stack(pics), "new_episode": restart,
                             "time_ms": np.int32([0, 100, 200, 300, 400])})
    hundred(b, lambda seen: answer(seen.pictures[0], seen.state, seen.unit, seen.is_new), noise=2, unit=True)


def smolvla():
    import transformers
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy, make_att_2d_masks
    from transformers import DynamicCache, SmolVLMConfig
    from transformers.models.smolvlm import modeling_smolvlm

    from mini import bpe_tokenizer
    from token_families import CORPUS

    rng = seeded(8)
    cameras, n = ["top", "wrist"], 6
    # The whole one has SmolVLM2-500M's sizes, its text model cut to 16 layers as SmolVLA does.
    size, horizon, side, layers, prompt, scale = ((640, 480), 50, 512, 16, 48, 4) if WHOLE else ((40, 30), 6, 64, 2, 24, 2)
    text = dict(hidden_size=960, intermediate_size=2560, num_attention_heads=15, num_key_value_heads=5, head_dim=64, vocab_size=49280, rope_theta=100000.0) if WHOLE else \
        dict(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1, head_dim=16, vocab_size=400)
    text.update(model_type="llama", num_hidden_layers=layers, max_position_embeddings=8192 if WHOLE else 512, rms_norm_eps=1e-5, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    vision = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12) if WHOLE else \
        dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    vision.update(model_type="smolvlm_vision", image_size=side, patch_size=16)
    small = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=scale, image_token_id=399, tie_word_embeddings=False)

    b = Bundle("smolvla", "smolvla")
    tokenizer = bpe_tokenizer(b.dir / "tokenizer.json", CORPUS)

    class FakeProcessor:
        class tokenizer:
            fake_image_token_id, global_image_token_id = 397, 398

    smolvlm_with_expert.AutoConfig.from_pretrained = staticmethod(lambda *a, **k: small)
    smolvlm_with_expert.AutoProcessor.from_pretrained = staticmethod(lambda *a, **k: FakeProcessor())
    inputs, outputs = features(cameras, size, n)
    config = SmolVLAConfig(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, max_state_dim=32, max_action_dim=32,
                           resize_imgs_with_padding=(side, side), tokenizer_max_length=prompt, num_steps=10, load_vlm_weights=False, num_vlm_layers=layers, expert_width_multiplier=0.75,
                           self_attn_every_n_layers=2, device="cpu", attention_mode="cross_attn")
    policy = SmolVLAPolicy(config).float()
    policy = vivid(policy, 1.0)
    model = policy.model

    class Prefix(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, top, wrist, ids, mask, state):
            seen = torch.ones(1, dtype=torch.bool)
            embs, pads, att = self.model.embed_prefix([top, wrist], [seen, seen], ids, mask > 0, state=state)
            mask2d = make_att_2d_masks(pads, att)
            position = torch.cumsum(pads, dim=1) - 1
            _, kv = self.model.vlm_with_expert.forward(attention_mask=mask2d, position_ids=position, past_key_values=None, inputs_embeds=[embs, None], use_cache=True)
            flat = [t for keys, values, *_ in kv for t in (keys, values)]
            return (pads.to(torch.int32), *flat)

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pads, x, t, *flat):
            kv = DynamicCache(tuple((flat[2 * i], flat[2 * i + 1], None) for i in range(layers)))
            return self.model.denoise_step(prefix_pad_masks=pads > 0, past_key_values=kv, x_t=x, timestep=t)

    half = {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}
    ops = [{"op": "resize", "width": side, "height": side, "fit": "pad_left_top", "filter": "bilinear", "library": "torch", "bytes": False}]
    b.tendon["cameras"] = [{"role": c, "source_size": list(size), "ops": ops, "levels": [half]} for c in cameras]
    b.tendon["loop"] = {"kind": "flow", "velocity": "expert.v_t", "flow": {"t_start": 1.0, "t_end": 0.0, "steps": 10, "time": {"kind": "f32"}, "grid": "exact"}}
    b.tendon["decoder"] = {"kind": "sample", "width": 32}
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": [{"op": "end_with", "text": "\n"}], "max_len": prompt}
    from safetensors.numpy import save_file
    table = stats(rng, cameras, n)
    save_file({f"{k}.{s}": v.numpy() for k, t in table.items() if "image" not in k for s, v in t.items()}, b.dir / "stats.safetensors")
    b.tendon["state"] = vector("stats.safetensors", "observation.state", "mean_std")
    b.tendon["action"] = vector("stats.safetensors", "action", "mean_std", horizon=horizon, period_ms=33.0, first_step_ms=0.0)
    # All pictures have the full size, so what the places of their patches add is the same for each: it is taken from transformers' own
    # embedding as a constant. (Before transformers 5 its places were not simply 0, 1, 2, ...: a rounding put the second patch on the
    # first's.) As worked out there, it is a chain of comparisons that one runtime reads as floats.
    eyes = model.vlm_with_expert.get_vlm_model().vision_model.embeddings
    worked_out = eyes.forward
    with torch.no_grad():
        blank = torch.zeros(1, 3, side, side)
        patches = eyes.patch_embedding(blank).flatten(2).transpose(1, 2)
        placed = worked_out(blank, torch.ones(1, side // 16, side // 16, dtype=torch.bool)) - patches
    eyes.forward = lambda pixel_values, patch_attention_mask: eyes.patch_embedding(pixel_values).flatten(2).transpose(1, 2) + placed
    # For the same reason no patch is hidden from another.
    hide, modeling_smolvlm.create_bidirectional_mask = modeling_smolvlm.create_bidirectional_mask, lambda **_: None
    image = torch.zeros(1, 3, side, side)
    ids = torch.ones(1, prompt, dtype=torch.int64)
    with for_onnx(modeling_smolvla):
        pads, *flat = b.stage("prefix", Prefix(), {"img_top": (image, "camera.top"), "img_wrist": (image, "camera.wrist"), "lang_tokens": (ids, "text.ids"),
                                               "lang_masks": (torch.ones(1, prompt, dtype=torch.int32), "text.mask"), "state": (torch.zeros(1, 32), "state")},
                          ["prefix_pad_masks"] + [f"past_{kv}_{i}" for i in range(layers) for kv in "kv"])
    expert = {"prefix_pad_masks": (pads, "prefix.prefix_pad_masks"), "x_t": (torch.zeros(1, horizon, 32), "loop.x"), "t": (torch.ones(1), "loop.time")}
    names = [f"past_{kv}_{i}" for i in range(layers) for kv in "kv"]
    expert.update({name: (tensor, f"prefix.{name}") for name, tensor in zip(names, flat)})
    with for_onnx(modeling_smolvla):
        b.stage("expert", Expert(), expert, ["v_t"])
    eyes.forward, modeling_smolvlm.create_bidirectional_mask = worked_out, hide
    sentences = ["open the drawer", "open the drawer", "put the blue block in the bowl"]
    pics = {c: [noise_picture(rng, *size) for _ in sentences] for c in cameras}
    states = rng.uniform(-1, 1, (len(sentences), n)).astype(np.float32)
    noise = rng.normal(size=(len(sentences), horizon, 32)).astype(np.float32)

    def answer(pictures, state, noise, sentence):
        batch = {k: v[None] for k, v in observation(pictures, cameras, state).items()}
        batch["observation.state"] = (batch["observation.state"] - table["observation.state"]["mean"]) / (table["observation.state"]["std"] + 1e-8)
        ids = tokenizer.encode(sentence + "\n", add_special_tokens=False).ids
        batch["observation.language.tokens"] = torch.tensor([ids])
        batch["observation.language.attention_mask"] = torch.ones(1, len(ids), dtype=torch.bool)
        out = policy.predict_action_chunk(batch, noise=torch.from_numpy(noise.reshape(1, horizon, 32)))
        return (out * table["action"]["std"] + table["action"]["mean"])[0].numpy()

    with torch.no_grad():
        actions = [answer([pics[c][i] for c in cameras], states[i], noise[i], sentence) for i, sentence in enumerate(sentences)]
    b.finish(sentences, {"state": states, "action": np.stack(actions), "noise": noise.reshape(len(sentences), -1), **{f"camera.{c}": np.stack(p) for c, p in pics.items()}}, hz=2.0)
    hundred(b, lambda seen: answer(seen.pictures, seen.state, seen.noise, seen.sentence), noise=horizon * 32, sentences=["open the drawer", "put the blue block in the bowl"])
