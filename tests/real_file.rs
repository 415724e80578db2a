//! A real file of 100,000 lines and more: loaded through the SDK over two
//! chains, read back whole by one scan, byte for byte, also after every node died.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests read files of the machine and drive processes"
)]

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use catena_client::{Client, Error, Options, ScanRange};
use harness::{Cluster, PATIENCE, require};
use tokio::runtime::Runtime;

const LINES_MIN: usize = 100_000;
/// A longer file is cut here: more lines take time and show nothing new.
const LINES_MAX: usize = 120_000;
/// Writers at once.
const WRITERS: usize = 64;
/// The longest line that is loaded; longer ones are some binary's.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Where a machine with Debian and Rust keeps many lines, the most file-like first.
const SOURCES: &[fn() -> Vec<u8>] = &[word_list, package_indexes, installed_files, crate_sources];

fn word_list() -> Vec<u8> {
    let names = ["words", "american-english", "british-english"];
    let lists = names.map(|name| Path::new("/usr/share/dict").join(name));
    let mut files = lists
        .into_iter()
        .filter_map(|path| std::fs::read(path).ok());
    files.next().unwrap_or_default()
}

/// Debian's package indexes, which apt keeps packed or plain; its helper reads both.
fn package_indexes() -> Vec<u8> {
    let mut files = files_below(Path::new("/var/lib/apt/lists"), 0);
    files.retain(|path| path.to_string_lossy().contains("_Packages"));
    files.sort_by_key(|path| {
        let bytes = path.metadata().map_or(0, |found| found.len());
        std::cmp::Reverse(bytes)
    });
    gather(&files, |path| {
        let unpacked = Command::new("/usr/lib/apt/apt-helper")
            .arg("cat-file")
            .arg(path)
            .stderr(Stdio::null())
            .output();
        unpacked.map_or_else(|_| Vec::new(), |output| output.stdout)
    })
}

/// The lists of what Debian's packages have installed.
fn installed_files() -> Vec<u8> {
    let mut files = files_below(Path::new("/var/lib/dpkg/info"), 0);
    files.retain(|path| path.extension().is_some_and(|end| end == "list"));
    gather(&files, |path| std::fs::read(path).unwrap_or_default())
}

/// The sources of the crates that this very test was compiled from.
fn crate_sources() -> Vec<u8> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let Some(home) = home else {
        return Vec::new();
    };
    let mut files = files_below(&home.join("registry/src"), 8);
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    gather(&files, |path| std::fs::read(path).unwrap_or_default())
}

/// The files in a folder, and in folders below it down to `depth`.
fn files_below(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 0 => {
                found.extend(files_below(&entry.path(), depth - 1));
            }
            _ => {}
        }
    }
    found.sort();
    found
}

/// Reads one file after the other until there are lines enough.
fn gather(files: &[PathBuf], read: impl Fn(&Path) -> Vec<u8>) -> Vec<u8> {
    let (mut bytes, mut lines) = (Vec::new(), 0);
    for path in files {
        let more = read(path);
        lines += more.split(|byte| *byte == b'\n').count();
        bytes.extend(more);
        if lines > LINES_MAX {
            break;
        }
    }
    bytes
}

/// The lines of the first source that has enough of them, each with its line end.
fn real_lines() -> Option<Vec<Vec<u8>>> {
    SOURCES.iter().find_map(|source| {
        let bytes = source();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let lines: Vec<Vec<u8>> = lines
            .filter(|line| line.len() <= LINE_BYTES_MAX)
            .take(LINES_MAX)
            .map(<[u8]>::to_vec)
            .collect();
        (lines.len() >= LINES_MIN).then_some(lines)
    })
}

fn key(line: usize) -> String {
    format!("line/{line:08}")
}

async fn load(client: &Client, lines: &Arc<Vec<Vec<u8>>>) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, lines) = (client.clone(), Arc::clone(lines));
            tokio::spawn(async move {
                for line in (writer..lines.len()).step_by(WRITERS) {
                    let put = client.put(key(line), lines[line].clone()).await;
                    put.unwrap_or_else(|why| panic!("line {line}: {why}"));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer that ends");
    }
}

/// The whole file, as one scan finds it, and the number of its lines.
async fn read_back(client: &Client) -> Result<(Vec<u8>, usize), Error> {
    let (mut bytes, mut lines) = (Vec::new(), 0);
    let mut scan = client.scan(ScanRange::prefix("line/"));
    while let Some(row) = scan.next().await? {
        assert_eq!(row.key, key(lines).as_bytes());
        bytes.extend_from_slice(&row.value);
        lines += 1;
    }
    Ok((bytes, lines))
}

#[track_caller]
fn assert_equal(found: Result<(Vec<u8>, usize), Error>, lines: &[Vec<u8>]) {
    let (bytes, count) = found.expect("the file is read back");
    assert_eq!(count, lines.len());
    // Not `assert_eq`: nobody wants to read two files in a failure.
    assert!(bytes == lines.concat(), "the file came back changed");
}

#[test]
fn a_real_file_comes_back_byte_for_byte_also_after_every_node_died() {
    let Some(lines) = real_lines() else {
        require::skip(
            "real-file",
            "neither a word list, package indexes, dpkg's lists nor crate sources have 100,000 lines",
        );
        return;
    };
    let lines = Arc::new(lines);
    let mut cluster = Cluster::start(&["--split-keys", "line/00050000"]);
    let runtime = Runtime::new().expect("a runtime");
    let options = Options {
        timeout: PATIENCE,
        ..Options::default()
    };
    let connect = Client::connect(cluster.ready().endpoints.clone(), options);
    let client = runtime.block_on(connect).expect("a cluster");
    runtime.block_on(load(&client, &lines));
    assert_equal(runtime.block_on(read_back(&client)), &lines);

    cluster.kill_all();
    for id in cluster.node_ids() {
        cluster.restart(id);
    }
    cluster.wait_healthy();
    assert_equal(runtime.block_on(read_back(&client)), &lines);
}
