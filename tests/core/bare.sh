#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows what governor, supervisor and wire can call: links them, whole, for a microcontroller without an operating
# system, a heap or a standard library. There is nothing to lock with, allocate from or make a system call to: what is
# not in the list of symbols that this prints cannot happen. Then looks for panics:
#   governor and supervisor   none: a panic would need a symbol that is nowhere, and the link would fail
#   wire                      the same, but for what the `crc` crate checks inside (printed)
#
#   rustup target add thumbv7em-none-eabihf
#   tests/core/bare.sh
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${CARGO_TARGET_DIR:-"$root/target"}/bare
target=thumbv7em-none-eabihf
mkdir -p "$out/src/bin"

cat > "$out/Cargo.toml" <<END
[package]
name = "bare"
version = "0.0.0"
edition = "2024"
[dependencies]
tendon-core-alone = { path = "$root/tests/core" }
[profile.release]
panic = "abort"
lto = "fat"
codegen-units = 1
[workspace]
END

# Arguments: name, imports, calls. Every value comes from memory that the compiler knows nothing of.
program() {
    cat > "$out/src/bin/$1.rs" <<END
#![no_std]
#![no_main]
use core::hint::black_box;
use tendon::core::units::Mono;
$2

unsafe extern "C" { fn a_panic_is_left() -> !; }
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { unsafe { a_panic_is_left() } }

fn at<T>() -> &'static mut T { unsafe { &mut *black_box(0x2000_0000 as *mut T) } }

#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let now = *at::<Mono>();
    $3
    loop {}
}
END
}
program decide 'use tendon::core::{governor::{Governor, Input, Output}, supervisor::{Decision, Facts, Supervisor}};' '
    *at::<Output>() = at::<Governor>().step(now, at::<Input<'"'static"'>>());
    *at::<Decision>() = at::<Supervisor>().step(now, at::<Facts>());'
program wire 'use tendon::core::wire::{Identity, command::{self, Command, CommandReceiver}, state::{self, Report, StateReceiver}};' '
    let (identity, frame) = (*at::<Identity>(), at::<[u8; 2048]>());
    black_box(command::encode(at::<Command>(), identity, frame));
    black_box(state::encode(at::<Report>(), identity, frame));
    let length = *at::<usize>();
    let taken = frame.get(..length).unwrap_or(&[]);
    black_box(at::<CommandReceiver>().accept(now, taken).is_ok());
    black_box(at::<StateReceiver>().accept(now, taken).is_ok());'

build() { cargo rustc --quiet --release --manifest-path "$out/Cargo.toml" --target "$target" --target-dir "$out/built" "$@"; }
symbols() { nm -C "$out/built/$target/release/$1" | grep -i ' [tw] [^$]' | cut -d' ' -f3-; }

build --bin decide || { echo "a panic is left in governor or supervisor" >&2; exit 1; }
build --bin wire -- -C link-arg=--defsym=a_panic_is_left=0
for name in decide wire; do
    echo "$name: undefined symbols: $(nm -u "$out/built/$target/release/$name" | wc -l), functions:"
    symbols "$name" | sort -u | sed 's/^/    /'
    # Ours, the float and integer arithmetic that this processor lacks, copies of memory, and exact mathematics.
    strange=$(symbols "$name" | grep -Ev '^(tendon::core|<tendon::core|compiler_builtins|libm|__aeabi_|__udivmoddi4|crc::|<?core::|__rustc::rust_begin_unwind|_start$|mem(cpy|move|set|cmp)$|fmin$|fmax$|fminf|fmaxf)' || true)
    [ -z "$strange" ] || { echo "$name calls something strange: $strange" >&2; exit 1; }
done
panics=$(symbols wire | grep -c 'core::panicking\|expect_failed' || true)
echo "panics left: decide 0, wire $panics (in crc)"
