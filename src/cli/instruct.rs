// SPDX-License-Identifier: Apache-2.0
//! `tendon instruct`: tell a running robot what to do.
