//! Signed heads, and the commitments that a sale makes before it opens.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use domain::ids::Hash;
use domain::{ChainTime, Pseudonym, SaleId};

use crate::batch::{BatchHeader, hash};

const HEAD_CONTEXT: &[u8] = b"doorbuster head v1\0";

/// The chain's hash after a batch, with the sale's signature over it and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// Whose chain.
    pub sale: SaleId,
    /// Part of the sale.
    pub partition: u32,
    /// The writer's epoch.
    pub epoch: u64,
    /// Number of the first record after the batch.
    pub next: u64,
    /// The batch's chain time.
    pub time: ChainTime,
    /// The hash.
    pub head: Hash,
    /// Ed25519 over [`SignedHead::message`].
    pub signature: [u8; 64],
}

impl SignedHead {
    /// What is signed: `"doorbuster head v1\0" || sale || partition || epoch || next || time || head`, little-endian.
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEAD_CONTEXT.len() + 76);
        message.extend(HEAD_CONTEXT);
        message.extend(self.sale.0);
        message.extend(self.partition.to_le_bytes());
        message.extend(self.epoch.to_le_bytes());
        message.extend(self.next.to_le_bytes());
        message.extend(self.time.0.to_le_bytes());
        message.extend(self.head);
        message
    }

    /// Whether the owner of `key` signed this head.
    pub fn is_signed_by(&self, key: &Hash) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(&self.message(), &self.signature).is_ok()
    }
}

/// Signs the heads of one sale.
#[derive(Clone)]
pub struct HeadSigner {
    pair: Arc<Ed25519KeyPair>,
}

impl HeadSigner {
    /// The signer whose Ed25519 seed is `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed");
        Self { pair: Arc::new(pair) }
    }

    /// The public key that verifies this signer's heads.
    pub fn public_key(&self) -> Hash {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }

    /// Signs a JSON Web Signature's input (RFC 7515). That is text which begins with `eyJ`; the message of a head begins otherwise, so neither
    /// can be taken for the other.
    pub fn sign_token(&self, input: &str) -> [u8; 64] {
        assert!(input.starts_with("eyJ"), "a token's input begins with its header, a JSON object in base64url");
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(input.as_bytes()).as_ref());
        signature
    }

    pub(crate) fn sign(&self, header: &BatchHeader, head: Hash) -> SignedHead {
        let mut signed = SignedHead {
            sale: header.sale,
            partition: header.partition,
            epoch: header.epoch,
            next: header.next(),
            time: header.time,
            head,
            signature: [0; 64],
        };
        let signature = self.pair.sign(&signed.message());
        signed.signature.copy_from_slice(signature.as_ref());
        signed
    }
}

/// The commitment to a sale's slot secret that stands in `created`.
pub fn slot_commitment(sale: SaleId, secret: &Hash) -> Hash {
    hash(&[b"doorbuster slot secret v1", &sale.0, secret])
}

/// The commitment to a sale's pseudonym key that stands in `created`.
pub fn pseudonym_commitment(sale: SaleId, key: &Hash) -> Hash {
    hash(&[b"doorbuster pseudonym key v1", &sale.0, key])
}

/// A customer's slot in milliseconds after the opening: the first eight bytes of
/// `HMAC-SHA-256(slot secret, "doorbuster slot v1" || pseudonym)`, little-endian, modulo `spread + 1`.
pub fn slot_offset(secret: &Hash, customer: Pseudonym, spread_milliseconds: u64) -> u32 {
    let offset = draw(secret, &[b"doorbuster slot v1", &customer.0], spread_milliseconds);
    u32::try_from(offset).expect("a definition's spread fits 32 bits")
}

/// How long units that came back rest before strangers may have them, in milliseconds: drawn as a slot is, from
/// `"doorbuster resale v1" || number of the first record that is not part of it yet (u64) || item (u16)`, modulo `delay + 1`. Every gate
/// draws the same, and nobody else can before the secret is revealed.
pub fn resale_offset(secret: &Hash, next: u64, item: u16, delay_milliseconds: u64) -> u64 {
    draw(secret, &[b"doorbuster resale v1", &next.to_le_bytes(), &item.to_le_bytes()], delay_milliseconds)
}

fn draw(secret: &Hash, parts: &[&[u8]], max: u64) -> u64 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    let mut drawn = [0; 8];
    drawn.copy_from_slice(&tag.as_ref()[..8]);
    u64::from_le_bytes(drawn) % (max + 1)
}
