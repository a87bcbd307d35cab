//! Events, as far as a caller sees their clusters.

use policies::access::{Principal, Resource};

use super::{Page, READS_MAX, Services, cursor};
use crate::catalog::{EVENTS_MAX, EventFilter, EventRow};
use crate::error::Result;

/// The name of the list in cursors.
const LIST: &str = "events";

/// Which events, and from where on. They come oldest first.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Only of this cluster.
    pub cluster: Option<String>,
    /// Only of this snapshot.
    pub snapshot_name: Option<String>,
    /// Not before, ms since 1970.
    pub since_ms: u64,
    /// Before, ms since 1970.
    pub until_ms: Option<u64>,
    /// Behind the page that gave this.
    pub cursor: Option<String>,
    /// At most so many, from 1 to [`EVENTS_MAX`].
    pub limit: u32,
}

impl Services {
    /// A page of the events that the caller sees. Those that concern no cluster are seen by who sees everything.
    ///
    /// # Errors
    /// `Usage` for a cursor that is none; what the catalog says.
    pub async fn events(&self, caller: &Principal, question: &Question) -> Result<Page<EventRow>> {
        let limit = usize::try_from(question.limit.clamp(1, EVENTS_MAX)).unwrap_or(1);
        let mut filter = EventFilter {
            cluster: question.cluster.clone().or_else(|| Self::only_cluster(caller)),
            snapshot_name: question.snapshot_name.clone(),
            since_ms: question.since_ms,
            until_ms: question.until_ms,
            after: question.cursor.as_deref().map(|text| cursor::read(LIST, text)).transpose()?,
        };
        let mut items: Vec<EventRow> = Vec::new();
        for _ in 0..READS_MAX {
            let rows = self.catalog.events_page(&filter).await?;
            let is_last = rows.len() < usize::try_from(EVENTS_MAX).unwrap_or(1);
            filter.after = rows.last().map(|row| (row.at_ms, row.event_id.clone()));
            for row in rows {
                let tags = self.cluster_tags(&row.cluster);
                let of = Resource::Of { cluster: &row.cluster, tags: &tags };
                if !self.sees(caller, if row.cluster.is_empty() { Resource::Unknown } else { of }) {
                    continue;
                }
                if items.len() == limit {
                    let next = items.last().map(|last| cursor::write(LIST, last.at_ms, &last.event_id));
                    return Ok(Page { items, next });
                }
                items.push(row);
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
        Ok(Page { items, next: filter.after.map(|(ms, id)| cursor::write(LIST, ms, &id)) })
    }
}
