# SPDX-License-Identifier: Apache-2.0
"""GR00T N1.7: LeRobot's own class over transformers' Qwen3-VL at a small width, loaded as a raw checkpoint is, with LeRobot's own
pre- and postprocessor; its own unpatched forward is the reference.

What is put in the place of what only the hub has: the backbone's configuration, the tokenizer, and the chat template.
"""

import json
import tempfile

import numpy as np
import torch
from torch import nn

from bundle import Bundle, lively, noise_picture, seeded
from hundred import hundred
from lerobot_families import JOINTS, UNITS, features, observation, stats

SENTENCES = ["open the drawer", "put the blue block in the bowl"]
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
# Of Qwen3-VL's own template what a message of pictures and one sentence takes.
CHAT = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}")
SIDE, PATCH, MERGE = 256, 16, 2


def tokenizer_of(path):
    """Byte-level BPE with the marks of Qwen's."""
    from tokenizers import AddedToken

    from mini import bpe_tokenizer

    tokenizer = bpe_tokenizer(path, SENTENCES * 4 + ["user\n"] * 4, 300)
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    tokenizer.save(str(path))
    return tokenizer


def in_place_of_the_hub(tokenizer):
    """LeRobot asks the hub for Cosmos-Reason2-2B's configuration and processor; it gets these."""
    from lerobot.policies.groot import groot_n1_7, processor_groot
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLVideoProcessor

    mark = tokenizer.token_to_id
    small = Qwen3VLConfig(
        image_token_id=mark("<|image_pad|>"), video_token_id=mark("<|video_pad|>"), vision_start_token_id=mark("<|vision_start|>"),
        vision_end_token_id=mark("<|vision_end|>"), tie_word_embeddings=True,
        text_config=dict(model_type="qwen3_vl_text", hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
                         head_dim=8, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=512, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}),
        vision_config=dict(model_type="qwen3_vl", depth=2, hidden_size=8, intermediate_size=16, num_heads=2, num_position_embeddings=144, out_hidden_size=16,
                           patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=2, deepstack_visual_indexes=[0]))
    groot_n1_7._cosmos_reason2_qwen3_vl_config = lambda: small
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=MARKS[0], eos_token="<|im_end|>", chat_template=CHAT)
    pictures = dict(patch_size=PATCH, temporal_patch_size=2, merge_size=MERGE, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    processor_groot.AutoTokenizer.from_pretrained = staticmethod(lambda *a, **k: fast)
    processor_groot.Qwen2VLImageProcessor.from_pretrained = staticmethod(lambda *a, **k: Qwen2VLImageProcessor(**pictures, size=dict(size)))
    processor_groot.Qwen3VLVideoProcessor.from_pretrained = staticmethod(lambda *a, **k: Qwen3VLVideoProcessor())


def checkpoint(folder):
    """A raw checkpoint of N1.7, as NVIDIA's are, at a small width."""
    from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config

    block = {"positional_embeddings": None, "num_attention_heads": 2, "attention_head_dim": 8, "dropout": 0.2, "final_dropout": True}
    config = GR00TN17Config(
        model_dtype="float32", dtype="float32", backbone_embedding_dim=16, select_layer=2, max_state_dim=24, max_action_dim=24, action_horizon=8, hidden_size=16,
        input_embedding_dim=16, max_seq_len=16, max_num_embodiments=3,
        diffusion_model_cfg={**block, "num_layers": 4, "norm_type": "ada_norm", "output_dim": 16, "interleave_self_attention": True},
        vl_self_attention_cfg={**block, "num_layers": 1})
    GR00TN17(config, load_backbone_weights=False).save_pretrained(folder)
    with open(f"{folder}/embodiment_id.json", "w") as file:
        json.dump({"simpler_env_google": 0, "new_embodiment": 1, "libero_sim": 2}, file)


class Look(nn.Module):
    """Pictures and words up to what the denoiser looks at. Everything that transformers works out of the pictures' size and the
    prompt's form is a constant: which place is a picture's, rotary angles, places of patches. A prompt that is shorter than its
    tensor is filled on the right, where a causal model does not look, and the rest is masked."""

    def __init__(self, model, ids, grids):
        super().__init__()
        backbone, head = model.backbone, model.action_head
        self.eyes, self.words, self.head = backbone.visual, backbone.language_model, head
        inner = backbone.model.model
        is_image = ids == backbone.model.config.image_token_id
        places = inner.get_rope_index(ids, mm_token_type_ids=is_image.int(), image_grid_thw=grids, attention_mask=torch.ones_like(ids))[0]
        cos, sin = self.words.rotary_emb(torch.zeros(1, ids.shape[1], 1), places)
        turns = self.eyes.rot_pos_emb(grids[:1])
        turns = torch.cat((turns, turns), -1)[:, None]
        # A picture is both frames of its patches, so their weights add up.
        kept = dict(cos=cos, sin=sin, turn_cos=turns.cos(), turn_sin=turns.sin(), patch_places=self.eyes.fast_pos_embed_interpolate(grids[:1]),
                    patch_weights=self.eyes.patch_embed.proj.weight.sum(2), is_image=is_image.int())
        for name, tensor in kept.items():
            self.register_buffer(name, tensor.detach().clone())
        edges = torch.where(is_image[0, 1:] != is_image[0, :-1])[0] + 1
        self.cuts = [0, *edges.tolist(), ids.shape[1]]

    def patches(self, picture):
        """[1, 3, side, side] -> [patches, width] in the processor's order: squares of merged patches one after the other."""
        x = nn.functional.conv2d(picture, self.patch_weights, self.eyes.patch_embed.proj.bias, stride=PATCH)
        side = SIDE // PATCH // MERGE
        x = x.reshape(-1, side, MERGE, side, MERGE)
        return x.permute(1, 3, 2, 4, 0).reshape(side * side * MERGE * MERGE, -1)

    def attend(self, attention, x):
        from transformers.models.qwen3_vl.modeling_qwen3_vl import rotate_half

        q, k, v = attention.qkv(x).reshape(x.shape[0], 3, attention.num_heads, -1).permute(1, 0, 2, 3)
        q, k = (y * self.turn_cos + rotate_half(y) * self.turn_sin for y in (q, k))
        score = q.transpose(0, 1) @ k.permute(1, 2, 0) * attention.scaling
        out = (torch.softmax(score, -1) @ v.transpose(0, 1)).transpose(0, 1)
        return attention.proj(out.reshape(x.shape[0], -1))

    def see(self, picture):
        """What the language model is given for the picture, and what is added after each of its first layers."""
        x, deep = self.patches(picture) + self.patch_places, []
        for at, block in enumerate(self.eyes.blocks):
            x = x + self.attend(block.attn, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
            if at in self.eyes.deepstack_visual_indexes:
                deep.append(self.eyes.deepstack_merger_list[len(deep)](x))
        return [y[None] for y in (self.eyes.merger(x), *deep)]

    def joined(self, words, pictures):
        """The pictures' rows in the places of their marks, the words' in the others."""
        pictures, parts = list(pictures), []
        for at, (start, end) in enumerate(zip(self.cuts, self.cuts[1:])):
            parts.append(words[:, start:end] if at % 2 == 0 else pictures.pop(0))
        return torch.cat(parts, 1)

    def forward(self, top, wrist, ids, mask, state, embodiment):
        seen = [self.see(picture) for picture in (top, wrist)]
        x = self.joined(self.words.embed_tokens(ids), [one[0] for one in seen])
        valid = mask.float()
        count = torch.cumsum(valid, 1)
        looks = (count[:, :, None] >= count[:, None, :]).float() * valid[:, None, :]
        unseen = ((looks - 1) * 1e9)[:, None]
        for at, layer in enumerate(self.words.layers):
            x = layer(x, position_embeddings=(self.cos, self.sin), attention_mask=unseen)
            deep = [one[1 + at] for one in seen if len(one) > 1 + at]
            if deep:
                x = x + self.joined(torch.zeros_like(x), deep)
        x = self.head.vlln(x)
        # LeRobot's runs over a prompt without padding and so has no mask here.
        for block in self.head.vl_self_attention.transformer_blocks:
            x = block(x, attention_mask=(valid - 1) * 1e9)
        return x, self.head.state_encoder(state[:, None], embodiment), mask * (1 - self.is_image), mask * self.is_image


class Denoise(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, vl, state, text, image, actions, timestep, embodiment):
        head = self.head
        x = head.action_encoder(actions, timestep, embodiment) + head.position_embedding.weight[: actions.shape[1]][None]
        out = head.model(hidden_states=torch.cat((state, x), 1), encoder_hidden_states=vl, timestep=timestep, image_mask=image > 0, backbone_attention_mask=(text + image) > 0)
        return head.action_decoder(out, embodiment)[:, -actions.shape[1] :]


def groot_n17():
    from lerobot.policies.groot import groot_n1_7
    from lerobot.policies.groot.configuration_groot import GrootConfig
    from lerobot.policies.groot.modeling_groot import GrootPolicy
    from lerobot.policies.groot.processor_groot import make_groot_pre_post_processors

    rng = seeded(17)
    cameras, size, n, horizon, wide, prompt = ["top", "wrist"], (64, 48), 6, 8, 24, 160
    b = Bundle("groot_n17", "gr00t-n1.7")
    tokenizer = tokenizer_of(b.dir / "tokenizer.json")
    in_place_of_the_hub(tokenizer)
    inputs, outputs = features(cameras, size, n)
    table = stats(rng, cameras, n)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(folder)
        config = GrootConfig(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, max_state_dim=wide, max_action_dim=wide,
                             base_model_path=folder, use_bf16=False, device="cpu")
        policy = GrootPolicy(config)
        pre, post = make_groot_pre_post_processors(config, dataset_stats=table)
    model = lively(policy._groot_model)
    # The backbone's gain makes of this head a denoiser that turns a rounding into some hundred times it.
    lively(model.action_head, 0.8)
    with torch.no_grad():
        # Most of an answer lies within the -1..1 that it is clipped to.
        for p in model.action_head.action_decoder.layer2.parameters():
            p.mul_(0.25)

    def answer(pictures, state, noise, sentence):
        given = torch.from_numpy(noise.reshape(1, horizon, wide))
        by_chance, torch.randn = torch.randn, lambda *a, **k: given.clone()
        try:
            return post(policy.predict_action_chunk(pre(observation(pictures, cameras, state, sentence))))[0].numpy()
        finally:
            torch.randn = by_chance

    marks = SIDE // PATCH // MERGE
    picture = f"<|vision_start|>{'<|image_pad|>' * marks**2}<|vision_end|>"
    template = f"<|im_start|>user\n{picture * len(cameras)}{{task}}<|im_end|>\n"
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "clean": [{"op": "lower"}, {"op": "drop_punctuation"}], "template": template, "max_len": prompt}
    # LeRobot's own: to 256, the middle 230 of it, back to 256.
    resize = {"op": "resize", "width": SIDE, "height": SIDE, "fit": "stretch", "filter": "bicubic", "library": "torch_antialias"}
    ops = [resize, {"op": "center_crop", "width": 230, "height": 230}, resize]
    half = {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}
    b.tendon["cameras"] = [{"role": c, "source_size": list(size), "ops": ops, "levels": [half]} for c in cameras]
    b.tendon["constants"] = {"embodiment": {"fill": 1.0}}
    b.tendon["loop"] = {"kind": "flow", "velocity": "denoise.velocity", "flow": {"t_start": 0.0, "t_end": 1.0, "steps": 4, "time": {"kind": "bucket", "count": 1000}}}
    b.tendon["decoder"] = {"kind": "sample", "width": wide}
    from safetensors.numpy import save_file

    # As LeRobot itself writes them beside the weights.
    pack = next(step for step in pre.steps if type(step).__name__ == "GrootN17PackInputsStep")
    save_file({k: v.numpy() for k, v in pack.state_dict().items() if "image" not in k}, b.dir / "stats.safetensors")
    kept = lambda key: {"names": JOINTS, "units": UNITS, "stats": {"file": "stats.safetensors", "key": key, "mode": "min_max", "convention": "groot_n17"}}
    b.tendon["state"] = kept("observation.state")
    b.tendon["action"] = {**kept("action"), "horizon": horizon, "period_ms": 50.0, "first_step_ms": 0.0}

    # A prompt that fills its tensor shows where everything lies.
    batch = pre(observation([noise_picture(rng, *size) for _ in cameras], cameras, np.zeros(n, np.float32), "open the drawer"))
    ids = batch["input_ids"]
    full = torch.cat([ids, ids[:, -1:].repeat(1, prompt - ids.shape[1])], 1)
    look = Look(model, full, batch["image_grid_thw"])
    for part in (look.eyes, look.words):
        part.config._attn_implementation = "eager"
    image, i64 = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, prompt, dtype=torch.int64)
    one = torch.ones(1, dtype=torch.int64)
    vl, state, text, pictures = b.stage(
        "look", look, {"img_top": (image, "camera.top"), "img_wrist": (image, "camera.wrist"), "input_ids": (full, "text.ids"), "attention_mask": (i64.int(), "text.mask"),
                       "state": (torch.zeros(1, wide), "state"), "embodiment_id": (one, "const.embodiment")}, ["vl_embs", "state_features", "text_mask", "image_mask"], fold=True)
    b.stage("denoise", Denoise(model.action_head), {
        "vl_embs": (vl, "look.vl_embs"), "state_features": (state, "look.state_features"), "text_mask": (text, "look.text_mask"), "image_mask": (pictures, "look.image_mask"),
        "actions": (torch.zeros(1, horizon, wide), "loop.x"), "timesteps": (torch.zeros(1, dtype=torch.int64), "loop.time"), "embodiment_id": (one, "const.embodiment")}, ["velocity"], fold=True)
    for part in (look.eyes, look.words):
        part.config._attn_implementation = "sdpa"
    said = ["Open the drawer!", "open the drawer", SENTENCES[1]]
    pics = {c: [noise_picture(rng, *size) for _ in said] for c in cameras}
    states = rng.uniform(-1, 1, (len(said), n)).astype(np.float32)
    noise = rng.normal(size=(len(said), horizon * wide)).astype(np.float32)
    with torch.no_grad():
        actions = [answer([pics[c][i] for c in cameras], states[i], noise[i], sentence) for i, sentence in enumerate(said)]
    b.finish(said, {"state": states, "action": np.stack(actions), "noise": noise, **{f"camera.{c}": np.stack(p) for c, p in pics.items()}}, hz=2.0)
    hundred(b, lambda seen: answer(seen.pictures, seen.state, seen.noise, seen.sentence), noise=horizon * wide, sentences=SENTENCES)
