// SPDX-License-Identifier: Apache-2.0
//! Rows of one line: a change to the bench's files, and what the answer must name; link poses against another
//! implementation's.

use super::*;
use crate::config::Config;
use crate::core::action::JointKind;
use crate::core::governor::limits::JointLimits;
use serde_json::Value;

const TENDON: &str = include_str!("../../../deploy/bench/tendon.toml");
const ROBOT: &str = include_str!("../../../deploy/bench/robot.toml");
const URDF: &str = include_str!("../../../deploy/bench/robot.urdf");
const ODD: &str = include_str!("../../../tests/urdf/odd.urdf");
const POSES: &str = include_str!("../../../tests/urdf/poses.json");
const TOOL: &str = include_str!("../../../tests/urdf/tool.json");

fn read(robot: &str, urdf: &str) -> Result<Config, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
    Config::from_texts(TENDON, robot, urdf, &folder).map_err(|problems| {
        problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect()
    })
}

#[track_caller]
fn refused(robot: &str, urdf: &str, wants: &[&str]) {
    let answer = read(robot, urdf).expect_err("must be refused");
    for want in wants {
        assert!(answer.contains(want), "{want:?} is not in {answer}");
    }
}

#[track_caller]
fn robot(from: &str, to: &str, wants: &[&str]) {
    assert!(ROBOT.contains(from), "{from}");
    refused(&ROBOT.replacen(from, to, 1), URDF, wants);
}

#[track_caller]
fn urdf(from: &str, to: &str, wants: &[&str]) {
    assert!(URDF.contains(from), "{from}");
    refused(ROBOT, &URDF.replacen(from, to, 1), wants);
}

#[test]
fn the_bench_has_a_space_and_stands_in_it() {
    let config = read(ROBOT, URDF).expect("good");
    let space = config.robot.space.expect("a space");
    assert_eq!(space.joints(), config.robot.joints.len());
    let home = crate::bench::arm::inverse_tool_down(crate::bench::robot::HOME_TIP_M).expect("home");
    let mut pose = home.to_vec();
    pose.push(0.0);
    assert_eq!(space.check(&pose), Ok(()));
    // Tool through the table.
    let through = [0.0, 1.3, 1.1, 0.0, 0.7, 0.0, 0.0];
    assert!(matches!(
        space.check(&through),
        Err(Breach::Space {
            subject: Subject::KeepOut { .. },
            ..
        })
    ));
    // Folded onto itself.
    let folded = [0.0, 0.0, 2.8, 0.0, 1.0, 0.0, 0.0];
    assert!(matches!(
        space.check(&folded),
        Err(Breach::Space {
            subject: Subject::Pair { .. },
            ..
        })
    ));
}

#[test]
fn every_mistake_in_robot_toml_names_its_key() {
    robot("urdf = \"robot.urdf\"\n", "", &["urdf"]);
    robot("standing", "stnading", &["robot.toml:", "stnading"]);
    robot("\"turret\"]", "\"torret\"]", &["space.standing", "torret"]);
    robot(
        "max_m = [1.0, 1.0, 0.0]",
        "max_m = [1.0, 1.0, -0.3]",
        &["space.keep_out[0] \"table\".max_m", "-0.3"],
    );
    robot(
        "max_m = [1.0, 1.0, 0.0]",
        "max_m = [1.0, 1.0, nan]",
        &["space.keep_out[0]", "NaN"],
    );
    robot(
        "max_m = [1.0, 1.0, 0.0]",
        "max_m = [1.0, 1.0, 0.3]",
        &[
            "pose[0] \"home\"",
            "keep-out box \"table\"",
            "link \"upper\"",
            "mm",
        ],
    );
    robot(
        "workspace_max_m = [0.7, 0.7, 0.8]",
        "workspace_max_m = [0.2, 0.7, 0.8]",
        &["pose[0] \"home\"", "leaves the workspace"],
    );
    robot(
        "workspace_max_m = [0.7, 0.7, 0.8]\n",
        "",
        &["space.workspace_min_m", "both corners"],
    );
    robot(
        "positions = [0.0, ",
        "positions = [",
        &["pose[0] \"home\".positions", "7 numbers", "found 6"],
    );
    robot(
        "positions = [0.0, ",
        "positions = [9.0, ",
        &["pose[0]", "base_yaw", "9"],
    );
    robot(
        "[[pose]]",
        "[[space.capsule]]\nlink = \"tol\"\nfrom_m = [0, 0, 0]\nto_m = [0, 0, 1]\nradius_m = -1\n[[pose]]",
        &[
            "space.capsule[0].link",
            "tol",
            "space.capsule[0].radius_m",
            "-1",
        ],
    );
    robot(
        "standing = ",
        "may_touch = [[\"tool\", \"bse\"]]\nstanding = ",
        &["space.may_touch", "bse"],
    );
    robot(
        "standing = ",
        "held = { finger = 0.1 }\nstanding = ",
        &["space.held.finger"],
    );
    robot(
        "standing = ",
        "clearance_m = 2\nstanding = ",
        &["space.clearance_m", "2"],
    );
    // Two parts that are nearer at home than is asked for.
    robot(
        "standing = ",
        "clearance_m = 0.3\nstanding = ",
        &["pose[0] \"home\"", "too near"],
    );
}

#[test]
fn every_mistake_in_the_urdf_names_its_line() {
    urdf("<robot name=\"bench\">", "<robt>", &["robot.urdf:"]);
    urdf("</robot>", "", &["robot.urdf:", "XML"]);
    refused(
        ROBOT,
        "<!DOCTYPE x [<!ENTITY a \"b\">]><robot/>",
        &["robot.urdf:1", "XML"],
    );
    refused(ROBOT, "<sdf/>", &["robot.urdf:1", "<robot>"]);
    refused(ROBOT, "<robot/>", &["one link that nothing carries"]);
    urdf(
        "radius=\"0.035\"",
        "radius=\"nan\"",
        &["robot.urdf:32", "radius", "nan"],
    );
    urdf(
        "radius=\"0.035\"",
        "radius=\"-1\"",
        &["radius", "at least 0"],
    );
    urdf(
        "<axis xyz=\"0 0 1\"/>",
        "<axis xyz=\"0 0\"/>",
        &["xyz: 3 finite", "\"0 0\""],
    );
    urdf(
        "<axis xyz=\"0 0 1\"/>",
        "<axis xyz=\"0 0 0\"/>",
        &["an axis of length 1", "base_yaw"],
    );
    urdf(
        "type=\"revolute\"",
        "type=\"planar\"",
        &["planar", "base_yaw"],
    );
    urdf(
        "type=\"revolute\"",
        "type=\"prismatic\"",
        &["Revolute", "base_yaw"],
    );
    urdf(
        "<joint name=\"base_yaw\"",
        "<joint name=\"yaw\"",
        &[
            "joint \"yaw\" in robot.toml",
            "held",
            "joint[0] \"base_yaw\".name",
        ],
    );
    urdf(
        "<parent link=\"base\"/>",
        "<parent link=\"bse\"/>",
        &["robot.urdf:10", "\"bse\""],
    );
    urdf("<parent link=\"base\"/>", "", &["<parent link="]);
    urdf(
        "<child link=\"upper\"/>",
        "<child link=\"turret\"/>",
        &["carried twice"],
    );
    urdf(
        "<parent link=\"base\"/>",
        "<parent link=\"tool\"/>",
        &["tree, without rings"],
    );
    urdf(
        "<link name=\"elbow\"/>",
        "<link name=\"upper\"/>",
        &["\"upper\" twice"],
    );
    urdf(
        "upper=\"2.9\"",
        "upper=\"2.5\"",
        &["limits", "-2.9 to 2.9", "-2.9 to 2.5"],
    );
    urdf(
        "<cylinder radius=\"0.015\" length=\"0.085\"/>",
        "<mesh filename=\"tool.stl\"/>",
        &["space.capsule", "\"tool\"", "meshes"],
    );
    urdf(
        "<cylinder radius=\"0.015\" length=\"0.085\"/>",
        "<cone/>",
        &["<cone>"],
    );
}

/// A file that is deep, or wide, or long costs no more than reading it.
#[test]
fn a_hostile_urdf_is_refused_at_once() {
    let deep = format!("{}{}", "<robot>".repeat(50_000), "</robot>".repeat(50_000));
    let wide = format!("<robot>{}</robot>", "<link/>".repeat(500_000));
    for text in [deep, wide] {
        assert!(read(ROBOT, &text).is_err());
    }
}

fn free(name: &str, kind: JointKind) -> (String, Joint) {
    let limits = JointLimits {
        position_min: -0.2,
        position_max: 0.2,
        velocity_max: 1.0,
        acceleration_max: 1.0,
        jerk_max: 1.0,
        tracking_error_max: 1.0,
        torque_max: f64::INFINITY,
    };
    (name.to_owned(), Joint { kind, limits })
}

/// The same poses as yourdfpy computes (tests/urdf/make_poses.py): turning, sliding, fixed and mimic joints, skew axes.
#[test]
fn links_are_where_another_implementation_puts_them() {
    let wanted: Value = serde_json::from_str(POSES).expect("JSON");
    for (which, text) in [("odd", ODD), ("bench", URDF)] {
        let urdf = urdf::read("robot.urdf", text).expect("a URDF");
        let names: Vec<&str> = wanted[which]["names"]
            .as_array()
            .expect("names")
            .iter()
            .map(|name| name.as_str().expect("a name"))
            .collect();
        let joints: Vec<(String, Joint)> = names
            .iter()
            .map(|name| {
                let slides = *name == "slide";
                let kind = if slides {
                    JointKind::Prismatic
                } else {
                    JointKind::Revolute
                };
                let (name, mut joint) = free(name, kind);
                joint.limits.position_min = -if slides { 0.3 } else { 0.1 };
                joint.limits.position_max = if slides { 0.4 } else { 0.1 };
                (name, joint)
            })
            .collect();
        let table: SpaceTable = toml::from_str("urdf = \"robot.urdf\"").expect("a table");
        let mut at = Located::new("robot.toml", "");
        let tree = tree(&table, &joints, &urdf, &mut at).expect("a tree");
        let chain = Chain::new(&tree.links, joints.len()).expect("a chain");
        let mut compared = 0;
        for row in wanted[which]["rows"].as_array().expect("rows") {
            let numbers = |value: &Value| -> Vec<f64> {
                let numbers = value.as_array().expect("numbers");
                numbers
                    .iter()
                    .map(|x| x.as_f64().expect("a number"))
                    .collect()
            };
            let poses = chain.forward(&numbers(&row["q"])).expect("a pose");
            for (link, want) in row["poses"].as_object().expect("poses") {
                let [x, y, z] = poses[tree.index(link).expect("a link")].columns;
                let t = poses[tree.index(link).expect("a link")].translation;
                let got: Vec<f64> = (0..3)
                    .flat_map(|row| [x[row], y[row], z[row], t[row]])
                    .collect();
                for (got, want) in got.iter().zip(numbers(want)) {
                    assert!((got - want).abs() < 1e-9, "{which} {link}: {got} {want}");
                    compared += 1;
                }
            }
        }
        assert!(compared >= 20 * 4 * 12);
    }
}

/// The same Jacobian as differences of yourdfpy's poses, and the same joints for a pose as scipy finds on them
/// (tests/urdf/make_tool.py).
#[test]
fn the_tool_moves_and_is_reached_as_other_implementations_say() {
    use crate::core::kinematics::inverse::{Pose, Range, Search};
    use crate::core::kinematics::turn::Turn;
    let rows: Value = serde_json::from_str(TOOL).expect("JSON");
    let robot = crate::config::Config::load(Path::new("deploy/bench/tendon.toml"));
    let robot = robot.expect("the bench's deployment").robot;
    let chain = robot.space.as_ref().expect("a space").chain().clone();
    let tool = robot.links.iter().position(|link| link == "tool");
    let tool = tool.expect("a tool");
    let ranges: Vec<Range> = robot
        .joints
        .iter()
        .map(|(_, joint)| Range {
            min: joint.limits.position_min,
            max: joint.limits.position_max,
            free: true,
        })
        .collect();
    let numbers = |value: &Value| -> Vec<f64> {
        let numbers = value.as_array().expect("numbers");
        numbers
            .iter()
            .map(|x| x.as_f64().expect("a number"))
            .collect()
    };
    let with_gripper = |mut q: Vec<f64>| {
        q.push(0.0);
        q
    };
    let rows = rows.as_array().expect("rows");
    assert!(rows.len() >= 12);
    for row in rows {
        let q = with_gripper(numbers(&row["q"]));
        let poses = chain.forward(&q).expect("a pose");
        let jacobian = chain.jacobian(&poses, tool).expect("a tool");
        for (found, wanted) in jacobian
            .iter()
            .zip(row["jacobian"].as_array().expect("six"))
        {
            for (found, wanted) in found.iter().zip(numbers(wanted)) {
                assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
            }
        }
        let place = numbers(&row["place"]);
        let turn = numbers(&row["quaternion_xyzw"]);
        let goal = Pose {
            at: [place[0], place[1], place[2]],
            turn: Turn::unit(turn[3], [turn[0], turn[1], turn[2]]).expect("a turn"),
        };
        let mut q = with_gripper(numbers(&row["from"]));
        let posture = q.clone();
        let search = Search {
            within: 1e-8,
            ..Search::default()
        };
        let missing = chain.reach(tool, &goal, &ranges, &posture, &search, &mut q);
        let missing = missing.expect("finite numbers");
        assert!(missing.way_m.max(missing.angle_rad) < 1e-7, "{missing:?}");
        for (found, wanted) in q.iter().zip(numbers(&row["inverse"])) {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }
}

/// Joints that are held, grippers, boxes and spheres: what the bench does not have.
#[test]
fn shapes_are_bounded_and_fingers_are_held() {
    let text = r#"<robot name="hand">
        <link name="base"><collision><geometry><box size="0.2 0.4 0.1"/></geometry></collision></link>
        <link name="arm"/><link name="finger"><collision><geometry><sphere radius="0.02"/></geometry></collision></link>
        <joint name="lift" type="prismatic"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/></joint>
        <joint name="grip" type="prismatic"><parent link="arm"/><child link="finger"/><axis xyz="0 1 0"/></joint>
        </robot>"#;
    let urdf = urdf::read("robot.urdf", text).expect("a URDF");
    let rod = urdf.links[0].capsules[0];
    assert_eq!(rod.ends, [[0.0, 0.2, 0.0], [0.0, -0.2, 0.0]]);
    assert!(
        (rod.radius_m - 0.1_f64.hypot(0.05)).abs() < 1e-12,
        "around the other two sides"
    );
    let joints = [
        free("lift", JointKind::Prismatic),
        free("grip", JointKind::Gripper),
    ];
    let mut at = Located::new("robot.toml", "");
    let table: SpaceTable = toml::from_str("urdf = \"robot.urdf\"").expect("a table");
    assert!(tree(&table, &joints, &urdf, &mut at).is_none());
    assert!(
        at.problems[0].to_string().contains("space.held.grip"),
        "{:?}",
        at.problems
    );
    let table: SpaceTable =
        toml::from_str("urdf = \"robot.urdf\"\nheld = { grip = 0.03 }").expect("a table");
    let mut at = Located::new("robot.toml", "");
    let tree = tree(&table, &joints, &urdf, &mut at).expect("a tree");
    let chain = Chain::new(&tree.links, 2).expect("a chain");
    let poses = chain.forward(&[0.1, 1.0]).expect("a pose");
    assert_eq!(
        poses[tree.index("finger").expect("there")].translation,
        [0.0, 0.03, 0.1]
    );
}
