//! What conversions will leave out, foretold from what the manifest counted.

use rdbtools::convert::{LossKind, Target};

use super::super::Options;
use super::PlannedLoss;
use super::refusals::Refusals;
use crate::error::{Class, Error};

/// Names of the types of hashes whose fields expire.
const FIELD_TTL_TYPES: [&str; 5] =
    ["hash_metadata", "hash_listpack_ex", "hash_metadata_pre_ga", "hash_listpack_ex_pre_ga", "hash_2(valkey)"];

/// What will be left out; what was not agreed to is refused.
pub(super) fn planned(options: &Options, converted_to: &[Option<Target>], refusals: &mut Refusals) -> Vec<PlannedLoss> {
    let Some(manifest) = options.input.manifest() else { return Vec::new() };
    // shards differ in their engines only when nodes do; the poorest of them decides
    let Some(target) = converted_to.iter().flatten().min_by_key(|target| target.version().number) else {
        return Vec::new();
    };
    let reports = || manifest.shards.iter().map(|shard| &shard.rdb);
    let of_types = |names: &[&str]| -> u64 {
        reports()
            .flat_map(|report| &report.types)
            .filter(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, n)| n)
            .sum()
    };
    let functions = reports().map(|report| report.functions).max().unwrap_or(0);
    let mut losses = Vec::new();
    let mut add = |kind, places| {
        if places > 0 {
            losses.push(PlannedLoss { kind, places });
        }
    };
    // a restore without expiries has none to lose, and of a part it is not known what it holds
    let takes_all = options.select.is_all() && options.db.is_none();
    if !target.has_field_expiries() && options.ttl != super::super::Ttl::Drop && takes_all {
        add(LossKind::FieldTtls, of_types(&FIELD_TTL_TYPES));
    }
    if !target.has_functions() {
        add(LossKind::Functions, functions);
    }
    let refused: Vec<&PlannedLoss> = losses.iter().filter(|loss| !options.drop.contains(&loss.kind)).collect();
    if !refused.is_empty() {
        let what: Vec<String> =
            refused.iter().map(|loss| format!("{} of {} keys or libraries", loss.kind.name(), loss.places)).collect();
        let kinds: Vec<&str> = refused.iter().map(|loss| loss.kind.name()).collect();
        let message = format!("{target} cannot hold all of it: {}", what.join("; "));
        refusals.add(Error::new(Class::Refused, message).hint(format!("--drop {} leaves it out", kinds.join(","))));
    }
    losses
}
