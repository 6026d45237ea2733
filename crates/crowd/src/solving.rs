//! How long a human check keeps whoever comes for a first pass. It is a time only: a crowd on one machine cannot compute and type for
//! everybody. That the checks work, and are passed by computing, seeing and hearing, is for tests of their own.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::run::Crowd;

/// What is asked before the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Solving {
    /// The device computes.
    #[serde(rename = "proof-of-work")]
    ProofOfWork,
    /// Somebody reads, or hears, and types.
    #[serde(rename = "answer")]
    Letters,
}

impl Solving {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ProofOfWork, Self::Letters];

    /// The name that an operator gives the check.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProofOfWork => "proof-of-work",
            Self::Letters => "answer",
        }
    }

    /// In milliseconds, of people: an old phone computes for seconds; who types letters needs some, and some need several pictures.
    fn of_people(self) -> RangeInclusive<u64> {
        match self {
            Self::ProofOfWork => 300..=4_000,
            Self::Letters => 4_000..=15_000,
        }
    }

    /// In milliseconds, of bots: as fast as an answer is believed, or soon after.
    fn of_bots(self) -> RangeInclusive<u64> {
        match self {
            Self::ProofOfWork => 200..=400,
            Self::Letters => 1_200..=3_000,
        }
    }

    /// After this time everybody has solved it.
    pub(crate) fn takes_at_most(self) -> Duration {
        Duration::from_millis((*self.of_people().end()).max(*self.of_bots().end()))
    }
}

impl Crowd {
    /// How long the check keeps an account from asking for its first pass.
    pub(crate) fn solves_in(&self, account: u32) -> Duration {
        let Some(solving) = self.options.solving() else { return Duration::ZERO };
        let is_bot = self.bots.operator_of(account).is_some();
        let milliseconds = if is_bot { solving.of_bots() } else { solving.of_people() };
        Duration::from_millis(self.random.borrow_mut().u64(milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::Solving;

    #[test]
    fn bots_are_faster_and_nobody_is_slower_than_the_slowest() {
        for solving in Solving::ALL {
            assert!(solving.of_bots().end() <= solving.of_people().end());
            assert!(solving.of_bots().start() <= solving.of_people().start());
            assert_eq!(solving.takes_at_most().as_millis(), u128::from(*solving.of_people().end()));
        }
    }
}
