//! The first contact, and the walk over every route.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: draws a seed, bounds its waits"
)]

use std::sync::Arc;

use catena_proto::call::{Header, RoutesPage};
use catena_proto::config::KeyRange;
use catena_proto::errors::{Reason, Refusal};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::admin::{Told, status_at};
use crate::limits::{CONNECT_TRY, PAUSE_MAX, REFRESH_EVERY, SOURCES_MAX, SWEEP_EVERY};
use crate::node::{Ground, Seeds, Task, endpoint};
use crate::refresh::{Refresher, ask_one, first_question};
use crate::shared::Shared;
use crate::topology::Topology;
use crate::{Cause, Error, Options};

/// What a client holds: the shared part, and the tasks that work for it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    _tasks: [Task; 2],
}

/// Finds the cluster behind any of the endpoints.
pub(crate) async fn connect(endpoints: Vec<String>, options: Options) -> Result<Core, Error> {
    let options = options.bounded();
    let mut sources: Vec<(String, Channel)> = Vec::new();
    for addr in endpoints {
        let channel = endpoint(&addr)?.connect_lazy();
        sources.push((addr, channel));
    }
    if sources.is_empty() {
        let why = "no endpoint was given; name any node as `host:port`";
        return Err(Error::Failed(Cause::Invalid(why.into())));
    }
    let page = first_page(&mut sources, &options).await?;
    if let Some(ours) = options.cluster.filter(|ours| *ours != page.cluster) {
        return Err(Error::Failed(Cause::ForeignCluster(format!(
            "the endpoints belong to cluster {}, not {ours}",
            page.cluster
        ))));
    }
    let seed = getrandom::u64()
        .map_err(|error| Error::Failed(Cause::Internal(format!("no randomness: {error}"))))?;
    let ground = Ground {
        options,
        cluster: page.cluster,
        runtime: Handle::current(),
        changed: Arc::new(watch::Sender::new(0)),
        seeds: Seeds::new(seed),
    };
    let runtime = ground.runtime.clone();
    let shared = Arc::new(Shared::new(Topology::new(ground), Refresher::new(sources)));
    shared.topology.learn(&page.chains, &page.nodes);
    let refresh = Task::spawn(&runtime, Refresher::serve(Arc::clone(&shared)));
    let sweep = Task::spawn(&runtime, sweep(Arc::clone(&shared)));
    Ok(Core {
        shared,
        _tasks: [refresh, sweep],
    })
}

/// Asks every endpoint at once, again and again; the first answer counts. Masters among them serve no routes: the
/// nodes that they name become sources too.
async fn first_page(
    sources: &mut Vec<(String, Channel)>,
    options: &Options,
) -> Result<RoutesPage, Error> {
    let header = Header {
        cluster: options.cluster,
        forwarded: false,
    };
    let mut last_words = Vec::new();
    let mut foreign = None;
    let asked = async {
        loop {
            last_words.resize(sources.len(), String::from("no answer"));
            let mut others = Vec::new();
            let mut asked: FuturesUnordered<_> = (sources.iter().enumerate())
                .map(|(at, (_, channel))| async move {
                    (at, ask_in_time(channel.clone(), header).await)
                })
                .collect();
            while let Some((at, answer)) = asked.next().await {
                match answer {
                    Ok(page) => return page,
                    Err(refusal) if refusal.reason == Reason::ForeignCluster => {
                        foreign = Some(refusal.message);
                    }
                    Err(refusal) => {
                        if refusal.reason == Reason::Internal {
                            others.push(sources[at].0.clone());
                        }
                        last_words[at] = refusal.message;
                    }
                }
            }
            drop(asked);
            let known = sources.len();
            for addr in named_by_masters(&others).await {
                let is_new = sources.iter().all(|(known, _)| *known != addr);
                if let Ok(endpoint) = endpoint(&addr)
                    && is_new
                    && sources.len() < SOURCES_MAX
                {
                    sources.push((addr, endpoint.connect_lazy()));
                }
            }
            if sources.len() == known {
                tokio::time::sleep(PAUSE_MAX).await;
            }
        }
    };
    if let Ok(page) = tokio::time::timeout(options.connect_timeout, asked).await {
        return Ok(page);
    }
    if let Some(message) = foreign {
        return Err(Error::Failed(Cause::ForeignCluster(message)));
    }
    let words: Vec<String> = (sources.iter().zip(last_words))
        .map(|((addr, _), words)| format!("{addr}: {words}"))
        .collect();
    Err(Error::Failed(Cause::Unreachable(words.join("; "))))
}

/// The nodes of which the masters among `others` know; whoever else is among them is passed over.
async fn named_by_masters(others: &[String]) -> Vec<String> {
    let asked = others.iter().map(|addr| status_at(addr, CONNECT_TRY));
    let answers = futures::future::join_all(asked).await;
    let masters = answers.into_iter().filter_map(|answer| match answer {
        Ok(Told::Master(master)) => master.config,
        _ => None,
    });
    let nodes = masters.flat_map(|config| config.nodes);
    nodes.map(|node| node.addr).collect()
}

async fn ask_in_time(channel: Channel, header: Header) -> Result<RoutesPage, Refusal> {
    match tokio::time::timeout(CONNECT_TRY, ask_one(channel, first_question(header))).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::new(
            Reason::NotReady,
            format!("no answer within {CONNECT_TRY:?}"),
        )),
    }
}

/// Looks for requests past their deadline until it is aborted.
async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        shared.topology.expire(Instant::now());
    }
}

impl Shared {
    /// Learns the route of every key of a range.
    pub(crate) async fn learn_routes(
        &self,
        range: &KeyRange,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut start = range.start.clone();
        while Instant::now() < deadline {
            match self.refresher.ask(self, start.clone()).await {
                Some(page) => match page.next.filter(|next| *next > start) {
                    Some(next) if range.end.as_ref().is_none_or(|end| next < *end) => start = next,
                    _ => return Ok(()),
                },
                None => tokio::time::sleep(REFRESH_EVERY).await,
            }
        }
        let why = "no node answered for its routes in time";
        Err(Error::Failed(Cause::Unreachable(why.into())))
    }
}
