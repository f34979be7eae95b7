//! Draws and mutations that are the same on every run with the same seed.

/// SplitMix64: fast, without bad seeds, the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// Most changes of one mutation: more leave little of what was valid.
const CHANGES_MAX: usize = 4;
/// Longest piece that one change takes out or repeats.
const PIECE_MAX: usize = 24;

impl Random {
    /// Begins with a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Begins with a seed and the number of a round, so that a round can be repeated without those before it.
    #[must_use]
    pub fn of_round(seed: u64, round: u64) -> Self {
        Self(Self(seed).draw() ^ Self(round).draw())
    }

    /// Any 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below the bound; 0 below 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.draw() % bound).unwrap_or(0)
    }

    /// An octet.
    pub const fn octet(&mut self) -> u8 {
        self.draw().to_le_bytes()[0]
    }

    /// So many octets.
    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets = Vec::with_capacity(length.next_multiple_of(8));
        while octets.len() < length {
            octets.extend_from_slice(&self.draw().to_le_bytes());
        }
        octets.truncate(length);
        octets
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// Makes octets that are almost valid: one of a corpus with a few changes.
#[derive(Debug, Clone)]
pub struct Mutator {
    corpus: Vec<Vec<u8>>,
    spice: &'static [&'static [u8]],
    changes: std::ops::RangeInclusive<usize>,
}

impl Mutator {
    /// Mutates what is in the corpus; spice is what the grammar is sensitive to, and is put in here and there.
    ///
    /// # Panics
    /// When there is nothing to mutate, or no spice.
    #[must_use]
    pub fn new(corpus: Vec<Vec<u8>>, spice: &'static [&'static [u8]]) -> Self {
        assert!(!corpus.is_empty() && !spice.is_empty(), "a mutation needs something to begin with");
        Self { corpus, spice, changes: 1..=CHANGES_MAX }
    }

    /// With so many changes, for a grammar that breaks easily or hardly.
    #[must_use]
    pub fn with_changes(self, changes: std::ops::RangeInclusive<usize>) -> Self {
        Self { changes, ..self }
    }

    /// What is mutated.
    #[must_use]
    pub fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// One of the corpus with changes: a cut, an insertion, another octet, another bit, a repetition, the end of another.
    pub fn mutated(&self, random: &mut Random) -> Vec<u8> {
        let mut octets = random.pick(&self.corpus).clone();
        let span = self.changes.end() - self.changes.start() + 1;
        for _ in 0..self.changes.start() + random.below(span) {
            self.change(random, &mut octets);
        }
        octets
    }

    fn change(&self, random: &mut Random, octets: &mut Vec<u8>) {
        let at = random.below(octets.len() + 1);
        let end = (at + random.below(PIECE_MAX)).min(octets.len());
        match random.below(7) {
            0 => drop(octets.drain(at..end)),
            1 => drop(octets.splice(at..at, random.pick(self.spice).iter().copied())),
            2 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet = random.octet();
                }
            }
            3 => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << random.below(8);
                }
            }
            4 => octets.truncate(at),
            5 => {
                let copy = octets[at..end].to_vec();
                let to = random.below(octets.len() + 1);
                octets.splice(to..to, copy);
            }
            _ => {
                let other = random.pick(&self.corpus);
                let from = random.below(other.len() + 1);
                octets.truncate(at);
                octets.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_and_mutations_repeat() {
        // The first outputs of SplitMix64 from 1234567, as its authors publish them.
        let mut random = Random::new(1_234_567);
        assert_eq!([random.draw(), random.draw()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        let mutator = Mutator::new(vec![b"one and another".to_vec(), b"three".to_vec()], &[b"\r\n"]);
        let run = |seed| (0..50).map(|round| mutator.mutated(&mut Random::of_round(seed, round))).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().any(|octets| !mutator.corpus().contains(octets)));
    }

    #[test]
    fn draws_keep_their_bounds() {
        let mut random = Random::new(7);
        assert!((0..1_000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
        assert!((0..20).all(|length| random.octets(length).len() == length));
    }
}
