//! A rate limit over any number of keys in a table of fixed size.
//!
//! The rule is the Generic Cell Rate Algorithm, as virtual scheduling in ITU-T I.371 and the ATM Forum's Traffic Management 4.0: each key has
//! a *theoretical arrival time* TAT; a request at `t` conforms when `t >= TAT - (burst - 1) * T`, and then TAT becomes `max(t, TAT) + T`,
//! where T is the time between two requests at the rate. One number per key is its whole state, and a key whose TAT has passed needs none.
//!
//! So a key has one word of the table, with a part of its hash beside the TAT, in one of the eight places of its set. Whoever is new and
//! finds all of them taken gets the place whose TAT is nearest: the one that had asked for least. A word is read and changed as a whole,
//! without a lock; what is refused changes nothing.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::words::{self, Look};

/// The highest rate.
pub const PER_SECOND_MAX: u32 = 10_000;
/// The largest burst.
pub const BURST_MAX: u32 = 1_000_000;

/// Among how many a limit may be divided.
pub const PARTS_MAX: u32 = 1_600;

/// Sets whose memory is taken together, when the first of them is used: a page.
const SETS_PER_CHUNK: usize = 64;
/// Sets that the bits of a hash can tell apart in [`Limiter::set`].
const SETS_MAX: usize = 1 << 24;
/// Bits of the TAT in a word; above it stands a part of the hash, never zero.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// By how much the clock may go back without a key being forgotten.
const BACKWARDS_MILLISECONDS_MAX: u64 = 60_000;

#[derive(Default)]
#[repr(align(64))]
struct Set(words::Set);

type Chunk = OnceLock<Box<[Set]>>;

/// A rate limit for each of any number of keys.
///
/// It never takes more than the bytes it was given. A key that it does not know is always admitted. For lack of room it forgets those first
/// who had asked for least; they may then ask as if they had not. Two keys are taken for one where 24 bits of their hashes and the sets are
/// the same, which for a new key is so with one other in two million, of a full table.
pub struct Limiter {
    chunks: Box<[Chunk]>,
    /// Units of time per millisecond: the fewest with which T is whole.
    units: u64,
    /// T, in units.
    interval: u64,
    /// How many requests may come at once.
    burst: u64,
    /// How far a TAT that means something may lie ahead; beyond it lie those that passed long ago.
    ahead_max: u64,
}

impl Limiter {
    /// Admits `per_second` requests of each key (1 to [`PER_SECOND_MAX`]), and `burst` at once (1 to [`BURST_MAX`]); what is outside is taken
    /// for the nearest. Memory is taken as it is needed, up to `bytes_max`, a page at least.
    pub fn new(bytes_max: usize, per_second: u32, burst: u32) -> Self {
        let (per_second, burst) = (per_second.clamp(1, PER_SECOND_MAX), burst.clamp(1, BURST_MAX));
        let chunk_bytes = SETS_PER_CHUNK * size_of::<Set>() + size_of::<Chunk>();
        let chunks = (bytes_max / chunk_bytes).clamp(1, SETS_MAX / SETS_PER_CHUNK);
        let divisor = greatest_common_divisor(u64::from(per_second), 1_000);
        let (units, interval) = (u64::from(per_second) / divisor, 1_000 / divisor);
        Self {
            chunks: (0..chunks).map(|_| Chunk::new()).collect(),
            units,
            interval,
            burst: burst.into(),
            ahead_max: u64::from(burst.max(PARTS_MAX)) * interval + BACKWARDS_MILLISECONDS_MAX * units,
        }
    }

    /// Whether a request of the key with that hash is admitted now (milliseconds since any start). If not, after how many milliseconds it
    /// is, should nobody ask with that key meanwhile.
    pub fn check(&self, hash: u64, now_milliseconds: u64) -> Result<(), u64> {
        self.check_part(hash, now_milliseconds, 1)
    }

    /// The same where the limit is divided among `parts` (1 to [`PARTS_MAX`]), of which this table counts one: it has that part of the rate
    /// and of the burst, and one request at once in any case. A request then counts as many times.
    pub fn check_part(&self, hash: u64, now_milliseconds: u64, parts: u32) -> Result<(), u64> {
        let (interval, longest) = self.part(parts);
        let tolerance = longest - interval;
        self.change(hash, now_milliseconds, |ahead| {
            if ahead > tolerance { Err((ahead - tolerance).div_ceil(self.units)) } else { Ok(ahead + interval) }
        })
    }

    /// Counts a request that somebody else has admitted, as [`Limiter::check_part`] would have; at most until nothing is left of the part.
    pub fn count_part(&self, hash: u64, now_milliseconds: u64, parts: u32) {
        let (interval, longest) = self.part(parts);
        let counted = |ahead: u64| if ahead >= longest { Err(()) } else { Ok((ahead + interval).min(longest)) };
        // With nothing left there is nothing to count.
        let _ = self.change(hash, now_milliseconds, counted);
    }

    /// Moves a key's TAT from so far ahead, in units, to as far as `next` says, unless that refuses.
    fn change<E>(&self, hash: u64, now_milliseconds: u64, next: impl Fn(u64) -> Result<u64, E>) -> Result<(), E> {
        let now = now_milliseconds.wrapping_mul(self.units) & TIME_MASK;
        let set = self.set(hash);
        loop {
            let look = Look::at(&set.0, hash, TIME_BITS);
            let ahead = next(look.word().map_or(0, |time| self.ahead(time, now)))?;
            // Whoever was faster has made another word of it: look again.
            if look.put(now.wrapping_add(ahead) & TIME_MASK, |time| self.ahead(time, now)) {
                return Ok(());
            }
        }
    }

    /// T of a part, and how far ahead its TAT may come, in units.
    fn part(&self, parts: u32) -> (u64, u64) {
        let parts = u64::from(parts.clamp(1, PARTS_MAX));
        let interval = self.interval * parts;
        (interval, (self.burst / parts).max(1) * interval)
    }

    /// Keys whose TAT has not passed. Looks at the whole table.
    pub fn in_use(&self, now_milliseconds: u64) -> usize {
        let now = now_milliseconds.wrapping_mul(self.units) & TIME_MASK;
        let sets = self.chunks.iter().filter_map(OnceLock::get).flatten();
        let words = sets.flat_map(|set| &set.0).map(|word| word.load(Ordering::Relaxed));
        words.filter(|word| *word != 0 && self.ahead(word & TIME_MASK, now) > 0).count()
    }

    /// Bytes that it has taken so far.
    pub fn bytes(&self) -> usize {
        let taken = self.chunks.iter().filter(|chunk| chunk.get().is_some()).count();
        size_of_val(&*self.chunks) + taken * SETS_PER_CHUNK * size_of::<Set>()
    }

    /// Bytes that it will ever take.
    pub fn bytes_max(&self) -> usize {
        self.chunks.len() * (SETS_PER_CHUNK * size_of::<Set>() + size_of::<Chunk>())
    }

    fn set(&self, hash: u64) -> &Set {
        let sets = self.chunks.len() * SETS_PER_CHUNK;
        let index = words::place(hash, sets);
        let (chunk, set) = (index / SETS_PER_CHUNK, index % SETS_PER_CHUNK);
        let chunk = self.chunks[chunk].get_or_init(|| (0..SETS_PER_CHUNK).map(|_| Set::default()).collect());
        &chunk[set]
    }

    /// How far ahead a TAT lies, in units; 0 where it has passed.
    fn ahead(&self, time: u64, now: u64) -> u64 {
        let ahead = time.wrapping_sub(now) & TIME_MASK;
        if ahead <= self.ahead_max { ahead } else { 0 }
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
