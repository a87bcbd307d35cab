//! A program that is run for each event, with the event as JSON on its standard input.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::catalog::EventRow;
use crate::error::{Class, Error, Result};

pub(super) async fn tell(words: &[String], event: &EventRow) -> Result<()> {
    let failed = |why: String| Error::new(Class::Unforeseen, why);
    let (program, arguments) = words.split_first().ok_or_else(|| failed("no program is named".to_owned()))?;
    let body = serde_json::to_vec(event).map_err(|error| failed(error.to_string()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("BACKUPD_EVENT", &event.code)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{program} cannot be started: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // a program that does not read its input may still have done its work: its exit code tells
        let _not_read = input.write_all(&body).await;
    }
    let status = child.wait().await.map_err(|error| failed(format!("{program}: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(format!("{program} ended with {status}"))) }
}
