// SPDX-License-Identifier: Apache-2.0
//! What TensorRT calls: logger, error recorder and profiler of ours, laid out as a C++ compiler would, and what they
//! were told.
//!
//! Recorder and profiler are a session's. The logger is the process's, because TensorRT has one only: it keeps the first that it is
//! given for as long as any object of its lives, whoever made that. So a line is heard by the session whose call it came from
//! (`Hearing`), or, on a thread of TensorRT's own, by the one that is being loaded (`Loading`).
#![allow(unsafe_code)] // C++ calls back through tables of ours.

use super::{Layout, Method};
use std::cell::RefCell;
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
    /// [`Messages::remarks`] had it, or [`Messages::errors`].
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
    fn push(&self, severity: i32, text: &CStr) {
        let text = text.to_string_lossy();
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

    /// Errors so far, in one line; empty if there were none. They are told then, and are no remark any more.
    #[must_use]
    pub fn errors(&self) -> String {
        let mut lines = self.hold();
        let mut errors = Vec::new();
        for line in lines
            .iter_mut()
            .filter(|line| line.severity <= SEVERITY_ERROR)
        {
            line.told = true;
            errors.push(line.text.as_str());
        }
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

thread_local! {
    /// Who hears what TensorRT logs on this thread.
    static HEARS: RefCell<Option<Arc<Messages>>> = const { RefCell::new(None) };
}

/// Loads take turns: who holds it is the only one.
static TURN: Mutex<()> = Mutex::new(());
/// Who hears what TensorRT logs on threads of its own: the session that is being loaded.
static LOADED: Mutex<Option<Arc<Messages>>> = Mutex::new(None);

fn loaded() -> MutexGuard<'static, Option<Arc<Messages>>> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, what TensorRT logs on this thread is said to these messages.
pub(super) struct Hearing {
    before: Option<Arc<Messages>>,
}

impl Hearing {
    pub(super) fn of(messages: &Arc<Messages>) -> Hearing {
        let new = Some(Arc::clone(messages));
        let before = HEARS.try_with(|hears| hears.replace(new));
        Hearing {
            before: before.ok().flatten(),
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that ends hears nothing any more.
        drop(HEARS.try_with(|hears| hears.replace(before)));
    }
}

/// The same of a load, which no other load runs beside: what TensorRT logs meanwhile on threads of its own is this one's too.
pub(super) struct Loading {
    _hearing: Hearing,
    _turn: MutexGuard<'static, ()>,
}

impl Loading {
    pub(super) fn of(messages: &Arc<Messages>) -> Loading {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded() = Some(Arc::clone(messages));
        Loading {
            _hearing: Hearing::of(messages),
            _turn: turn,
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        *loaded() = None;
    }
}

/// A line of the logger's, to who hears it; of one that is nobody's, what is grave is told at once.
fn hear(severity: i32, text: &CStr) {
    let here = HEARS.try_with(|hears| hears.borrow().clone());
    let heard_by = here.ok().flatten().or_else(|| loaded().clone());
    match heard_by {
        Some(messages) => messages.push(severity, text),
        None if severity <= SEVERITY_WARNING => {
            log::warn!("TensorRT: {}", text.to_string_lossy());
        }
        None => {}
    }
}

/// A table as a C++ compiler lays it out: offset to the top of the object and type information stand before it.
#[repr(C)]
struct Table<const N: usize> {
    top: isize,
    type_information: *const c_void,
    methods: [Method; N],
}

// SAFETY: a table holds addresses of functions and is never written.
unsafe impl<const N: usize> Sync for Table<N> {}

/// The process's logger: an object of nothing but its table.
#[repr(C)]
pub(super) struct Logger {
    table: *const Method,
}

// SAFETY: it holds the address of a table that is never written, as it is itself.
unsafe impl Sync for Logger {}

impl Logger {
    /// The one of a layout, for TensorRT, which calls it and writes nothing. It is never freed.
    pub(super) fn of(layout: Layout) -> *mut c_void {
        let logger: &'static Logger = match layout {
            Layout::Ten => &TEN,
            Layout::Eleven => &ELEVEN,
        };
        std::ptr::from_ref(logger).cast_mut().cast()
    }
}

/// An object of a session's that TensorRT calls. The table first, as C++ has it.
#[repr(C)]
pub(super) struct Callback {
    table: *const Method,
    messages: *const Messages,
    references: AtomicI32,
}

extern "C" fn destroy(_: *mut c_void) {
    // TensorRT does not own what it is lent.
}

extern "C" fn language(_: *const c_void) -> i32 {
    // APILanguage::kCPP.
    0
}

extern "C" fn log_line(_: *const Logger, severity: i32, text: *const c_char) {
    if severity > SEVERITY_INFO || text.is_null() {
        return;
    }
    // SAFETY: TensorRT gives a string with an end that lives for the length of the callback.
    hear(severity, unsafe { CStr::from_ptr(text) });
}

extern "C" fn layer_time(this: *const Callback, name: *const c_char, ms: f32) {
    if name.is_null() {
        return;
    }
    // SAFETY: `this` is a profiler that `Callbacks::new` made. It is lent to a context of one session, which deletes the context
    // before it lets go of its callbacks and of the messages that they point to. The name has an end and lives for the length of
    // the call.
    let (name, messages) = unsafe { (CStr::from_ptr(name).to_string_lossy(), &*(*this).messages) };
    // Of every layer, however many there are.
    messages.hold().push(Line {
        severity: SEVERITY_INFO,
        text: format!("{ms:.4} {name}"),
        told: false,
    });
}

extern "C" fn logger_info(_: *const Logger) -> InterfaceInfo {
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
    // SAFETY: as for `layer_time`, of a recorder, which is lent to a runtime and a context of one session: both are deleted before.
    let messages = unsafe { &*(*this).messages };
    if !text.is_null() {
        // SAFETY: as for `log_line`.
        messages.push(SEVERITY_ERROR, unsafe { CStr::from_ptr(text) });
    }
    messages.recorded.fetch_add(1, Ordering::AcqRel);
    // ErrorCode::kINTERNAL_ERROR and beyond: nothing after it can be trusted.
    code != 0
}

extern "C" fn refer(this: *mut Callback) -> i32 {
    // SAFETY: as for `report`; the counter is atomic because TensorRT counts from its threads.
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
static TEN: Logger = Logger {
    table: LOGGER_TEN.methods.as_ptr(),
};
static ELEVEN: Logger = Logger {
    table: LOGGER_ELEVEN.methods.as_ptr(),
};
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

/// What a session lends TensorRT to speak to: boxed, so that its address stays.
pub(super) struct Callbacks {
    pub(super) messages: Arc<Messages>,
    pub(super) times: Arc<Messages>,
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
        let profiler = match layout {
            Layout::Ten => PROFILER_TEN.methods.as_ptr(),
            Layout::Eleven => PROFILER_ELEVEN.methods.as_ptr(),
        };
        Callbacks {
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
        messages.push(SEVERITY_WARNING, c"another device");
        for _ in 0..2 * MESSAGES_MAX {
            messages.push(SEVERITY_INFO, c"for information");
        }
        // By the recorder and by the log.
        messages.push(SEVERITY_ERROR, c"went on");
        messages.push(SEVERITY_ERROR, c"went on");
        assert_eq!(messages.all().len(), MESSAGES_MAX);
        let both = ["warning: another device", "error: went on"];
        assert_eq!(messages.remarks(), both);
        messages.push(SEVERITY_ERROR, c"went on");
        assert_eq!(messages.remarks(), [""; 0]);
        assert_eq!(messages.errors(), "went on; went on; went on");
        // Only remarks: the newest.
        for _ in 0..MESSAGES_MAX {
            messages.push(SEVERITY_WARNING, c"again");
        }
        assert_eq!(messages.remarks(), ["warning: again"]);
    }

    #[test]
    fn a_line_is_heard_where_it_came_from_or_by_who_is_loaded() {
        let [one, other] = [(); 2].map(|()| Arc::new(Messages::default()));
        let elsewhere = |text: &'static CStr| {
            let said = std::thread::spawn(move || hear(SEVERITY_WARNING, text));
            said.join().expect("no panic");
        };
        {
            let _loading = Loading::of(&one);
            hear(SEVERITY_WARNING, c"here");
            elsewhere(c"on a thread of its own");
            // A call of another session's on this thread: its lines are its own, and so are not those that follow.
            let hearing = Hearing::of(&other);
            hear(SEVERITY_WARNING, c"another's");
            drop(hearing);
            hear(SEVERITY_WARNING, c"here again");
        }
        // Nobody's.
        elsewhere(c"late");
        hear(SEVERITY_WARNING, c"late");
        let texts = |messages: &Messages| -> Vec<String> {
            messages.all().into_iter().map(|(_, text)| text).collect()
        };
        let heard = ["here", "on a thread of its own", "here again"];
        assert_eq!(texts(&one), heard);
        assert_eq!(texts(&other), ["another's"]);
    }

    #[test]
    fn what_was_said_before_a_call_is_no_error_of_it_and_is_told_all_the_same() {
        let messages = Messages::default();
        messages.push(SEVERITY_WARNING, c"told");
        assert_eq!(messages.remarks(), ["warning: told"]);
        messages.push(SEVERITY_ERROR, c"before");
        messages.push(SEVERITY_INFO, c"for information");
        messages.clear();
        assert_eq!(messages.errors(), "");
        messages.push(SEVERITY_ERROR, c"of it");
        assert_eq!(messages.errors(), "of it");
        assert_eq!(messages.remarks(), ["warning: before"], "the error is told");
    }
}
