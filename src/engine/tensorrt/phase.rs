// SPDX-License-Identifier: Apache-2.0
//! How far a builder is, by what `trtexec` says. It tells no percentage, and a phase may take any share of the time.

/// In the order in which they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has said nothing of the graph.
    #[default]
    Starting,
    /// The ONNX file is read.
    Reading,
    /// Layers are joined.
    Joining,
    /// Kernels are tried against each other; most of the time.
    Timing,
    /// Memory is laid out.
    LayingOut,
    /// The plan is written.
    Writing,
}

/// What a line of `trtexec` 10 and 11 has in it when a phase begins.
const BEGINS: [(&str, Phase); 6] = [
    ("Start parsing network model", Phase::Reading),
    ("Finished parsing network model", Phase::Joining),
    ("timing cache in use", Phase::Timing),
    (
        "Compiler backend is used during engine build",
        Phase::Timing,
    ),
    ("Total Host Persistent Memory", Phase::LayingOut),
    ("Engine generation completed", Phase::Writing),
];

impl Phase {
    /// The phase after this line of the builder; it never goes back.
    #[must_use]
    pub fn after(self, line: &str) -> Phase {
        let mut said = BEGINS.iter().filter(|(words, _)| line.contains(words));
        said.next().map_or(self, |(_, phase)| self.max(*phase))
    }

    /// As it is told.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Reading => "reading the graph",
            Phase::Joining => "joining layers",
            Phase::Timing => "timing kernels",
            Phase::LayingOut => "laying out memory",
            Phase::Writing => "writing the plan",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_what_trtexec_says_and_never_go_back() {
        let mut phase = Phase::default();
        for (line, expected) in [
            ("[I] === Model Options ===", Phase::Starting),
            (
                "[04/07/2025-23:59:30] [I] Start parsing network model.",
                Phase::Reading,
            ),
            (
                "[I] Finished parsing network model. Parse time: 0.1",
                Phase::Joining,
            ),
            (
                "[I] [TRT] Local timing cache in use. Profiling results in this builder pass will not be stored.",
                Phase::Timing,
            ),
            (
                "[I] [TRT] Compiler backend is used during engine build.",
                Phase::Timing,
            ),
            (
                "[I] [TRT] Total Host Persistent Memory: 353104 bytes",
                Phase::LayingOut,
            ),
            ("[I] [TRT] Global timing cache in use.", Phase::LayingOut),
            (
                "[I] [TRT] Engine generation completed in 10.6392 seconds.",
                Phase::Writing,
            ),
            ("[I] Engine built in 10.7204 sec.", Phase::Writing),
        ] {
            phase = phase.after(line);
            assert_eq!(phase, expected, "{line}");
        }
    }
}
