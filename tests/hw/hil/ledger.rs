// SPDX-License-Identifier: Apache-2.0
//! What was found: a line each as it is found, after each stage a report that says that it is not finished, and at the end
//! one for machines, a page for people and a signature.
//!
//! It passes only what is complete: a claim that was left out is not one that holds.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What came of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// Left out, though there was something to try.
    NotRun,
    /// There is nothing to try: a contact that the deployment does not name.
    Absent,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::NotRun => "not run",
            Outcome::Absent => "absent",
        }
    }
}

struct Finding {
    stage: &'static str,
    claim: String,
    outcome: Outcome,
    measured: String,
    bound: String,
}

#[derive(Default)]
pub struct Ledger {
    findings: Vec<Finding>,
    /// Numbers by name, with their units in the names.
    pub figures: BTreeMap<String, f64>,
}

impl Ledger {
    /// Notes what was measured against its bound.
    pub fn judge(
        &mut self,
        stage: &'static str,
        claim: &str,
        passed: bool,
        measured: String,
        bound: &str,
    ) {
        let outcome = if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.note(stage, claim, outcome, measured, bound);
    }

    pub fn note(
        &mut self,
        stage: &'static str,
        claim: &str,
        outcome: Outcome,
        measured: String,
        bound: &str,
    ) {
        println!(
            "{:8} {stage}: {claim}: {measured}{}",
            outcome.word(),
            if bound.is_empty() {
                String::new()
            } else {
                format!(" (bound: {bound})")
            }
        );
        self.add(stage, claim, outcome, measured, bound);
    }

    fn add(
        &mut self,
        stage: &'static str,
        claim: &str,
        outcome: Outcome,
        measured: String,
        bound: &str,
    ) {
        self.findings.push(Finding {
            stage,
            claim: claim.to_owned(),
            outcome,
            measured,
            bound: bound.to_owned(),
        });
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        let same = |finding: &&Finding| finding.outcome == outcome;
        self.findings.iter().filter(same).count()
    }

    /// Stages of which something was left out, each once.
    fn left_out(&self) -> Vec<&'static str> {
        let not_run = |finding: &&Finding| finding.outcome == Outcome::NotRun;
        let found = self.findings.iter().filter(not_run);
        let mut stages: Vec<&'static str> = found.map(|finding| finding.stage).collect();
        stages.dedup();
        stages
    }

    /// Whether nothing was left out.
    pub fn complete(&self) -> bool {
        !self.findings.is_empty() && self.left_out().is_empty()
    }

    /// Whether it is complete, and nothing failed.
    pub fn passed(&self) -> bool {
        self.complete() && self.count(Outcome::Failed) == 0
    }

    /// What it comes to, for people.
    pub fn verdict(&self) -> String {
        if self.passed() {
            return "passed: everything was tried, and nothing failed".to_owned();
        }
        let mut why = Vec::new();
        if self.findings.is_empty() {
            why.push("INCOMPLETE, nothing was tried".to_owned());
        }
        match self.count(Outcome::Failed) {
            0 => {}
            failed => why.push(format!("{failed} failed")),
        }
        let left_out = self.left_out();
        if !left_out.is_empty() {
            why.push(format!("INCOMPLETE, left out: {}", left_out.join(", ")));
        }
        format!("NOT PASSED: {}", why.join("; "))
    }

    fn report(&self, about: &Value) -> Value {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "stage": finding.stage,
                    "claim": finding.claim,
                    "outcome": finding.outcome.word().to_lowercase(),
                    "measured": finding.measured,
                    "bound": finding.bound,
                })
            })
            .collect();
        json!({
            "about": about,
            "finished": true,
            "complete": self.complete(),
            "passed": self.passed(),
            "findings": findings,
            "figures": self.figures,
        })
    }

    /// Writes what was found so far as `report.json`, which says that it is not finished: an interruption leaves that. It is
    /// not signed, and what vouched for an older one in `folder`, or showed it, is removed first.
    pub fn keep(&self, folder: &Path, about: &Value) -> std::io::Result<()> {
        for older in ["report.json.sig", "report.html"] {
            match std::fs::remove_file(folder.join(older)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let mut report = self.report(about);
        for word in ["finished", "complete", "passed"] {
            report[word] = Value::Bool(false);
        }
        // There whole or not at all, whenever it is interrupted.
        let draft = folder.join("report.json.draft");
        std::fs::write(&draft, format!("{report:#}\n"))?;
        std::fs::rename(&draft, folder.join("report.json"))
    }

    /// Writes `report.json`, `report.html` and, with a key, `report.json.sig` into `folder`; whether it is signed.
    pub fn write(&self, folder: &Path, about: &Value, key: Option<&Path>) -> std::io::Result<bool> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("report.json");
        std::fs::write(&path, format!("{:#}\n", self.report(about)))?;
        let signed = match key {
            Some(key) => sign(&path, key),
            None => Err("there is no key".to_owned()),
        };
        let words = match &signed {
            Ok(check) => format!("signed: {check}"),
            Err(why) => format!("NOT SIGNED: {why}"),
        };
        println!("{}: {words}", path.display());
        std::fs::write(folder.join("report.html"), self.page(about, &words))?;
        Ok(signed.is_ok())
    }

    fn page(&self, about: &Value, signed: &str) -> String {
        let mut page = String::from(
            "<!doctype html><meta charset=utf-8><title>Tendon: hardware in the loop</title>\n<style>body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc;vertical-align:top}.failed{color:#b00;font-weight:bold}.not{color:#777}</style>\n<h1>Hardware in the loop</h1>\n",
        );
        let verdict = self.verdict();
        for words in [verdict.as_str(), signed] {
            let class = if words.starts_with("NOT") {
                "failed"
            } else {
                ""
            };
            // Writing into a string cannot fail.
            let _ = writeln!(page, "<p class=\"{class}\">{}</p>", escaped(words));
        }
        page.push_str("<table>\n");
        for (name, value) in about.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            row(&mut page, "", &[name, &text]);
        }
        page.push_str("</table>\n<h2>What was found</h2>\n<table>\n<tr><th>stage<th>claim<th><th>measured<th>bound</tr>\n");
        for finding in &self.findings {
            let class = match finding.outcome {
                Outcome::Passed => "",
                Outcome::Failed => "failed",
                Outcome::NotRun | Outcome::Absent => "not",
            };
            let cells = [
                finding.stage,
                &finding.claim,
                finding.outcome.word(),
                &finding.measured,
                &finding.bound,
            ];
            row(&mut page, class, &cells);
        }
        page.push_str("</table>\n<h2>Figures</h2>\n<table>\n");
        for (name, value) in &self.figures {
            row(&mut page, "", &[name, &format!("{value:.4}")]);
        }
        page.push_str("</table>\n");
        page
    }
}

fn row(page: &mut String, class: &str, cells: &[&str]) {
    // Writing into a string cannot fail.
    let _ = write!(page, "<tr class=\"{class}\">");
    for cell in cells {
        let _ = write!(page, "<td>{}", escaped(cell));
    }
    page.push_str("</tr>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Makes the folder of the report and writes into it, before anything moves.
///
/// # Errors
/// What is wrong with it.
pub fn try_folder(folder: &Path) -> Result<(), String> {
    let trial = folder.join("report.trial");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&trial, "whether a report can be kept here\n"))
        .and_then(|()| std::fs::remove_file(&trial))
        .map_err(|error| {
            format!(
                "TENDON_HIL_REPORT: expected a folder that can be written to, found {}: {error}: nothing is moved for a report that cannot be kept",
                folder.display()
            )
        })
}

/// Signs with OpenSSH, whose keys engineers have: how to check it, or why there is none.
pub fn sign(report: &Path, key: &Path) -> Result<String, String> {
    // It asks before it writes over an older signature, and nobody is there to answer.
    let signature = PathBuf::from(format!("{}.sig", report.display()));
    let _ = std::fs::remove_file(&signature);
    let made = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", "tendon-hil", "-f"])
        .arg(key)
        .arg(report)
        .stdin(Stdio::null())
        .output();
    match made {
        Ok(made) if made.status.success() && signature.exists() => Ok(format!(
            "ssh-keygen -Y check-novalidate -n tendon-hil -s {0}.sig < {0}",
            report.display()
        )),
        Ok(made) => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
        Err(error) => Err(format!("ssh-keygen: {error}")),
    }
}

/// What is made of which outcomes, before it is trusted with a robot.
pub fn check_yourself() -> Result<(), String> {
    use Outcome::{Absent, Failed, NotRun, Passed};
    let rows: [(&[Outcome], bool, bool, &str); 6] = [
        (&[], false, false, "INCOMPLETE, nothing was tried"),
        (&[Passed, Passed], true, true, "passed: everything"),
        (&[Passed, Absent], true, true, "passed: everything"),
        (&[Passed, NotRun], false, false, "INCOMPLETE, left out: a"),
        (&[Passed, Failed], true, false, "NOT PASSED: 1 failed"),
        (
            &[Failed, NotRun, NotRun],
            false,
            false,
            "NOT PASSED: 1 failed; INCOMPLETE, left out: a",
        ),
    ];
    for (outcomes, complete, passed, words) in rows {
        let mut ledger = Ledger::default();
        for outcome in outcomes {
            ledger.add("a", "of a trial", *outcome, String::new(), "");
        }
        let report = ledger.report(&Value::Null);
        let page = ledger.page(&Value::Null, "NOT SIGNED");
        let good = report["complete"] == complete
            && report["passed"] == passed
            && page.contains(words)
            && page.contains("NOT SIGNED");
        if !good {
            return Err(format!("{outcomes:?} were made {report}, {page}"));
        }
    }
    keeps_what_is_unfinished().map_err(|error| format!("a report that is not finished: {error}"))
}

/// Of a folder with a finished report in it: nothing vouches for the unfinished one, which passes nothing.
fn keeps_what_is_unfinished() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let (kept, signature) = (
        folder.path().join("report.json"),
        folder.path().join("report.json.sig"),
    );
    std::fs::write(&signature, "of an older one")?;
    let mut ledger = Ledger::default();
    ledger.add("a", "of a trial", Outcome::Passed, String::new(), "");
    ledger.keep(folder.path(), &Value::Null)?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(kept)?)?;
    let good = ["finished", "complete", "passed"]
        .iter()
        .all(|word| report[*word] == false)
        && report["findings"][0]["claim"] == "of a trial"
        && !signature.exists();
    match good {
        true => Ok(()),
        false => Err(std::io::Error::other(report.to_string())),
    }
}
