# SPDX-License-Identifier: Apache-2.0
"""Makes the bundles and vectors of `tests/policy/rtc.rs`: real-time chunking inside exported graphs.

    python tests/rtc/export_guided.py PATH_OF_KINETIX

`guided` is a bundle whose one stage is `(past_kv, x_t, t, prev, W, gw) -> v_guided` for a small flow denoiser, in which time
goes from 0 (noise) to 1 (action), after K. Black, M. Galliker, S. Levine, "Real-time execution of action chunking flow
policies", 2025:

    v   = denoiser(past_kv, x_t, t)
    x1  = x_t + (1 - t) v
    g   = (d x1 / d x_t)^T ((prev - x1) W)        the vector-Jacobian product
    v'  = v + gw g

`torch.func.vjp` inside `forward` is traced by `make_fx`, which writes the backward pass as ordinary operators; what ONNX opset
17 has no operator for is decomposed. `plain` is the same denoiser with a time of its own for each row, from 1 (noise) to 0.
The denoiser has random weights: two pre-norm transformer blocks whose tokens attend to themselves and to given keys and
values, SiLU, a gated MLP.

`golden.json` holds what others compute with the same weights: autograd in double (`vjp`), the authors' own
`realtime_action` in JAX (`kinetix`, Physical-Intelligence/real-time-chunking-kinetix, its `src/model.py` from the path
given), and LeRobot's own `RTCProcessor` (`lerobot`). Needs torch, onnx, onnxruntime, safetensors, lerobot 0.4.4, jax, flax,
einops.
"""

import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "engines/families"))
import bundle  # noqa: E402

HORIZON, CHANNELS, WIDTH, HEADS, BLOCKS, PAST = 10, 7, 24, 2, 2, 6
OPSET, STEPS, FILL = 17, 5, 0.2
HERE = Path(__file__).resolve().parent
JOINTS = ["base_yaw", "shoulder_pitch", "elbow_pitch", "forearm_roll", "wrist_pitch", "tool_roll", "gripper"]
UNITS = ["rad"] * 6 + ["fraction"]
# Small steps about where the robot is, and a gripper that stays open: the bundles can drive the bench robot.
MEAN, STD = [0.0] * 6 + [0.2], [0.004] * 6 + [0.05]
FRAMES = 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))

    def norm(self, x, scale):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * scale

    def forward(self, x, past):
        heads = lambda y: y.reshape(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        y = self.norm(x, self.scale1)
        k = torch.cat([past[0:1], heads(self.k(y))], 2)
        v = torch.cat([past[1:2], heads(self.v(y))], 2)
        scores = torch.matmul(heads(self.q(y)), k.transpose(2, 3)) / math.sqrt(WIDTH // HEADS)
        mixed = torch.matmul(torch.softmax(scores, -1), v)
        x = x + self.out(mixed.transpose(1, 2).reshape(1, HORIZON, WIDTH))
        y = self.norm(x, self.scale2)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.inward = nn.Linear(CHANNELS, WIDTH)
        self.time = nn.Linear(8, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.outward = nn.Linear(WIDTH, CHANNELS)
        self.register_buffer("rates", torch.tensor([1.0, 2.0, 4.0, 8.0]) * math.pi)
        self.register_buffer("places", torch.randn(1, HORIZON, WIDTH) * 0.3)

    def forward(self, past_kv, x_t, t):
        """past_kv [blocks,2,heads,past,width/heads], x_t [1,H,C], t [1] or [H] -> velocity [1,H,C]."""
        phases = t.reshape(-1, 1) * self.rates
        times = self.time(torch.cat([torch.sin(phases), torch.cos(phases)], 1))
        x = self.inward(x_t) + times.reshape(1, -1, WIDTH) + self.places
        for index, block in enumerate(self.blocks):
            x = block(x, past_kv[index])
        return self.outward(x)


class Guided(nn.Module):
    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, past_kv, x_t, t, prev, W, gw):
        left = (1.0 - t).reshape(1, 1, 1)

        def landing(x):
            v = self.denoiser(past_kv, x, t)
            return x + left * v, v

        x1, pull, v = torch.func.vjp(landing, x_t, has_aux=True)
        (g,) = pull((prev - x1) * W.reshape(1, HORIZON, 1))
        return v + gw.reshape(1, 1, 1) * g


NAMES = ["past_kv", "x_t", "t", "prev", "W", "gw"]
SOURCES = ["const.past", "loop.x", "loop.time", "loop.prefix", "loop.weights", "loop.guidance"]


def past():
    return torch.full((BLOCKS, 2, HEADS, PAST, WIDTH // HEADS), FILL)


def draw(generator, t, gw):
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.1, 0.0, 0.0, 0.0])
    return [
        normal(BLOCKS, 2, HEADS, PAST, WIDTH // HEADS), normal(1, HORIZON, CHANNELS), torch.tensor([t]),
        normal(1, HORIZON, CHANNELS) * 0.5, weights, torch.tensor([gw]),
    ]


class PlainAten(nn.Module):
    """A module as a graph of plain operators, traced when it is first run, so that the exporter finds no gradient in it."""

    def __init__(self, module, inputs):
        super().__init__()
        aten = torch.ops.aten
        wanted = [
            aten._softmax, aten._softmax_backward_data, aten.silu_backward, aten.slice_backward, aten.select_backward,
        ]
        graph = make_fx(module, decomposition_table=get_decompositions(wanted), tracing_mode="real")(*inputs)
        # The exporter knows `reshape`; after tracing, a view that shares memory means nothing any more.
        for node in graph.graph.nodes:
            if node.target in (aten.view.default, aten._unsafe_view.default):
                node.target = aten.reshape.default
        graph.recompile()
        self.graph = graph

    def forward(self, *inputs):
        return self.graph(*inputs)


def listed(value):
    return [round(float(x), 9) for x in np.asarray(value).ravel()]


def euler(denoise, noise, start):
    """The plain loop, in single precision as the runtime does it."""
    dt = (1.0 - 2.0 * start) / STEPS
    x = torch.tensor(noise)
    for step in range(STEPS):
        t = np.float32(start + step * dt)
        x = x + np.float32(dt) * denoise(x, torch.tensor([t]))
    return x.numpy()


def write_bundle(name, module, inputs, sources, output, denoise, start, rtc, rng):
    bundle.OUT = HERE
    post = [{"op": "add_state", "mask": [True] * 6 + [False]}]
    stats = {"file": "norm_stats.json", "mode": "mean_std", "convention": "openpi"}
    made = bundle.Bundle(
        name, "rtc", constants={"past": {"fill": FILL}}, decoder={"kind": "sample", "width": CHANNELS},
        state={"names": JOINTS, "units": UNITS},
        action={"names": JOINTS, "units": UNITS, "horizon": HORIZON, "period_ms": 50.0, "first_step_ms": 0.0,
                "stats": stats | {"key": "actions"}, "post": post},
        loop={"kind": "flow", "velocity": f"denoiser.{output}", "rtc": rtc,
              "flow": {"t_start": start, "t_end": 1.0 - start, "steps": STEPS, "time": {"kind": "f32"}, "grid": "exact"}})
    (made.dir / "norm_stats.json").write_text(json.dumps({"actions": {"mean": MEAN, "std": STD}}) + "\n")
    made.stage("denoiser", module, {key: (value, source) for (key, value), source in zip(inputs.items(), sources)}, [output],
               opset=OPSET)
    noise = rng.normal(size=(FRAMES, HORIZON, CHANNELS)).astype(np.float32)
    state = rng.uniform(-0.3, 0.3, (FRAMES, CHANNELS)).astype(np.float32)
    x = np.concatenate([euler(denoise, noise[frame : frame + 1], start) for frame in range(FRAMES)])
    action = x * (np.array(STD) + 1e-6) + np.array(MEAN) + np.where(np.arange(CHANNELS) < 6, state, 0.0)[:, None]
    made.finish([""] * FRAMES, {"noise": noise.reshape(FRAMES, -1), "state": state, "action": action.astype(np.float32)})
    return made.dir


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def gradient_vectors(denoiser, path):
    """The stage against reverse-mode autograd in double: another path to the same gradient than the one exported."""
    generator = torch.Generator().manual_seed(5)
    # t and min(10, (1 - t)/t (t^2 + (1 - t)^2)/(1 - t)^2) go together; 0 is no guidance.
    pairs = [(0.0, 10.0), (0.1, 9.1111), (0.5, 2.0), (0.9, 0.0)]
    exact = Denoiser().double()
    exact.load_state_dict({key: value.double() for key, value in denoiser.state_dict().items()})
    written, worst, moved = [], 0.0, 0.0
    for case in [draw(generator, t, gw) for t, gw in pairs]:
        inputs = dict(zip(NAMES, (tensor.numpy() for tensor in case)))
        (found,) = session(path).run(None, inputs)
        past_kv, x_t, t, prev, weights, gw = (tensor.double() for tensor in case)
        x = x_t.clone().requires_grad_(True)
        v = exact(past_kv, x, t)
        x1 = x + (1.0 - t) * v
        (g,) = torch.autograd.grad(x1, x, ((prev - x1) * weights.reshape(1, HORIZON, 1)).detach())
        wanted = (v + gw * g).detach()
        identity = (v + gw * (prev - x1) * weights.reshape(1, HORIZON, 1)).detach()
        worst = max(worst, float(np.abs(found - wanted.numpy()).max()))
        moved = max(moved, float((wanted - identity).abs().max()))
        written.append({name: listed(value) for name, value in inputs.items()} | {"v_guided": listed(wanted)})
    assert worst < 1e-4, worst
    print(f"ONNX Runtime against autograd in double: {worst:.2e}; true gradient against identity: {moved:.3f}")
    shapes = {name: list(tensor.shape) for name, tensor in zip(NAMES, draw(generator, 0.5, 2.0))}
    return {"shapes": shapes | {"v_guided": [1, HORIZON, CHANNELS]}, "cases": written}


def kinetix_vectors(denoiser, source, rng):
    """Two plans by the authors' code: the first free, the second from what is left of the first."""
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, str(Path(source) / "src"))
    import model

    w = {key: jnp.asarray(value.numpy()) for key, value in denoiser.state_dict().items()}
    kv = jnp.asarray(past().numpy())
    linear = lambda name, x: x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)
    norm = lambda x, scale: x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * scale
    heads = lambda y: y.reshape(-1, HEADS, WIDTH // HEADS).transpose(1, 0, 2)

    class Policy:
        action_chunk_size, action_dim = HORIZON, CHANNELS

        def __call__(self, obs, x_t, t):
            phases = t * w["rates"]
            x = linear("inward", x_t[0]) + linear("time", jnp.concatenate([jnp.sin(phases), jnp.cos(phases)])) + w["places"][0]
            for index in range(BLOCKS):
                name = f"blocks.{index}"
                y = norm(x, w[f"{name}.scale1"])
                k = jnp.concatenate([kv[index, 0], heads(linear(f"{name}.k", y))], 1)
                v = jnp.concatenate([kv[index, 1], heads(linear(f"{name}.v", y))], 1)
                scores = heads(linear(f"{name}.q", y)) @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS)
                mixed = (jax.nn.softmax(scores, -1) @ v).transpose(1, 0, 2).reshape(HORIZON, WIDTH)
                x = x + linear(f"{name}.out", mixed)
                y = norm(x, w[f"{name}.scale2"])
                x = x + linear(f"{name}.down", jax.nn.silu(linear(f"{name}.gate", y)) * linear(f"{name}.up", y))
            return linear("outward", x)[None]

    written = []
    for seed, (delay, executed, schedule, most) in enumerate([(2, 4, "exp", 5.0), (0, 3, "linear", 10.0), (3, 7, "ones", 5.0)]):
        keys = jax.random.split(jax.random.PRNGKey(seed), 2)
        obs, nothing = jnp.zeros((1, 1)), jnp.zeros((1, HORIZON, CHANNELS))
        step = lambda key, before, late, end: model.FlowPolicy.realtime_action(
            Policy(), key, obs, STEPS, before, late, end, schedule, most)
        # With no horizon every weight is 0: the first plan is free.
        first = step(keys[0], nothing, 0, 0)
        before = jnp.concatenate([first[:, executed:], nothing[:, :executed]], 1)
        second = step(keys[1], before, delay, HORIZON - executed)
        noise = [jax.random.normal(key, (1, HORIZON, CHANNELS)) for key in keys]
        written.append({"delay": delay, "executed": executed, "attention": schedule, "guidance_max": most,
                        "noise": [listed(each) for each in noise], "plans": [listed(first), listed(second)]})
    return written


def lerobot_vectors(denoiser, rng):
    """The same by LeRobot's processor around the plain denoiser, time from 1 to 0."""
    from lerobot.configs.types import RTCAttentionSchedule
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    written = []
    cases = [(2, 4, "linear", 10.0, 8), (0, 3, "exp", 10.0, 5), (3, 5, "ones", 5.0, 10), (2, 6, "zeros", 10.0, 10)]
    for delay, executed, schedule, most, overlap in cases:
        config = RTCConfig(enabled=True, prefix_attention_schedule=RTCAttentionSchedule(schedule.upper()),
                           max_guidance_weight=most, execution_horizon=overlap)
        processor = RTCProcessor(config)
        noise = rng.normal(size=(2, 1, HORIZON, CHANNELS)).astype(np.float32)
        plans, left = [], None
        for each in noise:
            x, dt = torch.tensor(each), np.float32(-1.0 / STEPS)
            for step in range(STEPS):
                t = float(np.float32(1.0 - step / STEPS))
                v = processor.denoise_step(x, left, delay, t, lambda x: denoiser(past(), x, torch.tensor([t])).detach())
                x = (x + dt * v).detach()
            plans.append(listed(x))
            left = x[:, executed:]
        written.append({"delay": delay, "executed": executed, "attention": schedule, "guidance_max": most, "overlap": overlap,
                        "noise": [listed(each) for each in noise], "plans": plans})
    return written


def compare_cost(denoiser, guided):
    """What guidance costs: the plain denoiser, exported alike, beside the guided stage."""
    case = draw(torch.Generator().manual_seed(7), 0.5, 2.0)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        plain = Path(folder) / "plain.onnx"
        torch.onnx.export(PlainAten(denoiser, case[:3]), tuple(case[:3]), str(plain), input_names=NAMES[:3], output_names=["v"],
                          opset_version=OPSET, dynamo=False)
        other, nodes = session(plain), len(onnx.load(plain).graph.node)

    def median_ms(run):
        took = []
        for _ in range(300):
            began = time.perf_counter()
            run()
            took.append(time.perf_counter() - began)
        return 1e3 * sorted(took)[len(took) // 2]

    inputs = dict(zip(NAMES, (tensor.numpy() for tensor in case)))
    few = {name: inputs[name] for name in NAMES[:3]}
    whole = session(guided)
    alone, both = median_ms(lambda: other.run(None, few)), median_ms(lambda: whole.run(None, inputs))
    print(f"plain denoiser {nodes} nodes, {alone:.3f} ms; guided {len(onnx.load(guided).graph.node)} nodes, {both:.3f} ms:"
          f" {both / alone:.2f} times (ONNX Runtime, median of 300)")


def main():
    torch.manual_seed(3)
    denoiser = Denoiser().eval()
    for weight in denoiser.parameters():
        weight.requires_grad_(False)
    rng = np.random.default_rng(11)
    example = draw(torch.Generator().manual_seed(5), 0.1, 9.0)
    traced = PlainAten(Guided(denoiser), example)
    run = lambda x, t: denoiser(past(), x, t)
    guided = write_bundle(
        "guided", traced, dict(zip(NAMES, example)), SOURCES, "v_guided", run, 0.0,
        {"flavour": "guided", "attention": "exp", "guidance_max": 5.0}, rng)
    rows = dict(zip(NAMES[:3], [example[0], example[1], torch.full((HORIZON,), 0.1)]))
    write_bundle("plain", denoiser, rows, SOURCES[:3], "v", run, 1.0, {"flavour": "identity"}, rng)
    path = guided / "denoiser.onnx"
    domains = {node.domain for node in onnx.load(path).graph.node}
    assert domains <= {"", "ai.onnx"}, domains
    operators = sorted({node.op_type for node in onnx.load(path).graph.node})
    print(f"guided: {path.stat().st_size} bytes, operators: {' '.join(operators)}")
    golden = {"vjp": gradient_vectors(denoiser, path), "kinetix": kinetix_vectors(denoiser, sys.argv[1], rng),
              "lerobot": lerobot_vectors(denoiser, rng)}
    (HERE / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    compare_cost(denoiser, path)


if __name__ == "__main__":
    main()
