// SPDX-License-Identifier: Apache-2.0
//! The link: how commands, states and pictures travel, and what stands at the motor controller's end.
pub mod motor;
/// Placeholder
#[derive(Debug)]
pub struct CommandSender;
impl CommandSender { /// x
 pub fn send(&mut self, _f: &[u8]) -> Result<(), ()> { Ok(()) } }
