//! Which frames of a snapshot are read, when only some of its keys are wanted.

use super::super::Options;
use super::super::input::{Input, PartInfo};
use super::PlannedInput;
use crate::bkd::Index;
use crate::error::Result;
use crate::pipeline::pick::{self, Pick};
use crate::pipeline::wanted::Wanted;
use crate::snapshot::verify;

/// What is read of each input; `None` where that is all of it. The inputs are told.
pub(super) async fn pick(
    options: &Options,
    (infos, indexes): (&[PartInfo], &[Index]),
    wanted: Option<&Wanted>,
    inputs: &mut [PlannedInput],
) -> Result<Vec<Option<Pick>>> {
    let Input::Snapshot { repository, opened } = &options.input else { return Ok(vec![None; inputs.len()]) };
    let mut picks = Vec::with_capacity(inputs.len());
    let shards = opened.manifest.shards.iter().zip(infos);
    for ((input, index), (shard, info)) in inputs.iter_mut().zip(indexes).zip(shards) {
        let frames = index.frames.len() as u64;
        let pick = match wanted {
            Some(wanted) if !input.targets.is_empty() => {
                let source = verify::source(repository, opened, shard);
                pick::pick(&source, index, wanted, info.version).await?
            }
            _ => None,
        };
        input.frames = Some(frames);
        input.read_frames = Some(match &pick {
            Some(pick) => pick.frames() as u64,
            None if input.targets.is_empty() => 0,
            None => frames,
        });
        if let Some(pick) = &pick {
            input.read_bytes = Some(pick.stored_bytes);
        }
        picks.push(pick);
    }
    Ok(picks)
}

/// RDB bytes that are read of all inputs, if known.
pub(super) fn read_bytes(inputs: &[PlannedInput], picks: &[Option<Pick>]) -> Option<u64> {
    let of = |(input, pick): (&PlannedInput, &Option<Pick>)| match pick {
        Some(pick) => Some(pick.plain_bytes()),
        None if input.targets.is_empty() => Some(0),
        None => input.bytes,
    };
    inputs.iter().zip(picks).map(of).sum()
}

/// How much of the inputs a selection reads.
pub(super) fn note(inputs: &[PlannedInput]) -> String {
    let sum = |of: fn(&PlannedInput) -> Option<u64>| inputs.iter().map(of).sum::<Option<u64>>();
    match (sum(|input| input.read_frames), sum(|input| input.frames)) {
        (Some(read), Some(all)) if read < all => {
            format!("{read} of {all} frames are read, which can hold what is selected")
        }
        (Some(_), _) => "snapshots are read whole, unless keys are named without * ? [ or by --slot-range".to_owned(),
        (None, _) => "files are read whole".to_owned(),
    }
}
