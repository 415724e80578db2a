//! The `Admin` service of a node, and its HTTP pages.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use catena_proto::wire;
use tonic::{Request, Response, Status};

use super::clock;
use super::pipe::check_cluster;
use super::shared::{Shard, Shared};

/// The `Admin` service.
pub(crate) struct AdminService {
    pub(crate) shared: Arc<Shared>,
    /// As the node was started with them.
    pub(crate) masters: Vec<String>,
}

#[tonic::async_trait]
impl wire::admin_server::Admin for AdminService {
    async fn node_status(
        &self,
        request: Request<wire::NodeStatusRequest>,
    ) -> Result<Response<wire::NodeStatusResponse>, Status> {
        let shared = &self.shared;
        check_cluster(shared, &request.into_inner().cluster_id).map_err(|r| r.to_status())?;
        let shards: Vec<_> = shared.shards.read().values().cloned().collect();
        let replicas: Vec<_> = shards.iter().filter_map(|s| replica_status(s)).collect();
        let alarms = replicas
            .iter()
            .filter(|r| r.fenced)
            .map(|r| wire::Alarm {
                name: "REPLICA_FENCED".into(),
                since_ms: 0,
                detail: r.why.clone(),
            })
            .collect();
        let uptime = clock::now().since(shared.started);
        Ok(Response::new(wire::NodeStatusResponse {
            cluster_id: Bytes::copy_from_slice(&shared.me.cluster.to_bytes()),
            node_id: shared.me.node.get(),
            disk_id: Bytes::copy_from_slice(&shared.me.disk.to_bytes()),
            incarnation: shared.me.incarnation.get(),
            version: shared.version.to_owned(),
            config: Some((&*shared.config()).into()),
            config_source: (*shared.config_source.lock()).to_owned(),
            replicas,
            alarms,
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
            masters: self.masters.clone(),
        }))
    }

    async fn master_status(
        &self,
        _: Request<wire::MasterStatusRequest>,
    ) -> Result<Response<wire::MasterStatusResponse>, Status> {
        Err(self.not_a_master())
    }

    async fn change_chain(
        &self,
        _: Request<wire::ChangeChainRequest>,
    ) -> Result<Response<wire::ChangeChainResponse>, Status> {
        Err(self.not_a_master())
    }

    type EventsStream = futures::stream::Empty<Result<wire::ControlEvent, Status>>;

    async fn events(
        &self,
        _: Request<wire::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        Err(self.not_a_master())
    }

    async fn switch_controller(
        &self,
        _: Request<wire::SwitchControllerRequest>,
    ) -> Result<Response<wire::SwitchControllerResponse>, Status> {
        Err(self.not_a_master())
    }
}

impl AdminService {
    fn not_a_master(&self) -> Status {
        let node = self.shared.me.node;
        Status::unimplemented(format!("this is node {node}: a master answers that"))
    }
}

fn replica_status(shard: &Shard) -> Option<wire::ReplicaStatus> {
    let replica = shard.replica.read();
    let chain = replica.chain()?;
    let status = replica.status(clock::now());
    Some(wire::ReplicaStatus {
        chain: Some(chain.into()),
        role: status.standing.as_str().to_owned(),
        in_sync: status.in_sync,
        synced: status.synced,
        serving_reads: status.serving_reads,
        last_seq: status.last.get(),
        durable_seq: status.durable.get(),
        commit_seq: status.commit.get(),
        applied_seq: status.applied.get(),
        why: status.why,
        fenced: status.fenced.is_some(),
        pending_bytes: status.pending_bytes as u64,
    })
}

/// Whether some replica of this node would serve, or why none would.
fn readiness(shared: &Shared) -> Result<(), String> {
    let shards: Vec<_> = shared.shards.read().values().cloned().collect();
    let mut why = "the node holds no replica".to_owned();
    for shard in shards {
        let status = shard.replica.read().status(clock::now());
        if status.serving_reads {
            return Ok(());
        }
        why = format!("shard {}: {}", shard.id, status.why);
    }
    Err(why)
}

/// `/livez`, `/readyz` and `/metrics`, until the node stops.
pub(crate) async fn serve_http(
    shared: Arc<Shared>,
    listener: tokio::net::TcpListener,
    stop: tokio::sync::watch::Receiver<bool>,
) {
    #[cfg(feature = "testing")]
    let switched = Arc::clone(&shared);
    let (ready, metrics) = (Arc::clone(&shared), shared);
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let answer = match readiness(&ready) {
                    Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                };
                async move { answer }
            }),
        )
        .route(
            "/metrics",
            get(move || {
                let text = super::metrics::render(&metrics);
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                async move { ([(axum::http::header::CONTENT_TYPE, kind)], text) }
            }),
        );
    #[cfg(feature = "testing")]
    let router = router.route(
        "/debug/testing/refuse-configs",
        axum::routing::post(move |uri: axum::http::Uri| {
            let query = uri.query().unwrap_or_default();
            let answer = match super::switch::set_by_query(&switched, query) {
                Ok(said) => (StatusCode::OK, said),
                Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")),
            };
            async move { answer }
        }),
    );
    let served = axum::serve(listener, router).with_graceful_shutdown(stopped(stop));
    if let Err(why) = served.await {
        tracing::warn!(%why, "the HTTP pages are gone; serving goes on");
    }
}

/// Resolves when the node is asked to stop.
pub(crate) async fn stopped(mut stop: tokio::sync::watch::Receiver<bool>) {
    // The sender lives as long as the node; if it is gone, so is the node.
    let _ = stop.wait_for(|stop| *stop).await;
}
