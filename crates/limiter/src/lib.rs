//! Who asks too often, who may not ask at all, what may be used once, and who is left out when all together ask for too much: rate limits in
//! bounded memory, limits that several processes keep together, blocks of addresses, blocks that grow, counts that fade, spent ids, and
//! ceilings that follow the load.
//!
//! Time is passed in. There is no clock here, no HTTP, and no input or output; a check allocates nothing once its part of the table is there.

mod backoff;
mod leases;
mod once;
pub mod overload;
mod prefix;
mod ranges;
mod shared;
mod table;
mod tally;
mod words;

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

pub use self::backoff::Backoff;
pub use self::once::{Once, Spent};
pub use self::prefix::{Prefix, PrefixError, address_bits, of_bits};
pub use self::ranges::Ranges;
pub use self::shared::{Asked, GATES_MAX, Gates, Lot, SharedLimiter, Verdict};
pub use self::table::{BURST_MAX, Limiter, PARTS_MAX, PER_SECOND_MAX};
pub use self::tally::Tally;

/// Makes the hashes that the tables know their keys by: SipHash-1-3 under a secret key, so that nobody can choose two keys that fall on each
/// other, and whoever sees a hash cannot find what it is of. Processes with the same key make the same hashes.
#[derive(Clone)]
pub struct Hasher(SipHasher13);

impl Hasher {
    /// With that secret.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The hash of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(key);
        hasher.finish()
    }
}
