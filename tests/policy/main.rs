// SPDX-License-Identifier: Apache-2.0
//! The policy bundle: the shipped one drives, a broken one is refused in words.

mod allocations;
mod broken;
mod drives;
mod fixture;

use tendon::runtime::realtime::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
