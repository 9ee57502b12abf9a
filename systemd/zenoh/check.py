#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starts the router of zenohd.json5, as shipped but for its addresses and the folder of its certificates, and tries what
must pass and what must not. Needs `pip install eclipse-zenoh` (the same zenoh, with TLS) and openssl; without them it says
so and exits 77, as "skipped". It asks for no privileges and stays on loopback.

    python3 systemd/zenoh/check.py

A negative is judged only after a positive that took the same way later has arrived: no waiting in hope.
"""

import json
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import zenoh
except ImportError:
    zenoh = None

HERE = pathlib.Path(__file__).resolve().parent
TCP, TLS = "tcp/127.0.0.1:17447", "tls/127.0.0.1:17448"
PATIENCE_S = 10.0
ALL = 10
ASKED = ("instruction", "mode", "speed", "park")


def router(folder):
    text = (HERE / "zenohd.json5").read_text()
    text = text.replace("tcp/127.0.0.1:7447", TCP).replace("tls/0.0.0.0:7448", TLS)
    return zenoh.Config.from_json5(text.replace("/etc/tendon/tls", str(folder)))


def tls(folder, name):
    text = (HERE / "robot.json5").read_text()
    text = text.replace("tls/tendon.local:7448", TLS).replace("timeout_ms: -1", "timeout_ms: 3000")
    text = text.replace("exit_on_failure: false", "exit_on_failure: true")
    return zenoh.Config.from_json5(text.replace("/etc/tendon/tls", str(folder)).replace("arm-1.", f"{name}."))


def plain(endpoint):
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect", json.dumps({"endpoints": [endpoint], "timeout_ms": 3000, "exit_on_failure": True}))
    config.insert_json5("scouting/multicast/enabled", "false")
    return config


class Box:
    """What a subscriber got, by payload."""

    def __init__(self, session, key):
        self.got = queue.Queue()
        self.seen = []
        self.subscriber = session.declare_subscriber(key, lambda s: self.got.put(s.payload.to_string()))

    def wait_for(self, text):
        while text not in self.seen:
            self.seen.append(self.got.get(timeout=PATIENCE_S))
        return self.seen


def arrives(send, box, text):
    """Sends until it arrives: routes settle after a declaration. Fails after PATIENCE_S without it."""
    for attempt in range(int(PATIENCE_S * 20)):
        send(text)
        try:
            while True:
                got = box.got.get(timeout=0.05)
                box.seen.append(got)
                if got == text:
                    return
        except queue.Empty:
            continue
    raise AssertionError(f"{text!r} never arrived; seen {box.seen}")


def refused(open_):
    try:
        open_()
    except zenoh.ZError as error:
        return str(error)
    raise AssertionError("it was let in")


def main():
    if zenoh is None or not shutil.which("openssl"):
        print("skipped: no eclipse-zenoh (pip install eclipse-zenoh), or no openssl")
        return 77
    results = []

    def good(text):
        results.append(text)
        print("good:", text)

    with tempfile.TemporaryDirectory() as folder:
        make = [str(HERE / "make-test-ca.sh"), folder]
        subprocess.run(make + ["router", "arm-1", "arm-2", "operator-1"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([make[0], folder + "/other", "arm-1"], check=True, stdout=subprocess.DEVNULL)
        hub = zenoh.open(router(folder))
        runtime = zenoh.open(plain(TCP))
        robot = zenoh.open(tls(folder, "arm-1"))
        stranger = zenoh.open(tls(folder, "arm-2"))
        operator = zenoh.open(tls(folder, "operator-1"))

        commands = Box(robot, "tendon/arm-1/command")
        states = Box(runtime, "tendon/arm-1/state")
        spied = Box(stranger, "**")
        arrives(lambda t: runtime.put("tendon/arm-1/command", t), commands, "command")
        good("the runtime's command reaches the robot")
        arrives(lambda t: robot.put("tendon/arm-1/state", t), states, "state")
        good("the robot's state reaches the runtime")

        for who, session in (("operator", operator), ("another robot", stranger)):
            session.put("tendon/arm-1/command", f"forged by {who}")
        stranger.put("tendon/arm-1/state", "forged state")
        operator.put("tendon/arm-1/state", "forged state")
        # The same sessions ask something that must be answered or say nothing more; then the good ones speak again.
        answers = []
        for what in ASKED:
            key = f"tendon/arm-1/{what}"
            answers.append(runtime.declare_queryable(key, lambda q, key=key, what=what: q.reply(key, f"about {what}")))
            replies = []
            for attempt in range(int(PATIENCE_S)):
                replies = [r.ok.payload.to_string() for r in operator.get(key, timeout=1.0) if r.ok]
                if replies:
                    break
            assert replies == [f"about {what}"], (what, replies)
        good(f"an operator asks ({', '.join(ASKED)}) and is answered")
        device = Box(runtime, "tendon/arm-1/takeover")
        stranger.put("tendon/arm-1/takeover", "forged takeover")
        robot.put("tendon/arm-1/takeover", "forged takeover")
        arrives(lambda t: operator.put("tendon/arm-1/takeover", t), device, "takeover")
        assert not any("forged" in each for each in device.seen), device.seen
        good("an operator's device drives, nobody else's does")
        switch = Box(runtime, "tendon/arm-1/deadman")
        stranger.put("tendon/arm-1/deadman", "forged hand")
        robot.put("tendon/arm-1/deadman", "forged hand")
        arrives(lambda t: operator.put("tendon/arm-1/deadman", t), switch, "deadman")
        assert not any("forged" in each for each in switch.seen), switch.seen
        good("an operator's deadman switch is heard, nobody else's is")
        denied = [r for r in stranger.get("tendon/arm-1/mode", timeout=1.0) if r.ok]
        assert not denied, denied
        good("another robot asks and is not")
        arrives(lambda t: runtime.put("tendon/arm-1/command", t), commands, "command 2")
        arrives(lambda t: robot.put("tendon/arm-1/state", t), states, "state 2")
        assert not any("forged" in each for each in commands.seen + states.seen), (commands.seen, states.seen)
        good("nobody else's command or state arrives")
        while not spied.got.empty():
            spied.seen.append(spied.got.get())
        # What it said itself it hears within its own session; that never left the process.
        heard = [each for each in spied.seen if "forged" not in each]
        assert not heard, heard
        good("a subscriber of ** with a good certificate but no rule hears nothing")

        refused(lambda: zenoh.open(tls(folder + "/other", "arm-1")))
        good("a certificate of another CA is turned away")
        text = (HERE / "robot.json5").read_text().replace("tls/tendon.local:7448", TLS)
        text = re.sub(r"connect_(certificate|private_key):[^\n]*\n", "", text).replace("enable_mtls: true", "enable_mtls: false")
        text = text.replace("timeout_ms: -1", "timeout_ms: 3000").replace("exit_on_failure: false", "exit_on_failure: true")
        none = zenoh.Config.from_json5(text.replace("/etc/tendon/tls", folder))
        refused(lambda: zenoh.open(none))
        good("no certificate at all is turned away")
        del answers
        for session in (operator, stranger, robot, runtime, hub):
            session.close()
    print(f"{len(results)} of {ALL}")
    return 0 if len(results) == ALL else 1


if __name__ == "__main__":
    sys.exit(main())
