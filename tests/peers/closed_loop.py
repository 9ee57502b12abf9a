# SPDX-License-Identifier: Apache-2.0
"""The demo's robot, driven by the loops of others: `tendon sched-sim --bench-loop` gives scene, picture, policy and judge.

Time is simulated, so no loop is late by itself. A plan comes as long after its picture as in Tendon's own episodes: 20 ms and
the injected delay. Every loop but the waiting one asks for the next plan as soon as the last has come, takes an action each
50 ms, and goes straight to it; what there is no action for stands still, as their loops send nothing then. A gripper is told
its action at once. The scenes are the demo's own, the same for all.
"""

import json
import subprocess
import sys

TICK_MS, ACTION_MS, TRANSPORT_MS, SEED = 5, 50, 20, 7
DELAYS_MS = (0, 150, 300)
TICKS = ACTION_MS // TICK_MS


class Bench:
    """The other end: a line asked, a line answered."""

    def __init__(self, tendon):
        command = [tendon, "sched-sim", "--bench-loop"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("tendon sched-sim --bench-loop ended; what it said is above")
        ((_, answer),) = json.loads(line).items()
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Robot:
    """One episode: where it was told to be, and how long it has been."""

    def __init__(self, bench, spec):
        self.bench, self.ms = bench, 0
        self.stands = bench.ask({"set": spec})
        self.at = self.stands["positions"]

    def observe(self):
        """A plan; None where the policy was asked less than its 100 ms ago."""
        said = self.bench.ask("observe")
        if "actions" not in said:
            return None
        assert said["period_ms"] == ACTION_MS, said["period_ms"]
        # The pose that was seen, with which Tendon's plans of this policy begin, is no action of it.
        seen = 1 if said["first_ms"] == 0 else 0
        return {"captured_ms": self.ms, "actions_rad": said["actions"][seen:]}

    def go(self, action, ticks=TICKS):
        """Straight to `action` in so many ticks; nowhere without one."""
        to = self.at if action is None else [float(value) for value in action]
        line = []
        for tick in range(1, ticks + 1):
            share = tick / ticks
            line.append([a + (b - a) * share for a, b in zip(self.at[:-1], to[:-1])] + [to[-1]])
        self.at, self.ms = to, self.ms + ticks * TICK_MS
        self.stands = self.bench.ask({"step": line})


def waits(robot, late_ms):
    """Look, wait, do it all, look again. How often it stood without an action: once for each plan but the first."""
    plans = 0
    while not robot.stands["over"]:
        arrival = robot.observe()
        robot.go(None, late_ms // TICK_MS)
        plans += 1
        for action in arrival["actions_rad"]:
            if robot.stands["over"]:
                break
            robot.go(action)
    return max(plans - 1, 0)


def goes_on(robot, peer, late_ms):
    """An action each period, from whatever the queue made of the plans. How often it was empty."""
    coming, moved, empty, was_empty = None, False, 0, False
    while not robot.stands["over"]:
        if coming and coming["arrives_ms"] <= robot.ms:
            peer.offer(coming, robot.ms)
            coming = None
        if not coming:
            coming = robot.observe()
        if coming and "arrives_ms" not in coming:
            coming["arrives_ms"] = robot.ms + late_ms
            # As their clients stamp what they send: the latest action done, and where the queue stands.
            coming["step"] = max(getattr(peer, "latest", 0), 0)
            if hasattr(peer, "cursor"):
                coming["cursor"] = peer.cursor()
        action = peer.pop(robot.ms)
        moved = moved or action is not None
        is_empty = moved and action is None
        empty += is_empty and not was_empty
        was_empty = is_empty
        robot.go(action)
    return empty


def judged(tendon, episodes, made):
    """(name, delay in ms) -> what `tendon sched-sim --episodes` says of a rule of its own."""
    bench, found = Bench(tendon), {}
    specs = bench.ask({"plan": {"episodes": episodes, "seed": SEED}})
    for make, synchronous in made:
        name = "naive synchronous" if synchronous else make().name
        for delay_ms in DELAYS_MS:
            done, seconds, stalls = 0, 0.0, 0
            for spec in specs:
                robot, late_ms = Robot(bench, spec), TRANSPORT_MS + delay_ms
                stalls += waits(robot, late_ms) if synchronous else goes_on(robot, make(), late_ms)
                if robot.stands["done"]:
                    done, seconds = done + 1, seconds + robot.stands["elapsed_s"]
            found[name, delay_ms] = {
                "episodes": episodes,
                "success_rate": done / episodes,
                "done_after_s": seconds / max(done, 1),
                "stalls": stalls,
                "interventions": None,
            }
            print(name, delay_ms, found[name, delay_ms], file=sys.stderr, flush=True)
    bench.close()
    return found
