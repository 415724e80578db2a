//! A stopped node's newest log segment, to be damaged: just enough of the format to find frames in it.

use std::path::{Path, PathBuf};

/// Bytes before the first frame.
const SEGMENT_HEADER_BYTES: usize = 64;
/// Bytes of a frame before its payload.
const FRAME_HEADER_BYTES: usize = 88;
const FRAME_ALIGN: usize = 8;
const FRAME_MAGIC: u32 = 0x4341_5446;
/// A frame of records.
const GROUP: u8 = 1;

/// One frame's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Where its header begins.
    pub(crate) at: usize,
    /// Bytes of its payload.
    pub(crate) payload: usize,
    kind: u8,
}

impl Frame {
    /// Where the payload begins.
    pub(crate) fn payload_at(self) -> usize {
        self.at + FRAME_HEADER_BYTES
    }

    /// Where the next frame would begin.
    pub(crate) fn end(self) -> usize {
        (self.payload_at() + self.payload).next_multiple_of(FRAME_ALIGN)
    }
}

/// A segment file in memory.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
}

impl Segment {
    /// The newest segment in a node's folder that has frames.
    #[track_caller]
    pub(crate) fn newest(node_dir: &Path) -> Self {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(node_dir.join("log"))
            .expect("a log")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        let segments = paths.into_iter().rev().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("segment-")
        });
        segments
            .map(|path| {
                let bytes = std::fs::read(&path).expect("a segment");
                let frames = frames(&bytes);
                Self {
                    path,
                    bytes,
                    frames,
                }
            })
            .find(|segment| !segment.frames.is_empty())
            .expect("a segment with frames")
    }

    /// The last frame.
    pub(crate) fn last(&self) -> Frame {
        *self.frames.last().expect("a frame")
    }

    /// A frame of records with many before it and many behind it.
    #[track_caller]
    pub(crate) fn middle_group(&self) -> Frame {
        let groups: Vec<&Frame> = self
            .frames
            .iter()
            .filter(|frame| frame.kind == GROUP)
            .collect();
        assert!(groups.len() > 20, "{} frames of records", groups.len());
        *groups[groups.len() / 2]
    }

    /// Puts the bytes back into the file.
    #[track_caller]
    pub(crate) fn write(&self) {
        std::fs::write(&self.path, &self.bytes).expect("the segment can be written");
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let word = |at: usize| -> Option<u32> {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(four.try_into().ok()?))
    };
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while word(at) == Some(FRAME_MAGIC)
        && let (Some(kind), Some(payload)) = (bytes.get(at + 8), word(at + 12))
    {
        let frame = Frame {
            at,
            payload: payload as usize,
            kind: *kind,
        };
        found.push(frame);
        at = frame.end();
    }
    // A test that damages the wrong bytes proves nothing.
    let magic = FRAME_MAGIC.to_le_bytes();
    let behind = bytes.get(at..).unwrap_or_default();
    assert!(
        !behind.windows(magic.len()).any(|four| four == magic),
        "there are frames behind {at}: this file no longer knows the format of wal/src/frame.rs"
    );
    found
}
