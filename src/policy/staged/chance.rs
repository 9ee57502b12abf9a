// SPDX-License-Identifier: Apache-2.0
//! Which token is taken, and where noise comes from.

use crate::policy::decode::{Invalid, argmax};
use crate::policy::staged::manifest::TokenLoop;
use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

/// The logits among which is chosen, and the id of the first.
pub(super) fn allowed<'a>(
    file: &TokenLoop,
    logits: &'a [f32],
) -> Result<(u32, &'a [f32]), Invalid> {
    let base = file.logits_base;
    let (from, part) = match file.allowed {
        None => (base, Some(logits)),
        Some(ids) => {
            let start = ids.from.checked_sub(base).map(|start| start as usize);
            let part = start.and_then(|start| logits.get(start..start + ids.count as usize));
            (ids.from, part)
        }
    };
    let part = part.ok_or(Invalid::Count {
        what: "logits up to the last allowed id",
        expected: file
            .allowed
            .map_or(0, |ids| (ids.from + ids.count) as usize),
        found: logits.len(),
    })?;
    Ok((from, part))
}

/// The likeliest id.
pub(super) fn pick(file: &TokenLoop, logits: &[f32]) -> Result<u32, Invalid> {
    let (from, part) = allowed(file, logits)?;
    let best = argmax(part).ok_or(Invalid::NotFinite {
        what: "a logit",
        at: part.iter().position(|value| value.is_nan()).unwrap_or(0),
    })?;
    Ok(from + best as u32)
}

/// Evenly between 0 and 1, neither of them.
pub(super) fn open_unit(dice: &mut Pcg64Mcg) -> f64 {
    ((dice.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}
