"""Trained weights -> one ONNX graph, weights embedded."""

import copy

import numpy as np
import onnx
import onnxruntime
import torch

OPSET = 17
INPUTS = {"image": ("f32", [1, 3, 96, 96]), "state": ("f32", [1, 8]), "tokens": ("i32", [1, 16])}
OUTPUTS = {"action": ("f32", [1, 16, 7]), "keypoint": ("f32", [1, 2]), "presence": ("f32", [1, 1])}


def export(model, path):
    model = copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format)
    example = (torch.rand(1, 3, 96, 96), torch.zeros(1, 8), torch.ones(1, 16, dtype=torch.int32))
    torch.onnx.export(
        model, example, str(path), opset_version=OPSET, dynamo=False,
        input_names=list(INPUTS), output_names=list(OUTPUTS), do_constant_folding=True,
    )
    graph = onnx.load(path)
    graph.producer_name, graph.producer_version = "tendon-bench-vla", "1"
    for node in graph.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    check_shapes(graph, path)
    return graph


def check_shapes(graph, path):
    """The names, types and shapes that the manifest promises."""
    kinds = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.INT32: "i32"}
    for promised, found in ((INPUTS, graph.graph.input), (OUTPUTS, graph.graph.output)):
        actual = {
            value.name: (kinds.get(value.type.tensor_type.elem_type), [d.dim_value for d in value.type.tensor_type.shape.dim])
            for value in found
        }
        if actual != promised:
            raise SystemExit(f"{path}: promised {promised}, exported {actual}")


class Session:
    """An exported graph with the normalisation around it, as the runtime does it: pixels and raw state in, raw chunk out."""

    def __init__(self, path, stats):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.stats = stats

    def feed(self, image, state, tokens):
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32) / 255.0
        state = (state - self.stats["observation.state.mean"]) / (self.stats["observation.state.std"] + 1e-8)
        return {"image": pixels, "state": state[None].astype(np.float32), "tokens": tokens[None].astype(np.int32)}

    def run(self, image, state, tokens):
        """(chunk [16,7] in radians and 0..1, keypoint [2], presence logit)."""
        action, point, presence = self.session.run(None, self.feed(image, state, tokens))
        raw = action[0] * self.stats["action.std"] + self.stats["action.mean"]
        return raw.astype(np.float32), point[0], float(presence[0, 0])

    def chunks(self, frames, index):
        return np.stack([self.run(frames.image[i], frames.state[i], frames.tokens[i])[0] for i in index])
