//! What a local cluster tells the world once it serves: the table, and the ready file.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout::{ClusterFile, Layout, NodeEntry, write_whole};
use super::process::Process;
use crate::exit::Failure;
use crate::output::Output;

/// The ready file, whole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ready {
    cluster_id: String,
    endpoints: Vec<String>,
    snapshot_store: String,
    masters: Vec<Entry>,
    nodes: Vec<Entry>,
}

/// One process.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    id: u64,
    addr: String,
    http: String,
    /// Absent while the process does not run.
    pid: Option<u32>,
    dir: String,
    cmd: Vec<String>,
}

impl Ready {
    /// The cluster as it runs now; `processes` are its masters, then its nodes.
    pub(crate) fn new(layout: &Layout, cluster: &ClusterFile, processes: &[Process]) -> Self {
        let (masters, nodes) = processes.split_at(cluster.masters.len().min(processes.len()));
        let entry = |entry: &NodeEntry, process: &Process, dir: PathBuf| Entry {
            id: entry.id,
            addr: entry.addr.to_string(),
            http: entry.http.to_string(),
            pid: process.pid(),
            dir: dir.display().to_string(),
            cmd: process.cmd.clone(),
        };
        let masters = cluster.masters.iter().zip(masters);
        let nodes = cluster.nodes.iter().zip(nodes);
        Self {
            cluster_id: cluster.cluster_id.to_string(),
            endpoints: cluster
                .nodes
                .iter()
                .map(|node| node.addr.to_string())
                .collect(),
            snapshot_store: super::store::url(layout),
            masters: masters
                .map(|(it, process)| entry(it, process, layout.master_dir(it.id)))
                .collect(),
            nodes: nodes
                .map(|(it, process)| entry(it, process, layout.node_dir(it.id)))
                .collect(),
        }
    }

    /// Writes the ready file: whole, then renamed.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        write_whole(path, self)
    }

    /// Shows the cluster: the ready file's content, or a table with what to do next.
    pub(crate) fn show(&self, temporary: bool, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            output.json(self)?;
            return output.flush();
        }
        let row = |role: &str, entry: &Entry| {
            let pid = entry.pid.map_or_else(|| "-".into(), |pid| pid.to_string());
            vec![
                role.to_owned(),
                entry.id.to_string(),
                entry.addr.clone(),
                pid,
                entry.dir.clone(),
            ]
        };
        let masters = self.masters.iter().map(|entry| row("master", entry));
        let nodes = self.nodes.iter().map(|entry| row("node", entry));
        output.table(
            &["role", "id", "address", "pid", "folder"],
            masters.chain(nodes).collect(),
        )?;
        let masters = if self.masters.is_empty() {
            "no masters: nothing replaces a node that stays away; the cluster serves without them\n"
        } else {
            ""
        };
        let kept = if temporary {
            "the data goes away with this command"
        } else {
            "the data is kept; the same --dir brings it back"
        };
        let endpoints = self.endpoints.join(",");
        let text = format!(
            "\nexport CATENA_ENDPOINTS={endpoints}\n\n{masters}{kept}; Ctrl-C stops the cluster"
        );
        output.line(text.as_bytes())?;
        output.flush()
    }
}
