//! The clients: each does one operation after the other until the meter ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use catena_client::{Client, Error, ScanRange};

use super::keys::{Keys, Random};
use super::meter::Meter;
use super::pace::Pace;

/// Rows that one operation of the workload `scan` reads.
const SCAN_ROWS: u64 = 100;
/// Pause after an operation that failed, so that a cluster that refuses is not hammered.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Set a key.
    Put,
    /// Read a key, linearizably.
    Get,
    /// One half gets, one half puts.
    Mix,
    /// Read 100 rows from a key on.
    Scan,
}

impl Workload {
    /// The word on the command line and in the result.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Mix => "mix",
            Self::Scan => "scan",
        }
    }

    /// Whether it reads keys that somebody must have written first.
    pub(crate) const fn reads(self) -> bool {
        !matches!(self, Self::Put)
    }
}

/// What every client shares.
#[derive(Debug)]
pub(crate) struct Load {
    /// The one SDK client: its connections carry the operations of all.
    pub(crate) client: Client,
    /// What they do.
    pub(crate) workload: Workload,
    /// With which keys.
    pub(crate) keys: Keys,
    /// With which value.
    pub(crate) value: Bytes,
}

impl Load {
    /// Does one operation.
    async fn operation(&self, random: &mut Random) -> Result<(), Error> {
        let key = self.keys.key(self.keys.draw(random));
        let puts = match self.workload {
            Workload::Put => true,
            Workload::Get => false,
            Workload::Mix => random.below(2) == 0,
            Workload::Scan => {
                let mut scan = self
                    .client
                    .scan(ScanRange::between(key, None).limited(SCAN_ROWS));
                while scan.next_page().await?.is_some() {}
                return Ok(());
            }
        };
        if puts {
            self.client.put(key, self.value.clone()).await.map(drop)
        } else {
            self.client.get(key).await.map(drop)
        }
    }
}

/// A client of a closed loop: the next operation starts when the last one is answered.
pub(crate) async fn closed(load: Arc<Load>, meter: Arc<Meter>, seed: u64) {
    let mut random = Random::new(seed);
    while !meter.has_ended() {
        let started = Instant::now();
        let answer = load.operation(&mut random).await;
        meter.report(seed, started, Instant::now(), &answer);
        if answer.is_err() {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

/// A client of an open loop: takes the next operation that is due; its latency counts from when it should have started.
pub(crate) async fn open(load: Arc<Load>, meter: Arc<Meter>, pace: Arc<Pace>, seed: u64) {
    let mut random = Random::new(seed);
    while let Some(intended) = pace.next().await {
        let answer = load.operation(&mut random).await;
        meter.report(seed, intended, Instant::now(), &answer);
        // When the cluster cannot keep up, a backlog of starts is left at the end.
        if meter.has_ended() {
            return;
        }
    }
}
