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
    parse.add_argument("--frames", type=int, default=40_000, help="exported for training")
    parse.add_argument("--held-out", type=int, default=3_000, help="exported for judging: other seeds, held-out wordings")
    parse.add_argument("--geometry-steps", type=int, default=3_000)
    parse.add_argument("--steps", type=int, default=4_000, help="with pictures, batches of 256")
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
    torch.set_num_threads(min(2, os.cpu_count()))
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory(prefix="bench-vla-") as scratch:
        folders = args.data or export_frames(args, Path(scratch), log)
        frames, judged = data.load(folders[:-1]), data.load(folders[-1:])
    log(f"{len(frames)} frames to learn from, {len(judged)} to judge")

    tokenizer = data.build_tokenizer(frames.text)
    tokenizer.save(str(args.out / bundle.TOKENIZER))
    frames.tokens, judged.tokens = data.encode(tokenizer, frames.text), data.encode(tokenizer, judged.text)
    stats = data.statistics(frames)

    model = train.new_model(tokenizer.get_vocab_size(), stats, frames)
    if args.steps:
        reduced = has_fast_bf16()
        model, _ = train.fit(
            model, data.Batcher(frames, tokenizer, args.seed), geometry_steps=args.geometry_steps,
            picture_steps=args.steps, reduced=reduced, log=log,
        )
    model.eval()
    figures = {"open_loop_fp32": report.judge(model, judged, kinematics.tip)}
    log(f"open loop: {figures['open_loop_fp32']}")

    export_onnx.export(model, args.out / bundle.FP32)
    session = export_onnx.Session(args.out / bundle.FP32, stats)
    rng = np.random.default_rng(args.seed)
    calibration = rng.choice(len(frames), min(400, len(frames)), replace=False)
    made = quantise.quantise(args.out / bundle.FP32, args.out / bundle.INT8, session, frames, calibration)
    small = export_onnx.Session(args.out / bundle.INT8, stats)
    some = rng.choice(len(judged), min(500, len(judged)), replace=False)
    reference = session.chunks(judged, some)
    figures["fp32_onnxruntime_against_torch"] = report.difference(reference, torch_chunks(model, judged, some, stats))
    figures["int8_against_fp32"] = report.difference(small.chunks(judged, some), reference) | {"made": made}
    log(f"int8 against fp32: {figures['int8_against_fp32']}")

    figures["training"] = {
        "seed": args.seed, "frames": len(frames), "geometry_steps": args.geometry_steps, "steps": args.steps, "batch": 256,
        "parameters": sum(p.numel() for p in model.parameters()), "vocabulary": tokenizer.get_vocab_size(),
        "wall_seconds": round(time.time() - started), "threads": torch.get_num_threads(), "torch": torch.__version__,
    }
    bundle.write_stats(args.out, stats)
    bundle.write_parity(args.out, session, judged, some[: bundle.PARITY_FRAMES])
    report.write(args.out, figures)
    bundle.write_manifest(args.out)
    log(f"bundle in {args.out}")


@torch.no_grad()
def torch_chunks(model, frames, index, stats):
    image = torch.from_numpy(frames.image[index]).permute(0, 3, 1, 2).float() / 255.0
    state = (frames.state[index] - stats["observation.state.mean"]) / (stats["observation.state.std"] + 1e-8)
    action, _, _ = model(image, torch.from_numpy(state), torch.from_numpy(frames.tokens[index]))
    return action.numpy() * stats["action.std"] + stats["action.mean"]


def export_frames(args, scratch, log):
    """Folders of frames, the last one for judging."""
    exporter = args.exporter or build_exporter(log)
    half = args.frames // 2
    wanted = [
        ("random", args.frames - half, args.seed * 1000 + 1, []),
        ("expert", half, args.seed * 1000 + 2, []),
        ("random", args.held_out, args.seed * 1000 + 3, ["--held-out"]),
    ]
    folders = []
    for mode, count, seed, more in wanted:
        folder = scratch / f"{mode}-{seed}"
        subprocess.run([str(exporter), "--out", str(folder), "--frames", str(count), "--seed", str(seed), "--mode", mode, *more], check=True)
        folders.append(folder)
        log(f"{count} frames, {mode}")
    return folders


def build_exporter(log):
    command = ["cargo", "build", "--release", "--locked", "--example", "bench_export"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    log("exporter built")
    return target / "release/examples/bench_export"


if __name__ == "__main__":
    main()
