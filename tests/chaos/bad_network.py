# SPDX-License-Identifier: Apache-2.0
"""A bad network on the loopback of the network namespace that it is started in: delay, jitter, loss, duplication,
reordering and corruption of real IP packets, by a TUN device through which all TCP and UDP of the loopback is led. It needs
root and /dev/net/tun, and nothing of the kernel's packet schedulers.

Reads rules from standard input, a line of JSON each, e.g. {"delay_ms": 10, "jitter_ms": 2, "loss": 0.05, "duplicate": 0.1,
"reorder": 0.25, "corrupt": 0.05}: what is not named is none. Answers each with a line: packets, and what became of them,
since the last.
"""

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
NAME = "bad0"

# Packets that this namespace sends to itself leave through the device and come back by it: the table of local addresses
# is looked into after ours.
SETUP = [
    f"ip link set {NAME} up",
    *(
        f"sysctl -qw net.ipv4.conf.{device}.{key}"
        for device in ["all", NAME]
        for key in ["route_localnet=1", "accept_local=1", "rp_filter=0"]
    ),
    f"ip route add 127.0.0.0/8 dev {NAME} src 127.0.0.1 table 100",
    "ip rule add pref 5 iif lo ipproto tcp lookup 100",
    "ip rule add pref 6 iif lo ipproto udp lookup 100",
    "ip rule add pref 10 lookup local",
]
# What the namespace came with, and what an earlier one left.
UNDO = [
    "ip rule del pref 0",
    "ip rule del pref 5",
    "ip rule del pref 6",
    "ip rule del pref 10",
    "ip route flush table 100",
]


def main() -> None:
    for command in UNDO:
        subprocess.run(command.split(), check=False, stderr=subprocess.DEVNULL)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", NAME.encode(), IFF_TUN | IFF_NO_PI))
    for command in SETUP:
        subprocess.run(command.split(), check=True)
    print("ready", flush=True)
    rule: dict[str, float] = {}
    counts = dict.fromkeys(["packets", "lost", "duplicated", "reordered", "corrupted"], 0)
    waiting: list[tuple[float, int, bytes]] = []
    number = 0
    chance = random.Random(7)

    def strikes(what: str) -> bool:
        return chance.random() < rule.get(what, 0.0)

    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            # The kernel takes no packet whose version is broken.
            with contextlib.suppress(OSError):
                os.write(device, heapq.heappop(waiting)[2])
        timeout = max(0.0, waiting[0][0] - now) if waiting else None
        ready, _, _ = select.select([device, sys.stdin], [], [], timeout)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            rule = json.loads(line)
            print(json.dumps(counts), flush=True)
            counts = dict.fromkeys(counts, 0)
        if device not in ready:
            continue
        packet = os.read(device, 1 << 16)
        counts["packets"] += 1
        if strikes("loss"):
            counts["lost"] += 1
            continue
        copies = 1
        if strikes("duplicate"):
            counts["duplicated"] += 1
            copies = 2
        if strikes("corrupt"):
            counts["corrupted"] += 1
            broken = bytearray(packet)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            packet = bytes(broken)
        late = rule.get("delay_ms", 0.0) + chance.uniform(-1, 1) * rule.get("jitter_ms", 0.0)
        if strikes("reorder"):
            # It overtakes those that are on their way.
            counts["reordered"] += 1
            late = 0.0
        for _ in range(copies):
            number += 1
            heapq.heappush(waiting, (time.monotonic() + max(0.0, late) * 1e-3, number, packet))


main()
