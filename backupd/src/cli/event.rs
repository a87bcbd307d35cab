//! `backupd event …`

use clap::Subcommand;
use serde_json::json;

use super::output::{Output, table};
use super::reach::Context;
use crate::catalog::{AuditRow, Catalog, EventRow, time_text};
use crate::error::{Class, Error, Result};

/// History.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List events, oldest first; at most the newest thousand.
    List {
        /// Only of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Only of the last so long, such as 2h or 7d.
        #[arg(long, value_name = "DURATION", value_parser = policies::duration::parse)]
        since: Option<u64>,
    },
    /// List who deleted, restored, removed or changed keys (at most the newest ten thousand lines), and check that no line was ever
    /// changed; exit code 17 when one was.
    Audit,
}

/// Runs an event command.
///
/// # Errors
/// `Verification` when the audit chain is broken, and what the catalog says.
pub async fn run(command: Command, context: &Context, output: Output) -> Result<()> {
    let catalog = Catalog::open(&context.load()?.catalog).await?;
    match command {
        Command::List { cluster, since } => {
            let now_ms = catalog.now_unix_ms().await?;
            let since_ms = since.map_or(0, |since| now_ms.saturating_sub(since));
            let events = catalog.events(cluster.as_deref(), since_ms).await?;
            output.result(&json!({"events": events}), |_| events_text(&events))
        }
        Command::Audit => {
            let (lines, broken) = catalog.audit_lines().await?;
            output.result(&json!({"lines": lines, "broken_at": broken}), |_| audit_text(&lines))?;
            match broken {
                None => Ok(()),
                Some(number) => Err(Error::new(
                    Class::Verification,
                    format!("audit line {number} does not follow from the one before it"),
                )
                .hint("somebody changed or removed lines of the catalog")),
            }
        }
    }
}

fn events_text(events: &[EventRow]) -> String {
    let rows = events.iter().map(|event| {
        vec![
            time_text(event.at_ms),
            event.severity.clone(),
            event.code.clone(),
            event.cluster.clone(),
            event.message.clone(),
        ]
    });
    table(&["at", "severity", "code", "cluster", "message"], rows)
}

fn audit_text(lines: &[AuditRow]) -> String {
    let rows = lines.iter().map(|line| {
        let texts = [&line.who, &line.action, &line.subject, &line.details];
        std::iter::once(time_text(line.at_ms)).chain(texts.into_iter().cloned()).collect()
    });
    table(&["at", "who", "action", "subject", "details"], rows)
}
