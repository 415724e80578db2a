//! Interned values: each content that a key can have is one small number.
//!
//! Appending to a value of many kilobytes must not copy it for every step of
//! a search, so a content is a piece of bytes behind a parent. Two ways to
//! the same bytes give the same number: a rolling hash finds the candidate,
//! and the bytes themselves decide. Equality of contents is equality of
//! numbers, exactly.

use bytes::Bytes;

use super::word_hash::WordMap;

/// A content of a key: absent, or a sequence of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ContentId(u32);

impl ContentId {
    /// The key does not exist.
    pub(super) const ABSENT: Self = Self(0);

    /// The key exists, with a content that no answer names.
    pub(super) const OTHER: Self = Self(1);

    /// A number that [`ContentId::get`] gave.
    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number itself, for keys of caches.
    pub(super) const fn get(self) -> u32 {
        self.0
    }
}

#[derive(Debug)]
struct Node {
    /// What this content ends with; all of it when there is no parent.
    tail: Bytes,
    parent: Option<ContentId>,
    len: usize,
    hash: u64,
    /// A content that this one is known to be a prefix of: the last one asked about.
    prefix_of: Option<ContentId>,
}

/// The contents seen so far in one key's history.
#[derive(Debug)]
pub(super) struct Contents {
    nodes: Vec<Node>,
    by_hash: WordMap<(u64, usize), Vec<ContentId>>,
    appended: WordMap<(u32, u32), ContentId>,
    /// Within a search: the only appends that do not lead to [`ContentId::OTHER`].
    edges: Option<WordMap<(u32, u32), ContentId>>,
}

/// An odd multiplier for the rolling hash; any will do, since bytes decide.
const BASE: u64 = 0x0100_0000_01b3;

/// `BASE * BASE_INVERSE` is 1 in 64 bits.
const BASE_INVERSE: u64 = 0xce96_5057_aff6_957b;

const _: () = assert!(BASE.wrapping_mul(BASE_INVERSE) == 1);

fn roll(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        hash.wrapping_mul(BASE).wrapping_add(u64::from(*byte) + 1)
    })
}

impl Contents {
    /// Only [`ContentId::ABSENT`] and [`ContentId::OTHER`].
    pub(super) fn new() -> Self {
        let node = |len| Node {
            tail: Bytes::new(),
            parent: None,
            len,
            hash: 0,
            prefix_of: None,
        };
        Self {
            // "Other" is longer than anything, so it begins nothing.
            nodes: vec![node(0), node(usize::MAX)],
            by_hash: WordMap::default(),
            appended: WordMap::default(),
            edges: None,
        }
    }

    /// Makes every append that is not among these lead to [`ContentId::OTHER`]; `None` ends that.
    pub(super) fn restrict(&mut self, edges: Option<WordMap<(u32, u32), ContentId>>) {
        self.edges = edges;
    }

    /// How many contents there are: what they cost in memory grows with it.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The content with these bytes.
    pub(super) fn intern(&mut self, bytes: &Bytes) -> ContentId {
        match self.find(bytes) {
            Some(id) => id,
            None => self.add(bytes.clone(), None, bytes.len(), roll(0, bytes)),
        }
    }

    /// The content with these bytes, if there is one already.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<ContentId> {
        let candidates = self.by_hash.get(&(roll(0, bytes), bytes.len()))?;
        candidates
            .iter()
            .copied()
            .find(|id| self.ends_at(*id, bytes))
    }

    /// `content` with `chunk` behind it; absent counts as empty.
    pub(super) fn append(&mut self, content: ContentId, chunk: ContentId) -> ContentId {
        if let Some(edges) = &self.edges {
            let after = edges.get(&(content.0, chunk.0));
            return after.copied().unwrap_or(ContentId::OTHER);
        }
        if let Some(known) = self.appended.get(&(content.0, chunk.0)) {
            return *known;
        }
        let tail = self.bytes(chunk);
        let len = self.len(content) + tail.len();
        let hash = roll(self.node(content).hash, &tail);
        let candidates = self.by_hash.get(&(hash, len)).cloned().unwrap_or_default();
        let same = candidates.into_iter().find(|candidate| {
            let bytes = self.bytes(*candidate);
            bytes.ends_with(&tail) && self.ends_at(content, &bytes[..len - tail.len()])
        });
        let id = match same {
            Some(id) => id,
            None if content == ContentId::ABSENT => self.add(tail, None, len, hash),
            None => self.add(tail, Some(content), len, hash),
        };
        self.appended.insert((content.0, chunk.0), id);
        id
    }

    /// What was there before `suffix` was appended; `content` must end with it.
    pub(super) fn without_suffix(&mut self, content: ContentId, suffix: ContentId) -> ContentId {
        let whole = self.bytes(content);
        let tail = self.bytes(suffix);
        let len = whole.len().saturating_sub(tail.len());
        // The rolling hash runs backwards, so tracing a long value costs no more than its last item.
        let mut hash = self.node(content).hash;
        for byte in tail.iter().rev() {
            hash = hash
                .wrapping_sub(u64::from(*byte) + 1)
                .wrapping_mul(BASE_INVERSE);
        }
        let candidates = self
            .by_hash
            .get(&(hash, len))
            .map_or(&[][..], Vec::as_slice);
        match candidates
            .iter()
            .copied()
            .find(|id| self.ends_at(*id, &whole[..len]))
        {
            Some(id) => id,
            None => self.add(whole.slice(..len), None, len, hash),
        }
    }

    /// The content of a decimal integer.
    pub(super) fn integer(&mut self, value: i64) -> ContentId {
        self.intern(&Bytes::from(value.to_string()))
    }

    /// The integer that a content stands for; absent counts as 0, and what is no number is `None`.
    pub(super) fn integer_of(&mut self, content: ContentId) -> Option<i64> {
        if content == ContentId::ABSENT {
            return Some(0);
        }
        std::str::from_utf8(&self.bytes(content)).ok()?.parse().ok()
    }

    /// Length in bytes; 0 for absent.
    pub(super) fn len(&self, content: ContentId) -> usize {
        self.node(content).len
    }

    /// All bytes of a content in one piece (empty for absent).
    ///
    /// The piece is kept, so asking again costs nothing.
    pub(super) fn bytes(&mut self, content: ContentId) -> Bytes {
        if self.node(content).parent.is_some() {
            let mut pieces = Vec::new();
            let mut at = Some(content);
            while let Some(id) = at {
                pieces.push(self.node(id).tail.clone());
                at = self.node(id).parent;
            }
            pieces.reverse();
            let whole = Bytes::from(pieces.concat());
            if let Some(node) = self.nodes.get_mut(content.0 as usize) {
                node.tail = whole;
                node.parent = None;
            }
        }
        self.node(content).tail.clone()
    }

    /// Whether `content` is the beginning of `whole`; absent and empty begin everything.
    pub(super) fn is_prefix(&mut self, content: ContentId, whole: ContentId) -> bool {
        if content == whole || self.len(content) == 0 {
            return true;
        }
        if self.len(content) > self.len(whole) {
            return false;
        }
        let bytes = self.bytes(whole);
        let mut at = content;
        let mut end = self.len(content);
        loop {
            let node = self.node(at);
            if node.prefix_of == Some(whole) {
                break;
            }
            let start = end - node.tail.len();
            if bytes[start..end] != node.tail {
                return false;
            }
            match node.parent {
                Some(parent) => at = parent,
                None => break,
            }
            end = start;
        }
        if let Some(node) = self.nodes.get_mut(content.0 as usize) {
            node.prefix_of = Some(whole);
        }
        true
    }

    /// Whether `whole` has `chunk` at the place where `content` ends.
    pub(super) fn goes_on_with(
        &mut self,
        whole: ContentId,
        content: ContentId,
        chunk: ContentId,
    ) -> bool {
        let start = self.len(content);
        let chunk = self.bytes(chunk);
        self.bytes(whole)
            .get(start..)
            .is_some_and(|rest| rest.starts_with(&chunk))
    }

    fn node(&self, id: ContentId) -> &Node {
        // Ids are made by this table only, and nodes are never removed.
        &self.nodes[id.0 as usize]
    }

    fn add(&mut self, tail: Bytes, parent: Option<ContentId>, len: usize, hash: u64) -> ContentId {
        // A search's memory bound ends it long before 2^32 contents.
        let id = ContentId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(Node {
            tail,
            parent,
            len,
            hash,
            prefix_of: None,
        });
        self.by_hash.entry((hash, len)).or_default().push(id);
        id
    }

    /// Whether a content that exists has exactly these bytes.
    fn ends_at(&self, content: ContentId, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut at = Some(content);
        while let Some(id) = at {
            let node = self.node(id);
            match rest.strip_suffix(&node.tail[..]) {
                Some(before) => rest = before,
                None => return false,
            }
            at = node.parent;
        }
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_same_bytes_have_one_number_whichever_way_they_came() {
        let mut contents = Contents::new();
        let [a, b, ab, bc, c] =
            ["a", "b", "ab", "bc", "c"].map(|text| contents.intern(&bytes(text)));
        let by_pieces = contents.append(ab, c);
        assert_eq!(contents.append(a, bc), by_pieces);
        assert_eq!(contents.append(a, b), ab);
        assert_eq!(contents.intern(&bytes("abc")), by_pieces);
        assert_eq!(contents.append(ContentId::ABSENT, a), a);
        assert_eq!(contents.bytes(by_pieces), bytes("abc"));
        let empty = contents.intern(&bytes(""));
        assert_ne!(empty, ContentId::ABSENT);
        assert_eq!(contents.append(empty, a), a);
        assert_eq!(contents.without_suffix(by_pieces, bc), a);
        assert_eq!(contents.without_suffix(by_pieces, by_pieces), empty);
        let cut = contents.without_suffix(by_pieces, c);
        assert_eq!(cut, ab);
    }

    #[test]
    fn prefixes_are_told_by_bytes_over_pieces() {
        let mut contents = Contents::new();
        let [a, b, whole] = ["a", "b", "abab"].map(|text| contents.intern(&bytes(text)));
        let ab = contents.append(a, b);
        let aba = contents.append(ab, a);
        let abaa = contents.append(aba, a);
        assert!(contents.is_prefix(aba, whole));
        assert!(
            contents.is_prefix(aba, whole),
            "the remembered answer is the same"
        );
        assert!(!contents.is_prefix(abaa, whole));
        assert!(!contents.is_prefix(b, whole));
        assert!(contents.goes_on_with(whole, aba, b));
        assert!(!contents.goes_on_with(whole, aba, a));
        assert!(contents.is_prefix(ContentId::ABSENT, whole));
    }

    #[test]
    fn integers_are_decimal_and_absent_is_zero() {
        let mut contents = Contents::new();
        let seven = contents.integer(-7);
        assert_eq!(contents.integer_of(seven), Some(-7));
        assert_eq!(contents.integer_of(ContentId::ABSENT), Some(0));
        let word = contents.intern(&bytes("x"));
        assert_eq!(contents.integer_of(word), None);
    }
}
