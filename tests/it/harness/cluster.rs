//! A cluster of real servers: primaries with replicas.

use std::time::Duration;

use policies::shards;
use policies::slot::SlotSet;

use super::nodes::{self, Node};
use super::process;
use super::server::{Options, Server};

/// Longest wait for all nodes to agree.
const AGREE_LIMIT: Duration = Duration::from_secs(120);

/// One primary, its replicas and its slots.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) primary: Server,
    pub(crate) replicas: Vec<Server>,
    pub(crate) slots: SlotSet,
}

/// A running cluster; its servers go when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) shards: Vec<Shard>,
}

impl Cluster {
    /// `count` shards of one primary and `replicas` replicas each, with Redis 7.0 and slots as `redis-cli --cluster
    /// create` splits them.
    pub(crate) fn start(count: usize, replicas: usize) -> Self {
        Self::start_with(&Options::new(), shards::equal(count).unwrap(), replicas)
    }

    /// With given server options and slots per shard.
    pub(crate) fn start_with(options: &Options, slots: Vec<SlotSet>, replicas: usize) -> Self {
        let options = options.clone().cluster();
        let shard = |slots| Shard {
            primary: Server::start(&options),
            replicas: (0..replicas).map(|_| Server::start(&options)).collect(),
            slots,
        };
        let cluster = Self { shards: slots.into_iter().map(shard).collect() };
        cluster.form();
        cluster
    }

    /// All servers, each primary before its replicas.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.shards.iter().flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
    }

    /// The primaries with their slots.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.shards.iter().map(|shard| Node { url: shard.primary.url(), slots: shard.slots.clone() }).collect()
    }

    /// URL of the first primary: what a user gives as `--source`.
    pub(crate) fn url(&self) -> String {
        self.shards[0].primary.url()
    }

    /// Waits until every replica has what its primary has written so far.
    pub(crate) fn wait_replicas(&self) {
        for shard in &self.shards {
            for replica in &shard.replicas {
                replica.wait_caught_up(&shard.primary);
            }
        }
    }

    fn form(&self) {
        for (index, shard) in self.shards.iter().enumerate() {
            for (first, last) in shard.slots.ranges() {
                // ADDSLOTSRANGE came with 7.0
                let slots: Vec<String> = (first..=last).map(|slot| slot.to_string()).collect();
                let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
                shard.primary.run(&words.collect::<Vec<_>>());
            }
            // distinct from the start, so that nothing has to be settled by elections
            shard.primary.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let first = &self.shards[0].primary;
        for server in self.servers().skip(1) {
            let port = server.tls_port().unwrap_or(server.port());
            first.run(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string()]);
        }
        for shard in &self.shards {
            let id: String = nodes::command(&["CLUSTER", "MYID"]).query(&mut shard.primary.connect()).unwrap();
            for replica in &shard.replicas {
                // refused until the replica has heard of the primary
                process::wait_for("CLUSTER REPLICATE", AGREE_LIMIT, || {
                    let reply = nodes::command(&["CLUSTER", "REPLICATE", &id]).query::<String>(&mut replica.connect());
                    reply.map_err(|error| error.to_string())
                });
            }
        }
        process::wait_for("cluster", AGREE_LIMIT, || self.agrees());
        self.shards.iter().flat_map(|shard| &shard.replicas).for_each(Server::wait_link);
    }

    /// Whether every node sees all slots served and every node in its role.
    fn agrees(&self) -> Result<(), String> {
        let servers = self.servers().count();
        for server in self.servers() {
            let mut link = server.connect();
            let mut text = |verb| {
                let reply = nodes::command(&["CLUSTER", verb]).query::<String>(&mut link);
                reply.map_err(|error| error.to_string())
            };
            let (info, list) = (text("INFO")?, text("NODES")?);
            let is = |field, value: usize| nodes::field_of(&info, field) == Some(value.to_string());
            let state = nodes::field_of(&info, "cluster_state");
            let primaries = list.lines().filter(|line| line.contains("master")).count();
            if state.as_deref() != Some("ok")
                || !is("cluster_known_nodes", servers)
                || !is("cluster_size", self.shards.len())
                || primaries != self.shards.len()
                || ["handshake", "fail"].iter().any(|flag| list.contains(flag))
            {
                return Err(format!("{} says\n{info}\n{list}", server.address()));
            }
        }
        Ok(())
    }
}
