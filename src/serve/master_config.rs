//! The start-up config of a master: flag over `CATENA_*` variable over file, as a node's.
//!
//! What `--bootstrap` brings is no start-up config: it says how a *new* cluster
//! shall look, and a master whose folder holds a cluster does not look at it.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use catena_master::bootstrap::even_split_keys;
use catena_proto::config::Settings;
use catena_proto::ids::{ClusterId, MasterId};
use serde::Deserialize;

use super::config::{bad, masters, needed, read};
use crate::exit::Failure;
use crate::settings;

/// Copies of each shard of a new cluster, unless told otherwise.
const REPLICAS_DEFAULT: u32 = 3;
/// Most masters that one cluster may have: more of them only make each change slower.
const MASTERS_MAX: usize = 7;

/// Where the daemon's keys come from; each is a flag, a variable and a key of the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct MasterFlags {
    /// Read keys from this TOML file; flags and variables win over it
    #[arg(long, env = "CATENA_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster that the master belongs to (32 hex digits)
    #[arg(long, env = "CATENA_CLUSTER_ID", value_name = "ID")]
    pub(crate) cluster_id: Option<ClusterId>,
    /// The master's number: its place in --masters, from 1
    #[arg(long, env = "CATENA_MASTER_ID", value_name = "N")]
    pub(crate) master_id: Option<u64>,
    /// The master's folder
    #[arg(long, env = "CATENA_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The gRPC address to listen on [default: 127.0.0.1:7501]
    #[arg(long, env = "CATENA_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The gRPC address that others reach the master at, HOST:PORT [default: its place in --masters]
    #[arg(long, env = "CATENA_ADVERTISE", value_name = "ADDR", value_parser = crate::arguments::address)]
    pub(crate) advertise: Option<String>,
    /// The HTTP address for /livez, /readyz and /metrics [default: 127.0.0.1:7502]
    #[arg(long, env = "CATENA_HTTP", value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Every master, HOST:PORT,HOST:PORT, in the order of their ids
    #[arg(
        long,
        env = "CATENA_MASTERS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub(crate) masters: Option<Vec<String>>,
    /// Where the snapshots of the cluster's state go, such as file:///srv/catena
    #[arg(long, env = "CATENA_SNAPSHOT_STORE", value_name = "URL")]
    pub(crate) snapshot_store: Option<String>,
    /// Make a new cluster when the folder is empty; ignored when it is not
    #[arg(long)]
    pub(crate) bootstrap: bool,
    /// Members of each chain of the new cluster [default: 3]
    #[arg(long, value_name = "N", requires = "bootstrap", value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(crate) replicas: Option<u32>,
    /// Shards of the new cluster, cut at evenly spaced hex prefixes [default: 1]
    #[arg(long, value_name = "N", requires = "bootstrap", conflicts_with = "split_keys", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) shards: Option<u32>,
    /// Where one shard of the new cluster ends and the next begins
    #[arg(
        long,
        value_name = "A,B,C",
        requires = "bootstrap",
        value_delimiter = ','
    )]
    pub(crate) split_keys: Option<Vec<String>>,
    /// The new cluster's settings, a TOML file
    #[arg(long, value_name = "FILE", requires = "bootstrap")]
    pub(crate) settings: Option<PathBuf>,
}

/// The same keys as the file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MasterFile {
    cluster_id: Option<ClusterId>,
    master_id: Option<u64>,
    dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    http: Option<SocketAddr>,
    masters: Option<Vec<String>>,
    snapshot_store: Option<String>,
}

/// The keys in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MasterStart {
    /// The cluster that the master belongs to.
    pub(crate) cluster: ClusterId,
    /// The master.
    pub(crate) master: MasterId,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its gRPC address.
    pub(crate) listen: SocketAddr,
    /// Where others reach it: its place in `masters`.
    pub(crate) advertise: String,
    /// Its HTTP address.
    pub(crate) http: SocketAddr,
    /// Every master, itself too, in the order of their ids.
    pub(crate) masters: Vec<String>,
    /// Where snapshots go, if anywhere.
    pub(crate) snapshot_store: Option<String>,
    /// The new cluster, if one may be made.
    pub(crate) bootstrap: Option<NewCluster>,
}

/// How a new cluster shall look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewCluster {
    /// Where one shard ends and the next begins.
    pub(crate) split_keys: Vec<Bytes>,
    /// Members of each chain.
    pub(crate) replicas: usize,
    /// Settings in force from the start.
    pub(crate) settings: Settings,
}

/// Reads the file, if one is named, and puts flags and variables over it.
pub(crate) fn resolve(flags: MasterFlags) -> Result<MasterStart, Failure> {
    let text = read(flags.config.as_deref())?;
    merge(flags, &text)
}

fn merge(flags: MasterFlags, file: &str) -> Result<MasterStart, Failure> {
    let name = flags
        .config
        .as_ref()
        .map_or_else(|| "the config".into(), |p| p.display().to_string());
    let file: MasterFile = toml::from_str(file).map_err(|why| {
        bad(
            name,
            why.to_string().trim_end(),
            "`catena serve master --help` lists the keys; everything else is a cluster setting",
        )
    })?;
    let bootstrap = new_cluster(&flags)?;
    let id = needed(flags.master_id.or(file.master_id), "master_id")?;
    let list = masters(flags.masters.or(file.masters))?;
    let advertise = flags.advertise.or(file.advertise);
    let (masters, advertise) = place(id, list, advertise)?;
    Ok(MasterStart {
        cluster: needed(flags.cluster_id.or(file.cluster_id), "cluster_id")?,
        master: MasterId::new(id),
        dir: needed(flags.dir.or(file.dir), "dir")?,
        listen: flags
            .listen
            .or(file.listen)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7501))),
        advertise,
        http: flags
            .http
            .or(file.http)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7502))),
        masters,
        snapshot_store: flags
            .snapshot_store
            .or(file.snapshot_store)
            .filter(|url| !url.is_empty()),
        bootstrap,
    })
}

/// The list of masters and this one's address in it. A master that answers at another address than the list says
/// would vote in another one's name.
fn place(
    id: u64,
    masters: Vec<String>,
    advertise: Option<String>,
) -> Result<(Vec<String>, String), Failure> {
    const HELP: &str = "name every master as HOST:PORT, in the order of their ids, this one too";
    if masters.is_empty() {
        return Err(bad("masters", "it is not set", HELP));
    }
    if masters.len() > MASTERS_MAX {
        let why = format!("{} are named, {MASTERS_MAX} may be", masters.len());
        return Err(bad("masters", why, "3 or 5 are usual"));
    }
    for (at, addr) in masters.iter().enumerate() {
        if masters[..at].contains(addr) {
            return Err(bad("masters", format!("{addr} is named twice"), HELP));
        }
    }
    let mine = usize::try_from(id)
        .ok()
        .and_then(|id| masters.get(id.checked_sub(1)?))
        .cloned();
    let Some(mine) = mine else {
        let why = format!("{id} has no place in a list of {}", masters.len());
        return Err(bad("master_id", why, HELP));
    };
    match advertise {
        Some(advertise) if advertise != mine => Err(bad(
            "advertise",
            format!("it is {advertise}, and the list of masters has {mine} at place {id}"),
            "make both say the same, or leave advertise away",
        )),
        _ => Ok((masters, mine)),
    }
}

fn new_cluster(flags: &MasterFlags) -> Result<Option<NewCluster>, Failure> {
    if !flags.bootstrap {
        return Ok(None);
    }
    let split_keys = match &flags.split_keys {
        Some(keys) => keys
            .iter()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()))
            .collect(),
        None => {
            let shards = usize::try_from(flags.shards.unwrap_or(1)).unwrap_or(usize::MAX);
            even_split_keys(shards)
                .map_err(|why| bad("shards", why.to_string(), "ask for fewer shards"))?
        }
    };
    let rising = split_keys.windows(2).all(|pair| pair[0] < pair[1]);
    if !rising || split_keys.iter().any(Bytes::is_empty) {
        return Err(bad(
            "split_keys",
            "a key is empty or not above the one before it",
            "give them in rising order, each once",
        ));
    }
    let replicas = flags.replicas.unwrap_or(REPLICAS_DEFAULT);
    Ok(Some(NewCluster {
        split_keys,
        replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        settings: settings::read(flags.settings.as_deref())?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        cluster_id = "0000000000000000000000000000002a"
        master_id = 2
        dir = "/srv/catena/master"
        listen = "0.0.0.0:7000"
        masters = ["m1:1", "m2:2", "m3:3"]
    "#;

    #[test]
    fn a_master_is_known_by_its_place_in_the_list() {
        let start = merge(MasterFlags::default(), FILE).expect("complete");
        assert_eq!(start.master, MasterId::new(2));
        assert_eq!(start.advertise, "m2:2");
        assert_eq!(start.http.port(), 7502);
        assert_eq!(start.bootstrap, None);
        let third = MasterFlags {
            master_id: Some(3),
            ..MasterFlags::default()
        };
        assert_eq!(merge(third, FILE).expect("complete").advertise, "m3:3");
    }

    #[test]
    fn a_place_that_is_not_there_or_another_ones_is_refused() {
        let refused = |change: fn(&mut MasterFlags)| {
            let mut flags = MasterFlags::default();
            change(&mut flags);
            let failure = merge(flags, FILE).expect_err("refused");
            assert_eq!(failure.status, 2);
            failure.what
        };
        assert_eq!(refused(|f| f.master_id = Some(0)), "master_id");
        assert_eq!(refused(|f| f.master_id = Some(4)), "master_id");
        assert_eq!(refused(|f| f.advertise = Some("m1:1".into())), "advertise");
        assert_eq!(
            refused(|f| f.masters = Some(vec!["a:1".into(), "a:1".into()])),
            "masters"
        );
    }

    #[test]
    fn a_new_cluster_is_made_only_when_asked_for_and_only_from_a_plan_that_holds() {
        let flags = |split: &[&str]| MasterFlags {
            bootstrap: true,
            split_keys: Some(split.iter().map(ToString::to_string).collect()),
            ..MasterFlags::default()
        };
        let start = merge(flags(&["b", "m"]), FILE).expect("complete");
        let new = start.bootstrap.expect("a new cluster");
        assert_eq!((new.split_keys.len(), new.replicas), (2, 3));
        assert_eq!(
            merge(flags(&["m", "b"]), FILE).expect_err("falling").what,
            "split_keys"
        );
    }

    #[test]
    fn a_nodes_key_is_no_masters_key() {
        let failure = merge(MasterFlags::default(), "engine = 'fjall'").expect_err("unknown");
        assert!(failure.why.contains("engine"), "{}", failure.why);
    }
}
