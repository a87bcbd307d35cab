//! What retention says of the snapshots of the configuration's repositories.

use policies::access::{Principal, Resource};
use policies::retention::{Cluster, GRACE_MS, SHARE_MAX_PERCENT};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use crate::error::Result;
use crate::jobs::reach;
use crate::repository::retention::{Line, Plan, Question};

/// What becomes of snapshots.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Report {
    /// Whether it was carried out.
    pub applied: bool,
    /// Every snapshot with its verdict.
    pub snapshots: Vec<Placed>,
    /// Clusters whose plan was refused.
    pub refused: Vec<Refused>,
}

/// One snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub struct Placed {
    /// The URL of its repository.
    pub repository: String,
    /// What becomes of it, and why.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub line: Line,
}

/// A plan that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refused {
    /// The URL of the repository.
    pub repository: String,
    /// The cluster.
    pub cluster: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// Takes over the plan of one repository.
    pub fn add(&mut self, url: &str, plan: Plan) {
        let refused = |(cluster, reason): (String, String)| Refused { repository: url.to_owned(), cluster, reason };
        self.refused.extend(plan.refused.into_iter().map(refused));
        self.snapshots.extend(plan.lines.into_iter().map(|line| Placed { repository: url.to_owned(), line }));
    }
}

impl Services {
    /// The plan for all clusters that the caller sees, or for one of them. Nothing is changed.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn retention(&self, caller: &Principal, cluster: Option<&str>) -> Result<Report> {
        let config = self.config();
        let schedules = self.catalog.schedules().await?;
        let mut report = Report::default();
        for section in config.repositories() {
            let Some((repository, _)) = reach::begun(&config, &section.name).await? else { continue };
            let known = reach::retained(&config, &schedules, &section.name);
            let question = Question {
                cluster,
                known: &known,
                others: Cluster::Unknown,
                grace_ms: GRACE_MS,
                share_max_percent: SHARE_MAX_PERCENT,
            };
            let mut plan = repository.plan_retention(question).await?;
            let sees = |cluster: &str| {
                let tags = self.cluster_tags(cluster);
                self.sees(caller, Resource::Of { cluster, tags: &tags })
            };
            plan.lines.retain(|line| sees(&line.cluster));
            plan.refused.retain(|(cluster, _)| sees(cluster));
            report.add(&repository.store().url(), plan);
        }
        Ok(report)
    }
}
