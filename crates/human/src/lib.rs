//! Human checks: what a customer is asked once, before the first pass of a sale, and whether the answer is right.
//!
//! A challenge is a sealed token, so it costs no memory until it is used: everything about it follows from the token and one secret that
//! all gates of a deployment share. There is no clock here, no HTTP, and nothing about who failed how often.

mod challenge;
mod fixed;
mod letters;
mod picture;
mod pool;
mod proof;
mod sound;

pub use self::challenge::{Challenge, CheckKeys};
pub use self::fixed::{ENTRIES, Entry, FixedSet, HASH_ROUNDS, LETTERS, PERIOD_MILLISECONDS, Place, is_current};
pub use self::letters::same_letters;
pub use self::picture::{LEVEL_MAX as PICTURE_LEVEL_MAX, PICTURE_HEIGHT, PICTURE_WIDTH};
pub use self::pool::{Made, Pool};
pub use self::proof::{LEVEL_MAX as PROOF_LEVEL_MAX, Solution, Task, rounds};
pub use self::sound::Voice;

/// 16 random bytes from the system.
fn drawn() -> [u8; 16] {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has random bytes");
    bytes
}
