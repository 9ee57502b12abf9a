// SPDX-License-Identifier: Apache-2.0
//! What the hot path asks of the machine: a count of its own allocations, a real-time priority, cores of its own,
//! memory that stays. Whether it was granted is what the kernel says when asked again, never what a call returned.
//!
//! An `unsafe` room: the global allocator's contract and system calls that `rustix`, as it is built here, does not have.
#![allow(unsafe_code)] // See above.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
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

/// How the kernel schedules the calling thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduled {
    /// `SCHED_FIFO` priority; 0 for a normal thread.
    pub fifo: i32,
    /// Cores it may run on, ascending.
    pub cores: Vec<usize>,
}

/// Asks for `SCHED_FIFO` at `fifo` (0: leaves the policy alone) and for `cores` (empty: leaves them alone) for the
/// calling thread, touches the stack of a real-time thread so that no page of it is missing later, and reads back what the
/// kernel says. Threads started by this one later do not inherit the priority (`SCHED_RESET_ON_FORK`).
#[must_use]
pub fn take_seat(fifo: i32, cores: &[usize]) -> Scheduled {
    if !cores.is_empty() {
        let mut set = CpuSet::new();
        cores
            .iter()
            .filter(|core| **core < CpuSet::MAX_CPU)
            .for_each(|core| set.set(*core));
        // A refusal shows in what is read back.
        let _ = sched_setaffinity(None, &set);
    }
    if fifo > 0 {
        let parameter = libc::sched_param {
            sched_priority: fifo,
        };
        // SAFETY: `parameter` outlives the call, which reads it and keeps no pointer; thread 0 means the calling
        // thread; a refusal is a return value, and shows in what is read back.
        unsafe {
            libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameter);
        }
        touch_stack();
    }
    scheduled()
}

/// Does `start` on the cores that the program's first thread may use, and comes back to the calling thread's own: what a
/// thread with a core of its own starts inherits that core, a process and all its threads as well.
pub fn unpinned<T>(start: impl FnOnce() -> T) -> T {
    let own = sched_getaffinity(None);
    if let Ok(all) = sched_getaffinity(Some(rustix::process::getpid())) {
        // A refusal leaves things as they were.
        let _ = sched_setaffinity(None, &all);
    }
    let started = start();
    if let Ok(own) = own {
        let _ = sched_setaffinity(None, &own);
    }
    started
}

/// What the kernel says of the calling thread.
fn scheduled() -> Scheduled {
    // SAFETY: takes no pointer; thread 0 means the calling thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameter` is a valid place for the kernel to write to for the length of the call.
    let rc = unsafe { libc::sched_getparam(0, &mut parameter) };
    let is_fifo = rc == 0 && policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO;
    let cores = sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        },
    );
    Scheduled {
        fifo: if is_fifo { parameter.sched_priority } else { 0 },
        cores,
    }
}

/// Stack of a real-time thread that is there before its loop begins: what the deepest call of any of them needs, with
/// room.
const STACK_BYTES: usize = 256 * 1024;

/// Writes one byte of each page. Not inlined, so that the frame is given back.
#[inline(never)]
fn touch_stack() {
    const PAGE_BYTES: usize = 4096;
    let mut stack = [0_u8; STACK_BYTES];
    for page in stack.chunks_mut(PAGE_BYTES) {
        if let Some(byte) = page.first_mut() {
            *byte = std::hint::black_box(1);
        }
    }
    std::hint::black_box(&stack);
}

/// What the kernel says of this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLock {
    /// `VmLck`: address space that is locked.
    pub locked_kib: u64,
    /// Soft limit of what may be locked, in bytes; `u64::MAX` for none.
    pub limit_bytes: u64,
    /// Whether the process may lock past its limit (`CAP_IPC_LOCK`).
    pub privileged: bool,
}

/// Locks this process's memory, what it has and what it will get, page by page as it is touched (`MCL_ONFAULT`): call
/// it after engines have loaded. Not even asked for under a limit: the kernel would grant it today and refuse an
/// allocation tomorrow, which ends the program.
#[must_use]
pub fn lock_memory() -> MemoryLock {
    let before = memory_lock();
    if before.privileged || before.limit_bytes == u64::MAX {
        // SAFETY: takes flags only; changes no memory's content or address. A refusal shows in what is read back.
        unsafe {
            libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT);
        }
    }
    memory_lock()
}

/// Bit of `CAP_IPC_LOCK` in `CapEff` of /proc/self/status.
const CAP_IPC_LOCK: u64 = 1 << 14;

fn memory_lock() -> MemoryLock {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
    };
    let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    MemoryLock {
        locked_kib: field("VmLck:")
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0),
        limit_bytes: limit(libc::RLIMIT_MEMLOCK),
        privileged: capabilities.is_some_and(|bits| bits & CAP_IPC_LOCK != 0),
    }
}

/// Highest `SCHED_FIFO` priority that the limits of this process grant to one without privileges.
#[must_use]
pub fn priority_limit() -> u64 {
    limit(libc::RLIMIT_RTPRIO)
}

/// Asks a hardware watchdog for a timeout in seconds and returns what its driver made of it.
///
/// # Errors
/// What the driver says; a file that is no watchdog says that it is none.
pub fn watchdog_timeout(device: &std::fs::File, seconds: u32) -> std::io::Result<u32> {
    use std::os::fd::AsRawFd;
    /// `WDIOC_SETTIMEOUT` of linux/watchdog.h: `_IOWR('W', 6, int)`.
    const SET_TIMEOUT: libc::Ioctl = 0xC004_5706_u32 as libc::Ioctl;
    let mut timeout = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the request reads and writes one int, for which `timeout` is a valid place as long as the call lasts.
    let rc = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &mut timeout) };
    match rc {
        0 => Ok(timeout.unsigned_abs()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the kernel to write to for the length of the call.
    let rc = unsafe { libc::getrlimit(resource, &mut limit) };
    if rc == 0 { limit.rlim_cur } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pinned_thread_starts_is_not_pinned() {
        let cores = || {
            let status = std::process::Command::new("grep")
                .args(["Cpus_allowed_list", "/proc/self/status"])
                .output()
                .expect("a process");
            String::from_utf8(status.stdout).expect("text")
        };
        let all = cores();
        std::thread::spawn(move || {
            let own = take_seat(0, &[0]).cores;
            assert_eq!(own, [0]);
            assert_eq!(unpinned(cores), all);
            assert_eq!(scheduled().cores, own, "the thread is back on its own");
        })
        .join()
        .expect("no panic");
    }

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
    fn cores_are_read_back() {
        let all = take_seat(0, &[]).cores;
        let first = *all.first().expect("a core to run on");
        let seat = |cores: Vec<usize>| {
            std::thread::spawn(move || take_seat(0, &cores).cores)
                .join()
                .expect("no panic")
        };
        assert_eq!(seat(vec![first]), [first]);
        // No machine has it: nothing changes, and what is read back says so.
        assert_eq!(seat(vec![CpuSet::MAX_CPU - 1]), all);
    }

    #[test]
    fn a_priority_is_granted_or_refused_and_never_claimed() {
        let seat = |fifo| {
            std::thread::spawn(move || take_seat(fifo, &[]))
                .join()
                .expect("no panic")
        };
        assert!([0, 10].contains(&seat(10).fifo));
        assert_eq!(seat(1_000).fifo, 0);
        let child = std::thread::spawn(|| {
            let _ = take_seat(10, &[]);
            std::thread::spawn(|| take_seat(0, &[])).join()
        });
        let child = child.join().expect("no panic").expect("no panic");
        assert_eq!(
            child.fifo, 0,
            "a real-time thread's child is a normal thread"
        );
    }
}
