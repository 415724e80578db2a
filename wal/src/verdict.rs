//! Which shards a hole in the log concerns.
//!
//! A hole is a stretch that was durable once and is unreadable now. If a frame's
//! header can still be trusted, it names the shard and what is lost. If not,
//! every shard may have lost something, until its next frame proves by its
//! number that nothing of it was in the hole.
//!
//! A shard that is met first behind a hole may have begun in it. It may also have
//! been judged whole by an earlier start, when what proved it was not trimmed yet;
//! then a `Settled` follows.
//!
//! What is readable of a shard that lost records ends before the loss, whatever
//! follows: a cut may be among what was lost. Recovery writes that down (`Loss`)
//! before anybody appends again, so that later starts read the log as this one
//! did. It is reported at each start until the replica has written its metadata,
//! in which it says that it is not whole any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::ids::ShardId;

use crate::frame::{Header, Kind, Position};
use crate::index::Index;

/// Whether something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    No,
    /// A later frame may prove that it is not.
    Maybe,
    /// It was met first behind a hole: only an earlier start's verdict can tell.
    Unsure,
    /// It is, and the replica was told at an earlier start.
    Told,
    Yes,
}

/// What is in doubt about a shard.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    pub(crate) what: String,
    records: Lost,
    meta: Lost,
}

impl Doubt {
    /// The log itself says so already, and where the shard ends.
    pub(crate) fn is_written_down(&self) -> bool {
        self.records == Lost::No && self.meta == Lost::Told
    }

    fn clear(&mut self, what: Lost) {
        for lost in [&mut self.records, &mut self.meta] {
            if *lost == what {
                *lost = Lost::No;
            }
        }
    }
}

/// The shards as the frames so far tell them.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) index: Index,
    pub(crate) doubts: BTreeMap<ShardId, Doubt>,
    /// The oldest segment there is: what lay before it was trimmed, and is not lost.
    oldest: u32,
    /// The latest hole that names nobody: shards that are met later may have begun in it.
    hole: Option<String>,
}

impl Verdict {
    pub(crate) fn new(oldest: u32) -> Self {
        Self {
            oldest,
            ..Self::default()
        }
    }

    /// A whole frame.
    pub(crate) fn take(&mut self, header: &Header, payload: &[u8], at: Position) {
        if header.kind == Kind::Settled {
            self.settle();
        }
        if header.kind.is_of_no_shard() {
            return;
        }
        self.count(header);
        let shard = header.shard;
        let index = self.index.entry(shard).or_default();
        let records = self.doubts.get(&shard).map_or(Lost::No, |d| d.records);
        let (generation, bytes) = (header.generation, header.frame_bytes());
        let before = index.generation;
        index.raise(generation);
        if let Kind::Loss { end, held_to, .. } = header.kind
            && held_to.segment >= self.oldest
            && !(index.holds_to(held_to) && index.end() >= end)
        {
            // Records that were found sound then are not trimmed, and not held: they are lost since.
            self.doubt(shard, "records before known damage", Lost::Yes, Lost::Yes);
            return;
        }
        match header.kind {
            // Behind a loss nothing counts.
            Kind::Group { .. } if records == Lost::Yes => {}
            Kind::Group { first, last, .. }
                if index.anchored && (first != index.end().next() || generation != before) =>
            {
                let what = format!("records {first}..={last} do not follow {}", index.end());
                self.doubt(shard, &what, Lost::Yes, Lost::Yes);
            }
            // The record it refers to may be lost.
            Kind::Cut { after }
                if records == Lost::Yes && (!index.anchored || after > index.end()) => {}
            kind => index.take(kind, generation, at, bytes),
        }
        match header.kind {
            Kind::Reset { .. } => self.clear(shard, |doubt| doubt.records = Lost::No),
            Kind::Meta => {
                if let Some(index) = self.index.get_mut(&shard) {
                    index.meta = Some(Bytes::copy_from_slice(payload));
                }
                self.clear(shard, |doubt| doubt.meta = Lost::No);
            }
            Kind::Loss { .. } => {
                self.doubt(shard, "damage found before", Lost::No, Lost::Told);
                self.clear(shard, |doubt| {
                    doubt.records = Lost::No;
                    doubt.meta = Lost::Told;
                });
            }
            _ => {}
        }
    }

    /// A frame whose header is whole and whose payload is not.
    pub(crate) fn take_damaged(&mut self, header: &Header, what: &str) {
        self.seal();
        self.count(header);
        if let Some(index) = self.index.get_mut(&header.shard) {
            index.raise(header.generation);
        }
        match header.kind {
            Kind::Meta => self.doubt(header.shard, what, Lost::No, Lost::Yes),
            _ => self.doubt(header.shard, what, Lost::Yes, Lost::No),
        }
    }

    /// A stretch of which nothing is known.
    pub(crate) fn hole(&mut self, what: String) {
        self.seal();
        let shards: Vec<ShardId> = self.index.keys().copied().collect();
        for shard in shards {
            self.doubt(shard, &what, Lost::Maybe, Lost::Maybe);
        }
        self.hole = Some(what);
    }

    /// A stretch is read frame by frame, so none reaches across a hole.
    fn seal(&mut self) {
        for index in self.index.values_mut() {
            index.seal();
        }
    }

    /// The numbers of a shard's frames have no gaps: one is a loss, and none is the proof that there was none.
    fn count(&mut self, header: &Header) {
        let shard = header.shard;
        let before = self.index.get(&shard).map(|index| index.no);
        self.index.entry(shard).or_default().no = header.no;
        match before {
            Some(no) if header.no == no.wrapping_add(1) => {
                self.clear(shard, |doubt| doubt.clear(Lost::Maybe));
            }
            Some(no) => {
                let what = self.hole.clone().unwrap_or_else(|| {
                    format!("frames are missing between its {no}th and {}th", header.no)
                });
                self.doubt(shard, &what, Lost::Yes, Lost::Yes);
            }
            // What came before the first one was trimmed; or it lay in a hole.
            None => {
                if let Some(what) = self.hole.clone().filter(|_| header.no != 1) {
                    self.doubt(shard, &what, Lost::Unsure, Lost::Unsure);
                }
            }
        }
    }

    /// An earlier start has judged the holes so far.
    fn settle(&mut self) {
        self.hole = None;
        let shards: Vec<ShardId> = self.doubts.keys().copied().collect();
        for shard in shards {
            self.clear(shard, |doubt| doubt.clear(Lost::Unsure));
        }
    }

    /// Nothing more comes: what no frame has proven to be whole is not. The latest hole that no earlier start has
    /// judged.
    pub(crate) fn close(&mut self) -> Option<String> {
        for (shard, doubt) in &self.doubts {
            if let Some(index) = self.index.get_mut(shard)
                && doubt.records == Lost::Unsure
            {
                index.forget_records();
            }
        }
        self.hole.clone()
    }

    fn doubt(&mut self, shard: ShardId, what: &str, records: Lost, meta: Lost) {
        let doubt = self.doubts.entry(shard).or_insert_with(|| Doubt {
            what: what.to_owned(),
            records: Lost::No,
            meta: Lost::No,
        });
        doubt.records = doubt.records.max(records);
        doubt.meta = doubt.meta.max(meta);
    }

    fn clear(&mut self, shard: ShardId, change: impl FnOnce(&mut Doubt)) {
        if let Some(doubt) = self.doubts.get_mut(&shard) {
            change(doubt);
            if doubt.records == Lost::No && doubt.meta == Lost::No {
                self.doubts.remove(&shard);
            }
        }
    }
}
