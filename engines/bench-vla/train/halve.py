"""FP32 graph -> strongly typed graph of 16 bits, with the runtime's own converter; inputs and outputs stay FP32."""

import importlib.util
import tempfile
from pathlib import Path

import onnx

# Of the runtime: what `tendon policy quantize --to fp16` converts with. That also proves it, block by block; this graph passes whole.
CONVERTER = Path(__file__).resolve().parents[3] / "src/runtime/halve.py"


def converter():
    spec = importlib.util.spec_from_file_location("converter", CONVERTER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def halve(source, target):
    """Writes the graph; returns the path of another that computes in 32 bits, on any processor, what it computes in 16."""
    theirs = converter()
    graph = theirs.halved(theirs.folded(theirs.named(onnx.load(source))), [], [])
    shadow = Path(tempfile.mkdtemp()) / "shadow.onnx"
    onnx.save(theirs.shadow(graph), shadow)
    for node in graph.graph.node:
        node.name = ""
    graph.producer_name, graph.producer_version = "tendon-bench-vla", "1"
    onnx.save(graph, target)
    return shadow
