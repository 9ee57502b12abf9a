# SPDX-License-Identifier: Apache-2.0
"""Power, temperature and the GPU's clock beside a measurement: one process that keeps its files open and reads them twice a second,
so that what is measured is the policy and not who watches it.

    watch.py CSV --rail VOLTS AMPS [--rail ...] --zone FILE [--zone ...] [--clock FILE]     until it is ended
    watch.py --once --rail ...                                                              one sample, on standard output

VOLTS and AMPS are hwmon's, in thousandths. A rail that cannot be read leaves its line out, a zone that cannot only itself: some of a
Jetson's are switched off."""

import argparse
import os
import time

PERIOD_S = 0.5
HEAD = "seconds,milliwatts,hottest_millidegrees,gpu_hz"


def opened(path):
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def number(file):
    # From its beginning: so the kernel makes the number anew.
    return int(os.pread(file, 64, 0))


def hottest(zones):
    found = 0
    for zone in zones:
        try:
            found = max(found, number(zone))
        except (OSError, ValueError):
            continue
    return found


def sample(rails, zones, clock):
    milliwatts = sum(number(volts) * number(amps) // 1000 for volts, amps in rails)
    try:
        hz = number(clock) if clock is not None else 0
    except (OSError, ValueError):
        hz = 0
    return f"{milliwatts},{hottest(zones)},{hz}"


def watch(path, *what):
    began = time.monotonic()
    next_s = began
    with open(path, "w", buffering=1) as out:
        out.write(HEAD + "\n")
        while True:
            try:
                out.write(f"{time.monotonic() - began:.2f},{sample(*what)}\n")
            except (OSError, ValueError) as error:
                print(f"watch.py: a sample is left out: {error}", flush=True)
            next_s = max(next_s + PERIOD_S, time.monotonic())
            time.sleep(max(0.0, next_s - time.monotonic()))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("csv", nargs="?")
    options.add_argument("--once", action="store_true")
    options.add_argument("--rail", nargs=2, action="append", required=True)
    options.add_argument("--zone", action="append", required=True)
    options.add_argument("--clock")
    asked = options.parse_args()
    rails = [(opened(volts), opened(amps)) for volts, amps in asked.rail]
    zones = []
    for path in asked.zone:
        try:
            zones.append(opened(path))
        except OSError:
            continue
    clock = opened(asked.clock) if asked.clock else None
    if asked.once:
        print(sample(rails, zones, clock))
    elif asked.csv:
        watch(asked.csv, rails, zones, clock)
    else:
        options.error("expected a CSV to write, or --once")


main()
