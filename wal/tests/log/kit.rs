//! What all tests of the log use.

use bytes::Bytes;
use catena_proto::ids::{Epoch, Incarnation, LogGeneration, Origin, Seq, ShardId};
use catena_wal::{Disk, Entry, Log, LogOptions, Recovered, SimDisk};

pub(crate) const SEGMENT: u32 = 8 << 10;
pub(crate) const OPTIONS: LogOptions = LogOptions {
    log_id: 7,
    segment_bytes: SEGMENT,
    retained_bytes: 4 * SEGMENT as u64,
};
pub(crate) const A: ShardId = ShardId::new(1);
pub(crate) const B: ShardId = ShardId::new(2);
/// Bytes before the first frame, and of a frame's header.
pub(crate) const FIRST: u64 = 64;
pub(crate) const HEADER: u64 = 88;

pub(crate) fn origin(epoch: u64) -> Origin {
    Origin {
        epoch: Epoch::new(epoch),
        incarnation: Incarnation::new(9),
    }
}

pub(crate) fn group(shard: ShardId, first: u64, last: u64, fill: u8, len: usize) -> Entry {
    Entry::Group {
        shard,
        origin: origin(1),
        first: Seq::new(first),
        last: Seq::new(last),
        records: Bytes::from(vec![fill; len]),
    }
}

pub(crate) fn meta(shard: ShardId, text: &'static str) -> Entry {
    let blob = Bytes::from_static(text.as_bytes());
    Entry::Meta { shard, blob }
}

pub(crate) fn cut(shard: ShardId, after: u64, generation: u64) -> Entry {
    Entry::Cut {
        shard,
        after: Seq::new(after),
        generation: LogGeneration::new(generation),
    }
}

pub(crate) fn reset(shard: ShardId, base: u64, generation: u64) -> Entry {
    Entry::Reset {
        shard,
        base: Seq::new(base),
        origin: origin(3),
        generation: LogGeneration::new(generation),
    }
}

pub(crate) fn open(disk: SimDisk) -> (Log<SimDisk>, Recovered) {
    Log::open(disk, OPTIONS).expect("it opens")
}

/// Appends and syncs.
pub(crate) fn put(log: &mut Log<SimDisk>, entries: &[Entry]) {
    log.append(entries).expect("appended");
    log.sync().expect("synced");
}

/// What is held of a shard: (first, last that is valid, fill).
pub(crate) fn read(log: &Log<SimDisk>, shard: ShardId) -> Vec<(u64, u64, u8)> {
    let start = log.range(shard).map_or(Seq::ZERO, |(start, _)| start);
    let groups = log.read(shard, start, usize::MAX).expect("readable");
    for group in &groups {
        assert!(
            group.records.iter().all(|b| *b == group.records[0]),
            "mixed records"
        );
    }
    groups
        .iter()
        .map(|g| (g.first.get(), g.valid_to.get(), g.records[0]))
        .collect()
}

/// The segment files, oldest first.
pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let listed = disk.list().expect("listed");
    let names = listed.into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("segment")).collect()
}

/// The segment file that is written now.
pub(crate) fn newest(disk: &SimDisk) -> String {
    segments(disk).pop().expect("one")
}

/// Where a segment's next frame goes.
pub(crate) fn offset(log: &Log<SimDisk>) -> u64 {
    let limit = u64::from(SEGMENT) - HEADER - u64::from(SEGMENT) / 16;
    limit - log.usage().segment_left_bytes
}

/// A small generator: a seed gives a sequence.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) & 1 == 0
    }
}
