// SPDX-License-Identifier: Apache-2.0
//! docs/supervisor.md, drawn from what the supervisor does, and compared with what is committed.
//!
//! Every reachable state is stepped with the facts that are usual there, changed in one or two places. What leads from
//! one mode to another is labelled with the smallest such changes. The full enumeration then says whether an arrow is
//! missing.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// One thing that is otherwise than usual: in words, and in the facts.
type Change = (String, Box<dyn Fn(&mut World)>);

/// What a step sees.
#[derive(Clone, Copy)]
struct World {
    now: Mono,
    facts: Facts,
}

const MODES: [Mode; 8] = [
    Mode::Boot,
    Mode::Standby,
    Mode::Active,
    Mode::Takeover,
    Mode::Holding,
    Mode::Stopping,
    Mode::Stopped,
    Mode::EStop,
];

/// What is usual in a mode.
fn usual(mode: Mode) -> World {
    let facts = match mode {
        Mode::Boot => Facts {
            booted: false,
            ..GOOD
        },
        Mode::Standby | Mode::Stopped | Mode::EStop => GOOD,
        Mode::Active | Mode::Takeover | Mode::Holding | Mode::Stopping => MOVING,
    };
    World {
        now: START.plus_ns(MS),
        facts,
    }
}

fn changes(mode: Mode) -> Vec<Change> {
    let mut all: Vec<Change> = vec![];
    let mut add = |words: &str, change: Box<dyn Fn(&mut World)>| {
        all.push((words.to_owned(), change));
    };
    let requests = [
        ("asked to activate", Request::Activate),
        ("asked to take over", Request::TakeOver),
        ("asked to reset", Request::Reset),
        ("asked to stop", Request::Stop),
        ("asked for an emergency stop", Request::EmergencyStop),
    ];
    for (words, request) in requests {
        add(
            words,
            Box::new(move |world| {
                let made = world.now;
                world.facts.asked = Some(Asked { request, made });
            }),
        );
    }
    if mode == Mode::Boot {
        add("checks over", Box::new(|world| world.facts.booted = true));
    }
    let rests = usual(mode).facts.at_rest;
    let rest = move |world: &mut World| {
        world.facts.at_rest = !rests;
        // A governor that has come to rest without a permission has given the pose up.
        if mode == Mode::Stopping {
            world.facts.governor_epoch = 0;
        }
    };
    add(
        if rests { "not at rest" } else { "at rest" },
        Box::new(rest),
    );
    add(
        "a timer ran out",
        Box::new(|world| {
            world.now = START.plus_ns(100_000 * MS);
            if let Some(asked) = &mut world.facts.asked {
                asked.made = world.now;
            }
        }),
    );
    let line = |world: &mut World| world.facts.emergency_line = EmergencyLine::Open;
    add("emergency-stop line open", Box::new(line));
    let released = |world: &mut World| world.facts.deadman = Deadman::Released;
    add("deadman released", Box::new(released));
    let stale = |world: &mut World| {
        world.facts.state_age_ns = Some(world.facts.state_age_max_ns + 1);
    };
    add("joint state stale", Box::new(stale));
    let lost = |world: &mut World| {
        world.facts.state_age_ns = Some(Deadline::StateLost.ns() + 1);
    };
    add("joint state lost", Box::new(lost));
    let silent = |world: &mut World| world.facts.echo_age_ns = Deadline::EchoLost.ns() + 1;
    add("echo lost", Box::new(silent));
    let late = |world: &mut World| world.facts.thread_late = true;
    add("thread late", Box::new(late));
    let restarted = |world: &mut World| world.facts.motor_restarted = true;
    add("motor controller restarted", Box::new(restarted));
    let refused = |world: &mut World| world.facts.commands_refused = true;
    add("commands refused", Box::new(refused));
    let suspended = |world: &mut World| world.facts.suspended = true;
    add("machine suspended", Box::new(suspended));
    if usual(mode).facts.governor_epoch != 0 {
        let unseated = |world: &mut World| world.facts.governor_epoch = 0;
        add("pose not taken over", Box::new(unseated));
    }
    for cause in CAUSES {
        add(
            &format!("governor: {cause:?}"),
            Box::new(move |world| world.facts.held = Some(cause)),
        );
    }
    all
}

/// From and to, and the smallest changes that lead there.
type Arrows = BTreeMap<(usize, usize), BTreeSet<BTreeSet<String>>>;

fn place(mode: Mode) -> usize {
    MODES
        .into_iter()
        .position(|each| each == mode)
        .expect("all modes")
}

/// All reachable supervisors, one of each shape.
fn reachable() -> Vec<Supervisor> {
    let mut states: Vec<Supervisor> = vec![];
    let mut known = HashSet::new();
    // A stride larger than that of the other test: only the states are wanted, not what leads to them.
    explore(31, |from, _, _, _| {
        if known.insert(shape_of(from)) {
            // However it was reached: it struck, and its timers were started, some time ago, and none has run out.
            let mut state = from.clone();
            state.latch = from.latch.map(|latch| Latch {
                struck: START,
                ..latch
            });
            state.timers = Timers::default();
            for deadline in [Deadline::Seating, Deadline::DeadmanAway, Deadline::AtRest] {
                if from.timers.over(deadline, Mono(u64::MAX)) {
                    state.timers.start(deadline, START);
                }
            }
            states.push(state);
        }
    });
    states
}

fn arrows() -> Arrows {
    let mut arrows = Arrows::new();
    for from in reachable() {
        let mut changes = changes(from.mode);
        if from.latch.is_some() {
            for (words, _) in &mut changes {
                *words = words.replace("checks over", "checks over, latched before the restart");
            }
        }
        let mut found: Vec<(usize, BTreeSet<String>)> = vec![];
        let mut look = |chosen: &[&Change]| {
            let mut world = usual(from.mode);
            let mut words = BTreeSet::new();
            for (name, change) in chosen {
                change(&mut world);
                words.insert(name.clone());
            }
            let mut to = from.clone();
            to.step(world.now, &world.facts);
            let to = place(to.mode);
            let smaller = found
                .iter()
                .any(|(there, less)| *there == to && less.is_subset(&words));
            if !smaller {
                found.push((to, words));
            }
        };
        look(&[]);
        for one in &changes {
            look(&[one]);
        }
        for (index, one) in changes.iter().enumerate() {
            for other in &changes[..index] {
                // In the order of the list both times: the timer comes after the request that it moves.
                look(&[other, one]);
            }
        }
        for (to, words) in found {
            if to != place(from.mode) {
                arrows
                    .entry((place(from.mode), to))
                    .or_default()
                    .insert(words);
            }
        }
    }
    // What is needed in one state of a mode and more than needed in another is told once.
    for sets in arrows.values_mut() {
        let all = sets.clone();
        sets.retain(|set| !all.iter().any(|other| other != set && other.is_subset(set)));
    }
    arrows
}

/// The words of one arrow, those of `size` changes; causes of the governor gathered.
fn words(sets: &BTreeSet<BTreeSet<String>>, size: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for set in sets.iter().filter(|set| set.len() == size) {
        let (causes, rest): (Vec<_>, Vec<_>) = set
            .iter()
            .cloned()
            .partition(|word| word.starts_with("governor: "));
        let rest = rest.join(" and ");
        match causes.first() {
            Some(cause) => found
                .entry(rest)
                .or_default()
                .push(cause.replace("governor: ", "")),
            None => lines.push(rest),
        }
    }
    for (rest, causes) in found {
        let and = if rest.is_empty() { "" } else { " and " };
        lines.push(format!("{rest}{and}governor found {}", causes.join(", ")));
    }
    lines
}

fn gone(to: usize) -> String {
    let whose = if MODES[to] == Mode::Takeover {
        "a person"
    } else {
        "the policy"
    };
    format!("the cause is gone, armed for {whose}")
}

fn node(place: usize) -> String {
    // A hyphen would end the name.
    MODES[place].word().replace('-', "_")
}

fn drawn() -> String {
    let arrows = arrows();
    let mut text = String::from(
        "# The supervisor, drawn from its code\n\n\
         Nobody writes this file: `TENDON_WRITE_DOCS=1 cargo test --release --lib supervisor::tests::diagram` does, by\n\
         stepping every reachable state of the supervisor (`src/core/supervisor`) with the facts that are usual in its mode,\n\
         changed in one or two places. Without the variable the same test fails where the code does something else than is\n\
         drawn, or where the full enumeration of states and facts finds an arrow that is not here.\n\n\
         ```mermaid\nstateDiagram-v2\n",
    );
    writeln!(text, "    [*] --> {}", node(0)).expect("a string");
    for mode in MODES.into_iter().filter(|mode| mode.word().contains('-')) {
        writeln!(text, "    {}: {}", node(place(mode)), mode.word()).expect("a string");
    }
    for ((from, to), sets) in &arrows {
        let least = sets.iter().map(BTreeSet::len).min().unwrap_or(0);
        let label = match least {
            0 => gone(*to),
            _ => words(sets, least).join("\\n"),
        };
        writeln!(text, "    {} --> {}: {label}", node(*from), node(*to)).expect("a string");
    }
    text.push_str("```\n\n");
    text.push_str(
        "An arrow says the least that leads there. Where that is two things at once, two steps are taken in one: asked to\n\
         stop while at rest already, for instance.\n\n\
         ## Every arrow\n\n\
         \"and\" is at the same step. Told are one and two changes at once, none of which is more than is needed.\n\n\
         | from | to | when |\n|---|---|---|\n",
    );
    for ((from, to), sets) in &arrows {
        let mut lines = vec![];
        if sets.contains(&BTreeSet::new()) {
            lines.push(gone(*to));
        }
        lines.extend(words(sets, 1));
        lines.extend(words(sets, 2));
        let (from, to) = (MODES[*from].word(), MODES[*to].word());
        writeln!(text, "| {from} | {to} | {} |", lines.join("; ")).expect("a string");
    }
    text.push_str(
        "\n## Causes\n\n\
         The one table, for governor and supervisor. A deployment may make a reaction stricter, never milder.\n\n\
         | code | cause | reaction | clears | words |\n|---|---|---|---|---|\n",
    );
    for cause in CAUSES {
        let (reaction, clears, words) = cause.rule();
        let code = cause as u8;
        writeln!(
            text,
            "| {code} | {cause:?} | {reaction:?} | {clears:?} | {words} |"
        )
        .expect("a string");
    }
    text.push_str("\n## Deadlines\n\n| deadline | ms |\n|---|---|\n");
    for deadline in [
        Deadline::Permission,
        Deadline::LinkFlowing,
        Deadline::StateLost,
        Deadline::EchoLost,
        Deadline::Seating,
        Deadline::DeadmanAway,
        Deadline::AtRest,
        Deadline::Request,
    ] {
        writeln!(text, "| {deadline:?} | {} |", deadline.ns() / MS).expect("a string");
    }
    text
}

#[test]
fn the_committed_diagram_is_what_the_code_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/supervisor.md");
    let drawn = drawn();
    if std::env::var_os("TENDON_WRITE_DOCS").is_some() {
        std::fs::write(path, &drawn).expect("docs/supervisor.md can be written");
    }
    let Ok(committed) = std::fs::read_to_string(path) else {
        // Where the core is tested by itself there are no docs beside it.
        assert!(env!("CARGO_PKG_NAME") != "tendon", "{path} is missing");
        return;
    };
    let first = drawn.lines().zip(committed.lines()).find(|(a, b)| a != b);
    assert!(
        drawn == committed,
        "docs/supervisor.md is not what the code does; first difference {first:?}; draw it anew with TENDON_WRITE_DOCS=1"
    );
}

#[test]
fn no_arrow_is_missing() {
    let drawn = arrows();
    let mut missing = BTreeSet::new();
    explore(stride(), |from, to, _, _| {
        let arrow = (place(from.mode), place(to.mode));
        if arrow.0 != arrow.1 && !drawn.contains_key(&arrow) {
            missing.insert((from.mode, to.mode));
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
}
