// SPDX-License-Identifier: Apache-2.0
//! A bundle of several graphs and cameras drives the bench robot as one of a single graph does, and what does not fit is
//! refused with its key.

use crate::deployed::{self, deployment};
use crate::fixture::{JOINTS, cpu, no_clock, state};
use crate::on_bench::{self, ROLES};
use serde_json::{Value, json};
use tendon::bench::episode::{Ask, Spec};
use tendon::policy::LoadOptions;
use tendon::policy::pilot::Pilot;
use tendon::ports::Frame;
use tendon::runtime::lockstep::Lockstep;
use tendon::runtime::realtime::allocations_of_this_thread;

fn tendon() -> String {
    deployed::tendon("", "merge = \"blend\"\nblend_ms = 100\nstart_ms = 400")
}

fn camera(name: &str, more: &str) -> String {
    format!("[[camera]]\nname = \"{name}\"\nwidth = 40\nheight = 30\nage_max_ms = 150\n{more}\n")
}

fn all_cameras() -> String {
    ROLES.map(|role| camera(role, "")).concat()
}

/// A deployment of the bench robot with the family's bundle.
fn folder(tendon: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    deployed::folder(tendon, |bundle| on_bench::write(bundle, change))
}

#[test]
fn a_staged_bundle_drives_the_bench_robot_in_simulated_time() {
    let folder = folder(&format!("{}{}", tendon(), all_cameras()), |_| ());
    let deployment = deployment(&folder).expect("everything fits");
    let mut pipeline = Lockstep::new(deployment, 0);
    let spec = Spec {
        seed: 7,
        put: false,
        held_out_position: false,
        ask: Ask::Seen,
    };
    let outcome = pipeline.episode(&spec, &mut |_| ()).expect("an episode");
    let report = pipeline.measures.figures();
    println!(
        "{outcome:?}, {} commands, fresh {:.2} s, tail {:.2} s, shaped {}",
        report.commands, report.ladder.fresh_s, report.ladder.tail_s, pipeline.interventions
    );
    assert!(outcome.over && outcome.elapsed_s > 1.0, "{outcome:?}");
    assert!(
        report.ladder.fresh_s > 0.8 * outcome.elapsed_s,
        "it was followed: {outcome:?}"
    );
    assert_eq!(pipeline.limit_violations, 0);
    assert_eq!(pipeline.rejected, 0);
    assert_eq!(pipeline.allocations, 0);
}

fn pilot(folder: &tempfile::TempDir, cameras: &[&str]) -> Pilot {
    let mut pilot =
        Pilot::load(&folder.path().join("bundle"), LoadOptions::default(), &cpu).expect("a bundle");
    pilot.bind(&JOINTS, cameras).expect("the bench's joints");
    let instruction = pilot
        .words()
        .encode("touch the red block")
        .expect("a sentence");
    pilot.take(&instruction);
    pilot
}

fn picture(shade: u8) -> Frame {
    let mut frame = Frame::black(40, 30);
    frame.rgb.fill(shade);
    frame.seq = 1;
    frame
}

/// What a fresh policy makes of it: its noise is the same at every load.
fn chunk(
    folder: &tempfile::TempDir,
    cameras: &[&str],
    frames: &[Option<&Frame>],
) -> Result<Vec<f32>, String> {
    let mut pilot = pilot(folder, cameras);
    let plan = pilot.infer(frames, &state([0.1; 7]), &no_clock);
    plan.map(|plan| plan.targets.to_vec())
        .map_err(|fault| fault.to_string())
}

#[test]
fn every_camera_reaches_the_policy_by_its_role() {
    let folder = folder("", |_| ());
    let (dark, grey, light) = (picture(20), picture(120), picture(230));
    let [base, left, right] = ROLES;
    let straight =
        chunk(&folder, &ROLES, &[Some(&dark), Some(&grey), Some(&light)]).expect("a chunk");
    // By name, not by place: another order in tendon.toml, with a camera between that the policy does not know.
    let turned = chunk(
        &folder,
        &[base, "desk", right, left],
        &[Some(&dark), Some(&dark), Some(&light), Some(&grey)],
    );
    assert_eq!(turned.expect("a chunk"), straight);
    let swapped = chunk(&folder, &ROLES, &[Some(&dark), Some(&light), Some(&grey)]);
    assert_ne!(swapped.expect("a chunk"), straight);
    // What may be missing is; what may not is said.
    let one = chunk(&folder, &ROLES, &[Some(&dark), None, None]).expect("a chunk");
    assert_ne!(one, straight);
    assert_eq!(chunk(&folder, &[base], &[Some(&dark)]), Ok(one));
    let fault = chunk(&folder, &ROLES, &[None, Some(&grey), Some(&light)]);
    assert!(
        fault
            .as_ref()
            .is_err_and(|fault| fault.contains("camera 0")),
        "{fault:?}"
    );
    let small = Frame::black(20, 15);
    let fault = chunk(&folder, &[base, left], &[Some(&dark), Some(&small)]);
    assert!(
        fault.as_ref().is_err_and(|fault| fault.contains("20x15")),
        "{fault:?}"
    );
}

#[test]
fn joints_go_by_name_and_a_gripper_of_another_convention_is_refused() {
    let straight = folder("", |_| ());
    let seen = picture(90);
    let targets = chunk(&straight, &ROLES[..1], &[Some(&seen)]).expect("a chunk");
    assert_eq!(targets.len(), 6 * 7);
    assert!(
        targets
            .chunks_exact(7)
            .all(|row| (0.0..=1.0).contains(&row[6]))
    );
    // Small steps about the state of 0.1 rad.
    assert!(
        targets.iter().all(|target| target.abs() < 0.6),
        "{targets:?}"
    );
    // -1 to 1 is the convention of others: nothing is guessed.
    let signed = folder("", |manifest| {
        let post = &mut manifest["tendon"]["action"]["post"];
        let affine = json!({"op": "affine", "dims": [6], "mul": 0.0, "add": -1.0});
        post.as_array_mut().expect("a list").push(affine);
    });
    // What is done after the reference's chunk is not in its fixture.
    let options = LoadOptions {
        parity_miss: tendon::policy::ParityMiss::Report,
        ..LoadOptions::default()
    };
    let mut pilot = Pilot::load(&signed.path().join("bundle"), options, &cpu).expect("a bundle");
    pilot.bind(&JOINTS, &ROLES).expect("the bench's joints");
    let instruction = pilot.words().encode("touch").expect("a sentence");
    pilot.take(&instruction);
    let fault = pilot
        .infer(&[Some(&seen)], &state([0.1; 7]), &no_clock)
        .expect_err("a gripper told -1");
    assert!(fault.to_string().contains("gripper -1"), "{fault}");
}

/// What the seam itself allocates: nothing beyond what the policy does that it holds.
#[test]
fn the_seam_allocates_nothing() {
    let folder = folder("", |_| ());
    let mut pilot = pilot(&folder, &ROLES);
    let frames = [picture(20), picture(120), picture(230)];
    let shown = [Some(&frames[0]), Some(&frames[1]), Some(&frames[2])];
    let mut count = || {
        let before = allocations_of_this_thread();
        pilot
            .infer(&shown, &state([0.1; 7]), &no_clock)
            .expect("a chunk");
        allocations_of_this_thread() - before
    };
    count();
    let through_the_seam = count();
    let mut staged = tendon::policy::staged::Staged::load(
        &folder.path().join("bundle"),
        LoadOptions::default(),
        &cpu,
    )
    .expect("a bundle");
    staged
        .set_instruction("touch the red block")
        .expect("a sentence");
    let pictures = [0, 1, 2].map(|at: usize| Some(frames[at].rgb.as_slice()));
    let mut count = || {
        let seen = tendon::policy::staged::Observation {
            captured_ns: 0,
            pictures: &pictures,
            state: &[0.1; 7],
        };
        let before = allocations_of_this_thread();
        staged.infer(&seen, None, None).expect("a chunk");
        allocations_of_this_thread() - before
    };
    count();
    assert_eq!(through_the_seam, count());
}

#[track_caller]
fn refused(tendon: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
    let folder = folder(tendon, change);
    let Err(problems) = deployment(&folder) else {
        panic!("it was not refused: {tendon}");
    };
    let said = problems.join("\n");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is not in {said}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let tendon = tendon();
    let [base, left, _] = ROLES;
    let cameras = all_cameras();
    refused(
        &format!("{tendon}{}", camera("front", "")),
        |_| (),
        &["camera.name", "\"base_0_rgb\"", "paces it", "\"front\""],
    );
    refused(
        &format!("{tendon}{}{}", camera(left, ""), camera(base, "")),
        |_| (),
        &[
            "camera.name",
            "first \"base_0_rgb\"",
            "\"left_wrist_0_rgb\"",
        ],
    );
    let small = camera(left, "").replace("width = 40", "width = 48");
    refused(
        &format!("{tendon}{}{small}", camera(base, "")),
        |_| (),
        &[
            "camera[1] \"left_wrist_0_rgb\".width",
            "[40, 30]",
            "[48, 30]",
        ],
    );
    // A second camera that it cannot do without.
    let needs_left = |manifest: &mut Value| {
        let cameras = manifest["tendon"]["cameras"]
            .as_array_mut()
            .expect("a list");
        cameras[1]
            .as_object_mut()
            .expect("a table")
            .remove("missing");
    };
    refused(
        &format!("{tendon}{}", camera(base, "")),
        needs_left,
        &[
            "camera.name",
            "a camera \"left_wrist_0_rgb\"",
            "[\"base_0_rgb\"]",
        ],
    );
    refused(
        &format!(
            "{tendon}{}{}",
            camera(base, ""),
            camera(left, "optional = true")
        ),
        needs_left,
        &[
            "camera[1] \"left_wrist_0_rgb\".optional",
            "nothing to put in its place",
        ],
    );
    let seldom = tendon.replace("rate_hz = 10.0", "rate_hz = 3.0");
    refused(
        &format!("{seldom}{cameras}"),
        |_| (),
        &["policy.rate_hz", "more than 3.33", "300 ms ends", "3.00"],
    );
    refused(
        &format!("{tendon}{cameras}"),
        |manifest| {
            manifest["tendon"]["action"]["names"][2] = json!("elbow");
            manifest["tendon"]["state"]["names"][2] = json!("elbow");
        },
        &[
            "tendon.action.names",
            "\"elbow\"",
            "the robot's joint \"elbow_pitch\"",
        ],
    );
    refused(
        &format!("{tendon}{cameras}"),
        |manifest| manifest["tendon"]["state"]["units"][6] = json!("rad"),
        &["tendon.state.units of \"gripper\""],
    );
}
