#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the tests of the governor and the supervisor: breaks the code in one place at a time and sees whether a test
# notices. Survivors are tried again with the tests at their full length, and what is still not noticed is printed;
# docs/mutants.md says why each of those is no fault of the tests.
#
#   cargo install cargo-mutants
#   tests/mutants/run.sh [out-folder] [more arguments of cargo-mutants, such as --shard 0/8 or --file '**/stop.rs']
#
# Takes an hour or two on two cores. The core is copied out with its tests (tests/core), so that a mutant is built and
# tried in some seconds.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-"$root/target/mutants"}
[ $# -eq 0 ] || shift
mkdir -p "$out"
tree="$out/tree"
rm -rf "$tree" "$out/quick" "$out/full"
mkdir -p "$tree/src" "$tree/docs"
cp "$root/docs/supervisor.md" "$tree/docs/"
cp -r "$root/src/core" "$tree/src/core"
cp "$root/tests/core/Cargo.lock" "$tree/"
# The same library, but from its own files (what lies outside of its tree would not be mutated), and without the tests of
# the other rooms and what only they need.
sed '/^#\[path/d; /^#\[cfg(test)\]/,/^mod bench/d' "$root/tests/core/src/lib.rs" > "$tree/src/lib.rs"
cat >> "$tree/src/lib.rs" <<'END'

/// The first failure is all that is asked for: the process ends there.
#[cfg(test)]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn exit_at_the_first_panic() {
        std::panic::set_hook(Box::new(|_| std::process::exit(101)));
    }
    exit_at_the_first_panic
};
END
sed '/^\[dev-dep/,/^$/d' "$root/tests/core/Cargo.toml" > "$tree/Cargo.toml"
for room in schedule wire kinematics; do
    sed -i '/^#\[cfg(test)\]$/{N;/\nmod tests;$/d}' "$tree/src/core/$room/mod.rs"
done

mutants() {
    where=$1
    shift
    # 2 and 3 say that some were missed or ran out of time; more than that is an error of the run itself.
    env -u CARGO_TARGET_DIR cargo mutants --dir "$tree" --output "$out/$where" --cap-lints true --no-shuffle \
        --file 'src/core/governor/*.rs' --file 'src/core/supervisor/*.rs' "$@" \
        -- --lib -- core::governor core::supervisor --skip no_arrow || [ $? -le 3 ]
}
lines() { if [ -f "$1" ]; then wc -l < "$1"; else echo 0; fi; }

TENDON_SHORT_TESTS=1 mutants quick --jobs 2 --timeout 40 "$@"
found="$out/quick/mutants.out"
missed="$found/missed.txt"
if [ -s "$missed" ]; then
    # One regular expression for each survivor, its own name.
    sed 's/[][\.*^$+?(){}|/]/\\&/g; s/^/--re=^/; s/$/$/' "$missed" > "$out/again"
    set --
    while read -r re; do set -- "$@" "$re"; done < "$out/again"
    mutants full --jobs 2 --timeout 300 "$@"
    missed="$out/full/mutants.out/missed.txt"
fi
caught_late=$(($(lines "$found/missed.txt") - $(lines "$missed")))
[ -s "$found/missed.txt" ] || caught_late=0
echo "caught $(($(lines "$found/caught.txt") + caught_late)) (of them $caught_late by the full length alone)," \
    "timeouts $(lines "$found/timeout.txt"), missed $(lines "$missed"), unviable $(lines "$found/unviable.txt")"
[ ! -s "$missed" ] || cat "$missed"
