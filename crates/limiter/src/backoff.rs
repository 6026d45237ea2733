//! Blocks that nobody ordered: of keys that go on although they are refused. Each is longer than the one before, and a key that keeps
//! quiet is forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::words::{Look, Words};

/// Bits of a word: when the block ends, in milliseconds.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Bits above them: how many blocks came before. The rest is a part of the hash.
const LEVEL_BITS: u32 = 4;
const LEVEL_MAX: u64 = (1 << LEVEL_BITS) - 1;

/// Blocks by key, in a table of fixed size. Where there is no room, the one that ends first gives way.
pub struct Backoff {
    words: Words,
    first_milliseconds: u64,
    max_milliseconds: u64,
    /// No block ends later, so that most looks need not look.
    last_end: AtomicU64,
}

impl Backoff {
    /// Takes up to `bytes_max`. A first block lasts for `first_milliseconds`, each further one twice as long as the one before up to
    /// `max_milliseconds`. After as long without a block, the next is a first one.
    pub fn new(bytes_max: usize, first_milliseconds: u64, max_milliseconds: u64) -> Self {
        Self {
            words: Words::new(bytes_max, TIME_BITS + LEVEL_BITS),
            first_milliseconds: first_milliseconds.max(1),
            max_milliseconds: max_milliseconds.clamp(1, TIME_MASK / 4),
            last_end: AtomicU64::new(0),
        }
    }

    /// For how many milliseconds more the key with that hash is blocked.
    pub fn rest(&self, hash: u64, now_milliseconds: u64) -> Option<u64> {
        if self.last_end.load(Ordering::Relaxed) <= now_milliseconds {
            return None;
        }
        let word = self.words.look(hash).word()?;
        Some(self.ahead(word, now_milliseconds)).filter(|rest| *rest > 0)
    }

    /// Blocks the key, unless it is blocked. Gives for how many milliseconds, if so.
    pub fn block(&self, hash: u64, now_milliseconds: u64) -> Option<u64> {
        loop {
            let look = self.words.look(hash);
            let level = match look.word() {
                Some(word) if self.ahead(word, now_milliseconds) > 0 => return None,
                Some(word) if self.is_remembered(word, now_milliseconds) => ((word >> TIME_BITS) + 1).min(LEVEL_MAX),
                _ => 0,
            };
            let length = self.first_milliseconds.saturating_mul(1 << level).min(self.max_milliseconds);
            if self.put(&look, level, length, now_milliseconds) {
                return Some(length);
            }
        }
    }

    /// Takes a block that somebody else has made and that lasts for so many milliseconds more, unless there is one that lasts longer. The next one
    /// is longer than it.
    pub fn adopt(&self, hash: u64, now_milliseconds: u64, milliseconds: u64) {
        let milliseconds = milliseconds.min(self.max_milliseconds);
        loop {
            let look = self.words.look(hash);
            if look.word().is_some_and(|word| self.ahead(word, now_milliseconds) >= milliseconds) {
                return;
            }
            let longer = |level: &u64| self.first_milliseconds.saturating_mul(1 << level) >= milliseconds;
            let level = (0..LEVEL_MAX).find(longer).unwrap_or(LEVEL_MAX);
            if self.put(&look, level, milliseconds, now_milliseconds) {
                return;
            }
        }
    }

    /// Keys that are blocked. Looks at the whole table.
    pub fn in_force(&self, now_milliseconds: u64) -> usize {
        self.words.all().filter(|word| self.ahead(*word, now_milliseconds) > 0).count()
    }

    fn put(&self, look: &Look<'_>, level: u64, milliseconds: u64, now_milliseconds: u64) -> bool {
        let end = now_milliseconds.saturating_add(milliseconds);
        // The end first: a block that is there is seen.
        self.last_end.fetch_max(end, Ordering::Relaxed);
        look.put(level << TIME_BITS | (end & TIME_MASK), |word| self.ahead(word, now_milliseconds))
    }

    /// Milliseconds to a word's end; 0 where it has passed.
    fn ahead(&self, word: u64, now_milliseconds: u64) -> u64 {
        let ahead = (word & TIME_MASK).wrapping_sub(now_milliseconds) & TIME_MASK;
        if ahead <= self.max_milliseconds { ahead } else { 0 }
    }

    /// Whether a block that has ended counts for the next one still.
    fn is_remembered(&self, word: u64, now_milliseconds: u64) -> bool {
        now_milliseconds.wrapping_sub(word & TIME_MASK) & TIME_MASK < self.max_milliseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000_000;

    #[test]
    fn each_block_is_twice_as_long_until_the_longest_and_quiet_forgets_it() {
        let backoff = Backoff::new(1 << 16, 10_000, 600_000);
        let mut now = START;
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600, 600] {
            assert_eq!(backoff.rest(7, now), None);
            assert_eq!(backoff.block(7, now), Some(seconds * 1_000));
            assert_eq!(backoff.rest(7, now + 1), Some(seconds * 1_000 - 1));
            assert_eq!(backoff.block(7, now + 1), None, "it is blocked already");
            assert_eq!(backoff.rest(8, now), None, "somebody else");
            now += seconds * 1_000;
        }
        for _ in 0..20 {
            assert_eq!(backoff.block(7, now), Some(600_000));
            now += 600_000;
        }
        now += 599_999;
        assert_eq!(backoff.block(7, now), Some(600_000));
        assert_eq!(backoff.in_force(now), 1);
        now += 1_200_000;
        assert_eq!(backoff.block(7, now), Some(10_000), "it kept quiet");
    }

    #[test]
    fn a_block_of_somebody_else_holds_and_the_next_one_is_longer() {
        let (here, there) = (Backoff::new(1 << 16, 10_000, 600_000), Backoff::new(1 << 16, 10_000, 600_000));
        let mut now = START;
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            // One after the other, as whoever hammers goes from one to the other.
            let (makes, hears) = if seconds % 20 == 0 { (&here, &there) } else { (&there, &here) };
            assert_eq!(makes.block(7, now), Some(seconds * 1_000));
            hears.adopt(7, now + 30, seconds * 1_000 - 30);
            // What comes back, later and shorter, changes nothing.
            makes.adopt(7, now + 50, seconds * 1_000 - 60);
            for backoff in [&here, &there] {
                assert_eq!(backoff.rest(7, now + 100), Some(seconds * 1_000 - 100));
                assert_eq!(backoff.rest(8, now + 100), None, "somebody else");
            }
            now += seconds * 1_000;
        }
        here.adopt(9, now, u64::MAX);
        assert_eq!(here.rest(9, now), Some(600_000), "never longer than its own longest");
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_memory_and_the_longest_block_stays() {
        let backoff = Backoff::new(1 << 12, 10_000, 600_000);
        let mut now = START;
        for _ in 0..6 {
            backoff.block(u64::MAX, now);
            now += 600_000 - 1;
        }
        let rest = backoff.block(u64::MAX, now).or(backoff.rest(u64::MAX, now)).unwrap();
        for number in 0..100_000_u64 {
            backoff.block(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), now);
        }
        assert_eq!(backoff.rest(u64::MAX, now), Some(rest));
        assert!(backoff.in_force(now) <= (1 << 12) / 8);
        assert_eq!(backoff.in_force(now + 600_000), 0);
    }
}
