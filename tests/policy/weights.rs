// SPDX-License-Identifier: Apache-2.0
//! Weights in a file beside the graph, as exporters write them for a policy of more than 2 GiB: they load, they give the
//! same numbers, and every one of them is vouched for by the manifest.

use crate::fixture::cpu;
use rten_onnx::onnx::{DataLocation, ModelProto, StringStringEntryProto};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use tendon::config::Precision;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::onnx::{digest, outside};
use tendon::policy::LoadOptions;
use tendon::policy::staged::Staged;
use tendon::policy::staged::bundle::Opened;

/// ACT's bundle, its weights in `act.onnx.data` beside the graph, behind `gap` bytes of nothing.
pub fn moved_out(gap: u64, location: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/act");
    for entry in std::fs::read_dir(from).expect("the family's bundle") {
        let path = entry.expect("an entry").path();
        let to = folder.path().join(path.file_name().expect("a name"));
        std::fs::copy(&path, to).expect("a copy");
    }
    let graph = folder.path().join("act.onnx");
    let mut model =
        ModelProto::parse_buf(&std::fs::read(&graph).expect("a graph")).expect("an ONNX graph");
    let weights = std::fs::File::create(folder.path().join("act.onnx.data")).expect("a file");
    let mut offset = gap;
    let mut moved = 0;
    for tensor in &mut model.graph.as_mut().expect("a graph").initializer {
        let Some(bytes) = tensor.raw_data.take().map(std::cell::RefCell::into_inner) else {
            continue;
        };
        weights.write_all_at(&bytes, offset).expect("written");
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value),
        };
        tensor.external_data = vec![
            entry("location", location.into()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation(1));
        // As exporters do: each tensor begins a multiple of eight bytes.
        offset += (bytes.len() as u64).next_multiple_of(8);
        moved += 1;
    }
    assert!(moved > 10, "{moved} tensors were moved out");
    std::fs::write(&graph, model.write_buf().expect("a graph")).expect("written");
    promise(folder.path(), &["act.onnx", "act.onnx.data"]);
    folder
}

/// Writes the hashes of these files into the manifest.
fn promise(folder: &Path, names: &[&str]) {
    let path = folder.join("manifest.json");
    let mut manifest: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("a manifest")).expect("JSON");
    for name in names {
        let hash = Sha256::digest(std::fs::read(folder.join(name)).expect("a file"));
        let words: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        manifest["tendon"]["sha256"][name] = words.into();
    }
    std::fs::write(&path, manifest.to_string()).expect("written");
}

fn loaded(folder: &Path) -> Result<Staged, String> {
    Staged::load(folder, LoadOptions::default(), &cpu).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("\n")
    })
}

fn chunks(folder: &Path) -> Vec<f32> {
    let mut all = Vec::new();
    Staged::rehearse(folder, Precision::Fp32, None, &cpu, &mut |policy, _| {
        all.extend_from_slice(policy.chunk());
    })
    .expect("a bundle");
    all
}

#[test]
fn weights_beside_the_graph_are_the_same_weights() {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/act");
    let apart = moved_out(0, "act.onnx.data");
    let policy = loaded(apart.path()).expect("a bundle");
    assert!(policy.parity().missed.is_empty());
    assert_eq!(chunks(apart.path()), chunks(&whole));
}

/// A graph of a third of a gigabyte: larger than anything that is read at once elsewhere.
#[test]
fn large_weights_load() {
    let large = moved_out(340 << 20, "act.onnx.data");
    let policy = loaded(large.path()).expect("a bundle");
    let bytes: u64 = policy.files().iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes > 340 << 20, "{bytes} bytes");
}

#[test]
fn nothing_is_taken_that_the_manifest_does_not_vouch_for() {
    let folder = moved_out(0, "act.onnx.data");
    let path = folder.path().join("manifest.json");
    let text = std::fs::read(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let hashes = manifest["tendon"]["sha256"]
        .as_object_mut()
        .expect("hashes");
    hashes.remove("act.onnx.data").expect("it was there");
    std::fs::write(&path, manifest.to_string()).expect("written");
    let said = loaded(folder.path()).expect_err("nothing vouches for the weights");
    assert!(
        said.contains("the SHA-256 of act.onnx.data, where weights of act.onnx are"),
        "{said}"
    );
    std::fs::write(&path, &text).expect("as it was");

    let weights = folder.path().join("act.onnx.data");
    let mut bytes = std::fs::read(&weights).expect("the weights");
    bytes[100] ^= 1;
    std::fs::write(&weights, &bytes).expect("one bit");
    let said = loaded(folder.path()).expect_err("another weight");
    assert!(said.contains("act.onnx.data with SHA-256"), "{said}");
    bytes.truncate(1_000);
    std::fs::write(&weights, &bytes).expect("cut");
    promise(folder.path(), &["act.onnx.data"]);
    let said = loaded(folder.path()).expect_err("weights that end too soon");
    assert!(
        said.contains("act.onnx") && said.contains("too short"),
        "{said}"
    );
}

#[test]
fn weights_elsewhere_are_refused() {
    for location in ["../weights.data", "/etc/hostname", "a/../../b.data", ""] {
        let folder = moved_out(0, location);
        let said = loaded(folder.path()).expect_err(location);
        assert!(
            said.contains("weights in this folder"),
            "{location}: {said}"
        );
    }
    let folder = moved_out(0, "act.onnx.data");
    let outer = tempfile::NamedTempFile::new().expect("a file");
    let weights = folder.path().join("act.onnx.data");
    std::fs::rename(&weights, outer.path()).expect("moved");
    std::os::unix::fs::symlink(outer.path(), &weights).expect("a link");
    let said = loaded(folder.path()).expect_err("a link that leads out");
    assert!(said.contains("a link that leads out"), "{said}");

    // A graph that is a link has its weights where it leads, and not where it lies.
    let folder = moved_out(0, "act.onnx.data");
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).expect("a folder");
    for name in ["act.onnx", "act.onnx.data"] {
        std::fs::copy(folder.path().join(name), inner.join(name)).expect("a copy");
    }
    std::fs::remove_file(folder.path().join("act.onnx")).expect("gone");
    std::os::unix::fs::symlink("inner/act.onnx", folder.path().join("act.onnx")).expect("a link");
    let said = loaded(folder.path()).expect_err("weights that nothing vouches for");
    assert!(
        said.contains("the SHA-256 of inner/act.onnx.data"),
        "{said}"
    );
}

#[test]
fn another_weight_is_another_graph() {
    let folder = moved_out(0, "act.onnx.data");
    let graph = folder.path().join("act.onnx");
    let hashed = || {
        let mut hash = Sha256::new();
        digest(&graph, &mut hash).expect("a graph");
        hash.finalize()
    };
    let before = hashed();
    let weights = folder.path().join("act.onnx.data");
    let mut bytes = std::fs::read(&weights).expect("the weights");
    bytes[0] ^= 1;
    std::fs::write(&weights, &bytes).expect("one bit");
    assert_ne!(before, hashed());
}

/// Lengths that lie, numbers that do not end, cut files and noise are refused in words, at once, by the engine too.
#[test]
fn what_is_no_graph_is_said_so() {
    let folder = moved_out(0, "act.onnx.data");
    let opened = Opened::open(folder.path()).expect("a bundle");
    let spec = &opened.plan.stages[0].spec;
    let graph = folder.path().join("act.onnx");
    let whole = std::fs::read(&graph).expect("a graph");
    let began = Instant::now();
    let mut seed = 7_u64;
    let mut refused = 0;
    for turn in 0..600 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = whole.clone();
        let at = (seed >> 33) as usize % bytes.len();
        if turn % 4 == 0 {
            bytes.truncate(at);
        } else {
            let end = (at + 12).min(bytes.len());
            bytes[at..end].fill(0xff);
        }
        std::fs::write(&graph, &bytes).expect("written");
        refused += u32::from(CpuEngine::load(&graph, spec, CpuOptions::default()).is_err());
    }
    println!("{refused} of 600 refused in {:?}", began.elapsed());
    assert!(refused > 300, "{refused}");
    // A length of 2^64 - 1 in the first field; a number that does not end; a graph's end within a number.
    for (bytes, word) in [
        (
            &[
                0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ][..],
            "18446744073709551615 bytes",
        ),
        (&[0xff; 16], "more than ten bytes"),
        (&[0x3a, 0x01, 0x80], "a number that is cut"),
        (&[0x3b, 0x00], "wire type 3"),
    ] {
        std::fs::write(&graph, bytes).expect("written");
        let said = outside(&graph).expect_err(word);
        assert!(said.contains(word), "{said}");
    }
}

/// An attribute of a node with a graph in it, and so on: the walk ends before the stack does.
#[test]
fn a_tower_of_graphs_is_refused() {
    let varint = |mut value: usize| {
        let mut out = Vec::new();
        while value > 127 {
            out.push(value as u8 | 128);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    let wrap = |tag: u8, inner: &[u8]| [&[tag][..], &varint(inner.len()), inner].concat();
    let mut graph = Vec::new();
    for _ in 0..2_000 {
        // attribute.g, node.attribute, graph.node
        graph = wrap(0x0a, &wrap(0x2a, &wrap(0x32, &graph)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tower.onnx");
    std::fs::write(&path, wrap(0x3a, &graph)).expect("written");
    let said = outside(&path).expect_err("a tower");
    assert!(said.contains("nested too deeply"), "{said}");
}
