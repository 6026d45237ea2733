//! What a payment does: one behaviour each, from a script or drawn from a seeded plan.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What becomes of a payment once its customer pays. Unless it says otherwise it succeeds at once and its callback is sent once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// As it should be.
    Plain,
    /// Succeeds so many milliseconds later.
    Late(u64),
    /// Waits, and succeeds when it is released.
    Held,
    /// Is processed by a bank, which a callback tells, and succeeds when it is released. Cannot be cancelled meanwhile.
    Processing,
    /// The callback comes twice.
    CallbackTwice,
    /// No callback, ever: only asking tells.
    CallbackNever,
    /// The connection ends instead of the answer to the creation; the payment exists.
    AnswerLost,
    /// The answer to the first creation never comes; the payment exists.
    AnswerHangs,
    /// Is declined, which a callback tells, and then paid.
    DeclinedThenPaid,
    /// A cent more than asked is captured.
    OtherAmount,
    /// The amount is captured in another currency.
    OtherCurrency,
    /// Its facts say the opposite of real or play money.
    OtherMode,
    /// Its facts name another attempt.
    OtherOrder,
    /// Nothing happens until somebody cancels it; then it turns out to be paid.
    SuccessBeatsCancel,
    /// The customer never pays.
    Abandoned,
}

impl Behaviour {
    /// Every behaviour, the late one by 50 ms.
    pub const ALL: [Self; 15] = [
        Self::Plain,
        Self::Late(50),
        Self::Held,
        Self::Processing,
        Self::CallbackTwice,
        Self::CallbackNever,
        Self::AnswerLost,
        Self::AnswerHangs,
        Self::DeclinedThenPaid,
        Self::OtherAmount,
        Self::OtherCurrency,
        Self::OtherMode,
        Self::OtherOrder,
        Self::SuccessBeatsCancel,
        Self::Abandoned,
    ];
}

/// Decides the behaviour of every payment: first the script, in order; when it is at its end, the plan.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Draws depend on it and on the payment's key, so the order of arrival changes nothing.
    pub seed: u64,
    /// Behaviours with their weights. Without any, everything is [`Behaviour::Plain`].
    pub weights: Vec<(Behaviour, u32)>,
    /// What the next payments do.
    pub script: VecDeque<Behaviour>,
}

impl Plan {
    /// The behaviour of the payment with that idempotency key.
    pub(crate) fn next(&mut self, key: &str) -> Behaviour {
        if let Some(scripted) = self.script.pop_front() {
            return scripted;
        }
        let sum: u64 = self.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if sum == 0 {
            return Behaviour::Plain;
        }
        let mut left = draw(self.seed, key, sum);
        for (behaviour, weight) in &self.weights {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return *behaviour,
            }
        }
        Behaviour::Plain
    }
}

/// A number below `bound` that depends on seed and name alone.
pub(crate) fn draw(seed: u64, name: &str, bound: u64) -> u64 {
    // FNV-1a; what it lacks in mixing the generator behind it makes good.
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    let hash = name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    fastrand::Rng::with_seed(hash).u64(..bound.max(1))
}

#[cfg(test)]
mod tests {
    use super::{Behaviour, Plan};

    #[test]
    fn the_script_goes_before_the_plan() {
        let weights = vec![(Behaviour::Abandoned, 1)];
        let mut plan = Plan { seed: 1, weights, script: [Behaviour::Held].into() };
        assert_eq!(plan.next("a"), Behaviour::Held);
        assert_eq!(plan.next("b"), Behaviour::Abandoned);
        assert_eq!(Plan::default().next("a"), Behaviour::Plain);
    }

    #[test]
    fn one_seed_plans_alike_in_any_order_and_keeps_the_weights() {
        let plan = |seed| Plan { seed, weights: vec![(Behaviour::Plain, 3), (Behaviour::Held, 1)], ..Plan::default() };
        let keys: Vec<String> = (0..4_000).map(|number| format!("or_{number}.0")).collect();
        let forwards: Vec<_> = keys.iter().map(|key| plan(7).next(key)).collect();
        let mut backwards: Vec<_> = keys.iter().rev().map(|key| plan(7).next(key)).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        let held = forwards.iter().filter(|behaviour| **behaviour == Behaviour::Held).count();
        assert!((800..1_200).contains(&held), "{held} of 4,000");
        assert_ne!(forwards, keys.iter().map(|key| plan(8).next(key)).collect::<Vec<_>>());
    }
}
