# SPDX-License-Identifier: Apache-2.0
"""Explicit Q/DQ graphs of a staged bundle, block by block, each proven on the bundle's own fixture before it stays.

Started by `tendon policy quantize`, with one argument of JSON: bundle, out, tendon (the program), calibration (the inputs of
every run of every stage, safetensors), prove_on (a recording or null), cosine_min, rad_max, m_max, fraction_max, load_max (part of a joint's range in the
fixture beyond which a bundle does not load). Needs onnx, onnxruntime, numpy, safetensors.

Settings are those that TensorRT 10.3 to 11 and ONNX Runtime both take: signed 8 bits, symmetric, zero-point 0; weights per channel,
activations per tensor; bias in floats; no output of a MatMul, Conv or Gemm is quantised; opset as the graph has it. Whatever misses
the gate alone stays as it is; then the rest together, less the worst one each time, until all that is left holds.
"""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from safetensors.numpy import load_file

logging.disable(logging.WARNING)
wanted = json.loads(sys.argv[1])
source, out = Path(wanted["bundle"]), Path(wanted["out"])
manifest = json.loads((source / "manifest.json").read_text())
stages = {stage["id"]: stage for stage in manifest["tendon"]["stages"]}
TYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}
WEIGHTED = ("Conv", "MatMul", "Gemm")
BLOCKS_MAX = 24

runs = {stage: {} for stage in stages}
for key, values in load_file(wanted["calibration"]).items():
    run, stage, name = key.split("/", 2)
    runs[stage].setdefault(int(run), {})[name] = values.astype(TYPES[stages[stage]["inputs"][name]["dtype"]])


class Reader(CalibrationDataReader):
    def __init__(self, stage):
        self.feeds = iter(runs[stage].values())

    def get_next(self):
        return next(self.feeds, None)


def prepared(stage, folder):
    """The graph with a name for each node: the quantiser goes by names."""
    model = onnx.load(source / stages[stage]["onnx"]["fp32"])
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}.{node.op_type}"
    path = folder / f"{stage}.named.onnx"
    onnx.save(model, path)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [node.name for node in model.graph.node if node.op_type in WEIGHTED and any(name in weights for name in node.input[1:2])]
    return path, names


def quantise(stage, named, nodes, target):
    quantize_static(
        str(named), str(target), Reader(stage), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, nodes_to_quantize=nodes, calibrate_method=CalibrationMethod.MinMax,
        extra_options=dict(ActivationSymmetric=True, WeightSymmetric=True, QuantizeBias=False, DedicatedQDQPair=False,
                           OpTypesToExcludeOutputQuantization=list(WEIGHTED)),
    )
    model = onnx.load(target)
    standard = [opset for opset in model.opset_import if opset.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any(), f"{node.name}: zero-point {zero}"
    for node in model.graph.node:
        node.name = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def bundle(folder, graphs, report=None):
    """The bundle with these Q/DQ graphs beside its own."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder)
    root = json.loads((folder / "manifest.json").read_text())
    hashes = root["tendon"]["sha256"]

    def add(name, content):
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()

    for stage in root["tendon"]["stages"]:
        stage["onnx"].pop("int8", None)
        if stage["id"] in graphs:
            name = f"{stage['id']}.int8.onnx"
            add(name, graphs[stage["id"]].read_bytes())
            stage["onnx"]["int8"] = name
    if report is not None:
        add("quantisation.json", (json.dumps(report, indent=1) + "\n").encode())
    (folder / "manifest.json").write_text(json.dumps(root, indent=1) + "\n")


def verified(folder, *on):
    done = subprocess.run([wanted["tendon"], "policy", "verify", str(folder), "--int8", "--json", *on], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.strip().splitlines()[0])
    except (IndexError, json.JSONDecodeError):
        raise SystemExit(f"tendon policy verify says: {done.stderr or done.stdout}")


def proof(folder):
    """What the program itself measures: cosine, and the largest error of each joint in its unit; the worse of fixture and recording."""
    parity = verified(folder)
    if wanted["prove_on"]:
        recorded = verified(folder, "--recorded", wanted["prove_on"])
        parity["cosine"] = min(parity["cosine"], recorded["cosine"])
        for joint, other in zip(parity["joints"], recorded["joints"], strict=True):
            joint["error_max"] = max(joint["error_max"], other["error_max"])
    return parity


LIMITS = {"rad": wanted["rad_max"], "m": wanted["m_max"], "fraction": wanted["fraction_max"]}


def badness(parity):
    """Above 1 it misses the gate."""
    errors = [joint["error_max"] / LIMITS[joint["unit"]] for joint in parity["joints"]]
    return max([(1 - parity["cosine"]) / (1 - wanted["cosine_min"]), parity["error_fraction"] / wanted["load_max"], *errors])


def told(parity):
    return {"cosine": parity["cosine"], "errors": {joint["name"]: [joint["error_max"], joint["unit"]] for joint in parity["joints"]}}


with tempfile.TemporaryDirectory() as temporary:
    work = Path(temporary)
    named, blocks, skipped = {}, [], []
    for stage in stages:
        named[stage], nodes = prepared(stage, work)
        if not runs[stage]:
            skipped.append(stage)
            continue
        # Neighbours in the graph are a block, so that there are not more than some to prove.
        size = -(-len(nodes) // BLOCKS_MAX)
        blocks += [(stage, nodes[at : at + size]) for at in range(0, len(nodes), max(size, 1))]
    if not blocks:
        raise SystemExit("no stage has a Conv, MatMul or Gemm with weights")

    def measured(chosen, folder=work / "candidate", report=None):
        graphs = {}
        for stage in stages:
            nodes = [node for of, part in chosen if of == stage for node in part]
            if nodes:
                graphs[stage] = work / f"{stage}.int8.onnx"
                quantise(stage, named[stage], nodes, graphs[stage])
        bundle(folder, graphs, report)
        return proof(folder)

    alone = []
    for stage, nodes in blocks:
        parity = measured([(stage, nodes)])
        alone.append({"stage": stage, "nodes": nodes, "badness": badness(parity), **told(parity)})
        print(f"{stage} {nodes[0]}..{len(nodes)}: {alone[-1]['badness']:.3f} of the gate", file=sys.stderr, flush=True)
    chosen = [(entry["stage"], entry["nodes"]) for entry in alone if entry["badness"] <= 1]
    order = {(entry["stage"], entry["nodes"][0]): entry["badness"] for entry in alone}
    together = []
    while chosen:
        parity = measured(chosen)
        together.append({"blocks": len(chosen), "badness": badness(parity), **told(parity)})
        print(f"{len(chosen)} blocks together: {together[-1]['badness']:.3f} of the gate", file=sys.stderr, flush=True)
        if together[-1]["badness"] <= 1:
            break
        chosen.remove(max(chosen, key=lambda block: order[(block[0], block[1][0])]))
    kept = {(stage, nodes[0]) for stage, nodes in chosen}
    for entry in alone:
        entry["quantised"] = (entry["stage"], entry["nodes"][0]) in kept
    report = {
        "gate": {key: wanted[key] for key in ("cosine_min", "rad_max", "m_max", "fraction_max")},
        "proven_on": ["fixture"] + (["recording"] if wanted["prove_on"] else []),
        "calibration": {"method": "min-max", "runs": {stage: len(of) for stage, of in runs.items()}},
        "onnx": onnx.__version__,
        "quantised_blocks": len(chosen),
        "blocks": alone,
        "together": together,
        "stages_without_runs": skipped,
    }
    if chosen:
        final = measured(chosen, out, report)
        report["final"] = told(final)
    else:
        bundle(out, {}, report)
print(json.dumps({key: report[key] for key in report if key not in ("blocks",)}))
