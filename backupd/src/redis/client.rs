//! One connection for ordinary commands.

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, RedisError, cmd};

use super::refusal::refusal;
use super::source::{Address, SourceOptions};
use super::wire::dial;
use crate::error::{Class, Error, Result};

/// A connection to one node, authenticated. The connection is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    connection: MultiplexedConnection,
    node: String,
}

impl Client {
    /// Connects and authenticates as `options` say; their reply timeout is for every later command.
    pub(crate) async fn connect(address: &Address, options: &SourceOptions) -> Result<Self> {
        let node = address.to_string();
        let credentials = options.credentials_for(address);
        let stream = dial(address, options).await?;
        // The crate drops the server's words when AUTH fails, so we send AUTH ourselves.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(options.reply_timeout));
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| failure(&node, "connect", &error))?;
        // The driver ends by itself once the connection is dropped.
        tokio::spawn(driver);
        let mut client = Self { connection, node };
        if let Some(password) = &credentials.password {
            let mut auth = cmd("AUTH");
            if let Some(username) = &credentials.username {
                auth.arg(username);
            }
            client.query::<()>("AUTH", auth.arg(password.reveal())).await?;
        }
        Ok(client)
    }

    /// Runs `command` and reads its reply. `name` is the command as messages and ACL rules call it; the
    /// arguments never enter a message.
    pub(crate) async fn query<T: FromRedisValue>(&mut self, name: &str, command: &Cmd) -> Result<T> {
        command.query_async(&mut self.connection).await.map_err(|error| failure(&self.node, name, &error))
    }

    /// A setting of the server (`CONFIG GET`); `None` when it has none of this name.
    pub(crate) async fn setting(&mut self, name: &str) -> Result<Option<String>> {
        let known: Vec<String> = self.query("CONFIG GET", cmd("CONFIG").arg("GET").arg(name)).await?;
        Ok(known.into_iter().nth(1))
    }

    /// Changes a setting of the server (`CONFIG SET`).
    pub(crate) async fn change_setting(&mut self, name: &str, value: &str) -> Result<()> {
        self.query("CONFIG SET", cmd("CONFIG").arg("SET").arg(name).arg(value)).await
    }
}

fn failure(node: &str, command: &str, error: &RedisError) -> Error {
    if error.is_timeout() {
        return Error::new(Class::SourceUnavailable, format!("{node}: {command}: no reply in time"));
    }
    match (error.code(), error.detail()) {
        (Some(code), detail) => refusal(node, command, &format!("{code} {}", detail.unwrap_or(""))),
        // Its text may quote the reply, but a reply never holds what we sent except in an error reply.
        (None, _) => Error::new(Class::SourceUnavailable, format!("{node}: {command}: {error}")),
    }
}
