// SPDX-License-Identifier: Apache-2.0
//! Tendon.
pub mod bench;
