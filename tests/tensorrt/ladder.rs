// SPDX-License-Identifier: Apache-2.0
//! The ladder of engines as a user meets it: the real program, with and without the fake GPU.

use crate::fake::{Tables, machine};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bench's deployment with these engines, on a machine with or without the fakes.
pub struct Deployment {
    pub folder: tempfile::TempDir,
    driver: PathBuf,
    tensorrt: PathBuf,
}

impl Deployment {
    pub fn new(engines: &str, fakes: Option<(PathBuf, PathBuf)>) -> Deployment {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("a folder");
        let written =
            std::fs::read_to_string(root.join("deploy/bench/tendon.toml")).expect("there");
        let written = written
            .replace("../../engines", &root.join("engines").display().to_string())
            .replace(
                "precision = \"fp32\"",
                &format!("precision = \"fp32\"\nengine_cache = \"cache\"\nengines = {engines}"),
            );
        std::fs::write(folder.path().join("tendon.toml"), written).expect("written");
        for file in ["robot.toml", "robot.urdf"] {
            std::fs::copy(
                root.join("deploy/bench").join(file),
                folder.path().join(file),
            )
            .expect("copied");
        }
        let nowhere = || PathBuf::from("/nowhere/lib.so");
        let (driver, tensorrt) = fakes.unwrap_or_else(|| (nowhere(), nowhere()));
        Deployment {
            folder,
            driver,
            tensorrt,
        }
    }

    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
        command
            .args(verb)
            .arg("--config")
            .arg(self.folder.path().join("tendon.toml"))
            .env("TENDON_CUDA_LIB", &self.driver)
            .env("TENDON_TENSORRT_LIB", &self.tensorrt)
            .env("TENDON_TRTEXEC", self.folder.path().join("trtexec"));
        command
    }

    pub fn run(&self, verb: &[&str]) -> (Option<i32>, String) {
        let output = self.command(verb).output().expect("tendon runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// A builder that makes a plan of these words.
    pub fn builder(&self, plan: &str) {
        self.builder_after("", plan);
    }

    /// One that does something before.
    pub fn builder_after(&self, before: &str, plan: &str) {
        let path = self.folder.path().join("trtexec");
        let script = format!(
            "#!/bin/sh\n{before}\nfor a in \"$@\"; do case \"$a\" in --saveEngine=*) printf '%s' '{plan}' > \"${{a#--saveEngine=}}\";; \
             esac; done\n"
        );
        std::fs::write(&path, script).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("executable");
    }
}

#[track_caller]
pub fn says((code, said): (Option<i32>, String), wanted: i32, words: &[&str]) {
    assert_eq!(code, Some(wanted), "{said}");
    for words in words {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[test]
fn without_a_gpu_the_next_rung_is_taken_and_the_reason_is_said() {
    let ladder = Deployment::new("[\"tensorrt\", \"cpu\"]", None);
    says(
        ladder.run(&["check"]),
        0,
        &[
            "engine: cpu",
            "not tensorrt: this machine",
            "/nowhere/lib.so",
        ],
    );
    let only = Deployment::new("[\"tensorrt\"]", None);
    says(
        only.run(&["check"]),
        2,
        &["no CUDA driver", "install JetPack"],
    );
    says(
        only.run(&["engine", "build"]),
        1,
        &["no CUDA driver", "/nowhere/lib.so"],
    );
    says(only.run(&["engine", "inspect"]), 0, &["no engine in"]);
}

#[test]
fn an_engine_must_be_built_here_and_give_what_the_fixture_says() {
    let fakes = {
        let fakes = machine();
        (fakes.driver.clone(), fakes.tensorrt(Tables::Ten))
    };
    let ladder = Deployment::new("[\"tensorrt\", \"cpu\"]", Some(fakes.clone()));
    says(
        ladder.run(&["check"]),
        0,
        &[
            "engine: cpu",
            "no engine for this stage",
            "tendon engine build",
        ],
    );
    // A plan that runs and is wrong: it is kept, and does not load.
    ladder.builder("FAKEPLAN bench");
    says(
        ladder.run(&["engine", "build"]),
        2,
        &["parity.safetensors", "cosine"],
    );
    says(
        ladder.run(&["engine", "inspect"]),
        0,
        &[
            "stage \"policy\"",
            "TensorRT 10.3.0 on \"Fake Orin\" (8.7, 8 multiprocessors, 16 GiB, CUDA 12060",
            "--stronglyTyped",
        ],
    );
    says(
        ladder.run(&["check"]),
        0,
        &["engine: cpu", "not tensorrt", "cosine"],
    );
    let only = Deployment::new("[\"tensorrt\"]", Some(fakes.clone()));
    only.builder("FAKEPLAN bench");
    says(only.run(&["engine", "build"]), 2, &["cosine"]);
    says(only.run(&["check"]), 2, &["cosine"]);
    // One whose tensors are others is told from the bundle's before it runs.
    let other = Deployment::new("[\"tensorrt\"]", Some(fakes.clone()));
    other.builder("FAKEPLAN");
    says(
        other.run(&["engine", "build"]),
        2,
        &[
            "the bundle's stage \"policy\" has none of that name",
            "actions",
        ],
    );
    // Built elsewhere.
    let cache = ladder.folder.path().join("cache");
    for entry in std::fs::read_dir(&cache).expect("a cache").flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let label = std::fs::read_to_string(&path).expect("a label");
            std::fs::write(&path, label.replace("Fake Orin", "RTX 4090")).expect("written");
        }
    }
    says(
        ladder.run(&["check"]),
        0,
        &["engine: cpu", "RTX 4090", "build it here"],
    );
}

/// On a terminal a bar, drawn over itself and ended with a line; elsewhere lines, and no more than one in half a minute.
#[test]
fn a_terminal_gets_a_bar_and_a_file_gets_lines() {
    let fakes = {
        let fakes = machine();
        (fakes.driver.clone(), fakes.tensorrt(Tables::Ten))
    };
    let deployment = Deployment::new("[\"tensorrt\"]", Some(fakes));
    deployment.builder_after(
        "echo '[I] Start parsing network model.'; sleep 2.5",
        "FAKEPLAN",
    );
    let (_, said) = deployment.run(&["engine", "build"]);
    assert!(
        !said.contains("building: ") && !said.contains('\r'),
        "{said}"
    );
    drop(std::fs::remove_dir_all(
        deployment.folder.path().join("cache"),
    ));
    // `script`, of util-linux, gives it a terminal.
    let build = deployment.command(&["engine", "build"]);
    let words: Vec<String> = std::iter::once(build.get_program())
        .chain(build.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &words.join(" "), "/dev/null"]);
    script.stdin(std::process::Stdio::null());
    for (name, value) in build.get_envs() {
        script.env(name, value.expect("set"));
    }
    let done = match script.output() {
        Ok(done) => done,
        Err(error) => {
            println!("skipped: no script of util-linux: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&done.stdout);
    let first = "\rbuilding: 1 s, reading the graph";
    assert!(
        said.contains(first) && said.contains("---] ") && said.contains(" MiB\x1b[K"),
        "{said:?}"
    );
    assert!(said.contains("\rbuilding: 2 s"), "{said:?}");
    // What follows, here what is wrong with this plan, begins on a line of its own.
    assert!(said.contains(" MiB\x1b[K\r\n"), "{said:?}");
}

#[test]
fn a_ladder_that_is_none_is_refused() {
    for (engines, words) in [
        ("[\"gpu\"]", "\"gpu\""),
        ("[]", "at least one"),
        ("[\"cpu\", \"cpu\"]", "once"),
    ] {
        says(
            Deployment::new(engines, None).run(&["check"]),
            2,
            &["policy.engines", words],
        );
    }
}

/// A ladder with a GPU on it runs apart: what moves the robot has none of the GPU's libraries in its memory, whichever rung
/// is taken in the end.
#[test]
fn the_control_process_holds_no_library_of_the_gpu() {
    let fakes = {
        let fakes = machine();
        (fakes.driver.clone(), fakes.tensorrt(Tables::Ten))
    };
    let ladder = Deployment::new("[\"tensorrt\", \"cpu\"]", Some(fakes.clone()));
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = socket.local_addr().expect("an address").port().to_string();
    drop(socket);
    let path = ladder.folder.path().join("tendon.toml");
    let text = std::fs::read_to_string(&path).expect("written");
    let (text, _) = text.split_once("[page]").expect("the bench has a page");
    std::fs::write(&path, text.replace("7447", &port)).expect("written");
    let log = ladder.folder.path().join("log");
    let mut control = ladder
        .command(&["run"])
        .env("STATE_DIRECTORY", ladder.folder.path().join("state"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("tendon runs");
    let mut told = String::new();
    let out = control.stdout.take().expect("piped");
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut told);
    assert!(read.is_ok() && told.starts_with("standby"), "{told}");
    let ours = std::fs::read_to_string(format!("/proc/{}/maps", control.id())).expect("read");
    let ours_is = format!("PPid:\t{}\n", control.id());
    let children = std::fs::read_dir("/proc").expect("a kernel").flatten();
    let read = |of: &std::path::Path, name| std::fs::read_to_string(of.join(name)).ok();
    let verbs: Vec<String> = children
        .map(|child| child.path())
        .filter(|child| read(child, "status").is_some_and(|status| status.contains(&ours_is)))
        .filter_map(|child| read(&child, "cmdline"))
        .collect();
    drop(control.kill());
    drop(control.wait());
    let log = std::fs::read_to_string(&log).expect("written");
    assert!(
        log.contains("not tensorrt: ") && log.contains("no engine for this stage"),
        "{log}"
    );
    let name = fakes
        .0
        .file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned();
    assert!(ours.contains("tendon") && !ours.contains(&name), "{ours}");
    // The libraries were let go after the fall; that they were never here is only so with a process of their own.
    assert!(
        verbs.iter().any(|verb| verb.contains("inference-process")),
        "{verbs:?}"
    );
    for foreign in ["libcuda", "libnvinfer", "libgst", "libstdc++"] {
        assert!(!ours.contains(foreign), "{foreign}: {ours}");
    }
}
