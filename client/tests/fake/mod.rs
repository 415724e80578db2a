//! A cluster in this process that speaks the protocol over loopback and misbehaves on demand.
//!
//! Its nodes share one state, so there is nothing to replicate; each has a runtime
//! of its own, and stopping one is as abrupt as the death of a process.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test uses its part"
)]
#![allow(clippy::disallowed_methods, reason = "a fake of the runtime")]

mod service;
mod world;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use catena_client::{Client, Options};
use catena_proto::config::*;
use catena_proto::ids::*;

pub use world::{Fault, World};

/// See the module.
pub struct Cluster {
    pub world: Arc<Mutex<World>>,
    nodes: Vec<Option<tokio::runtime::Runtime>>,
}

impl Cluster {
    /// Nodes 1..=n; a chain of all of them, node 1 first, for each range that the cuts make.
    pub fn start(nodes: usize, cuts: &[&'static str]) -> Self {
        let listeners: Vec<_> = (0..nodes)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("loopback"))
            .collect();
        let infos: Vec<NodeInfo> = (listeners.iter().enumerate())
            .map(|(at, listener)| NodeInfo {
                node: NodeId::new(at as u64 + 1),
                disk: DiskId::new(at as u128 + 1),
                addr: listener.local_addr().expect("bound").to_string(),
                http: String::new(),
                zone: String::new(),
            })
            .collect();
        let mut starts = vec![""];
        starts.extend(cuts);
        let chains = starts.iter().enumerate().map(|(at, start)| ChainConfig {
            shard: ShardId::new(at as u64 + 1),
            epoch: Epoch::new(1),
            range: KeyRange {
                start: Bytes::from_static(start.as_bytes()),
                end: starts.get(at + 1).map(|s| Bytes::from_static(s.as_bytes())),
            },
            phase: ChainPhase::Serving,
            recovered: Epoch::ZERO,
            members: (infos.iter())
                .map(|info| Member {
                    node: info.node,
                    disk: info.disk,
                    joined_epoch: Epoch::new(1),
                })
                .collect(),
        });
        let world = Arc::new(Mutex::new(World::new(chains.collect(), infos)));
        let nodes = (listeners.into_iter().enumerate())
            .map(|(at, listener)| Some(serve(&world, at as u64 + 1, listener)))
            .collect();
        Self { world, nodes }
    }

    pub fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }

    pub fn addr(&self, node: u64) -> String {
        self.world().addr(node)
    }

    pub fn endpoints(&self) -> Vec<String> {
        (1..=self.nodes.len())
            .map(|n| self.addr(n as u64))
            .collect()
    }

    pub async fn client(&self, options: Options) -> Client {
        Client::connect(self.endpoints(), options)
            .await
            .expect("the cluster is there")
    }

    /// The process is killed: its connections break, its port refuses.
    pub fn kill(&mut self, node: u64) {
        if let Some(runtime) = self.nodes[node as usize - 1].take() {
            runtime.shutdown_background();
        }
    }

    /// It is started again on its old address.
    pub fn restart(&mut self, node: u64) {
        let addr = self.addr(node);
        let listener = wait_for(|| std::net::TcpListener::bind(&addr).ok());
        self.nodes[node as usize - 1] = Some(serve(&self.world, node, listener));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 1..=self.nodes.len() {
            self.kill(node as u64);
        }
    }
}

fn serve(
    world: &Arc<Mutex<World>>,
    node: u64,
    listener: std::net::TcpListener,
) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("fake-node")
        .enable_all()
        .build()
        .expect("a runtime");
    listener.set_nonblocking(true).expect("a socket");
    runtime.spawn(service::serve(
        Arc::clone(world),
        NodeId::new(node),
        listener,
    ));
    runtime
}

/// Polls from outside any runtime until there is something.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it did not come within ten seconds");
}

/// Polls until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{what}: not within ten seconds");
}
