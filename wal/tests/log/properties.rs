//! Properties over random histories: crashes lose only what was not synced; damage is never silent, never
//! returned as data, and can be repaired from.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Seq, ShardId};
use catena_wal::{Entry, Fault, Log, Recovered, SimDisk, Tail};
use proptest::prelude::*;

use crate::kit::{Dice, FIRST, cut, group, offset, open, put, read, reset, segments};

const SHARDS: u64 = 3;

#[derive(Clone, Debug)]
enum Change {
    /// Shard, count of records, bytes.
    Append(u64, u64, usize),
    /// Shard, how far back.
    Cut(u64, u64),
    /// Shard, how far ahead.
    Reset(u64, u64),
    Meta(u64, u8),
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Change>),
    Sync,
    /// The system writes some of what is dirty.
    WriteBack(u64),
    /// Power is lost.
    Crash(u64),
    /// The process dies; the page cache lives.
    Restart,
    /// Up to how many percent of each shard's log is not needed.
    Trim(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0..SHARDS, 1..5_u64, 1..1200_usize).prop_map(|(s, n, len)| Change::Append(s, n, len)),
        2 => (0..SHARDS, 0..6_u64).prop_map(|(s, back)| Change::Cut(s, back)),
        1 => (0..SHARDS, 0..9_u64).prop_map(|(s, ahead)| Change::Reset(s, ahead)),
        2 => (0..SHARDS, any::<u8>()).prop_map(|(s, m)| Change::Meta(s, m)),
    ]
}

fn batch() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => batch().prop_map(Step::Batch),
        4 => Just(Step::Sync),
        2 => any::<u64>().prop_map(Step::WriteBack),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Restart),
        2 => (0..=100_u64).prop_map(Step::Trim),
    ]
}

/// A shard as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shard {
    /// (first, last, fill).
    groups: Vec<(u64, u64, u8)>,
    meta: Option<u8>,
    generation: u64,
    end: u64,
    /// A trim may have taken records up to here.
    may_start: u64,
}

/// All shards, and every group that was ever appended.
#[derive(Clone, Debug, Default)]
struct Model {
    shards: BTreeMap<u64, Shard>,
    ever: BTreeSet<(u64, u64, u64, u8)>,
    fill: u8,
}

impl Model {
    fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|s| (s, Shard::default())).collect(),
            ..Self::default()
        }
    }

    /// Applies a change; the entry that says so.
    fn change(&mut self, change: &Change, log: &Log<SimDisk>) -> Entry {
        let (Change::Append(no, ..)
        | Change::Cut(no, ..)
        | Change::Reset(no, ..)
        | Change::Meta(no, ..)) = change;
        let id = ShardId::new(*no);
        let shard = self.shards.get_mut(no).expect("a shard");
        match change {
            Change::Append(_, count, len) => {
                self.fill = self.fill.wrapping_add(1);
                let (first, last) = (shard.end + 1, shard.end + count);
                shard.groups.push((first, last, self.fill));
                shard.end = last;
                self.ever.insert((*no, first, last, self.fill));
                group(id, first, last, self.fill, *len)
            }
            Change::Cut(_, back) => {
                let start = log.range(id).map_or(0, |(start, _)| start.get());
                let after = shard.end.saturating_sub(*back).max(start).min(shard.end);
                shard.generation += 1;
                shard.cut(after);
                cut(id, after, shard.generation)
            }
            Change::Reset(_, ahead) => {
                shard.generation += 1;
                shard.end += ahead;
                shard.may_start = shard.end;
                shard.groups.clear();
                reset(id, shard.end, shard.generation)
            }
            Change::Meta(_, m) => {
                shard.meta = Some(*m);
                let blob = Bytes::from(vec![*m]);
                Entry::Meta { shard: id, blob }
            }
        }
    }
}

impl Shard {
    fn cut(&mut self, after: u64) {
        self.groups.retain(|g| g.0 <= after);
        if let Some(last) = self.groups.last_mut() {
            last.1 = last.1.min(after);
        }
        self.end = after;
        self.may_start = self.may_start.min(after);
    }
}

/// Whether a shard of the log is what the model says.
fn shard_is(log: &Log<SimDisk>, recovered: Option<&Recovered>, no: u64, shard: &Shard) -> bool {
    let id = ShardId::new(no);
    let Some((start, end)) = log.range(id) else {
        return *shard == Shard::default();
    };
    let held: Vec<_> = shard
        .groups
        .iter()
        .copied()
        .filter(|g| g.1 > start.get())
        .collect();
    let told = recovered.is_none_or(|recovered| {
        let found = recovered.shards.get(&id).cloned().unwrap_or_default();
        found.meta.map(|b| b[0]) == shard.meta
            && found.generation == LogGeneration::new(shard.generation)
            && (found.start, found.end) == (start, end)
    });
    told && end.get() == shard.end && start.get() <= shard.may_start && read(log, id) == held
}

fn is(log: &Log<SimDisk>, recovered: Option<&Recovered>, model: &Model) -> bool {
    model
        .shards
        .iter()
        .all(|(no, shard)| shard_is(log, recovered, *no, shard))
}

/// Trims; the model notes what may be gone.
fn trim(log: &mut Log<SimDisk>, model: &mut Model, percent: u64) {
    for shard in model.shards.values_mut() {
        shard.may_start = shard.may_start.max(shard.end * percent / 100);
    }
    let floor = |id: ShardId| Seq::new(model.shards[&id.get()].end * percent / 100);
    log.trim(floor).expect("trimmed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever was appended, synced, cut, reset, trimmed and lost: after a crash the log is as it was at some
    /// moment between the last sync and the crash, no shard is called damaged, and it goes on.
    #[test]
    fn recovery_is_a_prefix_with_all_that_was_synced(steps in prop::collection::vec(step(), 1..50)) {
        let (mut log, _) = open(SimDisk::default());
        let mut now = Model::new();
        // Every state since the last sync, entry by entry: one of them must come back.
        let mut possible = vec![now.clone()];
        for step in steps {
            match step {
                Step::Batch(changes) => {
                    let mut entries = Vec::new();
                    for change in &changes {
                        entries.push(now.change(change, &log));
                        possible.push(now.clone());
                    }
                    log.append(&entries).expect("appended");
                }
                Step::Sync => {
                    log.sync().expect("synced");
                    possible = vec![now.clone()];
                }
                Step::WriteBack(seed) => {
                    let mut dice = Dice::new(seed);
                    log.disk_mut().write_back(|| dice.coin());
                }
                Step::Trim(percent) => {
                    log.sync().expect("synced");
                    trim(&mut log, &mut now, percent);
                    possible = vec![now.clone()];
                }
                Step::Restart => {
                    let (reopened, recovered) = open(log.into_disk());
                    log = reopened;
                    prop_assert!(recovered.shards.values().all(|s| s.damage.is_none()), "{:?}", recovered);
                    prop_assert_eq!(recovered.tail, Tail::Clean);
                    prop_assert!(is(&log, Some(&recovered), &now), "{:?} is not {:?}", recovered, now);
                    possible = vec![now.clone()];
                }
                Step::Crash(seed) => {
                    let mut dice = Dice::new(seed);
                    let mut disk = log.into_disk();
                    disk.crash(|| dice.coin());
                    let (reopened, recovered) = open(disk);
                    log = reopened;
                    prop_assert!(recovered.shards.values().all(|s| s.damage.is_none()), "{:?}", recovered);
                    let back = possible.iter().rev().find(|m| is(&log, Some(&recovered), m)).cloned();
                    prop_assert!(back.is_some(), "no moment since the last sync looks like {:?}", recovered);
                    now = back.expect("just checked");
                    possible = vec![now.clone()];
                }
            }
            prop_assert!(is(&log, None, &now));
        }
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Flip { place: u64, bit: u8 },
    Wipe { place: u64, len: u64 },
    LostWrite { batch: usize },
    Misplace { batch: usize, by: i64 },
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<u64>(), 0..8_u8).prop_map(|(place, bit)| Harm::Flip { place, bit }),
        2 => (any::<u64>(), 1..1500_u64).prop_map(|(place, len)| Harm::Wipe { place, len }),
        1 => (0..20_usize).prop_map(|batch| Harm::LostWrite { batch }),
        1 => (0..20_usize, -3000..-1_i64).prop_map(|(batch, by)| Harm::Misplace { batch, by }),
    ]
}

/// Where the harm strikes, as (file, offset): anywhere in what was written.
fn place(log: &mut Log<SimDisk>, place: u64) -> (String, u64) {
    let files = segments(log.disk_mut());
    let written = offset(log);
    let whole = u64::from(crate::kit::SEGMENT);
    let all = (files.len() as u64 - 1) * whole + written;
    let at = place % all;
    (files[(at / whole) as usize].clone(), at % whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// One thing goes wrong in what was synced. A shard that is not called damaged is whole; of one that is,
    /// nothing is made up; and once the replicas have answered, the log is sound for ever, also when it is trimmed.
    #[test]
    fn damage_is_never_silent_and_can_be_repaired_from(
        batches in prop::collection::vec(batch(), 2..20),
        harm in harm(),
        more in prop::collection::vec(batch(), 1..20),
    ) {
        let (mut log, _) = open(SimDisk::default());
        let mut now = Model::new();
        let mut before_last = now.clone();
        let mut last_at = (String::new(), FIRST);
        for (i, changes) in batches.iter().enumerate() {
            before_last = now.clone();
            let files = segments(log.disk_mut());
            last_at = (files.last().expect("one").clone(), offset(&log));
            let entries: Vec<Entry> = changes.iter().map(|c| now.change(c, &log)).collect();
            match harm {
                Harm::LostWrite { batch } if batch == i => log.disk_mut().inject(Fault::LostWrite),
                Harm::Misplace { batch, by } if batch == i => log.disk_mut().inject(Fault::Misplace(by)),
                _ => {}
            }
            if log.append(&entries).is_err() {
                // A misplaced write beyond the file's end is a failed one: the process stops.
                return Ok(());
            }
            put(&mut log, &[]);
        }
        // The log is idle: what is durable is said.
        log.mark().expect("marked");
        let mut hit_the_end = false;
        match harm {
            Harm::Flip { place: p, bit } => {
                let (file, at) = place(&mut log, p);
                log.disk_mut().flip(&file, at, bit);
            }
            Harm::Wipe { place: p, len } => {
                let (file, at) = place(&mut log, p);
                log.disk_mut().wipe(&file, at, len);
                // What reaches to the end takes the witness along.
                hit_the_end = (file, at + len) >= last_at;
            }
            Harm::LostWrite { .. } | Harm::Misplace { .. } => {}
        }
        let (reopened, recovered) = open(log.into_disk());
        log = reopened;
        for (no, shard) in &now.shards {
            let id = ShardId::new(*no);
            let Some(found) = recovered.shards.get(&id).cloned() else {
                // All of it was lost at once: no frame is left that names it.
                let blank = *shard == Shard::default();
                prop_assert!(blank || recovered.hole.is_some() || recovered.tail != Tail::Clean || hit_the_end);
                continue;
            };
            for (first, valid, fill) in read(&log, id) {
                let real = now.ever.range((*no, first, 0, 0)..(*no, first + 1, 0, 0));
                let real = real.copied().any(|(_, _, last, f)| valid <= last && f == fill);
                prop_assert!(real, "{first}..={valid} of {no} was never appended");
            }
            let whole = shard_is(&log, Some(&recovered), *no, shard);
            let older = shard_is(&log, Some(&recovered), *no, &before_last.shards[no]);
            prop_assert!(
                found.damage.is_some() || whole || older && recovered.tail != Tail::Clean || hit_the_end,
                "shard {no} is called whole: {found:?}, and should be {shard:?}"
            );
        }
        // The replicas answer, as the real ones do: they cut, and say in their metadata that they are unsynced.
        for no in 0..SHARDS {
            let id = ShardId::new(no);
            let found = recovered.shards.get(&id).cloned().unwrap_or_default();
            let shard = now.shards.get_mut(&no).expect("a shard");
            *shard = Shard {
                groups: read(&log, id),
                meta: found.meta.map(|b| b[0]),
                generation: found.generation.get(),
                end: found.end.get(),
                may_start: found.start.get(),
            };
            if found.damage.is_some() {
                shard.generation += 1;
                shard.meta = Some(99);
                let blob = Bytes::from_static(&[99]);
                put(&mut log, &[cut(id, shard.end, shard.generation), Entry::Meta { shard: id, blob }]);
            }
        }
        for (i, changes) in more.iter().enumerate() {
            let entries: Vec<Entry> = changes.iter().map(|c| now.change(c, &log)).collect();
            put(&mut log, &entries);
            if i % 4 == 3 {
                trim(&mut log, &mut now, 90);
            }
            prop_assert!(is(&log, None, &now));
            let (reopened, recovered) = open(log.into_disk());
            log = reopened;
            prop_assert!(recovered.shards.values().all(|s| s.damage.is_none()), "{:?}", recovered);
            prop_assert!(is(&log, Some(&recovered), &now), "{:?} is not {:?}", recovered, now);
        }
    }
}
