"""The loss and the loop."""

import copy
import math
import time

import torch
from torch.nn import functional as F

from model import Policy, SIDE, STRIDE, XYZ_SCALE


def step_scale(frames):
    """Typical size of the target of each joint at each step, floored so that joints which rest stay at rest."""
    return torch.from_numpy(frames.action[:, :, :6]).std(0).clamp_min(0.01)


def near_goal(batch):
    """More weight where millimetres decide: close to the block."""
    away = (batch["xyz"] - batch["tip"]).norm(dim=1)
    return 1.0 + 4.0 * torch.exp(-((away / 0.05) ** 2)) * batch["present"]


def action_loss(model, batch, joints, grip, tip):
    weight = near_goal(batch)
    scaled = (joints - batch["action"][:, :, :6]) / model.step_scale
    motion = F.smooth_l1_loss(scaled, torch.zeros_like(scaled), beta=0.05, reduction="none").mean((1, 2))
    suction = F.binary_cross_entropy_with_logits(grip, batch["action"][:, :, 6], reduction="none").mean(1)
    reach = ((tip - batch["tip"]) / XYZ_SCALE).abs().mean(1)
    return (weight * (motion + 0.2 * suction)).mean() + reach.mean(), motion.mean()


def geometry_loss(model, batch):
    """The head alone, told where the block is, with the error that eyes have."""
    text = model.text(batch["tokens"])
    count = len(text)
    present = batch["present"]
    xyz = torch.where(present[:, None] > 0, batch["xyz"], 0.3 * torch.rand(count, 3))
    xyz = xyz + 0.002 * torch.randn(count, 3)
    presence = (present * 2.0 - 1.0) * (4.0 + 4.0 * torch.rand(count))
    joints, grip, tip = model.act(batch["state"], text, xyz, presence, torch.zeros(count, 48))
    return action_loss(model, batch, joints, grip, tip)[0]


def picture_loss(model, batch, reduced):
    text = model.text(batch["tokens"])
    xyz, presence, seen, point, heat = model.see(batch["image"], text, batch["state"], reduced)
    joints, grip, tip = model.act(batch["state"], text, xyz, presence, seen)
    action, motion = action_loss(model, batch, joints, grip, tip)

    # The named block in the picture, where it is in the picture.
    uv, cells = batch["uv"], model.vision.grid
    inside = ((uv > cells.amin(0)) & (uv < cells.amax(0))).all(1)
    visible = batch["present"] * inside.float()
    total = visible.sum().clamp_min(1.0)
    target = torch.softmax(-((uv[:, None] - cells[None]) ** 2).sum(2) * ((SIDE / STRIDE) ** 2 / 2.0), 1)
    map_loss = (-(target * F.log_softmax(heat, 1)).sum(1) * visible).sum() / total
    point_loss = ((point - uv).abs().sum(1) * visible).sum() / total
    # A held block is where the tip is: its place is not asked of the picture with the same force.
    held = (batch["state"][:, 7] > 0.5).float()
    place = ((xyz - batch["xyz"]) / XYZ_SCALE).abs().mean(1)
    place_loss = (place * visible * (1.0 - 0.8 * held)).sum() / total
    presence_loss = F.binary_cross_entropy_with_logits(presence, batch["present"])
    loss = action + 0.05 * map_loss + 2.0 * point_loss + 2.0 * place_loss + 0.2 * presence_loss
    parts = {"motion": motion, "map": map_loss, "point": point_loss, "place_mm": place_loss * XYZ_SCALE * 1e3, "presence": presence_loss}
    return loss, parts


def parameter_groups(model):
    decay, plain = [], []
    for name, value in model.named_parameters():
        (decay if value.ndim > 1 and "embed" not in name else plain).append(value)
    return [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


class Average:
    """Exponential moving average of the weights: what is kept."""

    def __init__(self, model, decay=0.999):
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1.0 - decay)
            else:
                mine.copy_(theirs)


def fit(model, batcher, *, geometry_steps, picture_steps, batch=128, rate=2e-3, reduced=False, log=print):
    """First the head by itself, then everything together. Returns the averaged model."""
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=rate, betas=(0.9, 0.98))
    started = time.time()
    for step in range(geometry_steps):
        warm, left = min(1.0, (step + 1) / 100), 1.0 - step / geometry_steps
        set_rate(optimiser, rate * warm * (0.2 + 0.8 * left))
        loss = geometry_loss(model, batcher.geometry(1024))
        descend(model, optimiser, loss)
        if step % 500 == 0:
            log(f"head {step}/{geometry_steps} loss {loss.item():.4f} {time.time() - started:.0f} s")
    average = Average(model)
    for step in range(picture_steps):
        warm, angle = min(1.0, (step + 1) / 100), math.pi * step / picture_steps
        set_rate(optimiser, rate * warm * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(angle))))
        loss, parts = picture_loss(model, batcher.pictures(batch), reduced)
        loss = loss + geometry_loss(model, batcher.geometry(256))
        descend(model, optimiser, loss)
        average.update(model)
        if step % 500 == 0 or step == picture_steps - 1:
            shown = " ".join(f"{k} {v.item():.4f}" for k, v in parts.items())
            log(f"all {step}/{picture_steps} loss {loss.item():.4f} {shown} {time.time() - started:.0f} s")
    return average.model


def set_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group["lr"] = rate


def descend(model, optimiser, loss):
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def new_model(vocabulary, stats, frames):
    model = Policy(vocabulary, stats, step_scale(frames))
    model.vision.to(memory_format=torch.channels_last)
    return model
