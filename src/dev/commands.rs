//! The command lines of a local cluster's daemons: the very ones that a real cluster is started with.

use super::layout::{ClusterFile, Layout, NodeEntry};
use super::process::Process;
use super::store;
use crate::exit::Failure;

/// A process for each master, then for each node, not started yet. The commands name nothing inside the daemons'
/// own folders, so that a process also starts, and says what is wrong, when its folder was emptied.
pub(crate) fn processes(layout: &Layout, cluster: &ClusterFile) -> Result<Vec<Process>, Failure> {
    let program = program()?;
    let masters = cluster.masters.iter().map(|master| {
        let cmd = master_command(&program, layout, cluster, master);
        let name = format!("master {}", master.id);
        Process::new(name, cmd, layout.master_log(master.id))
    });
    let nodes = cluster.nodes.iter().map(|node| {
        let cmd = node_command(&program, layout, cluster, node);
        let name = format!("node {}", node.id);
        Process::new(name, cmd, layout.node_log(node.id))
    });
    Ok(masters.chain(nodes).collect())
}

/// Gives running processes the commands that they shall be started again with.
pub(crate) fn name_again(
    layout: &Layout,
    cluster: &ClusterFile,
    running: &mut [Process],
) -> Result<(), Failure> {
    for (running, named) in running.iter_mut().zip(processes(layout, cluster)?) {
        running.cmd = named.cmd;
    }
    Ok(())
}

fn program() -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(|why| {
        Failure::local(
            "finding this program's own file",
            why,
            "start it by its whole path",
        )
    })?;
    Ok(program.display().to_string())
}

fn master_command(
    program: &str,
    layout: &Layout,
    cluster: &ClusterFile,
    master: &NodeEntry,
) -> Vec<String> {
    let mut cmd = vec![program.to_owned(), "serve".into(), "master".into()];
    let mut flag = |flag: &str, value: String| cmd.extend([flag.to_owned(), value]);
    flag("--cluster-id", cluster.cluster_id.to_string());
    flag("--master-id", master.id.to_string());
    flag("--dir", layout.master_dir(master.id).display().to_string());
    flag("--listen", master.addr.to_string());
    flag("--http", master.http.to_string());
    flag("--masters", addresses(&cluster.masters));
    flag("--snapshot-store", store::url(layout));
    let Some(new) = &cluster.to_bootstrap else {
        return cmd;
    };
    flag("--replicas", new.replicas.to_string());
    if !new.split_keys.is_empty() {
        flag("--split-keys", new.split_keys.join(","));
    }
    if new.settings {
        flag("--settings", layout.settings_file().display().to_string());
    }
    cmd.push("--bootstrap".into());
    cmd
}

fn node_command(
    program: &str,
    layout: &Layout,
    cluster: &ClusterFile,
    node: &NodeEntry,
) -> Vec<String> {
    let mut cmd = vec![program.to_owned(), "serve".into(), "node".into()];
    let mut flag = |flag: &str, value: String| cmd.extend([flag.to_owned(), value]);
    flag("--cluster-id", cluster.cluster_id.to_string());
    flag("--node-id", node.id.to_string());
    flag("--dir", layout.node_dir(node.id).display().to_string());
    flag("--listen", node.addr.to_string());
    flag("--advertise", node.addr.to_string());
    flag("--http", node.http.to_string());
    if !cluster.masters.is_empty() {
        flag("--masters", addresses(&cluster.masters));
    }
    flag("--snapshot-store", store::url(layout));
    flag("--engine", cluster.engine.clone());
    cmd
}

fn addresses(of: &[NodeEntry]) -> String {
    let words: Vec<String> = of.iter().map(|entry| entry.addr.to_string()).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use catena_proto::ids::ClusterId;

    use super::super::layout::BootstrapEntry;
    use super::*;

    #[test]
    fn a_cluster_is_made_once_and_only_by_masters() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(Some(dir.path())).expect("opened");
        let entry = |id: u64, port: u16| NodeEntry {
            id,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            http: SocketAddr::from(([127, 0, 0, 1], port + 1)),
        };
        let mut cluster = ClusterFile {
            cluster_id: ClusterId::new(7),
            engine: "memory".into(),
            masters: vec![entry(1, 10), entry(2, 20)],
            nodes: vec![entry(1, 30)],
            to_bootstrap: Some(BootstrapEntry {
                replicas: 1,
                split_keys: vec!["b".into(), "m".into()],
                settings: false,
            }),
        };
        let mut all = processes(&layout, &cluster).expect("named");
        let makes = |process: &Process| process.cmd.iter().any(|word| word == "--bootstrap");
        assert_eq!(
            all.iter().map(makes).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(all[0].cmd.contains(&"b,m".to_owned()), "{:?}", all[0].cmd);
        let masters = "127.0.0.1:10,127.0.0.1:20".to_owned();
        assert!(all.iter().all(|process| process.cmd.contains(&masters)));

        cluster.to_bootstrap = None;
        name_again(&layout, &cluster, &mut all).expect("named again");
        assert!(!all.iter().any(makes));
    }
}
