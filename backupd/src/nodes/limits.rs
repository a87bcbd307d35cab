//! The longest argument that a server takes, raised while a longer value is sent.

use crate::error::{Error, Result};
use crate::redis::Client;

/// The longest argument, and the most that a client may have under way.
const SETTINGS: [&str; 2] = ["proto-max-bulk-len", "client-query-buffer-limit"];
/// What a server has when it does not tell, in bytes: what it has unless it is configured otherwise.
const DEFAULTS: [u64; 2] = [512 << 20, 1 << 30];
/// What surrounds a value in its payload, and a payload in its command, but for the name of the key.
const AROUND_LEN: u64 = 1 << 20;

/// Settings as they were.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(&'static str, u64)>);

/// Lets the server take a value of this many bytes.
///
/// # Errors
/// When the value is longer than the server takes, and it does not let us change that; nothing is changed then.
pub(super) async fn raise(client: &mut Client, largest: u64) -> Result<Before> {
    let mut before = Before::default();
    match raise_each(client, largest, &mut before).await {
        Ok(()) => Ok(before),
        Err(error) => {
            if let Err(left) = put_back(client, before).await {
                tracing::warn!(error = %left, "a limit of the node stays raised");
            }
            Err(error)
        }
    }
}

/// Notes each setting in `before` as soon as it is changed.
async fn raise_each(client: &mut Client, largest: u64, before: &mut Before) -> Result<()> {
    for (setting, default) in SETTINGS.into_iter().zip(DEFAULTS) {
        let needed = largest.saturating_add(AROUND_LEN);
        // a server that does not tell us has most likely what all have
        let known = client.setting(setting).await.ok().flatten();
        let limit = known.and_then(|text| text.parse().ok()).unwrap_or(default);
        // 0: none
        if limit > 0 && needed > limit {
            let set = client.change_setting(setting, &needed.to_string()).await;
            set.map_err(|error| too_large(error, setting, largest))?;
            before.0.push((setting, limit));
        }
    }
    Ok(())
}

/// Sets back what [`raise`] changed.
pub(super) async fn put_back(client: &mut Client, before: Before) -> Result<()> {
    for (setting, limit) in before.0 {
        client.change_setting(setting, &limit.to_string()).await?;
    }
    Ok(())
}

fn too_large(error: Error, setting: &str, largest: u64) -> Error {
    error
        .at(format!("a value of {largest} bytes is longer than the node takes"))
        .hint(format!("set {setting} of the node to more than that, or restore with --launch or --out"))
}
