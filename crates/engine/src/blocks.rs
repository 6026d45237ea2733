//! The block list: who is refused, by address or customer, until when. The vault keeps it; here it is judged and remembered, so that no request
//! waits for the vault.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aws_lc_rs::digest;
use cluster::News;
use data_encoding::HEXLOWER;
use domain::{SaleId, limits};
use ledger::KeptBlock;
use ledger::vault::VaultError;
use limiter::{Prefix, Ranges};

use crate::engine::Engine;

/// Stands for no sale where a customer is told apart from others over all of them.
const NO_SALE: SaleId = SaleId([0; 16]);
/// Bytes of a hash that name an entry.
const ID_BYTES: usize = 8;
/// Customers who are remembered as not listed; a megabyte.
const CLEARED_MAX: usize = 1 << 17;

/// Who is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockTarget {
    /// All addresses that begin alike.
    Addresses(Prefix),
    /// A customer, by [`Engine::customer_hash`].
    Customer([u8; 16]),
}

/// Why an entry was not made.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Definite: there are [`limits::BLOCKS_MAX`] entries.
    #[error("the block list has {} entries, as many as it may", limits::BLOCKS_MAX)]
    Full,
    /// As the vault says.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl BlockTarget {
    fn kept(&self) -> (&'static str, String) {
        match self {
            Self::Addresses(prefix) => ("address", prefix.to_string()),
            Self::Customer(hash) => ("customer", HEXLOWER.encode(hash)),
        }
    }

    /// Who an entry that was kept is about.
    pub fn of(block: &KeptBlock) -> Option<Self> {
        match block.kind.as_str() {
            "address" => block.target.parse().ok().map(Self::Addresses),
            _ => HEXLOWER.decode(block.target.as_bytes()).ok()?.try_into().ok().map(Self::Customer),
        }
    }
}

/// The list, made ready for looks.
#[derive(Default)]
struct Listed {
    changes: u64,
    addresses: Ranges,
    customers: HashMap<[u8; 16], u64>,
}

/// Customers who were looked for and not found, since to look for one a token has to be verified, which is most of what a refusal costs.
/// Each has a word, which another may take; a list that has changed makes all words strange.
#[derive(Default)]
struct Cleared {
    hasher: RandomState,
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Cleared {
    fn word(&self, customer: &[u8; 16], changes: u64) -> (&AtomicU64, u64) {
        let words = self.words.get_or_init(|| (0..CLEARED_MAX).map(|_| AtomicU64::new(0)).collect());
        let hash = self.hasher.hash_one((customer, changes));
        // Zero stands for nobody.
        (&words[hash as usize % CLEARED_MAX], hash.max(1))
    }

    fn has(&self, customer: &[u8; 16], changes: u64) -> bool {
        let (word, hash) = self.word(customer, changes);
        word.load(Ordering::Relaxed) == hash
    }

    fn put(&self, customer: &[u8; 16], changes: u64) {
        let (word, hash) = self.word(customer, changes);
        word.store(hash, Ordering::Relaxed);
    }
}

/// What this process knows of the vault's block list.
#[derive(Default)]
pub(crate) struct Blocks {
    listed: RwLock<Arc<Listed>>,
    /// Most deployments block nobody, and then a look is one load.
    has_addresses: AtomicBool,
    has_customers: AtomicBool,
    cleared: Cleared,
}

impl Blocks {
    fn listed(&self) -> Arc<Listed> {
        Arc::clone(&self.listed.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Tells customers apart over all sales, and says nothing else about them.
    pub fn customer_hash(&self, issuer: &str, subject: &str) -> [u8; 16] {
        self.identity_key.identity_hash(NO_SALE, issuer, subject)
    }

    /// Until when an address is blocked (`u64::MAX`: not by itself), if it is at `now`.
    pub fn address_block(&self, address: u128, now: u64) -> Option<u64> {
        if !self.blocks.has_addresses.load(Ordering::Relaxed) {
            return None;
        }
        self.blocks.listed.read().unwrap_or_else(PoisonError::into_inner).addresses.end(address, now)
    }

    /// The same of a customer, who is asked for only if any is blocked, and under `known_as`, which is theirs alone, only once for each list.
    pub fn customer_block<E>(
        &self,
        known_as: Option<&[u8; 16]>,
        customer: impl FnOnce() -> Result<[u8; 16], E>,
        now: u64,
    ) -> Result<Option<u64>, E> {
        if !self.blocks.has_customers.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let listed = self.blocks.listed();
        if known_as.is_some_and(|known_as| self.blocks.cleared.has(known_as, listed.changes)) {
            return Ok(None);
        }
        let end = listed.customers.get(&customer()?).copied().filter(|end| *end > now);
        if let (None, Some(known_as)) = (end, known_as) {
            self.blocks.cleared.put(known_as, listed.changes);
        }
        Ok(end)
    }

    /// The block list by age, without what has expired. Blocks.
    pub fn block_list(&self) -> Result<Vec<KeptBlock>, VaultError> {
        let mut kept = self.vault.with(|vault| vault.blocks())?.blocks;
        let now = self.now();
        kept.retain(|block| block.expires_at.is_none_or(|end| end > now));
        Ok(kept)
    }

    /// Blocks somebody, in place of an entry that they had. Durable when it returns; other processes of a cluster know it at once, or without Redis within
    /// a second.
    /// Blocks.
    pub fn add_block(
        &self,
        target: &BlockTarget,
        reason: &str,
        made_by: &str,
        expires_at: Option<u64>,
    ) -> Result<KeptBlock, BlockError> {
        let (kind, target) = target.kept();
        let hash = digest::digest(&digest::SHA256, format!("{kind}\0{target}").as_bytes());
        let block = KeptBlock {
            id: HEXLOWER.encode(&hash.as_ref()[..ID_BYTES]),
            kind: kind.to_owned(),
            target,
            reason: reason.to_owned(),
            made_by: made_by.to_owned(),
            created_at: self.now(),
            expires_at,
        };
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.block_list()?.iter().filter(|other| other.id != block.id).count();
        if others >= limits::BLOCKS_MAX {
            return Err(BlockError::Full);
        }
        self.vault.with(|vault| vault.put_block(&block))?;
        self.tell_of_blocks();
        self.read_blocks_anew()?;
        Ok(block)
    }

    /// Ends an entry and gives it, if there was one. The same as for [`Engine::add_block`]. Blocks.
    pub fn remove_block(&self, id: &str) -> Result<Option<KeptBlock>, VaultError> {
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.vault.with(|vault| vault.remove_block(id))?;
        self.tell_of_blocks();
        self.read_blocks_anew()?;
        Ok(removed)
    }

    /// Has other processes look at the list at once, and not only when they do so anyway.
    fn tell_of_blocks(&self) {
        if let Some(shared) = self.shared() {
            shared.tell_news(News::Blocks);
        }
    }

    /// Reads the block list if another process has changed it since. The caller holds `creating`.
    pub(crate) fn notice_blocks(&self) -> Result<(), VaultError> {
        let changes = self.vault.with(|vault| vault.block_changes())?;
        if self.blocks.listed().changes == changes { Ok(()) } else { self.read_blocks_anew() }
    }

    /// Takes the block list as it stands in the vault. The caller holds `creating`, or nobody else knows the engine yet.
    pub(crate) fn read_blocks_anew(&self) -> Result<(), VaultError> {
        let kept = self.vault.with(|vault| vault.blocks())?;
        let (mut addresses, mut customers) = (Vec::new(), HashMap::new());
        for block in &kept.blocks {
            let end = block.expires_at.unwrap_or(u64::MAX);
            match BlockTarget::of(block) {
                Some(BlockTarget::Addresses(prefix)) => addresses.push((prefix, end)),
                Some(BlockTarget::Customer(hash)) => drop(customers.insert(hash, end)),
                None => tracing::error!(id = block.id, "an entry of the block list cannot be read and blocks nobody"),
            }
        }
        let (has_addresses, has_customers) = (!addresses.is_empty(), !customers.is_empty());
        let listed = Listed { changes: kept.changes, addresses: Ranges::new(&addresses), customers };
        *self.blocks.listed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listed);
        self.blocks.has_addresses.store(has_addresses, Ordering::Relaxed);
        self.blocks.has_customers.store(has_customers, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Cleared;

    #[test]
    fn whoever_was_not_listed_is_remembered_until_the_list_changes() {
        let cleared = Cleared::default();
        let customer = |number: u32| {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        (0..1_000).for_each(|number| cleared.put(&customer(number), 3));
        let known = |changes| (0..1_000).filter(|number| cleared.has(&customer(*number), changes)).count();
        assert!(known(3) > 950, "nearly everybody: two in a hundred have lost their word");
        assert_eq!((known(2), known(4)), (0, 0));
        assert!((1_000..100_000).all(|number| !cleared.has(&customer(number), 3)), "nobody else");
    }
}
