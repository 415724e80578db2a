//! The cluster's processes: started, watched, started again, stopped.
//!
//! Children end with their parent, even when it is killed: each asks the kernel
//! for a signal on its parent's death, which is tied to the *thread* that started
//! it. So everything here is called from the main thread and spawns no task.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::exit::{DaemonExit, Failure};

/// How long children may take to leave by themselves, all together.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// First pause before a child is started again; doubled with each death that follows soon.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A child that lived for this long is healthy: its next death starts with the shortest pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How much of a dead child's last words is shown, in bytes.
const LAST_WORDS_BYTES_MAX: u64 = 2_000;

/// One process of the cluster.
#[derive(Debug)]
pub(crate) struct Process {
    /// `node 1`.
    pub(crate) name: String,
    /// The command line that starts it again on its own folder.
    pub(crate) cmd: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    restart_at: Option<Instant>,
}

/// A child that ended without having been asked to.
#[derive(Debug)]
pub(crate) struct Death {
    /// Which one.
    pub(crate) at: usize,
    /// Its process id.
    pub(crate) pid: u32,
    /// How it ended.
    pub(crate) status: ExitStatus,
}

impl Death {
    /// Whether the same start could succeed a moment later: a copy still runs, or an address is still taken.
    pub(crate) fn may_pass(&self) -> bool {
        let statuses = [DaemonExit::AlreadyRunning, DaemonExit::BadConfig];
        let status = self.status.code();
        statuses
            .iter()
            .any(|exit| status == Some(i32::from(*exit as u8)))
    }
}

impl Process {
    /// A process that is not started yet; what it says goes to the end of the file `log`.
    pub(crate) fn new(name: String, cmd: Vec<String>, log: PathBuf) -> Self {
        Self {
            name,
            cmd,
            log,
            child: None,
            started: Instant::now(),
            pause: RESTART_PAUSE_MIN,
            restart_at: None,
        }
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let failed = |why: std::io::Error| {
            Failure::local(
                format!("starting {}", self.name),
                why,
                "check the folder, and the limit of processes",
            )
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;
        let second = log.try_clone().map_err(failed)?;
        let (program, words) = self
            .cmd
            .split_first()
            .ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let child = Command::new(program)
            .args(words)
            // Not part of `cmd`: whoever runs that by hand is another parent.
            .arg("--parent-pid")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            // Ctrl-C goes to us alone; we tell the children in our own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.child = Some(child);
        self.started = Instant::now();
        self.restart_at = None;
        Ok(())
    }

    /// The last lines that it wrote.
    pub(crate) fn last_words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES_MAX)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        let tail = read().unwrap_or_default();
        let lines: Vec<&str> = tail.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self
            .pid()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
        {
            // It may have ended meanwhile; then there is nobody left to tell.
            let _ = kill_process(pid, signal);
        }
    }

    /// Plans its next start; each death that follows soon after a start doubles the pause.
    fn plan_restart(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.started) >= HEALTHY_AFTER {
            self.pause = RESTART_PAUSE_MIN;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(RESTART_PAUSE_MAX);
        self.restart_at = Some(now + pause);
        pause
    }
}

/// What happens to processes that nobody asked for.
#[derive(Debug)]
pub(crate) enum Event {
    /// One ended.
    Death(Death),
    /// One that died before shall be started again now.
    RestartDue(usize),
}

/// Waits for the next event; never returns while all children live.
pub(crate) async fn next_event(processes: &mut [Process]) -> Event {
    let planned = processes
        .iter()
        .enumerate()
        .filter_map(|(at, p)| Some((p.restart_at?, at)));
    match planned.min() {
        None => Event::Death(next_death(processes).await),
        Some((due, at)) => tokio::select! {
            death = next_death(processes) => Event::Death(death),
            () = tokio::time::sleep_until(due) => Event::RestartDue(at),
        },
    }
}

/// Waits until a child ends.
async fn next_death(processes: &mut [Process]) -> Death {
    std::future::poll_fn(|context| {
        for (at, process) in processes.iter_mut().enumerate() {
            let Some(child) = &mut process.child else {
                continue;
            };
            let Some(pid) = child.id() else { continue };
            let polled = std::pin::pin!(child.wait()).poll(context);
            if let Poll::Ready(status) = polled {
                // A child that cannot be waited for is as good as dead.
                let status = status.unwrap_or_default();
                process.child = None;
                return Poll::Ready(Death { at, pid, status });
            }
        }
        Poll::Pending
    })
    .await
}

/// Plans the next start of a child that died; says after which pause.
pub(crate) fn plan_restart(processes: &mut [Process], at: usize) -> Duration {
    processes[at].plan_restart(Instant::now())
}

/// Asks every child to leave, then makes those that do not. None is left when this returns.
pub(crate) async fn stop(processes: &mut [Process], hurry: impl Future<Output = ()>) {
    for process in processes.iter() {
        process.signal(Signal::TERM);
    }
    let everybody = async {
        for process in processes.iter_mut() {
            if let Some(child) = &mut process.child {
                // Either it ended, or there is nothing to wait for.
                let _ = child.wait().await;
            }
        }
    };
    tokio::select! {
        () = everybody => {}
        () = tokio::time::sleep(STOP_TIMEOUT) => {}
        () = hurry => {}
    }
    for process in processes.iter_mut() {
        if let Some(mut child) = process.child.take() {
            let _ = child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_early_death_doubles_the_pause_up_to_a_bound() {
        let mut process = Process::new("x".into(), Vec::new(), PathBuf::new());
        let start = process.started;
        let pauses: Vec<u128> = (0..8)
            .map(|_| process.plan_restart(start).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(
            process.plan_restart(start + HEALTHY_AFTER),
            RESTART_PAUSE_MIN
        );
    }

    #[tokio::test]
    async fn a_death_is_told_with_its_status_and_last_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = "echo one; echo two >&2; exit 7";
        let cmd = ["sh", "-c", script].map(String::from).to_vec();
        let mut processes = [Process::new("x".into(), cmd, dir.path().join("log"))];
        processes[0].start().expect("started");
        let death = next_death(&mut processes).await;
        assert_eq!((death.at, death.status.code()), (0, Some(7)));
        assert_eq!(processes[0].last_words(), "one\ntwo");
        assert_eq!(processes[0].pid(), None);
    }

    #[tokio::test]
    async fn a_child_that_does_not_leave_is_made_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let cmd = ["sh", "-c", script].map(String::from).to_vec();
        let mut processes = [Process::new("x".into(), cmd, dir.path().join("log"))];
        processes[0].start().expect("started");
        while processes[0].last_words() != "ready" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pid = processes[0].pid().expect("it runs");
        stop(&mut processes, std::future::ready(())).await;
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
