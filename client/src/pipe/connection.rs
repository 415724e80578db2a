//! Keeps a pipe connected: dials, runs both directions, and dials again after a pause.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: waits between two dials"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use backon::{BackoffBuilder, ExponentialBuilder};
use catena_proto::errors::Refusal;
use catena_proto::ids::ClusterId;
use catena_proto::limits;
use catena_proto::wire;
use catena_proto::wire::kv_stream_client::KvStreamClient;
use tokio::sync::watch;
use tonic::transport::Endpoint;

use super::Pipe;
use super::frames::Frames;
use crate::limits::{RECONNECT_MAX, RECONNECT_MIN};

/// Where a pipe leads, and whom it tells about its fate.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    /// The node's address.
    pub(crate) endpoint: Endpoint,
    /// The cluster that the node must belong to.
    pub(crate) cluster: ClusterId,
    /// Counted up when the connection is there, for those who wait for it.
    pub(crate) changed: Arc<watch::Sender<u64>>,
    /// For the jitter of the pauses.
    pub(crate) seed: u64,
}

/// Runs until it is aborted.
pub(crate) async fn keep_connected(pipe: Arc<Pipe>, dial: Dial) {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(RECONNECT_MIN)
        .with_max_delay(RECONNECT_MAX)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(dial.seed);
    let mut pause = pauses.build();
    loop {
        pipe.wanted.store(false, Ordering::Relaxed);
        let why = match run(&pipe, &dial).await {
            Ended::Never(why) => why,
            Ended::After(why) => {
                pause = pauses.build();
                why
            }
        };
        tracing::debug!(node = %dial.endpoint.uri(), why, "connection lost");
        pipe.break_down(&why.into());
        tokio::time::sleep(pause.next().unwrap_or(RECONNECT_MAX)).await;
        // A node that nobody asks for any more is left alone.
        while !pipe.wanted.load(Ordering::Relaxed) {
            pipe.wanting.notified().await;
        }
    }
}

/// Why a connection is not there.
enum Ended {
    /// It was never made.
    Never(String),
    /// It was there, and broke.
    After(String),
}

async fn run(pipe: &Arc<Pipe>, dial: &Dial) -> Ended {
    let addr = dial.endpoint.uri().authority().map_or("?", |a| a.as_str());
    let channel = match dial.endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return Ended::Never(format!("{addr}: {}", root(&error))),
    };
    let mut client =
        KvStreamClient::new(channel).max_decoding_message_size(limits::UNARY_BYTES_MAX);
    let frames = Frames::new(Arc::clone(pipe), dial.cluster);
    let mut answers = match client.pipe(frames).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ended::Never(format!("{addr}: {}", words(&status))),
    };
    // Only now has the process behind the socket shown that it lives.
    pipe.open();
    dial.changed.send_modify(|count| *count += 1);
    let mut woken: Vec<Waker> = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(wire::PipeResponse { responses })) => {
                pipe.flight.lock().complete(responses, &mut woken);
                woken.drain(..).for_each(Waker::wake);
            }
            Ok(None) => return Ended::After(format!("{addr}: the node closed the connection")),
            Err(status) => return Ended::After(format!("{addr}: {}", words(&status))),
        }
    }
}

/// The message of a status, ours or the transport's, with its innermost cause.
fn words(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => root(source),
        None => Refusal::from_status(status).message,
    }
}

/// The innermost cause: the outer ones say "transport error".
pub(crate) fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
