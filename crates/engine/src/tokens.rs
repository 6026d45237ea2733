//! The deployment's admin tokens: who is believed, and the changes that an owner makes.

use std::sync::PoisonError;

use domain::Role;
use ledger::vault::{AdminToken, NewAdminToken, VaultError, VaultStore};

use crate::engine::Engine;

impl Engine {
    /// The role of an admin token that is known and has not expired. Never waits for a vault that is shared.
    pub fn role_of(&self, admin_token: &str) -> Result<Option<Role>, VaultError> {
        let now = self.now();
        if self.cluster.is_some() {
            let tokens = self.admin_tokens.read().unwrap_or_else(PoisonError::into_inner);
            return Ok(tokens.admit(admin_token, now));
        }
        Ok(self.vault.with(|vault| vault.admin_tokens())?.admit(admin_token, now))
    }

    /// All admin tokens, the oldest first. Blocks.
    pub fn admin_tokens(&self) -> Result<Vec<AdminToken>, VaultError> {
        Ok(self.vault.with(|vault| vault.admin_tokens())?.list())
    }

    /// Creates an admin token; see [`VaultStore::create_admin_token`]. Blocks. Other processes of a cluster believe it a little later.
    pub fn create_admin_token(&self, label: &str, role: Role, expires_at: u64) -> Result<NewAdminToken, VaultError> {
        self.change_tokens(|vault| vault.create_admin_token(label, role, expires_at))
    }

    /// Revokes an admin token; see [`VaultStore::revoke_admin_token`]. Blocks. Other processes of a cluster refuse it a little later.
    pub fn revoke_admin_token(&self, id: &str) -> Result<AdminToken, VaultError> {
        self.change_tokens(|vault| vault.revoke_admin_token(id))
    }

    fn change_tokens<T>(
        &self,
        change: impl FnOnce(&mut dyn VaultStore) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        // With the lock of whoever reads them anew, so that an older reading never replaces a newer one.
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.vault.with(change)?;
        if self.cluster.is_some() {
            self.read_tokens_anew()?;
        }
        Ok(changed)
    }

    /// In a cluster: takes the tokens as they stand in the vault. The caller holds `creating`.
    pub(crate) fn read_tokens_anew(&self) -> Result<(), VaultError> {
        let tokens = self.vault.with(|vault| vault.admin_tokens())?;
        *self.admin_tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        Ok(())
    }
}
