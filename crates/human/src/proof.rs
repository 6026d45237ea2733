//! Proof of work by the ALTCHA protocol, version 2, with PBKDF2/SHA-256: a device tries counters until a derived key begins with zeros.
//!
//! The library makes and judges the protocol's objects. What they consist of follows from our own challenge, so the client sends back no more
//! than the challenge and the solution, and nothing in it can be exchanged.

use altcha::{ChallengeParameters, HmacAlgorithm, VerifySolutionOptions, sign_challenge, verify_solution};
use data_encoding::HEXLOWER;
use domain::{HumanCheck, limits};

use crate::challenge::{Challenge, CheckKeys};

pub use altcha::{Challenge as Task, Solution};

/// The hardest; each level takes twice the work of the one below.
pub const LEVEL_MAX: u8 = 4;
/// Two hexadecimal digits: 256 tries on average.
const KEY_PREFIX: &str = "00";
const KEY_BYTES: usize = 32;

/// Rounds of one try at a level.
pub fn rounds(base: u32, level: u8) -> u32 {
    base.min(limits::PROOF_ROUNDS_MAX) << level.min(LEVEL_MAX)
}

impl CheckKeys {
    /// The protocol's object for a challenge.
    pub fn task(&self, challenge: &Challenge) -> Task {
        let mut parameters = ChallengeParameters {
            algorithm: "PBKDF2/SHA-256".to_owned(),
            cost: challenge.rounds,
            data: None,
            // Our own challenge says so, and is judged by the engine's clock.
            expires_at: None,
            key_length: KEY_BYTES,
            key_prefix: KEY_PREFIX.to_owned(),
            key_signature: None,
            memory_cost: None,
            nonce: HEXLOWER.encode(&challenge.id),
            parallelism: None,
            salt: HEXLOWER.encode(&challenge.seed),
        };
        let signed = sign_challenge(&HmacAlgorithm::Sha256, &mut parameters, None, &self.proof, None);
        signed.expect("parameters without free text can be signed")
    }

    /// Whether the work was done. Computes one try: a millisecond for each 5,000 rounds or so.
    pub fn is_solved(&self, challenge: &Challenge, solution: &Solution) -> bool {
        debug_assert_eq!(challenge.check, HumanCheck::ProofOfWork);
        let task = self.task(challenge);
        // A key of another length cannot be right, and is not worth a try.
        solution.derived_key.len() == 2 * KEY_BYTES
            && verify_solution(VerifySolutionOptions::new(&task, solution, self.proof.as_str()))
                .is_ok_and(|result| result.verified)
    }
}

#[cfg(test)]
mod tests {
    use altcha::{SolveChallengeOptions, solve_challenge};
    use domain::ChainTime;

    use super::*;

    fn challenge(seed: u8) -> Challenge {
        let new = Challenge::new(HumanCheck::ProofOfWork, 0, ChainTime(1), 1);
        Challenge { rounds: 10, id: [seed; 16], seed: [seed + 1; 16], ..new }
    }

    #[test]
    fn what_the_protocols_own_client_solves_is_believed_and_nothing_else() {
        let keys = CheckKeys::new(&[7; 32]);
        let own = challenge(1);
        // As the client sees it: through JSON.
        let told = serde_json::to_value(keys.task(&own)).unwrap();
        let expected = ["algorithm", "cost", "keyLength", "keyPrefix", "nonce", "salt"];
        assert_eq!(told["parameters"].as_object().unwrap().keys().collect::<Vec<_>>(), expected);
        let task: Task = serde_json::from_value(told).unwrap();
        let solution = solve_challenge(SolveChallengeOptions::new(&task)).unwrap().unwrap();
        assert!(keys.is_solved(&own, &solution));
        assert!(!keys.is_solved(&challenge(2), &solution), "the solution of another challenge");
        assert!(!keys.is_solved(&Challenge { rounds: 11, ..own }, &solution), "other work");
        let wrong = |change: fn(&mut Solution)| {
            let mut solution = solution.clone();
            change(&mut solution);
            solution
        };
        for forged in [
            wrong(|solution| solution.counter += 1),
            wrong(|solution| solution.derived_key = "00".repeat(32)),
            wrong(|solution| solution.derived_key.truncate(62)),
            wrong(|solution| solution.derived_key = "zz".repeat(32)),
            wrong(|solution| solution.derived_key.clear()),
        ] {
            assert!(!keys.is_solved(&own, &forged), "{forged:?}");
        }
    }

    #[test]
    fn a_key_that_was_derived_rightly_and_does_not_begin_with_zeros_is_no_proof() {
        let keys = CheckKeys::new(&[7; 32]);
        let own = challenge(1);
        let mut any = keys.task(&own);
        any.parameters.key_prefix.clear();
        let first = solve_challenge(SolveChallengeOptions::new(&any)).unwrap().unwrap();
        assert_eq!(first.counter, 0);
        assert!(!first.derived_key.starts_with(KEY_PREFIX) && !keys.is_solved(&own, &first));
    }

    #[test]
    fn each_level_is_twice_the_work_within_bounds() {
        assert_eq!([0, 1, 4, 5, 255].map(|level| rounds(1_000, level)), [1_000, 2_000, 16_000, 16_000, 16_000]);
        assert_eq!(rounds(u32::MAX, 255), 800_000);
    }
}
