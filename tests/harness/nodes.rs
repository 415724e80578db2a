//! What a single node says of itself: over the wire, on its pages and in its log lines.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use catena_client::node_status_at;
use catena_proto::wire::NodeStatusResponse;

use super::{Cluster, PATIENCE, wait_until};

/// How long one answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

impl Cluster {
    /// A node's own words; `None` while it does not answer.
    pub(crate) fn node_status(&self, id: u64) -> Option<NodeStatusResponse> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let asked = node_status_at(&self.node(id).addr, ANSWER_WITHIN);
        runtime.block_on(asked).ok()
    }

    /// The status line and the body of one of a node's HTTP pages; empty while it does not answer.
    pub(crate) fn page(&self, id: u64, path: &str) -> String {
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.node(id).http)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        asked().unwrap_or_default()
    }

    /// A node's log lines so far, of this start and of earlier ones.
    pub(crate) fn log(&self, id: u64) -> String {
        std::fs::read_to_string(self.node(id).dir.with_extension("log")).unwrap_or_default()
    }

    /// Waits until a node has logged a line that says `words`.
    #[track_caller]
    pub(crate) fn wait_logged(&self, id: u64, words: &str) {
        wait_until(&format!("node {id} logs {words:?}"), || {
            self.log(id).contains(words)
        });
    }

    /// Waits until `catena status` gives a reason for the chain's state that says `words`.
    #[track_caller]
    pub(crate) fn wait_why(&self, words: &str) {
        let mut last = None;
        let says = super::holds_in_time(|| {
            last = self.status();
            let why = last
                .as_ref()
                .map(|status| status["chains"][0]["why"].to_string());
            why.is_some_and(|why| why.contains(words))
        });
        assert!(
            says,
            "`status` never says {words:?} in {PATIENCE:?}: {last:#?}\n{}",
            self.evidence()
        );
    }
}
