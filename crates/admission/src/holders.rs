//! The customers that have a grant, as fingerprints: what a gate must know before it may use a sold-out mark.

use std::sync::{PoisonError, RwLock};

use domain::Pseudonym;
use hashbrown::HashTable;

const SHARDS: u64 = 1024;

/// A growing set of customers, read by every gate and written by the owner. It never forgets.
///
/// It holds the first 64 bits of each pseudonym: two customers who share them are both asked for at the owner, which knows exactly.
pub struct Holders {
    shards: Vec<RwLock<HashTable<u64>>>,
}

impl Holders {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect() }
    }

    pub(crate) fn insert(&self, customer: Pseudonym) {
        let fingerprint = customer.fingerprint();
        let mut shard = self.shard(fingerprint).write().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entry(fingerprint, |held| *held == fingerprint, |held| *held);
        entry.or_insert(fingerprint);
    }

    /// Whether the customer may have a grant. `false` is certain, `true` is for the owner to tell.
    pub fn may_hold(&self, customer: Pseudonym) -> bool {
        let fingerprint = customer.fingerprint();
        let shard = self.shard(fingerprint).read().unwrap_or_else(PoisonError::into_inner);
        shard.find(fingerprint, |held| *held == fingerprint).is_some()
    }

    /// Bits that the tables themselves do not use.
    fn shard(&self, fingerprint: u64) -> &RwLock<HashTable<u64>> {
        &self.shards[((fingerprint >> 32) % SHARDS) as usize]
    }
}
