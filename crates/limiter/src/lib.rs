//! Who asks too often, who may not ask at all, and what may be used once: rate limits in bounded memory, blocks of addresses, blocks that
//! grow, counts that fade, spent ids.
//!
//! Time is passed in. There is no clock here, no HTTP, and no input or output; a check allocates nothing once its part of the table is there.

mod backoff;
mod once;
mod prefix;
mod ranges;
mod table;
mod tally;

use std::hash::{BuildHasher as _, RandomState};

pub use self::backoff::Backoff;
pub use self::once::{Once, Spent};
pub use self::prefix::{Prefix, PrefixError, address_bits, of_bits};
pub use self::ranges::Ranges;
pub use self::table::{BURST_MAX, Limiter, PER_SECOND_MAX};
pub use self::tally::Tally;

/// Makes the hashes that the tables know their keys by: SipHash under a key that is drawn once per process, so that nobody can choose two
/// keys that fall on each other.
#[derive(Default)]
pub struct Hasher(RandomState);

impl Hasher {
    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.0.hash_one(key)
    }
}
