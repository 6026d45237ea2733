//! Who asks: what `gate` says of a token, with the shop's published keys as they were last fetched.

use domain::Refusal;
use gate::{Disbelief, Identity, IdentityVerifier, KeySet};
use keyring::{Absence, Keyring};

/// Believes access tokens. No lock, and no waiting for the shop.
pub struct Identities {
    verifier: IdentityVerifier,
    keyring: Option<Keyring>,
    none: KeySet,
}

impl Identities {
    pub(crate) fn new(verifier: IdentityVerifier, keyring: Option<Keyring>) -> Self {
        Self { verifier, keyring, none: KeySet::default() }
    }

    /// Who the bearer of `token` is at `now` (Unix milliseconds). Refuses with `TokenInvalid`, `TokenExpired`, or `IdentityUnavailable`
    /// where only the shop could tell.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, Refusal> {
        let verified = match self.verified(token, now) {
            Err(Disbelief::KeyUnknown) => match self.keyring.as_ref().map(Keyring::miss) {
                Some(Absence::Unsure) => return Err(Refusal::IdentityUnavailable),
                // The keys may have come between the two questions.
                Some(Absence::Certain) | None => self.verified(token, now),
            },
            judged => judged,
        };
        verified.map_err(|disbelief| match disbelief {
            Disbelief::Refused(refusal) => refusal,
            Disbelief::KeyUnknown => Refusal::TokenInvalid,
        })
    }

    fn verified(&self, token: &str, now: u64) -> Result<Identity, Disbelief> {
        match &self.keyring {
            Some(keyring) => keyring.with(|keys| self.verifier.verify(token, keys, now)),
            None => self.verifier.verify(token, &self.none, now),
        }
    }
}
