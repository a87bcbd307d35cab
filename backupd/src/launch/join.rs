//! Whether every node of a launched cluster agrees with the plan.

use std::time::{Duration, Instant};

use ::redis::cmd;
use tokio::time::sleep;

use super::nodes_conf::PlannedNode;
use super::process::{Process, Running};
use crate::error::Result;
use crate::redis::{Info, parse_nodes};

/// Between two looks at a node.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the nodes may take to agree. A node that was marked as failed while it loaded is taken back
/// after twice the node timeout, which is 15 s by default.
const JOIN_WAIT: Duration = Duration::from_secs(120);

impl Running {
    /// Waits until every node says that the cluster is whole and that each slot is served by exactly the node
    /// that the plan names.
    pub(super) async fn wait_joined(&mut self, nodes: &[PlannedNode]) -> Result<()> {
        let start = Instant::now();
        for process in &mut self.processes {
            while let Err(why) = agrees(process, nodes).await? {
                if start.elapsed() > JOIN_WAIT {
                    return Err(process.failed(&why));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

/// The inner error is why this node does not agree yet.
async fn agrees(process: &mut Process, nodes: &[PlannedNode]) -> Result<Result<(), String>> {
    let info: Option<String> = process.ask("CLUSTER INFO", cmd("CLUSTER").arg("INFO")).await?;
    let state = info.map(|text| Info::parse(&text).text("cluster_state").to_owned());
    if state.as_deref() != Some("ok") {
        return Ok(Err(format!("it says that the cluster is not whole: cluster_state:{}", state.unwrap_or_default())));
    }
    let view: Option<String> = process.ask("CLUSTER NODES", cmd("CLUSTER").arg("NODES")).await?;
    Ok(view.map_or_else(|| Err("it does not answer".to_owned()), |view| compare(&view, nodes)))
}

/// Compares one node's view with the plan.
fn compare(view: &str, nodes: &[PlannedNode]) -> Result<(), String> {
    let members = parse_nodes(view)?;
    if members.len() != nodes.len() {
        return Err(format!("it knows {} nodes, not {}", members.len(), nodes.len()));
    }
    for node in nodes {
        let Some(member) = members.iter().find(|member| member.id == node.id) else {
            return Err(format!("it does not know the node on port {}", node.port));
        };
        if member.slots != node.slots {
            return Err(format!("it gives the slots {} to port {}, not {}", member.slots, node.port, node.slots));
        }
        if member.follows != node.follows {
            return Err(format!("it gives the node on port {} another primary", node.port));
        }
        if let Some(slot) = member.moving.first() {
            return Err(format!("slots of port {} are on their way: {slot}", node.port));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::nodes_conf;

    #[test]
    fn a_view_agrees_only_when_it_is_the_plan() {
        let node = |id: &str, port, slots: &str| PlannedNode {
            id: id.to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            bus_port: port + 10_000,
            follows: None,
            slots: slots.parse().unwrap(),
            epoch: 1,
        };
        let plan = [node("a", 1, "0-99"), node("b", 2, "100-16383")];
        let view = |nodes: &[PlannedNode]| {
            let text = nodes_conf(nodes, 0);
            text.lines().filter(|line| !line.starts_with("vars")).map(|line| format!("{line}\n")).collect::<String>()
        };
        assert_eq!(compare(&view(&plan), &plan), Ok(()));
        let other = [node("a", 1, "0-98"), node("b", 2, "100-16383")];
        assert!(compare(&view(&other), &plan).unwrap_err().contains("0-98"));
        assert!(compare(&view(&plan[..1]), &plan).is_err());
        let moving = view(&plan).replacen("0-99", "0-99 [5->-b]", 1);
        assert!(compare(&moving, &plan).unwrap_err().contains("[5->-b]"));
    }
}
