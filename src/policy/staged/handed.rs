// SPDX-License-Identifier: Apache-2.0
//! How numbers get from one of the host's tensors into another.

use super::{Loaded, Target};
use crate::policy::staged::plan::{Part, Place, Plan};
use crate::ports::Tensor;
use core::mem::swap;

pub(super) fn shift<T: Copy>(values: &mut [T], new: &[T]) {
    let keep = values.len().saturating_sub(new.len());
    values.copy_within(values.len() - keep.., 0);
    copy(values.get_mut(keep..), Some(new));
}

pub(super) fn copy<T: Copy>(into: Option<&mut [T]>, from: Option<&[T]>) {
    if let (Some(into), Some(from)) = (into, from) {
        for (slot, value) in into.iter_mut().zip(from) {
            *slot = *value;
        }
    }
}

pub(super) fn input_at(stages: &mut [Loaded], place: Place) -> Option<&mut Tensor> {
    stages.get_mut(place.stage)?.inputs.get_mut(place.tensor)
}

pub(super) fn part_of(stages: &mut [Loaded], target: Target) -> Option<&mut [f32]> {
    stages
        .get_mut(target.place.stage)?
        .inputs
        .get_mut(target.place.tensor)?
        .f32_mut()?
        .get_mut(target.part.start..target.part.start + target.part.len)
}

pub(super) fn write_part(stages: &mut [Loaded], target: Target, values: &Tensor) {
    let Some(into) = stages
        .get_mut(target.place.stage)
        .and_then(|stage| stage.inputs.get_mut(target.place.tensor))
    else {
        return;
    };
    let range = target.part.start..target.part.start + target.part.len;
    match (into, values) {
        (Tensor::F32(into), Tensor::F32(values)) => copy(into.get_mut(range), Some(values)),
        (Tensor::I32(into), Tensor::I32(values)) => copy(into.get_mut(range), Some(values)),
        _ => {}
    }
}

pub(super) fn copy_part(stages: &mut [Loaded], from: Target, to: Target) {
    let source = from.part.start..from.part.start + from.part.len;
    let sink = to.part.start..to.part.start + to.part.len;
    if from.place.stage == to.place.stage {
        let Some(stage) = stages.get_mut(from.place.stage) else {
            return;
        };
        let Ok([from, to]) = stage
            .inputs
            .get_disjoint_mut([from.place.tensor, to.place.tensor])
        else {
            return;
        };
        copy(
            to.f32_mut().and_then(|to| to.get_mut(sink)),
            from.f32().and_then(|from| from.get(source)),
        );
        return;
    }
    let Ok([a, b]) = stages.get_disjoint_mut([from.place.stage, to.place.stage]) else {
        return;
    };
    let (Some(from), Some(to)) = (
        a.inputs.get(from.place.tensor),
        b.inputs.get_mut(to.place.tensor),
    ) else {
        return;
    };
    copy(
        to.f32_mut().and_then(|to| to.get_mut(sink)),
        from.f32().and_then(|from| from.get(source)),
    );
}

/// Hands an output on; returns the bytes that had to be copied.
pub(super) fn hand(plan: &Plan, stages: &mut [Loaded], from: Place, to: Place, part: Part) -> u64 {
    let exchanged = plan
        .stages
        .get(from.stage)
        .and_then(|stage| stage.exchanged.get(from.tensor).copied())
        .unwrap_or(false);
    let pass = |output: &mut Tensor, input: &mut Tensor| {
        if exchanged {
            swap(output, input);
            return 0;
        }
        let range = part.start..part.start + part.len;
        match (output, input) {
            (Tensor::F32(from), Tensor::F32(into)) => copy(into.get_mut(range), Some(from)),
            (Tensor::I32(from), Tensor::I32(into)) => copy(into.get_mut(range), Some(from)),
            _ => {}
        }
        4 * part.len as u64
    };
    if from.stage == to.stage {
        let Some(stage) = stages.get_mut(from.stage) else {
            return 0;
        };
        match (
            stage.outputs.get_mut(from.tensor),
            stage.inputs.get_mut(to.tensor),
        ) {
            (Some(output), Some(input)) => pass(output, input),
            _ => 0,
        }
    } else {
        let Ok([a, b]) = stages.get_disjoint_mut([from.stage, to.stage]) else {
            return 0;
        };
        match (a.outputs.get_mut(from.tensor), b.inputs.get_mut(to.tensor)) {
            (Some(output), Some(input)) => pass(output, input),
            _ => 0,
        }
    }
}
