//! What became of purchases that were answered `pending`: a bounded table of the last 60 seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{Pseudonym, PurchaseId, SaleOrdinal};

use crate::problem::Problem;

const ENTRIES_MAX: usize = 65_536;
const ENTRY_MILLISECONDS: u64 = 60_000;

type Key = (SaleOrdinal, Pseudonym, PurchaseId);

/// How a pending purchase stands. A granted one is in the chain and needs no entry.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Deciding,
    Refused(Problem),
}

#[derive(Default)]
pub(crate) struct PendingTable {
    entries: Mutex<HashMap<Key, (Pending, u64)>>,
}

impl PendingTable {
    /// Notes that a purchase is being decided; `false` when the table is full, and then it must not be answered `pending`.
    #[must_use]
    pub(crate) fn begin(&self, key: Key, now: u64) -> bool {
        let mut entries = self.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, (_, until)| *until > now);
        }
        let room = entries.len() < ENTRIES_MAX;
        if room {
            entries.insert(key, (Pending::Deciding, now + ENTRY_MILLISECONDS));
        }
        room
    }

    /// Notes how it ended; `None` is a grant, which the chain knows.
    pub(crate) fn end(&self, key: Key, refused: Option<Problem>, now: u64) {
        let mut entries = self.lock();
        match refused {
            Some(problem) => drop(entries.insert(key, (Pending::Refused(problem), now + ENTRY_MILLISECONDS))),
            None => drop(entries.remove(&key)),
        }
    }

    pub(crate) fn get(&self, key: Key, now: u64) -> Option<Pending> {
        self.lock().get(&key).filter(|(_, until)| *until > now).map(|(pending, _)| pending.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Pending, u64)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
