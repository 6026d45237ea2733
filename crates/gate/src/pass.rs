//! The pass: a short-lived MAC token bound to one customer and one sale, taken once and shown with every purchase.
//!
//! Opening one stands in front of every purchase, so it costs one decoding into a buffer on the stack and one MAC; the key inside
//! is unsealed only for a win. Nothing here looks at the time: a spent or expired pass still serves the key look-up.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use domain::{ChainTime, Pseudonym, Refusal, SaleOrdinal};

use crate::keys::{derive, derive_mac_key, first, hash, mac, take};
use crate::private::CustomerSaleKey;

const PREFIX: &str = "dp_";
const VERSION: u8 = 1;
const SEALED_BYTES: usize = NONCE_LEN + 32 + 16;
const MAC_BYTES: usize = 16;
/// version, key, sale, customer, number, slot, expiry, token hash, identity hash, token's expiry, sealed key.
const SIGNED_BYTES: usize = 1 + 2 + 4 + 16 + 8 + 4 + 8 + 16 + 16 + 8 + SEALED_BYTES;
const TOKEN_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
const ENCODED_BYTES: usize = TOKEN_BYTES / 3 * 4;
/// Whole groups of three bytes leave base64 no spare bits, so one pass has one spelling.
const _: () = assert!(TOKEN_BYTES.is_multiple_of(3));
/// In the place of the token's expiry: it has none.
const NO_EXPIRY: u64 = u64::MAX;

/// What a pass says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The sale that it is for.
    pub sale: SaleOrdinal,
    /// Whose it is, in that sale.
    pub customer: Pseudonym,
    /// Its own number; grants are counted against it.
    pub number: u64,
    /// The customer's slot in milliseconds after the sale's opening.
    pub slot_offset: u32,
    /// From when it grants nothing more.
    pub expires_at: ChainTime,
    /// [`token_hash`] of the access token that it was taken with.
    pub token_hash: [u8; 16],
    /// `IdentityKey::identity_hash` of its owner.
    pub identity_hash: [u8; 16],
    /// Until when that access token is believed, in milliseconds since the Unix epoch; `None`: for ever.
    pub token_expires_at_milliseconds: Option<u64>,
}

impl Pass {
    /// Whether `bearer` is the very access token that the pass was taken with. Its expiry is the caller's to check.
    pub fn matches_token(&self, bearer: &str) -> bool {
        verify_slices_are_equal(&token_hash(bearer), &self.token_hash).is_ok()
    }
}

/// The first 16 bytes of SHA-256 of an access token.
pub fn token_hash(bearer: &str) -> [u8; 16] {
    first(&hash(&[bearer.as_bytes()]))
}

/// Why a token is not a pass of ours. Definite; the customer takes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// Not the form of a pass of this version.
    #[error("this is not a pass")]
    Malformed,
    /// Made under a key that has been retired.
    #[error("the pass was made under key {0}, which is not known")]
    KeyUnknown(u16),
    /// The MAC is wrong, or the key inside does not unseal.
    #[error("the pass was not made by this shop")]
    Forged,
}

impl PassError {
    /// What the customer is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Malformed | Self::KeyUnknown(_) | Self::Forged => Refusal::PassInvalid,
        }
    }
}

/// One generation of pass keys.
#[derive(Clone)]
pub struct PassKey {
    /// The number by which a pass names it; never used twice for different secrets.
    pub id: u16,
    /// 32 random bytes, from which the MAC's and the seal's keys are derived.
    pub secret: [u8; 32],
}

struct Prepared {
    id: u16,
    mac: hmac::Key,
    seal: LessSafeKey,
    seal_nonce: hmac::Key,
}

impl Prepared {
    fn new(key: &PassKey) -> Self {
        let seal = derive(&key.secret, "pass seal", &[]);
        Self {
            id: key.id,
            mac: derive_mac_key(&key.secret, "pass mac"),
            seal: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &seal).expect("AES-256 takes any 32 bytes")),
            seal_nonce: derive_mac_key(&key.secret, "pass seal nonce"),
        }
    }

    /// Nonce, ciphertext, tag. The nonce is a MAC of the text, so no two texts share one and no randomness is needed.
    fn seal(&self, key: &CustomerSaleKey) -> [u8; SEALED_BYTES] {
        let nonce: [u8; NONCE_LEN] = first(&mac(&self.seal_nonce, &[key.as_bytes()]));
        let mut text = *key.as_bytes();
        let tag = self
            .seal
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .expect("AES-GCM seals any text shorter than 64 GiB");
        let mut sealed = [0; SEALED_BYTES];
        sealed[..NONCE_LEN].copy_from_slice(&nonce);
        sealed[NONCE_LEN..NONCE_LEN + 32].copy_from_slice(&text);
        sealed[NONCE_LEN + 32..].copy_from_slice(tag.as_ref());
        sealed
    }

    fn unseal(&self, mut sealed: [u8; SEALED_BYTES]) -> Option<CustomerSaleKey> {
        let (nonce, text) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.seal.open_in_place(nonce, Aad::empty(), text).ok()?;
        Some(CustomerSaleKey::from_bytes((&*opened).try_into().ok()?))
    }
}

/// The pass keys of a deployment: one makes passes, it and the older ones open them.
pub struct PassKeys {
    /// The active key first; few enough to walk through.
    keys: Vec<Prepared>,
}

impl PassKeys {
    /// Prepares the keys; `older` are those whose passes may still be about.
    pub fn new(active: &PassKey, older: &[PassKey]) -> Self {
        Self { keys: std::iter::once(active).chain(older).map(Prepared::new).collect() }
    }

    /// Makes the token, 215 characters of the URL-safe alphabet. `key` travels inside, readable only by these keys.
    pub fn seal(&self, pass: &Pass, key: &CustomerSaleKey) -> String {
        let active = &self.keys[0];
        let sealed = active.seal(key);
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(VERSION);
        bytes.extend(active.id.to_le_bytes());
        bytes.extend(pass.sale.0.to_le_bytes());
        bytes.extend(pass.customer.0);
        bytes.extend(pass.number.to_le_bytes());
        bytes.extend(pass.slot_offset.to_le_bytes());
        bytes.extend(pass.expires_at.0.to_le_bytes());
        bytes.extend(pass.token_hash);
        bytes.extend(pass.identity_hash);
        bytes.extend(pass.token_expires_at_milliseconds.unwrap_or(NO_EXPIRY).to_le_bytes());
        bytes.extend(sealed);
        let tag: [u8; MAC_BYTES] = first(&mac(&active.mac, &[&bytes]));
        bytes.extend(tag);
        let mut token = String::with_capacity(PREFIX.len() + ENCODED_BYTES);
        token.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut token);
        token
    }

    /// Opens a token that one of these keys made, whether or not it has expired. Allocates nothing.
    pub fn open(&self, token: &str) -> Result<OpenPass, PassError> {
        let encoded = token.strip_prefix(PREFIX).ok_or(PassError::Malformed)?;
        if encoded.len() != ENCODED_BYTES {
            return Err(PassError::Malformed);
        }
        let mut bytes = [0; TOKEN_BYTES];
        BASE64URL_NOPAD.decode_mut(encoded.as_bytes(), &mut bytes).map_err(|_| PassError::Malformed)?;
        let (signed, tag) = bytes.split_at(SIGNED_BYTES);
        let mut rest = signed;
        if take::<1>(&mut rest) != [VERSION] {
            return Err(PassError::Malformed);
        }
        let key_id = u16::from_le_bytes(take(&mut rest));
        let key = self.keys.iter().find(|key| key.id == key_id).ok_or(PassError::KeyUnknown(key_id))?;
        let expected: [u8; MAC_BYTES] = first(&mac(&key.mac, &[signed]));
        verify_slices_are_equal(&expected, tag).map_err(|_| PassError::Forged)?;
        let pass = Pass {
            sale: SaleOrdinal(u32::from_le_bytes(take(&mut rest))),
            customer: Pseudonym(take(&mut rest)),
            number: u64::from_le_bytes(take(&mut rest)),
            slot_offset: u32::from_le_bytes(take(&mut rest)),
            expires_at: ChainTime(u64::from_le_bytes(take(&mut rest))),
            token_hash: take(&mut rest),
            identity_hash: take(&mut rest),
            token_expires_at_milliseconds: Some(u64::from_le_bytes(take(&mut rest))).filter(|&at| at != NO_EXPIRY),
        };
        Ok(OpenPass { pass, key_id, sealed_key: take(&mut rest) })
    }
}

/// A pass that has been believed, with the customer's key still sealed inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPass {
    /// What it says.
    pub pass: Pass,
    key_id: u16,
    sealed_key: [u8; SEALED_BYTES],
}

impl OpenPass {
    /// Unseals the key under which a win's private part is encrypted; `keys` are those that opened the pass.
    pub fn customer_sale_key(&self, keys: &PassKeys) -> Result<CustomerSaleKey, PassError> {
        let key = keys.keys.iter().find(|key| key.id == self.key_id).ok_or(PassError::KeyUnknown(self.key_id))?;
        key.unseal(self.sealed_key).ok_or(PassError::Forged)
    }
}
