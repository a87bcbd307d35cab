//! `DescribeEvents`.

use policies::access::Action;

use super::super::call::Call;
use super::super::check;
use super::super::error::Fault;
use super::super::shapes::Event;
use super::super::xml::Writer;
use crate::catalog::{Code, EventRow};
use crate::service::events::Question;

/// The most events of a page.
const RECORDS_MAX: u32 = 100;

/// How far back events are told when nothing is said, minutes.
const DURATION_MINUTES: u32 = 60;

/// How long events can be asked for, minutes: 14 days.
const DURATION_MINUTES_MAX: u32 = 14 * 1440;

/// All that AWS has events of.
const SOURCE_TYPES: [&str; 9] = [
    "cache-cluster",
    "cache-parameter-group",
    "cache-security-group",
    "cache-subnet-group",
    "replication-group",
    "serverless-cache",
    "serverless-cache-snapshot",
    "user",
    "user-group",
];

pub(super) async fn describe(call: &Call<'_>, out: &mut Writer) -> Result<(), Fault> {
    let count = check::max_records(call.form, RECORDS_MAX)?;
    let source_type = match call.form.said("SourceType") {
        None => "replication-group",
        Some(name) => SOURCE_TYPES
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| Fault::value("The parameter SourceType is not valid."))?,
    };
    let source = call.form.said("SourceIdentifier");
    if source.is_some() && call.form.said("SourceType").is_none() {
        return Err(Fault::combination("SourceType must be specified if SourceIdentifier is specified."));
    }
    let (since_ms, until_ms) = times(call)?;
    let is_ours = matches!(source_type, "replication-group" | "cache-cluster");
    let cluster = match source {
        Some(id) if source_type == "cache-cluster" => match call.node(id, Action::ReadEvents).await {
            Ok(node) => Some(node.known.name),
            // of a cluster that is gone there may be events
            Err(_) => Some(id.rsplit_once('-').map_or(id, |(name, _)| name).to_owned()),
        },
        Some(id) => Some(id.to_owned()),
        None => None,
    };
    let (mut events, mut marker) = (Vec::new(), None);
    if is_ours {
        let question = Question {
            cluster,
            since_ms,
            until_ms,
            cursor: call.form.said("Marker").map(str::to_owned),
            limit: u32::try_from(count).unwrap_or(RECORDS_MAX),
            ..Question::default()
        };
        let page = call.query.services.events(call.caller, &question).await.map_err(|error| match error.class() {
            crate::error::Class::Usage => Fault::value("The parameter Marker is not valid."),
            _ => error.into(),
        })?;
        let shown = page.items.iter().filter(|row| !row.cluster.is_empty());
        events = shown.map(|row| event(row, source_type, source)).collect();
        marker = page.next;
    }
    out.some("Marker", marker.as_deref());
    out.list("Events", "Event", &events, |out, event| event.write(out));
    Ok(())
}

/// From when and before when, ms since 1970.
fn times(call: &Call<'_>) -> Result<(u64, Option<u64>), Fault> {
    let (start, end) = (call.form.time_ms("StartTime")?, call.form.time_ms("EndTime")?);
    let minutes = call.form.number("Duration")?;
    if minutes.is_some_and(|minutes| minutes > DURATION_MINUTES_MAX) {
        return Err(Fault::value(format!("The parameter Duration must be at most {DURATION_MINUTES_MAX} minutes.")));
    }
    if let (Some(start), Some(end)) = (start, end)
        && start > end
    {
        return Err(Fault::combination("StartTime must be before EndTime."));
    }
    let length_ms = u64::from(minutes.unwrap_or(DURATION_MINUTES)) * 60_000;
    Ok(match (start, end) {
        (Some(start), end) => (start, end.or_else(|| minutes.map(|_| start.saturating_add(length_ms)))),
        (None, end) => (end.unwrap_or(call.now_ms).saturating_sub(length_ms), end),
    })
}

/// An event in the words of AWS, where it has some for it.
fn event(row: &EventRow, source_type: &'static str, asked: Option<&str>) -> Event {
    let (snapshot, cluster) = (&row.snapshot_name, &row.cluster);
    let message = match row.code.as_str() {
        code if code == Code::BackupSucceeded.row().0 => {
            format!("Snapshot succeeded for snapshot with ID '{snapshot}' of replication group with ID '{cluster}'")
        }
        code if code == Code::BackupFailed.row().0 => {
            format!(
                "Snapshot failed for snapshot with ID '{snapshot}' of replication group with ID '{cluster}': {}",
                row.message
            )
        }
        _ => row.message.clone(),
    };
    Event { source: asked.map_or_else(|| cluster.clone(), str::to_owned), source_type, message, at_ms: row.at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_told_of_in_the_words_of_aws() {
        let row = |code: Code| EventRow {
            event_id: String::new(),
            at_ms: 7,
            code: code.row().0.to_owned(),
            severity: String::new(),
            cluster: "c".to_owned(),
            snapshot_name: "s".to_owned(),
            job_id: String::new(),
            message: "why".to_owned(),
        };
        let text = |code| event(&row(code), "replication-group", None).message;
        assert_eq!(
            text(Code::BackupSucceeded),
            "Snapshot succeeded for snapshot with ID 's' of replication group with ID 'c'"
        );
        assert_eq!(
            text(Code::BackupFailed),
            "Snapshot failed for snapshot with ID 's' of replication group with ID 'c': why"
        );
        assert_eq!(text(Code::WindowMissed), "why");
        assert_eq!(event(&row(Code::WindowMissed), "cache-cluster", Some("c-001")).source, "c-001");
    }
}
