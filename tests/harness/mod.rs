//! Real processes for tests from outside: a cluster made by `catena dev`, its
//! nodes killed and started again by hand, the command line run as a user runs it.
//!
//! Nothing here outlives its test: `dev`, and every node that a test starts
//! again, ends with the *thread* that started it. So call [`Cluster::start`] and
//! [`Cluster::restart`] on the test's own thread, and drive load from others.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "runtime: each test binary uses its part of the harness, and all of it drives processes"
)]

pub(crate) mod contents;
pub(crate) mod load;
mod nodes;
pub(crate) mod require;
pub(crate) mod segments;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

/// How long a test waits for what has to happen. Far longer than it takes: two busy cores must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The ready file of `catena dev`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) cluster_id: String,
    pub(crate) endpoints: Vec<String>,
    pub(crate) snapshot_store: String,
    pub(crate) masters: Vec<Process>,
    pub(crate) nodes: Vec<Process>,
}

/// One process in it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) http: String,
    pub(crate) pid: u32,
    pub(crate) dir: PathBuf,
    pub(crate) cmd: Vec<String>,
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its stdout as JSON lines.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| parse(line)).collect()
    }

    /// Its only line of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "one line was expected: {self:?}");
        lines[0].clone()
    }

    /// The error on its stderr, as JSON.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        parse(self.stderr.trim())["error"].clone()
    }

    /// The same, checked to have ended with `status`.
    #[track_caller]
    pub(crate) fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

#[track_caller]
fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line:?}"))
}

/// The binary under test, without the variables of whoever runs the tests.
pub(crate) fn catena() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catena"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CATENA_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run(words: &[&str]) -> Finished {
    finish(catena().args(words), b"")
}

/// Runs a command to its end, with `stdin`.
pub(crate) fn finish(command: &mut Command, stdin: &[u8]) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that does not read its stdin closes it; that is its right.
            let _ = pipe.write_all(stdin);
        });
        let output = child.wait_with_output().expect("it ends");
        Finished {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    })
}

/// Looks until `condition` holds; fails the test, naming `what`, when it does not for [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_in_time(condition), "not in {PATIENCE:?}: {what}");
}

fn holds_in_time(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Whether a process runs; one that has ended and is not yet waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Sends a signal; a process that is gone is none to mind.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    dev: Child,
    ready: Ready,
    /// How long `dev` took until it served.
    pub(crate) started_in: Duration,
    /// Nodes that this test started again, by id.
    restarted: BTreeMap<u64, Child>,
    /// Masters that it started again.
    masters_restarted: BTreeMap<u64, Child>,
    scratch: tempfile::TempDir,
}

impl Cluster {
    /// Starts `catena dev` with these flags, and waits until it serves: unless the flags name masters, nodes alone,
    /// which nobody replaces when a test kills them.
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Self {
        if flags.contains(&"--masters") {
            return Self::start_dev(flags);
        }
        Self::start_dev(&[&["--masters", "0"], flags].concat())
    }

    /// The same with three masters.
    #[track_caller]
    pub(crate) fn start_with_masters(flags: &[&str]) -> Self {
        Self::start_dev(&[&["--masters", "3"], flags].concat())
    }

    #[track_caller]
    fn start_dev(flags: &[&str]) -> Self {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let ready_file = scratch.path().join("ready.json");
        let file = |name| std::fs::File::create(scratch.path().join(name)).expect("a file");
        let began = Instant::now();
        let mut dev = catena()
            .arg("dev")
            .args(flags)
            .arg("--ready-file")
            .arg(&ready_file)
            .arg("--parent-pid")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(file("dev.out"))
            .stderr(file("dev.err"))
            .spawn()
            .expect("the binary starts");
        let mut ended = None;
        let ready = holds_in_time(|| {
            ended = dev.try_wait().expect("it can be waited for");
            ended.is_some() || ready_file.exists()
        });
        let said = |name| std::fs::read_to_string(scratch.path().join(name)).unwrap_or_default();
        if !ready || ended.is_some() {
            let (out, err) = (said("dev.out"), said("dev.err"));
            let _ = dev.kill();
            let _ = dev.wait();
            panic!("dev {flags:?} does not serve ({ended:?}):\n{out}{err}");
        }
        let text = std::fs::read_to_string(&ready_file).expect("a ready file");
        let ready = serde_json::from_str(&text).expect("a ready file as documented");
        Self {
            dev,
            ready,
            started_in: began.elapsed(),
            restarted: BTreeMap::new(),
            masters_restarted: BTreeMap::new(),
            scratch,
        }
    }

    /// The ready file as it was when the cluster began to serve.
    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// `dev` itself.
    pub(crate) fn dev_pid(&self) -> u32 {
        self.dev.id()
    }

    /// What `dev` has written to stdout and stderr.
    pub(crate) fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.scratch.path().join(name));
        read("dev.out").unwrap_or_default() + &read("dev.err").unwrap_or_default()
    }

    /// The ready-file entry of a node.
    #[track_caller]
    pub(crate) fn node(&self, id: u64) -> &Process {
        let mut nodes = self.ready.nodes.iter();
        nodes
            .find(|node| node.id == id)
            .unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// A node's process, also after [`Cluster::restart`].
    #[track_caller]
    pub(crate) fn pid(&self, id: u64) -> u32 {
        self.restarted
            .get(&id)
            .map_or_else(|| self.node(id).pid, Child::id)
    }

    /// The value of `CATENA_ENDPOINTS`.
    pub(crate) fn endpoints(&self) -> String {
        self.ready.endpoints.join(",")
    }

    /// A command of the binary against this cluster.
    pub(crate) fn command(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = catena();
        command
            .env("CATENA_ENDPOINTS", self.endpoints())
            .args(words);
        command
    }

    /// Runs a command against this cluster to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words), b"")
    }

    /// Runs a command that has to succeed, and gives its one line of JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let words = [words, &["--output", "json"]].concat();
        self.run(&words).ended(0).json()
    }

    /// `catena status` as JSON, or `None` while no node answers.
    pub(crate) fn status(&self) -> Option<Value> {
        let finished = self.run(&["status", "--output", "json"]);
        (finished.status == 0).then(|| finished.json())
    }

    /// The node with a role (`head`, `middle`, `tail`, `solo`) in the chain of a shard.
    #[track_caller]
    pub(crate) fn with_role(&self, shard: u64, role: &str) -> u64 {
        let status = self.status().expect("some node answers");
        let chains = status["chains"].as_array().expect("chains").clone();
        let chain = chains
            .iter()
            .find(|chain| chain["shard"] == shard)
            .expect("the shard's chain");
        let members = chain["members"].as_array().expect("members");
        let member = members.iter().find(|member| member["role"] == role);
        let member = member.unwrap_or_else(|| panic!("nobody is {role} of shard {shard}: {chain}"));
        member["node"].as_u64().expect("a node id")
    }

    /// Kills a node (SIGKILL), and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(&mut self, id: u64) {
        let pid = self.pid(id);
        signal(pid, Signal::KILL);
        if let Some(mut child) = self.restarted.remove(&id) {
            let _ = child.wait();
        }
        wait_until(&format!("node {id} (pid {pid}) is gone"), || !is_alive(pid));
    }

    /// Kills every node (SIGKILL) as near to one moment as signals allow, and waits until all are gone.
    #[track_caller]
    pub(crate) fn kill_all(&mut self) {
        let ids = self.node_ids();
        for id in &ids {
            signal(self.pid(*id), Signal::KILL);
        }
        for id in ids {
            self.kill(id);
        }
    }

    /// The ready-file entry of a master.
    #[track_caller]
    pub(crate) fn master(&self, id: u64) -> &Process {
        let mut masters = self.ready.masters.iter();
        masters
            .find(|master| master.id == id)
            .unwrap_or_else(|| panic!("there is no master {id}"))
    }

    /// Kills a master (SIGKILL), and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill_master(&mut self, id: u64) {
        let restarted = self.masters_restarted.remove(&id);
        let pid = restarted.as_ref().map_or(self.master(id).pid, Child::id);
        signal(pid, Signal::KILL);
        if let Some(mut child) = restarted {
            let _ = child.wait();
        }
        wait_until(&format!("master {id} (pid {pid}) is gone"), || {
            !is_alive(pid)
        });
    }

    /// Runs a killed master's command again. Returns at once.
    #[track_caller]
    pub(crate) fn restart_master(&mut self, id: u64) {
        let child = command_again(self.master(id), &[])
            .spawn()
            .expect("the master's command starts");
        assert!(
            self.masters_restarted.insert(id, child).is_none(),
            "master {id} was started twice"
        );
    }

    /// The master that leads; waits until one does.
    #[track_caller]
    pub(crate) fn leader(&self) -> u64 {
        let mut leader = None;
        wait_until("a master leads", || {
            let status = self.status().unwrap_or(Value::Null);
            let masters = status["masters"].as_array().cloned().unwrap_or_default();
            let found = masters.iter().find(|m| m["role"] == "leader");
            leader = found.and_then(|m| m["id"].as_u64());
            leader.is_some()
        });
        leader.expect("just found")
    }

    /// The nodes' ids.
    pub(crate) fn node_ids(&self) -> Vec<u64> {
        self.ready.nodes.iter().map(|node| node.id).collect()
    }

    /// Waits until a node accepts connections.
    #[track_caller]
    pub(crate) fn wait_listening(&self, id: u64) {
        let addr = &self.node(id).addr;
        wait_until(&format!("node {id} listens"), || {
            std::net::TcpStream::connect(addr).is_ok()
        });
    }

    /// Runs a killed node's command again. Returns at once: wait for what the test needs of it.
    #[track_caller]
    pub(crate) fn restart(&mut self, id: u64) {
        self.restart_changed(id, &[]);
    }

    /// The same, with other values for some of the command's flags.
    #[track_caller]
    pub(crate) fn restart_changed(&mut self, id: u64, changes: &[(&str, &str)]) {
        let child = self
            .changed_command(id, changes)
            .spawn()
            .expect("the node's command starts");
        assert!(
            self.restarted.insert(id, child).is_none(),
            "node {id} was started twice"
        );
    }

    /// The command that starts a node again, its words at the end of its log.
    #[track_caller]
    pub(crate) fn restart_command(&self, id: u64) -> Command {
        self.changed_command(id, &[])
    }

    /// The same, with other values for some of its flags.
    #[track_caller]
    pub(crate) fn changed_command(&self, id: u64, changes: &[(&str, &str)]) -> Command {
        command_again(self.node(id), changes)
    }

    /// Waits until every chain is healthy.
    #[track_caller]
    pub(crate) fn wait_healthy(&self) {
        let mut last = None;
        let healthy = holds_in_time(|| {
            last = self.status();
            let chains = last.as_ref().and_then(|status| status["chains"].as_array());
            chains.is_some_and(|all| {
                !all.is_empty() && all.iter().all(|chain| chain["state"] == "healthy")
            })
        });
        assert!(healthy, "not healthy: {last:#?}\n{}", self.evidence());
    }

    /// The last words of `dev` and of every node, for messages of failed tests.
    pub(crate) fn evidence(&self) -> String {
        let mut text = self.said();
        for node in self.ready.nodes.iter().chain(&self.ready.masters) {
            let log = std::fs::read_to_string(node.dir.with_extension("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(15).collect();
            text += &format!("--- {}\n", node.dir.display());
            for line in lines.iter().rev() {
                text += line;
                text += "\n";
            }
        }
        text
    }

    /// Asks `dev` to stop with a signal, waits for it, and says how it ended.
    #[track_caller]
    pub(crate) fn stop(&mut self, with: Signal) -> ExitStatus {
        signal(self.dev.id(), with);
        let mut ended = None;
        wait_until("dev ends", || {
            ended = self.dev.try_wait().expect("it can be waited for");
            ended.is_some()
        });
        ended.expect("it has ended")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let again = self.restarted.values_mut();
        for child in again.chain(self.masters_restarted.values_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        signal(self.dev.id(), Signal::TERM);
        let ended = holds_in_time(|| !matches!(self.dev.try_wait(), Ok(None)));
        if !ended {
            let _ = self.dev.kill();
            let _ = self.dev.wait();
        }
    }
}

/// The command of a process of the ready file, with other values for some of its flags; its words go to the end of its log.
#[track_caller]
fn command_again(process: &Process, changes: &[(&str, &str)]) -> Command {
    let mut words = process.cmd[1..].to_vec();
    for (flag, value) in changes {
        let at = words.iter().position(|word| word == flag);
        let at = at.unwrap_or_else(|| panic!("the command has no {flag}: {words:?}"));
        words[at + 1] = (*value).to_owned();
    }
    let log = process.dir.with_extension("log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log");
    let mut command = Command::new(&process.cmd[0]);
    command
        .args(&words)
        .arg("--parent-pid")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    command
}

/// Posts nothing to a page of a process, such as a fault switch; the page must take it.
#[track_caller]
pub(crate) fn post(http: &str, page: &str) {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(http).expect("the page's address");
    let request = format!(
        "POST {page} HTTP/1.1\r\nhost: {http}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
}

/// Writes a file into a folder, and gives its path as text.
#[track_caller]
pub(crate) fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("the file can be written");
    path.display().to_string()
}
