// SPDX-License-Identifier: Apache-2.0
//! Compute threads of a session, made by us: they take the priority and the processors of whoever runs the session. Left as
//! ONNX Runtime makes them, they would keep those of start-up, and a real-time thread would wait for threads that are not.
#![allow(unsafe_code)] // Called from C++, and a system call.

use ort_sys::{OrtCustomThreadHandle, OrtThreadWorkerFn};
use std::ffi::c_void;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, ThreadId};

/// The threads of one session. Lives longer than the session.
#[derive(Debug, Default)]
pub(super) struct Crew {
    /// Their numbers, as the kernel has them, and whom they follow. Locked by the one that runs the session alone.
    threads: Mutex<(Vec<libc::pid_t>, Option<ThreadId>)>,
}

/// What crosses to the new thread: a function of ONNX Runtime and what it is to be given.
struct Work(OrtThreadWorkerFn, *mut c_void);

// SAFETY: ONNX Runtime gives both to be used on another thread (onnxruntime_c_api.h, OrtCustomCreateThreadFn).
unsafe impl Send for Work {}

impl Work {
    fn run(self) {
        let Work(work, with) = self;
        // SAFETY: once, on a thread of its own, as asked for.
        unsafe { work(with) };
    }
}

/// ONNX Runtime asks for a thread. Null, which it refuses in words, if there is none to be had.
///
/// # Safety
/// `crew` is the [`Crew`] that was given with this function; `work` may be called once, with `with`.
pub(super) unsafe extern "C" fn create(
    crew: *mut c_void,
    work: OrtThreadWorkerFn,
    with: *mut c_void,
) -> OrtCustomThreadHandle {
    // SAFETY: the promise above.
    let Some(crew) = (unsafe { crew.cast::<Crew>().as_ref() }) else {
        return std::ptr::null();
    };
    let work = Work(work, with);
    let (tell, told) = mpsc::sync_channel(1);
    let made = Builder::new().name("tendon-ort".into()).spawn(move || {
        // SAFETY: takes nothing and cannot fail.
        let _ = tell.send(unsafe { libc::gettid() });
        work.run();
    });
    match (made, told.recv()) {
        (Ok(thread), Ok(number)) => {
            let mut threads = crew.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.0.push(number);
            Box::into_raw(Box::new(thread)).cast_const().cast()
        }
        _ => std::ptr::null(),
    }
}

/// ONNX Runtime gives a thread back, whose work is over or about to be.
///
/// # Safety
/// `thread` was given by [`create`] and is given back once.
pub(super) unsafe extern "C" fn join(thread: OrtCustomThreadHandle) {
    // SAFETY: the promise above.
    let thread = unsafe { Box::from_raw(thread.cast_mut().cast::<JoinHandle<()>>()) };
    drop(thread.join());
}

impl Crew {
    /// Gives all threads the caller's policy, priority and processors, if it is another caller than before. What the
    /// system refuses is told; they then compute as they are.
    pub(super) fn follow(&self) {
        let caller = std::thread::current().id();
        let mut crew = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let (threads, followed) = &mut *crew;
        if threads.is_empty() || *followed == Some(caller) {
            return;
        }
        *followed = Some(caller);
        let mut priority = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread; writes one struct.
        let policy = unsafe {
            libc::sched_getparam(0, &mut priority);
            libc::sched_getscheduler(0)
        };
        let processors = rustix::thread::sched_getaffinity(None);
        for thread in &*threads {
            // SAFETY: the number of a thread that lives as long as the session; reads one struct.
            if policy >= 0 && unsafe { libc::sched_setscheduler(*thread, policy, &priority) } != 0 {
                let error = std::io::Error::last_os_error();
                log::warn!("ONNX Runtime's thread {thread} keeps its own priority: {error}");
            }
            let moved = match (&processors, rustix::thread::Pid::from_raw(*thread)) {
                (Ok(processors), Some(thread)) => {
                    rustix::thread::sched_setaffinity(Some(thread), processors)
                }
                (Err(error), _) => Err(*error),
                (_, None) => Ok(()),
            };
            if let Err(error) = moved {
                log::warn!("ONNX Runtime's thread {thread} keeps its own processors: {error}");
            }
        }
    }
}
