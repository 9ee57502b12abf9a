# SPDX-License-Identifier: Apache-2.0
"""Writes a staged bundle: stages as ONNX, manifest, statistics, parity fixture. Used by make.py."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

# A folder for bundles at their published size: nothing is compared there but the fixture.
WHOLE = os.environ.get("WHOLE")
OUT = Path(WHOLE) if WHOLE else Path(__file__).resolve().parents[2] / "tests/families"
# A larger graph has its weights beside it.
BYTES_MAX = 1 << 30
DTYPES = {torch.float32: "f32", torch.int64: "i64", torch.int32: "i32"}
warnings.filterwarnings("ignore")


def noise_picture(rng, width=40, height=30):
    """Smooth shapes with some noise on them, so that a resize matters."""
    y, x = np.mgrid[0:height, 0:width]
    phase = rng.uniform(0, 6, 6)
    base = [127 + 80 * np.sin(x / (4 + c) + phase[c]) * np.cos(y / (5 - c) + phase[c + 3]) for c in range(3)]
    return np.clip(np.stack(base, -1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


class Bundle:
    def __init__(self, name, family, cameras=(), text=None, state=None, action=None, decoder=None, loop=None, constants=None, rings=None):
        self.dir = OUT / name
        self.dir.mkdir(parents=True, exist_ok=True)
        for old in self.dir.iterdir():
            old.unlink()
        self.name = name
        self.tendon = {"schema": 2, "family": family, "cameras": list(cameras), "stages": [], "decoder": decoder}
        optional = {"text": text, "state": state, "action": action, "loop": loop, "constants": constants, "rings": rings}
        self.tendon.update({k: v for k, v in optional.items() if v is not None})

    def stage(self, id_, module, inputs, outputs, opset=17, fold=False):
        """inputs: name -> (example tensor, from[, carry]); outputs: names. Returns what the module gave. `fold` works out what
        transformers asks of shapes, which are fixed here."""
        module.eval()
        examples = tuple(entry[0] for entry in inputs.values())
        file = f"{id_}.onnx"
        with torch.no_grad():
            gave = module(*examples)
            torch.onnx.export(module, examples, self.dir / file, input_names=list(inputs), output_names=outputs,
                              opset_version=opset, dynamo=False, do_constant_folding=True)
        gave = gave if isinstance(gave, (tuple, list)) else (gave,)
        if fold:
            self._fold(file)
        self._shrink(file)
        entry = {"id": id_, "onnx": {"fp32": file}, "inputs": {}, "outputs": {}}
        for name, (tensor, source, *carry) in inputs.items():
            entry["inputs"][name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "from": source}
            if carry:
                entry["inputs"][name]["carry"] = carry[0]
        for name, tensor in zip(outputs, gave):
            entry["outputs"][name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}
        self.tendon["stages"].append(entry)
        return gave

    def _fold(self, file):
        """By ONNX Runtime's basic optimisations, which keep to ONNX's own operators."""
        import onnx
        import onnxruntime

        path = str(self.dir / file)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = path
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        model = onnx.load(path)
        own = [entry for entry in model.opset_import if entry.domain == ""]
        del model.opset_import[:]
        model.opset_import.extend(own)
        onnx.save(model, path)

    def _shrink(self, file):
        """Names of nodes and values tell nothing to a runtime and make a small graph twice as large."""
        import onnx

        model = onnx.load(self.dir / file)
        keep = {v.name for v in list(model.graph.input) + list(model.graph.output)}
        used = {n for node in model.graph.node for n in node.input} | keep
        short = {}

        def rename(name):
            if not name or name in keep:
                return name
            return short.setdefault(name, f"v{len(short)}")

        if any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
            return
        for node in model.graph.node:
            node.name = ""
            node.doc_string = ""
            node.input[:] = [rename(n) for n in node.input]
            node.output[:] = [rename(n) for n in node.output]
            del node.metadata_props[:]
        inits = [i for i in model.graph.initializer if i.name in used]
        del model.graph.initializer[:]
        for init in inits:
            init.name = rename(init.name)
            model.graph.initializer.append(init)
        del model.graph.value_info[:]
        onnx.checker.check_model(model)
        apart = model.ByteSize() > BYTES_MAX
        onnx.save(model, self.dir / file, save_as_external_data=apart, location=f"{file}.data")

    def finish(self, sentences, fixture, answers=None, bound=1e-3 if WHOLE else 1e-4, hz=10.0):
        fixture = {k: np.ascontiguousarray(v) for k, v in fixture.items()}
        save_file(fixture, self.dir / "parity.safetensors")
        words = {"sentences": list(sentences)}
        if answers is not None:
            words["answers"] = list(answers)
        (self.dir / "parity.json").write_text(json.dumps(words, ensure_ascii=False) + "\n")
        self.tendon["timing"] = {"infer_hz": hz, "deadline_ms": 1000.0 / hz, "max_observation_age_ms": 200.0}
        self.tendon["parity"] = {"file": "parity.safetensors", "sentences": "parity.json", "frames": len(words["sentences"]),
                                 "cosine_min": 0.9999, "error_max_fraction": bound}
        files = sorted(p for p in self.dir.iterdir() if p.name != "manifest.json")
        self.tendon["sha256"] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        package = {"format": "policy_package", "version": "1.0", "policy": {"name": self.name, "source": {"repo_id": "", "class_path": ""}},
                   "model": {"n_obs_steps": 1, "artifacts": {s["id"]: s["onnx"]["fp32"] for s in self.tendon["stages"]}}, "tendon": self.tendon}
        (self.dir / "manifest.json").write_text(json.dumps(package, indent=1) + "\n")
        total = sum(p.stat().st_size for p in self.dir.iterdir())
        largest = max(p.stat().st_size for p in self.dir.glob("*.onnx"))
        print(f"{self.name:16} {len(self.tendon['stages'])} stage(s), {total/1e3:7.1f} kB, largest graph {largest/1e3:6.1f} kB")


def seeded(seed=0):
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def vivid(module, gain=1.0):
    """Random weights as they come make an action that hardly depends on anything; larger ones make a test that can fail."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() > 1:
                p.mul_(gain)
            elif "bias" in name:
                p.add_(torch.randn_like(p) * 0.1)
    return module.eval().float()


def lively(module, gain=1.2):
    """As `vivid`, for what begins as zeros or next to them: matrices of ordinary size, whatever they began as."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() > 1:
                # Tables of matrices, one a kind of robot, are in and out; everything else is out and in.
                fan = p.shape[1] if p.dim() == 3 else p[0].numel()
                p.copy_(torch.randn_like(p) * (0.5 if "embed" in name and p.dim() == 2 else gain / fan**0.5))
            elif name.endswith(("bias", ".b")):
                p.copy_(torch.randn_like(p) * 0.1)
    return module.eval().float()
