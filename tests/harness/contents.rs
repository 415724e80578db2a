//! Some data of a test's own, and the check that a cluster holds exactly that.

use std::collections::BTreeMap;

use catena_client::{Client, Options, ReadFrom, ScanRange};
use tokio::runtime::Runtime;

use super::{Cluster, PATIENCE};

/// Rounds of reads over all keys: reads go round the members, so that each has to answer for many.
const ROUNDS: usize = 3;

/// Keys and values that were acknowledged.
#[derive(Debug)]
pub(crate) struct Contents {
    prefix: String,
    rows: BTreeMap<String, String>,
}

fn connect(cluster: &Cluster) -> (Runtime, Client) {
    let runtime = Runtime::new().expect("a runtime");
    let options = Options {
        timeout: PATIENCE,
        read_from: ReadFrom::Any,
        ..Options::default()
    };
    let client = Client::connect(cluster.ready().endpoints.clone(), options);
    let client = runtime.block_on(client).expect("a cluster");
    (runtime, client)
}

impl Contents {
    /// Writes `count` keys below `prefix`, one after the other, so that the log gets many frames.
    #[track_caller]
    pub(crate) fn write(cluster: &Cluster, prefix: &str, count: usize) -> Self {
        let (runtime, client) = connect(cluster);
        let mut contents = Self {
            prefix: prefix.to_owned(),
            rows: BTreeMap::new(),
        };
        runtime.block_on(async {
            for no in 0..count {
                let (key, value) = (format!("{prefix}{no:06}"), format!("{prefix} value {no}"));
                let put = client.put(key.clone(), value.clone()).await;
                put.unwrap_or_else(|why| panic!("{key}: {why}"));
                contents.rows.insert(key, value);
            }
        });
        contents
    }

    /// Reads everything back, by a scan and key by key from every member.
    #[track_caller]
    pub(crate) fn check(&self, cluster: &Cluster) {
        let (runtime, client) = connect(cluster);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = runtime.block_on(async {
            let mut found = BTreeMap::new();
            let mut scan = client.scan(ScanRange::prefix(self.prefix.clone()));
            while let Some(row) = scan.next().await.expect("a page") {
                found.insert(text(&row.key), text(&row.value));
            }
            found
        });
        assert!(
            found == self.rows,
            "{} keys of {}",
            found.len(),
            self.rows.len()
        );
        runtime.block_on(async {
            for (key, value) in (0..ROUNDS).flat_map(|_| &self.rows) {
                let read = client.get(key.clone()).await.expect("an answer");
                let read = read.map(|read| text(&read.value));
                assert_eq!(read.as_ref(), Some(value), "{key}");
            }
        });
    }
}
