//! What a customer's device, eyes and ears do about a human check: from outside, as anybody could.

use ::human::Voice;
use altcha::{Challenge, SolveChallengeOptions, solve_challenge};
use serde_json::{Value, json};

/// The letters that there are.
const ALPHABET: &str = "CFHJKMRUWXY34679";
const WAV_HEADER_BYTES: usize = 44;

/// Solves a proof of work with the protocol's own client: the answer to send.
pub fn solve(challenge: &Value) -> Value {
    let task: Challenge = serde_json::from_value(challenge["proof_of_work"].clone()).expect("a challenge of ALTCHA");
    let solution = solve_challenge(SolveChallengeOptions::new(&task)).expect("a task that can be read");
    json!(solution.expect("a minute and a half is enough"))
}

/// Whoever knows how the letters sound.
pub struct Ear(Vec<(char, Vec<u8>)>);

impl Ear {
    /// Learns each letter.
    pub fn new() -> Self {
        let voice = Voice::new();
        Self(ALPHABET.chars().map(|letter| (letter, samples(&voice.speak(&letter.to_string())).to_vec())).collect())
    }

    /// The letters of a sound.
    pub fn listen(&self, wav: &[u8]) -> String {
        let length = self.0[0].1.len();
        let nearest = |heard: &[u8]| {
            let far = |known: &[u8]| heard.iter().zip(known).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            self.0.iter().min_by_key(|(_, known)| far(known)).map(|(letter, _)| *letter)
        };
        samples(wav).chunks_exact(length).filter_map(nearest).collect()
    }
}

impl Default for Ear {
    fn default() -> Self {
        Self::new()
    }
}

fn samples(wav: &[u8]) -> &[u8] {
    &wav[WAV_HEADER_BYTES..]
}
