//! A shop's keys for access tokens: made anew by every test, signed with as well or as wrongly as it wants, published as a JWK set.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key pair and its name.
pub struct ShopKey {
    /// `kid` of its tokens and of its JWK.
    pub id: String,
    pair: Pair,
}

impl ShopKey {
    /// An RSA key of 2048 bits, for RS256.
    pub fn rs256(id: &str) -> Self {
        Self::rsa(id, KeySize::Rsa2048)
    }

    /// An RSA key.
    pub fn rsa(id: &str, size: KeySize) -> Self {
        Self { id: id.to_owned(), pair: Pair::Rsa(RsaKeyPair::generate(size).expect("a key can be made")) }
    }

    /// A key on P-256, for ES256.
    pub fn es256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        Self { id: id.to_owned(), pair: Pair::P256(pair) }
    }

    /// An Ed25519 key, for EdDSA.
    pub fn ed25519(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Ed25519(Ed25519KeyPair::generate().expect("a key can be made")) }
    }

    /// The algorithm's name in tokens.
    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// Its public part, with `kid`, `alg` and `use`.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({ "kty": "RSA", "n": text(n.big_endian_without_leading_zero()),
                        "e": text(e.big_endian_without_leading_zero()) })
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
            Pair::Ed25519(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) }),
        };
        jwk["kid"] = self.id.clone().into();
        jwk["alg"] = self.algorithm().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The signature over those bytes.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).expect("RSA signs");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, bytes).expect("ECDSA signs").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
        }
    }

    /// A token as a shop makes it.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": self.id }).to_string(), claims)
    }

    /// A token with any header at all, signed by this key.
    pub fn token_with(&self, header: &str, claims: &Value) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let signed = format!("{}.{}", part(header), part(&claims.to_string()));
        let signature = BASE64URL_NOPAD.encode(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// The JWK set of those keys.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a ShopKey>) -> String {
    let keys: Vec<_> = keys.into_iter().map(ShopKey::jwk).collect();
    json!({ "keys": keys }).to_string()
}
