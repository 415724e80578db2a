//! One segmented, checksummed log for all the shards of a node, with group commit.
//!
//! # Why it exists
//! Durability is the log's (DESIGN §3.1): the state is written lazily, and a
//! write counts once it is in the log of every member. One write and one sync
//! serve every shard of the node; that is what makes the rest fast.
//!
//! # What it promises
//! - After [`Log::sync`] everything appended before survives any crash.
//! - After a crash [`Log::open`] returns, shard by shard, a prefix of what was
//!   appended that contains everything synced, with cuts honoured; and it is
//!   durable by then (rule L5).
//! - A torn end is told from damage (FAULTS 12). Damage is never cut off, never
//!   returned as data, and blamed on no shard that is provably whole (FAULTS 13).
//! - A full disk is met when a segment is made, never inside a write (FAULTS 14):
//!   then nothing of the append was written, reads go on, and cuts and metadata
//!   still find a reserve.
//! - A failed write or sync breaks the log for good; nothing is tried twice
//!   (FAULTS 11).
//! - [`Log::trim`] frees what nobody needs, and no cold shard pins anything.
//!
//! # What it may not do
//! It is plain, synchronous logic over a [`Disk`]: one thread owns it. There is
//! no clock, task, lock or randomness in here, so that [`SimDisk`] and one seed
//! replay any history; a disk that hangs (FAULTS 15) holds up its thread, and it
//! is for others to notice. It does not know what records mean.
//!
//! # On the disk
//! ```text
//! segment-0000000007   header | frame | frame | … | End | reserve, zeros
//! segment-0000000008   header | frame | frame | zeros                        <- written
//! spare                zeros                                                 <- the next one
//! ```
//! Segments are made whole: filled with zeros and synced under another name. Frames
//! are groups of records, cuts, resets and metadata of shards; `End` (the
//! segment goes on in the next), `Mark` (so much is durable), `Loss` and `Settled`
//! (what recovery judged) are the log's own. A frame's checksums bind its shard, origin and
//! positions, and the place in the log where it lies: a frame in the wrong place
//! does not validate. What decides between torn and damaged is in `scan`; whom
//! damage concerns, in `verdict`; what must not go with an old segment, in `trim`.
//!
//! # What it cannot tell
//! A disk that was rolled back as a whole looks like a shorter log; so does one
//! that lost the last segments entirely. The state's applied position, kept
//! elsewhere, is the witness against that. The last synced batch, as long as nothing
//! behind it says that it was synced, looks torn when it is damaged: see [`Log::mark`].

mod append;
mod disk;
mod entry;
mod error;
mod frame;
mod index;
mod log;
mod read;
mod recover;
mod scan;
mod segment;
mod spare;
mod trim;
mod verdict;

pub use self::disk::{Disk, DiskError, Fault, RealDisk, SECTOR_BYTES, SimDisk};
pub use self::entry::{ENTRY_BYTES_MAX, Entry, StoredGroup};
pub use self::error::{LogError, ReadError};
pub use self::log::{Log, LogOptions, SEGMENT_BYTES_MIN, Usage};
pub use self::recover::{Recovered, RecoveredShard, Tail};
pub use self::spare::make_spare;
