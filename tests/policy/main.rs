// SPDX-License-Identifier: Apache-2.0
//! The policy bundle: the shipped one drives, a broken one is refused in words.

mod allocations;
mod broken_files;
mod broken_folder;
mod broken_manifest;
mod broken_staged;
mod decode;
mod deployed;
mod drives;
mod families;
mod feed;
mod fixture;
mod import_physicalai;
mod import_statistics;
mod intents;
mod lerobot;
mod on_bench;
mod on_device;
mod recording;
mod refusal;
mod rtc;
mod steers;
mod triggers;
mod unsure;
mod weights;

use tendon::runtime::realtime::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
