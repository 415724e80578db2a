//! Scans: page by page through one shard after the other, from wherever the last page ended.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: bounds the wait for each page"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use catena_proto::call::{ScanCall, ScanPage, StaleBound};
use catena_proto::config::KeyRange;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::NodeId;
use catena_proto::wire;
use futures::Stream;
use tokio::time::Instant;
use tonic::Streaming;

use crate::answer::{Consistency, ScanRange, ScanRow};
use crate::data::from_status;
use crate::plan::retry::{Kind, Trouble};
use crate::shared::{Op, Shared, Target};
use crate::topology::Lane;
use crate::{Client, Error};

/// A scan under way. Each page is linearizable by itself; the whole is not one snapshot.
#[derive(Debug)]
pub struct Scan {
    client: Client,
    wanted: ScanRange,
    /// What is left to visit; `None` when nothing is.
    left: Option<KeyRange>,
    part: Option<Part>,
    rows: VecDeque<ScanRow>,
}

/// The part of a scan that lies in one shard.
#[derive(Debug)]
struct Part {
    lane: Arc<Lane>,
    node: NodeId,
    range: KeyRange,
    pages: Streaming<wire::ScanResponse>,
}

/// What became of the wait for a page.
enum Turned {
    Page(ScanPage),
    PartDone,
}

impl Scan {
    pub(crate) fn new(client: Client, wanted: ScanRange) -> Self {
        let range = KeyRange {
            start: wanted.start.clone(),
            end: wanted.end.clone(),
        };
        Self {
            client,
            left: Some(range).filter(|range| !range.is_empty() && wanted.limit != Some(0)),
            wanted,
            part: None,
            rows: VecDeque::new(),
        }
    }

    /// The next page of rows, never empty; `None` at the end.
    ///
    /// # Errors
    /// Always [`Error::Failed`]; the scan can be continued by calling again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        if !self.rows.is_empty() {
            return Ok(Some(self.rows.drain(..).collect()));
        }
        Ok(self.fetch().await?.then(|| self.rows.drain(..).collect()))
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// As [`Scan::next_page`].
    pub async fn next(&mut self) -> Result<Option<ScanRow>, Error> {
        if self.rows.is_empty() {
            self.fetch().await?;
        }
        Ok(self.rows.pop_front())
    }

    /// The rows as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<ScanRow, Error>> {
        futures::stream::try_unfold(self, |mut scan| async move {
            Ok(scan.next().await?.map(|row| (row, scan)))
        })
    }

    /// Brings a page; false at the end. Each page has the whole time-out.
    async fn fetch(&mut self) -> Result<bool, Error> {
        let client = self.client.clone();
        let shared = client.shared();
        let mut op = shared.begin(Kind::Repeatable);
        while let Some(left) = self.left.clone() {
            match self.turn(shared, &left, &op).await {
                Ok(Turned::Page(page)) if page.rows.is_empty() => {}
                Ok(Turned::Page(page)) => {
                    self.take(page);
                    return Ok(true);
                }
                Ok(Turned::PartDone) => self.finish_part(&left),
                Err(trouble) => {
                    let part = self.part.take();
                    let lane = part.as_ref().map(|part| Arc::clone(&part.lane));
                    let lane = lane.or_else(|| self.next_lane(shared, &left));
                    if lane.is_none() && self.wanted.reverse {
                        // Its last chain cannot be named by a key of it: walk there.
                        shared.learn_routes(&left, op.deadline()).await?;
                    }
                    let target = Target {
                        key: &left.start,
                        lane: lane.as_deref(),
                        node: part.as_ref().map(|part| part.node),
                    };
                    Box::pin(shared.recover(&mut op, trouble, target)).await?;
                }
            }
        }
        Ok(false)
    }

    async fn turn(&mut self, shared: &Shared, left: &KeyRange, op: &Op) -> Result<Turned, Trouble> {
        let until = op.try_until(Instant::now());
        let wait = async {
            let part = match &mut self.part {
                Some(part) => part,
                none => none.insert(open(shared, &self.wanted, left, op).await?),
            };
            let page = part.pages.message().await;
            let Some(page) = page.map_err(|status| from_status(&status))? else {
                return Ok(Turned::PartDone);
            };
            let page = ScanPage::try_from(page).map_err(|error| stray(&error.to_string()))?;
            check_order(&page, left, self.wanted.reverse)?;
            Ok(Turned::Page(page))
        };
        match tokio::time::timeout_at(until, wait).await {
            Ok(turned) => turned,
            Err(_) => Err(Trouble::Silent),
        }
    }

    fn next_lane(&self, shared: &Shared, left: &KeyRange) -> Option<Arc<Lane>> {
        next_lane(shared, left, self.wanted.reverse)
    }

    /// Keeps a page's rows, and goes on behind them.
    fn take(&mut self, page: ScanPage) {
        let shard = page.shard;
        self.rows.extend(page.rows.into_iter().map(|row| ScanRow {
            key: row.key,
            value: row.row.value,
            version: row.row.version,
            shard,
        }));
        let taken = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        if let Some(limit) = &mut self.wanted.limit {
            let kept = taken.min(*limit);
            self.rows
                .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
            *limit -= kept;
            if *limit == 0 {
                self.left = None;
                self.part = None;
            }
        }
        if let (Some(left), Some(last)) = (&mut self.left, self.rows.back()) {
            if self.wanted.reverse {
                left.end = Some(last.key.clone());
            } else {
                left.start = [&last.key[..], &[0]].concat().into();
            }
        }
        self.left = self.left.take().filter(|left| !left.is_empty());
    }

    /// The shard has no more rows: on to the next one.
    fn finish_part(&mut self, left: &KeyRange) {
        let Some(part) = self.part.take() else {
            return;
        };
        let rest = if self.wanted.reverse {
            Some(KeyRange {
                start: left.start.clone(),
                end: Some(part.range.start),
            })
        } else {
            part.range.end.map(|start| KeyRange {
                start,
                end: left.end.clone(),
            })
        };
        self.left = rest.filter(|rest| !rest.is_empty());
    }
}

fn next_lane(shared: &Shared, left: &KeyRange, reverse: bool) -> Option<Arc<Lane>> {
    if reverse {
        shared.topology.lane_before(left.end.as_deref())
    } else {
        shared.topology.lane(&left.start)
    }
}

/// Asks a member of the next shard for its part of what is left.
async fn open(
    shared: &Shared,
    wanted: &ScanRange,
    left: &KeyRange,
    op: &Op,
) -> Result<Part, Trouble> {
    let unknown = || Trouble::NotSent("the chain that holds the range is not known yet".into());
    let lane = next_lane(shared, left, wanted.reverse).ok_or_else(unknown)?;
    let now_ms = shared.millis(Instant::now());
    let from = shared.topology.ground().options.read_from;
    let node = lane
        .reader(from, op.tries(), now_ms)
        .ok_or_else(unknown)?
        .clone();
    let range = meet(left, &lane.range);
    let call = ScanCall {
        header: shared.header(),
        range: range.clone(),
        limit: wanted.limit,
        reverse: wanted.reverse,
        stale: match wanted.consistency {
            Consistency::Linearizable => None,
            Consistency::Stale { lag_ms_max } => Some(StaleBound { lag_ms_max }),
        },
    };
    let response = node
        .kv()
        .scan(wire::ScanRequest::from(call))
        .await
        .map_err(|status| from_status(&status));
    match response {
        Ok(response) => Ok(Part {
            node: node.id(),
            lane,
            range,
            pages: response.into_inner(),
        }),
        Err(trouble) => {
            lane.avoid(node.id(), now_ms);
            Err(trouble)
        }
    }
}

/// The keys that lie in both.
fn meet(a: &KeyRange, b: &KeyRange) -> KeyRange {
    let end = match (&a.end, &b.end) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    let start: &Bytes = (&a.start).max(&b.start);
    KeyRange {
        start: start.clone(),
        end,
    }
}

/// A page continues where the last one ended, in order; anything else would lose or double rows unnoticed.
fn check_order(page: &ScanPage, left: &KeyRange, reverse: bool) -> Result<(), Trouble> {
    let rising = |pair: &[catena_proto::call::ScanRow]| pair[0].key < pair[1].key;
    let falling = |pair: &[catena_proto::call::ScanRow]| pair[0].key > pair[1].key;
    let ordered = match reverse {
        false => page.rows.windows(2).all(rising),
        true => page.rows.windows(2).all(falling),
    };
    let ends = [page.rows.first(), page.rows.last()];
    let inside = ends
        .into_iter()
        .flatten()
        .all(|row| left.contains(&row.key));
    if ordered && inside {
        Ok(())
    } else {
        Err(stray("a page of a scan is out of order"))
    }
}

/// A page that makes no sense: the scan asks again from where it stands.
fn stray(what: &str) -> Trouble {
    Trouble::Refused(Box::new(Refusal::new(Reason::Interrupted, what)))
}
