//! Derived keys and MACs over several parts. Callers see to it that the parts cannot be cut in another way.

use aws_lc_rs::{digest, hkdf, hmac};

/// HKDF-SHA-256 of `secret` with the info `context || about`; one secret serves several purposes, each with its own context.
pub(crate) fn derive(secret: &[u8; 32], context: &str, about: &[u8]) -> [u8; 32] {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"doorbuster keys v1").extract(secret);
    let info = [context.as_bytes(), about];
    let mut derived = [0; 32];
    extracted
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|key| key.fill(&mut derived))
        .expect("HKDF-SHA-256 gives 32 bytes for any info");
    derived
}

/// The derived key of that context, prepared for HMAC-SHA-256.
pub(crate) fn derive_mac_key(secret: &[u8; 32], context: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derive(secret, context, &[]))
}

/// HMAC-SHA-256 over the concatenated parts.
pub(crate) fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// SHA-256 over the concatenated parts.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.copy_from_slice(context.finish().as_ref());
    output
}

/// The first `N` bytes of a MAC or hash.
pub(crate) fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) };
    let mut prefix = [0; N];
    prefix.copy_from_slice(&bytes[..N]);
    prefix
}

/// Splits the first `N` bytes off; the caller has checked that there are as many.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("the length was checked before the fields are read");
    *bytes = rest;
    *taken
}
