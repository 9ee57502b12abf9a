// SPDX-License-Identifier: Apache-2.0
//! What was told of a camera last. One that stays away is looked for every second: each new reason is told once, so that the
//! log says why and is not filled.

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Said(String);

impl Said {
    /// Whether `what` is to be told: it is not what was told last.
    pub fn news(&mut self, what: &str) -> bool {
        let new = self.0 != what;
        if new {
            what.clone_into(&mut self.0);
        }
        new
    }

    /// Pictures come. What goes wrong next is told, even if it is the same again. Allocates nothing.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_reason_once_and_the_same_again_after_pictures_came() {
        let mut said = Said::default();
        let told = ["gone", "gone", "busy", "busy", "gone"].map(|what| said.news(what));
        assert_eq!(told, [true, false, true, false, true]);
        said.forget();
        assert!(said.news("gone"));
        assert!(!said.news("gone"));
    }
}
