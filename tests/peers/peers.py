# SPDX-License-Identifier: Apache-2.0
"""Runs the chunk handling that others publish on Tendon's streams: peers.py PACKAGES streams.json [TENDON EPISODES] > traces.json.

Their own files are loaded from PACKAGES and called; around them stands what their own loops do: one action each 50 ms,
nothing when the queue is empty. Their loops send an action and wait; here the joint goes straight from one action to the
next at 200 Hz, as the interpolation of lerobot-rollout does, which is kinder than a step.

With a built TENDON each of them also drives the demo's robot by the demo's policy, for so many EPISODES (closed_loop.py).
"""

import importlib.util
import json
import pathlib
import re
import sys
import types

import closed_loop
import numpy as np

TICK_MS, ACTION_MS, RUN_MS = 5, 50, 30_000
FPS = 1000 // ACTION_MS


class Tensor(np.ndarray):
    """What the LeRobot queue asks of a tensor: slices, len and clone."""

    def clone(self):
        return self.copy()


def tensor(values):
    return rows(values).view(Tensor)


def rows(values):
    """Actions in rows, also those of a single joint."""
    return np.asarray(values, dtype=np.float32).reshape(len(values), -1)


def load(name, path, stubs=()):
    """A single file of a package as a module, its heavier imports answered by empty modules."""
    for stub, content in stubs:
        module = types.ModuleType(stub)
        module.__dict__.update(content)
        sys.modules[stub] = module
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def peers(root):
    root = pathlib.Path(root)
    torch = ("torch", {"Tensor": Tensor, "cat": lambda parts: np.concatenate(parts).view(Tensor)})
    config = ("lerobot.policies.rtc.configuration_rtc", {"RTCConfig": object})
    queue = load("lerobot_queue", root / "lerobot/policies/rtc/action_queue.py", [torch, config])
    # Of configs.py only the table of functions is needed; the file imports the whole robot stack.
    text = (root / "lerobot/async_inference/configs.py").read_text()
    table = {}
    exec(re.search(r"^AGGREGATE_FUNCTIONS = \{.*?^\}", text, re.M | re.S)[0], table)
    export = ("physicalai.config", {"export_config": lambda **_: lambda cls: cls})
    smoothers = load("physicalai_smoothers", root / "physicalai/runtime/smoothers.py", [export])
    dual = load("physicalai_rtc_queue", root / "physicalai/runtime/execution/rtc_queue.py")
    return queue.ActionQueue, table["AGGREGATE_FUNCTIONS"], smoothers, dual.RTCActionQueue


class Rtc:
    """lerobot RTC queue: replaced on arrival, dropping ceil(latency / dt) actions, as its engine loop does."""

    name = "lerobot 0.4.4 RTC queue"

    def __init__(self, queue):
        self.queue = queue(types.SimpleNamespace(enabled=True))

    def offer(self, arrival, _):
        delay = -(-(arrival["arrives_ms"] - arrival["captured_ms"]) // ACTION_MS)
        chunk = tensor(arrival["actions_rad"])
        self.queue.merge(chunk, chunk, delay, None)
        return delay

    def pop(self, _):
        return self.queue.get()


class Aggregated:
    """lerobot async client: actions by time step, mixed where both queues have one; past steps are dropped."""

    def __init__(self, name, mix):
        self.name, self.mix, self.queue, self.latest = f"lerobot 0.4.4 {name}", mix, {}, -1

    def offer(self, arrival, _):
        first = arrival["step"]
        fresh = {}
        for index, value in enumerate(rows(arrival["actions_rad"])):
            step = first + index
            if step > self.latest:
                old = self.queue.get(step)
                fresh[step] = value if old is None else self.mix(old, value)
        self.queue = fresh
        return 0

    def pop(self, _):
        if not self.queue:
            return None
        self.latest = min(self.queue)
        return self.queue.pop(self.latest)


class Lerp:
    """physicalai queue with its LerpSmoother: what is left is mixed with the chunk from its first action on."""

    name = "physicalai 0.3.0 LerpSmoother"

    def __init__(self, smoothers):
        self.smoother, self.left = smoothers.LerpSmoother(), None

    def offer(self, arrival, _):
        chunk = rows(arrival["actions_rad"])
        left = chunk[:0] if self.left is None else self.left
        self.left = self.smoother.merge(left, chunk)
        return 0

    def pop(self, _):
        if self.left is None or not len(self.left):
            return None
        action, self.left = self.left[0], self.left[1:]
        return action


class DualTrack:
    """physicalai RTC queue: replaced on arrival, dropping what was popped since its inference began."""

    name = "physicalai 0.3.0 RTC queue"

    def __init__(self, queue):
        self.queue = queue()
        self.cursor = self.queue.get_action_index

    def offer(self, arrival, _):
        chunk = rows(arrival["actions_rad"])
        began = arrival.get("cursor", self.cursor())
        dropped = max(0, self.cursor() - began)
        self.queue.merge(chunk, chunk, began)
        return dropped

    def pop(self, _):
        return self.queue.pop()


def run(index, scenario, peer, synchronous=False):
    """Pops an action each 50 ms; a chunk that has arrived is offered before."""
    coming = [dict(arrival) for arrival in scenario["arrivals"]]
    actions, seams, skipped, started = [], [], 0, False
    free_at = 0
    for ms in range(0, RUN_MS, ACTION_MS):
        offered = False
        for arrival in coming:
            if arrival["captured_ms"] > ms:
                break
            # As their client stamps an observation: with the number of its latest action.
            arrival.setdefault("step", max(getattr(peer, "latest", 0), 0))
        while coming and coming[0]["arrives_ms"] <= ms:
            arrival = coming.pop(0)
            if synchronous and arrival["captured_ms"] < free_at:
                continue
            dropped = peer.offer(arrival, ms)
            if not started:
                skipped = dropped
            started = offered = True
            if synchronous:
                # The next observation is made when this chunk is done.
                free_at = ms + ACTION_MS * len(arrival["actions_rad"])
        if hasattr(peer, "cursor"):
            # Inference begins when the chunk before it has been merged.
            for arrival in coming:
                if arrival["captured_ms"] > ms:
                    break
                arrival.setdefault("cursor", peer.cursor())
        action = peer.pop(ms)
        actions.append(None if action is None else float(action[0]))
        if offered and len(actions) > 1:
            seams.append(ms // TICK_MS)
    first = next(i for i, action in enumerate(actions) if action is not None)
    # After the last chunk there is nothing to go on with.
    last = scenario["arrivals"][-1]["arrives_ms"] // ACTION_MS
    stalled = sum(action is None for action in actions[first : last + 1]) * (ACTION_MS // TICK_MS)
    held, knots = None, []
    for action in actions:
        held = action if action is not None else held
        knots.append(held)
    positions, each = [], ACTION_MS // TICK_MS
    for before, after in zip(knots, knots[1:] + knots[-1:]):
        for tick in range(each):
            positions.append(None if before is None else before + (after - before) * tick / each)
    # The straight line to a new chunk's first action begins one action before it.
    return {
        "scenario": index,
        "name": "naive synchronous" if synchronous else peer.name,
        "positions_rad": positions,
        "seams": [tick - each for tick in seams if tick > each],
        "stalled_ticks": stalled,
        "skipped_at_start": skipped,
    }


def main():
    queue, mixes, smoothers, dual = peers(sys.argv[1])
    # Each with how it is made anew for an episode, and whether it waits for each plan.
    made = [(lambda: Rtc(queue), False), (lambda: DualTrack(dual), False), (lambda: Lerp(smoothers), False)]
    made += [(lambda name=name, mix=mix: Aggregated(name, mix), False) for name, mix in mixes.items()]
    made += [(lambda: Lerp(smoothers), True)]
    traces = []
    scenarios = json.load(open(sys.argv[2]))
    for index, scenario in enumerate(scenarios):
        for make, synchronous in made:
            traces.append(run(index, scenario, make(), synchronous))
    if len(sys.argv) > 4:
        found = closed_loop.judged(sys.argv[3], int(sys.argv[4]), made)
        for trace in traces:
            scenario = scenarios[trace["scenario"]]
            plain = scenario["jitter_ms"] == 0 and scenario["loss"] == 0
            trace["bench"] = found.get((trace["name"], scenario["delay_ms"])) if plain else None
    json.dump(traces, sys.stdout)


main()
