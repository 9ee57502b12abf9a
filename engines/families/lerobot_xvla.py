# SPDX-License-Identifier: Apache-2.0
"""X-VLA: LeRobot's own class over transformers' Florence-2 at a small width, with LeRobot's own pre- and postprocessor; its own
unpatched forward is the reference.

What is put in the place of what only the hub has: Florence-2's configuration and BART's tokenizer's words.
"""

import numpy as np
import torch
from torch import nn

from bundle import Bundle, lively, noise_picture, seeded
from hundred import hundred
from lerobot_families import IMAGENET, JOINTS, UNITS, features, observation

SENTENCES = ["open the drawer", "put the blue block in the bowl"]
WORDS, SIDE, STEPS, DOMAIN = 16, 64, 10, 2


def tokenizer_of(path):
    """BART's kind: byte-level BPE, a mark at either end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(SENTENCES * 4, trainers.BpeTrainer(vocab_size=290, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0), trim_offsets=True, add_prefix_space=False)
    t.save(str(path))
    return t


class See(nn.Module):
    """LeRobot's `forward_vlm` without its choice of pictures: all are there. What is left of the square is 0 after normalisation, so it
    is added here and not by the runtime, which fills before."""

    def __init__(self, model):
        super().__init__()
        self.vlm = model.vlm

    def forward(self, top, wrist, ids):
        pictures = nn.functional.pad(torch.cat([top, wrist]), (0, 0, SIDE - top.shape[2], 0))
        pictures = self.vlm.get_image_features(pictures).pooler_output
        encoder = self.vlm.language_model.encoder
        x = torch.cat([pictures[:1], self.vlm.get_input_embeddings()(ids)], 1)
        x = encoder.layernorm_embedding(x + encoder.embed_positions(x[:, :, -1]))
        for layer in encoder.layers:
            x = layer(x, None)
        return x, pictures[1:]


class Denoise(nn.Module):
    """X-VLA says the action itself and mixes it with the first noise anew. That noise is handed on from step to step, and what is said
    is told as the speed that leads to the mixture of the next time."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, features, aux, state, x, first, t, domain):
        proprio, x_m = self.model.action_space.preprocess(state, x)
        action = self.model.transformer(domain_id=domain, vlm_features=features, aux_visual_inputs=aux, action_with_noise=x_m, proprio=proprio, t=t)
        later = (t - 1 / STEPS)[:, None, None]
        return (x - (first * later + action * (1 - later))) * STEPS, first + 0.0


def xvla():
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
    from lerobot.policies.xvla.processor_xvla import XVLAAddDomainIdProcessorStep
    from lerobot.processor import tokenizer_processor
    from transformers import PreTrainedTokenizerFast

    rng = seeded(19)
    cameras, size, n, horizon, wide = ["top", "wrist"], (80, 60), 6, 8, 20
    b = Bundle("xvla", "xvla")
    tokenizer = tokenizer_of(b.dir / "tokenizer.json")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer_processor.AutoTokenizer.from_pretrained = staticmethod(lambda *a, **k: fast)
    # In the form that X-VLA's checkpoints keep, which LeRobot translates.
    florence = {"vision_config": dict(model_type="davit", depths=[1, 1, 1, 1], dim_embed=[8, 8, 16, 16], num_heads=[2] * 4, num_groups=[2] * 4, window_size=4,
                                      drop_path_rate=0.1, patch_size=[7, 3, 3, 3], patch_stride=[4, 2, 2, 2], patch_padding=[3, 1, 1, 1],
                                      patch_prenorm=[False, True, True, True], projection_dim=16,
                                      image_pos_embed={"type": "learned_abs_2d", "max_pos_embeddings": 8},
                                      visual_temporal_embedding={"type": "COSINE", "max_temporal_embeddings": 4},
                                      image_feature_source=["spatial_avg_pool", "temporal_avg_pool"]),
                "text_config": dict(model_type="florence2_language", vocab_size=tokenizer.get_vocab_size(), d_model=16, encoder_layers=2, decoder_layers=1,
                                    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
                                    pad_token_id=1, bos_token_id=0, eos_token_id=2)}
    inputs, outputs = features(cameras, size, n)
    config = XVLAConfig(input_features=inputs, output_features=outputs, chunk_size=horizon, n_action_steps=horizon, florence_config=florence, tokenizer_max_length=WORDS,
                        hidden_size=16, depth=2, num_heads=2, num_domains=3, len_soft_prompts=4, max_len_seq=64, action_mode="auto", num_denoising_steps=STEPS,
                        max_state_dim=wide, max_action_dim=wide, resize_imgs_with_padding=(SIDE, SIDE), device="cpu")
    policy = lively(XVLAPolicy(config))
    with torch.no_grad():
        # Tables of matrices in rows, whose rows are longer than a matrix is wide.
        for linear in (policy.model.transformer.action_encoder, policy.model.transformer.action_decoder):
            linear.fc.weight.mul_(4.0)
    pre, post = make_pre_post_processors(config)
    next(step for step in pre.steps if isinstance(step, XVLAAddDomainIdProcessorStep)).domain_id = DOMAIN
    model = policy.model

    def answer(pictures, state, noise, sentence):
        given = torch.from_numpy(noise.reshape(1, horizon, wide))
        by_chance, torch.randn = torch.randn, lambda *a, **k: given.clone()
        try:
            return post(policy.predict_action_chunk(pre(observation(pictures, cameras, state, sentence))))[0].numpy()
        finally:
            torch.randn = by_chance

    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "special_tokens": True, "max_len": WORDS, "pad_id": 1}
    height = size[1] * SIDE // size[0]
    ops = [{"op": "resize", "width": SIDE, "height": height, "fit": "stretch", "filter": "bilinear", "library": "torch", "bytes": False}]
    b.tendon["cameras"] = [{"role": c, "source_size": list(size), "ops": ops, "levels": [IMAGENET]} for c in cameras]
    b.tendon["constants"] = {"domain": {"fill": float(DOMAIN)}}
    b.tendon["loop"] = {"kind": "flow", "velocity": "denoise.velocity", "flow": {"t_start": 1.0, "t_end": 0.0, "steps": STEPS, "time": {"kind": "f32"}, "grid": "exact"}}
    b.tendon["decoder"] = {"kind": "sample", "width": wide}
    b.tendon["state"] = {"names": JOINTS, "units": UNITS}
    b.tendon["action"] = {"names": JOINTS, "units": UNITS, "horizon": horizon, "period_ms": 33.0, "first_step_ms": 0.0}
    image, ids = torch.zeros(1, 3, height, SIDE), torch.ones(1, WORDS, dtype=torch.int64)
    seen, aux = b.stage("see", See(model), {"img_top": (image, "camera.top"), "img_wrist": (image, "camera.wrist"), "input_ids": (ids, "text.ids")},
                        ["vlm_features", "aux_visual_inputs"], fold=True)
    x = torch.zeros(1, horizon, wide)
    b.stage("denoise", Denoise(model), {
        "vlm_features": (seen, "see.vlm_features"), "aux_visual_inputs": (aux, "see.aux_visual_inputs"), "state": (torch.zeros(1, wide), "state"),
        "x_t": (x, "loop.x"), "first": (x, "loop.x", "denoise.kept"), "t": (torch.ones(1), "loop.time"),
        "domain_id": (torch.ones(1, dtype=torch.int64), "const.domain")}, ["velocity", "kept"], fold=True)
    said = [SENTENCES[0], SENTENCES[0], "Open it"]
    pics = {c: [noise_picture(rng, *size) for _ in said] for c in cameras}
    states = rng.uniform(-1, 1, (len(said), n)).astype(np.float32)
    noise = rng.normal(size=(len(said), horizon * wide)).astype(np.float32)
    with torch.no_grad():
        actions = [answer([pics[c][i] for c in cameras], states[i], noise[i], said[i]) for i in range(len(said))]
    b.finish(said, {"state": states, "action": np.stack(actions), "noise": noise, **{f"camera.{c}": np.stack(p) for c, p in pics.items()}}, hz=2.0)
    hundred(b, lambda seen: answer(seen.pictures, seen.state, seen.noise, seen.sentence), noise=horizon * wide, sentences=SENTENCES)
