//! What a write and a read cost on each engine, for `docs/decisions/010-engine.md`.
//!
//! ```text
//! cargo run --release -p catena-chainnode --example engine_speed -- fjall 1000000 100
//! ```
//!
//! Writes go in batches of 256 random keys without a flush, as a replica's do;
//! then come random point reads, pages of 100 rows, one flush and one reopening.
//! CPU is the whole process's, the engine's own threads included.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example that measures: it reads clocks and folders, and prints"
)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use catena_chainnode::engine::open::open;
use catena_chainnode::engine::{
    Batch, EngineKind, EngineOptions, PageLimit, Progress, RowChange, SessionRowChange, SlotRow,
    StoredRow,
};
use catena_proto::config::KeyRange;
use catena_proto::ids::{RequestNo, Seq, SessionId, ShardId, SlotNo};
use catena_proto::op::Outcome;

const SHARD: ShardId = ShardId::new(1);
const BATCH_ROWS: u64 = 256;
const SLOTS: u64 = 64;

/// A small generator (xorshift64*), so that every run asks for the same keys.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

fn key(no: u64) -> Bytes {
    Bytes::from(format!("key-{no:012}"))
}

/// Microseconds of CPU that this process has used.
fn cpu_us() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat
        .rsplit_once(')')
        .ok_or("no name in the process's status")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() * 10_000)
}

/// Mebibytes of memory at the highest.
fn peak_mib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib
        .ok_or("no peak in the process's status")?
        .parse::<u64>()?
        / 1024)
}

/// Mebibytes that a folder occupies.
fn disk_mib(dir: &Path) -> Result<u64, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut blocks = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                blocks += entry.metadata()?.blocks();
            }
        }
    }
    Ok((blocks * 512) >> 20)
}

/// Runs `work` for `count` operations and prints what one costs.
fn measured(
    what: &str,
    count: u64,
    work: impl FnOnce() -> Result<u64, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (start, cpu) = (Instant::now(), cpu_us()?);
    let touched = work()?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    let cpu = (cpu_us()? - cpu) as f64 / count as f64;
    println!(
        "  {what:8} {rate:>9.0}/s  {cpu:>6.2} µs CPU each  ({touched} touched, {seconds:.2} s)"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, rows, value_bytes] = &arguments[..] else {
        return Err("usage: engine_speed fjall|sled|memory ROWS VALUE_BYTES".into());
    };
    let kind: EngineKind = kind.parse()?;
    let rows: u64 = rows.parse()?;
    let value_bytes: usize = value_bytes.parse()?;
    let dir = tempfile::tempdir()?;
    let options = EngineOptions::default();
    let mut engine = open(kind, dir.path(), options)?;
    let mut numbers = Numbers(7);
    println!("{kind}, {rows} rows of {value_bytes} bytes:");

    measured("write", rows, || {
        let mut seq = 0;
        for _ in 0..rows / BATCH_ROWS {
            let mut batch = Batch::default();
            let mut keys = std::collections::BTreeSet::new();
            for _ in 0..BATCH_ROWS {
                seq += 1;
                let no = numbers.below(rows);
                if !keys.insert(no) {
                    continue;
                }
                let mut value = vec![0; value_bytes];
                for bytes in value.chunks_mut(8) {
                    let random = numbers.below(u64::MAX).to_le_bytes();
                    bytes.copy_from_slice(&random[..bytes.len()]);
                }
                let row = StoredRow {
                    value: value.into(),
                    version: Seq::new(seq),
                    expires: None,
                };
                batch.rows.push(RowChange {
                    key: key(no),
                    row: Some(row),
                    seq: Seq::new(seq),
                });
            }
            // One client with 64 requests under way: its slots are overwritten batch by batch.
            for slot in 0..SLOTS {
                batch.sessions.push(SessionRowChange::Slot(SlotRow {
                    session: SessionId::new(1),
                    slot: SlotNo::new(u16::try_from(slot)?),
                    no: RequestNo::new(seq),
                    seq: Seq::new(seq),
                    outcome: Outcome::Written {
                        version: Seq::new(seq),
                    },
                }));
            }
            batch.progress = Progress {
                applied: Seq::new(seq),
                ..Progress::default()
            };
            engine.apply(SHARD, batch)?;
        }
        Ok(seq)
    })?;
    let start = Instant::now();
    engine.flush()?;
    let (disk, peak) = (disk_mib(dir.path())?, peak_mib()?);
    let data = (rows * (16 + value_bytes as u64)) >> 20;
    println!(
        "  flush {:.3} s, disk {disk} MiB for {data} MiB written, peak memory {peak} MiB",
        start.elapsed().as_secs_f64()
    );
    let mut read = |what: &str| {
        measured(what, rows, || {
            let mut found = 0;
            for _ in 0..rows {
                found += u64::from(engine.get(&key(numbers.below(rows)))?.is_some());
            }
            Ok(found)
        })
    };
    read("get")?;
    read("get again")?;
    measured("page 100", 5000, || {
        let mut found = 0;
        for _ in 0..5000 {
            let range = KeyRange {
                start: key(numbers.below(rows)),
                end: None,
            };
            let limit = PageLimit {
                rows: 100,
                bytes: 1 << 20,
            };
            let page = engine.view()?.page(&range, limit, false)?;
            found += page.rows.len() as u64;
        }
        Ok(found)
    })?;
    if kind != EngineKind::Memory {
        drop(engine);
        let start = Instant::now();
        engine = open(kind, dir.path(), options)?;
        let applied = engine.view()?.progress(SHARD)?.applied;
        println!(
            "  reopen {:.2} s, at seq {applied}",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
