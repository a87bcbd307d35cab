//! The longest string and argument that a server takes, raised while a longer one is sent.

use super::survey::Needs;
use crate::error::{Error, Result};
use crate::redis::Client;

/// The longest argument, and the most that a client may have under way.
const SETTINGS: [&str; 2] = ["proto-max-bulk-len", "client-query-buffer-limit"];
/// What a server has when it does not tell, in bytes: what it has unless it is configured otherwise.
const DEFAULTS: [u64; 2] = [512 << 20, 1 << 30];

/// What a server takes; 0: anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits([u64; 2]);

impl Limits {
    /// Asks for them. A server that does not tell us has most likely what all have.
    pub(super) async fn of(client: &mut Client) -> Self {
        let mut limits = DEFAULTS;
        for (limit, setting) in limits.iter_mut().zip(SETTINGS) {
            let known = client.setting(setting).await.ok().flatten();
            *limit = known.and_then(|text| text.parse().ok()).unwrap_or(*limit);
        }
        Self(limits)
    }

    /// Each setting that has to be raised, from what it is to what is needed.
    fn lacking(self, needs: Needs) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let each = SETTINGS.into_iter().zip(self.0).zip([needs.string, needs.argument]);
        each.filter(|((_, limit), needed)| *limit > 0 && needed > limit)
            .map(|((setting, limit), needed)| (setting, limit, needed))
    }

    /// Whether it takes all of this.
    pub(super) fn take(self, needs: Needs) -> bool {
        self.lacking(needs).next().is_none()
    }
}

/// Settings as they were.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(&'static str, u64)>);

/// Lets the server take what is needed.
///
/// # Errors
/// When that is more than the server takes, and it does not let us change that; nothing is changed then.
pub(super) async fn raise(client: &mut Client, limits: Limits, needs: Needs) -> Result<Before> {
    let mut before = Before::default();
    for (setting, limit, needed) in limits.lacking(needs) {
        match client.change_setting(setting, &needed.to_string()).await {
            Ok(()) => before.0.push((setting, limit)),
            Err(error) => {
                if let Err(left) = put_back(client, before).await {
                    tracing::warn!(error = %left, "a limit of the node stays raised");
                }
                return Err(too_large(error, setting, needed));
            }
        }
    }
    Ok(before)
}

/// Sets back what [`raise`] changed.
pub(super) async fn put_back(client: &mut Client, before: Before) -> Result<()> {
    for (setting, limit) in before.0 {
        client.change_setting(setting, &limit.to_string()).await?;
    }
    Ok(())
}

fn too_large(error: Error, setting: &str, needed: u64) -> Error {
    error
        .at(format!("what makes a value is longer than the node takes, which is {needed} bytes"))
        .hint(format!("set {setting} of the node to that, or restore with --launch or --out"))
}
