# SPDX-License-Identifier: Apache-2.0
"""Strongly typed graphs of 16 bits, and what they compute, shown on a processor.

`halved` rewrites a graph with onnxruntime.transformers.float16: inputs and outputs stay as they are, weights and arithmetic have 16 bits,
what is named in KEPT, or asked for by a node's name, keeps 32. A MatMul that is `wide` has weights of 16 bits and sums of 32, as a Cast
before and after it says to TensorRT.

No processor computes in 16 bits: ONNX Runtime's casts to 32 and forgets the rounding between two nodes, rten has no such type. So
`shadow` writes the same graph in 32 bits with each result rounded to 16 and back, which ONNX Runtime does leave in: rounding,
overflow and what is too small show as they are. A sum over a long inner dimension is rounded after each of its parts, because a GPU may keep
it in 16 bits. Read before quantize.py, and by engines/bench-vla/train.
"""

import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Sums, exponentials, angles and what is divided by them; and what takes 32 bits alone.
KEPT = [
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization", "LpNormalization", "Softmax", "LogSoftmax",
    "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd", "CumSum", "Pow", "Sqrt",
    "Reciprocal", "Exp", "Log", "Sin", "Cos", "Softplus", "Range", "Resize", "TopK", "Einsum", "IsNaN", "IsInf", "OneHot", "NonMaxSuppression",
    "QuantizeLinear", "DequantizeLinear",
]
# These move numbers and make none.
MOVES = {
    "Reshape", "Transpose", "Slice", "Concat", "Gather", "GatherElements", "GatherND", "Squeeze", "Unsqueeze", "Expand", "Tile", "Split", "Identity",
    "Flatten", "Pad", "Where", "ScatterND", "ScatterElements", "Relu", "Neg", "Abs", "Max", "Min", "MaxPool", "ReduceMax", "ReduceMin",
    "ConstantOfShape", "Constant", "Trilu", "DepthToSpace", "SpaceToDepth",
}
# A longer inner dimension is worth sums of 32 bits.
WIDE_FROM = 128
# A sum of 16 bits is rounded after each part of so many products, and not more often than so.
PART, PARTS_MAX = 64, 32


def named(model):
    """The graph with a name for each node, by its place."""
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}.{node.op_type}"
    return model


def folded(model):
    """The graph with its constants as weights."""
    for node in [node for node in model.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        model.graph.node.remove(node)
    return model


def types(model):
    """Element type and shape of each tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        tensor = value.type.tensor_type
        known[value.name] = (tensor.elem_type, [side.dim_value for side in tensor.shape.dim] if tensor.HasField("shape") else None)
    for tensor in graph.initializer:
        known[tensor.name] = (tensor.data_type, list(tensor.dims))
    return known


def inner(node, known):
    """Length of the sums of a MatMul or Gemm; 0 of any other node, or if nobody knows."""
    if node.op_type not in ("MatMul", "Gemm") or known.get(node.input[1], (0, None))[1] is None:
        return 0
    sides = known[node.input[1]][1]
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return sides[-1 if turned else -2] if len(sides) > 1 else 0


def candidates(model):
    """Names of the nodes that may have 16 bits, in order, and those of them whose sums are long."""
    known = types(model)
    floats = [
        node for node in model.graph.node
        if node.op_type not in KEPT and any(known.get(name, (0,))[0] == TensorProto.FLOAT for name in node.output)
    ]
    return [node.name for node in floats], [node.name for node in floats if inner(node, known) >= WIDE_FROM]


def ordered(graph):
    """Puts each node behind what it reads."""
    made = {name for node in graph.node for name in node.output}
    left, done, nodes = list(graph.node), set(), []
    while left:
        ready = [node for node in left if all(name in done or name not in made for name in node.input)]
        assert ready, "a graph that reads itself"
        nodes += ready
        done.update(name for node in ready for name in node.output)
        chosen = {id(node) for node in ready}
        left = [node for node in left if id(node) not in chosen]
    del graph.node[:]
    graph.node.extend(nodes)


def straightened(model):
    """Without the way through 16 bits from one node that has 32 to another, as the converter leaves it."""
    graph = model.graph
    del graph.value_info[:]
    known = types(model)
    made = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}

    def cast(node, kind):
        return node is not None and node.op_type == "Cast" and node.attribute[0].i == kind

    instead = {}
    for node in graph.node:
        before = made.get(node.input[0]) if cast(node, TensorProto.FLOAT) else None
        if not cast(before, TensorProto.FLOAT16) or known.get(before.input[0], (0,))[0] != TensorProto.FLOAT:
            continue
        if node.output[0] in outputs:
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]
        else:
            instead[node.output[0]] = before.input[0]
    for node in graph.node:
        for at in range(len(node.input)):
            while node.input[at] in instead:
                node.input[at] = instead[node.input[at]]
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        idle = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]
        if not idle:
            return
        for node in idle:
            graph.node.remove(node)


def halved(model, keep, wide):
    """The graph in 16 bits but for the nodes of these names: those in `keep` have 32, those in `wide` sums of 32."""
    # Here, because it is large and not everybody needs it.
    from onnxruntime.transformers.float16 import convert_float_to_float16

    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=KEPT, node_block_list=[*keep, *wide])
    graph = model.graph
    # It writes one and the same Cast again for each node that reads it.
    nodes = list({node.output[0]: node for node in reversed(graph.node)}.values())[::-1]
    del graph.node[:]
    graph.node.extend(nodes)
    ordered(graph)
    straightened(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # What has sums of 32 bits still has weights of 16.
    for node in [node for node in graph.node if node.name in set(wide)]:
        tensor = weights.get(node.input[1])
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            continue
        narrow = f"{tensor.name}.{node.name}.half"
        graph.initializer.append(numpy_helper.from_array(clipped(numpy_helper.to_array(tensor)), narrow))
        graph.node.append(helper.make_node("Cast", [narrow], [f"{narrow}.wide"], to=TensorProto.FLOAT, name=f"{narrow}.cast"))
        node.input[1] = f"{narrow}.wide"
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    ordered(graph)
    # Types of tensors that are no more, or that were another's before.
    del graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def clipped(values):
    most = float(np.finfo(np.float16).max)
    return np.clip(values, -most, most).astype(np.float16)


def shadow(model):
    """What a strongly typed graph computes, in 32 bits with the roundings of 16."""
    known = types(model)
    half = {name for name, (kind, _) in known.items() if kind == TensorProto.FLOAT16}
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    del graph.node[:], graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    def add(op, inputs, output, **attributes):
        graph.node.append(helper.make_node(op, inputs, [output], name=f"{output}.{op}", **attributes))
        return output

    def rounded(name, output):
        add("Cast", [name], f"{output}.16", to=TensorProto.FLOAT16)
        return add("Cast", [f"{output}.16"], output, to=TensorProto.FLOAT)

    def summed(node, length, output):
        """A product of matrices, rounded after each part of its sums."""
        flags = {a.name: a.i for a in node.attribute if a.name in ("transA", "transB")}
        count = min(-(-length // PART), PARTS_MAX)
        sizes = [length // count + (at < length % count) for at in range(count)]
        parts = f"{output}.sizes"
        graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), parts))
        sides = []
        for side, axis in ((0, -2 if flags.get("transA") else -1), (1, -1 if flags.get("transB") else -2)):
            if node.op_type == "Gemm":
                axis += 2
            pieces = [f"{output}.{side}.{at}" for at in range(count)]
            graph.node.append(helper.make_node("Split", [node.input[side], parts], pieces, axis=axis, name=f"{output}.{side}.Split"))
            sides.append(pieces)
        total = None
        for at, pair in enumerate(zip(*sides, strict=True)):
            product = rounded(add(node.op_type, list(pair), f"{output}.{at}.product", **flags), f"{output}.{at}.part")
            total = product if total is None else rounded(add("Add", [total, product], f"{output}.{at}.sum"), f"{output}.{at}.total")
        if len(node.input) > 2:
            total = rounded(add("Add", [total, node.input[2]], f"{output}.biased"), f"{output}.bias")
        return add("Identity", [total], output)

    for node in model.graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
        if to == TensorProto.FLOAT16:
            rounded(node.input[0], node.output[0])
            continue
        if to == TensorProto.FLOAT and node.input[0] in half:
            add("Identity", [node.input[0]], node.output[0])
            continue
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32), attribute.t.name))
        length = inner(node, known) if node.output[0] in half else 0
        plain = all(a.f == 1.0 for a in node.attribute if a.name in ("alpha", "beta"))
        # A vector has no side of its own for the sums.
        flat = any(len(known.get(name, (0, None))[1] or []) < 2 for name in node.input[:2])
        if length > PART and plain and not flat:
            summed(node, length, node.output[0])
            continue
        if node.op_type not in MOVES:
            for at, name in enumerate(node.output):
                if name in half:
                    node.output[at] = f"{name}.32"
        graph.node.append(node)
        for name in node.output:
            if name.endswith(".32") and name[:-3] in half:
                rounded(name, name[:-3])
    onnx.checker.check_model(out, full_check=True)
    return out
