//! Which shards the target has.

use policies::shards;
use policies::slot::SlotSet;

use super::super::{Mode, Options, Shape};
use crate::error::{Class, Error, Result};
use crate::nodes::{self, Form};

/// The mode and the slots of each target shard.
pub(super) fn shape(options: &Options) -> Result<(Mode, Vec<SlotSet>)> {
    let refused = |error: shards::PlanError| Error::new(Class::Refused, error.to_string());
    let manifest = options.input.manifest();
    let was_cluster = manifest.is_some_and(|manifest| manifest.mode == "cluster");
    let targets = match &options.shape {
        Shape::Slots(slots) => slots.clone(),
        Shape::Shards(count) => shards::equal(*count).map_err(|error| Error::new(Class::Usage, error.to_string()))?,
        Shape::AsBefore if was_cluster => {
            let slots = |shard: &crate::manifest::Shard| shard.slots.clone().unwrap_or_else(SlotSet::full);
            manifest.into_iter().flat_map(|manifest| manifest.shards.iter().map(slots)).collect()
        }
        Shape::AsBefore => vec![SlotSet::full()],
    };
    shards::check_cover(&targets).map_err(refused)?;
    let asked_for_shape = !matches!(options.shape, Shape::AsBefore);
    let default = if targets.len() > 1 || (was_cluster && !asked_for_shape) { Mode::Cluster } else { Mode::Standalone };
    let mode = options.mode.unwrap_or(default);
    if mode == Mode::Standalone && targets.len() > 1 {
        return Err(Error::new(Class::Usage, format!("{} shards need cluster mode", targets.len()))
            .hint("leave out --mode standalone, or give --shards 1"));
    }
    Ok((mode, targets))
}

/// The shape that running nodes have or can take.
pub(super) fn shape_of_nodes(options: &Options, nodes: &nodes::Target) -> Result<(Mode, Vec<SlotSet>)> {
    let refused = |message: String| Error::new(Class::Refused, message);
    let mode = if nodes.form == Form::Standalone { Mode::Standalone } else { Mode::Cluster };
    if options.mode.is_some_and(|asked| asked != mode) {
        return Err(refused("the nodes do not run in the mode that was asked for".to_owned()));
    }
    let count = nodes.nodes.len();
    let targets = match (&nodes.slots, &options.shape) {
        (Some(own), Shape::Slots(asked)) if own != asked => {
            return Err(refused("the cluster serves other slots than those asked for".to_owned())
                .hint("leave out --slots: a formed cluster gets the keys of the slots that it serves"));
        }
        (_, Shape::Shards(asked)) if *asked != count => {
            return Err(refused(format!("{asked} shards were asked for, and there are {count} nodes to take them")));
        }
        (Some(own), _) => own.clone(),
        (None, Shape::Slots(asked)) => asked.clone(),
        (None, _) if mode == Mode::Standalone => vec![SlotSet::full()],
        (None, _) => shards::equal(count).map_err(|error| refused(error.to_string()))?,
    };
    shards::check_cover(&targets).map_err(|error| refused(error.to_string()))?;
    if targets.len() == count {
        Ok((mode, targets))
    } else {
        Err(refused(format!("the slots of {} shards were given, and there are {count} nodes", targets.len())))
    }
}
