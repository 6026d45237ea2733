//! Sets of pictures that an edge may keep: the same for everybody for an hour, with the answers sealed by a slow salted hash, so that a page
//! can tell at once whether an answer is right. Which of them a customer gets, only the server knows beforehand.
//!
//! A friction and no more: the answers can be guessed at the price of some minutes of computing for each picture, and shared for an hour.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use domain::{ChainTime, Pseudonym, SaleId};

use crate::challenge::CheckKeys;
use crate::picture::draw;

/// Letters of a picture.
pub const LETTERS: usize = 5;
/// Pictures of a set.
pub const ENTRIES: u16 = 16;
/// Sets of a sale at a time.
const SETS: u64 = 4;
/// After this time there are other pictures.
pub const PERIOD_MILLISECONDS: u64 = 3_600_000;
/// Rounds of PBKDF2/SHA-256 over an answer: a tenth of a second for a page.
pub const HASH_ROUNDS: u32 = 100_000;
const LEVEL: u8 = 1;

/// A picture in a set.
pub struct Entry {
    /// A PNG file.
    pub png: Vec<u8>,
    /// Of the hash.
    pub salt: [u8; 16],
    /// PBKDF2/SHA-256 of the letters, as capitals.
    pub hash: [u8; 32],
}

/// A set.
pub struct FixedSet(pub Vec<Entry>);

/// Where a customer's picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The set.
    pub set: u64,
    /// The picture in it.
    pub index: u16,
}

/// Whether a set is given out now: those of this hour and of the one before.
pub fn is_current(set: u64, now: ChainTime) -> bool {
    let period = now.0 / PERIOD_MILLISECONDS;
    (period.saturating_sub(1)..=period).contains(&(set / SETS))
}

impl Place {
    /// As a challenge carries it.
    pub fn seed(self) -> [u8; 16] {
        (u128::from(self.set) | u128::from(self.index) << 64).to_le_bytes()
    }
}

impl CheckKeys {
    /// The customer's picture in a sale. It stays the same for a minute, so that nobody asks until one comes that they know; `turn` counts
    /// what gives a customer another one before that.
    pub fn place_of(&self, sale: SaleId, customer: Pseudonym, turn: u32, now: ChainTime) -> Place {
        let minute = now.0 / 60_000;
        let parts: [&[u8]; 5] = [b"place", &sale.0, &customer.0, &minute.to_le_bytes(), &turn.to_le_bytes()];
        let drawn = self.derive(&parts);
        let set = now.0 / PERIOD_MILLISECONDS * SETS + u64::from(drawn[0]) % SETS;
        Place { set, index: u16::from(drawn[1]) % ENTRIES }
    }

    /// Makes a set: the same letters, salts and hashes on every gate, in pictures of its own. Takes a good part of a second.
    pub fn make_set(&self, sale: SaleId, set: u64) -> FixedSet {
        FixedSet((0..ENTRIES).map(|index| self.make_entry(sale, &Place { set, index }.seed())).collect())
    }

    fn make_entry(&self, sale: SaleId, seed: &[u8; 16]) -> Entry {
        let letters = self.fixed_letters(sale, seed);
        let mut salt = [0; 16];
        salt.copy_from_slice(&self.derive(&[b"salt", &sale.0, seed])[..16]);
        let mut hash = [0; 32];
        let rounds = NonZeroU32::new(HASH_ROUNDS).expect("more than none");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, letters.as_bytes(), &mut hash);
        Entry { png: draw(&letters, LEVEL), salt, hash }
    }

    /// The letters at a place.
    pub fn letters_at(&self, sale: SaleId, place: Place) -> String {
        self.fixed_letters(sale, &place.seed())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SALE: SaleId = SaleId([1; 16]);
    const NOW: ChainTime = ChainTime(1_790_000_000_000);

    #[test]
    fn a_customer_has_one_place_for_a_minute_and_customers_are_spread_over_all() {
        let keys = CheckKeys::new(&[7; 32]);
        let place = |customer: u16, turn: u32, later: u64| {
            let mut pseudonym = [0; 16];
            pseudonym[..2].copy_from_slice(&customer.to_le_bytes());
            keys.place_of(SALE, Pseudonym(pseudonym), turn, NOW.plus(later))
        };
        let start = NOW.0 % 60_000;
        assert_eq!(place(1, 0, 0), place(1, 0, 59_999 - start));
        let all: HashSet<_> = (0..2_000).map(|customer| place(customer, 0, 0)).map(|at| (at.set, at.index)).collect();
        assert_eq!(all.len(), usize::from(ENTRIES) * SETS as usize);
        let turns: HashSet<_> = (0..15).map(|turn| place(1, turn, 0)).map(|at| (at.set, at.index)).collect();
        assert!(turns.len() > 8, "{turns:?}");
        assert!(all.iter().all(|(set, _)| is_current(*set, NOW) && is_current(*set, NOW.plus(PERIOD_MILLISECONDS))));
        assert!(all.iter().all(|(set, _)| !is_current(*set, NOW.plus(2 * PERIOD_MILLISECONDS))));
        assert!(!is_current(u64::MAX, NOW) && !is_current(0, NOW));
    }

    #[test]
    fn an_entrys_hash_is_of_the_letters_that_the_server_expects() {
        let (keys, again) = (CheckKeys::new(&[7; 32]), CheckKeys::new(&[7; 32]));
        let place = Place { set: 1_988_888, index: 3 };
        let entry = keys.make_entry(SALE, &place.seed());
        let letters = again.letters_at(SALE, place);
        let rounds = NonZeroU32::new(100_000).unwrap();
        let verify = |letters: &str| {
            pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &entry.salt, letters.as_bytes(), &entry.hash).is_ok()
        };
        assert!(verify(&letters) && !verify("CCCCC"));
        assert_eq!(letters.len(), LETTERS);
        assert_eq!(again.make_entry(SALE, &place.seed()).hash, entry.hash, "every gate has the same");
        assert_ne!(keys.make_entry(SALE, &Place { index: 4, ..place }.seed()).salt, entry.salt);
    }
}
