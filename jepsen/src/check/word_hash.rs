//! Hash maps with a fixed, fast hash.
//!
//! The checkers' maps hold millions of short keys of machine words, whose
//! content no attacker chooses for collisions; and the same history must cost
//! the same steps on every run, so nothing here is seeded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map from words to anything.
pub(super) type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// Multiply and fold, one word at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WordHasher(u64);

/// 2^64 divided by the golden ratio: an odd number whose bits look random.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        let folded = (product >> 64) ^ (product & u128::from(u64::MAX));
        // The fold is below 2^64 by construction; the rotation keeps a zero word from being free.
        self.0 = u64::try_from(folded).unwrap_or(0).rotate_left(5) ^ MULTIPLIER;
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
