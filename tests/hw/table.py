# SPDX-License-Identifier: Apache-2.0
"""The tables of orin.sh, from what it left in a folder.

    table.py OUT row NAME BUNDLE MODE COLD_S    a deployment that was measured: its line of table.md, and NAME.row.json
    table.py OUT missed NAME BUNDLE MODE WHY    one that was not, with the reason
    table.py OUT models BOARD                   models.md: each model of which somebody published a figure on an Orin, beside what was
                                                measured here; without a deployment of it, on this board, it says that it was not
"""

import csv
import hashlib
import json
import sys
from pathlib import Path

HEAD = ["policy, its manifest's SHA-256, deployment", "power mode", "p50 ms", "p95", "p99", "p99.9", "max", "outside the engine us, p50 / p99",
        "graph replay ms, p50 / p95 / p99", "bare loop ms, p50 / p95 / p99", "beyond it us, of so many", "W", "mJ an observation",
        "p50 ms of each quarter", "hottest C, first -> last quarter", "GPU MHz", "cold start s"]

# Model, its families as manifests name them, millions of parameters, board, the best that was published there, by whom.
MODELS = [
    ("ACT", {"act"}, 34, "Orin", "TensorRT FP16 3.2 ms", "innate-os pull request 447"),
    ("SmolVLA 450M", {"smolvla"}, 450, "Orin Nano Super", "105.1 p50, 105.9 p95", "jetson-orin-nano-vla"),
    ("SmolVLA", {"smolvla"}, 450, "AGX Orin", "206 ms", "vla.cpp"),
    ("X-VLA 0.9B", {"xvla"}, 900, "Orin Nano", "353.7 ms", "jetson-orin-nano-vla"),
    ("GR00T N1.6", {"gr00t-n1.6"}, 3000, "AGX Orin", "173 ms", "NVIDIA"),
    ("GR00T N1.7", {"gr00t-n1.7"}, 3000, "AGX Orin", "151 ms", "NVIDIA"),
    ("GR00T N1.6", {"gr00t-n1.6"}, 3000, "Orin Nano", "284.7 ms", "jetson-orin-nano-vla"),
    ("GR00T N1.7", {"gr00t-n1.7"}, 3000, "Orin Nano", "286.8 ms", "jetson-orin-nano-vla"),
    ("pi0.5, 2 cameras", {"pi0.5", "pi05"}, 3300, "AGX Orin", "INT8 124.25 p50, 124.29 p95; BF16 165.7", "ApxInf"),
    ("pi0.5", {"pi0.5", "pi05"}, 3300, "Orin Nano", "440.1 ms", "jetson-orin-nano-vla"),
    ("OpenVLA-7B", {"openvla"}, 7000, "AGX Orin", "INT4 336 ms", "Jetson AI Lab"),
    ("LiteVLA 256M", {"litevla"}, 256, "AGX Orin", "150.5 ms", "arXiv 2603.03380"),
]
# Nobody stores a parameter in less: a bundle of fewer bytes is another model, such as the small ones of the tests.
BYTES_A_PARAMETER = 0.5


def cell(text):
    return " ".join(str(text).split()).replace("|", "/")


def line(cells):
    return "| " + " | ".join(cell(each) for each in cells) + " |\n"


def bundle_of(folder):
    """What its manifest says of it; of one that cannot be read, nothing."""
    path = Path(folder) / "manifest.json"
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        tendon = manifest.get("tendon", {})
        files = [Path(folder) / name for name in tendon.get("sha256", {})]
        return {"policy": manifest["policy"]["name"], "family": tendon.get("family", ""), "manifest": hashlib.sha256(text).hexdigest()[:12],
                "bytes": sum(file.stat().st_size for file in files if file.exists())}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {"policy": "a bundle that cannot be read", "family": "", "manifest": "", "bytes": 0}


def add(out, cells):
    table = out / "table.md"
    if not table.exists():
        table.write_text(line(HEAD) + "|---" * len(HEAD) + "|\n")
    table.write_text(table.read_text() + line(cells))
    print(line(cells), end="")


def keep(out, name, told):
    (out / f"{name}.row.json").write_text(json.dumps({"name": name, **told}) + "\n")


def title(name, bundle):
    return f"{bundle['policy']} {bundle['manifest']}, {name}"


def beside(out, name):
    """The bare loop's report, or why there is none."""
    path = out / f"{name}.bare.json"
    if path.exists() and path.stat().st_size:
        return json.loads(path.read_text())["bare_loop"], ""
    why = out / f"{name}.bare.skipped"
    return None, why.read_text().strip() if why.exists() else f"no {path.name}"


def samples(out, name):
    path = out / f"{name}.csv"
    lines = list(csv.reader(path.open()))[1:] if path.exists() else []
    # The last one may have been cut short.
    return [[float(value) for value in each] for each in lines if len(each) == 4]


def row(out, name, folder, mode, cold_s):
    bundle = bundle_of(folder)
    report = json.loads((out / f"{name}.json").read_text())
    whole, outside = report["whole"], report["outside_engine"]
    ms = {key: whole[f"{key}_us"] / 1000 for key in ("p50", "p95", "p99", "p999", "max")}
    cells = [title(name, bundle), mode, *(f"{value:.2f}" for value in ms.values()), f"{outside['p50_us']:.0f} / {outside['p99_us']:.0f}"]
    bare, why = beside(out, name)
    if bare:
        three = lambda times: " / ".join(f"{times[key] / 1000:.2f}" for key in ("p50_us", "p95_us", "p99_us"))
        cells += [three(bare["graph_replay"]), three(bare["input_update_and_graph"]), f"{bare['overhead_us']:.0f} of {bare['overhead_budget_us']:.0f}"]
    else:
        cells += [f"not measured: {why}", "", ""]
    rows = samples(out, name)
    quarters = " ".join(f"{value / 1000:.2f}" for value in report["quarters_p50_us"])
    if rows:
        quarter = max(1, len(rows) // 4)
        mean = lambda part, at: sum(each[at] for each in part) / len(part)
        watts, first, last = mean(rows, 1) / 1000, rows[:quarter], rows[-quarter:]
        cells += [f"{watts:.1f}", f"{watts * report['seconds'] / report['runs'] * 1000:.0f}", quarters,
                  f"{mean(first, 2) / 1000:.0f} -> {mean(last, 2) / 1000:.0f}", f"{mean(first, 3) / 1e6:.0f} -> {mean(last, 3) / 1e6:.0f}"]
    else:
        cells += ["not measured: no sample", "", quarters, "", ""]
    keep(out, name, {**bundle, "mode": mode, **{f"{key}_ms": ms[key] for key in ("p50", "p95", "p99")}})
    add(out, [*cells, cold_s])


def missed(out, name, folder, mode, why):
    bundle = bundle_of(folder)
    keep(out, name, {**bundle, "mode": mode, "why": why})
    cells = [title(name, bundle), mode, f"not measured: {why}"]
    add(out, cells + [""] * (len(HEAD) - len(cells)))


def on(wanted, board, mode):
    """Whether a figure of the board `wanted` may stand beside one of this."""
    if wanted == "Orin Nano Super":
        return "Orin Nano" in board and "super" in f"{board} {mode}".lower()
    return wanted in board


def here(told, families, millions, wanted, board):
    mine = [each for each in told if each["family"] in families]
    if not mine:
        return "not measured: no deployment of it was given"
    said = []
    for each in mine:
        if each["bytes"] < millions * 1e6 * BYTES_A_PARAMETER:
            said.append(f"not measured: {each['name']} has {each['bytes'] / 1e6:.1f} MB in all, too little for {millions} million parameters")
        elif not on(wanted, board, each["mode"]):
            said.append(f"not measured: this is {board}")
        elif "why" in each:
            said.append(f"not measured: {each['name']}: {each['why']}")
        else:
            said.append(f"{each['name']}: {each['p50_ms']:.2f} p50, {each['p95_ms']:.2f} p95, {each['p99_ms']:.2f} ms p99 ({each['mode']})")
    return "; ".join(dict.fromkeys(said))


def models(out, board):
    told = [json.loads(path.read_text()) for path in sorted(out.glob("*.row.json"))]
    lines = [line(["model, board", "best published", "by", "here"]), "|---" * 4 + "|\n"]
    for model, families, millions, wanted, best, by in MODELS:
        lines.append(line([f"{model}, {wanted}", best, by, here(told, families, millions, wanted, board)]))
    (out / "models.md").write_text("".join(lines))
    print("".join(lines), end="")


if __name__ == "__main__":
    what = {"row": row, "missed": missed, "models": models}
    what[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
