// SPDX-License-Identifier: Apache-2.0
//! Supervisor, governor and the encoding of a command, tick by tick as the runtime calls them: the same bits as on every
//! other machine, not one allocation, not one system call. What they could call at all is shown by `tests/core/bare.sh`.

#[path = "core/src/trace.rs"]
mod trace;

use tendon::core::governor::limits::Coordination;
use tendon::runtime::realtime::{CountingAllocator, allocations_of_this_thread};
use trace::World;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TICKS: usize = 20_000;

fn worlds() -> [World; 2] {
    [
        World::new(1, Coordination::Independent),
        World::new(2, Coordination::Synchronised),
    ]
}

/// I28. The file was written on x86-64; `tests/core/golden.sh aarch64` compares aarch64 code with it.
#[test]
fn i28_the_same_bits_on_every_machine() {
    for (ours, golden) in trace::golden()
        .lines()
        .zip(include_str!("core/golden.txt").lines())
    {
        assert_eq!(
            ours, golden,
            "if the arithmetic was meant to change: tests/core/golden.sh write, and then aarch64"
        );
    }
    assert_eq!(trace::golden(), include_str!("core/golden.txt"));
}

/// I17: and of what was not allocated there is plenty: every mode, most causes, all ways to be limited but two.
#[test]
fn i17_no_allocation() {
    for mut world in worlds() {
        let before = allocations_of_this_thread();
        let mut sent = 0;
        for _ in 0..TICKS {
            sent += world.step().len();
        }
        assert_eq!(allocations_of_this_thread() - before, 0);
        assert!(sent > 100 * TICKS, "{sent} bytes");
        let counts = &world.counts;
        println!("0 allocations in {TICKS} ticks, {sent} bytes; {counts:?}");
        assert!(counts.passed > 1_000 && counts.shaped > 1_000 && counts.held > 1_000);
        assert!(
            counts.limits.count_ones() >= 5
                && counts.causes.count_ones() >= 10
                && counts.modes.count_ones() == 7,
            "{counts:?}"
        );
    }
    let before = allocations_of_this_thread();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations_of_this_thread() - before, 1, "the count counts");
}

#[cfg(target_os = "linux")]
mod sealed {
    use super::{TICKS, worlds};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// Tells the child, which is this program again, what to do once it is sealed.
    const ROLE: &str = "TENDON_SEALED";

    /// From here on any system call of this thread but `write` and `exit_group` ends the process with SIGSYS.
    fn seal() {
        let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        let line = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
        let mut lines = [
            line(load_number, 0, 0),
            line(equal, 2, libc::SYS_write as u32),
            line(equal, 1, libc::SYS_exit_group as u32),
            line(answer, 0, libc::SECCOMP_RET_KILL_PROCESS),
            line(answer, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: lines.len() as u16,
            filter: lines.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the filter during the call; both live until after it.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
    }

    fn exit(status: i32) -> ! {
        // SAFETY: takes no pointer and does not return.
        unsafe { libc::_exit(status) }
    }

    fn child(role: &str) -> ExitStatus {
        Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "sealed::i17_no_system_call"])
            .env(ROLE, role)
            .status()
            .expect("starts")
    }

    /// I17: the kernel itself would end the process at the first system call, also that of a lock that has to wait.
    #[test]
    fn i17_no_system_call() {
        let Ok(role) = std::env::var(ROLE) else {
            assert_eq!(child("steps").code(), Some(42), "all steps were made");
            let caught = child("asks for its number").signal();
            assert_eq!(caught, Some(libc::SIGSYS), "the seal seals");
            return;
        };
        let mut worlds = worlds();
        seal();
        if role != "steps" {
            let _ = std::process::id();
        }
        let mut sent = 0;
        for world in &mut worlds {
            for _ in 0..TICKS {
                sent += world.step().len();
            }
        }
        exit(if sent > 200 * TICKS { 42 } else { 43 });
    }
}
