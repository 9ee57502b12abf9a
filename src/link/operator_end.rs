// SPDX-License-Identifier: Apache-2.0
//! A person's end of the link: ask and be told.

use super::session::{ANSWER_TIMEOUT, LinkError};
use zenoh::{Session, Wait};

/// Sends `text` to whoever answers under `key` and returns the answer.
///
/// # Errors
/// [`LinkError::NoAnswer`] if nobody does, [`LinkError::Refused`] with the words of a refusal.
pub fn ask(session: &Session, key: &str, text: &str) -> Result<String, LinkError> {
    let none = || LinkError::NoAnswer {
        key: key.to_owned(),
    };
    let replies = session
        .get(key)
        .payload(text)
        .timeout(ANSWER_TIMEOUT)
        .wait()
        .map_err(|_| none())?;
    let Ok(Some(reply)) = replies.recv_timeout(ANSWER_TIMEOUT) else {
        return Err(none());
    };
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply.result() {
        Ok(sample) => Ok(words(&sample.payload().to_bytes())),
        Err(error) => Err(LinkError::Refused(words(&error.payload().to_bytes()))),
    }
}
