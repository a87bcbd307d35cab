//! Migrations of slots that the cluster does in one step, which leave no marker in `CLUSTER NODES`.

use std::collections::HashMap;

use ::redis::{Cmd, FromRedisValue, Value, cmd};

use super::client::Client;
use super::info::Info;

/// States of a migration that is over: those of Valkey 9, then those that Redis 8.4 documents beside them.
const OVER: [&str; 5] = ["success", "failed", "canceled", "cancelled", "completed"];

/// The migrations that are running at this primary, as text. Empty where the server knows none of this kind, or
/// does not let us ask.
///
/// Valkey 9: `CLUSTER GETSLOTMIGRATIONS`. Redis 8.4: `CLUSTER MIGRATION STATUS ALL`, from its documentation only.
pub(super) async fn running(client: &mut Client, info: &Info) -> Vec<String> {
    let Some((name, command)) = question(info) else { return Vec::new() };
    let Ok(Value::Array(jobs)) = client.query::<Value>(name, &command).await else { return Vec::new() };
    jobs.iter().filter_map(unfinished).collect()
}

fn question(info: &Info) -> Option<(&'static str, Cmd)> {
    let (engine, version) = info.engine();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let mut command = cmd("CLUSTER");
    match engine {
        "valkey" if version >= (9, 0) => {
            command.arg("GETSLOTMIGRATIONS");
            Some(("CLUSTER GETSLOTMIGRATIONS", command))
        }
        "redis" if version >= (8, 4) => {
            command.arg("MIGRATION").arg("STATUS").arg("ALL");
            Some(("CLUSTER MIGRATION", command))
        }
        _ => None,
    }
}

/// `state` of one migration, with its slots, unless it is over. A reply that we do not understand counts as running.
fn unfinished(job: &Value) -> Option<String> {
    let fields: HashMap<String, Value> = HashMap::from_redis_value(job.clone()).unwrap_or_default();
    let text = |name: &str| {
        let value = fields.get(name).cloned().and_then(|value| String::from_redis_value(value).ok());
        value.unwrap_or_else(|| "?".to_owned())
    };
    let state = text("state");
    let slots = ["slot_ranges", "slots"].map(text).into_iter().find(|slots| slots != "?").unwrap_or_default();
    (!OVER.contains(&state.to_ascii_lowercase().as_str())).then(|| format!("migration of {slots}: {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_is_left_out() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let job = |state: &str| {
            Value::Array(vec![text("slot_ranges"), text("0-9"), text("state"), text(state), text("n"), Value::Int(3)])
        };
        for over in OVER {
            assert_eq!(unfinished(&job(over)), None);
        }
        assert_eq!(unfinished(&job("snapshotting")).as_deref(), Some("migration of 0-9: snapshotting"));
        assert!(unfinished(&Value::Int(1)).is_some());
    }

    #[test]
    fn engines_are_asked_in_their_own_words() {
        let asked = |text: &str| question(&Info::parse(text)).map(|(name, _)| name);
        assert_eq!(asked("redis_version:7.2.4\nvalkey_version:9.1.2"), Some("CLUSTER GETSLOTMIGRATIONS"));
        assert_eq!(asked("redis_version:8.4.0"), Some("CLUSTER MIGRATION"));
        assert_eq!(asked("redis_version:7.2.4\nvalkey_version:8.1.1"), None);
        assert_eq!(asked("redis_version:8.2.3"), None);
    }
}
