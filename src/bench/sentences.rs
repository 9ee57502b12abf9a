// SPDX-License-Identifier: Apache-2.0
//! The sentences: what people say to the bench robot, some of it never used in training.

use crate::bench::dice::Dice;

/// Colours a block can have.
pub const COLOURS: [&str; 6] = ["red", "green", "blue", "yellow", "purple", "orange"];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Bring the tip to the named block.
    Touch,
    /// Put the named block into the left tray (true) or the right one.
    Put {
        /// The tray on the robot's left, y > 0.
        left: bool,
    },
}

/// Whether a wording was used in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Used in training.
    Seen,
    /// Held out.
    HeldOut,
}

const NOUNS: [&str; 3] = ["block", "cube", "box"];
const TRAYS: [&str; 3] = ["bin", "tray", "container"];

/// `{c}` colour, `{n}` noun, `{s}` side, `{b}` tray.
const TOUCH_SEEN: [&str; 12] = [
    "touch the {c} {n}",
    "tap the {c} {n}",
    "poke the {c} {n}",
    "please touch the {c} {n}",
    "go to the {c} {n} and touch it",
    "reach for the {c} {n}",
    "touch the {n} that is {c}",
    "can you tap the {c} {n}",
    "move to the {c} {n}",
    "the {c} {n}, touch it",
    "touch {c}",
    "put your finger on the {c} {n}",
];
const TOUCH_HELD_OUT: [&str; 5] = [
    "please go and tap the {c} {n} now",
    "could you touch the {c} {n} for me",
    "reach the {n} that is {c}",
    "tap {c}",
    "gently poke the {n} which is {c}",
];
const PUT_SEEN: [&str; 12] = [
    "put the {c} {n} in the {s} {b}",
    "place the {c} {n} in the {s} {b}",
    "drop the {c} {n} into the {s} {b}",
    "please put the {c} {n} into the {s} {b}",
    "pick up the {c} {n} and put it in the {s} {b}",
    "in the {s} {b} put the {c} {n}",
    "move the {c} {n} to the {s} {b}",
    "take the {c} {n} to the {b} on the {s}",
    "the {c} {n} goes in the {s} {b}",
    "put the {n} that is {c} in the {s} {b}",
    "can you drop the {c} {n} in the {b} on the {s}",
    "{c} {n}, {s} {b}",
];
const PUT_HELD_OUT: [&str; 5] = [
    "please place the {c} {n} into the {b} on the {s}",
    "take the {c} {n} and drop it in the {s} {b}",
    "into the {s} {b} goes the {c} {n}",
    "could you move the {n} that is {c} into the {s} {b}",
    "store the {c} {n} inside the {s} {b}",
];
const NONSENSE_SEEN: [&str; 10] = [
    "what time is it",
    "hello robot",
    "tell me a story about the sea",
    "nothing",
    "sing a song",
    "the weather is nice in the left corner",
    "how are you",
    "lorem ipsum dolor",
    "wait",
    "do you like the colour of this table",
];
const NONSENSE_HELD_OUT: [&str; 5] = [
    "who won the game last night",
    "is it going to rain",
    "tell me about the table",
    "good morning robot",
    "flim flam flop",
];

/// A sentence for `task` about the block of this colour.
pub fn ask(dice: &mut Dice, task: Task, colour: &str, wording: Wording) -> String {
    let template = match (task, wording) {
        (Task::Touch, Wording::Seen) => *dice.pick(&TOUCH_SEEN),
        (Task::Touch, Wording::HeldOut) => *dice.pick(&TOUCH_HELD_OUT),
        (Task::Put { .. }, Wording::Seen) => *dice.pick(&PUT_SEEN),
        (Task::Put { .. }, Wording::HeldOut) => *dice.pick(&PUT_HELD_OUT),
    };
    let side = match task {
        Task::Put { left: true } => "left",
        Task::Put { left: false } => "right",
        Task::Touch => "",
    };
    template
        .replace("{c}", colour)
        .replace("{n}", dice.pick::<&str>(&NOUNS))
        .replace("{s}", side)
        .replace("{b}", dice.pick::<&str>(&TRAYS))
}

/// A sentence that asks for nothing on this table.
pub fn nonsense(dice: &mut Dice, wording: Wording) -> String {
    match wording {
        Wording::Seen => (*dice.pick(&NONSENSE_SEEN)).to_owned(),
        Wording::HeldOut => (*dice.pick(&NONSENSE_HELD_OUT)).to_owned(),
    }
}
