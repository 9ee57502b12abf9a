#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every fault twenty times (argument 1: how often): for a night on a machine that does nothing else. At the end a line for each
# fault, and what was left out for want of a right or a tool. That is a failure here: a night that skips has shown less than it
# says. Faults that need root: a full disk, memory, a bad network, a cable that is cut, a FIFO hog.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TENDON_CHAOS_REPEATS="${1:-20}"
{
    cargo test --release --features tls --test chaos -- --nocapture --test-threads=1 2>&1 || echo $? > "$work/failed"
} | tee "$work/log"
echo
echo "fault: how often; at least (what is judged), at most, bound in ms: the worst of all"
LC_ALL=C awk '{ sub(/^test [^ ]+ \.\.\. /, "") }
    match($0, /: (held|stopped) [0-9]/) {
        name = substr($0, 1, RSTART - 1)
        split(substr($0, RSTART + 2), word, " ")
        match($0, /bound [0-9]+/)
        bound[name] = substr($0, RSTART + 6, RLENGTH - 6)
        often[name]++
        if (word[2] + 0 > least[name]) least[name] = word[2] + 0
        if (word[4] + 0 > most[name]) most[name] = word[4] + 0
    }
    END { for (name in often) printf "%s: %d; %.1f, %.1f, %d\n", name, often[name], least[name], most[name], bound[name] }' \
    "$work/log" | sort
echo "stories that failed while the machine stood still, and were told again: $(grep -c '^told again' "$work/log" || true)"
if grep "SKIPPED" "$work/log"; then
    echo "nightly: what is listed above was not shown" >&2
    exit 1
fi
if [ -e "$work/failed" ]; then
    exit "$(cat "$work/failed")"
fi
