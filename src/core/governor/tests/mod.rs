// SPDX-License-Identifier: Apache-2.0
//! The governor under test: single cases, and an adversary that looks for a way around each invariant.

mod adversary;
mod cases;
mod properties;
mod space;

use super::*;
