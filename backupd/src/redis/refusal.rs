//! Error replies of servers, and what each means for the user.

use crate::error::{Class, Error};

/// How much of a server's own words enters a message, in characters.
const REPLY_SHOWN_MAX: usize = 200;

/// The error for `reply`, the text of an error reply (without the leading `-`) of `node` to `command`.
///
/// Refused credentials and commands are `SourceAuth` and not retryable: repeating them in a loop locks users
/// out. What passes by itself (loading, a lost link, a failed fork) is `SourceUnavailable`.
pub(crate) fn refusal(node: &str, command: &str, reply: &str) -> Error {
    let (class, advice) = classify(command, reply);
    let error = Error::new(class, format!("{node}: {command}: {}", shown(reply)));
    match advice {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

fn classify(command: &str, reply: &str) -> (Class, Option<String>) {
    let code = reply.split_ascii_whitespace().next().unwrap_or("");
    let has = |part: &str| reply.contains(part);
    let text = |advice: &str| Some(advice.to_owned());
    match code {
        "NOAUTH" => (
            Class::SourceAuth,
            text(
                "the server wants a password: give --source-password-file, or for the nodes of a restore --target-password-file",
            ),
        ),
        "WRONGPASS" => (
            Class::SourceAuth,
            text(
                "check user and password (--source-password-file, or for the nodes of a restore --target-password-file)",
            ),
        ),
        "NOPERM" => {
            let rule = command.to_ascii_lowercase().replace(' ', "|");
            (Class::SourceAuth, Some(format!("allow it to the user we connect as: ACL SETUSER <user> +{rule}")))
        }
        "OOM" => (Class::Refused, text("the server is at its limit of memory: raise its maxmemory")),
        "DENIED" => (Class::SourceAuth, text("the server is in protected mode: set a password, or bind it otherwise")),
        "LOADING" => (Class::SourceUnavailable, text("the server is loading its data set: try again later")),
        "NOMASTERLINK" if has("failing over") => {
            (Class::SourceUnavailable, text("a failover is in progress: try again when it has ended"))
        }
        "NOMASTERLINK" => (
            Class::SourceUnavailable,
            text("this replica has no link to its primary: use another node, or repair the link"),
        ),
        "MASTERDOWN" => (Class::SourceUnavailable, text("this replica does not answer while its primary is away")),
        "CLUSTERDOWN" => (Class::SourceUnavailable, None),
        _ if has("nvalid password") || has("AUTH <password> called") || has("no password is set") => (
            Class::SourceAuth,
            text(
                "check user and password (--source-password-file, or for the nodes of a restore --target-password-file)",
            ),
        ),
        _ if has("unknown command") => (
            Class::SourceAuth,
            text(
                "the command is renamed or blocked on this server, as managed services do: export an RDB there and restore \
                 it with `backupd restore --rdb`",
            ),
        ),
        _ if has("BGSAVE failed") || has("fork") => (
            Class::SourceUnavailable,
            text("the server could not start its child: look at its log, free memory, vm.overcommit_memory"),
        ),
        _ => (Class::SourceUnavailable, None),
    }
}

/// The server's words, without control characters and without the arguments that it may quote.
fn shown(reply: &str) -> String {
    let reply = reply.split(", with args").next().unwrap_or(reply);
    reply.chars().filter(|c| !c.is_control()).take(REPLY_SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_class_and_name_node_and_command() {
        for (reply, class) in [
            ("NOAUTH Authentication required.", Class::SourceAuth),
            ("OOM command not allowed when used memory > 'maxmemory'.", Class::Refused),
            ("WRONGPASS invalid username-password pair or user is disabled.", Class::SourceAuth),
            ("ERR invalid password", Class::SourceAuth),
            ("ERR unknown command 'PSYNC', with args beginning with: '?' '-1' ", Class::SourceAuth),
            ("NOMASTERLINK Can't SYNC while not connected with my master", Class::SourceUnavailable),
            ("NOMASTERLINK Can't SYNC while failing over", Class::SourceUnavailable),
            ("LOADING Redis is loading the dataset in memory", Class::SourceUnavailable),
            ("ERR max number of clients reached", Class::SourceUnavailable),
            ("ERR BGSAVE failed, replication can't continue", Class::SourceUnavailable),
        ] {
            let error = refusal("h:1", "PSYNC", reply);
            assert_eq!(error.class(), class, "{reply}");
            assert_eq!(error.is_retryable(), class == Class::SourceUnavailable, "{reply}");
            assert!(error.message().starts_with("h:1: PSYNC: "), "{error}");
        }
        let error = refusal("h:1", "CONFIG GET", "NOPERM this user has no permissions");
        assert!(error.advice().unwrap().contains("+config|get"));
    }

    #[test]
    fn arguments_quoted_by_the_server_are_not_repeated() {
        let error = refusal("h:1", "AUTH", "ERR unknown command 'AUTH', with args beginning with: 'hunter2' ");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
}
