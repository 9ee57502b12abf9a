// SPDX-License-Identifier: Apache-2.0
//! Several sessions of one TensorRT, which has one logger for them all: who hears what. The plugins beside it, and libraries that stay.

use crate::fake::{BOTH, Fakes, Tables, machine};
use crate::path::spec;
use std::path::PathBuf;
use std::sync::Arc;
use tendon::cuda::Driver;
use tendon::engine::tensorrt::nvinfer::callbacks::Messages;
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::engine::tensorrt::{Platform, TensorRt};

fn library(fakes: &Fakes, tables: Tables) -> Arc<Library> {
    Arc::new(Library::open(Some(&fakes.tensorrt(tables))).expect("the fake"))
}

fn texts(messages: &Messages) -> Vec<String> {
    messages.all().into_iter().map(|(_, text)| text).collect()
}

/// Lines that have these words.
fn with(messages: &Messages, words: &str) -> usize {
    let texts = texts(messages);
    texts.iter().filter(|text| text.contains(words)).count()
}

#[test]
fn each_session_hears_its_own_though_tensorrt_has_one_logger() {
    let fakes = machine();
    for tables in BOTH {
        let library = library(&fakes, tables);
        let open = |plan: &str| Session::open(&library, plan.into());
        let first = open("FAKEPLAN grumbles, of the first").expect("reads");
        let second = open("FAKEPLAN, of the second").expect("reads");
        let (of_first, of_second) = (first.messages(), second.messages());
        assert_eq!(with(&of_first, "Using an engine plan file"), 1);
        assert_eq!(with(&of_second, "read: FAKEPLAN, of the second"), 1);
        // The errors of a third, of which nothing is read and nothing made, are its own.
        let said = open("garbage, unrecorded").expect_err("refused");
        assert!(said.to_string().contains("kMAGIC_TAG"), "{said}");
        fakes.runtime(tables, 1);
        let said = Session::runtime(&library).expect_err("refused");
        fakes.runtime(tables, 0);
        let error = "CUDA initialization failure with error: 35";
        assert!(said.to_string().contains(error), "{said}");
        // The first that was made is the first to go, and the others speak all the same.
        drop(first);
        let third = open("FAKEPLAN, of the third").expect("reads");
        let of_third = third.messages();
        drop(second);
        drop(third);
        let all = [
            (&of_first, ["second", "third"]),
            (&of_second, ["first", "third"]),
            (&of_third, ["first", "second"]),
        ];
        for (messages, others) in all {
            assert_eq!(with(messages, "gone: "), 3, "{:?}", texts(messages));
            for other in others.into_iter().chain(["differs", "kMAGIC_TAG", error]) {
                assert_eq!(with(messages, other), 0, "{other}: {:?}", texts(messages));
            }
        }
    }
    assert_eq!(fakes.live().1, 0);
}

/// Also what TensorRT says on a thread of its own while it reads a plan.
#[test]
fn loads_on_several_threads_are_told_apart() {
    let fakes = machine();
    for tables in BOTH {
        let library = library(&fakes, tables);
        let load = |number: usize| {
            let library = Arc::clone(&library);
            std::thread::spawn(move || {
                let plan = format!("FAKEPLAN threaded, number {number}");
                for _ in 0..20 {
                    let session = Session::open(&library, plan.clone().into_bytes());
                    let messages = session.expect("reads").messages();
                    let texts = texts(&messages);
                    for text in texts.iter().filter(|text| text.contains("number")) {
                        assert!(text.ends_with(&plan), "{plan}: {text}");
                    }
                    for words in ["read: ", "on a thread of its own: ", "gone: engine of "] {
                        assert_eq!(with(&messages, words), 1, "{plan}: {texts:?}");
                    }
                }
            })
        };
        let threads: Vec<_> = (0..4).map(load).collect();
        for thread in threads {
            thread.join().expect("each hears its own");
        }
    }
    assert_eq!(fakes.live().1, 0);
}

/// A plan with a layer of one of TensorRT's own plugins, which `trtexec` registers before it builds.
#[test]
fn a_plan_with_a_plugin_is_read_and_where_their_library_is_missing_that_is_told() {
    let fakes = machine();
    let folder = tempfile::tempdir().expect("a folder");
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        for _ in 0..2 {
            let plan = b"FAKEPLAN plugged".to_vec();
            TensorRt::load(&platform, plan, &spec()).expect("loads");
        }
        assert_eq!(fakes.plugins(tables), 1, "registered once in a process");
        let alone = copy(&folder, fakes.tensorrt(tables));
        let alone = Arc::new(Library::open(Some(&alone)).expect("the fake, without plugins"));
        let open = |plan: &str| Session::open(&alone, plan.into());
        let said = open("FAKEPLAN plugged").expect_err("refused").to_string();
        let layout = match tables {
            Tables::Ten => "10",
            Tables::Eleven => "11",
        };
        for words in [
            "no creator of the plugin FakeGelu".to_owned(),
            "plugins are not registered".to_owned(),
            format!("libfake_nvinfer_plugin.so.{layout}"),
            format!("install the package libnvinfer-plugin{layout}"),
        ] {
            assert!(said.contains(&words), "{words}: {said}");
        }
        open("FAKEPLAN").expect("a plan without is read all the same");
    }
}

fn copy(folder: &tempfile::TempDir, library: PathBuf) -> PathBuf {
    let to = folder.path().join(library.file_name().expect("a file"));
    std::fs::copy(library, &to).expect("copied");
    to
}

/// A library may have left threads behind, and handlers for the end of a thread or of the process.
#[test]
fn a_library_that_was_opened_keeps_its_code() {
    let fakes = machine();
    let folder = tempfile::tempdir().expect("a folder");
    // The tests hold their own open.
    let driver = copy(&folder, fakes.driver.clone());
    let tensorrt = copy(&folder, fakes.tensorrt(Tables::Ten));
    drop(Driver::open(Some(&driver)).expect("the fake driver"));
    let library = Arc::new(Library::open(Some(&tensorrt)).expect("the fake"));
    drop(Session::runtime(&library).expect("a runtime"));
    drop(library);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has some");
    for path in [driver, tensorrt] {
        let path = path.display().to_string();
        assert!(maps.contains(&path), "{path} was closed");
    }
}
