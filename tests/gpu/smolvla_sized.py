# SPDX-License-Identifier: Apache-2.0
"""Graphs of SmolVLA's size and shape with random weights, for timing: prefix.onnx (two pictures of 512x512 through 12 layers of
768, 64 tokens of each with 49 more through 16 layers of 960, whose keys and values it gives) and step.onnx (50 actions through 16
layers of 720 that read them). Sizes from SmolVLA's published configuration (lerobot/smolvla_base, SmolVLM2-500M); the numbers mean
nothing.

    python3 tests/gpu/smolvla_sized.py FOLDER [--tiny]     needs numpy and onnx; --tiny: a try of the same shape
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = pathlib.Path(sys.argv[1])
tiny = "--tiny" in sys.argv[2:]
folder.mkdir(parents=True, exist_ok=True)
SEE, SEE_MLP, SEE_LAYERS = (48, 96, 2) if tiny else (768, 3072, 12)
READ, READ_MLP, EXPERT, EXPERT_MLP, LAYERS = (60, 96, 30, 64, 2) if tiny else (960, 2560, 720, 2048, 16)
HEAD, HEADS, SEE_HEADS = (12, 5, 4) if tiny else (64, 15, 12)
SIDE, PATCH, SHUFFLE = (128, 16, 4) if tiny else (512, 16, 4)
PICTURES, WORDS, ACTIONS, WIDTH = 2, 49, 50, 32
dice = np.random.default_rng(1)


class Graph:
    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0

    def name(self):
        self.count += 1
        return f"v{self.count}"

    def add(self, op, *inputs, **attributes):
        out = self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def number(self, values, kind=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def linear(self, x, wide, out):
        bound = np.float32((3 / wide) ** 0.5)
        weight = (dice.random((wide, out), np.float32) * 2 - 1) * bound
        return self.add("MatMul", x, self.number(weight))

    def norm(self, x, wide):
        ones, zeros = self.number(np.ones(wide)), self.number(np.zeros(wide))
        return self.add("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-5)

    def heads(self, x, heads, size, last=False):
        split = self.add("Reshape", x, self.number([0, -1, heads, size], np.int64))
        return self.add("Transpose", split, perm=[0, 2, 3, 1] if last else [0, 2, 1, 3])

    def attend(self, q, k, v, size, wide):
        scores = self.add("Mul", self.add("MatMul", q, k), self.number(size**-0.5))
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        return self.add("Reshape", self.add("Transpose", mixed, perm=[0, 2, 1, 3]), self.number([0, -1, wide], np.int64))

    def gated(self, x, wide, inner):
        gate = self.linear(x, wide, inner)
        gate = self.add("Mul", gate, self.add("Sigmoid", gate))
        return self.linear(self.add("Mul", gate, self.linear(x, wide, inner)), inner, wide)

    def gelu(self, x, wide, inner):
        x = self.linear(x, wide, inner)
        erf = self.add("Erf", self.add("Mul", x, self.number(0.5**0.5)))
        half = self.add("Mul", self.add("Add", erf, self.number(1.0)), self.number(0.5))
        return self.linear(self.add("Mul", x, half), inner, wide)

    def save(self, name, inputs, outputs):
        info = lambda tensors: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in tensors]
        graph = helper.make_graph(self.nodes, name, info(inputs), info(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
        parameters = sum(int(np.prod(weight.dims)) for weight in self.weights)
        print(f"{name}.onnx: {parameters / 1e6:.1f} million parameters")
        return {"inputs": inputs, "outputs": outputs}


def prefix():
    g = Graph()
    tokens, shown = (SIDE // PATCH) ** 2, (SIDE // PATCH // SHUFFLE) ** 2
    kernel = g.number(dice.normal(0, 0.02, (SEE, 3, PATCH, PATCH)))
    x = g.add("Conv", "images", kernel, strides=[PATCH, PATCH])
    x = g.add("Transpose", g.add("Reshape", x, g.number([0, SEE, tokens], np.int64)), perm=[0, 2, 1])
    for _ in range(SEE_LAYERS):
        n = g.norm(x, SEE)
        size = SEE // SEE_HEADS
        q, v = g.heads(g.linear(n, SEE, SEE), SEE_HEADS, size), g.heads(g.linear(n, SEE, SEE), SEE_HEADS, size)
        k = g.heads(g.linear(n, SEE, SEE), SEE_HEADS, size, last=True)
        x = g.add("Add", x, g.linear(g.attend(q, k, v, size, SEE), SEE, SEE))
        x = g.add("Add", x, g.gelu(g.norm(x, SEE), SEE, SEE_MLP))
    wide = SEE * SHUFFLE**2
    x = g.linear(g.add("Reshape", x, g.number([PICTURES, shown, wide], np.int64)), wide, READ)
    x = g.add("Concat", g.add("Reshape", x, g.number([1, PICTURES * shown, READ], np.int64)), "words", axis=1)
    length, kept = PICTURES * shown + WORDS, []
    for layer in range(LAYERS):
        n = g.norm(x, READ)
        q, v = g.heads(g.linear(n, READ, READ), HEADS, HEAD), g.heads(g.linear(n, READ, READ), HEADS, HEAD)
        k = g.heads(g.linear(n, READ, READ), HEADS, HEAD)
        kept += [g.add("Unsqueeze", value, g.number([0], np.int64)) for value in (k, v)]
        # What the last layer would go on to nobody reads.
        if layer + 1 < LAYERS:
            turned = g.add("Transpose", k, perm=[0, 1, 3, 2])
            x = g.add("Add", x, g.linear(g.attend(q, turned, v, HEAD, READ), READ, READ))
            x = g.add("Add", x, g.gated(g.norm(x, READ), READ, READ_MLP))
    g.nodes.append(helper.make_node("Concat", kept, ["cache"], axis=0))
    cache = [2 * LAYERS, 1, HEADS, length, HEAD]
    inputs = [["images", [PICTURES, 3, SIDE, SIDE]], ["words", [1, WORDS, READ]]]
    return g.save("prefix", inputs, [["cache", cache]]), cache


def step(cache):
    g = Graph()
    parts = [g.name() for _ in range(2 * LAYERS)]
    g.nodes.append(helper.make_node("Split", ["cache"], parts, axis=0))
    parts = [g.add("Squeeze", part, g.number([0], np.int64)) for part in parts]
    x = g.linear("x", WIDTH, EXPERT)
    for layer in range(LAYERS):
        n, k, v = g.norm(x, EXPERT), parts[2 * layer], parts[2 * layer + 1]
        q = g.heads(g.linear(n, EXPERT, READ), HEADS, HEAD)
        # Its own keys and values beside those of the prefix.
        k = g.add("Concat", k, g.heads(g.linear(n, EXPERT, READ), HEADS, HEAD), axis=2)
        v = g.add("Concat", v, g.heads(g.linear(n, EXPERT, READ), HEADS, HEAD), axis=2)
        k = g.add("Transpose", k, perm=[0, 1, 3, 2])
        x = g.add("Add", x, g.linear(g.attend(q, k, v, HEAD, READ), READ, EXPERT))
        x = g.add("Add", x, g.gated(g.norm(x, EXPERT), EXPERT, EXPERT_MLP))
    moved = g.add("Mul", g.linear(g.norm(x, EXPERT), EXPERT, WIDTH), g.number(-0.1))
    g.nodes.append(helper.make_node("Add", ["x", moved], ["next"]))
    shape = [1, ACTIONS, WIDTH]
    return g.save("step", [["cache", cache], ["x", shape]], [["next", shape]])


described, cache = prefix()
spec = {"prefix": described, "step": step(cache)}
(folder / "spec.json").write_text(json.dumps(spec, indent=1) + "\n")
