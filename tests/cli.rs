//! The command line as scripts see it: exit statuses, JSON, errors, hex and stdin.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests look at files that processes make"
)]

mod harness;

use harness::{Cluster, Finished, finish, run};
use serde_json::{Value, json};

/// An address where nobody listens: port 1 is privileged, and no test runs there.
const NOBODY: &str = "127.0.0.1:1";

fn run_json(words: &[&str]) -> Finished {
    run(&[words, &["--output", "json"]].concat())
}

#[test]
fn wrong_usage_is_status_2_and_says_what_and_how() {
    let cases: &[&[&str]] = &[
        &["frobnicate"],
        &["get"],
        &["get", "k", "--frob"],
        &["get", "k"],
        &["get", "k", "--endpoints", "nonsense"],
        &["get", "k", "--endpoints", NOBODY, "--timeout", "5"],
        &["get", "k", "--endpoints", NOBODY, "--consistency", "strong"],
        &["get", "xyz", "--hex", "--endpoints", NOBODY],
        &["cas", "k", "v", "--endpoints", NOBODY],
        &[
            "cas",
            "k",
            "v",
            "--expect-absent",
            "--expect-version",
            "1",
            "--endpoints",
            NOBODY,
        ],
        &[
            "scan",
            "--prefix",
            "a",
            "--from",
            "b",
            "--endpoints",
            NOBODY,
        ],
        &["bench", "--clients", "0", "--endpoints", NOBODY],
        &["bench", "--value-size", "99999999", "--endpoints", NOBODY],
        &["dev", "--masters", "99"],
        &["chain", "remove-member", "1"],
        &["chain", "add-member", "1", "one", "--endpoints", NOBODY],
        // Nobody is there to be asked: no terminal, and no --yes.
        &["chain", "recover", "1", "1", "--endpoints", NOBODY],
        &["events", "--limit", "0", "--endpoints", NOBODY],
        &["controller", "pause", "frob", "--endpoints", NOBODY],
        &["node", "list"],
        &["dev", "--nodes", "2", "--replicas", "3"],
        &["dev", "--split-keys", "b,a"],
        &["jepsen", "check", "--model", "register", "/nonexistent"],
    ];
    for words in cases {
        let plain = run(words).ended(2);
        assert!(
            plain.stderr.starts_with("error: "),
            "{words:?}: {}",
            plain.stderr
        );
        assert!(plain.stdout.is_empty(), "{words:?}");
        let error = run_json(words).ended(2).error();
        assert_eq!(error["code"], "usage", "{words:?}");
        assert_eq!(error["retryable"], false, "{words:?}");
        let message = error["message"].as_str().expect("a message");
        assert!(
            !message.is_empty() && !message.contains("error:"),
            "{words:?}: {message}"
        );
        assert_ne!(error["help"], "", "{words:?}");
    }
}

#[test]
fn nobody_at_the_endpoint_is_status_5_for_reads_and_writes_and_may_be_tried_again() {
    let cases: &[&[&str]] = &[
        &["get", "k"],
        &["put", "k", "v"],
        &["incr", "k"],
        &["scan"],
        &["status"],
        &["chain", "list"],
        &["chain", "remove-member", "1", "1"],
        &["chain", "recover", "1", "1", "--yes"],
        &["master", "list"],
        &["config", "versions"],
        &["events"],
        &["events", "--follow"],
        &["controller", "pause"],
        &["bench", "--seconds", "1"],
    ];
    for words in cases {
        let words = [words, &["--endpoints", NOBODY, "--timeout", "300ms"][..]].concat();
        let error = run_json(&words).ended(5).error();
        assert_eq!(error["retryable"], true, "{words:?}: {error}");
    }
}

#[test]
fn errors_are_two_lines_for_people() {
    let finished = run(&["put", "k", "v", "--endpoints", NOBODY, "--timeout", "300ms"]).ended(5);
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("error: ") && lines[1].starts_with("help: "),
        "{lines:?}"
    );
}

#[test]
fn help_version_and_completions_need_no_cluster() {
    for words in [
        &["--help"][..],
        &["dev", "--help"],
        &["serve", "node", "--help"],
        &["serve", "master", "--help"],
        &["status", "--help"],
        &["chain", "remove-member", "--help"],
        &["chain", "add-member", "--help"],
        &["chain", "recover", "--help"],
        &["node", "list", "--help"],
        &["node", "show", "--help"],
        &["master", "list", "--help"],
        &["config", "versions", "--help"],
        &["events", "--help"],
        &["controller", "pause", "--help"],
        &["controller", "resume", "--help"],
    ] {
        let finished = run(words).ended(0);
        assert!(finished.text().contains("Example"), "{words:?}");
    }
    let version = run_json(&["version"]).ended(0).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let features = version["features"].as_array().expect("a list");
    assert_eq!(
        features.contains(&json!("testing")),
        cfg!(feature = "testing")
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&["completions", shell])
                .ended(0)
                .text()
                .contains("catena"),
            "{shell}"
        );
    }
}

#[test]
fn a_bad_config_stops_a_daemon_with_status_2_before_it_touches_its_folder() {
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("node");
    let dir_word = dir.display().to_string();
    let file = |content| harness::write(scratch.path(), "node.toml", content);
    let id = "00000000000000000000000000000001";

    let unknown = file("node_id = 1\nlease_ms = 5\n");
    let cases: &[(&[&str], &str)] = &[
        (
            &["--config", &unknown, "--cluster-id", id, "--dir", &dir_word],
            "lease_ms",
        ),
        (&["--cluster-id", id, "--dir", &dir_word], "node_id"),
        (&["--node-id", "1", "--dir", &dir_word], "cluster_id"),
        (
            &["--node-id", "1", "--cluster-id", "xyz", "--dir", &dir_word],
            "--cluster-id",
        ),
        (
            &[
                "--node-id",
                "1",
                "--cluster-id",
                id,
                "--dir",
                &dir_word,
                "--listen",
                "here",
            ],
            "--listen",
        ),
        (
            &[
                "--node-id",
                "1",
                "--cluster-id",
                id,
                "--dir",
                &dir_word,
                "--log",
                "x=loud",
            ],
            "--log",
        ),
        (
            &["--config", "/nonexistent/node.toml"],
            "/nonexistent/node.toml",
        ),
    ];
    for (words, named) in cases {
        let words = [&["serve", "node"], *words].concat();
        let finished = run(&words).ended(2);
        assert!(
            finished.stderr.contains(named),
            "{words:?}: {}",
            finished.stderr
        );
    }
    assert!(!dir.exists());
}

#[test]
fn a_history_is_judged_and_the_verdict_is_the_status() {
    let scratch = tempfile::tempdir().expect("a folder");
    let history = |name, read: &str| {
        let log = format!(
            "INFO  jepsen.util - 0\t:invoke\t:write\t1\nINFO  jepsen.util - 0\t:ok\t:write\t1\n\
             INFO  jepsen.util - 1\t:invoke\t:read\tnil\nINFO  jepsen.util - 1\t:ok\t:read\t{read}\n"
        );
        harness::write(scratch.path(), name, &log)
    };
    let good = history("good.log", "1");
    let bad = history("bad.log", "2");
    let check = |file: &str| run_json(&["jepsen", "check", "--model", "register", file]);
    assert_eq!(check(&good).ended(0).json()["verdict"], "linearizable");
    assert_eq!(check(&bad).ended(1).json()["verdict"], "not linearizable");
    let undecided = [
        "jepsen",
        "check",
        "--model",
        "register",
        "--steps-max",
        "0",
        &good,
    ];
    assert_eq!(run_json(&undecided).ended(6).json()["verdict"], "undecided");
}

/// One cluster for all of it: starting one takes longer than every command here.
#[test]
fn the_data_commands_speak_as_documented() {
    let cluster = Cluster::start(&["--shards", "2"]);
    single_keys(&cluster);
    conditions(&cluster);
    counters(&cluster);
    bytes_that_are_no_text(&cluster);
    scans(&cluster);
    pictures(&cluster);
    load(&cluster);
}

fn single_keys(cluster: &Cluster) {
    let missing = cluster
        .run(&["get", "greeting", "--output", "json"])
        .ended(3);
    assert_eq!(missing.error()["code"], "not_found");

    let put = cluster.json(&["put", "greeting", "hello"]);
    assert_eq!(put["key"], "greeting");
    let version = put["version"].as_u64().expect("a version");
    assert!(
        version > 0 && put["shard"].as_u64().is_some_and(|shard| shard > 0),
        "{put}"
    );

    let wanted =
        json!({"key": "greeting", "value": "hello", "version": version, "shard": put["shard"]});
    assert_eq!(cluster.json(&["get", "greeting"]), wanted);
    assert_eq!(
        cluster.run(&["get", "greeting"]).ended(0).stdout,
        b"hello\n"
    );

    let stale = cluster.json(&["get", "greeting", "--consistency", "stale"]);
    assert_eq!(stale["key"], "greeting");
    assert!(stale["seq"].is_u64() && stale["lag_ms"].is_u64(), "{stale}");

    let append = cluster.json(&["append", "greeting", " world"]);
    assert!(append["version"].as_u64() > Some(version), "{append}");
    assert_eq!(cluster.json(&["get", "greeting"])["value"], "hello world");

    assert_eq!(cluster.json(&["del", "greeting"])["deleted"], true);
    assert_eq!(cluster.json(&["del", "greeting"])["deleted"], false);
    cluster.run(&["get", "greeting"]).ended(3);

    // A word that looks like a flag is a value all the same.
    cluster.json(&["put", "dash", "-5"]);
    assert_eq!(cluster.json(&["get", "dash"])["value"], "-5");
}

fn conditions(cluster: &Cluster) {
    let first = cluster.json(&["cas", "leader", "--expect-absent", "alice"]);
    let again = cluster.run(&[
        "cas",
        "leader",
        "--expect-absent",
        "bob",
        "--output",
        "json",
    ]);
    assert_eq!(again.ended(4).error()["code"], "condition_failed");
    cluster.json(&["cas", "leader", "--expect-value", "alice", "bob"]);
    let version = first["version"].to_string();
    cluster
        .run(&["cas", "leader", "--expect-version", &version, "carol"])
        .ended(4);
    assert_eq!(cluster.json(&["get", "leader"])["value"], "bob");
}

fn counters(cluster: &Cluster) {
    assert_eq!(cluster.json(&["incr", "visits"])["value"], "1");
    assert_eq!(cluster.json(&["incr", "visits", "41"])["value"], "42");
    assert_eq!(cluster.json(&["incr", "visits", "-2"])["value"], "40");
    assert_eq!(cluster.run(&["incr", "visits"]).ended(0).stdout, b"41\n");
    cluster.json(&["put", "word", "cat"]);
    let error = cluster
        .run(&["incr", "word", "--output", "json"])
        .ended(1)
        .error();
    assert_eq!(error["code"], "not_a_number");
    cluster.json(&["put", "most", &i64::MAX.to_string()]);
    assert_eq!(
        cluster
            .run(&["incr", "most", "--output", "json"])
            .ended(1)
            .error()["code"],
        "overflow"
    );
    assert_eq!(
        cluster.json(&["get", "most"])["value"],
        i64::MAX.to_string()
    );
}

fn bytes_that_are_no_text(cluster: &Cluster) {
    cluster.json(&["put", "--hex", "00ff", "ff00fe"]);
    let row = cluster.json(&["get", "--hex", "00ff"]);
    assert_eq!(row["key"], json!({"base64": "AP8="}));
    assert_eq!(row["value"], json!({"base64": "/wD+"}));
    assert_eq!(
        cluster.run(&["get", "--hex", "00ff"]).ended(0).stdout,
        b"ff00fe\n"
    );

    // stdin goes in byte for byte, line ends and all.
    let bytes = b"two\nlines\n\xff\x00";
    finish(&mut cluster.command(&["put", "file", "-"]), bytes).ended(0);
    let mut wanted = bytes.to_vec();
    wanted.push(b'\n');
    assert_eq!(cluster.run(&["get", "file"]).ended(0).stdout, wanted);

    let large = vec![b'x'; 4 << 20];
    finish(&mut cluster.command(&["put", "large", "-"]), &large).ended(0);
    assert_eq!(
        cluster.run(&["get", "large"]).ended(0).stdout.len(),
        large.len() + 1
    );
    let too_large = vec![b'x'; (4 << 20) + 1];
    finish(&mut cluster.command(&["put", "large", "-"]), &too_large).ended(2);
    cluster.run(&["put", &"k".repeat(5_000), "v"]).ended(1);
}

fn scans(cluster: &Cluster) {
    // Shards meet at 8: these lie on both sides of it.
    for key in ["s/1", "s/2", "s/3", "0s/1", "0s/2"] {
        cluster.json(&["put", key, &format!("value of {key}")]);
    }
    let keys = |words: &[&str]| -> Vec<Value> {
        let words = [&["scan", "--output", "json"], words].concat();
        let rows = cluster.run(&words).ended(0).lines();
        rows.into_iter().map(|row| row["key"].clone()).collect()
    };
    assert_eq!(keys(&["--prefix", "s/"]), ["s/1", "s/2", "s/3"]);
    assert_eq!(
        keys(&["--prefix", "s/", "--reverse"]),
        ["s/3", "s/2", "s/1"]
    );
    assert_eq!(keys(&["--prefix", "s/", "--limit", "2"]), ["s/1", "s/2"]);
    assert_eq!(keys(&["--from", "0s/2", "--to", "0s/3"]), ["0s/2"]);
    assert_eq!(keys(&["--prefix", "nothing"]), Vec::<Value>::new());
    let all = keys(&["--from", "0s/", "--to", "s/9"]);
    assert!(
        all.len() >= 5 && all[0] == "0s/1" && all[all.len() - 1] == "s/3",
        "{all:?}"
    );
    let text = cluster.run(&["scan", "--prefix", "s/1"]).ended(0).text();
    assert!(text.starts_with("s/1\tvalue of s/1\t"), "{text}");
}

fn pictures(cluster: &Cluster) {
    cluster.wait_healthy();
    let status = cluster.status().expect("it answers");
    assert_eq!(status["cluster_id"], json!(cluster.ready().cluster_id));
    assert_eq!(status["control_plane"], "unreachable");
    assert_eq!(status["masters"], json!([]));
    let nodes = status["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    assert!(nodes.iter().all(|node| node["state"] == "up"), "{nodes:?}");
    let chains = status["chains"].as_array().expect("chains");
    assert_eq!(
        (chains[0]["start"].clone(), chains[0]["end"].clone()),
        (json!(""), json!("8"))
    );
    assert_eq!(
        (chains[1]["start"].clone(), chains[1]["end"].clone()),
        (json!("8"), Value::Null)
    );
    let roles: Vec<&Value> = chains[0]["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|m| &m["role"])
        .collect();
    assert_eq!(roles, ["head", "middle", "tail"]);

    assert_eq!(
        cluster
            .run(&["chain", "list", "--output", "json"])
            .ended(0)
            .lines()
            .len(),
        2
    );
    assert_eq!(cluster.json(&["chain", "show", "2"])["shard"], 2);
    cluster.run(&["chain", "show", "99"]).ended(3);
    assert_eq!(
        cluster
            .run(&["node", "list", "--output", "json"])
            .ended(0)
            .lines()
            .len(),
        3
    );
    assert_eq!(cluster.json(&["node", "show", "1"])["id"], 1);
    cluster.run(&["node", "show", "99"]).ended(3);
    for words in [
        &["status"][..],
        &["chain", "list"],
        &["chain", "show", "1"],
        &["node", "list"],
        &["node", "show", "1"],
    ] {
        assert!(!cluster.run(words).ended(0).stdout.is_empty(), "{words:?}");
    }
}

fn load(cluster: &Cluster) {
    for workload in ["put", "get", "mix", "scan"] {
        let words = [
            "bench",
            "--workload",
            workload,
            "--clients",
            "4",
            "--keys",
            "500",
            "--seconds",
            "1",
            "--spread",
        ];
        let result = cluster.json(&words);
        assert_eq!(result["workload"], workload);
        assert_eq!(
            (result["errors"].clone(), result["unknown"].clone()),
            (json!(0), json!(0)),
            "{result}"
        );
        for field in [
            "ops_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "longest_gap_ms",
        ] {
            assert!(
                result[field].as_f64().is_some_and(|figure| figure > 0.0),
                "{field}: {result}"
            );
        }
        for field in ["server_cpu_us_per_op", "client_cpu_us_per_op"] {
            assert!(result[field].is_number(), "{field}: {result}");
        }
    }
    let paced = cluster.json(&[
        "bench",
        "--rate",
        "200",
        "--clients",
        "8",
        "--keys",
        "50",
        "--seconds",
        "2",
    ]);
    let rate = paced["ops_per_s"].as_f64().expect("a rate");
    assert!((100.0..=210.0).contains(&rate), "{paced}");
    let gap = cluster.json(&["bench", "--gap", "--keys", "50", "--seconds", "1"]);
    assert!(
        gap["longest_gap_ms"].as_f64().is_some_and(|gap| gap > 0.0),
        "{gap}"
    );
}
