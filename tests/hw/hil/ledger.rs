// SPDX-License-Identifier: Apache-2.0
//! What was found: a line each as it is found, and at the end a report for machines, a page for people and a signature.

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
    NotRun,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::NotRun => "not run",
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

    /// Writes `report.json`, `report.html` and, with a key, `report.json.sig` into `folder`.
    pub fn write(&self, folder: &Path, about: &Value, key: Option<&Path>) -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
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
        let report = json!({
            "about": about,
            "passed": self.count(Outcome::Failed) == 0,
            "findings": findings,
            "figures": self.figures,
        });
        let path = folder.join("report.json");
        std::fs::write(&path, format!("{report:#}\n"))?;
        let signed = match key {
            None => "not signed: TENDON_HIL_KEY names no key".to_owned(),
            Some(key) => sign(&path, key),
        };
        println!("{}: {signed}", path.display());
        std::fs::write(folder.join("report.html"), self.page(about, &signed))
    }

    fn page(&self, about: &Value, signed: &str) -> String {
        let mut page = String::from(
            "<!doctype html><meta charset=utf-8><title>Tendon: hardware in the loop</title>\n<style>body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc;vertical-align:top}.failed{color:#b00;font-weight:bold}.not{color:#777}</style>\n<h1>Hardware in the loop</h1>\n<table>\n",
        );
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
                Outcome::NotRun => "not",
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
        page.push_str("</table>\n<p>");
        page.push_str(&escaped(signed));
        page.push_str("</p>\n");
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

/// Signs with OpenSSH, whose keys engineers have; in words, what came of it.
fn sign(report: &Path, key: &Path) -> String {
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
        Ok(made) if made.status.success() && signature.exists() => format!(
            "signed: ssh-keygen -Y check-novalidate -n tendon-hil -s {0}.sig < {0}",
            report.display()
        ),
        Ok(made) => format!(
            "not signed: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        ),
        Err(error) => format!("not signed: ssh-keygen: {error}"),
    }
}
