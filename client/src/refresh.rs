//! Asks for routes: in the background, from any node, at a bounded pace.
//!
//! Never from a master by load (DESIGN §3.6): the nodes that work are asked first,
//! in turn, so that one with old routes is not believed for ever; the endpoints
//! that the program gave come last.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: paces and bounds what it asks"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use catena_proto::call::{Header, RoutesCall, RoutesPage};
use catena_proto::errors::Refusal;
use catena_proto::wire;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::limits::{REFRESH_CHAINS, REFRESH_EVERY, REFRESH_KEYS_MAX, REFRESH_TRY};
use crate::node::kv;
use crate::shared::Shared;
use crate::topology::Topology;

/// Which routes are wanted, and who can be asked besides the nodes.
#[derive(Debug)]
pub(crate) struct Refresher {
    /// Addresses that the program gave.
    endpoints: Vec<(String, Channel)>,
    wanted: Mutex<BTreeSet<Bytes>>,
    wanting: Notify,
    turn: AtomicUsize,
}

impl Refresher {
    pub(crate) fn new(endpoints: Vec<(String, Channel)>) -> Self {
        Self {
            endpoints,
            wanted: Mutex::default(),
            wanting: Notify::new(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Asks for the route of `key`, some time soon.
    pub(crate) fn want(&self, key: &Bytes) {
        let mut wanted = self.wanted.lock();
        if wanted.len() < REFRESH_KEYS_MAX {
            wanted.insert(key.clone());
        }
        drop(wanted);
        self.wanting.notify_one();
    }

    /// Answers what is wanted until it is aborted.
    pub(crate) async fn serve(shared: Arc<Shared>) {
        let this = &shared.refresher;
        loop {
            this.wanting.notified().await;
            while let Some(key) = this.next_wanted() {
                if let Some(page) = this.ask(&shared, key).await {
                    // Others that the same page answers need not be asked for.
                    this.wanted
                        .lock()
                        .retain(|key| !page.chains.iter().any(|c| c.range.contains(key)));
                }
                tokio::time::sleep(REFRESH_EVERY).await;
            }
        }
    }

    fn next_wanted(&self) -> Option<Bytes> {
        self.wanted.lock().pop_first()
    }

    /// Asks one after the other until one answers, and learns the page.
    pub(crate) async fn ask(&self, shared: &Shared, start: Bytes) -> Option<RoutesPage> {
        for (name, channel) in self.sources(&shared.topology) {
            let call = RoutesCall {
                header: shared.header(),
                start: start.clone(),
                chains_max: Some(REFRESH_CHAINS),
            };
            match tokio::time::timeout(REFRESH_TRY, ask_one(channel, call)).await {
                Ok(Ok(page)) if page.cluster == shared.topology.ground().cluster => {
                    shared.topology.learn(&page.chains, &page.nodes);
                    return Some(page);
                }
                Ok(Ok(page)) => tracing::warn!(
                    source = name, theirs = %page.cluster,
                    "it belongs to another cluster; its routes are ignored"
                ),
                Ok(Err(refusal)) => tracing::debug!(source = name, %refusal, "no routes"),
                Err(_) => tracing::debug!(source = name, "no routes in time"),
            }
        }
        None
    }

    fn sources(&self, topology: &Topology) -> Vec<(String, Channel)> {
        let mut nodes = topology.nodes_by_health();
        let up = nodes.iter().take_while(|node| node.is_up()).count();
        if up > 0 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            nodes[..up].rotate_left(turn % up);
        }
        nodes
            .iter()
            .map(|node| (node.info.addr.clone(), node.channel()))
            .chain(self.endpoints.iter().cloned())
            .collect()
    }
}

/// Asks one node for a page of routes.
pub(crate) async fn ask_one(channel: Channel, call: RoutesCall) -> Result<RoutesPage, Refusal> {
    let response = kv(channel)
        .routes(wire::RoutesRequest::from(call))
        .await
        .map_err(|status| Refusal::from_status(&status))?;
    Ok(RoutesPage::try_from(response.into_inner())?)
}

/// The question that a client begins with.
pub(crate) fn first_question(header: Header) -> RoutesCall {
    RoutesCall {
        header,
        start: Bytes::new(),
        chains_max: Some(REFRESH_CHAINS),
    }
}
