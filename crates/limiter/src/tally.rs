//! How often a key has failed lately: a small count that fades, in a table of fixed size.

use crate::words::Words;

/// Bits of a word: since when it fades, in milliseconds.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Bits above them: the count. The rest is a part of the hash.
const COUNT_BITS: u32 = 4;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Counts by key. Where there is no room, the smallest gives way; a key that is not known counts as 0.
pub struct Tally {
    words: Words,
    fade_milliseconds: u64,
}

impl Tally {
    /// Takes up to `bytes_max`. A count goes down by one every `fade_milliseconds`.
    pub fn new(bytes_max: usize, fade_milliseconds: u64) -> Self {
        let fade_milliseconds = fade_milliseconds.clamp(1, TIME_MASK / 64);
        Self { words: Words::new(bytes_max, TIME_BITS + COUNT_BITS), fade_milliseconds }
    }

    /// What the key with that hash counts, 0 to 15.
    pub fn count(&self, hash: u64, now_milliseconds: u64) -> u32 {
        let word = self.words.look(hash).word();
        word.map_or(0, |word| self.faded(word, now_milliseconds).0 as u32)
    }

    /// Adds to the key's count, and gives what it counted before.
    pub fn add(&self, hash: u64, amount: u32, now_milliseconds: u64) -> u32 {
        loop {
            let look = self.words.look(hash);
            let (count, since) = look.word().map_or((0, 0), |word| self.faded(word, now_milliseconds));
            // What counted nothing begins to fade now.
            let since = if count == 0 { now_milliseconds } else { since };
            let sum = (count + u64::from(amount)).min(COUNT_MAX);
            let word = sum << TIME_BITS | (since & TIME_MASK);
            if look.put(word, |word| self.faded(word, now_milliseconds).0) {
                return count as u32;
            }
        }
    }

    /// What is left of a word's count, and since when the rest fades. A clock that went back a little fades nothing.
    fn faded(&self, word: u64, now_milliseconds: u64) -> (u64, u64) {
        let count = word >> TIME_BITS;
        let age = now_milliseconds.wrapping_sub(word & TIME_MASK) & TIME_MASK;
        let age = if age > TIME_MASK / 2 { 0 } else { age };
        let steps = age / self.fade_milliseconds;
        (count.saturating_sub(steps), (word & TIME_MASK).wrapping_add(steps * self.fade_milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000_000;

    #[test]
    fn a_count_grows_to_its_bound_and_fades_step_by_step() {
        let tally = Tally::new(1 << 16, 60_000);
        assert_eq!(tally.count(7, START), 0);
        assert_eq!([tally.add(7, 1, START), tally.add(7, 2, START + 59_999)], [0, 1]);
        for (later, count) in [(59_999, 3), (60_000, 2), (119_999, 2), (120_000, 1), (180_000, 0), (1_000_000_000, 0)] {
            assert_eq!(tally.count(7, START + later), count, "{later} ms later");
        }
        assert_eq!(tally.add(7, 1, START + 119_999), 2, "adding does not begin the fading anew");
        assert_eq!(tally.count(7, START + 120_000), 2);
        assert_eq!(tally.count(8, START), 0, "somebody else");
        for _ in 0..100 {
            tally.add(9, 2, START);
        }
        assert_eq!(tally.count(9, START), 15);
        assert_eq!(tally.count(9, START - 1_000), 15, "a clock that went back forgets nothing");
        assert_eq!(tally.add(9, 1, START + 10_000_000), 0, "it kept quiet");
        assert_eq!(tally.count(9, START + 10_000_000), 1);
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_memory_and_the_largest_count_stays() {
        let tally = Tally::new(1 << 12, 60_000);
        tally.add(u64::MAX, 15, START);
        for number in 0..100_000_u64 {
            tally.add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1, START);
        }
        assert_eq!(tally.count(u64::MAX, START), 15);
        assert_eq!(tally.words.bytes(), 1 << 12);
    }
}
