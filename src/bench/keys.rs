//! Which keys a bench uses, and how often each; the same seed gives the same keys.

use bytes::Bytes;

/// How often which key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// A few very often, most hardly ever (YCSB's constant, 0.99).
    Zipf,
}

/// A key space and the way it is drawn from.
#[derive(Debug)]
pub(crate) struct Keys {
    count: u64,
    spread: bool,
    zipf: Option<Zipf>,
}

impl Keys {
    /// `count` keys (at least one).
    pub(crate) fn new(count: u64, spread: bool, distribution: Distribution) -> Self {
        let zipf = (distribution == Distribution::Zipf).then(|| Zipf::new(count));
        Self {
            count,
            spread,
            zipf,
        }
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Key number `at`.
    ///
    /// Spread keys begin with 16 hex digits of a permutation of 64-bit numbers:
    /// no two are the same, and even hex ranges get even shares.
    pub(crate) fn key(&self, at: u64) -> Bytes {
        if self.spread {
            let mut key = [0u8; 16];
            for (digit, place) in key.iter_mut().zip((0..16).rev()) {
                let nibble = mix(at) >> (4 * place) & 0xf;
                *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
            }
            Bytes::copy_from_slice(&key)
        } else {
            Bytes::from(format!("bench/{at:010}"))
        }
    }

    /// The number of the next key to use.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        match &self.zipf {
            None => random.below(self.count),
            // Popular keys lie anywhere, not all in the first shard.
            Some(zipf) => mix(zipf.rank(random)) % self.count,
        }
    }
}

/// A value of `size` bytes that does not compress.
pub(crate) fn value(size: usize, seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    let mut value = Vec::with_capacity(size + 8);
    while value.len() < size {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(size);
    Bytes::from(value)
}

/// The finaliser of SplitMix64: a permutation of 64-bit numbers without visible order.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64: small, fast, good enough to choose keys.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        drawn
    }

    /// A number below `bound` (at least 1); the bias is below 2⁻³².
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from 0 (included) to 1 (excluded).
    fn unit(&mut self) -> f64 {
        // 53 bits: what a double can hold exactly.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks by Zipf's law in constant time, after Gray et al., "Quickly generating
/// billion-record synthetic databases" (SIGMOD 1994), as YCSB uses it.
#[derive(Debug)]
struct Zipf {
    count: f64,
    alpha: f64,
    eta: f64,
    zeta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    fn new(count: u64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-Self::THETA)).sum::<f64>();
        let zeta = zeta_of(count);
        let count = count as f64;
        Self {
            count,
            alpha: 1.0 / (1.0 - Self::THETA),
            eta: (1.0 - (2.0 / count).powf(1.0 - Self::THETA)) / (1.0 - zeta_of(2) / zeta),
            zeta,
        }
    }

    /// A rank from 0, the most frequent one.
    fn rank(&self, random: &mut Random) -> u64 {
        let u = random.unit();
        let scaled = u * self.zeta;
        if scaled < 1.0 || self.count < 2.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(Self::THETA) {
            return 1;
        }
        (self.count * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn spread_keys_are_all_different_and_fall_evenly_into_hex_ranges() {
        let keys = Keys::new(16_000, true, Distribution::Uniform);
        let all: BTreeSet<Bytes> = (0..keys.count()).map(|at| keys.key(at)).collect();
        assert_eq!(all.len(), 16_000);
        for digit in b"0123456789abcdef" {
            let share = all.iter().filter(|key| key[0] == *digit).count();
            assert!(
                (900..1100).contains(&share),
                "{share} of 1000 begin with {digit}"
            );
        }
    }

    #[test]
    fn plain_keys_sort_by_number() {
        let keys = Keys::new(200, false, Distribution::Uniform);
        assert!(keys.key(9) < keys.key(10) && keys.key(99) < keys.key(100));
    }

    #[test]
    fn zipf_prefers_few_keys_and_stays_in_bounds() {
        for count in [1, 2, 3, 1_000] {
            let zipf = Zipf::new(count);
            let mut random = Random::new(7);
            let ranks: Vec<u64> = (0..20_000).map(|_| zipf.rank(&mut random)).collect();
            assert!(ranks.iter().all(|rank| *rank < count.max(2)), "{count}");
            if count == 1_000 {
                let first = ranks.iter().filter(|rank| **rank == 0).count() as f64 / 20_000.0;
                let wanted = 1.0 / zipf.zeta;
                assert!(
                    (first / wanted - 1.0).abs() < 0.1,
                    "{first} instead of {wanted}"
                );
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_keys() {
        let keys = Keys::new(1_000, true, Distribution::Zipf);
        let drawn = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| keys.draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(3).iter().all(|at| *at < 1_000));
    }

    #[test]
    fn values_have_the_size_asked_for() {
        for size in [0, 1, 100, 4096] {
            assert_eq!(value(size, 1).len(), size);
        }
    }
}
