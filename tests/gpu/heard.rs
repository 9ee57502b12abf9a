// SPDX-License-Identifier: Apache-2.0
//! Whether TensorRT's refusal reached us. NVIDIA's header says that an error goes to the log only if no recorder is set, so either of
//! the two may stay silent, but not both, and the fault must have the words. `tests/tensorrt` shows it over its fake.

/// `ILogger::Severity::kERROR`; less is worse.
const ERROR: i32 = 1;

/// By which way errors came.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// Through the recorder.
    pub recorded: usize,
    /// Through the logger.
    pub logged: usize,
}

/// How the errors came that `said`, the words of the fault, is about: of `all` that was told (severity and text) since the call began,
/// `recorded` errors came through the recorder.
///
/// # Errors
/// Neither way brought one, or the fault does not have its words.
pub fn the_error(all: &[(i32, String)], recorded: usize, said: &str) -> Result<Heard, String> {
    let errors = all
        .iter()
        .filter(|(severity, text)| *severity <= ERROR && !text.is_empty());
    let errors: Vec<&str> = errors.map(|(_, text)| text.as_str()).collect();
    let recorded = recorded.min(errors.len());
    let logged = errors.len() - recorded;
    if errors.is_empty() {
        return Err(format!(
            "neither the error recorder nor the logger was told of an error: {all:?}"
        ));
    }
    match errors.iter().find(|text| !said.contains(**text)) {
        Some(text) => Err(format!("\"{said}\" does not have the words \"{text}\"")),
        None => Ok(Heard { recorded, logged }),
    }
}
