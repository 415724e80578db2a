//! Registration: whoever subscribed with a disk or an address that the state does not know.

use catena_proto::config::{ClusterConfig, NodeInfo};
use catena_proto::report::NodeOpen;

use crate::state::{Change, Command, Controller, WallMs};

/// The commands that make the state know everybody who is subscribed as they are now.
pub fn registrations<'a>(
    config: &ClusterConfig,
    subscribed: impl Iterator<Item = &'a NodeOpen>,
    at: WallMs,
) -> Vec<Command> {
    subscribed
        .filter(|open| {
            config
                .nodes
                .get(&open.node)
                .is_none_or(|held| differs(held, open))
        })
        .map(|open| Command {
            at,
            by: Controller::System,
            cause: "it subscribed".to_owned(),
            change: Change::RegisterNode {
                node: open.node,
                disk: open.disk,
                addr: open.addr.clone(),
                http: open.http.clone(),
                zone: open.zone.clone(),
            },
        })
        .collect()
}

fn differs(held: &NodeInfo, open: &NodeOpen) -> bool {
    held.disk != open.disk
        || held.addr != open.addr
        || held.http != open.http
        || held.zone != open.zone
}
