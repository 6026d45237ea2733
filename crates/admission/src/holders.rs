//! The customers that have a grant, as fingerprints: what a gate must know before it may use a sold-out mark.

use std::sync::{PoisonError, RwLock};

use domain::Pseudonym;
use hashbrown::HashTable;

use crate::shards::{SHARDS, kept, shard_of, spread};

/// A growing set of customers, read by every gate and written by the owner. It never forgets.
///
/// It holds 32 bits of each pseudonym, told apart in the shard that others of them choose: two customers who share both are asked
/// for at the owner, which knows exactly. With ten million holders that is one stranger in half a million.
pub struct Holders {
    shards: Vec<RwLock<HashTable<u32>>>,
}

impl Holders {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect() }
    }

    pub(crate) fn insert(&self, customer: Pseudonym) {
        let fingerprint = kept(customer);
        let mut shard = self.shards[shard_of(customer)].write().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entry(spread(fingerprint), |held| *held == fingerprint, |held| spread(*held));
        entry.or_insert(fingerprint);
    }

    /// Whether the customer may have a grant. `false` is certain, `true` is for the owner to tell.
    pub fn may_hold(&self, customer: Pseudonym) -> bool {
        let fingerprint = kept(customer);
        let shard = self.shards[shard_of(customer)].read().unwrap_or_else(PoisonError::into_inner);
        shard.find(spread(fingerprint), |held| *held == fingerprint).is_some()
    }
}
