// SPDX-License-Identifier: Apache-2.0
//! Dates of certificates. One that is over cuts no link that is open, so nobody notices before the next start.

use super::{Finding, Verdict};
use crate::config::link::Tls;
use crate::runtime::health::Tree;
use std::path::Path;
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

/// What ends sooner is told.
const SOON_S: i64 = 30 * 24 * 3600;
/// Where the units look for them.
const FOLDER: &str = "/etc/tendon/tls";
const FIX: &str = "sign a new one before that day, and restart what reads it (systemctl restart tendon-zenohd tendon)";

/// The certificates of a PEM file, one after the other: from the latest first day to the earliest last one.
fn valid(pem: &[u8]) -> Result<(ASN1Time, ASN1Time), String> {
    let mut span: Option<(ASN1Time, ASN1Time)> = None;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| format!("is no PEM: {error}"))?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block
            .parse_x509()
            .map_err(|error| format!("holds what is no certificate: {error}"))?;
        let dates = certificate.validity();
        let (from, until) = span.unwrap_or((dates.not_before, dates.not_after));
        span = Some((from.max(dates.not_before), until.min(dates.not_after)));
    }
    span.ok_or_else(|| "holds no certificate".to_owned())
}

/// A file, judged at `now_s` (seconds since 1970). What is wrong with one is as bad as `over` says.
fn judged(
    check: &'static str,
    path: &Path,
    pem: std::io::Result<Vec<u8>>,
    now_s: i64,
    over: Verdict,
) -> Finding {
    let wrong = |found: String| Finding {
        verdict: over,
        ..Finding::bad(check, format!("{}: {found}", path.display()), FIX)
    };
    let dates = pem
        .map_err(|error| error.to_string())
        .and_then(|pem| valid(&pem));
    match dates {
        Err(found) => wrong(found),
        Ok((from, _)) if now_s < from.timestamp() => wrong(format!(
            "valid from {from} on; is this machine's date right?"
        )),
        Ok((_, until)) if now_s > until.timestamp() => wrong(format!(
            "over since {until}: whoever connects with it is turned away"
        )),
        Ok((_, until)) if until.timestamp() - now_s < SOON_S => {
            let found = format!("{}: only valid until {until}", path.display());
            Finding::warning(check, found, FIX)
        }
        Ok((_, until)) => Finding::good(check, format!("{}: until {until}", path.display())),
    }
}

/// Those of `link.tls_*`.
pub(super) fn of_link(tls: &Tls, now_s: i64) -> Vec<Finding> {
    const CHECK: &str = "link.tls";
    let judge = |path: &Path, over| judged(CHECK, path, std::fs::read(path), now_s, over);
    let mut findings = vec![
        // Our own TLS does not look at an authority's date; others' may.
        judge(&tls.ca, Verdict::Warning),
        judge(&tls.certificate, Verdict::Bad),
    ];
    if let Err(error) = std::fs::read(&tls.key) {
        findings.push(Finding::bad(
            CHECK,
            format!("{}: {error}", tls.key.display()),
            "the key must be there, and be readable by the runtime's user alone",
        ));
    }
    findings
}

/// Those of a router beside the runtime, and whatever else lies in its folder; none if there is none. Whether this deployment
/// needs them is not known: what is wrong with one is told.
pub(super) fn of_machine(tree: &Tree, now_s: i64) -> Vec<Finding> {
    const CHECK: &str = "certificates";
    let files = tree.list(FOLDER);
    let names = files.iter().filter(|name| name.ends_with(".pem"));
    let findings = names.map(|name| {
        let path = format!("{FOLDER}/{name}");
        let pem = std::fs::read(tree.path(&path));
        judged(CHECK, Path::new(&path), pem, now_s, Verdict::Warning)
    });
    findings.collect()
}
