// SPDX-License-Identifier: Apache-2.0
//! What the hot path asks of the machine: a count of its own allocations, and a real-time priority.
//!
//! An `unsafe` room: the global allocator's contract and one system call that `rustix` does not have.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // `const` and without a destructor: reading it never allocates, not even the first time on a thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread has allocated (or grown an allocation) since it started. Counts only in a program
/// whose global allocator is [`CountingAllocator`]; elsewhere it stays 0.
#[must_use]
pub fn allocations_of_this_thread() -> u64 {
    ALLOCATIONS.get()
}

/// The system allocator with a count for each thread. The binary and the tests that prove "no allocation" install it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

// SAFETY: every method hands its arguments unchanged to `System`, which upholds the contract; the count touches only
// a plain thread-local cell, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
        // SAFETY: `pointer` came from `System` through this allocator, `layout` and `new_size` are the caller's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` through this allocator with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Asks for `SCHED_FIFO` at `priority` for the calling thread and reads back what the kernel says. `true` only if it
/// was granted. Threads started by this one later do not inherit it (`SCHED_RESET_ON_FORK`).
#[must_use]
pub fn request_fifo(priority: i32) -> bool {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `parameter` outlives the call, which reads it and keeps no pointer; thread 0 means the calling thread;
    // a refusal is a return value.
    let rc = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameter)
    };
    // SAFETY: takes no pointer; thread 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    rc == 0 && policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_sees_what_the_allocator_is_asked() {
        let before = allocations_of_this_thread();
        let layout = Layout::array::<u64>(4).expect("a small layout");
        // SAFETY: the layout has a size above zero; the pointer is grown and freed with the layouts it has.
        unsafe {
            let pointer = CountingAllocator.alloc(layout);
            let pointer = CountingAllocator.realloc(pointer, layout, 64);
            CountingAllocator.dealloc(pointer, Layout::array::<u64>(8).expect("a small layout"));
            let zeroed = CountingAllocator.alloc_zeroed(layout);
            CountingAllocator.dealloc(zeroed, layout);
        }
        assert_eq!(allocations_of_this_thread() - before, 3);
    }

    #[test]
    fn a_priority_is_granted_or_refused_and_never_claimed() {
        let granted = std::thread::spawn(|| request_fifo(10)).join();
        let absurd = std::thread::spawn(|| request_fifo(1_000)).join();
        assert!(granted.is_ok());
        assert_eq!(absurd.ok(), Some(false));
    }
}
