//! When a failed call is repeated, and for how long. It only computes; the randomness is passed in.

use std::time::Duration;

use domain::milliseconds;

/// From the first failure to the parking, by default.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(72 * 60 * 60);

/// When a failed call is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The pause after the first failure; each further one is three times as long.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// So long after its first failure an event is parked.
    pub give_up_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(4 * 60 * 60), give_up_after: GIVE_UP_AFTER }
    }
}

impl Pace {
    /// The pause after that many failures, between half and all of what they ask for: receivers that failed together are not called
    /// together. Milliseconds.
    pub(crate) fn pause(&self, failures: u32, random: &mut fastrand::Rng) -> u64 {
        let factor = 3_u32.saturating_pow(failures.saturating_sub(1));
        let whole = self.first.saturating_mul(factor).min(self.longest);
        let whole = milliseconds(whole);
        random.u64(whole / 2..=whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_second_to_hours_and_are_never_alike() {
        let seed = fastrand::Rng::new().get_seed();
        let mut random = fastrand::Rng::with_seed(seed);
        let pace = Pace::default();
        let mut longest_before = 0;
        for failures in 1..=60 {
            let pauses: Vec<_> = (0..50).map(|_| pace.pause(failures, &mut random)).collect();
            let (least, most) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
            assert!(least < most && most <= 2 * least.max(500), "seed {seed}: {least} to {most} after {failures}");
            assert!(most <= 4 * 60 * 60 * 1_000, "seed {seed}");
            assert!(failures > 9 || least > longest_before, "seed {seed}: the pause has not grown after {failures}");
            longest_before = most;
        }
    }
}
