// SPDX-License-Identifier: Apache-2.0
//! What TensorRT calls: logger, error recorder and profiler of ours, laid out as a C++ compiler would, and what they
//! were told.
#![allow(unsafe_code)] // C++ calls back through tables of ours.

use super::{Layout, Method};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Messages that are kept; the newest.
const MESSAGES_MAX: usize = 32;
/// Bytes of a message that are kept.
const MESSAGE_LEN_MAX: usize = 600;

/// `nvinfer1::InterfaceInfo`.
#[repr(C)]
struct InterfaceInfo {
    kind: *const c_char,
    major: i32,
    minor: i32,
}

/// One message.
#[derive(Debug)]
struct Line {
    severity: i32,
    text: String,
    /// [`Messages::remarks`] had it.
    told: bool,
}

/// What TensorRT said: shared with its threads.
#[derive(Debug, Default)]
pub struct Messages {
    lines: Mutex<Vec<Line>>,
    /// Errors that came by way of the recorder.
    recorded: AtomicUsize,
}

impl Messages {
    fn push(&self, severity: i32, text: *const c_char) {
        if text.is_null() {
            return;
        }
        // SAFETY: TensorRT gives a string with an end that lives for the length of the callback.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let text: String = text.chars().take(MESSAGE_LEN_MAX).collect();
        let mut lines = self.hold();
        if lines.len() == MESSAGES_MAX {
            // A start says a dozen things for information, and none of them may cost a warning.
            let informs = |line: &Line| line.severity >= SEVERITY_INFO;
            let oldest = lines.iter().position(informs).unwrap_or(0);
            lines.remove(oldest);
        }
        lines.push(Line {
            severity,
            text,
            told: false,
        });
    }

    fn hold(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Errors so far, in one line; empty if there were none.
    #[must_use]
    pub fn errors(&self) -> String {
        let lines = self.hold();
        let errors = lines.iter().filter(|line| line.severity <= SEVERITY_ERROR);
        let errors: Vec<&str> = errors.map(|line| line.text.as_str()).collect();
        errors.join("; ")
    }

    /// Warnings and errors, in words, that were not asked for before: each text once, whichever way it came. A call that succeeds says
    /// such things too.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut lines = self.hold();
        let told = lines.iter().filter(|line| line.told);
        let mut known: Vec<String> = told.map(|line| line.text.clone()).collect();
        let mut remarks = Vec::new();
        let grave = |line: &&mut Line| !line.told && line.severity <= SEVERITY_WARNING;
        for line in lines.iter_mut().filter(grave) {
            line.told = true;
            if !known.contains(&line.text) {
                known.push(line.text.clone());
                let kind = match line.severity {
                    ..=SEVERITY_ERROR => "error",
                    _ => "warning",
                };
                remarks.push(format!("{kind}: {}", line.text));
            }
        }
        remarks
    }

    /// Everything that is kept: severity (0 internal error, 1 error, 2 warning, 3 information) and text.
    #[must_use]
    pub fn all(&self) -> Vec<(i32, String)> {
        let lines = self.hold();
        let each = lines.iter().map(|line| (line.severity, line.text.clone()));
        each.collect()
    }

    /// Errors that came by way of the recorder; the others were logged.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.recorded.load(Ordering::Acquire)
    }

    /// Forgets what was said, so that errors that follow can be told from those before. A remark that nobody was told yet stays, as a
    /// warning: what it was about went well.
    pub fn clear(&self) {
        self.recorded.store(0, Ordering::Release);
        let mut lines = self.hold();
        lines.retain(|line| !line.told && line.severity <= SEVERITY_WARNING);
        for line in &mut *lines {
            line.severity = SEVERITY_WARNING;
        }
    }
}

/// `ILogger::Severity::kERROR`; less is worse.
const SEVERITY_ERROR: i32 = 1;
/// `ILogger::Severity::kWARNING`.
const SEVERITY_WARNING: i32 = 2;
/// `ILogger::Severity::kINFO`; verbose lines are thousands and are left out.
const SEVERITY_INFO: i32 = 3;

/// A table as a C++ compiler lays it out: offset to the top of the object and type information stand before it.
#[repr(C)]
struct Table<const N: usize> {
    top: isize,
    type_information: *const c_void,
    methods: [Method; N],
}

// SAFETY: a table holds addresses of functions and is never written.
unsafe impl<const N: usize> Sync for Table<N> {}

/// An object of ours that TensorRT calls. The table first, as C++ has it.
#[repr(C)]
pub(super) struct Callback {
    table: *const Method,
    messages: *const Messages,
    references: AtomicI32,
}

extern "C" fn destroy(_: *mut Callback) {
    // TensorRT does not own what it is lent; ours are freed by us.
}

extern "C" fn language(_: *const Callback) -> i32 {
    // APILanguage::kCPP.
    0
}

extern "C" fn log_line(this: *const Callback, severity: i32, text: *const c_char) {
    if severity > SEVERITY_INFO {
        return;
    }
    // SAFETY: `this` is the callback that `Callbacks::new` made; its messages live as long as the session, which ends
    // after every object that could call.
    unsafe { (*(*this).messages).push(severity, text) }
}

extern "C" fn layer_time(this: *const Callback, name: *const c_char, ms: f32) {
    if name.is_null() {
        return;
    }
    // SAFETY: as for `log_line`; the name has an end and lives for the length of the call.
    let (name, messages) = unsafe { (CStr::from_ptr(name).to_string_lossy(), &*(*this).messages) };
    // Of every layer, however many there are.
    messages.hold().push(Line {
        severity: SEVERITY_INFO,
        text: format!("{ms:.4} {name}"),
        told: false,
    });
}

extern "C" fn logger_info(_: *const Callback) -> InterfaceInfo {
    InterfaceInfo {
        kind: c"ILogger".as_ptr(),
        major: 1,
        minor: 0,
    }
}

extern "C" fn profiler_info(_: *const Callback) -> InterfaceInfo {
    InterfaceInfo {
        kind: c"IProfiler".as_ptr(),
        major: 1,
        minor: 0,
    }
}

extern "C" fn recorder_info(_: *const Callback) -> InterfaceInfo {
    InterfaceInfo {
        kind: c"IErrorRecorder".as_ptr(),
        major: 1,
        minor: 0,
    }
}

extern "C" fn errors_len(_: *const Callback) -> i32 {
    // Nothing is kept for TensorRT to read back; it is kept for us.
    0
}

extern "C" fn error_code(_: *const Callback, _: i32) -> i32 {
    0
}

extern "C" fn error_text(_: *const Callback, _: i32) -> *const c_char {
    c"".as_ptr()
}

extern "C" fn overflowed(_: *const Callback) -> bool {
    false
}

extern "C" fn clear(_: *mut Callback) {}

extern "C" fn report(this: *mut Callback, code: i32, text: *const c_char) -> bool {
    // SAFETY: as for `log_line`.
    let messages = unsafe { &*(*this).messages };
    messages.push(SEVERITY_ERROR, text);
    messages.recorded.fetch_add(1, Ordering::AcqRel);
    // ErrorCode::kINTERNAL_ERROR and beyond: nothing after it can be trusted.
    code != 0
}

extern "C" fn refer(this: *mut Callback) -> i32 {
    // SAFETY: as for `log_line`; the counter is atomic because TensorRT counts from its threads.
    unsafe { (*this).references.fetch_add(1, Ordering::AcqRel) + 1 }
}

extern "C" fn unrefer(this: *mut Callback) -> i32 {
    // SAFETY: as for `refer`.
    unsafe { (*this).references.fetch_sub(1, Ordering::AcqRel) - 1 }
}

macro_rules! table {
    ($($method:expr),* $(,)?) => {
        Table { top: 0, type_information: std::ptr::null(), methods: [$($method as Method),*] }
    };
}

static LOGGER_TEN: Table<3> = table![log_line, destroy, destroy];
static LOGGER_ELEVEN: Table<5> = table![language, logger_info, destroy, destroy, log_line];
static PROFILER_TEN: Table<3> = table![layer_time, destroy, destroy];
static PROFILER_ELEVEN: Table<5> = table![language, profiler_info, destroy, destroy, layer_time];
static RECORDER: Table<12> = table![
    language,
    recorder_info,
    destroy,
    destroy,
    errors_len,
    error_code,
    error_text,
    overflowed,
    clear,
    report,
    refer,
    unrefer
];

/// What TensorRT is lent to speak to: boxed, so that its address stays.
pub(super) struct Callbacks {
    pub(super) messages: Arc<Messages>,
    pub(super) times: Arc<Messages>,
    pub(super) logger: Box<Callback>,
    pub(super) recorder: Box<Callback>,
    pub(super) profiler: Box<Callback>,
}

impl Callbacks {
    pub(super) fn new(layout: Layout) -> Callbacks {
        let (messages, times) = (Arc::new(Messages::default()), Arc::new(Messages::default()));
        let callback = |table: *const Method, messages: &Arc<Messages>| {
            Box::new(Callback {
                table,
                messages: Arc::as_ptr(messages),
                references: AtomicI32::new(0),
            })
        };
        let (logger, profiler) = match layout {
            Layout::Ten => (LOGGER_TEN.methods.as_ptr(), PROFILER_TEN.methods.as_ptr()),
            Layout::Eleven => (
                LOGGER_ELEVEN.methods.as_ptr(),
                PROFILER_ELEVEN.methods.as_ptr(),
            ),
        };
        Callbacks {
            logger: callback(logger, &messages),
            recorder: callback(RECORDER.methods.as_ptr(), &messages),
            profiler: callback(profiler, &times),
            messages,
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_told_once_and_outlives_information() {
        let messages = Messages::default();
        messages.push(SEVERITY_WARNING, c"another device".as_ptr());
        for _ in 0..2 * MESSAGES_MAX {
            messages.push(SEVERITY_INFO, c"for information".as_ptr());
        }
        // By the recorder and by the log.
        messages.push(SEVERITY_ERROR, c"went on".as_ptr());
        messages.push(SEVERITY_ERROR, c"went on".as_ptr());
        assert_eq!(messages.all().len(), MESSAGES_MAX);
        let both = ["warning: another device", "error: went on"];
        assert_eq!(messages.remarks(), both);
        messages.push(SEVERITY_ERROR, c"went on".as_ptr());
        assert_eq!(messages.remarks(), [""; 0]);
        assert_eq!(messages.errors(), "went on; went on; went on");
        // Only remarks: the newest.
        for _ in 0..MESSAGES_MAX {
            messages.push(SEVERITY_WARNING, c"again".as_ptr());
        }
        assert_eq!(messages.remarks(), ["warning: again"]);
    }

    #[test]
    fn what_was_said_before_a_call_is_no_error_of_it_and_is_told_all_the_same() {
        let messages = Messages::default();
        messages.push(SEVERITY_WARNING, c"told".as_ptr());
        assert_eq!(messages.remarks(), ["warning: told"]);
        messages.push(SEVERITY_ERROR, c"before".as_ptr());
        messages.push(SEVERITY_INFO, c"for information".as_ptr());
        messages.clear();
        assert_eq!(messages.errors(), "");
        messages.push(SEVERITY_ERROR, c"of it".as_ptr());
        assert_eq!(messages.errors(), "of it");
        assert_eq!(messages.remarks(), ["warning: before", "error: of it"]);
    }
}
