// SPDX-License-Identifier: Apache-2.0
//! What the model's training fixed: how a picture is fed and how an action is read.

pub mod image;
