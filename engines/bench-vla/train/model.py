"""The policy: a small convnet that looks for what the sentence names, and a head that moves towards it.

Picture -> full-resolution feature map, steered by the sentence (FiLM) -> heat maps -> soft-argmax points -> where the
named block is -> with the joint state and the sentence -> 16 steps of relative joint targets and gripper.

Every operation is plain ONNX (opset 17). Inputs are already normalised; outputs are normalised actions.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data import CHUNK_LEN

# The rows of the picture that can show a block: the wall above and the table's edge below are a third of the work.
ROWS = (16, 80)
SIDE = 96
STRIDE = 2  # of the heat maps
STEERED, FREE = 4, 8  # points that depend on the sentence, and points that do not
TEXT = 64
# Metres to the head's units.
XYZ_CENTRE, XYZ_SCALE = (0.30, 0.0, 0.05), 0.10


class Text(nn.Module):
    """Words with their neighbours, pooled over the sentence."""

    def __init__(self, vocabulary, width=32):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        # A table of 0 for padding and 1 for a word: a mask without comparisons in the graph.
        is_word = torch.ones(vocabulary, 1)
        is_word[0] = 0.0
        self.register_buffer("is_word", is_word)
        self.neighbours = nn.Conv1d(width, TEXT, 3, padding=1)
        self.out = nn.Linear(2 * TEXT, TEXT)

    def forward(self, tokens):
        mask = F.embedding(tokens, self.is_word)
        x = (self.embed(tokens) * mask).transpose(1, 2)
        mask = mask.transpose(1, 2)
        x = F.relu(self.neighbours(x)) * mask
        mean = x.sum(2) / (mask.sum(2) + 1e-3)
        return F.relu(self.out(torch.cat([mean, x.amax(2)], 1)))


class Vision(nn.Module):
    """Heat maps and their soft-argmax points. Point 0 is taught to be the named block.

    No batch norm: three layers train without it, it costs a third of the training time, and there is nothing to fold.
    """

    def __init__(self, width=32):
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(3, width, 5, STRIDE, 2)
        self.plain = nn.Conv2d(width, width, 3, 1, 1)
        self.steer = nn.Conv2d(width, width, 3, 1, 1)
        for layer in (self.stem, self.plain, self.steer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.film = nn.Linear(TEXT, 2 * width)
        self.steered = nn.Conv2d(width, STEERED, 1)
        self.free = nn.Conv2d(width, FREE, 1)
        middle = lambda low, high: torch.arange(low + STRIDE / 2, high, STRIDE) / SIDE
        v, u = torch.meshgrid(middle(*ROWS), middle(0, SIDE), indexing="ij")
        self.register_buffer("grid", torch.stack([u.flatten(), v.flatten()], 1))

    def maps(self, image, text):
        film = self.film(text).unsqueeze(2).unsqueeze(3)
        gain, offset = film[:, : self.width], film[:, self.width :]
        x = F.relu(self.plain(F.relu(self.stem((image[:, :, ROWS[0] : ROWS[1]] - 0.5) * 4.0))))
        y = F.relu(self.steer(x) * (1.0 + gain) + offset)
        return torch.cat([self.steered(y), self.free(x)], 1)

    def forward(self, image, text, reduced=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            maps = self.maps(image, text)
        maps = maps.float().reshape(-1, STEERED + FREE, len(self.grid))
        heat = F.softmax(maps, 2)
        points = heat @ self.grid
        peak, logit = heat.amax(2), maps.amax(2) * 0.1
        return points, peak, logit, maps


def mlp(*widths):
    layers = []
    for a, b in zip(widths[:-2], widths[1:-1]):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Policy(nn.Module):
    def __init__(self, vocabulary, stats, step_scale):
        """`step_scale` [16,6]: the typical size of each target, so that near and far steps are learnt alike."""
        super().__init__()
        self.text = Text(vocabulary)
        self.vision = Vision()
        points = STEERED + FREE
        self.locate = mlp(4 * points + 1 + TEXT, 128, 128, 4)
        self.reach = mlp(18, 128, 128, 3)
        self.head = mlp(20 + TEXT + 13 + 4 * points, 256, 256, 256, CHUNK_LEN * 7)
        as_buffer = lambda name, value: self.register_buffer(name, torch.as_tensor(np.asarray(value), dtype=torch.float32))
        as_buffer("state_mean", stats["observation.state.mean"])
        as_buffer("state_std", stats["observation.state.std"])
        as_buffer("action_mean", stats["action.mean"])
        as_buffer("action_std", stats["action.std"])
        as_buffer("step_scale", step_scale)
        as_buffer("centre", XYZ_CENTRE)

    def see(self, image, text, state, reduced=False):
        """Where the named block is (metres), whether it is there (logit), and everything else that was seen."""
        points, peak, logit, maps = self.vision(image, text, reduced)
        seen = torch.cat([points.flatten(1) * 4.0 - 2.0, peak, logit], 1)
        vacuum = state[:, 7:8]
        out = self.locate(torch.cat([seen, vacuum, text], 1))
        return out[:, :3] * XYZ_SCALE + self.centre, out[:, 3], seen, points[:, 0], maps[:, 0]

    def act(self, state, text, xyz, presence, seen):
        """Raw joint targets relative to now [B,16,6] and gripper logits [B,16]."""
        joints = state[:, :6]
        body = torch.cat([joints, torch.sin(joints), torch.cos(joints)], 1)
        tip = self.reach(body) * XYZ_SCALE + self.centre
        away = xyz - tip
        there = torch.sigmoid(presence).unsqueeze(1)
        features = torch.cat([
            body, state[:, 6:], text, (xyz - self.centre) / XYZ_SCALE, (tip - self.centre) / XYZ_SCALE,
            away / XYZ_SCALE, torch.tanh(away / 0.02), there, seen,
        ], 1)
        out = self.head(features).reshape(-1, CHUNK_LEN, 7)
        # No block, no motion: the same gate for every joint and step.
        return out[:, :, :6] * self.step_scale * there.unsqueeze(2), out[:, :, 6], tip

    def forward(self, image, state, tokens):
        """What is exported: normalised in, normalised out."""
        raw_state = state * self.state_std + self.state_mean
        text = self.text(tokens)
        xyz, presence, seen, point, _ = self.see(image, text, raw_state)
        joints, grip, _ = self.act(raw_state, text, xyz, presence, seen)
        raw = torch.cat([joints, torch.sigmoid(grip).unsqueeze(2)], 2)
        action = (raw - self.action_mean) / self.action_std
        return action, point, presence.unsqueeze(1)
