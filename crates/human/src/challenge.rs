//! The sealed challenge. Sale and customer are not written into it but signed with it, so one that somebody else presents, or for another
//! sale, is as good as made up.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::{ChainTime, HumanCheck, Pseudonym, SaleId};

use crate::drawn;

const PREFIX: &str = "hc_";
const SIGNED_BYTES: usize = 1 + 1 + 4 + 8 + 8 + 16 + 16;
const MAC_BYTES: usize = 18;
const CHALLENGE_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
/// Whole groups of three bytes leave base64 no spare bits, so one challenge has one spelling.
const _: () = assert!(CHALLENGE_BYTES.is_multiple_of(3));

/// A question to one customer of one sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What is asked.
    pub check: HumanCheck,
    /// How hard it is, from 0.
    pub level: u8,
    /// Of a proof of work: rounds of one try.
    pub rounds: u32,
    /// When it was given out.
    pub issued_at: ChainTime,
    /// From when on no answer counts.
    pub expires_at: ChainTime,
    /// Tells it from every other.
    pub id: [u8; 16],
    /// What the question follows from: random, or the place of a picture that many may get.
    pub seed: [u8; 16],
}

/// The keys of all checks, derived from one secret and prepared.
pub struct CheckKeys {
    challenge: hmac::Key,
    pub(crate) question: hmac::Key,
    /// The proof's own signature is made and checked with it within one call.
    pub(crate) proof: String,
}

impl Challenge {
    /// A new one, with an id and a seed of its own.
    pub fn new(check: HumanCheck, level: u8, issued_at: ChainTime, lifetime_milliseconds: u64) -> Self {
        let expires_at = issued_at.plus(lifetime_milliseconds);
        Self { check, level, rounds: 0, issued_at, expires_at, id: drawn(), seed: drawn() }
    }
}

impl CheckKeys {
    /// Derives the keys from the deployment's secret for checks.
    pub fn new(secret: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = |context: &str| hmac::sign(&root, context.as_bytes());
        let key = |context: &str| hmac::Key::new(hmac::HMAC_SHA256, derived(context).as_ref());
        Self {
            challenge: key("human challenge v1"),
            question: key("human question v1"),
            proof: HEXLOWER.encode(derived("human proof v1").as_ref()),
        }
    }

    /// `"hc_"` and base64url of check (1), level (1), rounds (4), issue and end in Unix milliseconds (8 each), id (16), seed (16), and 18
    /// bytes of a MAC over sale, customer and all of these; numbers are little-endian.
    pub fn seal(&self, sale: SaleId, customer: Pseudonym, challenge: &Challenge) -> String {
        let mut bytes = Vec::with_capacity(CHALLENGE_BYTES);
        bytes.extend([number_of(challenge.check), challenge.level]);
        bytes.extend(challenge.rounds.to_le_bytes());
        bytes.extend(challenge.issued_at.0.to_le_bytes());
        bytes.extend(challenge.expires_at.0.to_le_bytes());
        bytes.extend(challenge.id);
        bytes.extend(challenge.seed);
        let mac = self.mac(sale, customer, &bytes);
        bytes.extend(mac);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads a challenge, whether it has expired or not; `None` for anything that these keys did not make for this customer in this sale.
    pub fn open(&self, sale: SaleId, customer: Pseudonym, text: &str) -> Option<Challenge> {
        let encoded = text.strip_prefix(PREFIX)?.as_bytes();
        if encoded.len() != CHALLENGE_BYTES / 3 * 4 {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(encoded).ok()?;
        let (signed, sent) = bytes.split_at_checked(SIGNED_BYTES)?;
        verify_slices_are_equal(&self.mac(sale, customer, signed), sent).ok()?;
        let (numbers, rest) = signed.split_first_chunk::<2>()?;
        let (rounds, rest) = rest.split_first_chunk()?;
        let (issued_at, rest) = rest.split_first_chunk()?;
        let (expires_at, rest) = rest.split_first_chunk()?;
        let (id, seed) = rest.split_first_chunk()?;
        Some(Challenge {
            check: HumanCheck::ALL.into_iter().find(|check| number_of(*check) == numbers[0])?,
            level: numbers[1],
            rounds: u32::from_le_bytes(*rounds),
            issued_at: ChainTime(u64::from_le_bytes(*issued_at)),
            expires_at: ChainTime(u64::from_le_bytes(*expires_at)),
            id: *id,
            seed: seed.try_into().ok()?,
        })
    }

    fn mac(&self, sale: SaleId, customer: Pseudonym, signed: &[u8]) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.challenge);
        for part in [&sale.0, &customer.0, signed] {
            context.update(part);
        }
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }

    /// A pseudo-random function of what a question is about.
    pub(crate) fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.question);
        for part in parts {
            context.update(part);
        }
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }
}

/// Never changes.
fn number_of(check: HumanCheck) -> u8 {
    match check {
        HumanCheck::ProofOfWork => 1,
        HumanCheck::Answer => 2,
        HumanCheck::Static => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: SaleId = SaleId([1; 16]);
    const CUSTOMER: Pseudonym = Pseudonym([2; 16]);

    fn challenge(check: HumanCheck) -> Challenge {
        Challenge { rounds: 70_000, ..Challenge::new(check, 3, ChainTime(1_790_000_000_123), 300_000) }
    }

    #[test]
    fn a_challenge_comes_back_as_it_was_sealed() {
        let keys = CheckKeys::new(&[7; 32]);
        for check in HumanCheck::ALL {
            let challenge = challenge(check);
            let sealed = keys.seal(SALE, CUSTOMER, &challenge);
            assert_eq!((sealed.len(), keys.open(SALE, CUSTOMER, &sealed)), (99, Some(challenge)));
        }
    }

    #[test]
    fn a_stolen_or_forged_challenge_is_not_believed() {
        let keys = CheckKeys::new(&[7; 32]);
        let sealed = keys.seal(SALE, CUSTOMER, &challenge(HumanCheck::Answer));
        assert_eq!(keys.open(SALE, Pseudonym([3; 16]), &sealed), None, "another customer's");
        assert_eq!(keys.open(SaleId([9; 16]), CUSTOMER, &sealed), None, "another sale's");
        assert_eq!(CheckKeys::new(&[8; 32]).open(SALE, CUSTOMER, &sealed), None, "another deployment's");
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open(SALE, CUSTOMER, &String::from_utf8(forged).unwrap()), None, "changed at {at}");
        }
        let junk = ["", "hc_", &sealed[3..], &sealed[..98], &format!("{sealed}A"), &format!("{sealed}=="), "hc_☃"];
        for text in junk {
            assert_eq!(keys.open(SALE, CUSTOMER, text), None, "{text:?}");
        }
    }
}
