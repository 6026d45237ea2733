//! The private part of a record: encrypted for one customer in one sale, and committed to, so that the chain verifies without it.
//!
//! Deleting a customer's key in the vault makes every private part of theirs unreadable and changes no hash.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use domain::ids::Hash;
use domain::{PurchaseId, SaleId};

use crate::keys::{derive, first, hash, mac};

const TAG_BYTES: usize = 16;

/// A customer's key for one sale; a pass carries it sealed, so that a purchase never asks the vault. Its first half encrypts, its
/// second half draws nonces and salts.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomerSaleKey([u8; 32]);

impl CustomerSaleKey {
    /// `HKDF(key, sale)`. In a sale the key is made of the customer's and the sale's: see [`crate::PseudonymKey::customer_sale_key`].
    pub fn derive(customer_key: &[u8; 32], sale: SaleId) -> Self {
        Self(derive(customer_key, "customer sale key", &sale.0))
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.0[..16]).expect("AES-128 takes any 16 bytes"))
    }

    /// Stands for attributes in the hash of a body, which is public: without the customer's key nobody can try what they might have been.
    pub fn attributes_hash(&self, attributes: &str) -> [u8; 16] {
        first(&mac(&self.drawing(), &[b"doorbuster attributes v1", attributes.as_bytes()]))
    }

    fn drawing(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0[16..])
    }
}

impl std::fmt::Debug for CustomerSaleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerSaleKey(secret)")
    }
}

/// Why a private part cannot be read. Definite: trying again gives the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateError {
    /// Sealed under another key, for another purchase or body, or damaged.
    #[error("the private part does not open under this key for this purchase")]
    Sealed,
    /// The text opens and is not what the record committed to.
    #[error("the private part is not what the record commits to")]
    Commitment,
}

/// What stands in the private part of a `held` record, as text: the idempotency key, and behind a zero byte the attributes, if there are any.
/// The key is printable ASCII, so the first zero byte ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrivateText<'a> {
    /// As the customer sent it.
    pub key: &'a str,
    /// A JSON object, as it came.
    pub attributes: Option<&'a str>,
}

impl<'a> PrivateText<'a> {
    /// The bytes to seal.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.key.as_bytes().to_vec();
        if let Some(attributes) = self.attributes {
            bytes.push(0);
            bytes.extend(attributes.as_bytes());
        }
        bytes
    }

    /// What was sealed; `None` where it is not UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (key, attributes) = text.split_once('\0').map_or((text, None), |(key, rest)| (key, Some(rest)));
        Some(Self { key, attributes })
    }
}

/// Encrypts a record's private part: the commitment `SHA-256(salt || plaintext)`, and nonce, ciphertext and tag.
///
/// The cipher is AES-128-GCM. Nonce (12 bytes) and salt (20 bytes) are
/// `HMAC-SHA-256(second half of the key, "doorbuster salt v1" || purchase || body hash || plaintext)`, so equal inputs give equal
/// bytes, and no two different texts ever share a nonce, even when a purchase is decided anew.
pub fn seal_private(
    key: &CustomerSaleKey,
    purchase: PurchaseId,
    body_hash: &[u8; 16],
    plaintext: &[u8],
) -> (Hash, Vec<u8>) {
    let (nonce, salt) = nonce_and_salt(key, purchase, body_hash, plaintext);
    let mut sealed = Vec::with_capacity(NONCE_LEN + plaintext.len() + TAG_BYTES);
    sealed.extend(nonce);
    sealed.extend(plaintext);
    let tag = key
        .cipher()
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purchase.0),
            &mut sealed[NONCE_LEN..],
        )
        .expect("AES-GCM seals any text shorter than 64 GiB");
    sealed.extend(tag.as_ref());
    (hash(&[&salt, plaintext]), sealed)
}

/// Decrypts what [`seal_private`] gave and checks it against the record's commitment.
pub fn open_private(
    key: &CustomerSaleKey,
    purchase: PurchaseId,
    body_hash: &[u8; 16],
    commitment: &Hash,
    sealed: &[u8],
) -> Result<Vec<u8>, PrivateError> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(PrivateError::Sealed)?;
    let mut plaintext = ciphertext.to_vec();
    let length = key
        .cipher()
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(purchase.0), &mut plaintext)
        .map_err(|_| PrivateError::Sealed)?
        .len();
    plaintext.truncate(length);
    let (expected_nonce, salt) = nonce_and_salt(key, purchase, body_hash, &plaintext);
    verify_slices_are_equal(nonce, &expected_nonce).map_err(|_| PrivateError::Sealed)?;
    if hash(&[&salt, &plaintext]) == *commitment { Ok(plaintext) } else { Err(PrivateError::Commitment) }
}

fn nonce_and_salt(
    key: &CustomerSaleKey,
    purchase: PurchaseId,
    body_hash: &[u8; 16],
    plaintext: &[u8],
) -> ([u8; NONCE_LEN], [u8; 20]) {
    let drawn = mac(&key.drawing(), &[b"doorbuster salt v1", &purchase.0, body_hash, plaintext]);
    let mut rest = &drawn[..];
    (crate::keys::take(&mut rest), crate::keys::take(&mut rest))
}

#[cfg(test)]
mod tests {
    use domain::{PurchaseId, SaleId};

    use super::{CustomerSaleKey, PrivateError, PrivateText, open_private, seal_private};

    const PURCHASE: PurchaseId = PurchaseId([3; 12]);
    const BODY: [u8; 16] = [4; 16];

    fn key(customer: u8) -> CustomerSaleKey {
        CustomerSaleKey::derive(&[customer; 32], SaleId([9; 16]))
    }

    #[test]
    fn a_private_part_opens_for_its_own_key_purchase_and_body_only() {
        let (commitment, sealed) = seal_private(&key(1), PURCHASE, &BODY, b"anna, size 42");
        let open = |key: &_, purchase, body: &_, commitment: &_| open_private(key, purchase, body, commitment, &sealed);
        assert_eq!(open(&key(1), PURCHASE, &BODY, &commitment).unwrap(), b"anna, size 42");
        assert_eq!(open(&key(2), PURCHASE, &BODY, &commitment), Err(PrivateError::Sealed));
        assert_eq!(open(&key(1), PurchaseId([5; 12]), &BODY, &commitment), Err(PrivateError::Sealed));
        assert_eq!(open(&key(1), PURCHASE, &[5; 16], &commitment), Err(PrivateError::Sealed));
        assert_eq!(open(&key(1), PURCHASE, &BODY, &[0; 32]), Err(PrivateError::Commitment));
        let other_sale = CustomerSaleKey::derive(&[1; 32], SaleId([8; 16]));
        assert_eq!(open(&other_sale, PURCHASE, &BODY, &commitment), Err(PrivateError::Sealed));
    }

    #[test]
    fn a_private_text_comes_back_with_and_without_attributes() {
        for attributes in [None, Some("{}"), Some(r#"{"size":"42","engraving":"zero \\u0000"}"#)] {
            let text = PrivateText { key: "key-1", attributes };
            assert_eq!(PrivateText::parse(&text.to_bytes()), Some(text));
        }
        assert_eq!(PrivateText { key: "key-1", attributes: None }.to_bytes(), b"key-1");
        assert_eq!(PrivateText::parse(&[0xff]), None);
    }

    #[test]
    fn attributes_cannot_be_recognised_without_the_customers_key() {
        let hash = key(1).attributes_hash(r#"{"size":"42"}"#);
        assert_eq!(hash, key(1).attributes_hash(r#"{"size":"42"}"#));
        assert_ne!(hash, key(1).attributes_hash(r#"{"size":"43"}"#));
        assert_ne!(hash, key(2).attributes_hash(r#"{"size":"42"}"#));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_private_part_is_refused() {
        let (commitment, sealed) = seal_private(&key(1), PURCHASE, &BODY, b"anna");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = open_private(&key(1), PURCHASE, &BODY, &commitment, &damaged);
            assert_eq!(opened, Err(PrivateError::Sealed), "bit {bit}");
        }
        for length in 0..sealed.len() {
            let opened = open_private(&key(1), PURCHASE, &BODY, &commitment, &sealed[..length]);
            assert_eq!(opened, Err(PrivateError::Sealed), "cut to {length}");
        }
    }

    #[test]
    fn equal_inputs_seal_alike_and_different_texts_never_share_a_nonce() {
        let once = seal_private(&key(1), PURCHASE, &BODY, b"anna");
        assert_eq!(once, seal_private(&key(1), PURCHASE, &BODY, b"anna"));
        let other = seal_private(&key(1), PURCHASE, &BODY, b"bert");
        assert_ne!(once.1[..12], other.1[..12]);
        assert_eq!(seal_private(&key(1), PURCHASE, &BODY, b"").1.len(), 28);
    }
}
