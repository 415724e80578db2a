//! `/livez`, `/readyz` and `/metrics` of a master.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Inner;

/// Serves the pages until the master stops.
pub(crate) async fn serve(inner: Arc<Inner>, listener: tokio::net::TcpListener) {
    let (ready, counted) = (Arc::clone(&inner), Arc::clone(&inner));
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let answer = match ready.raft.metrics().leader {
                    Some(_) => (StatusCode::OK, "ok\n"),
                    None => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the masters have no leader\n",
                    ),
                };
                async move { answer }
            }),
        )
        .route(
            "/metrics",
            get(move || {
                let text = metrics(&counted);
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                async move { ([(axum::http::header::CONTENT_TYPE, kind)], text) }
            }),
        );
    #[cfg(feature = "testing")]
    let router = router.route("/debug/testing/cut-nodes", {
        let inner = Arc::clone(&inner);
        axum::routing::post(move |query: axum::extract::RawQuery| {
            let cut = query.0.as_deref() == Some("on=true");
            inner.cut_nodes.send_replace(cut);
            async move { format!("nodes are cut off: {cut}\n") }
        })
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(inner.stopped());
    if let Err(why) = served.await {
        tracing::warn!(%why, "the HTTP pages are gone; serving goes on");
    }
}

fn metrics(inner: &Inner) -> String {
    let mut registry = Registry::with_prefix("catena_master");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let (raft, state) = (inner.raft.metrics(), inner.state());
    gauge(
        "is_leader",
        "1 if this master leads",
        u64::from(inner.is_leading()),
    );
    gauge("raft_term", "Raft term", raft.term);
    gauge(
        "raft_applied",
        "Raft index that the state has reached",
        raft.applied,
    );
    gauge(
        "config_version",
        "Version of the cluster state",
        state.position().version.get(),
    );
    let nodes = state.config().map_or(0, |c| c.nodes.len());
    let chains = state.config().map_or(0, |c| c.chains.len());
    gauge("nodes", "Registered nodes", nodes as u64);
    gauge("chains", "Chains", chains as u64);
    let alarms = super::views::alarms(&state).len();
    gauge(
        "alarms",
        "Alarms and holds that are raised now",
        alarms as u64,
    );
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}
