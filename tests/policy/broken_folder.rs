// SPDX-License-Identifier: Apache-2.0
//! Bundles whose folder is wrong: missing, swapped, escaping, blocking or huge files.

use crate::fixture::{Copy, cpu};
use crate::refusal::{FP32, INT8, PARITY, STATS, check, said};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use tendon::policy::{LoadOptions, Policy};

#[test]
fn the_untouched_copy_loads() {
    Copy::new()
        .load(LoadOptions::default())
        .expect("the shipped bundle loads from anywhere");
}

#[test]
fn no_folder() {
    let problems = Policy::load(
        Path::new("/nonexistent/bundle"),
        LoadOptions::default(),
        &cpu,
    )
    .expect_err("nothing there");
    said(
        &problems,
        &["/nonexistent/bundle", "a policy bundle", "No such file"],
    );
}
#[test]
fn a_file_is_no_folder() {
    let copy = Copy::new();
    let problems =
        Policy::load(&copy.path(FP32), LoadOptions::default(), &cpu).expect_err("a file");
    said(&problems, &["not a folder"]);
}
#[test]
fn missing_files() {
    for name in [
        "manifest.json",
        FP32,
        INT8,
        STATS,
        "tokenizer.json",
        PARITY,
        "parity.json",
    ] {
        check(
            |copy| std::fs::remove_file(copy.path(name)).expect("it was there"),
            &[name, "No such file"],
        );
    }
}
#[test]
fn another_hash() {
    for name in [FP32, INT8, STATS, "tokenizer.json", PARITY, "parity.json"] {
        let flip = |copy: &Copy| {
            let mut bytes = copy.read(name);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            copy.write(name, &bytes);
        };
        check(flip, &[name, "with SHA-256", "found SHA-256"]);
    }
}
#[test]
fn a_path_with_dots() {
    let escape = |copy: &Copy| {
        copy.edit(|manifest| {
            manifest["tendon"]["text"]["tokenizer"] = json!("../tokenizer.json");
            manifest["tendon"]["sha256"]["../tokenizer.json"] = json!("00");
        });
    };
    check(
        escape,
        &["tendon.sha256[\"../tokenizer.json\"]", "leaves the folder"],
    );
}
#[test]
fn an_absolute_path() {
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"]["/etc/hostname"] = json!("00")),
        &["/etc/hostname", "leaves the folder"],
    );
}
#[test]
fn an_empty_name_and_one_with_a_zero() {
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"][""] = json!("00")),
        &["leaves the folder"],
    );
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"]["a\0b"] = json!("00")),
        &["a\\0b", "leaves the folder"],
    );
}
#[test]
fn a_link_out_of_the_folder() {
    let outside = tempfile::tempdir().expect("a folder");
    check(
        |copy| {
            let target = outside.path().join("tokenizer.json");
            std::fs::rename(copy.path("tokenizer.json"), &target).expect("a move");
            symlink(&target, copy.path("tokenizer.json")).expect("a link");
        },
        &["tokenizer.json", "a link that leads out of it"],
    );
}
#[test]
fn a_link_inside_the_folder_is_a_file() {
    let copy = Copy::new();
    std::fs::rename(copy.path("tokenizer.json"), copy.path("words.json")).expect("a move");
    symlink("words.json", copy.path("tokenizer.json")).expect("a link");
    copy.load(LoadOptions::default())
        .expect("it never leaves the folder");
}
#[test]
fn a_folder_and_a_socket_are_no_files() {
    check(
        |copy| {
            std::fs::remove_file(copy.path(STATS)).expect("it was there");
            std::fs::create_dir(copy.path(STATS)).expect("a folder");
        },
        &[STATS, "not a plain file"],
    );
    check(
        |copy| {
            std::fs::remove_file(copy.path(STATS)).expect("it was there");
            std::os::unix::net::UnixListener::bind(copy.path(STATS)).expect("a socket");
        },
        &[STATS, "not a plain file"],
    );
}
#[test]
fn a_file_larger_than_allowed() {
    let grow = |name: &'static str, bytes: u64| {
        move |copy: &Copy| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(copy.path(name))
                .expect("a file");
            file.set_len(bytes).expect("a sparse file");
        }
    };
    check(
        grow(FP32, 65 << 30),
        &[FP32, "at most 68719476736 bytes", "69793218560"],
    );
    check(
        grow("manifest.json", 2 << 20),
        &["manifest.json", "at most 1048576 bytes"],
    );
}
