// SPDX-License-Identifier: Apache-2.0
//! stub
#![allow(missing_docs)]
#[derive(Clone, Debug, Default, serde::Serialize)] pub struct JointView { pub name: String, pub measured: f64, pub commanded: f64, pub min: f64, pub max: f64 }
#[derive(Clone, Debug, Default, serde::Serialize)] pub struct Snapshot { pub mode: String, pub reason: String, pub instruction: String, pub unknown_words: Vec<String>, pub policy: String, pub precision: String, pub joints: Vec<JointView>, pub keypoint: Option<[f32;2]>, pub presence: Option<f32>, pub inference_ms: f64, pub frame_to_command_ms: f64, pub tick_lateness_us: f64, pub commands_sent: u64, pub late_ticks: u64, pub governor_interventions: u64, pub allocations: u64 }
pub struct Picture { pub width: usize, pub height: usize, pub seq: u32, pub rgb: Vec<u8> }
pub trait Operator: Send + Sync { fn snapshot(&self) -> Snapshot; fn picture(&self, into: &mut Picture); fn instruct(&self, text: &str) -> Result<String, String>; fn request_mode(&self, mode: &str) -> Result<String, String>; }
pub struct Running { pub url: String }
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct PageError;
pub fn serve(_listen: std::net::SocketAddr, _operator: std::sync::Arc<dyn Operator>) -> Result<Running, PageError> { Err(PageError) }
