//! What others said of a key a moment ago: that it may ask so many times more, or not before then. In a table of fixed size, without a lock.

use crate::words::Words;

/// Bits of a word: how many permits are left; none means that the key was refused.
const PERMIT_BITS: u32 = 14;
const PERMITS_MAX: u64 = (1 << PERMIT_BITS) - 1;
/// Bits above them: until when the word counts, in milliseconds. The rest is a part of the hash.
const TIME_BITS: u32 = 26;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Permits that nobody has used by then are void.
const PERMIT_MILLISECONDS: u64 = 1_000;
/// However long a key has to wait, it is asked for again after so long.
const REFUSAL_MILLISECONDS_MAX: u64 = 2_000;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// One of its permits has been used.
    Permit,
    /// It was refused, for so many milliseconds more.
    Refused(u64),
}

/// Permits and refusals by key. Where there is no room, what ends first gives way; whose word is gone is asked for again.
pub(crate) struct Leases {
    words: Words,
}

impl Leases {
    /// Takes up to `bytes_max`, and a set at least.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { words: Words::new(bytes_max, PERMIT_BITS + TIME_BITS) }
    }

    /// Uses a permit of the key with that hash, or says that it was refused; `None` if nothing is known.
    pub(crate) fn take(&self, hash: u64, now_milliseconds: u64) -> Option<Known> {
        loop {
            let look = self.words.look(hash);
            let word = look.word()?;
            let rest = ahead(word, now_milliseconds);
            if rest == 0 {
                return None;
            }
            let permits = word & PERMITS_MAX;
            if permits == 0 {
                return Some(Known::Refused(rest));
            }
            // Without any left it says nothing, which is not the same as a refusal.
            let is_used =
                if permits == 1 { look.clear() } else { look.put(word - 1, |word| ahead(word, now_milliseconds)) };
            if is_used {
                return Some(Known::Permit);
            }
        }
    }

    /// For how many milliseconds more the key with that hash is refused, if it is.
    pub(crate) fn refused(&self, hash: u64, now_milliseconds: u64) -> Option<u64> {
        let word = self.words.look(hash).word().filter(|word| word & PERMITS_MAX == 0)?;
        Some(ahead(word, now_milliseconds)).filter(|rest| *rest > 0)
    }

    /// Adds permits, which are good for a second.
    pub(crate) fn permit(&self, hash: u64, now_milliseconds: u64, permits: u32) {
        if permits > 0 {
            self.put(hash, now_milliseconds, PERMIT_MILLISECONDS, u64::from(permits));
        }
    }

    /// Notes that the key was refused for so many milliseconds.
    pub(crate) fn refuse(&self, hash: u64, now_milliseconds: u64, wait_milliseconds: u64) {
        self.put(hash, now_milliseconds, wait_milliseconds.clamp(1, REFUSAL_MILLISECONDS_MAX), 0);
    }

    fn put(&self, hash: u64, now: u64, milliseconds: u64, permits: u64) {
        loop {
            let look = self.words.look(hash);
            let left = look.word().filter(|word| ahead(*word, now) > 0).map_or(0, |word| word & PERMITS_MAX);
            let permits = if permits == 0 { 0 } else { (permits + left).min(PERMITS_MAX) };
            let end = now.wrapping_add(milliseconds) & TIME_MASK;
            if look.put(end << PERMIT_BITS | permits, |word| ahead(word, now)) {
                return;
            }
        }
    }
}

/// Milliseconds until a word no longer counts; 0 where it does not.
fn ahead(word: u64, now: u64) -> u64 {
    let ahead = (word >> PERMIT_BITS).wrapping_sub(now) & TIME_MASK;
    if ahead <= REFUSAL_MILLISECONDS_MAX { ahead } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000_000;

    #[test]
    fn permits_are_used_one_by_one_and_void_after_a_second() {
        let leases = Leases::new(1 << 12);
        assert_eq!(leases.take(7, START), None);
        leases.permit(7, START, 2);
        leases.permit(7, START + 1, 1);
        assert_eq!(leases.refused(7, START + 1), None);
        let taken: Vec<_> = (0..4).map(|_| leases.take(7, START + 1_000)).collect();
        assert_eq!(taken, [Some(Known::Permit), Some(Known::Permit), Some(Known::Permit), None]);
        leases.permit(7, START, 2);
        assert_eq!((leases.take(7, START + 999), leases.take(7, START + 1_000)), (Some(Known::Permit), None));
        assert_eq!(leases.take(8, START), None, "somebody else");
    }

    #[test]
    fn a_refusal_counts_until_its_end_and_never_for_long() {
        let leases = Leases::new(1 << 12);
        leases.permit(7, START, 5);
        leases.refuse(7, START, 300);
        assert_eq!((leases.refused(7, START + 1), leases.refused(7, START + 300)), (Some(299), None));
        assert_eq!((leases.take(7, START + 1), leases.take(7, START + 300)), (Some(Known::Refused(299)), None));
        leases.refuse(7, START, u64::MAX);
        assert_eq!(leases.take(7, START), Some(Known::Refused(2_000)));
        // The clock went back: the word says nothing.
        assert_eq!(leases.take(7, START - 60_000), None);
        leases.permit(7, START + 10, u32::MAX);
        assert_eq!((0..20_000).filter(|_| leases.take(7, START + 10) == Some(Known::Permit)).count(), 16_383);
    }

    #[test]
    fn a_flood_of_keys_pushes_out_what_ends_first() {
        let leases = Leases::new(64);
        leases.refuse(u64::MAX, START, 2_000);
        for number in 0..10_000_u64 {
            leases.permit(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, START, 1);
        }
        assert_eq!(leases.take(u64::MAX, START), Some(Known::Refused(2_000)));
    }
}
