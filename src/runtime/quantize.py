# SPDX-License-Identifier: Apache-2.0
"""Graphs of 16 bits and explicit Q/DQ graphs of a bundle, block by block, each proven on the bundle's own fixture before it stays.

Started by `tendon policy quantize`, behind halve.py, with one argument of JSON: bundle, out, tendon (the program), to (fp16, int8), rest (what
of a Q/DQ graph is not quantised: fp16 or fp32), calibration (the inputs of every run of every stage, safetensors, or null without int8), prove_on (a
recording or null), cosine_min, rad_max, m_max, fraction_max, load_max (part of a joint's range in the fixture beyond which a bundle does not
load). Needs onnx, onnxruntime, numpy, safetensors.

16 bits: all of it; where that misses, each block alone, then what is left together. A block that misses gets sums of 32 bits in its long
products, and where that is not enough 32 bits. What a graph of 16 bits computes is shown by its shadow (halve.py) under ONNX Runtime, and the
graph itself must load and run there.

8 bits: settings are those that TensorRT 10.3 to 11 and ONNX Runtime both take: signed 8 bits, symmetric, zero-point 0; weights per channel,
activations per tensor; bias in floats; no output of a MatMul, Conv or Gemm is quantised; opset as the graph has it. Whatever misses
the gate alone stays as it is; then the rest together, less the worst one each time, until all that is left holds. Then what is not quantised
gets 16 bits as far as the graph of 16 bits has them, if that holds too: Q, DQ and what lies between DQ and the next result stay 32.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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
# So far beyond the gate is what is no number, in a report that is JSON.
LOST = 1e9

runs = {stage: {} for stage in stages}
for key, values in (load_file(wanted["calibration"]) if wanted["calibration"] else {}).items():
    run, stage, name = key.split("/", 2)
    runs[stage].setdefault(int(run), {})[name] = values.astype(TYPES[stages[stage]["inputs"][name]["dtype"]])


class Reader(CalibrationDataReader):
    def __init__(self, stage):
        self.feeds = iter(runs[stage].values())

    def get_next(self):
        return next(self.feeds, None)


def prepared(stage, folder):
    """The graph with a name for each node: the quantiser goes by names."""
    model = named(onnx.load(source / stages[stage]["onnx"]["fp32"]))
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
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def nameless(path):
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    return model.SerializeToString()


def bundle(folder, graphs, report=None):
    """The bundle with these graphs, of precision and stage, beside its own."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(source, folder)
    root = json.loads((folder / "manifest.json").read_text())
    hashes = root["tendon"]["sha256"]

    def add(name, content):
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()

    # One that is only tried on the way to another replaces what there is too.
    made = sorted({*wanted["to"], *(precision for precision, _ in graphs)})
    for stage in root["tendon"]["stages"]:
        for precision in made:
            before = stage["onnx"].pop(precision, None)
            if before:
                (folder / before).unlink(missing_ok=True)
                hashes.pop(before, None)
            if (precision, stage["id"]) in graphs:
                name = f"{stage['id']}.{precision}.onnx"
                add(name, nameless(graphs[precision, stage["id"]]))
                stage["onnx"][precision] = name
    if report is not None:
        add("quantisation.json", (json.dumps(report, indent=1) + "\n").encode())
    (folder / "manifest.json").write_text(json.dumps(root, indent=1) + "\n")


def verified(folder, *on):
    """What the program says, or, if it has no figures, why not."""
    command = [wanted["tendon"], "policy", "verify", str(folder), "--json", *on]
    # This Python's own ONNX Runtime, for what only that can run.
    library = {"TENDON_ONNXRUNTIME_LIB": str(Path(onnxruntime.__file__).parent / "capi")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | library)
    try:
        return json.loads(done.stdout.strip().splitlines()[0]), None
    except (IndexError, json.JSONDecodeError):
        return None, f"tendon policy verify says: {done.stderr or done.stdout}"


def proof(folder, precision, engine="cpu", lost=False):
    """What the program itself measures: cosine, and the largest error of each joint in its unit; the worse of fixture and recording. If
    there are no figures, none where that may be, as an overflow has none."""
    with_it = ["--precision", precision, "--engine", engine]
    parity, why = verified(folder, *with_it)
    recorded = parity
    if parity and wanted["prove_on"]:
        recorded, why = verified(folder, *with_it, "--recorded", wanted["prove_on"])
    if why and lost:
        say(why.strip())
        return None
    if why:
        raise SystemExit(why)
    if wanted["prove_on"]:
        parity["cosine"] = min(parity["cosine"], recorded["cosine"])
        for joint, other in zip(parity["joints"], recorded["joints"], strict=True):
            joint["error_max"] = max(joint["error_max"], other["error_max"])
    return parity


LIMITS = {"rad": wanted["rad_max"], "m": wanted["m_max"], "fraction": wanted["fraction_max"]}


def badness(parity):
    """Above 1 it misses the gate; a graph that gives what is no number misses it by far."""
    figures = [parity["cosine"], parity["error_fraction"], *(joint["error_max"] for joint in parity["joints"])]
    if any(figure is None or not math.isfinite(figure) for figure in figures):
        return LOST
    errors = [joint["error_max"] / LIMITS[joint["unit"]] for joint in parity["joints"]]
    return max([(1 - parity["cosine"]) / (1 - wanted["cosine_min"]), parity["error_fraction"] / wanted["load_max"], *errors])


def told(parity):
    return {"cosine": parity["cosine"], "errors": {joint["name"]: [joint["error_max"], joint["unit"]] for joint in parity["joints"]}}


def say(words):
    print(words, file=sys.stderr, flush=True)


def split(names):
    """Neighbours in a graph are a block, so that there are not more than some to prove."""
    size = max(-(-len(names) // BLOCKS_MAX), 1)
    return [names[at : at + size] for at in range(0, len(names), size)]


def shadowed(work, graphs):
    """The same graphs in 32 bits with the roundings of 16."""
    for (precision, stage), path in graphs.items():
        onnx.save(shadow(onnx.load(path)), work / f"{stage}.{precision}.shadow.onnx")
    return {key: work / f"{key[1]}.{key[0]}.shadow.onnx" for key in graphs}


class Halves:
    """Which blocks have 16 bits: "half", "wide" (with sums of 32), "full"."""

    def __init__(self, work):
        self.work, self.blocks, self.alone, self.together = work, [], [], []
        self.long = set()
        for stage in stages:
            names, long = candidates(self.graph(stage))
            self.blocks += [(stage, block) for block in split(names)]
            self.long |= {(stage, name) for name in long}

    def graph(self, stage):
        return folded(named(onnx.load(source / stages[stage]["onnx"]["fp32"])))

    def lasts(self, at):
        """What a block may still become."""
        stage, names = self.blocks[at]
        return ["wide", "full"] if any((stage, name) in self.long for name in names) else ["full"]

    def apart(self, stage, states):
        """Names that have 32 bits, and names with sums of 32."""
        mine = [(block, state) for (of, block), state in zip(self.blocks, states, strict=True) if of == stage]
        keep = [name for block, state in mine if state == "full" for name in block]
        return keep, [name for block, state in mine if state == "wide" for name in block if (stage, name) in self.long]

    def written(self, states):
        graphs = {}
        for stage in stages:
            if all(state == "full" for (of, _), state in zip(self.blocks, states, strict=True) if of == stage):
                continue
            graph = halved(self.graph(stage), *self.apart(stage, states))
            graphs["fp16", stage] = self.work / f"{stage}.fp16.onnx"
            onnx.save(graph, graphs["fp16", stage])
        return graphs

    def measured(self, states):
        folder = self.work / "candidate"
        bundle(folder, shadowed(self.work, self.written(states)))
        parity = proof(folder, "fp16", "ort", lost=True)
        if parity is None:
            return {"badness": LOST}
        return {"badness": badness(parity), **told(parity)}

    def chosen(self):
        """The state of each block; as little as the gate allows is not "half"."""
        states = ["half"] * len(self.blocks)
        self.together.append(self.measured(states))
        say(f"16 bits, all: {self.together[-1]['badness']:.3f} of the gate")
        if self.together[-1]["badness"] <= 1:
            return states
        for at, (stage, names) in enumerate(self.blocks):
            for state in ["half", *self.lasts(at)]:
                states[at] = state
                if state == "full":
                    break
                one = ["full"] * len(self.blocks)
                one[at] = state
                self.alone.append({"stage": stage, "nodes": names, "state": state, **self.measured(one)})
                say(f"16 bits, {stage} {names[0]}..{len(names)} {state}: {self.alone[-1]['badness']:.3f} of the gate")
                if self.alone[-1]["badness"] <= 1:
                    break
        order = {(entry["stage"], entry["nodes"][0], entry["state"]): entry["badness"] for entry in self.alone}
        tried = ["half"] * len(self.blocks)
        while any(state != "full" for state in states):
            if states != tried:
                self.together.append(self.measured(states))
            left = [at for at, state in enumerate(states) if state != "full"]
            say(f"16 bits, {len(left)} blocks together: {self.together[-1]['badness']:.3f} of the gate")
            if self.together[-1]["badness"] <= 1:
                break
            worst = max(left, key=lambda at: order.get((self.blocks[at][0], self.blocks[at][1][0], states[at]), 0))
            states[worst] = "full" if states[worst] == "wide" else self.lasts(worst)[0]
        return states

    def report(self, states):
        count = {state: states.count(state) for state in ("half", "wide", "full")}
        blocks = [{"stage": stage, "nodes": names, "state": state} for (stage, names), state in zip(self.blocks, states, strict=True)]
        return {"blocks": count, "together": self.together, "alone": self.alone, "states": blocks}


def eight_bits(work, halves, states, report):
    """Paths of the Q/DQ graphs; into the report, what was tried."""
    names, blocks, skipped = {}, [], []
    for stage in stages:
        names[stage], nodes = prepared(stage, work)
        if not runs[stage]:
            skipped.append(stage)
            continue
        blocks += [(stage, block) for block in split(nodes)]
    if not blocks:
        raise SystemExit("no stage has a Conv, MatMul or Gemm with weights")

    def written(chosen):
        graphs = {}
        for stage in stages:
            nodes = [node for of, part in chosen if of == stage for node in part]
            if nodes:
                graphs["int8", stage] = work / f"{stage}.int8.onnx"
                quantise(stage, names[stage], nodes, graphs["int8", stage])
        return graphs

    def measured(graphs, engine="cpu"):
        bundle(work / "candidate", graphs)
        return proof(work / "candidate", "int8", engine)

    alone = []
    for stage, nodes in blocks:
        parity = measured(written([(stage, nodes)]))
        alone.append({"stage": stage, "nodes": nodes, "badness": badness(parity), **told(parity)})
        say(f"{stage} {nodes[0]}..{len(nodes)}: {alone[-1]['badness']:.3f} of the gate")
    chosen = [(entry["stage"], entry["nodes"]) for entry in alone if entry["badness"] <= 1]
    order = {(entry["stage"], entry["nodes"][0]): entry["badness"] for entry in alone}
    together, graphs = [], {}
    while chosen:
        graphs = written(chosen)
        parity = measured(graphs)
        together.append({"blocks": len(chosen), "badness": badness(parity), **told(parity)})
        say(f"{len(chosen)} blocks together: {together[-1]['badness']:.3f} of the gate")
        if together[-1]["badness"] <= 1:
            report["final"] = told(parity)
            break
        chosen.remove(max(chosen, key=lambda block: order[(block[0], block[1][0])]))
    kept = {(stage, nodes[0]) for stage, nodes in chosen}
    for entry in alone:
        entry["quantised"] = (entry["stage"], entry["nodes"][0]) in kept
    report |= {
        "calibration": {"method": "min-max", "runs": {stage: len(of) for stage, of in runs.items()}},
        "quantised_blocks": len(chosen),
        "blocks": alone,
        "together": together,
        "stages_without_runs": skipped,
        "rest": "fp32",
    }
    if not chosen or wanted["rest"] != "fp16":
        return graphs if chosen else {}
    rest = {}
    for (precision, stage), path in graphs.items():
        quantised = [node for of, part in chosen if of == stage for node in part]
        keep, wide = halves.apart(stage, states)
        rest[precision, stage] = work / f"{stage}.{precision}.rest.onnx"
        onnx.save(halved(folded(onnx.load(path)), [*keep, *quantised], [name for name in wide if name not in quantised]), rest[precision, stage])
    parity = measured(shadowed(work, rest), "ort")
    say(f"8 bits with a rest of 16: {badness(parity):.3f} of the gate")
    if badness(parity) > 1:
        return graphs
    report |= {"rest": "fp16", "final": told(parity)}
    return rest


with tempfile.TemporaryDirectory() as temporary:
    work = Path(temporary)
    report = {
        "gate": {key: wanted[key] for key in ("cosine_min", "rad_max", "m_max", "fraction_max")},
        "proven_on": ["fixture"] + (["recording"] if wanted["prove_on"] else []),
        "onnx": onnx.__version__,
    }
    graphs, halves, states = {}, None, []
    if "fp16" in wanted["to"] or wanted["rest"] == "fp16":
        # What runs before anything was changed: from then on a graph without figures is the graph's own fault.
        proof(source, "fp32", "ort")
        halves = Halves(work)
        states = halves.chosen()
        report["sixteen_bits"] = halves.report(states)
        if "fp16" in wanted["to"]:
            graphs |= halves.written(states)
    if "int8" in wanted["to"]:
        graphs |= eight_bits(work, halves, states, report)
    bundle(out, graphs, report)
    # As they are shipped they load, and run, where there are types of 16 bits.
    for precision in wanted["to"]:
        if any(of == precision for of, _ in graphs):
            shipped = badness(proof(out, precision, "cpu" if precision == "int8" and report["rest"] == "fp32" else "ort"))
            if shipped > 1:
                raise SystemExit(f"the graphs of {precision} miss the gate as they are written: {shipped:.3f} of it")
for long in ("states", "alone"):
    report.get("sixteen_bits", {}).pop(long, None)
print(json.dumps({key: report[key] for key in report if key != "blocks"}))
