"""FP32 graph -> explicit Q/DQ graph that both TensorRT generations take.

Signed 8 bit, symmetric, zero-point 0; weights per output channel, activations per tensor; biases stay float; outputs
are not quantised. Only the convolutions of the picture's trunk are quantised: they are nearly all of the arithmetic.
The heat maps, the soft-argmax, the sentence and the head stay float, because a step of 1/127 there is millimetres.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    def __init__(self, session, frames, index):
        self.feeds = (session.feed(frames.image[i], frames.state[i], frames.tokens[i]) for i in index)

    def get_next(self):
        return next(self.feeds, None)


def trunk_nodes(path):
    """Convolutions over the picture whose kernel is larger than 1x1."""
    graph = onnx.load(path).graph
    return [
        node.name for node in graph.node if node.op_type == "Conv"
        and [a for a in node.attribute if a.name == "kernel_shape"][0].ints not in ([1, 1],)
        and len([a for a in node.attribute if a.name == "kernel_shape"][0].ints) == 2
    ]


def quantise(source, target, session, frames, index):
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        nodes = trunk_nodes(prepared)
        quantize_static(
            str(prepared), str(target), Reader(session, frames, index), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_quantize=nodes,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=dict(
                ActivationSymmetric=True, WeightSymmetric=True, QuantizeBias=False, DedicatedQDQPair=False,
                OpTypesToExcludeOutputQuantization=["Conv", "MatMul", "Gemm"],
            ),
        )
    graph = onnx.load(target)
    # The quantiser declares every dialect it knows; only the standard one is used.
    standard = [opset for opset in graph.opset_import if opset.domain == ""]
    del graph.opset_import[:]
    graph.opset_import.extend(standard)
    onnx.checker.check_model(graph, full_check=True)
    graph.producer_name, graph.producer_version = "tendon-bench-vla", "1"
    onnx.save(graph, target)
    return check(graph, nodes)


def check(graph, nodes):
    """Refuses a graph that TensorRT would read differently; returns what was quantised."""
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}
    pairs = [n for n in graph.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = values[node.input[2]]
        if zero.dtype != np.int8 or zero.any():
            raise SystemExit(f"{node.name}: zero-point must be int8 0, found {zero.dtype} {zero}")
    made_by = {out: n for n in graph.graph.node for out in n.output}
    for node in graph.graph.node:
        if node.name in nodes:
            kinds = [made_by[i].op_type if i in made_by else None for i in node.input[:2]]
            if kinds != ["DequantizeLinear"] * 2:
                raise SystemExit(f"{node.name}: inputs come from {kinds}, not from two DequantizeLinear")
    return {"quantised": nodes, "quantize_linear": sum(n.op_type == "QuantizeLinear" for n in pairs),
            "dequantize_linear": sum(n.op_type == "DequantizeLinear" for n in pairs), "calibration": "min-max"}
