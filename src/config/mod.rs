// SPDX-License-Identifier: Apache-2.0
//! Files as written -> checked values. Every check collects all problems before it refuses.

pub mod problem;
