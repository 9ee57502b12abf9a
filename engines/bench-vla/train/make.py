"""The one command: exports frames, trains, exports the graphs, quantises, checks, writes the bundle.

    python make.py                       everything, into the folder above this one
    python make.py --steps 0 --geometry-steps 0 --frames 2000     a complete bundle with random weights
"""

import argparse
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import bundle
import data
import export_onnx
import halve
import kinematics
import quantise
import report
import train

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]


def arguments():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--out", type=Path, default=HERE.parent, help="the bundle's folder")
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--frames", type=int, default=60_000, help="exported for training")
    parse.add_argument("--held-out", type=int, default=3_000, help="exported for judging: other seeds, held-out wordings and positions")
    parse.add_argument("--geometry-steps", type=int, default=2_500, help="of the head alone")
    parse.add_argument("--steps", type=int, default=4_000, help="with pictures")
    parse.add_argument("--dagger-rounds", type=int, default=2, help="after that: let the policy drive, label where it comes, learn that too")
    parse.add_argument("--dagger-frames", type=int, default=12_000, help="in each round")
    parse.add_argument("--dagger-steps", type=int, default=1_500, help="in each round")
    parse.add_argument("--data", type=Path, nargs="+", help="use these exported folders, the last one for judging, and export nothing")
    parse.add_argument("--exporter", type=Path, help="a built bench_export; without it cargo builds one")
    return parse.parse_args()


def has_fast_bf16():
    """Convolutions in bf16 are two to three times faster where the processor has them, and slower where it does not."""
    flags = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def say(started, line):
    print(f"[{time.time() - started:6.0f} s] {line}", flush=True)


def main():
    args = arguments()
    started = time.time()
    log = lambda line: say(started, line)
    # Two threads would gain a fifth on an idle machine, and lose two thirds on one that does anything else.
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)

    with tempfile.TemporaryDirectory(prefix="bench-vla-") as scratch:
        exporter = Exporter(args, Path(scratch), log)
        folders = args.data or exporter.demonstrations()
        frames, judged = data.load(folders[:-1]), data.load(folders[-1:])
        log(f"{len(frames)} frames to learn from, {len(judged)} to judge")
        tokenizer = data.build_tokenizer(frames.text)
        frames.tokens, judged.tokens = data.encode(tokenizer, frames.text), data.encode(tokenizer, judged.text)
        stats = data.statistics(frames)
        figures = {}

        def write(folder, model):
            folder.mkdir(parents=True, exist_ok=True)
            write_bundle(folder, args, figures, model, tokenizer, stats, frames, judged, log)

        model = train.new_model(tokenizer.get_vocab_size(), stats, frames)
        reduced = has_fast_bf16()
        if args.steps:
            model = train.fit(model, data.Batcher(frames, tokenizer, args.seed), geometry_steps=args.geometry_steps,
                              picture_steps=args.steps, reduced=reduced, log=log)
        for number in range(1, args.dagger_rounds + 1):
            write(Path(scratch) / f"bundle-{number}", model)
            visited = data.load([exporter.visited(Path(scratch) / f"bundle-{number}", number)])
            visited.tokens = data.encode(tokenizer, visited.text)
            frames = data.join([frames, visited])
            model = train.fit(model, data.Batcher(frames, tokenizer, args.seed + number), geometry_steps=0,
                              picture_steps=args.dagger_steps, rate=1e-3, reduced=reduced, log=log)

    figures["training"] = {
        "seed": args.seed, "frames": len(frames), "dagger_rounds": args.dagger_rounds, "geometry_steps": args.geometry_steps, "steps": args.steps + args.dagger_rounds * args.dagger_steps, "batch": 128,
        "parameters": sum(p.numel() for p in model.parameters()), "vocabulary": tokenizer.get_vocab_size(),
        "wall_seconds": round(time.time() - started), "cpu_seconds": round(cpu_seconds()), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }
    write(args.out, model)
    log(f"bundle in {args.out}")


def write_bundle(folder, args, figures, model, tokenizer, stats, frames, judged, log):
    """Graphs, figures and small files. `figures` gets what was measured."""
    model.eval()
    sizes = kinematics.lengths(judged.state[:500, :6], judged.tip[:500])
    figures["open_loop"] = report.judge(model, judged, lambda joints: kinematics.tip(joints, sizes))
    log(f"open loop: {figures['open_loop']}")
    export_onnx.export(model, folder / bundle.FP32)
    session = export_onnx.Session(folder / bundle.FP32, stats)
    rng = np.random.default_rng(args.seed)
    calibration = rng.choice(len(frames), min(400, len(frames)), replace=False)
    made = quantise.quantise(folder / bundle.FP32, folder / bundle.INT8, session, frames, calibration)
    some = rng.choice(len(judged), min(500, len(judged)), replace=False)
    reference = session.chunks(judged, some)
    figures["fp32_onnxruntime_against_torch"] = report.difference(reference, torch_chunks(model, judged, some, stats))
    int8 = export_onnx.Session(folder / bundle.INT8, stats).chunks(judged, some)
    figures["int8_against_fp32"] = report.difference(int8, reference) | made
    log(f"int8 against fp32: {figures['int8_against_fp32']}")
    shadow = halve.halve(folder / bundle.FP32, folder / bundle.FP16)
    fp16 = export_onnx.Session(shadow, stats).chunks(judged, some)
    figures["fp16_against_fp32"] = report.difference(fp16, reference)
    log(f"fp16 against fp32: {figures['fp16_against_fp32']}")
    tokenizer.save(str(folder / bundle.TOKENIZER))
    bundle.write_stats(folder, stats)
    moving = some[np.abs(judged.action[some, :, :6]).max((1, 2)) > 0.1]
    bundle.write_parity(folder, session, judged, moving[: bundle.PARITY_FRAMES])
    report.write(folder, figures)
    bundle.write_manifest(folder)


def cpu_seconds():
    """Of this process and of what it started: what a busy machine does not blur."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@torch.no_grad()
def torch_chunks(model, frames, index, stats):
    image = torch.from_numpy(frames.image[index]).permute(0, 3, 1, 2).float() / 255.0
    state = (frames.state[index] - stats["observation.state.mean"]) / (stats["observation.state.std"] + 1e-8)
    action, _, _ = model(image, torch.from_numpy(state), torch.from_numpy(frames.tokens[index]))
    return action.numpy() * stats["action.std"] + stats["action.mean"]


class Exporter:
    """The Rust program that draws and labels frames; built when it is first needed."""

    def __init__(self, args, scratch, log):
        self.args, self.scratch, self.log, self.program = args, scratch, log, args.exporter

    def demonstrations(self):
        """Folders of frames, the last one for judging."""
        args, half = self.args, self.args.frames // 2
        return [
            self.run("random", args.frames - half, 1), self.run("expert", half, 2),
            self.run("random", args.held_out, 3, "--held-out"),
        ]

    def visited(self, folder, number):
        return self.run("policy", self.args.dagger_frames, 10 + number, "--policy", str(folder))

    def run(self, mode, frames, part, *more):
        if self.program is None:
            self.program = self.build()
        seed = self.args.seed * 1000 + part
        folder = self.scratch / f"{mode}-{seed}"
        command = [str(self.program), "--out", str(folder), "--frames", str(frames), "--seed", str(seed), "--mode", mode, "--threads", "2", *more]
        subprocess.run(command, check=True)
        self.log(f"{frames} frames, {mode}")
        return folder

    def build(self):
        subprocess.run(["cargo", "build", "--release", "--locked", "--example", "bench_export"], cwd=REPOSITORY, check=True)
        self.log("exporter built")
        return Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release/examples/bench_export"


if __name__ == "__main__":
    main()
