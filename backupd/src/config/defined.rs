//! The configuration with what was said of clusters besides.

use std::collections::BTreeMap;

use policies::replica::{Method, PrimaryUse};
use policies::retention::Policy;
use policies::window::decide::Missed;

use super::automation::Automation;
use super::{Cluster, Config};
use crate::catalog::{DefinitionRow, changed_tags};
use crate::redis::{SourceUrl, Tls};

impl Config {
    /// This configuration, with clusters that were made through the API beside its own, and with the windows, retention and tags that were
    /// set there. What its file names stays its own: a made cluster of the same name changes nothing but these.
    #[must_use]
    pub fn with_definitions(&self, rows: &[DefinitionRow]) -> Self {
        let mut config = self.clone();
        for row in rows {
            if row.is_made()
                && !config.clusters.contains_key(&row.cluster)
                && let Some(cluster) = self.made(row)
            {
                config.clusters.insert(cluster.name.clone(), cluster);
            }
            if let Some(cluster) = config.clusters.get_mut(&row.cluster) {
                cluster.automation.define(row);
                changed_tags(&mut cluster.tags, &row.tag_changes());
            } else if row.is_made() {
                changed_tags(config.tags_to_come.entry(row.cluster.clone()).or_default(), &row.tag_changes());
            }
        }
        config
    }

    /// A cluster that was made, once its nodes are known; `None` when the repository or the target that it was made with is gone.
    fn made(&self, row: &DefinitionRow) -> Option<Cluster> {
        let target = self.target(&row.target).ok()?;
        let repository = self.repository(&row.repository).ok()?;
        let scheme = if target.tls == Tls::default() { "redis" } else { "rediss" };
        let sources: Vec<SourceUrl> =
            row.nodes().iter().filter_map(|node| format!("{scheme}://{node}").parse().ok()).collect();
        (!sources.is_empty()).then(|| Cluster {
            name: row.cluster.clone(),
            sources,
            username: target.username.clone(),
            password: target.password.clone(),
            tls: target.tls.clone(),
            sentinel_master: None,
            encryption: None,
            copies: Vec::new(),
            repository: repository.name.clone(),
            tags: BTreeMap::new(),
            primary_use: PrimaryUse::OnlyHarmless,
            zone: None,
            method: Method::default(),
            // as in ElastiCache, backups of a new cluster are off until somebody switches them on
            automation: Automation {
                on: false,
                window: None,
                missed: Missed::Skip,
                policy: Policy::default(),
                verify: None,
            },
            data_dirs: BTreeMap::new(),
            addresses: BTreeMap::new(),
        })
    }
}

impl Automation {
    fn define(&mut self, row: &DefinitionRow) {
        if let Some(window) = row.window_text.as_ref().and_then(|text| text.parse().ok()) {
            self.window = Some(window);
        }
        match row.retention_days.and_then(|days| u32::try_from(days).ok()) {
            Some(0) => self.on = false,
            Some(days) => {
                self.on = true;
                self.policy.limit_days = days;
            }
            None => {}
        }
    }
}
