//! Who is behind an order, and what they sent along: read from the vault and from the order's record, for the shop that hands it over.

use admission::Grant;
use gate::private::{PrivateError, PrivateText, open_private};
use ledger::VaultError;

use crate::engine::Engine;
use crate::sale::{ChainReadError, Sale};

/// The customer of an order.
#[derive(Debug)]
pub struct Buyer {
    /// The tokens' `iss`.
    pub issuer: String,
    /// The tokens' `sub`.
    pub subject: String,
    /// What the shop wanted to keep with the purchase, a JSON object. `None`: nothing, or it was sealed before the customer was erased once.
    pub attributes: Option<String>,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BuyerError {
    /// As the vault says.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The order's record could not be read.
    #[error(transparent)]
    Chain(#[from] ChainReadError),
    /// The record's private part is not what the record commits to.
    #[error("record {0}: its private part is damaged")]
    Damaged(u64),
}

impl Engine {
    /// The customer behind an order; `None` once they are erased. Blocks.
    pub fn buyer(&self, sale: &Sale, grant: &Grant) -> Result<Option<Buyer>, BuyerError> {
        let known = self.vault.with(|vault| vault.customer_of(sale.ordinal, grant.customer))?;
        let Some(known) = known else { return Ok(None) };
        let attributes = match sale.sealed_part(grant.record)? {
            Some((held, sealed)) => {
                let key = sale.customer_sale_key(&known.key);
                match open_private(&key, held.purchase, &held.body_hash, &sealed.commitment, &sealed.sealed) {
                    Ok(bytes) => PrivateText::parse(&bytes).and_then(|text| text.attributes.map(str::to_owned)),
                    // Whoever was erased and came back has another key.
                    Err(PrivateError::Sealed) => None,
                    Err(PrivateError::Commitment) => return Err(BuyerError::Damaged(grant.record)),
                }
            }
            None => None,
        };
        Ok(Some(Buyer { issuer: known.issuer, subject: known.subject, attributes }))
    }
}
