//! The start-up config of a node: flag over `CATENA_*` variable over file.
//!
//! Everything that is not here is a *setting*: it lives in the cluster's state,
//! is versioned, and needs no restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use catena_chainnode::engine::EngineKind;
use catena_proto::ids::{ClusterId, NodeId};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Deserialize;

use crate::exit::{DaemonExit, Failure};

/// Parses an engine's name, and lists the names in help and completions.
pub(crate) fn engine_parser() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(EngineKind::ALL.map(EngineKind::as_str))
        .try_map(|name| name.parse::<EngineKind>())
}

/// Where the daemon's keys come from; each is a flag, a variable and a key of the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct NodeFlags {
    /// Read keys from this TOML file; flags and variables win over it
    #[arg(long, env = "CATENA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster that the node belongs to (32 hex digits)
    #[arg(long, env = "CATENA_CLUSTER_ID", value_name = "ID")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// The node's number, stable over restarts
    #[arg(long, env = "CATENA_NODE_ID", value_name = "N")]
    pub(crate) node_id: Option<u64>,
    /// The node's folder
    #[arg(long, env = "CATENA_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The gRPC address to listen on [default: 127.0.0.1:7401]
    #[arg(long, env = "CATENA_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The gRPC address that others reach the node at, HOST:PORT [default: the listen address]
    #[arg(long, env = "CATENA_ADVERTISE", value_name = "ADDR", value_parser = crate::arguments::address)]
    pub(crate) advertise: Option<String>,
    /// The HTTP address for /livez, /readyz and /metrics [default: 127.0.0.1:7402]
    #[arg(long, env = "CATENA_HTTP", value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// The failure domain that the node is in
    #[arg(long, env = "CATENA_ZONE", value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// The masters, HOST:PORT,HOST:PORT; none is fine
    #[arg(
        long,
        env = "CATENA_MASTERS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub(crate) masters: Option<Vec<String>>,
    /// Where the snapshots of the cluster's state are, such as file:///srv/catena
    #[arg(long, env = "CATENA_SNAPSHOT_STORE", value_name = "URL")]
    pub(crate) snapshot_store: Option<String>,
    /// What keeps the state on disk [default: fjall]
    #[arg(long, env = "CATENA_ENGINE", value_parser = engine_parser(), value_name = "NAME")]
    pub(crate) engine: Option<EngineKind>,
}

/// The same keys as the file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    cluster_id: Option<ClusterId>,
    node_id: Option<u64>,
    dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    http: Option<SocketAddr>,
    zone: Option<String>,
    masters: Option<Vec<String>>,
    snapshot_store: Option<String>,
    engine: Option<String>,
}

/// The keys in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeStart {
    /// The cluster that the node belongs to.
    pub(crate) cluster: ClusterId,
    /// The node.
    pub(crate) node: NodeId,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its gRPC address.
    pub(crate) listen: SocketAddr,
    /// Where others reach it.
    pub(crate) advertise: String,
    /// Its HTTP address.
    pub(crate) http: SocketAddr,
    /// Its failure domain; empty when unset.
    pub(crate) zone: String,
    /// The masters, possibly none.
    pub(crate) masters: Vec<String>,
    /// Where snapshots are, if anywhere.
    pub(crate) snapshot_store: Option<String>,
    /// What keeps the state on disk.
    pub(crate) engine: EngineKind,
}

/// Reads the file, if one is named, and puts flags and variables over it.
pub(crate) fn resolve(flags: NodeFlags) -> Result<NodeStart, Failure> {
    let text = read(flags.config.as_deref())?;
    merge(flags, &text)
}

/// The text of the file that `--config` names; none is an empty one.
pub(crate) fn read(path: Option<&Path>) -> Result<String, Failure> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    std::fs::read_to_string(path).map_err(|why| {
        bad(
            format!("reading {}", path.display()),
            why.to_string(),
            "check the path that --config names",
        )
    })
}

fn merge(flags: NodeFlags, file: &str) -> Result<NodeStart, Failure> {
    let name = flags
        .config
        .as_ref()
        .map_or_else(|| "the config".into(), |p| p.display().to_string());
    let file: NodeFile = toml::from_str(file).map_err(|why| {
        bad(
            name,
            why.to_string().trim_end(),
            "`catena serve node --help` lists the keys; everything else is a cluster setting",
        )
    })?;
    let file_engine = file
        .engine
        .map(|name| name.parse::<EngineKind>())
        .transpose();
    let file_engine =
        file_engine.map_err(|why| bad("engine", why.to_string(), "mend the word in the file"))?;
    let listen = flags
        .listen
        .or(file.listen)
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7401)));
    let advertise = flags
        .advertise
        .or(file.advertise)
        .unwrap_or_else(|| listen.to_string());
    crate::arguments::address(&advertise).map_err(|why| {
        bad(
            "advertise",
            why,
            "name the address that other processes reach this node at",
        )
    })?;
    Ok(NodeStart {
        cluster: needed(flags.cluster_id.or(file.cluster_id), "cluster_id")?,
        node: NodeId::new(needed(flags.node_id.or(file.node_id), "node_id")?),
        dir: needed(flags.dir.or(file.dir), "dir")?,
        listen,
        advertise,
        http: flags
            .http
            .or(file.http)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7402))),
        zone: flags.zone.or(file.zone).unwrap_or_default(),
        masters: masters(flags.masters.or(file.masters))?,
        snapshot_store: flags
            .snapshot_store
            .or(file.snapshot_store)
            .filter(|url| !url.is_empty()),
        engine: flags.engine.or(file_engine).unwrap_or_default(),
    })
}

/// Checks the masters' addresses one by one.
pub(crate) fn masters(list: Option<Vec<String>>) -> Result<Vec<String>, Failure> {
    let words = list
        .unwrap_or_default()
        .into_iter()
        .filter(|word| !word.is_empty());
    words
        .map(|word| {
            crate::arguments::address(&word).map_err(|why| {
                bad(
                    format!("master {word:?}"),
                    why,
                    "name each master as HOST:PORT",
                )
            })
        })
        .collect()
}

/// The value of a key that has no default.
pub(crate) fn needed<T>(value: Option<T>, key: &str) -> Result<T, Failure> {
    value.ok_or_else(|| {
        let flag = key.replace('_', "-");
        let variable = key.to_uppercase();
        bad(
            key,
            "it is not set",
            &format!(
                "pass --{flag}, set CATENA_{variable}, or write `{key} = …` into the --config file"
            ),
        )
    })
}

/// A start-up config that cannot be used.
pub(crate) fn bad(what: impl Into<String>, why: impl Into<String>, help: &str) -> Failure {
    Failure::daemon(DaemonExit::BadConfig, "bad_config", what, why, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        cluster_id = "0000000000000000000000000000002a"
        node_id = 3
        dir = "/srv/catena"
        listen = "0.0.0.0:7000"
        advertise = "node-3:7000"
        masters = ["m1:1", "m2:2"]
        engine = "memory"
    "#;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = NodeFlags {
            node_id: Some(4),
            ..NodeFlags::default()
        };
        let start = merge(flags, FILE).expect("complete");
        assert_eq!(start.node, NodeId::new(4));
        assert_eq!(start.cluster, ClusterId::new(42));
        assert_eq!(start.advertise, "node-3:7000");
        assert_eq!(start.masters, ["m1:1", "m2:2"]);
        assert_eq!(start.engine, EngineKind::Memory);
        assert_eq!(start.http.port(), 7402);
    }

    #[test]
    fn an_unknown_key_is_named_and_has_status_2() {
        let failure = merge(NodeFlags::default(), "lease_ms = 5").expect_err("unknown key");
        assert_eq!(failure.status, 2);
        assert!(failure.why.contains("lease_ms"), "{}", failure.why);
    }

    #[test]
    fn a_missing_key_says_the_three_ways_to_set_it() {
        let failure = merge(NodeFlags::default(), "").expect_err("nothing is set");
        assert_eq!(failure.status, 2);
        assert!(
            failure.help.contains("--cluster-id") && failure.help.contains("CATENA_CLUSTER_ID")
        );
    }

    #[test]
    fn an_engine_that_nobody_knows_is_refused() {
        let failure = merge(NodeFlags::default(), "engine = 'papyrus'").expect_err("unknown");
        assert!(failure.why.contains("papyrus"), "{}", failure.why);
    }
}
