// SPDX-License-Identifier: Apache-2.0
//! The cells through which threads hand data on: wait-free for the writer, newest value wins.
//!
//! Latest-value buffers are the `triple_buffer` crate's, chunk queues are `rtrb`'s; what stands here is only what
//! they lack: a wake with a deadline ([`mailbox`]), a table of heartbeats ([`heartbeat`]), what a person holds ([`hold`]), and both kinds of cell between
//! two processes ([`shared`], over memory of [`mapping`]). `unsafe` is in [`mapping`] alone.

pub mod heartbeat;
pub mod hold;
pub mod mailbox;
pub mod mapping;
pub mod shared;
