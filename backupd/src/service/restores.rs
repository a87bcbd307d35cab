//! What a restore into a target of the configuration would do.

use serde_json::Value;

use super::Services;
use super::snapshots::Found;
use crate::error::{Class, Error, Result};
use crate::jobs::restore::Parameters;
use crate::jobs::{reach, target};
use crate::nodes::Unfinished;
use crate::restore::{self, input::Input};

impl Services {
    /// Plans a restore; nothing is taken and nothing is touched.
    ///
    /// # Errors
    /// Every reason why it cannot be; see [`restore::plan()`].
    pub async fn plan_restore(&self, found: &Found, parameters: &Parameters) -> Result<Value> {
        let config = self.config();
        parameters.check(&config)?;
        let (repository, keys) = reach::repository(&config, &found.repository).await?;
        let opened = repository.open_snapshot(&found.snapshot.name, &keys).await?;
        let need = parameters.need(opened.manifest.shards.len())?;
        let section = config.target(&parameters.target)?;
        let wanted = target::Wanted { section, need, name: &parameters.name, engine: &opened.manifest.engine };
        let target = target::imagine(wanted).await?;
        let input = Input::Snapshot { repository, opened: Box::new(opened) };
        let options = parameters.options(input, target, Unfinished::Refuse)?;
        let plan = restore::plan(&options).await?;
        serde_json::to_value(plan)
            .map_err(|error| Error::new(Class::Unforeseen, format!("the plan cannot be written: {error}")))
    }
}
