//! Purchase and order ids, inside and outside. An id alone finds its sale, since it carries the sale's ordinal masked.
//!
//! The key behind them never rotates: an id that a customer wrote down has to work for as long as the sale is kept.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use domain::{Pseudonym, PurchaseId, PurchaseNumber, SaleId, SaleOrdinal, limits};

use crate::keys::{derive, derive_mac_key, first, mac, take};

/// Logical shards of orders, over any number of servers.
pub const SHARDS: u16 = 1_024;

const PURCHASE_PREFIX: &str = "pu_";
const PURCHASE_BYTES: usize = 24;
const ORDER_PREFIX: &str = "or_";
/// Sale, number and shard; the rest of an order id's block is zero, and a block that these keys did not make is not.
const ORDER_PAYLOAD_BYTES: usize = 10;
/// One block of AES.
const BLOCK_BYTES: usize = 16;

/// The logical shard of a customer's orders in one sale, 0 to 1,023.
pub fn shard_of(customer: Pseudonym) -> u16 {
    u16::try_from(customer.fingerprint() % u64::from(SHARDS)).expect("a remainder of 1,024 fits 16 bits")
}

/// The keys of all ids, derived from one secret and prepared.
pub struct IdKeys {
    purchase: hmac::Key,
    pending: hmac::Key,
    coupon: hmac::Key,
    pub(crate) stream: hmac::Key,
    purchase_mask: EncryptingKey,
    purchase_mac: EncryptingKey,
    order: EncryptingKey,
    order_back: DecryptingKey,
    human: [u8; 32],
}

impl IdKeys {
    /// Derives the keys from the deployment's id key.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            purchase: derive_mac_key(secret, "purchase id"),
            pending: derive_mac_key(secret, "pending ticket"),
            coupon: derive_mac_key(secret, "coupon"),
            stream: derive_mac_key(secret, "stream ticket"),
            purchase_mask: encrypting(secret, "purchase mask"),
            purchase_mac: encrypting(secret, "purchase mac"),
            order: encrypting(secret, "order"),
            human: derive(secret, "human check", &[]),
            order_back: DecryptingKey::ecb(cipher_key(secret, "order")).expect("AES-256 has this mode"),
        }
    }

    /// The secret that human checks are made and judged with; the same on every gate.
    pub fn human_check_secret(&self) -> &[u8; 32] {
        &self.human
    }

    /// What this customer means by this idempotency key: the purchase's id, and the key as the chain shows it. Equal inputs give the
    /// same on every gate, for ever.
    ///
    /// Bytes 0 to 11 and 12 to 27 of `HMAC-SHA-256(k, "doorbuster purchase v1" || sale || pseudonym || key)`.
    pub fn bind_key(&self, sale: SaleId, customer: Pseudonym, key: &[u8]) -> (PurchaseId, [u8; 16]) {
        let bound: [u8; 28] = first(&mac(&self.purchase, &[b"doorbuster purchase v1", &sale.0, &customer.0, key]));
        let (mut purchase, mut key_hash) = ([0; 12], [0; 16]);
        purchase.copy_from_slice(&bound[..12]);
        key_hash.copy_from_slice(&bound[12..]);
        (PurchaseId(purchase), key_hash)
    }

    /// A coupon's code as the chain shows it: a number below 2^53 that only this deployment can make, and never zero, which is no coupon.
    ///
    /// The first eight bytes of `HMAC-SHA-256(k, "doorbuster coupon v1" || sale || code)`, little-endian, without the upper 11 bits.
    pub fn coupon_hash(&self, sale: SaleId, code: &str) -> u64 {
        let front: [u8; 8] = first(&mac(&self.coupon, &[b"doorbuster coupon v1", &sale.0, code.as_bytes()]));
        (u64::from_le_bytes(front) & limits::INTEGER_MAX).max(1)
    }

    /// Proves that this customer was told `pending` for this purchase, and when (Unix seconds): 16 bytes of MAC and 4 of time.
    pub fn pending_ticket(&self, sale: SaleId, customer: Pseudonym, purchase: PurchaseId, at: u32) -> [u8; 20] {
        let at = at.to_le_bytes();
        let mac: [u8; 16] =
            first(&mac(&self.pending, &[b"doorbuster pending v2", &sale.0, &customer.0, &purchase.0, &at]));
        let mut ticket = [0; 20];
        ticket[..16].copy_from_slice(&mac);
        ticket[16..].copy_from_slice(&at);
        ticket
    }

    /// The purchase id that leaves the engine: `"pu_"` and base64url of masked ordinal (4), bare id (12), MAC over both (8).
    ///
    /// A reader without keys finds the bare id in bytes 4 to 15, as the chain has it, but cannot make a valid id from a chain.
    pub fn public_purchase(&self, sale: SaleOrdinal, purchase: PurchaseId) -> String {
        let ordinal = sale.0.to_be_bytes();
        let mut bytes = [0; PURCHASE_BYTES];
        bytes[..4].copy_from_slice(&exclusive_or(ordinal, self.purchase_mask(purchase)));
        bytes[4..16].copy_from_slice(&purchase.0);
        bytes[16..].copy_from_slice(&self.purchase_mac(ordinal, purchase));
        text(PURCHASE_PREFIX, &bytes)
    }

    /// Reads an id of [`Self::public_purchase`]; `None` for anything that these keys did not make.
    pub fn parse_purchase(&self, id: &str) -> Option<(SaleOrdinal, PurchaseId)> {
        let bytes: [u8; PURCHASE_BYTES] = bytes_of(PURCHASE_PREFIX, id)?;
        let mut rest = &bytes[..];
        let masked: [u8; 4] = take(&mut rest);
        let purchase = PurchaseId(take(&mut rest));
        let ordinal = exclusive_or(masked, self.purchase_mask(purchase));
        verify_slices_are_equal(&self.purchase_mac(ordinal, purchase), rest).ok()?;
        Some((SaleOrdinal(u32::from_be_bytes(ordinal)), purchase))
    }

    /// The order id that leaves the engine: `"or_"` and base64url of one AES-256 block that holds sale (4), number (4), shard (2) and
    /// six zeros, so ids neither count orders nor can be guessed.
    pub fn public_order(&self, sale: SaleOrdinal, number: PurchaseNumber, shard: u16) -> String {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&sale.0.to_be_bytes());
        block[4..8].copy_from_slice(&number.0.to_be_bytes());
        block[8..ORDER_PAYLOAD_BYTES].copy_from_slice(&shard.to_be_bytes());
        text(ORDER_PREFIX, &encrypt(&self.order, block))
    }

    /// Reads an id of [`Self::public_order`]; `None` for anything that these keys did not make.
    pub fn parse_order(&self, id: &str) -> Option<(SaleOrdinal, PurchaseNumber, u16)> {
        let mut block: [u8; BLOCK_BYTES] = bytes_of(ORDER_PREFIX, id)?;
        self.order_back.decrypt(&mut block, DecryptionContext::None).ok()?;
        let (payload, zeros) = block.split_at(ORDER_PAYLOAD_BYTES);
        verify_slices_are_equal(zeros, &[0; BLOCK_BYTES - ORDER_PAYLOAD_BYTES]).ok()?;
        let mut fields = payload;
        let sale = SaleOrdinal(u32::from_be_bytes(take(&mut fields)));
        let number = PurchaseNumber(u32::from_be_bytes(take(&mut fields)));
        Some((sale, number, u16::from_be_bytes(take(&mut fields))))
    }

    fn purchase_mask(&self, purchase: PurchaseId) -> [u8; 4] {
        let mut block = [0; BLOCK_BYTES];
        block[..12].copy_from_slice(&purchase.0);
        take(&mut &encrypt(&self.purchase_mask, block)[..])
    }

    /// Ordinal and id fill one block exactly, so one encryption is a MAC of them.
    fn purchase_mac(&self, ordinal: [u8; 4], purchase: PurchaseId) -> [u8; 8] {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(&ordinal);
        block[4..].copy_from_slice(&purchase.0);
        take(&mut &encrypt(&self.purchase_mac, block)[..])
    }
}

fn cipher_key(secret: &[u8; 32], context: &str) -> UnboundCipherKey {
    UnboundCipherKey::new(&AES_256, &derive(secret, context, &[])).expect("AES-256 takes any 32 bytes")
}

fn encrypting(secret: &[u8; 32], context: &str) -> EncryptingKey {
    EncryptingKey::ecb(cipher_key(secret, context)).expect("AES-256 has this mode")
}

/// One block, never two under each other: what makes this mode unfit for texts does not arise.
fn encrypt(key: &EncryptingKey, mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    key.encrypt(&mut block).expect("one block is a whole number of blocks");
    block
}

fn exclusive_or<const N: usize>(mut bytes: [u8; N], mask: [u8; N]) -> [u8; N] {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    bytes
}

pub(crate) fn text(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + BASE64URL_NOPAD.encode_len(bytes.len()));
    text.push_str(prefix);
    BASE64URL_NOPAD.encode_append(bytes, &mut text);
    text
}

pub(crate) fn bytes_of<const N: usize>(prefix: &str, id: &str) -> Option<[u8; N]> {
    let encoded = id.strip_prefix(prefix)?;
    if encoded.len() != BASE64URL_NOPAD.encode_len(N) {
        return None;
    }
    let mut bytes = [0; N];
    BASE64URL_NOPAD.decode_mut(encoded.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}
