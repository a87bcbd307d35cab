//! Makes a cluster of nodes that do not know each other.

use std::time::{Duration, Instant};

use ::redis::{Cmd, cmd};
use policies::slot::SlotSet;
use tokio::time::sleep;

use crate::error::{Class, Error, Result};
use crate::redis::{Client, Info, Node, SourceOptions, connect, parse_nodes};

/// How long the nodes may take to agree.
const JOIN_WAIT: Duration = Duration::from_secs(120);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Gives each node its slots and an epoch of its own, introduces all to the first, and waits until every one
/// of them says that the cluster is whole and gives each slot to the planned node.
pub(super) async fn join(nodes: &[Node], slots: &[SlotSet], options: &SourceOptions) -> Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    for node in nodes {
        clients.push(connect(&node.address, options).await?);
    }
    let mut ids: Vec<String> = Vec::new();
    for (index, (client, slots)) in clients.iter_mut().zip(slots).enumerate() {
        ids.push(client.query("CLUSTER MYID", &cluster(&["MYID"])).await?);
        let mut add = cluster(&["ADDSLOTS"]);
        for slot in slots.iter() {
            add.arg(slot);
        }
        client.query::<()>("CLUSTER ADDSLOTS", &add).await?;
        let epoch = (index + 1).to_string();
        client.query::<()>("CLUSTER SET-CONFIG-EPOCH", &cluster(&["SET-CONFIG-EPOCH", &epoch])).await?;
    }
    if let Some(first) = clients.first_mut() {
        for node in nodes.iter().skip(1) {
            let ip = ip_of(&node.host, node.port).await?;
            first.query::<()>("CLUSTER MEET", &cluster(&["MEET", &ip, &node.port.to_string()])).await?;
        }
    }
    let start = Instant::now();
    for (client, node) in clients.iter_mut().zip(nodes) {
        while let Err(why) = agrees(client, &ids, slots).await? {
            if start.elapsed() > JOIN_WAIT {
                let message = format!("{}: the nodes do not become a cluster: {why}", node.address);
                return Err(Error::new(Class::SourceUnavailable, message)
                    .hint("nodes also talk to each other on their port + 10000: check that it can be reached"));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn cluster(words: &[&str]) -> Cmd {
    let mut command = cmd("CLUSTER");
    command.arg(words);
    command
}

/// `CLUSTER MEET` takes IP addresses only.
async fn ip_of(host: &str, port: u16) -> Result<String> {
    let unresolved =
        |why: String| Error::new(Class::SourceUnavailable, format!("{host}: cannot resolve the name: {why}"));
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|error| unresolved(error.to_string()))?;
    found.next().map(|address| address.ip().to_string()).ok_or_else(|| unresolved("no address".to_owned()))
}

/// The inner error is why this node does not agree yet.
async fn agrees(client: &mut Client, ids: &[String], slots: &[SlotSet]) -> Result<Result<(), String>> {
    let info: String = client.query("CLUSTER INFO", &cluster(&["INFO"])).await?;
    let info = Info::parse(&info);
    if info.text("cluster_state") != "ok" {
        return Ok(Err(format!("cluster_state:{}", info.text("cluster_state"))));
    }
    let view: String = client.query("CLUSTER NODES", &cluster(&["NODES"])).await?;
    let members = match parse_nodes(&view) {
        Ok(members) => members,
        Err(why) => return Ok(Err(why)),
    };
    let wrong = ids
        .iter()
        .zip(slots)
        .find(|(id, slots)| !members.iter().any(|member| member.id == **id && member.slots == **slots));
    Ok(wrong.map_or(Ok(()), |(id, slots)| Err(format!("node {id} is not known to serve {slots}"))))
}
