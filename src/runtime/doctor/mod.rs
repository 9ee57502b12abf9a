// SPDX-License-Identifier: Apache-2.0
//! `tendon doctor`: could this deployment arm on this machine, and what would make it better?
//!
//! [`machine`] looks at kernel, limits, clocks and disk, [`devices`] at GPU, cameras and lines, [`deployment`] at
//! configuration, bundle and link, at what they ask of the machine (`asked`, judged by the `unit` that starts it), at what
//! that unit keeps from them and not from the doctor (`hosts`, `sandbox`), and at pictures of each camera (`cameras`). Each check is one [`Finding`]: what was found, and what to do about it. It moves
//! nothing and writes nothing; cameras of a deployment that is not running are opened, as the runtime opens them. What
//! it does not do: make a CUDA call of its own, or open the watchdog, so of these it says that they may be used, not
//! that they work.

mod asked;
mod cameras;
#[cfg(feature = "tls")]
mod certificates;
pub mod deployment;
pub mod devices;
mod echo;
mod hosts;
pub mod machine;
mod sandbox;
#[cfg(test)]
mod tests;
mod unit;
mod watchdog;

use crate::runtime::health::{Health, Tree};
use core::fmt;
use serde::Serialize;
use std::path::Path;

/// How bad it is; the worst one of a report is the report's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Not there, and not needed as far as one can see from here.
    Absent,
    /// It can arm, but promises less: later ticks, lower clocks, names that may change.
    Warning,
    /// It cannot arm.
    Bad,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, for a warning and worse.
    pub fix: Option<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn good(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Good,
            found: found.into(),
            fix: None,
        }
    }

    /// Not there, not needed.
    #[must_use]
    pub fn absent(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Absent,
            ..Finding::good(check, found)
        }
    }

    /// It can arm, but promises less.
    #[must_use]
    pub fn warning(
        check: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding {
            verdict: Verdict::Warning,
            fix: Some(fix.into()),
            ..Finding::good(check, found)
        }
    }

    /// It cannot arm.
    #[must_use]
    pub fn bad(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Bad,
            ..Finding::warning(check, found, fix)
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether the deployment could arm, as far as was looked: no finding is bad.
    pub could_arm: bool,
    /// The checks, in the order in which a machine is set up.
    pub findings: Vec<Finding>,
    /// One reading of the health sources.
    pub health: Health,
}

impl Report {
    /// Looks at the machine alone; its disk where a runtime of the deployment `config` keeps its state, if one is named.
    #[must_use]
    pub fn of_machine(tree: &Tree, config: Option<&Path>) -> Report {
        let state = config.and_then(|config| asked::state_folder(tree, config));
        let state = state.unwrap_or_else(|| tree.path("/var/lib/tendon"));
        let health = Health::read(tree, Some(&state));
        let mut findings = machine::findings(tree, &health, &state);
        #[cfg(feature = "tls")]
        findings.extend(certificates::of_machine(
            tree,
            crate::runtime::clock::utc_s(),
        ));
        #[cfg(not(feature = "tls"))]
        findings.extend(machine::certificates(tree));
        findings.extend(devices::findings(tree));
        let mut report = Report {
            could_arm: true,
            findings: Vec::new(),
            health,
        };
        report.add(findings);
        report
    }

    /// Adds findings and judges again.
    pub fn add(&mut self, findings: Vec<Finding>) {
        self.findings.extend(findings);
        self.could_arm = self
            .findings
            .iter()
            .all(|finding| finding.verdict != Verdict::Bad);
    }

    /// How many findings are `verdict`.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let same = self
            .findings
            .iter()
            .filter(|finding| finding.verdict == verdict);
        same.count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let word = match finding.verdict {
                Verdict::Good => "good",
                Verdict::Absent => "-",
                Verdict::Warning => "WARN",
                Verdict::Bad => "BAD",
            };
            writeln!(f, "{word:>4}  {:<18} {}", finding.check, finding.found)?;
            if let Some(fix) = &finding.fix {
                writeln!(f, "      {:<18} -> {fix}", "")?;
            }
        }
        let (warnings, bad) = (self.count(Verdict::Warning), self.count(Verdict::Bad));
        let verdict = if self.could_arm {
            "nothing found that keeps it from arming"
        } else {
            "not ready to arm"
        };
        write!(f, "{verdict}; {bad} bad, {warnings} warnings")
    }
}
