//! How a customer appears in one sale: the pseudonym in its chain, and the hash in a pass that matches a renewed token.

use aws_lc_rs::hmac;
use domain::{Pseudonym, SaleId};

use crate::keys::{derive, derive_mac_key, first, mac};
use crate::private::CustomerSaleKey;

/// One sale's pseudonym key, prepared. Destroying the 32 bytes behind it anonymises the sale.
pub struct PseudonymKey {
    key: hmac::Key,
}

impl PseudonymKey {
    /// Prepares the key that `created` commits to.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The customer in this sale: the first 16 bytes of `HMAC-SHA-256(key, length of issuer (u32 LE) || issuer || subject)`.
    pub fn pseudonym(&self, issuer: &str, subject: &str) -> Pseudonym {
        Pseudonym(first(&mac(&self.key, &[&length(issuer), issuer.as_bytes(), subject.as_bytes()])))
    }

    /// The customer's key for this sale, by their key in the vault. It takes both to read what is private in the sale's records, so they stay
    /// closed once either is destroyed. No issuer is as long as the label's first bytes say, so this is nobody's pseudonym.
    pub fn customer_sale_key(&self, customer_key: &[u8; 32], sale: SaleId) -> CustomerSaleKey {
        CustomerSaleKey::derive(&mac(&self.key, &[b"doorbuster customer v1", customer_key]), sale)
    }
}

/// The deployment's key for the identity hashes in passes, and the one under which askers are counted.
pub struct IdentityKey {
    key: hmac::Key,
    counting: [u8; 16],
}

impl IdentityKey {
    /// Derives the key from 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: derive_mac_key(secret, "identity hash"), counting: first(&derive(secret, "counting", &[])) }
    }

    /// Under which all processes of a deployment hash addresses and customers that they count. Its hashes may lie where others read them.
    pub fn counting_key(&self) -> [u8; 16] {
        self.counting
    }

    /// Keyed hash of who somebody is, for one sale: a renewed token is matched with a pass without asking the vault, and two
    /// sales' passes cannot be linked by it.
    pub fn identity_hash(&self, sale: SaleId, issuer: &str, subject: &str) -> [u8; 16] {
        first(&mac(&self.key, &[&sale.0, &length(issuer), issuer.as_bytes(), subject.as_bytes()]))
    }
}

fn length(issuer: &str) -> [u8; 4] {
    u32::try_from(issuer.len()).expect("an issuer is configured and short").to_le_bytes()
}

#[cfg(test)]
mod tests {
    use domain::SaleId;

    use super::{IdentityKey, PseudonymKey};

    #[test]
    fn issuer_and_subject_cannot_be_cut_in_another_way() {
        let key = PseudonymKey::new(&[7; 32]);
        assert_eq!(key.pseudonym("shop", "anna"), key.pseudonym("shop", "anna"));
        assert_ne!(key.pseudonym("shop", "anna"), key.pseudonym("shopa", "nna"));
        assert_ne!(key.pseudonym("shop", "anna"), key.pseudonym("", "shopanna"));
        assert_ne!(key.pseudonym("shop", "anna"), PseudonymKey::new(&[8; 32]).pseudonym("shop", "anna"));
    }

    #[test]
    fn an_identity_hash_belongs_to_one_sale() {
        let key = IdentityKey::new(&[7; 32]);
        let here = key.identity_hash(SaleId([1; 16]), "shop", "anna");
        assert_eq!(here, key.identity_hash(SaleId([1; 16]), "shop", "anna"));
        assert_ne!(here, key.identity_hash(SaleId([2; 16]), "shop", "anna"));
        assert_ne!(here, key.identity_hash(SaleId([1; 16]), "shop", "bert"));
    }
}
