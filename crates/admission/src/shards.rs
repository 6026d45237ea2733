//! How customers are spread over many small tables, so that no table is large enough for its doubling to be felt.

use domain::Pseudonym;

/// Small tables in place of a large one. With this many a round number of customers, a million or ten, fills most of what its
/// tables have room for.
pub(crate) const SHARDS: usize = 1_536;

/// The customer's table: bits that the tables use neither to find a bucket nor to tell its entries apart.
pub(crate) fn shard_of(customer: Pseudonym) -> usize {
    ((customer.fingerprint() >> 32) % SHARDS as u64) as usize
}

/// The bits of a customer by which a table knows its entries, so that its doubling visits nothing else.
pub(crate) fn kept(customer: Pseudonym) -> u32 {
    customer.fingerprint() as u32
}

/// Those bits as the hash that a table wants: it finds a bucket by the lowest bits and tells entries apart by the highest.
pub(crate) fn spread(kept: u32) -> u64 {
    u64::from(kept) << 32 | u64::from(kept)
}
