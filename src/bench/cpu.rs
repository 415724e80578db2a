//! CPU time of this process and of the servers, from `/proc`.

use std::path::Path;
use std::time::Duration;

use catena_proto::ids::ClusterId;
use serde::Deserialize;

use crate::exit::Failure;

/// What `catena dev` writes, as far as it is needed here.
#[derive(Deserialize)]
struct ReadyFile {
    masters: Vec<Process>,
    nodes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
}

/// The processes whose CPU time is the servers': those named, those of the ready file, or those
/// on this machine that serve the cluster.
pub(crate) fn pids(
    named: Option<&[u32]>,
    ready_file: Option<&Path>,
    cluster: ClusterId,
) -> Result<Vec<u32>, Failure> {
    if let Some(pids) = named {
        return Ok(pids.to_vec());
    }
    let Some(path) = ready_file else {
        return Ok(serving(cluster));
    };
    let unreadable = |why: String| {
        Failure::usage(
            format!("--ready-file {}", path.display()),
            why,
            "name the file that `catena dev --ready-file` wrote",
        )
    };
    let text = std::fs::read(path).map_err(|why| unreadable(why.to_string()))?;
    let ready: ReadyFile =
        serde_json::from_slice(&text).map_err(|why| unreadable(why.to_string()))?;
    Ok(ready
        .masters
        .into_iter()
        .chain(ready.nodes)
        .map(|process| process.pid)
        .collect())
}

/// Daemons of the cluster on this machine, by their command lines.
fn serving(cluster: ClusterId) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        is_daemon_of(&line, cluster)
    };
    pids.filter(serves).collect()
}

/// Whether a command line (words ending in NUL) is that of a daemon of `cluster`.
fn is_daemon_of(line: &[u8], cluster: ClusterId) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let cluster = cluster.to_string();
    words.contains(&&b"serve"[..]) && words.iter().any(|word| word.ends_with(cluster.as_bytes()))
}

/// CPU time used until some moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    client: Option<Duration>,
    servers: Vec<Option<Duration>>,
}

/// CPU time used between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// By this process.
    pub(crate) client: Option<Duration>,
    /// By all servers together; `None` where none is known, or one of them came or went meanwhile.
    pub(crate) servers: Option<Duration>,
}

impl Reading {
    /// Reads now.
    pub(crate) fn now(pids: &[u32]) -> Self {
        let of = |who: &str| {
            let line = std::fs::read_to_string(format!("/proc/{who}/stat")).ok()?;
            let per_second = rustix::param::clock_ticks_per_second();
            Some(Duration::from_nanos(
                ticks(&line)? * 1_000_000_000 / per_second,
            ))
        };
        Self {
            client: of("self"),
            servers: pids.iter().map(|pid| of(&pid.to_string())).collect(),
        }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let servers = self.servers.iter().zip(&earlier.servers);
        let servers: Option<Vec<Duration>> = servers
            .map(|(now, then)| now.as_ref()?.checked_sub((*then)?))
            .collect();
        Used {
            client: self.client.and_then(|now| now.checked_sub(earlier.client?)),
            servers: servers
                .filter(|used| !used.is_empty())
                .map(|used| used.iter().sum()),
        }
    }
}

/// User and system time in a line of `/proc/PID/stat`, in clock ticks.
fn ticks(line: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold anything, blanks and parentheses too.
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_fields_14_and_15_whatever_the_name() {
        let line = "42 (a) b (c) S 1 1 1 0 -1 4194560 10 0 0 0 700 55 0 0 20 0 9 0 100";
        assert_eq!(ticks(line), Some(755));
        assert_eq!(ticks("42 (x) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn a_server_that_came_or_went_makes_the_sum_unknown_instead_of_wrong() {
        let reading = |servers: &[Option<u64>]| Reading {
            client: Some(Duration::from_secs(1)),
            servers: servers.iter().map(|s| s.map(Duration::from_secs)).collect(),
        };
        let used = |now: &[Option<u64>], then: &[Option<u64>]| {
            reading(now)
                .since(&reading(then))
                .servers
                .map(|d| d.as_secs())
        };
        assert_eq!(used(&[Some(5), Some(9)], &[Some(2), Some(8)]), Some(4));
        assert_eq!(used(&[Some(5), None], &[Some(2), Some(8)]), None);
        assert_eq!(used(&[], &[]), None);
    }

    #[test]
    fn daemons_are_known_by_their_cluster() {
        let ours = ClusterId::new(1);
        let line = |id: ClusterId| format!("catena\0serve\0node\0--cluster-id={id}\0").into_bytes();
        assert!(is_daemon_of(&line(ours), ours));
        assert!(!is_daemon_of(&line(ClusterId::new(2)), ours));
        assert!(!is_daemon_of(
            format!("catena\0bench\0{ours}\0").as_bytes(),
            ours
        ));
    }
}
