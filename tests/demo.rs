// SPDX-License-Identifier: Apache-2.0
//! Whole-binary stories: what a user sees.

#[path = "chaos/canary.rs"]
mod canary;

use canary::{alone, told};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tendon::bench::sentences::COLOURS;
use tendon::config::Config;
use tendon::config::link::LinkConfig;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::kinematics::inverse::{Pose, Range, Search};
use tendon::core::kinematics::turn::Turn;
use tendon::core::wire::command::{self as wire, COMMAND_LEN_MAX, Command as Frame, MODE_FOLLOW};
use tendon::hash::hex;
use tendon::link::runtime_end::subscribe;
use tendon::link::{keys, operator_end, session};
use tendon::policy::folder::hash;
use tendon::runtime::deployment::Identities;
use tendon::runtime::{clock, demo};
use zenoh::Wait;

fn tendon(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments);
    command
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Wall-clock fields are the only ones that may differ between two runs.
fn without_wall_clock(mut report: serde_json::Value) -> String {
    let fields = report.as_object_mut().expect("an object");
    fields.remove("inference_ms");
    fields.remove("wall_s");
    report.to_string()
}

#[test]
fn lockstep_does_what_the_sentence_says_and_twice_the_same() {
    let _alone = alone();
    let run = || {
        json(&tendon(&[
            "demo",
            "--headless",
            "--lockstep",
            "--episodes",
            "12",
            "--seed",
            "3",
            "--json",
        ]))
    };
    let report = run();
    assert!(report["success_rate"].as_f64() >= Some(0.85), "{report}");
    assert_eq!(report["limit_violations"], 0, "{report}");
    assert_eq!(report["commands_rejected"], 0, "{report}");
    assert_eq!(report["allocations_in_control_loop"], 0, "{report}");
    let grounding = &report["grounding"];
    assert_eq!(grounding["nonsense_original"]["successes"], 0, "{report}");
    assert_eq!(
        grounding["absent_colour_original"]["successes"], 0,
        "{report}"
    );
    assert_eq!(
        grounding["other_block_original"]["successes"], 0,
        "{report}"
    );
    assert_eq!(without_wall_clock(report), without_wall_clock(run()));
}

#[test]
fn the_quantised_graph_does_it_too() {
    let _alone = alone();
    let report = json(&tendon(&[
        "demo",
        "--headless",
        "--lockstep",
        "--episodes",
        "6",
        "--seed",
        "5",
        "--precision",
        "int8",
        "--json",
    ]));
    assert!(report["success_rate"].as_f64() >= Some(0.66), "{report}");
}

#[test]
fn a_slow_policy_is_late_and_never_wrong() {
    let _alone = alone();
    let report = json(&tendon(&[
        "demo",
        "--headless",
        "--lockstep",
        "--episodes",
        "4",
        "--seed",
        "3",
        "--inject-inference-delay-ms",
        "300",
        "--json",
    ]));
    assert_eq!(report["limit_violations"], 0, "{report}");
    assert_eq!(report["commands_rejected"], 0, "{report}");
}

#[test]
fn in_real_time_over_the_link() {
    told(|| {
        let report = json(&tendon(&[
            "demo",
            "--headless",
            "--episodes",
            "2",
            "--seed",
            "3",
            "--json",
        ]));
        assert_eq!(report["episodes"], 2, "{report}");
        assert_eq!(report["limit_violations"], 0, "{report}");
        assert_eq!(report["allocations_in_control_loop"], 0, "{report}");
        assert_eq!(report["allocations_in_capture_loop"], 0, "{report}");
        assert!(report["commands_sent"].as_u64() > Some(200), "{report}");
    });
}

#[test]
fn check_accepts_the_bench_and_names_what_is_wrong() {
    let good = tendon(&["check", "--config", "deploy/bench/tendon.toml"]);
    assert!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(root.join("deploy/bench").join(name))
            .expect("the bench's file");
        let text = text.replace("../../engines", &root.join("engines").display().to_string());
        std::fs::write(folder.path().join(name), text.replace(from, to)).expect("written");
    };
    let check = |want: &[&str]| {
        let config = folder.path().join("tendon.toml");
        let output = tendon(&["check", "--config", config.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        want.iter()
            .for_each(|want| assert!(said.contains(want), "{want:?} is not in {said}"));
    };
    write("robot.urdf", "", "");
    write("robot.toml", "wrist_pitch", "wrist_picth");
    write("tendon.toml", "", "");
    check(&["wrist_pitch"]);
    write("robot.toml", "", "");
    write("tendon.toml", "rate_hz", "rate_hertz");
    check(&["tendon.toml:", "rate_hertz"]);
    write("tendon.toml", "width = 224", "width = 640");
    check(&["camera.width", "[224, 224]", "640"]);
}

/// What it does with one that is right, the stories in `tests/chaos` show.
#[test]
fn a_bench_robot_takes_no_deployment_that_is_not_of_its_arm() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tendon.toml");
    let refused = |want: &[&str]| {
        let output = tendon(&["bench-robot", "--config", config.to_str().expect("a path")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        want.iter()
            .for_each(|want| assert!(said.contains(want), "{want:?} is not in {said}"));
    };
    refused(&["tendon.toml"]);
    let hasty = demo::TENDON_TOML.replace("hz = 200.0", "hz = 5000.0");
    std::fs::write(&config, hasty).expect("written");
    refused(&["robot.toml"]);
    std::fs::write(folder.path().join("robot.toml"), demo::ROBOT_TOML).expect("written");
    refused(&["control.hz", "50 to 1000", "5000"]);
    std::fs::write(&config, demo::TENDON_TOML).expect("written");
    let other = demo::ROBOT_TOML.replace("elbow_pitch", "knee");
    std::fs::write(folder.path().join("robot.toml"), other).expect("written");
    refused(&["knee", "the bench robot's are", "elbow_pitch"]);
}

#[test]
fn usage_and_missing_things_have_their_own_exit_code() {
    assert_eq!(tendon(&["demo", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(
        tendon(&["demo", "--bundle", "/no/such/bundle"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        tendon(&["policy", "inspect", "/no/such/bundle"])
            .status
            .code(),
        Some(2)
    );
    assert!(
        tendon(&["policy", "inspect", "engines/bench-vla"])
            .status
            .success()
    );
    assert_eq!(
        tendon(&["mode", "active", "--connect", "tcp/127.0.0.1:9"])
            .status
            .code(),
        Some(1)
    );
}

/// What would be passed over, or do nothing and look well, is refused; the words say what there is.
#[test]
fn arguments_that_mean_nothing_are_refused() {
    let said = |arguments: &[&str]| {
        let output = tendon(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        said
    };
    // A bundle that is not there ends a demo whose arguments are taken.
    let rows: [(&[&str], &[&str]); 12] = [
        (&["fault-sim", "--row", "999"], &["999", ", 31, "]),
        (&["fault-sim", "--row", "23"], &["23", ", 31, "]),
        (
            &["sched-sim", "--episodes", "1", "--bench-rules", "typo"],
            &["typo", "replace", "smooth 3"],
        ),
        (
            &["sched-sim", "--episodes", "1", "--bench-delays", "0,77"],
            &["--bench-delays", "77", "0, 50, 150"],
        ),
        (
            &[
                "demo",
                "touch the red block",
                "--headless",
                "--bundle",
                "/none",
            ],
            &["[INSTRUCTION]", "--headless"],
        ),
        (
            &[
                "demo",
                "--headless",
                "--page",
                "127.0.0.1:0",
                "--bundle",
                "/none",
            ],
            &["--page", "cannot be used with", "--headless"],
        ),
        (
            &["demo", "--episodes", "2", "--bundle", "/none"],
            &["required", "--headless"],
        ),
        (
            &["demo", "--json", "--bundle", "/none"],
            &["required", "--headless"],
        ),
        (
            &["demo", "touch the red block", "--bundle", "/none"],
            &["no policy bundle"],
        ),
        (
            &["demo", "--page", "127.0.0.1:0", "--bundle", "/none"],
            &["no policy bundle"],
        ),
        (
            &["demo", "--headless", "--seed", "7", "--bundle", "/none"],
            &["no policy bundle"],
        ),
        (
            &[
                "demo",
                "--headless",
                "--lockstep",
                "--episodes",
                "2",
                "--json",
                "--bundle",
                "/none",
            ],
            &["no policy bundle"],
        ),
    ];
    for (arguments, want) in rows {
        let said = said(arguments);
        for want in want {
            assert!(said.contains(want), "{arguments:?}: no {want:?} in {said}");
        }
    }
}

#[test]
fn a_row_that_is_there_is_struck_alone() {
    let _alone = alone();
    let report = json(&tendon(&[
        "fault-sim",
        "--row",
        "31",
        "--seeds",
        "1",
        "--json",
    ]));
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 1, "{report}");
    assert_eq!(rows[0]["row"], 31, "{report}");
    assert!(report["runs"].as_u64() > Some(0), "{report}");
}

/// For people; `--json` is for programs.
#[test]
fn a_report_is_told_in_words_unless_json_is_asked_for() {
    let _alone = alone();
    let output = tendon(&["demo", "--headless", "--lockstep", "--episodes", "1"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for want in [
        "of 1 episodes",
        "seed 7",
        "0 rejected, 0 beyond the limits",
        "parity holds",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
}

/// A plan whose label is gone is listed as what it is.
#[test]
fn a_plan_without_a_label_is_told_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("engines")).expect("a folder");
    std::fs::write(folder.path().join("engines/stray.plan"), "plan").expect("written");
    let output = command(&["engine", "inspect", "--config", "deploy/bench/tendon.toml"])
        .env("CACHE_DIRECTORY", folder.path())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("stray.plan: unlabelled plan: "), "{said}");
}

/// A deployment on a free port in a folder of its own, its runtime and its bench robot.
struct Stage {
    folder: tempfile::TempDir,
    endpoint: String,
    runtime: Child,
    bench: Child,
}

impl Stage {
    /// Without `doubt_max`: an arm that has done what it was asked hides the block, and the stories are about other causes.
    fn new() -> Stage {
        Stage::with("")
    }

    fn with(doubt: &str) -> Stage {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
        Stage::of(doubt, &bundle, &[])
    }

    fn of(doubt: &str, bundle: &Path, flags: &[&str]) -> Stage {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("a folder");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("tcp/{}", socket.local_addr().expect("an address"));
        drop(socket);
        let tendon = std::fs::read_to_string(root.join("deploy/bench/tendon.toml"))
            .expect("the bench's file");
        let tendon = tendon
            .replace("../../engines/bench-vla", bundle.to_str().expect("a path"))
            .replace(
                "listen = \"tcp/127.0.0.1:7447\"",
                &format!("listen = \"{endpoint}\""),
            )
            .replace("doubt_max = 0.5\n", doubt)
            .replace("[page]\nlisten = \"127.0.0.1:8765\"", "");
        std::fs::write(folder.path().join("tendon.toml"), tendon).expect("written");
        for file in ["robot.toml", "robot.urdf"] {
            let from = root.join("deploy/bench").join(file);
            std::fs::copy(from, folder.path().join(file)).expect("copied");
        }
        let runtime = Stage::runtime(folder.path(), flags);
        let bench = Stage::bench(&endpoint);
        Stage {
            folder,
            endpoint,
            runtime,
            bench,
        }
    }

    fn runtime(folder: &Path, flags: &[&str]) -> Child {
        let config = folder.join("tendon.toml");
        command(&["run", "--config", config.to_str().expect("a path")])
            .args(flags)
            .env("STATE_DIRECTORY", folder.join("state"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the runtime starts")
    }

    fn bench(endpoint: &str) -> Child {
        command(&["bench-robot", "--connect", endpoint])
            .spawn()
            .expect("the bench robot starts")
    }

    fn say(&self, verb: &str, text: &str) -> (Option<i32>, String) {
        let output = tendon(&[verb, text, "--connect", &self.endpoint]);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// Asks for the mode until it starts with `words`; what it says then.
    #[track_caller]
    fn comes_to_be(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let (_, said) = self.say("mode", "status");
            if said.starts_with(words) {
                return said;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "not {words}: {said}"
            );
        }
    }

    /// Repeats a request until it is granted.
    #[track_caller]
    fn until_granted(&self, verb: &str, text: &str) {
        let began = Instant::now();
        loop {
            let (code, said) = self.say(verb, text);
            if code == Some(0) {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{verb} {text}: {said}"
            );
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.runtime, &mut self.bench] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
}

#[test]
fn a_bench_robot_that_is_killed_and_comes_back_is_not_driven_until_a_person_says_so() {
    told(|| {
        let mut stage = Stage::new();
        let (_, refused) = stage.say("mode", "active");
        assert!(
            refused.contains("tendon:"),
            "nobody has said what to do: {refused}"
        );
        stage.until_granted("instruct", "touch the red block");
        stage.until_granted("mode", "active");
        stage.bench.kill().expect("killed");
        stage.bench.wait().expect("gone");
        // The joint state is lost for longer than the limit: latched, whatever comes back.
        let began = Instant::now();
        loop {
            let (code, said) = stage.say("mode", "active");
            if code == Some(1) && said.contains("latched in stopped") {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{said}");
        }
        stage.bench = Stage::bench(&stage.endpoint);
        stage.until_granted("mode", "reset");
        stage.until_granted("mode", "active");
    });
}

#[test]
fn a_camera_that_stops_holds_the_robot_and_motion_resumes_when_it_is_back() {
    told(|| {
        let stage = Stage::new();
        stage.until_granted("instruct", "touch the green block");
        stage.until_granted("mode", "active");
        signal(&stage.bench, "USR1");
        stage.comes_to_be("holding: the camera gives no usable picture");
        signal(&stage.bench, "USR2");
        stage.comes_to_be("active");
        signal(&stage.bench, "USR1");
        stage.comes_to_be("holding");
        stage.until_granted("mode", "standby");
        stage.comes_to_be("standby");
        let (code, said) = stage.say("mode", "active");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no fresh picture"), "{said}");
    });
}

#[test]
fn a_policy_that_is_not_sure_holds_the_robot_calls_for_help_and_goes_on_when_it_is() {
    told(|| {
        let stage = Stage::with("doubt_max = 0.5\n");
        let listens = &["events", "--connect", &stage.endpoint];
        let mut events = Ended(
            command(listens)
                .stdout(Stdio::piped())
                .spawn()
                .expect("it listens"),
        );
        let mut told = events.0.stdout.take().expect("piped");
        stage.until_granted("instruct", &format!("touch the {} block", COLOURS[0]));
        stage.until_granted("mode", "active");
        // Which of them are on the table is the scene's business: asked for one after the other, until one is not there and
        // then one is.
        let unsure = "holding: the policy is not sure enough of what it proposes";
        let mut modes = Vec::new();
        for colour in COLOURS {
            stage.until_granted("instruct", &format!("touch the {colour} block"));
            let states: Vec<String> = (0..12)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(250));
                    stage.say("mode", "status").1
                })
                .collect();
            let doubted = states.iter().skip(6).all(|said| said.starts_with(unsure));
            let goes_on =
                modes.contains(&true) && states.iter().any(|said| said.starts_with("active"));
            assert!(
                doubted || !states[11].starts_with(unsure),
                "{colour}: {states:?}"
            );
            modes.push(doubted);
            if goes_on {
                break;
            }
        }
        assert_eq!(
            modes.last(),
            Some(&false),
            "one is not there and one is: {modes:?}"
        );
        let held = modes.iter().filter(|doubted| **doubted).count();
        drop(events);
        let mut lines = String::new();
        told.read_to_string(&mut lines).expect("text");
        let calls =
            lines.matches("help wanted: the policy was not sure enough of 10 chunks in a row");
        assert_eq!(calls.count(), held, "{modes:?}: {lines}");
    });
}

/// A process that ends with the story, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_latched_stop_survives_the_process_and_needs_a_person() {
    told(|| {
        let mut stage = Stage::new();
        stage.until_granted("instruct", "touch the red block");
        stage.until_granted("mode", "active");
        stage.until_granted("mode", "e-stop");
        stage.comes_to_be("e-stop: emergency stop");
        let state = stage.folder.path().join("state");
        let (kept, armed) = (state.join("latched-stop-bench"), state.join("armed-bench"));
        let began = Instant::now();
        // Killed between the two it would have to be told of both.
        while !kept.exists() || armed.exists() {
            assert!(began.elapsed() < Duration::from_secs(5), "{kept:?}");
        }
        stage.runtime.kill().expect("killed");
        stage.runtime.wait().expect("gone");
        stage.runtime = Stage::runtime(stage.folder.path(), &[]);
        stage.comes_to_be("e-stop: emergency stop");
        stage.until_granted("instruct", "touch the red block");
        let (code, said) = stage.say("mode", "active");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("latched in e-stop"), "{said}");
        stage.until_granted("mode", "reset");
        stage.comes_to_be("standby");
        stage.until_granted("mode", "active");
        assert!(!kept.exists(), "acknowledged, so forgotten");
        // Who ends it right after the reset has said so all the same.
        let link = LinkConfig {
            connect: Some(stage.endpoint.clone()),
            ..LinkConfig::default()
        };
        let session = session::open(&link).expect("the runtime listens");
        stage.until_granted("mode", "e-stop");
        stage.comes_to_be("e-stop: emergency stop");
        let began = Instant::now();
        while !kept.exists() {
            assert!(began.elapsed() < Duration::from_secs(5), "{kept:?}");
        }
        let key = keys::mode("bench");
        while let Err(refused) = operator_end::ask(&session, &key, "reset") {
            // The answer to the last one came too late.
            if refused.to_string().contains("nothing to reset") {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "not reset");
        }
        signal(&stage.runtime, "TERM");
        assert!(stage.runtime.wait().expect("ends").success());
        assert!(!kept.exists(), "acknowledged, so forgotten");
        assert!(!armed.exists());
    });
}

#[test]
fn sigterm_brings_the_robot_to_rest_before_exit() {
    told(|| {
        let mut stage = Stage::new();
        stage.until_granted("instruct", "put the blue block in the left bin");
        stage.until_granted("mode", "active");
        signal(&stage.runtime, "TERM");
        let status = stage.runtime.wait().expect("ends");
        let mut said = String::new();
        stage
            .runtime
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut said)
            .expect("text");
        assert!(status.success(), "{said}");
        assert!(said.contains("at rest"), "{said}");
    });
}

/// The robot's commands as they pass: a keep-alive shows where it is, the others where it is sent.
struct Onlooker {
    session: zenoh::Session,
    identities: Identities,
    newest: Arc<Mutex<Option<Setpoint>>>,
    /// Commands made of a plan, and of them those of a policy that misses its fixture.
    planned: Arc<Mutex<(u32, u32)>>,
    fastest_rad_s: Arc<Mutex<f64>>,
    _subscriber: Box<dyn std::any::Any>,
}

impl Onlooker {
    fn new(endpoint: &str) -> Onlooker {
        let link = LinkConfig {
            connect: Some(endpoint.to_owned()),
            ..LinkConfig::default()
        };
        let session = session::open(&link).expect("the runtime listens");
        let parts =
            Config::bench_parts(demo::TENDON_TOML, demo::ROBOT_TOML).expect("the bench's files");
        let identities = Identities::of(&parts.robot.name, &parts.robot.joints);
        let newest = Arc::new(Mutex::new(None));
        let fastest_rad_s = Arc::new(Mutex::new(0.0_f64));
        let planned = Arc::new(Mutex::new((0, 0)));
        let (seen, fastest) = (Arc::clone(&newest), Arc::clone(&fastest_rad_s));
        let plans = Arc::clone(&planned);
        let subscriber = subscribe(&session, keys::command("bench"), move |frame| {
            let Ok(command) = wire::decode(frame, identities.commands) else {
                return;
            };
            if command.provenance.chunk_id != 0 {
                let mut plans = plans.lock().expect("whole");
                plans.0 += 1;
                plans.1 += u32::from(command.provenance.unproven);
            }
            let speeds = command.setpoint.velocity.iter().take(6).map(|v| v.abs());
            let mut fastest = fastest.lock().expect("whole");
            *fastest = speeds.fold(*fastest, f64::max);
            *seen.lock().expect("whole") = Some(command.setpoint);
        })
        .expect("declared");
        Onlooker {
            session,
            identities,
            newest,
            planned,
            fastest_rad_s,
            _subscriber: Box::new(subscriber),
        }
    }

    /// Of a command that passes from now on.
    fn positions(&self) -> Vec<f64> {
        let began = Instant::now();
        *self.newest.lock().expect("whole") = None;
        loop {
            if let Some(newest) = *self.newest.lock().expect("whole") {
                return newest.position[..newest.joints].to_vec();
            }
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "no command passes"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the joint is there within ten seconds.
    fn comes_to(&self, joint: usize, q_rad: f64) -> bool {
        let began = Instant::now();
        while (self.positions()[joint] - q_rad).abs() > 0.02 {
            if began.elapsed() > Duration::from_secs(10) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

#[test]
fn a_robot_is_parked_by_name_at_the_speed_that_was_asked_for() {
    told(|| {
        let stage = Stage::new();
        let onlooker = Onlooker::new(&stage.endpoint);
        let (code, said) = stage.say("park", "nowhere");
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("home, aside"), "{said}");
        let (code, said) = stage.say("speed", "101");
        assert_eq!(code, Some(1), "{said}");
        stage.until_granted("speed", "20");
        let listens = &["events", "--connect", &stage.endpoint];
        let mut events = Ended(
            command(listens)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it listens"),
        );
        let mut out = events.0.stdout.take().expect("piped");
        let mut ready = [0; 9];
        let stderr = events.0.stderr.as_mut().expect("piped");
        std::io::Read::read_exact(stderr, &mut ready).expect("it says that it listens");
        // A crowded machine may stop the robot on its way; it is parked again.
        let parked = (0..5).any(|_| {
            stage.say("mode", "reset");
            stage.until_granted("park", "aside");
            onlooker.comes_to(0, 1.0) && onlooker.comes_to(1, -0.4)
        });
        assert!(parked, "at {:?}", onlooker.positions());
        let fastest_rad_s = *onlooker.fastest_rad_s.lock().expect("whole");
        // 20 % of 2.5 rad/s, and half of that in the first second.
        assert!(
            (0.3..0.5001).contains(&fastest_rad_s),
            "{fastest_rad_s} rad/s"
        );
        stage.until_granted("mode", "standby");
        stage.comes_to_be("standby");
        // Told at 50 Hz.
        std::thread::sleep(Duration::from_millis(500));
        drop(events);
        let mut told = String::new();
        out.read_to_string(&mut told).expect("text");
        assert!(told.starts_with("takeover"), "{told}");
        assert!(told.contains("stopped on request"), "{told}");
    });
}

#[test]
fn a_device_takes_over_from_where_the_robot_is_and_its_silence_ends_it() {
    told(|| {
        let stage = Stage::new();
        let onlooker = Onlooker::new(&stage.endpoint);
        // Before the robot was heard there is no pose to show, and its elbow is bent at home.
        let mut home = onlooker.positions();
        while home[2] == 0.0 {
            home = onlooker.positions();
        }
        let sender = onlooker
            .session
            .declare_publisher(keys::takeover("bench"))
            .wait()
            .expect("declared");
        let mut counter = 0;
        let mut send = |base_yaw_rad: f64| {
            counter += 1;
            let mut setpoint = Setpoint::at_rest(&home);
            setpoint.position[0] = base_yaw_rad;
            let command = Frame {
                counter,
                epoch: 77,
                sent: clock::now(),
                valid_for_us: 50_000,
                mode: MODE_FOLLOW,
                verdict: 0,
                action: 0,
                provenance: Provenance::default(),
                setpoint,
                tool: None,
            };
            let mut frame = [0; COMMAND_LEN_MAX];
            let length =
                wire::encode(&command, onlooker.identities.takeovers, &mut frame).expect("room");
            sender.put(&frame[..length]).wait().expect("taken");
            std::thread::sleep(Duration::from_millis(10));
        };
        // Sent all along; followed only once it was asked for and brought to the robot.
        for _ in 0..50 {
            send(0.3);
        }
        assert!(
            (onlooker.positions()[0] - home[0]).abs() < 0.02,
            "nobody asked for a takeover"
        );
        // Held elsewhere: the robot waits for it, not longer than a deadman switch may be away. A crowded machine may be
        // silent for so long that the motor controller ends the takeover first; it is asked for again then.
        let silence = "standby: the deadman switch is not held";
        let ended_by_silence = (0..5).any(|_| {
            let began = Instant::now();
            while stage.say("mode", "takeover").0 != Some(0) {
                assert!(began.elapsed() < Duration::from_secs(20), "never granted");
                send(0.3);
            }
            for _ in 0..20 {
                send(0.3);
            }
            assert!(
                (onlooker.positions()[0] - home[0]).abs() < 0.02,
                "it was never where the robot is"
            );
            stage.comes_to_be("standby").starts_with(silence)
        });
        assert!(ended_by_silence, "{}", stage.say("mode", "status").1);
        // A crowded machine may keep the device from sending for 100 ms, which ends the takeover; it is asked for again.
        let target = home[0] + 0.3;
        let arrived = (0..5).any(|_| {
            stage.until_granted("mode", "takeover");
            let from = onlooker.positions()[0];
            // A hand moves with time, however seldom its device gets to say so.
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(2) {
                send(from + (target - from) * began.elapsed().as_secs_f64().min(1.0));
            }
            (onlooker.positions()[0] - target).abs() < 0.02
                && stage.comes_to_be("standby").starts_with(silence)
        });
        assert!(arrived, "at {}, not {target}", onlooker.positions()[0]);
    });
}

/// A motor controller that takes poses finds in each command where the joints put the tool: its own inverse kinematics
/// comes to the same joints, all the way, and the twist is how that pose moves.
#[test]
fn commands_also_say_where_the_tool_is_to_be_and_how_it_moves() {
    told(|| {
        let mut stage = Stage::new();
        stage.runtime.kill().expect("killed");
        stage.runtime.wait().expect("gone");
        let file = stage.folder.path().join("robot.toml");
        let text = std::fs::read_to_string(&file).expect("copied");
        std::fs::write(&file, text.replace("[space]", "[space]\ntool = \"tool\""))
            .expect("written");
        stage.runtime = Stage::runtime(stage.folder.path(), &[]);
        let config = Config::load(&stage.folder.path().join("tendon.toml")).expect("good");
        let chain = config.robot.space.as_ref().expect("a space").chain();
        let link = config.robot.tool.expect("a tool");
        let onlooker = Onlooker::new(&stage.endpoint);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (into, commands) = (Arc::clone(&heard), onlooker.identities.commands);
        let _listens = subscribe(&onlooker.session, keys::command("bench"), move |frame| {
            let command = wire::decode(frame, commands).expect("the runtime's");
            into.lock().expect("whole").push(command);
        });
        stage.until_granted("instruct", "put the red block in the left bin");
        stage.until_granted("mode", "active");
        let began = Instant::now();
        let follows =
            |command: &Frame| command.mode == MODE_FOLLOW && command.provenance.chunk_id != 0;
        while heard
            .lock()
            .expect("whole")
            .iter()
            .filter(|command| follows(command))
            .count()
            < 1_000
        {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "no plan is followed"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut heard = std::mem::take(&mut *heard.lock().expect("whole"));
        // Before the robot was heard there is no pose to show.
        heard.drain(..heard.iter().position(follows).expect("counted above"));
        let limits = config.robot.joints.iter().map(|(_, joint)| Range {
            min: joint.limits.position_min,
            max: joint.limits.position_max,
            free: joint.kind != JointKind::Gripper,
        });
        let limits: Vec<Range> = limits.collect();
        let pose = |command: &Frame| {
            let tool = command.tool.expect("each command tells of it");
            let [x, y, z, w] = tool.orientation;
            let turn = Turn::unit(w, [x, y, z]).expect("a unit quaternion");
            (
                tool,
                Pose {
                    at: tool.position_m,
                    turn,
                },
            )
        };
        let search = Search {
            within: 1e-9,
            ..Search::default()
        };
        let mut joints = heard[0].setpoint.positions().to_vec();
        let (mut apart, mut off, mut travelled) = ([0.0_f64; 2], [0.0_f64; 2], 0.0);
        for pair in heard.windows(2) {
            let ((_, from), (tool, to)) = (pose(&pair[0]), pose(&pair[1]));
            // The gripper is no part of a pose.
            let gripper = pair[1].setpoint.positions().len() - 1;
            joints[gripper] = pair[1].setpoint.position[gripper];
            let near = joints.clone();
            let missing = chain
                .reach(link, &to, &limits, &near, &search, &mut joints)
                .expect("of this chain");
            apart[0] = apart[0].max(missing.way_m).max(missing.angle_rad);
            let differ = joints.iter().zip(pair[1].setpoint.positions());
            apart[1] = differ.fold(apart[1], |most, (ours, theirs)| {
                most.max((ours - theirs).abs())
            });
            // How the pose moves when the joints go on for a moment as the command says.
            const MOMENT_S: f64 = 1e-5;
            let moved = |moment_s: f64| {
                let setpoint = &pair[1].setpoint;
                let joints = setpoint.positions().iter().zip(setpoint.velocities());
                let joints: Vec<f64> = joints.map(|(q, v)| q + moment_s * v).collect();
                chain.pose(&joints, link).expect("of this chain")
            };
            let (behind, ahead) = (moved(-MOMENT_S), moved(MOMENT_S));
            let turned = ahead.turn.then_inside(behind.turn.back()).vector();
            for (axis, turned) in turned.iter().enumerate() {
                let per_s = |way: f64| way / (2.0 * MOMENT_S);
                let linear = per_s(ahead.at[axis] - behind.at[axis]) - tool.velocity_m_s[axis];
                let angular = per_s(*turned) - tool.angular_velocity_rad_s[axis];
                off[0] = off[0].max(linear.abs());
                off[1] = off[1].max(angular.abs());
            }
            if pair.iter().all(|command| command.mode == MODE_FOLLOW) {
                let way = (0..3).map(|axis| (to.at[axis] - from.at[axis]).powi(2));
                travelled += way.sum::<f64>().sqrt();
            }
        }
        println!(
            "{} commands, {travelled:.2} m: pose missed by {:.1e}, joints by {:.1e} rad, twist by {:.1e} m/s and {:.1e} rad/s",
            heard.len(),
            apart[0],
            apart[1],
            off[0],
            off[1]
        );
        assert!(travelled > 0.1, "it was to move");
        assert!(apart[0] < 1e-6 && apart[1] < 1e-3, "{apart:?}");
        assert!(off[0] < 1e-6 && off[1] < 1e-6, "{off:?}");
    });
}

/// The shipped bundle with a reference that its own graph does not give: another policy under the same name.
fn unlike_its_reference(into: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    for entry in std::fs::read_dir(shipped).expect("the shipped bundle") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, into.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    let fixture = into.join("parity.safetensors");
    let mut bytes = std::fs::read(&fixture).expect("a fixture");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let offset = |index: usize| {
        let offset = &header["action"]["data_offsets"][index];
        8 + length + offset.as_u64().expect("a number") as usize
    };
    // The first joint of the first action goes the other way.
    let first = offset(0)..offset(0) + 4;
    let value = f32::from_le_bytes(bytes[first.clone()].try_into().expect("four bytes"));
    bytes[first].copy_from_slice(&(value + 0.05).to_le_bytes());
    std::fs::write(fixture, &bytes).expect("written");
    let manifest = into.join("manifest.json");
    let text = std::fs::read(&manifest).expect("a manifest");
    let mut root: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    root["tendon"]["sha256"]["parity.safetensors"] = hex(&hash(&bytes)).into();
    std::fs::write(manifest, root.to_string()).expect("written");
}

#[test]
fn a_policy_that_misses_its_fixture_is_refused_and_what_a_person_lets_through_says_so() {
    told(|| {
        let folder = tempfile::tempdir().expect("a folder");
        unlike_its_reference(folder.path());
        let bundle = folder.path().to_str().expect("a path");
        let verify = tendon(&["policy", "verify", bundle, "--json"]);
        assert_eq!(verify.status.code(), Some(1));
        let parity = json(&verify);
        let yaw = &parity["joints"][0];
        assert_eq!(
            (&yaw["name"], &yaw["unit"]),
            (&"base_yaw".into(), &"rad".into())
        );
        assert!(
            (yaw["error_max"].as_f64().expect("a number") - 0.05).abs() < 1e-4,
            "{parity}"
        );
        let demo = [
            "demo",
            "--headless",
            "--lockstep",
            "--episodes",
            "1",
            "--json",
            "--bundle",
            bundle,
        ];
        let refused = tendon(&demo);
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        for word in [
            "parity.safetensors",
            "error_max_fraction",
            "base_yaw",
            "frame 0",
        ] {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
        let report = json(&tendon(&[&demo[..], &["--allow-parity-miss"]].concat()));
        let misses = |of: &serde_json::Value| of["parity"]["missed"].as_array().map_or(0, Vec::len);
        assert!(misses(&report) > 0, "{report}");
        assert!(
            report["policy"]
                .as_str()
                .is_some_and(|name| name.contains("misses its parity fixture"))
        );

        // No configuration lets it through: without the flag the runtime ends at once.
        let mut refused = Stage::of("", folder.path(), &[]);
        let status = refused.runtime.wait().expect("ends");
        assert_eq!(status.code(), Some(2));
        let config = refused.folder.path().join("tendon.toml");
        let config = config.to_str().expect("a path");
        let check = json(&tendon(&[
            "check",
            "--config",
            config,
            "--json",
            "--allow-parity-miss",
        ]));
        assert!(misses(&check) > 0, "{check}");
        drop(refused);

        let stage = Stage::of("", folder.path(), &["--allow-parity-miss"]);
        stage.until_granted("instruct", "touch the red block");
        let listens = &["events", "--connect", &stage.endpoint];
        let mut events = Ended(
            command(listens)
                .stdout(Stdio::piped())
                .spawn()
                .expect("it listens"),
        );
        let mut told = events.0.stdout.take().expect("piped");
        let onlooker = Onlooker::new(&stage.endpoint);
        let planned = Arc::clone(&onlooker.planned);
        // A crowded machine may hold the robot, or stop it; it is armed again.
        let until_planned = |count: u32| {
            let began = Instant::now();
            while planned.lock().expect("whole").0 < count {
                assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "no plan is followed"
                );
                std::thread::sleep(Duration::from_millis(500));
                if !stage.say("mode", "status").1.starts_with("active") {
                    stage.say("mode", "reset");
                    stage.say("mode", "active");
                }
            }
        };
        // Each arming says so anew.
        for _ in 0..2 {
            let before = planned.lock().expect("whole").0;
            stage.until_granted("mode", "active");
            until_planned(before + 100);
            stage.until_granted("mode", "standby");
        }
        let (plans, unproven) = *planned.lock().expect("whole");
        assert_eq!(plans, unproven, "every command of a plan");
        drop(events);
        let mut lines = String::new();
        told.read_to_string(&mut lines).expect("text");
        let confessed = lines
            .matches("the policy misses its parity fixture")
            .count();
        assert!(confessed >= 2, "{lines}");
        drop(stage);

        // And one that holds it says nothing of the kind.
        let stage = Stage::new();
        stage.until_granted("instruct", "touch the red block");
        let onlooker = Onlooker::new(&stage.endpoint);
        stage.until_granted("mode", "active");
        let began = Instant::now();
        while onlooker.planned.lock().expect("whole").0 < 50 {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "no plan is followed"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(onlooker.planned.lock().expect("whole").1, 0);
    });
}
