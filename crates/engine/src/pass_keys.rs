//! The pass keys of a running process, and how a new one comes into use without a pass that somebody cannot open.
//!
//! In a cluster every process reads the vault now and then. A key that is new there opens passes at once and makes them a little later,
//! when every other process knows it as well.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use gate::pass::{PassKey, PassKeys};
use ledger::vault::{DeploymentKeys, VaultError};

use crate::engine::Engine;

/// From when a process knows a new key until it makes passes with it, where others have to learn of it: four times as long as they take.
const SETTLE_MILLISECONDS: u64 = 2_000;

/// The keys in use; reading them takes no lock.
pub struct PassRing {
    keys: ArcSwap<PassKeys>,
    known: Mutex<Known>,
}

struct Known {
    /// The key that makes passes.
    sealing: u8,
    /// The key that will, and since when it is known; monotonic milliseconds.
    coming: Option<(u8, u64)>,
}

impl PassRing {
    pub(crate) fn new(keys: &DeploymentKeys) -> Result<Self, VaultError> {
        let sealing = active(keys)?;
        let known = Mutex::new(Known { sealing, coming: None });
        Ok(Self { keys: ArcSwap::from_pointee(prepared(keys, sealing)?), known })
    }

    /// The keys that open and make passes now.
    pub fn now(&self) -> Guard<Arc<PassKeys>> {
        self.keys.load()
    }

    /// Takes the keys as they stand in the vault at `now` (monotonic milliseconds). The caller sees to it that an older reading does not
    /// come after a newer one.
    fn take(&self, keys: &DeploymentKeys, is_alone: bool, now: u64) -> Result<(), VaultError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = active(keys)?;
        if newest == known.sealing {
            return Ok(());
        }
        let since = match known.coming {
            Some((coming, since)) if coming == newest => since,
            _ => {
                self.keys.store(Arc::new(prepared(keys, known.sealing)?));
                known.coming = Some((newest, now));
                tracing::info!(key = newest, "a new pass key is known");
                now
            }
        };
        if is_alone || now.saturating_sub(since) >= SETTLE_MILLISECONDS {
            self.keys.store(Arc::new(prepared(keys, newest)?));
            *known = Known { sealing: newest, coming: None };
            tracing::info!(key = newest, "passes are made with the new key; those of the earlier ones stay good");
        }
        Ok(())
    }
}

fn active(keys: &DeploymentKeys) -> Result<u8, VaultError> {
    keys.pass_keys.iter().find(|key| key.active).map(|key| key.id).ok_or(VaultError::KeysIncomplete)
}

fn prepared(keys: &DeploymentKeys, sealing: u8) -> Result<PassKeys, VaultError> {
    let ready = |key: &ledger::vault::PassKey| PassKey { id: key.id.into(), secret: key.secret };
    let first = keys.pass_keys.iter().find(|key| key.id == sealing).ok_or(VaultError::KeysIncomplete)?;
    let others: Vec<_> = keys.pass_keys.iter().filter(|key| key.id != sealing).map(ready).collect();
    Ok(PassKeys::new(&ready(first), &others))
}

impl Engine {
    /// Makes a new pass key; passes of the earlier ones stay good until they expire. Gives its number. Blocks. Done twice it rotates twice.
    pub fn rotate_pass_key(&self) -> Result<u8, VaultError> {
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.vault.with(|vault| vault.rotate_pass_key())?;
        self.notice_pass_keys()?;
        Ok(key)
    }

    /// Takes the pass keys as they stand in the vault. The caller holds `creating`.
    pub(crate) fn notice_pass_keys(&self) -> Result<(), VaultError> {
        let keys = self.vault.with(|vault| vault.deployment_keys())?;
        self.passes.take(&keys, self.cluster.is_none(), self.clock.monotonic_milliseconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(active: u8) -> DeploymentKeys {
        let pass_keys = (0..=active).map(|id| ledger::vault::PassKey { id, active: id == active, secret: [id; 32] });
        DeploymentKeys { pass_keys: pass_keys.collect(), id_key: [7; 32], identity_hash_key: [8; 32] }
    }

    /// The number of the key that a pass is made with.
    fn made_with(ring: &PassRing) -> Vec<u8> {
        let known = ring.known.lock().unwrap();
        vec![known.sealing]
    }

    #[test]
    fn alone_a_new_key_makes_passes_at_once() {
        let ring = PassRing::new(&vault(0)).unwrap();
        ring.take(&vault(1), true, 0).unwrap();
        assert_eq!(made_with(&ring), [1]);
    }

    #[test]
    fn among_others_a_new_key_makes_passes_only_when_all_of_them_know_it() {
        let ring = PassRing::new(&vault(0)).unwrap();
        for (now, newest, expected) in [
            (0, 0, 0),
            (10, 1, 0),
            (2_009, 1, 0),
            (2_010, 1, 1),
            (2_020, 2, 1),
            (2_500, 3, 1),
            (4_499, 3, 1),
            (4_500, 3, 3),
        ] {
            ring.take(&vault(newest), false, now).unwrap();
            assert_eq!(made_with(&ring), [expected], "at {now}");
        }
    }
}
