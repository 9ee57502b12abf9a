// SPDX-License-Identifier: Apache-2.0
//! Who reads an output: other stages, or what is on the host in any case (loop, decoder, maps, doubt).

use crate::policy::staged::manifest::{DecoderFile, LoopFile, StagedFile};
use crate::policy::staged::plan::{Place, Plan, Source, output_of};

/// Outputs that something reads which is no stage; those of rings are the plan's.
pub(super) fn read_on_host(file: &StagedFile) -> Vec<Place> {
    let named = match &file.repeat {
        Some(LoopFile::Flow(flow)) => vec![&flow.velocity],
        Some(LoopFile::Diffusion(diffusion)) => vec![&diffusion.said],
        Some(LoopFile::Tokens(tokens)) => vec![&tokens.first, &tokens.next],
        Some(LoopFile::Draw(_)) | None => Vec::new(),
    };
    let decoded = match &file.decoder {
        DecoderFile::Regression(regression) => Some(&regression.from),
        DecoderFile::Rt1(rt1) => Some(&rt1.from),
        _ => None,
    };
    let told = file.attention.iter().map(|map| &map.from);
    let told = told.chain(
        file.uncertainty
            .iter()
            .filter_map(|each| each.from.as_ref()),
    );
    let all = named.into_iter().chain(decoded).chain(told);
    all.filter_map(|name| output_of(file, name)).collect()
}

/// An input that reads an output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) input: Place,
    /// As what it carries from run to run.
    pub(super) carries: bool,
    /// Not as a part of it.
    pub(super) whole: bool,
}

impl Plan {
    /// The inputs that read an output.
    pub(super) fn readers(&self, of: Place) -> Vec<Reader> {
        let mut readers = Vec::new();
        for (stage, planned) in self.stages.iter().enumerate() {
            for (tensor, input) in planned.inputs.iter().enumerate() {
                let mut read = |carries| {
                    readers.push(Reader {
                        input: Place { stage, tensor },
                        carries,
                        whole: carries || input.parts.len() == 1,
                    });
                };
                if input.carry == Some(of) {
                    read(true);
                }
                let parts = input.parts.iter();
                parts
                    .filter(|part| part.source == Source::Output(of))
                    .for_each(|_| read(false));
            }
        }
        readers
    }
}
