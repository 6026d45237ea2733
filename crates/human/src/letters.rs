//! The letters that pictures show and sounds speak. They follow from the challenge, so nobody has to remember them.

use domain::{HumanCheck, SaleId};

use crate::challenge::{Challenge, CheckKeys};
use crate::fixed;

/// Sixteen, so that four bits name one; none that looks or sounds like another of them.
pub(crate) const ALPHABET: [char; 16] =
    ['C', 'F', 'H', 'J', 'K', 'M', 'R', 'U', 'W', 'X', 'Y', '3', '4', '6', '7', '9'];

/// How many letters a picture of that level has.
pub(crate) fn count_at(level: u8) -> usize {
    match level {
        0 => 4,
        1 => 5,
        _ => 6,
    }
}

impl CheckKeys {
    /// The right answer to a challenge for letters.
    pub fn letters_of(&self, sale: SaleId, challenge: &Challenge) -> String {
        match challenge.check {
            HumanCheck::Static => self.fixed_letters(sale, &challenge.seed),
            HumanCheck::Answer | HumanCheck::ProofOfWork => self.letters(&challenge.seed, challenge.level),
        }
    }

    /// The letters of a picture that was made ahead of time, for any sale.
    pub(crate) fn letters(&self, seed: &[u8; 16], level: u8) -> String {
        spelled(&self.derive(&[b"letters", &[level], seed]), count_at(level))
    }

    /// The letters at a place of a set that an edge may keep.
    pub(crate) fn fixed_letters(&self, sale: SaleId, seed: &[u8; 16]) -> String {
        spelled(&self.derive(&[b"fixed letters", &sale.0, seed]), fixed::LETTERS)
    }
}

fn spelled(bytes: &[u8; 32], count: usize) -> String {
    bytes[..count].iter().map(|byte| ALPHABET[usize::from(byte % 16)]).collect()
}

/// Whether a person's answer means these letters: small ones and blanks between them do not matter.
pub fn same_letters(right: &str, answer: &str) -> bool {
    // Whoever would send more is not reading letters.
    if answer.len() > 64 {
        return false;
    }
    let plain = answer.chars().filter(|letter| !letter.is_whitespace() && *letter != '-');
    let plain: String = plain.flat_map(char::to_uppercase).collect();
    plain == right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_however_it_is_typed() {
        for (answer, expected) in [
            ("CFH3", true),
            ("cfh3", true),
            (" c f-H 3\n", true),
            ("CFH", false),
            ("CFH33", false),
            ("", false),
            ("   ", false),
            (&"C".repeat(65), false),
        ] {
            assert_eq!(same_letters("CFH3", answer), expected, "{answer:?}");
        }
        assert!(!same_letters("CFH3", "CFHЗ"), "a letter that only looks alike");
    }

    #[test]
    fn letters_differ_from_seed_to_seed_and_use_the_whole_alphabet() {
        let keys = CheckKeys::new(&[7; 32]);
        let mut seen = std::collections::HashSet::new();
        let mut counts = std::collections::HashMap::<char, u32>::new();
        for number in 0..4_000_u128 {
            let letters = keys.letters(&number.to_le_bytes(), 2);
            letters.chars().for_each(|letter| *counts.entry(letter).or_default() += 1);
            seen.insert(letters);
        }
        assert!(seen.len() > 3_990, "{}", seen.len());
        // 24,000 letters: 1,500 of each, within six standard deviations.
        assert!(ALPHABET.iter().all(|letter| (1_270..1_730).contains(&counts[letter])), "{counts:?}");
        let sale = SaleId([1; 16]);
        assert_ne!(keys.fixed_letters(sale, &[0; 16]), keys.fixed_letters(SaleId([2; 16]), &[0; 16]));
    }
}
