//! The end of a sale's customers: their pseudonyms and keys leave the vault, while chain, orders and proofs stay whole.

use domain::{Refusal, SalePhase};
use ledger::VaultError;

use crate::engine::Engine;
use crate::sale::Sale;

const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1_000;

/// Why a sale's customers are still known.
#[derive(Debug, thiserror::Error)]
pub enum AnonymiseError {
    /// The sale is not settled: somebody may still pay, or get money back.
    #[error("{}", Refusal::SalePhaseWrong.title())]
    NotSettled,
    /// As the vault says.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl Engine {
    /// Makes a settled sale's customers unknown for good; doing it twice is doing it once. Other processes of a cluster forget them a
    /// moment later. Blocks.
    pub fn anonymise(&self, sale: &Sale) -> Result<(), AnonymiseError> {
        if sale.view().phase() < SalePhase::Settled {
            return Err(AnonymiseError::NotSettled);
        }
        if self.vault.anonymise_sale(sale.ordinal)? {
            tracing::info!(sale = sale.name(), "the sale's customers are unknown from here on");
        }
        let secrets = self.vault.with(|vault| vault.sales())?;
        secrets.iter().filter(|secrets| secrets.ordinal == sale.ordinal).for_each(|secrets| sale.forget(secrets));
        Ok(())
    }

    /// Does so for every sale that is settled and was to close so many days ago. Blocks.
    pub fn anonymise_due(&self, days: u64) {
        for sale in self.sales() {
            let due_at = sale.definition().closes_at.plus(days.saturating_mul(DAY_MILLISECONDS));
            let is_due = sale.view().phase() == SalePhase::Settled && self.now() >= due_at.0;
            if is_due
                && sale.anonymised_at().is_none()
                && let Err(error) = self.anonymise(&sale)
            {
                tracing::warn!(sale = sale.name(), %error, "the sale's customers are still known; it is tried again");
            }
        }
    }
}
