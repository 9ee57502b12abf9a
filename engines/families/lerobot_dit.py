# SPDX-License-Identifier: Apache-2.0
"""Multi-Task DiT: LeRobot's own class over transformers' CLIP at a small width, with LeRobot's own pre- and postprocessor, its own
queue of observations and diffusers' DDPM; its own unpatched forward is the reference.

What is put in the place of what only the hub has: the weights of CLIP's two halves (small ones) and its tokenizer's words.
"""

import numpy as np
import torch
from torch import nn

from bundle import Bundle, lively, noise_picture, seeded
from hundred import hundred
from lerobot_families import features, observation, save_folder, stats, vector

SENTENCES = ["open the drawer", "put the blue block in the bowl"]
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS, SIDE = 16, 32


def tokenizer_of(path):
    """CLIP's kind: small letters, byte-level BPE with ends of words, a mark at either end."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    # A trainer breaks ties by chance; here words grow letter by letter.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = [*letters, *(letter + "</w>" for letter in letters)], []
    for word in sorted({word for sentence in SENTENCES for word in sentence.split()}):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            vocabulary.append(parts[0])
    t = Tokenizer(models.BPE({token: at for at, token in enumerate(dict.fromkeys(vocabulary))}, list(dict.fromkeys(merges)), end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    parts = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(parts, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    # The end has the highest id, which CLIP looks for.
    t.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in (START, END)])
    t.post_processor = processors.RobertaProcessing(sep=(END, t.token_to_id(END)), cls=(START, t.token_to_id(START)), trim_offsets=False, add_prefix_space=False)
    t.save(str(path))
    return t


def in_place_of_the_hub(tokenizer):
    """LeRobot asks the hub for CLIP's two halves and its tokenizer; it gets these."""
    from lerobot.policies.multi_task_dit import modeling_multi_task_dit as dit
    from lerobot.processor import tokenizer_processor
    from transformers import CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast

    shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    # OpenAI's files say that the end of a text is 2, by which transformers takes the highest id.
    text = CLIPTextConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=WORDS, eos_token_id=2, **shape)
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=8, **shape)
    dit.CLIPTextModel.from_pretrained = staticmethod(lambda *a, **k: dit.CLIPTextModel(text))
    dit.CLIPVisionModel.from_pretrained = staticmethod(lambda *a, **k: dit.CLIPVisionModel(vision))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, bos_token=START, eos_token=END, unk_token=END)
    tokenizer_processor.AutoTokenizer.from_pretrained = staticmethod(lambda *a, **k: fast)


class Read(nn.Module):
    """LeRobot's text encoder. What is padding stands behind the end, where a causal model does not look, so no mask of it is needed."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.text = encoder, encoder.text_encoder.text_model

    def forward(self, ids):
        x = self.text.embeddings(input_ids=ids)
        unseen = torch.triu(torch.full((WORDS, WORDS), -1e9), 1)[None, None]
        for layer in self.text.encoder.layers:
            x = layer(x, attention_mask=unseen)
        x = self.text.final_layer_norm(x)
        # The end also fills what is left, and the first one counts: runtimes differ in which of equals is the largest.
        ends = (ids == ids.max(1, keepdim=True)[0]).float()
        first = ends * (torch.cumsum(ends, 1) == 1).float()
        return self.encoder.projection((x * first[..., None]).sum(1))


class See(nn.Module):
    """LeRobot's own `encode` without its text encoder and without the resize and crop, which are the runtime's."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, top, wrist, state, text):
        eye = self.encoder.vision_encoder.model.vision_model
        seen = []
        for picture in (top, wrist):
            x = eye.embeddings.patch_embedding(picture[0]).flatten(2).transpose(1, 2)
            x = torch.cat([eye.embeddings.class_embedding.expand(x.shape[0], 1, -1), x], 1) + eye.embeddings.position_embedding.weight[None]
            x = eye.pre_layrnorm(x)
            for layer in eye.encoder.layers:
                x = layer(x, attention_mask=None)
            seen.append(x[:, 0][None])
        return torch.cat([state, *seen, text[:, None].expand(-1, state.shape[1], -1)], -1).flatten(1)


class Denoise(nn.Module):
    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, sample, timestep, cond):
        return self.predictor(sample, timestep, conditioning_vec=cond)


def multi_task_dit():
    import diffusers.schedulers.scheduling_ddpm as ddpm
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy

    rng = seeded(18)
    cameras, size, n, spacing, past, horizon, kept, steps = ["top", "wrist"], (64, 48), 6, 100, 2, 8, 4, 20
    b = Bundle("multi_task_dit", "multi_task_dit")
    tokenizer = tokenizer_of(b.dir / "tokenizer.json")
    in_place_of_the_hub(tokenizer)
    inputs, outputs = features(cameras, size, n)
    config = MultiTaskDiTConfig(input_features=inputs, output_features=outputs, n_obs_steps=past, horizon=horizon, n_action_steps=kept, hidden_dim=16, num_layers=2,
                                num_heads=2, timestep_embed_dim=16, image_resize_shape=(36, 48), image_crop_shape=(SIDE, SIDE), num_inference_steps=steps, tokenizer_max_length=WORDS, device="cpu")
    policy = lively(MultiTaskDiTPolicy(config))
    with torch.no_grad():
        # As a trained one it takes most of what it is given for noise, so that an answer lies within the -1..1 that it is clipped to.
        into, out = policy.noise_predictor.input_proj, policy.noise_predictor.output_proj
        out.weight.copy_(torch.linalg.pinv(into.weight))
        out.bias.copy_(-out.weight @ into.bias)
        for block in policy.noise_predictor.transformer_blocks:
            block.adaLN_modulation[1].weight.mul_(0.4)
    table = stats(rng, cameras, n)
    pre, post = make_pre_post_processors(config, dataset_stats=table)

    def answer(pictures, state, noise, sentence, is_new):
        """LeRobot's own way of an observation into its queue and out of its model."""
        if is_new:
            policy.reset()
        given = iter(torch.from_numpy(noise.reshape(steps, 1, horizon, n)))
        kinds = (torch.randn, ddpm.randn_tensor)
        torch.randn = ddpm.randn_tensor = lambda *a, **k: next(given).clone()
        try:
            from lerobot.policies.utils import populate_queues

            batch = policy._prepare_batch(pre(observation(pictures, cameras, state, sentence)))
            batch.pop("action", None)
            policy._queues = populate_queues(policy._queues, batch)
            return post(policy.predict_action_chunk(batch))[0].numpy()
        finally:
            torch.randn, ddpm.randn_tensor = kinds

    pads = tokenizer.token_to_id(END)
    b.tendon["text"] = {"kind": "prompt", "tokenizer": "tokenizer.json", "special_tokens": True, "max_len": WORDS, "pad_id": pads}
    ops = [{"op": "resize", "width": 48, "height": 36, "fit": "stretch", "filter": "bilinear", "library": "torch_antialias", "bytes": False},
           {"op": "center_crop", "width": SIDE, "height": SIDE}]
    levels = [{"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}]
    b.tendon["cameras"] = [{"role": c, "source_size": list(size), "ops": ops, "levels": levels, "history": past, "spacing_ms": spacing} for c in cameras]
    schedule = {"scheduler": "ddpm", "train_steps": 100, "steps": steps, "betas": {"kind": "squared_cosine", "max": 0.999}, "prediction": "epsilon", "clip": 1.0}
    b.tendon["loop"] = {"kind": "diffusion", "said": "denoise.noise_pred", "schedule": schedule}
    b.tendon["decoder"] = {"kind": "sample", "start": (past - 1) * n, "width": n}
    file = save_folder(b, policy, pre, post)
    b.tendon["state"] = vector(file, "observation.state", "min_max", history=past, spacing_ms=spacing)
    b.tendon["action"] = vector(file, "action", "min_max", horizon=kept, period_ms=float(spacing), first_step_ms=0.0)
    encoder = policy.observation_encoder
    text = b.stage("read", Read(encoder.text_encoder), {"input_ids": (torch.ones(1, WORDS, dtype=torch.int64), "text.ids")}, ["text"], fold=True)[0]
    image = torch.zeros(1, past, 3, SIDE, SIDE)
    cond = b.stage("see", See(encoder), {"img_top": (image, "camera.top"), "img_wrist": (image, "camera.wrist"), "state": (torch.zeros(1, past, n), "state"),
                                         "text": (text, "read.text")}, ["global_cond"], fold=True)[0]
    b.stage("denoise", Denoise(policy.noise_predictor), {"sample": (torch.zeros(1, horizon, n), "loop.x"), "timestep": (torch.zeros(1, dtype=torch.int64), "loop.time"),
                                                         "global_cond": (cond, "see.global_cond")}, ["noise_pred"], fold=True)
    said = [SENTENCES[0], SENTENCES[0], "Open the  drawer", SENTENCES[1], SENTENCES[1]]
    frames, restart = len(said), np.uint8([1, 0, 0, 1, 0])
    pics = {c: [noise_picture(rng, *size) for _ in said] for c in cameras}
    states = rng.uniform(-0.5, 0.5, (frames, n)).astype(np.float32)
    noise = rng.normal(size=(frames, steps * horizon * n)).astype(np.float32)
    with torch.no_grad():
        actions = [answer([pics[c][i] for c in cameras], states[i], noise[i], said[i], restart[i]) for i in range(frames)]
    b.finish(said, {"state": states, "action": np.stack(actions), "noise": noise, "new_episode": restart, "time_ms": np.int32([0, 100, 200, 300, 400]),
                    **{f"camera.{c}": np.stack(p) for c, p in pics.items()}})
    hundred(b, lambda seen: answer(seen.pictures, seen.state, seen.noise, seen.sentence, seen.is_new), noise=steps * horizon * n, sentences=SENTENCES)
