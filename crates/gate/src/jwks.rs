//! The public keys that a shop signs its access tokens with, read from a JWK set (RFC 7517).
//!
//! A key is bound to one algorithm here, once, by what the set says of it. What cannot be bound to exactly one of ours, is meant for
//! something else, or shares its name with another key is left out with a reason; the rest of the set is believed all the same, since a
//! shop may publish keys for other systems beside ours. A symmetric or private key is never taken: whoever can read the set could sign.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Bytes of a JWK set.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of a JWK set, those included that are left out.
pub const JWKS_KEYS_MAX: usize = 64;
/// Bytes of a key's name.
pub const KEY_ID_BYTES_MAX: usize = 256;
/// Bits of an RSA modulus: RFC 7518, section 3.3, asks for 2048; beyond 8192 a verification costs too much.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Why a whole set is refused. Definite; whoever has an older one keeps it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// More bytes than any set of keys needs.
    #[error("the set has more than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
    /// Not `{"keys": [...]}`.
    #[error("this is no JWK set: {0}")]
    Unreadable(String),
    /// More keys than any shop signs with.
    #[error("the set has {0} keys; at most {JWKS_KEYS_MAX} are read")]
    TooMany(usize),
    /// Nobody could sign in with it.
    #[error("no key of the set can verify RS256, ES256 or EdDSA: {0}")]
    NoneUsable(String),
}

/// Why one key is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// A member is missing or of the wrong type.
    #[error("its members cannot be read")]
    Unreadable,
    /// `kty`, `crv` or `alg` that are none of ours or do not belong together.
    #[error("it is for none of RS256, ES256 with P-256, EdDSA with Ed25519")]
    Algorithm,
    /// `use` or `key_ops` without verifying.
    #[error("it is not meant for signatures (use, key_ops)")]
    Purpose,
    /// A secret in public.
    #[error("it is a secret or carries its private part, so anybody could sign with it")]
    Secret,
    /// Its name is empty or too long.
    #[error("its kid is empty or has more than {KEY_ID_BYTES_MAX} bytes")]
    Name,
    /// Another key has the same name, and it would be for the token to choose.
    #[error("another key of the set has the same kid")]
    NameTaken,
    /// The key's numbers are not a key of that kind, or one that is too weak or too large.
    #[error("its numbers are no key of 2048 to 8192 bits, or no point of its curve")]
    Numbers,
}

/// One public key and the only algorithm that it is believed with.
#[derive(Clone)]
pub(crate) struct PublicKey {
    id: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// Tells keys apart that come without a name.
    material: Vec<u8>,
    pub(crate) decoding: DecodingKey,
}

/// Public keys that are believed.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// A set as it was read: what is believed, and which keys are not.
pub struct ReadKeys {
    /// The keys that are believed; at least one.
    pub keys: KeySet,
    /// The others by place in the set, with their reasons.
    pub left_out: Vec<(usize, LeftOut)>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a JWK set.
    pub fn read(jwks: &[u8]) -> Result<ReadKeys, JwksError> {
        if jwks.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        let document: Document =
            serde_json::from_slice(jwks).map_err(|error| JwksError::Unreadable(error.to_string()))?;
        if document.keys.len() > JWKS_KEYS_MAX {
            return Err(JwksError::TooMany(document.keys.len()));
        }
        let mut left_out = Vec::new();
        let mut read = Vec::new();
        for (place, value) in document.keys.into_iter().enumerate() {
            match PublicKey::read(value) {
                Ok(key) => read.push((place, key)),
                Err(reason) => left_out.push((place, reason)),
            }
        }
        let keys = without_namesakes(read, &mut left_out);
        if keys.is_empty() {
            let reasons: Vec<_> = left_out.iter().map(|(place, reason)| format!("key {place}: {reason}")).collect();
            let reasons = if reasons.is_empty() { "it is empty".to_owned() } else { reasons.join("; ") };
            return Err(JwksError::NoneUsable(reasons));
        }
        Ok(ReadKeys { keys: Self { keys }, left_out })
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn named(&self, id: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.id.as_deref() == Some(id))
    }

    pub(crate) fn of(&self, algorithm: Algorithm) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |key| key.algorithm == algorithm)
    }
}

/// A name has to name one key, or it would be for the token's header to choose among them.
fn without_namesakes(read: Vec<(usize, PublicKey)>, left_out: &mut Vec<(usize, LeftOut)>) -> Vec<PublicKey> {
    let mut bearers: HashMap<String, usize> = HashMap::new();
    for id in read.iter().filter_map(|(_, key)| key.id.clone()) {
        *bearers.entry(id).or_default() += 1;
    }
    let mut keys = Vec::new();
    for (place, key) in read {
        match &key.id {
            Some(id) if bearers[id] > 1 => left_out.push((place, LeftOut::NameTaken)),
            Some(_) | None => keys.push(key),
        }
    }
    keys
}

impl PublicKey {
    fn read(value: Value) -> Result<Self, LeftOut> {
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| LeftOut::Unreadable)?;
        if jwk.kty == "oct" || jwk.d.is_some() || jwk.k.is_some() {
            return Err(LeftOut::Secret);
        }
        let signs = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = jwk.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !signs || !verifies {
            return Err(LeftOut::Purpose);
        }
        if jwk.kid.as_ref().is_some_and(|id| id.is_empty() || id.len() > KEY_ID_BYTES_MAX) {
            return Err(LeftOut::Name);
        }
        let algorithm = match (jwk.kty.as_str(), jwk.crv.as_deref(), jwk.alg.as_deref()) {
            ("RSA", None, None | Some("RS256")) => Algorithm::RS256,
            ("EC", Some("P-256"), None | Some("ES256")) => Algorithm::ES256,
            ("OKP", Some("Ed25519"), None | Some("EdDSA")) => Algorithm::EdDSA,
            _ => return Err(LeftOut::Algorithm),
        };
        let (material, decoding) = match algorithm {
            Algorithm::RS256 => rsa(&jwk)?,
            Algorithm::ES256 => p256(&jwk)?,
            _ => ed25519(&jwk)?,
        };
        Ok(Self { id: jwk.kid, algorithm, material, decoding })
    }

    /// Whether both are one key, whatever they are called.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.material == other.material
    }
}

fn bytes_of(member: Option<&String>) -> Result<Vec<u8>, LeftOut> {
    let text = member.ok_or(LeftOut::Unreadable)?;
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| LeftOut::Unreadable)
}

fn rsa(jwk: &Jwk) -> Result<(Vec<u8>, DecodingKey), LeftOut> {
    let significant = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        bytes[start..].to_vec()
    };
    let modulus = significant(&bytes_of(jwk.n.as_ref())?);
    let exponent = significant(&bytes_of(jwk.e.as_ref())?);
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    // The library takes odd exponents from 3 to below 2^33; 65537 is what everybody uses.
    let exponent_is_good =
        (1..=4).contains(&exponent.len()) && exponent.last().is_some_and(|last| last % 2 == 1) && exponent != [1];
    let modulus_is_odd = modulus.last().is_some_and(|last| last % 2 == 1);
    if !RSA_BITS.contains(&bits) || !exponent_is_good || !modulus_is_odd {
        return Err(LeftOut::Numbers);
    }
    let decoding = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
    let material = [modulus, exponent].concat();
    Ok((material, decoding))
}

fn p256(jwk: &Jwk) -> Result<(Vec<u8>, DecodingKey), LeftOut> {
    let (x, y) = (bytes_of(jwk.x.as_ref())?, bytes_of(jwk.y.as_ref())?);
    if x.len() != 32 || y.len() != 32 {
        return Err(LeftOut::Numbers);
    }
    let point = [&[4][..], &x, &y].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(|_| LeftOut::Numbers)?;
    // In the library's words a point is the "DER" of such a key.
    let decoding = DecodingKey::from_ec_der(&point);
    Ok((point, decoding))
}

fn ed25519(jwk: &Jwk) -> Result<(Vec<u8>, DecodingKey), LeftOut> {
    let point = bytes_of(jwk.x.as_ref())?;
    if point.len() != 32 {
        return Err(LeftOut::Numbers);
    }
    ParsedPublicKey::new(&ED25519, &point).map_err(|_| LeftOut::Numbers)?;
    let decoding = DecodingKey::from_ed_der(&point);
    Ok((point, decoding))
}
