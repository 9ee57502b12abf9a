// SPDX-License-Identifier: Apache-2.0
//! A draft and the statistics of openpi or OpenVLA become the family's bundle again; what would have to be guessed is asked.

use crate::families::folder;
use crate::fixture::cpu;
use serde_json::{Value, json};
use std::path::Path;
use tendon::policy::LoadOptions;
use tendon::policy::import_statistics::{Origin, Request, import};
use tendon::policy::normalise::Mode;
use tendon::policy::staged::Staged;

/// The family's folder without what an import adds, and its statistics' file beside it.
fn draft(family: &str, statistics: &str, into: &Path) -> Request {
    let draft = into.join("draft");
    std::fs::create_dir_all(&draft).expect("a folder");
    for entry in std::fs::read_dir(folder(family)).expect("a family") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        let into = if name == statistics { into } else { &draft };
        std::fs::copy(&path, into.join(name)).expect("a copy");
    }
    edit(&draft.join("manifest.json"), |manifest| {
        let tendon = &mut manifest["tendon"];
        tendon.as_object_mut().expect("a table").remove("sha256");
        for part in ["state", "action"] {
            if let Some(part) = tendon[part].as_object_mut() {
                part.remove("stats");
            }
        }
    });
    Request {
        draft,
        statistics: into.join(statistics),
        origin: Origin::Openvla,
        data_set: None,
        mode: None,
        joints: None,
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = std::fs::read(path).expect("a file");
    let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
    change(&mut value);
    std::fs::write(path, serde_json::to_vec(&value).expect("JSON")).expect("written");
}

#[track_caller]
fn refused(request: &Request, words: &[&str]) {
    let out = request.draft.with_file_name("refused");
    let problems = import(request, &out).expect_err("a refusal");
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for word in words {
        assert!(
            said.join("\n").contains(word),
            "\"{word}\" is not in {said:?}"
        );
    }
    assert!(!out.exists(), "nothing is written");
}

#[test]
fn openpis_statistics_become_the_bundle() {
    let place = tempfile::tempdir().expect("a folder");
    let mut request = draft("pi0", "norm_stats.json", place.path());
    request.origin = Origin::Openpi;
    refused(&request, &["mode", "does not say which"]);
    request.mode = Some(Mode::MinMax);
    refused(&request, &["mode", "MinMax"]);
    request.mode = Some(Mode::MeanStd);
    request.joints = Some(vec!["joint_0".into()]);
    refused(&request, &["tendon.action.names", "\"joint_1\""]);
    request.joints = None;
    request.data_set = Some("bridge".into());
    refused(&request, &["unnorm-key", "one data set"]);
    request.data_set = None;
    let out = place.path().join("bundle");
    import(&request, &out).expect("a bundle");
    let policy = Staged::load(&out, LoadOptions::default(), &cpu).expect("it holds its fixture");
    assert!(policy.parity().error_fraction < 1e-4, "{}", policy.parity());
    // The other formula is another policy: its fixture says so.
    request.mode = Some(Mode::Quantiles);
    let other = place.path().join("other");
    import(&request, &other).expect("files are files");
    assert!(Staged::load(&other, LoadOptions::default(), &cpu).is_err());
    refused(
        &Request {
            draft: out,
            ..request.clone()
        },
        &["tendon.action.stats", "nothing in a draft"],
    );
    // Padded to the model's width, as some files are: another number of names.
    edit(&request.statistics, |stats| {
        let list = stats["norm_stats"]["actions"]["q01"]
            .as_array_mut()
            .expect("a list");
        list.push(json!(0.0));
    });
    refused(
        &request,
        &["norm_stats.actions.q01", "a list of 7", "a list of 8"],
    );
}

#[test]
fn openvlas_statistics_become_the_bundle() {
    let place = tempfile::tempdir().expect("a folder");
    let mut request = draft("openvla", "dataset_statistics.json", place.path());
    let out = place.path().join("bundle");
    import(&request, &out).expect("one data set needs no choice");
    let policy = Staged::load(&out, LoadOptions::default(), &cpu).expect("it holds its fixture");
    assert!(policy.parity().error_fraction < 1e-4, "{}", policy.parity());
    edit(&request.statistics, |stats| {
        stats["other_set"] = stats["bridge_orig"].clone()
    });
    refused(&request, &["unnorm-key", "bridge_orig", "other_set"]);
    request.data_set = Some("brigde_orig".into());
    refused(&request, &["unnorm-key", "\"brigde_orig\""]);
    request.data_set = Some("other_set".into());
    import(&request, &place.path().join("chosen")).expect("chosen by name");
    request.mode = Some(Mode::MeanStd);
    refused(&request, &["mode", "knows no other"]);
    request.mode = None;
    edit(&request.statistics, |stats| {
        stats["other_set"]["action"]
            .as_object_mut()
            .expect("a table")
            .remove("mask");
    });
    refused(
        &request,
        &["other_set.action.mask", "which numbers are normalised"],
    );
}
