// SPDX-License-Identifier: Apache-2.0
//! Rows of one line: a change to the bench deployment, and what the answer must name.

use super::*;
use proptest::prelude::*;

const TENDON: &str = include_str!("../../deploy/bench/tendon.toml");
const ROBOT: &str = include_str!("../../deploy/bench/robot.toml");
const URDF: &str = include_str!("../../deploy/bench/robot.urdf");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench")
}

fn refused(tendon: &str, robot: &str) -> String {
    let problems = Config::from_texts(tendon, robot, URDF, &folder()).expect_err("must be refused");
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

#[track_caller]
fn check_tendon(from: &str, to: &str, wants: &[&str]) {
    assert!(TENDON.contains(from), "{from}");
    let answer = refused(&TENDON.replacen(from, to, 1), ROBOT);
    wants
        .iter()
        .for_each(|want| assert!(answer.contains(want), "{want:?} is not in {answer}"));
}

#[track_caller]
fn check_robot(from: &str, to: &str, wants: &[&str]) {
    assert!(ROBOT.contains(from), "{from}");
    let answer = refused(TENDON, &ROBOT.replacen(from, to, 1));
    wants
        .iter()
        .for_each(|want| assert!(answer.contains(want), "{want:?} is not in {answer}"));
}

#[test]
fn the_bench_deployment_is_good_and_is_the_bench() {
    let config = Config::from_texts(TENDON, ROBOT, URDF, &folder()).expect("good");
    assert_eq!(config.control.period_ns, 5 * MS);
    for (index, (name, joint)) in config.robot.joints.iter().take(6).enumerate() {
        use crate::bench::arm;
        assert_eq!(name, arm::JOINT_NAMES[index]);
        assert_eq!(joint.limits.position_min, arm::POSITION_MIN_RAD[index]);
        assert_eq!(joint.limits.position_max, arm::POSITION_MAX_RAD[index]);
        assert_eq!(joint.limits.velocity_max, arm::VELOCITY_MAX_RAD_S[index]);
        assert_eq!(
            joint.limits.acceleration_max,
            arm::ACCELERATION_MAX_RAD_S2[index]
        );
        assert_eq!(joint.limits.jerk_max, arm::JERK_MAX_RAD_S3[index]);
    }
}

#[test]
fn every_mistake_is_named_with_its_line() {
    check_tendon(
        "rate_hz",
        "rate_herz",
        &["tendon.toml:9", "rate_herz", "rate_hz"],
    );
    check_tendon(
        "rate_hz = 10.0",
        "rate_hz = \"ten\"",
        &["tendon.toml:9", "number"],
    );
    check_tendon(
        "rate_hz = 10.0",
        "rate_hz = 0",
        &["tendon.toml:9", "policy.rate_hz", "0.1 to 120", "found 0"],
    );
    for (given, wanted) in [
        ("infer = \"often\"", ["policy.infer", "\"horizon\""]),
        ("infer = \"horizon\"", ["policy.infer", "execute_actions"]),
        (
            "execute_actions = 8",
            ["policy.execute_actions", "continuous"],
        ),
        (
            "infer = \"queue\"\nqueue_share = 0.5\nqueue_actions = 4",
            ["policy.infer", "just one"],
        ),
        (
            "infer = \"queue\"\nqueue_share = 1.5",
            ["policy.queue_share", "0 to 1"],
        ),
        (
            "infer = \"surprise\"\nsurprise_scene = -0.1",
            ["policy.surprise_scene", "0 to 1"],
        ),
        (
            "infer = \"surprise\"\nsurprise_tracking = 0.1\nexecute_actions = 3",
            ["policy.execute_actions", "surprise"],
        ),
    ] {
        check_tendon(
            "rate_hz = 10.0",
            &format!("rate_hz = 10.0\n{given}"),
            &wanted,
        );
    }
    check_tendon(
        "rate_hz = 10.0",
        "rate_hz = nan",
        &["policy.rate_hz", "NaN"],
    );
    check_tendon("rate_hz = 10.0\n", "", &["rate_hz"]);
    check_tendon(
        "doubt_max = 0.5",
        "doubt_max = 1.5",
        &["tendon.toml:10", "policy.doubt_max", "0 to 1", "found 1.5"],
    );
    check_tendon(
        "doubt_max = 0.5",
        "doubt_max = 0.5\nhelp_after_chunks = 0",
        &["tendon.toml:11", "policy.help_after_chunks", "1 to 10000"],
    );
    check_tendon(
        "doubt_max = 0.5",
        "help_after_chunks = 5",
        &[
            "tendon.toml:10",
            "policy.help_after_chunks",
            "policy.doubt_max",
        ],
    );
    check_tendon(
        "\"fp32\"",
        "\"fp64\"",
        &[
            "tendon.toml:8",
            "\"fp32\", \"fp16\", \"int8\" or \"best\"",
            "\"fp64\"",
        ],
    );
    check_tendon(
        "engines/bench-vla",
        "engines/nothing",
        &["tendon.toml:7", "policy.bundle", "manifest.json"],
    );
    check_tendon(
        "\"tcp/127.0.0.1:7447\"",
        "\"tcp/0.0.0.0:7447\"",
        &["link.listen", "authentication", "0.0.0.0"],
    );
    check_tendon(
        "\"tcp/127.0.0.1:7447\"",
        "\"quic/localhost:7447\"",
        &["link.listen", "link.tls_ca", "not all of them"],
    );
    // What zenoh is told about an endpoint is ours to say.
    check_tendon(
        "\"tcp/127.0.0.1:7447\"",
        "\"quic/localhost:7447?rel=0\"",
        &["link.listen", "quic/tendon.local:7448", "rel=0"],
    );
    check_tendon(
        "\"tcp/127.0.0.1:7447\"",
        "\"udp:7447\"",
        &["link.listen", "udp:7447"],
    );
    check_tendon(
        "listen = \"tcp/127.0.0.1:7447\"",
        "",
        &["listen or connect"],
    );
    check_tendon(
        "listen = \"tcp/127.0.0.1:7447\"",
        "listen = \"tcp/127.0.0.1:1\"\nuser = \"me\"",
        &["link.password_file"],
    );
    check_tendon("hz = 200.0", "hz = 20", &["control.hz", "50 to 1000"]);
    check_tendon(
        "state_age_max_ms = 25",
        "state_age_max_ms = -1",
        &["control.state_age_max_ms"],
    );
    check_tendon("\"blend\"", "\"mix\"", &["schedule.merge", "\"mix\""]);
    check_tendon("blend_ms = 100", "", &["schedule.blend_ms", "nothing"]);
    check_tendon("\"blend\"", "\"replace\"", &["schedule.blend_ms"]);
    check_tendon(
        "blend_ms = 100",
        "blend_ms = 101",
        &["schedule.blend_ms", "at most 100", "found 101"],
    );
    check_tendon(
        "127.0.0.1:8765",
        "0.0.0.0:8765",
        &["page.listen", "loopback"],
    );
    check_tendon("width = 224", "width = 1e9", &["camera.width"]);
    check_tendon(
        "width = 224",
        "moves = 1\nwidth = 224",
        &["tendon.toml:", "expected a boolean"],
    );
    check_tendon("\"front\"", "\"fro/nt\"", &["camera.name"]);
    check_tendon("[policy]", "[policy", &["tendon.toml:"]);
    check_robot(
        "kind = \"revolute\"",
        "kind = \"spherical\"",
        &["robot.toml:6", "joint[0] \"base_yaw\".kind", "spherical"],
    );
    check_robot(
        "position_min_rad = -2.9\n",
        "",
        &["joint[0] \"base_yaw\".position_min_rad", "never guessed"],
    );
    check_robot(
        "position_max_rad = 2.9",
        "position_max_rad = -3.0",
        &["position_max_rad", "more than", "-3"],
    );
    check_robot(
        "velocity_max_rad_s = 2.5",
        "velocity_max_rad_s = 0",
        &["velocity_max_rad_s", "more than 0"],
    );
    check_robot(
        "velocity_max_rad_s = 2.5",
        "velocity_max_deg_s = 140",
        &["velocity_max_deg_s", "velocity_max_rad_s"],
    );
    check_robot(
        "acceleration_max_rad_s2 = 15.0",
        "acceleration_max_rad_s2 = inf",
        &["acceleration_max_rad_s2", "finite"],
    );
    check_robot(
        "acceleration_max_rad_s2 = 15.0",
        "acceleration_max_m_s2 = 15.0",
        &["in rad", "acceleration_max_rad_s2"],
    );
    check_robot(
        "tracking_error_max_rad = 0.2\n",
        "tracking_error_max_rad = 0.2\ntorque_max_nm = 0\n",
        &["torque_max_nm", "more than 0"],
    );
    check_robot(
        "tracking_error_max_rad = 0.2\n",
        "tracking_error_max_rad = 0.2\nforce_max_n = 5\n",
        &["in rad", "force_max_n"],
    );
    check_robot(
        "\"shoulder_pitch\"",
        "\"base_yaw\"",
        &["joint[1]", "no other joint"],
    );
    check_robot(
        "kind = \"gripper\"",
        "kind = \"gripper\"\nposition_max_rad = 1",
        &["0 to 1"],
    );
    check_robot(
        "name = \"bench\"",
        "name = \"my robot\"",
        &["name", "my robot"],
    );
    assert!(refused(TENDON, "name = \"empty\"").contains("1 to 64 [[joint]]"));
}

#[test]
fn two_cameras_behind_one_device_are_refused_with_both_lines() {
    const ONE: &str = "[camera]\nname = \"front\"\nwidth = 224\nheight = 224\nage_max_ms = 150\n";
    assert!(TENDON.contains(ONE));
    let with = |second: &str| {
        let cameras = [("front", "/dev/video4"), ("side", second)].map(|(name, device)| {
            format!(
                "[[camera]]\nname = \"{name}\"\nsource = \"v4l\"\ndevice = \"{device}\"\nrate_hz = 30\n\
                 width = 224\nheight = 224\nage_max_ms = 150\n"
            )
        });
        TENDON.replacen(ONE, &cameras.concat(), 1)
    };
    let text = with("/dev/video4");
    let lines: Vec<usize> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.starts_with("device = "))
        .map(|(number, _)| number)
        .collect();
    let answer = refused(&text, ROBOT);
    let wanted = format!(
        "tendon.toml:{}: camera[1] \"side\".device: expected a device that no other camera has, found \"/dev/video4\" \
         again, as in line {}\n",
        lines[1], lines[0]
    );
    assert_eq!(answer, wanted);
    let config = Config::from_texts(&with("/dev/video5"), ROBOT, URDF, &folder());
    assert_eq!(config.expect("two devices").more_cameras.len(), 1);
}

#[test]
fn a_pipeline_is_not_repeated_where_it_is_refused() {
    let pipeline = "pipeline = \"rtspsrc location=rtsp://admin:secret@camera/1\"\nwidth = 224";
    let text = TENDON.replacen("width = 224", pipeline, 1);
    let refused = Config::from_texts(&text, ROBOT, URDF, &folder()).expect_err("of another source");
    let said = format!("{refused:?}");
    assert!(said.contains("camera.pipeline"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_camera_moves_with_the_robot_only_if_that_is_said() {
    for (said, moves) in [
        ("", false),
        ("moves = false\n", false),
        ("moves = true\n", true),
    ] {
        let text = TENDON.replacen("width = 224", &format!("{said}width = 224"), 1);
        let config = Config::from_texts(&text, ROBOT, URDF, &folder()).expect(said);
        assert_eq!(config.camera.moves, moves, "{said}");
        assert_eq!(config.camera.expected().moves, moves, "{said}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let tendon = TENDON
        .replace("hz = 200.0", "hz = 1")
        .replace("\"fp32\"", "\"x\"");
    let answer = refused(
        &tendon,
        &ROBOT.replacen("velocity_max_rad_s = 2.5", "velocity_max_rad_s = -1", 2),
    );
    assert_eq!(answer.lines().count(), 4, "{answer}");
}

#[test]
fn what_is_asked_of_the_kernel_is_checked_too() {
    let with = |table: &str| format!("{TENDON}\n[realtime]\n{table}");
    let good =
        with("mode = \"require\"\nlock_memory = false\n[realtime.cores]\ncontrol = [3, 1, 3]\n");
    let config = Config::from_texts(&good, ROBOT, URDF, &folder()).expect("good");
    assert_eq!(config.realtime.mode, realtime::RealtimeMode::Require);
    assert!(!config.realtime.lock_memory);
    assert_eq!(config.realtime.cores.get("control"), Some(&vec![1, 3]));
    let answer = refused(&with("mode = \"must\"\n"), ROBOT);
    assert!(
        answer.contains("realtime.mode") && answer.contains("must"),
        "{answer}"
    );
    let answer = refused(&with("[realtime.cores]\npilot = [1]\negress = []\n"), ROBOT);
    assert!(
        answer.contains("realtime.cores.pilot: expected one of capture"),
        "{answer}"
    );
    assert!(answer.contains("realtime.cores.egress"), "{answer}");
    let answer = refused(
        &with("mode = \"off\"\n[realtime.cores]\ncontrol = [1.5]\n"),
        ROBOT,
    );
    assert_eq!(answer.lines().count(), 2, "{answer}");
}

#[test]
fn a_missing_file_is_named() {
    let problems = Config::load(Path::new("no/such/tendon.toml")).expect_err("missing");
    assert!(
        problems[0].to_string().contains("no/such/tendon.toml"),
        "{problems:?}"
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", cut in 0usize..2000) {
        let _ = Config::from_texts(&text, &text, &text, &folder());
        let cut = TENDON.char_indices().map(|(at, _)| at).take_while(|at| *at <= cut).last().unwrap_or(0);
        let _ = Config::from_texts(&TENDON[..cut], ROBOT, URDF, &folder());
    }
}

#[test]
fn every_merge_rule_is_read_and_its_mistakes_name_the_key() {
    use crate::core::schedule::Merge;
    use crate::core::schedule::merge::{Aggregate, Order};
    const FROM: &str = "merge = \"blend\"\nblend_ms = 100";
    let good = |to: &str| {
        let config = Config::from_texts(&TENDON.replacen(FROM, to, 1), ROBOT, URDF, &folder());
        config.expect("good").schedule.merge
    };
    assert_eq!(good("merge = \"replace\""), Merge::Replace);
    assert_eq!(
        good("merge = \"ensemble\"\nensemble_decay = 0.01\nensemble_order = \"newest_first\""),
        Merge::Ensemble {
            decay: 0.01,
            order: Order::NewestFirst
        }
    );
    for (name, mix) in Aggregate::NAMED {
        let written = format!("merge = \"aggregate\"\naggregate = \"{name}\"");
        assert_eq!(good(&written), Merge::Aggregate(mix));
    }
    assert_eq!(
        good("merge = \"smooth\"\nsmooth_last = 3"),
        Merge::Smooth { last: 3 }
    );

    check_tendon(
        FROM,
        "merge = \"ensemble\"",
        &["schedule.ensemble_decay", "schedule.ensemble_order"],
    );
    check_tendon(
        FROM,
        "merge = \"ensemble\"\nensemble_decay = nan\nensemble_order = \"first\"",
        &[
            "schedule.ensemble_decay",
            "NaN",
            "schedule.ensemble_order",
            "\"first\"",
        ],
    );
    check_tendon(
        FROM,
        "merge = \"aggregate\"\naggregate = \"mean\"",
        &["schedule.aggregate", "\"mean\"", "weighted_average"],
    );
    check_tendon(
        FROM,
        "merge = \"smooth\"\nsmooth_last = 0",
        &["schedule.smooth_last", "1 to 32"],
    );
    check_tendon(
        FROM,
        "merge = \"replace\"\naggregate = \"average\"",
        &["schedule.aggregate"],
    );
    for key in [
        "fresh_ms",
        "expiry_ms",
        "instruction_tail_steps",
        "instruction_pause_ms",
        "start_ms",
    ] {
        let written = format!("merge = \"replace\"\n{key} = -1");
        let text = TENDON
            .replacen(FROM, &written, 1)
            .replacen("start_ms = 400\n", "", 1);
        let answer = refused(&text, ROBOT);
        assert!(answer.contains(&format!("schedule.{key}")), "{answer}");
    }
}

#[test]
fn the_jerk_limit_of_robot_toml_bounds_the_seams() {
    use crate::core::action::Setpoint;
    use crate::core::chunk::{Chunk, Provenance};
    use crate::core::schedule::{Schedule, Step};
    use crate::core::units::Mono;
    // Two plans that stand 0.4 rad apart: all motion is the seam's, over 400 ms at least, as start_ms says, and soon
    // after one another, so that the seam is no gentler than it must be.
    let jerk_most = |jerk: &str| {
        let written = format!("jerk_max_rad_s3 = {jerk}");
        let robot = ["1500.0", "2000.0"]
            .iter()
            .fold(ROBOT.to_owned(), |text, was| {
                text.replace(&format!("jerk_max_rad_s3 = {was}"), &written)
            });
        let tendon = TENDON.replace("merge = \"blend\"\nblend_ms = 100", "merge = \"replace\"");
        let config = Config::from_texts(&tendon, &robot, URDF, &folder()).expect("good");
        let joints = config.robot.joints.len();
        let mut schedule = Schedule::new(config.schedule());
        schedule.reset(&Setpoint::at_rest(&vec![0.0; joints]));
        let mut positions = Vec::new();
        for ms in (1_000..3_500).step_by(5) {
            let now = Mono(ms * MS);
            if [1_000, 1_200].contains(&ms) {
                let provenance = Provenance {
                    chunk_id: ms as u32,
                    captured: now,
                    ..Provenance::default()
                };
                let target = if ms == 1_000 { 0.0 } else { 0.4 };
                let values = vec![target; 20 * joints];
                let chunk = Chunk::new(now, 100 * MS, joints, &values, provenance);
                schedule.offer(now, &chunk.expect("a good chunk"));
            }
            if let Step::Setpoint { setpoint, .. } = schedule.step(now, None) {
                positions.push(setpoint.position[0]);
            }
        }
        assert!(positions.last().is_some_and(|q| (q - 0.4).abs() < 1e-3));
        positions
            .windows(4)
            .map(|w| ((w[3] - 3.0 * w[2] + 3.0 * w[1] - w[0]) / 0.005_f64.powi(3)).abs())
            .fold(0.0, f64::max)
    };
    let (tight, wide) = (jerk_most("150.0"), jerk_most("1500.0"));
    assert!((30.0..150.0).contains(&tight), "{tight}");
    assert!((200.0..1500.0).contains(&wide), "{wide}");
}

#[test]
fn where_it_runs() {
    let isolated = |word: &str| {
        let text = TENDON.replacen("\nrobot = ", &format!("\n{word}\nrobot = "), 1);
        Config::from_texts(&text, ROBOT, URDF, &folder()).map(|config| config.isolation.process)
    };
    assert_eq!(isolated(""), Ok(false), "all of it is Rust");
    assert_eq!(isolated("isolation = \"auto\""), Ok(false));
    assert_eq!(isolated("isolation = \"process\""), Ok(true));
    let gpu = TENDON.replacen("rate_hz", "engines = [\"tensorrt\", \"cpu\"]\nrate_hz", 1);
    let gpu = Config::from_texts(&gpu, ROBOT, URDF, &folder()).expect("a ladder");
    assert!(
        gpu.isolation.process,
        "an engine that is not Rust runs apart"
    );
    let robot = "\nrobot = ";
    for (word, wants) in [
        (
            "isolation = \"container\"",
            ["isolation: expected \"auto\"", "\"container\""],
        ),
        (
            "inference_program = \"x\"",
            ["inference_program", "isolation = \"process\" beside it"],
        ),
    ] {
        check_tendon(robot, &format!("\n{word}{robot}"), &wants);
    }
}

#[test]
fn a_policy_that_another_machine_runs() {
    let remote = |text: &str| format!("{text}\nrate_hz");
    let both = "engines = [\"remote\"]\nremote = \"tcp/127.0.0.1:7448\"";
    let text = TENDON.replacen("rate_hz", &remote(both), 1);
    let config = Config::from_texts(&text, ROBOT, URDF, &folder()).expect("good");
    let asked = config.policy.remote.expect("a server");
    assert_eq!(asked.link.connect.as_deref(), Some("tcp/127.0.0.1:7448"));
    assert_eq!((asked.link.listen, asked.timeout_ns), (None, 500_000_000));
    assert!(config.isolation.process, "what it waits for is elsewhere");
    for (text, wants) in [
        (
            "engines = [\"remote\"]",
            ["policy.remote: expected where", "nothing"],
        ),
        (
            "remote = \"tcp/127.0.0.1:7448\"",
            ["policy.remote", "\"remote\" in policy.engines"],
        ),
        (
            "remote_timeout_ms = 100",
            ["policy.remote_timeout_ms", "policy.remote beside it"],
        ),
        (
            "engines = [\"remote\"]\nremote = \"tcp/192.168.1.30:7448\"",
            ["policy.remote", "needs authentication"],
        ),
        (
            "engines = [\"remote\"]\nremote = \"tls/gpu-box:7448\"",
            ["policy.remote", "link.tls_ca"],
        ),
        (
            "engines = [\"remote\"]\nremote = \"tcp/127.0.0.1:7448\"\nremote_timeout_ms = 2000",
            ["policy.remote_timeout_ms", "2000"],
        ),
    ] {
        check_tendon("rate_hz", &remote(text), &wants);
    }
    let apart = text.replacen("\nrobot = ", "\nisolation = \"thread\"\nrobot = ", 1);
    let said = refused(&apart, ROBOT);
    assert!(said.contains("isolation: expected \"process\""), "{said}");
}

#[test]
fn a_tool_that_commands_tell_of() {
    let with = |tool: &str| ROBOT.replacen("[space]", &format!("[space]\ntool = \"{tool}\""), 1);
    let config = Config::from_texts(TENDON, &with("tool"), URDF, &folder()).expect("good");
    assert_eq!(
        config.robot.links[config.robot.tool.expect("a link")],
        "tool"
    );
    let said = refused(TENDON, &with("hand"));
    assert!(
        said.contains("space.tool") && said.contains("\"hand\""),
        "{said}"
    );
}

#[test]
fn a_machine_that_is_hot() {
    let derate = |text: &str| format!("[derate]\n{text}\n\n[control]");
    for (text, wants) in [
        (
            "temperature_c = []",
            ["derate.temperature_c", "1 to 8 pairs"],
        ),
        (
            "temperature_c = [[80, 100], [70, 50]]",
            ["derate.temperature_c", "readings rising"],
        ),
        (
            "temperature_c = [[80, 120]]",
            ["derate.temperature_c", "[80, 120]"],
        ),
        (
            "power_w = [[20, 100], [30, 50]]",
            ["derate.power_rail", "beside it"],
        ),
        ("power_rail = \"VDD_IN\"", ["derate.power_w", "a curve"]),
        (
            "over_current_percent = 101",
            ["derate.over_current_percent", "0 to 100"],
        ),
    ] {
        check_tendon("[control]", &derate(text), &wants);
    }
}

#[test]
fn wired_contacts() {
    let lines = |text: &str| format!("[lines.emergency]\n{text}\n\n[control]");
    for (text, wants) in [
        ("", ["lines.emergency", "gpio, evdev or link_silence_ms"]),
        (
            "link_silence_ms = 100",
            ["lines.emergency.link_silence_ms", "no emergency stop"],
        ),
        ("gpio = []", ["lines.emergency.gpio", "one or two"]),
        (
            "gpio = [\"gpiochip0:3\"]",
            ["lines.emergency.gpio", "/dev/gpiochipN:OFFSET"],
        ),
        (
            "gpio = [\"/dev/gpiochip0:x\"]",
            ["lines.emergency.gpio", "/dev/gpiochip0:x"],
        ),
        (
            "evdev = \"/dev/input/event0\"",
            ["lines.emergency.evdev", "no emergency stop"],
        ),
        (
            "gpio = [\"/dev/gpiochip0:3\"]\nbias = \"pull-up\"",
            ["lines.emergency.bias", "a cut wire read as open"],
        ),
        (
            "gpio = [\"/dev/gpiochip0:3\"]\nbias = \"strong\"",
            ["lines.emergency.bias", "\"as-is\""],
        ),
        (
            "gpio = [\"/dev/gpiochip0:3\", \"/dev/gpiochip0:4\"]\npulse_ms = [8, 14]",
            ["lines.emergency.pulse_ms", "one gpio line"],
        ),
        (
            "gpio = [\"/dev/gpiochip0:3\"]\npulse_ms = [2, 14]",
            ["lines.emergency.pulse_ms", "5 to 500"],
        ),
        (
            "gpio = [\"/dev/gpiochip0:3\"]\nsettle_ms = -1",
            ["lines.emergency.settle_ms", "0 to 1000"],
        ),
    ] {
        check_tendon("[control]", &lines(text), &wants);
    }
    let deadman = |text: &str| format!("[lines.deadman]\n{text}\n\n[control]");
    for (text, wants) in [
        (
            "evdev = \"/dev/input/event0\"",
            ["lines.deadman.keys", "BTN_TR"],
        ),
        (
            "evdev = \"/dev/input/event0\"\nkeys = [\"A\"]",
            ["lines.deadman.keys", "kernel's names"],
        ),
        (
            "evdev = \"/dev/input/event0\"\ngpio = [\"/dev/gpiochip0:3\"]",
            ["lines.deadman", "one of them"],
        ),
        (
            "link_silence_ms = 100\nevdev = \"/dev/input/event0\"",
            ["lines.deadman", "one of them"],
        ),
        (
            "link_silence_ms = 20",
            ["lines.deadman.link_silence_ms", "30 to 500"],
        ),
        (
            "link_silence_ms = 100\nkeys = [\"BTN_TR\"]",
            ["lines.deadman.keys", "evdev beside it"],
        ),
        (
            "link_silence_ms = 100\npulse_ms = [8, 14]",
            ["lines.deadman.pulse_ms", "one gpio line"],
        ),
    ] {
        check_tendon("[control]", &deadman(text), &wants);
    }
    let good = TENDON.replacen(
        "[control]",
        &lines("gpio = [\"/dev/gpiochip0:3\"]\nactive_low = true"),
        1,
    );
    let good = Config::from_texts(&good, ROBOT, URDF, &folder()).expect("a contact");
    let wire = good.lines.emergency.expect("there").wire;
    assert!(
        matches!(
            &wire,
            lines::Wire::Gpio {
                bias: lines::Bias::PullUp,
                active_low: true,
                ..
            }
        ),
        "{wire:?}"
    );
}
