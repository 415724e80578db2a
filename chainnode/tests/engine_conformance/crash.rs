//! What a folder holds after a crash, and after a bit of it flipped.
//!
//! A crash is a process that is killed, or a copy of the folder while the engine
//! is open: what the process had not handed to the operating system is not in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use catena_chainnode::engine::{Engine, EngineError, EngineKind, Progress};
use catena_proto::config::KeyRange;
use tempfile::TempDir;

use crate::folder::{
    EVERYTHING, QUIET, SHARD, batch, has_disk, key, new_engine, new_engine_with, page_of, progress,
    put, row, try_open,
};

const KEYS: u64 = 40;

/// Batch `seq` writes the keys that its number picks, so each prefix of the batches leaves other rows.
fn written_by(seq: u64) -> impl Iterator<Item = u64> {
    (0..KEYS).filter(move |no| no % 4 == seq % 4 || no % 7 == seq % 7)
}

fn apply_up_to(engine: &dyn Engine, from: u64, to: u64) {
    for seq in from..=to {
        let rows = written_by(seq).map(|no| put(&key(no), seq)).collect();
        engine.apply(SHARD, batch(rows, seq)).expect("a batch");
    }
}

/// Whether the rows are those of the batches up to `applied`; says what differs.
fn fits(engine: &dyn Engine, applied: u64) -> Result<(), String> {
    let found = page_of(engine, &KeyRange::all(), EVERYTHING, false).rows;
    let newest = |no| {
        (1..=applied)
            .rev()
            .find(|seq| written_by(*seq).any(|n| n == no))
    };
    let expected: Vec<_> = (0..KEYS)
        .filter_map(|no| Some((key(no), row(&key(no), newest(no)?))))
        .collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!(
            "the rows are not those of seq {applied}: {found:?}"
        ))
    }
}

fn applied(engine: &dyn Engine) -> u64 {
    let view = engine.view().expect("a view");
    let found = view.progress(SHARD).expect("progress");
    let applied = found.applied.get();
    let expected = if applied == 0 {
        Progress::default()
    } else {
        progress(applied)
    };
    assert_eq!(found, expected);
    applied
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

fn copy_of(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in files(dir) {
        let to = copy
            .path()
            .join(file.strip_prefix(dir).expect("a file of the folder"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        // Sparse files stay sparse: a journal is mostly a hole.
        let bytes = fs::read(&file).expect("a file");
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        fs::write(&to, &bytes[..end]).expect("a copy");
        let copied = fs::OpenOptions::new()
            .write(true)
            .open(&to)
            .expect("the copy");
        copied.set_len(bytes.len() as u64).expect("its length");
    }
    copy
}

/// What was flushed is there after the crash; the model test covers orderly restarts.
pub(crate) fn a_flushed_folder_keeps_everything(kind: EngineKind) {
    if !has_disk(kind) {
        return;
    }
    let (dir, engine) = new_engine_with(kind, QUIET);
    for to in [1, 7, 60] {
        apply_up_to(&*engine, applied(&*engine) + 1, to);
        engine.flush().expect("a flush");
        let copy = copy_of(dir.path());
        let copied = try_open(kind, copy.path()).expect("the copy opens");
        assert_eq!(applied(&*copied), to);
        fits(&*copied, to).expect("all rows");
    }
}

/// Without a flush some prefix is there, whole, and no shorter than the last flush.
pub(crate) fn a_crash_keeps_a_prefix_that_fits_its_progress(kind: EngineKind) {
    if !has_disk(kind) {
        return;
    }
    let (dir, engine) = new_engine_with(kind, QUIET);
    apply_up_to(&*engine, 1, 20);
    engine.flush().expect("a flush");
    for to in [21, 23, 30, 90] {
        apply_up_to(&*engine, applied(&*engine) + 1, to);
        let copy = copy_of(dir.path());
        let copied = try_open(kind, copy.path()).expect("the copy opens");
        let found = applied(&*copied);
        assert!(
            (20..=to).contains(&found),
            "{found} is not within 20..={to}"
        );
        fits(&*copied, found).expect("the rows fit the progress");
        // The log is replayed onto it.
        apply_up_to(&*copied, found + 1, to + 5);
        fits(&*copied, to + 5).expect("all rows");
    }
}

/// The variables that make [`write_until_killed`] write: the engine's name and its folder.
const WRITER: [&str; 2] = ["CATENA_TEST_ENGINE", "CATENA_TEST_DIR"];

/// The process that [`a_killed_process_keeps_a_prefix`] starts and kills.
pub(crate) fn write_until_killed() {
    let [Ok(kind), Ok(dir)] = WRITER.map(std::env::var) else {
        return;
    };
    let kind = kind.parse().expect("an engine");
    let engine = try_open(kind, Path::new(&dir)).expect("it opens");
    let mut seq = applied(&*engine);
    loop {
        apply_up_to(&*engine, seq + 1, seq + 50);
        seq += 50;
        println!("\napplied {seq}");
        if seq.is_multiple_of(200) {
            engine.flush().expect("a flush");
            println!("\nflushed {seq}");
        }
    }
}

/// Killed in the middle of writing, flushing and compacting: a whole prefix, no shorter than the last flush.
pub(crate) fn a_killed_process_keeps_a_prefix(kind: EngineKind) {
    if !has_disk(kind) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut found = 0;
    for round in 0..6 {
        let mut writer = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "write_until_killed", "--ignored", "--nocapture"])
            .envs(
                WRITER
                    .into_iter()
                    .zip([kind.as_str(), dir.path().to_str().expect("a path")]),
            )
            .stdout(Stdio::piped())
            .spawn()
            .expect("the writer starts");
        let until = found + 150 + 170 * round;
        let (mut told, mut flushed) = (0, 0);
        let mut lines = BufReader::new(writer.stdout.take().expect("its output")).lines();
        while told < until {
            let line = lines.next().expect("the writer goes on").expect("text");
            match line
                .split_once(' ')
                .map(|(what, seq)| (what, seq.parse::<u64>()))
            {
                Some(("applied", Ok(seq))) => told = seq,
                Some(("flushed", Ok(seq))) => flushed = seq,
                _ => {}
            }
        }
        writer.kill().expect("the writer is killed");
        writer.wait().expect("the writer is gone");
        let engine = try_open(kind, dir.path()).expect("it opens after a kill");
        let before = found;
        found = applied(&*engine);
        assert!(
            found >= before.max(flushed),
            "{found} after {before}, flushed {flushed}"
        );
        fits(&*engine, found).expect("the rows fit the progress");
    }
}

/// What happened to a copy whose files were hurt.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// It did not open, and said so.
    Refused,
    /// It opened, and a read said that something is damaged.
    Damaged,
    /// It opened with the rows of some prefix.
    Prefix(u64),
}

fn open_hurt(kind: EngineKind, dir: &Path) -> After {
    let engine = match try_open(kind, dir) {
        Ok(engine) => engine,
        Err(EngineError::Damaged { .. }) => return After::Damaged,
        Err(_) => return After::Refused,
    };
    let read = || -> Result<u64, EngineError> {
        let view = engine.view()?;
        let applied = view.progress(SHARD)?.applied.get();
        view.page(&KeyRange::all(), EVERYTHING, false)?;
        view.page(&KeyRange::all(), EVERYTHING, true)?;
        for no in 0..KEYS {
            // A damaged row is an error, not another row, whichever way it is read.
            view.get(&key(no))?;
        }
        Ok(applied)
    };
    match read() {
        Err(EngineError::Damaged { .. }) => After::Damaged,
        Err(error) => panic!("{kind}: a hurt file stops the node: {error}"),
        Ok(applied) => {
            fits(&*engine, applied).expect("the rows fit the progress");
            After::Prefix(applied)
        }
    }
}

/// sled panics on some hurt files where the others return an error; the process ends, as it would with one.
fn open_hurt_or_panic(kind: EngineKind, dir: &Path) -> After {
    match catch_unwind(AssertUnwindSafe(|| open_hurt(kind, dir))) {
        Ok(after) => after,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            assert!(
                kind == EngineKind::Sled && !said.contains("the rows"),
                "{kind}: {said}"
            );
            After::Refused
        }
    }
}

/// Numbers that are spread well and the same in each run.
fn spread(no: u64) -> u64 {
    let mixed = (no + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

/// A write that was under way at a power cut: the newest file's end is missing.
pub(crate) fn a_torn_file_keeps_a_prefix_or_does_not_open(kind: EngineKind) {
    // sled's one file is not only appended to, so cutting it is no picture of a crash.
    if kind != EngineKind::Fjall {
        return;
    }
    let (dir, engine) = new_engine_with(kind, QUIET);
    apply_up_to(&*engine, 1, 12);
    engine.flush().expect("a flush");
    let is_journal = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "jnl");
    let whole = copy_of(dir.path());
    let mut prefixes = Vec::new();
    for cut in 0..40 {
        let copy = copy_of(whole.path());
        let journal = files(copy.path())
            .into_iter()
            .find(is_journal)
            .expect("a journal");
        let bytes = fs::read(&journal).expect("the journal");
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let kept = usize::try_from(spread(cut)).expect("64 bits") % end;
        fs::write(&journal, &bytes[..kept]).expect("a cut journal");
        if let After::Prefix(applied) = open_hurt(kind, copy.path()) {
            prefixes.push(applied);
        } else {
            panic!("a journal without its end opens");
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    assert!(
        prefixes.len() > 6,
        "the cuts fell on different batches: {prefixes:?}"
    );
}

/// One flipped bit anywhere: a refusal, an error, or a right answer; never a wrong one.
pub(crate) fn a_flipped_bit_is_never_read(kind: EngineKind) {
    if !has_disk(kind) {
        return;
    }
    let (dir, engine) = new_engine(kind);
    // Some rows end up in tables, the newest only in the journal.
    apply_up_to(&*engine, 1, 120);
    engine.flush().expect("a flush");
    drop(engine);
    let whole = copy_of(dir.path());
    let mut outcomes = Vec::new();
    for flip in 0..60 {
        let copy = copy_of(whole.path());
        let hurt = files(copy.path());
        let mut written: Vec<(PathBuf, Vec<u8>)> = hurt
            .into_iter()
            .map(|file| {
                let bytes = fs::read(&file).expect("a file");
                (file, bytes)
            })
            .filter(|(_, bytes)| bytes.iter().any(|b| *b != 0))
            .collect();
        let which = usize::try_from(spread(flip)).expect("64 bits") % written.len();
        let (file, bytes) = &mut written[which];
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let bit = usize::try_from(spread(1000 + flip)).expect("64 bits") % (end * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&*file, &*bytes).expect("a hurt file");
        let hurt = file.strip_prefix(copy.path()).unwrap_or(file).to_owned();
        let after = catch_unwind(AssertUnwindSafe(|| open_hurt_or_panic(kind, copy.path())));
        outcomes.push(after.unwrap_or_else(|_| {
            // What it said is above; this says how to look at it again.
            panic!(
                "{kind}: bit {bit} of {}, flip {flip}: a wrong row is served",
                hurt.display()
            )
        }));
    }
    let noticed = outcomes
        .iter()
        .filter(|after| !matches!(after, After::Prefix(_)));
    assert!(
        noticed.count() > 5,
        "the flips hit nothing that is read: {outcomes:?}"
    );
}

/// Every byte that says which tables there are: without one of them all the rest is valid, and old.
///
/// lsm-tree 3.1 writes a checksum of it and does not look at it; random flips met that once in thirty runs.
pub(crate) fn a_hurt_list_of_tables_is_refused(kind: EngineKind) {
    if kind != EngineKind::Fjall {
        return;
    }
    let (dir, engine) = new_engine(kind);
    apply_up_to(&*engine, 1, 120);
    engine.flush().expect("a flush");
    drop(engine);
    let whole = copy_of(dir.path());
    assert_eq!(
        open_hurt(kind, copy_of(whole.path()).path()),
        After::Prefix(120)
    );
    let mut hurt = 0;
    for keyspace in fs::read_dir(whole.path().join("fjall/keyspaces")).expect("keyspaces") {
        let keyspace = keyspace.expect("an entry").path();
        let current = fs::read(keyspace.join("current")).expect("which list counts");
        let list = format!(
            "v{}",
            u64::from_le_bytes(current[..8].try_into().expect("8 bytes"))
        );
        for name in ["current", list.as_str()] {
            let bytes = fs::read(keyspace.join(name)).expect("a file");
            for at in 0..bytes.len() {
                let copy = copy_of(whole.path());
                let place = copy
                    .path()
                    .join(keyspace.strip_prefix(whole.path()).expect("inside"));
                let mut bad = bytes.clone();
                bad[at] ^= 1 << (at % 8);
                fs::write(place.join(name), &bad).expect("a hurt file");
                let after = catch_unwind(AssertUnwindSafe(|| open_hurt(kind, copy.path())));
                // The byte that names the kind of checksum says nothing about tables.
                let harmless = matches!(after, Ok(After::Prefix(120)));
                let refused = matches!(after, Ok(After::Refused | After::Damaged));
                assert!(
                    refused || harmless,
                    "byte {at} of {name} in {}",
                    keyspace.display()
                );
                hurt += usize::from(refused);
            }
        }
        // The list is gone, and the tables are there: not a new keyspace.
        let copy = copy_of(whole.path());
        let place = copy
            .path()
            .join(keyspace.strip_prefix(whole.path()).expect("inside"));
        fs::remove_file(place.join("current")).expect("removed");
        assert_eq!(open_hurt(kind, copy.path()), After::Refused);
    }
    assert!(hurt > 100, "{hurt} of the flips were refused");
}

/// Two processes never share a folder.
pub(crate) fn a_folder_has_one_user(kind: EngineKind) {
    if !has_disk(kind) {
        return;
    }
    let (dir, engine) = new_engine(kind);
    let second = try_open(kind, dir.path())
        .err()
        .expect("the folder is in use");
    assert!(
        matches!(second, EngineError::Failed { what: "open", .. }),
        "{second}"
    );
    drop(engine);
    try_open(kind, dir.path()).expect("the folder is free again");
}
