// SPDX-License-Identifier: Apache-2.0
//! Prints what golden.txt holds, on whatever machine this is.

#[path = "../trace.rs"]
mod trace;

fn main() {
    print!("{}", trace::golden());
}
