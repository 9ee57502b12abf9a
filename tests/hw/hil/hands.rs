// SPDX-License-Identifier: Apache-2.0
//! Whoever stands beside the robot: a person who is asked, or the bench robot, which does what it is told.

use crate::BenchRobot;
use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use tendon::bench::process::Request;
use tendon::link::{keys, operator_end};
use zenoh::Session;

pub enum Hands {
    /// Of a person at this terminal.
    Person,
    /// Of the bench robot: how it is asked, its name, its process.
    Bench(Session, String, Box<Mutex<BenchRobot>>),
}

impl Hands {
    /// Whether somebody stands there.
    pub fn person(&self) -> bool {
        matches!(self, Hands::Person)
    }

    /// Whether what follows may be done. Nothing is taken for a yes but a yes.
    pub fn allow(&self, what: &str) -> bool {
        match self {
            Hands::Bench(..) => true,
            Hands::Person => {
                println!("\n>> {what}");
                answer("   Type yes to go on, anything else to leave it out: ") == "yes"
            }
        }
    }

    /// Presses the emergency stop (or whatever cuts the drives), or releases it.
    pub fn emergency_stop(&self, pressed: bool) -> Result<(), String> {
        let word = if pressed {
            "PRESS the emergency stop now, while the joint moves."
        } else {
            "RELEASE the emergency stop."
        };
        self.act(word, Request::EmergencyStop(pressed), !pressed)
    }

    /// Cuts the servos' bus, or mends it.
    pub fn cut_bus(&self, cut: bool) -> Result<(), String> {
        let word = if cut {
            "PULL the servo bus's plug (data, not power) now, while the joint moves."
        } else {
            "PUT the plug back."
        };
        self.act(word, Request::CutBus(cut), !cut)
    }

    /// Takes the controller's power and gives it back, or starts it anew.
    pub fn restart_controller(&self) -> Result<(), String> {
        match self {
            Hands::Bench(_, _, robot) => robot
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .start_again(),
            Hands::Person => {
                println!(
                    "\n>> SWITCH the motor controller OFF now, while the joint moves, and ON again."
                );
                Ok(())
            }
        }
    }

    fn act(&self, word: &str, request: Request, waits: bool) -> Result<(), String> {
        match self {
            Hands::Bench(session, robot, _) => {
                let text = serde_json::to_string(&request).map_err(|error| error.to_string())?;
                let said = operator_end::ask(session, &keys::bench(robot), &text);
                said.map(drop).map_err(|error| error.to_string())
            }
            Hands::Person => {
                println!("\n>> {word}");
                if waits {
                    answer("   Enter when it is done: ");
                }
                Ok(())
            }
        }
    }

    /// How long to wait for a hand, in seconds.
    pub fn patience_s(&self) -> f64 {
        match self {
            Hands::Bench(..) => 2.0,
            Hands::Person => 20.0,
        }
    }
}

/// A line from the terminal; empty without one.
pub fn answer(question: &str) -> String {
    if !std::io::stdin().is_terminal() {
        return String::new();
    }
    print!("{question}");
    // A terminal that takes no text takes no answer either.
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) => line.trim().to_owned(),
        Err(_) => String::new(),
    }
}
