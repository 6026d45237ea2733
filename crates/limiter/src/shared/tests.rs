//! Many gates and an arbiter, from seeds.

use std::collections::HashMap;

use fastrand::Rng;

use super::*;

const START: u64 = 1_790_000_000_000;

/// The arbiter by the formula, in thousandths of a request: what each key has asked for, and when that was.
#[derive(Default)]
struct Arbiter(HashMap<u64, (u64, u64)>);

impl Arbiter {
    fn ask(&mut self, hash: u64, now: u64, asked: Asked) -> Lot {
        let (rate, burst) = (u64::from(asked.per_second), u64::from(asked.burst));
        let (debt, at) = self.0.get(&hash).copied().unwrap_or((0, now));
        let debt = debt.saturating_sub((now - at) * rate);
        let free = (burst * 1_000 - debt) / 1_000;
        let extra = u64::from(asked.extra_max).min(debt / 16_000).min(free.saturating_sub(1));
        if free == 0 {
            self.0.insert(hash, (debt, now));
            let wait_milliseconds = (debt - (burst - 1) * 1_000).div_ceil(rate);
            return Lot { is_granted: false, extra: 0, wait_milliseconds };
        }
        self.0.insert(hash, (debt + (1 + extra) * 1_000, now));
        Lot { is_granted: true, extra: extra as u32, wait_milliseconds: 0 }
    }
}

/// Has gates serve one key for a while; when each request was admitted, and how often the arbiter was asked.
fn serve(random: &mut Rng, count: u32, (per_second, burst): (u32, u32), until: u64) -> (Vec<u64>, u64) {
    let gates = Gates { count, can_ask: true };
    let limiters: Vec<_> = (0..count).map(|_| SharedLimiter::new(1 << 14, per_second, burst)).collect();
    let (mut arbiter, mut asked, mut admitted) = (Arbiter::default(), 0, Vec::new());
    let (mut now, pause_max) = (START, random.u64(0..2 * 1_000_u64.div_ceil(per_second.into())) + 1);
    while now < START + until {
        now += random.u64(0..=pause_max);
        let limiter = &limiters[random.usize(0..limiters.len())];
        let outcome = match limiter.check(7, now, gates) {
            Verdict::Admitted => Ok(()),
            Verdict::Refused(wait) => Err(wait),
            Verdict::Ask(question) => {
                asked += 1;
                limiter.heard(7, now, gates, arbiter.ask(7, now, question))
            }
        };
        match outcome {
            Ok(()) => admitted.push(now),
            Err(wait) => assert!(wait > 0),
        }
    }
    (admitted, asked)
}

#[test]
fn all_gates_together_admit_the_limit_and_a_twentieth_more_at_most() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let gates = random.u32(1..9);
        let (per_second, burst) = (random.u32(1..300), *random.choice(&[1, 2, 5, 30, 400, 5_000]).unwrap());
        let (admitted, _) = serve(&mut random, gates, (per_second, burst), 20_000);
        // In every stretch of time, from a request to a later one.
        for _ in 0..2_000 {
            let first = random.usize(0..admitted.len());
            let last = random.usize(first..admitted.len());
            let milliseconds = admitted[last] - admitted[first];
            let limit = f64::from(burst) + f64::from(per_second) * milliseconds as f64 / 1_000.0;
            let count = last - first + 1;
            assert!(count as f64 <= limit * 1.05 + 0.001, "seed {seed}: {count} in {milliseconds} ms, limit {limit}");
        }
    }
}

#[test]
fn a_key_that_asks_no_more_than_it_may_is_never_refused_and_one_that_does_gets_the_limit() {
    for (seed, gates) in [(1, 1), (2, 2), (3, 7)] {
        let mut random = Rng::with_seed(seed);
        let (admitted, asked) = serve(&mut random, gates, (1_000, 5_000), 20_000);
        assert!(admitted.len() >= 9_900, "{gates} gates: {}", admitted.len());
        assert!(asked < admitted.len() as u64, "{gates} gates: {asked} asked");
    }
    let limiter = SharedLimiter::new(1 << 14, 100, 1_000);
    let (gates, mut arbiter) = (Gates { count: 2, can_ask: true }, Arbiter::default());
    let (mut admitted, mut asked) = (0, 0);
    for step in 0..100_000_u64 {
        let now = START + step / 10;
        let outcome = match limiter.check(7, now, gates) {
            Verdict::Ask(question) => {
                asked += 1;
                limiter.heard(7, now, gates, arbiter.ask(7, now, question))
            }
            Verdict::Admitted => Ok(()),
            Verdict::Refused(wait) => Err(wait),
        };
        admitted += u64::from(outcome.is_ok());
    }
    // A burst and ten seconds: 2,000; and the arbiter heard of few of those that were refused.
    assert!((1_960..=2_100).contains(&admitted), "{admitted}");
    assert!(asked < 2_500, "{asked} of 100,000 asked");
}

#[test]
fn most_who_ask_once_are_admitted_without_the_arbiter() {
    let limiter = SharedLimiter::new(1 << 20, 5, 50);
    let gates = Gates { count: 2, can_ask: true };
    let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    assert!((0..1_000).all(|number| limiter.check(hash(number), START, gates) == Verdict::Admitted));
    let asked = Asked { per_second: 5, burst: 50, extra_max: 0 };
    assert_eq!(limiter.check(hash(3), START, gates), Verdict::Ask(asked), "the second time");
    let small = SharedLimiter::new(1 << 20, 5, 49);
    assert!(matches!(small.check(hash(1), START, gates), Verdict::Ask(_)), "a part of it is less than one request");
}

#[test]
fn who_is_refused_anyway_is_counted_here_alone_up_to_the_whole_limit() {
    let limiter = SharedLimiter::new(1 << 14, 5, 50);
    let (gates, asked) = (Gates { count: 2, can_ask: true }, Asked { per_second: 5, burst: 50, extra_max: 0 });
    let idle = |now| (0..200).filter(|_| limiter.check_idle(7, now).is_ok()).count();
    assert_eq!((idle(START), limiter.check_idle(7, START)), (50, Err(200)));
    assert_eq!(idle(START + 1_000), 5);
    // It has taken nothing of what the gates keep together, and the arbiter's refusal is one for it too.
    assert_eq!(limiter.check(7, START + 1_000, gates), Verdict::Admitted);
    assert_eq!(limiter.check(7, START + 1_000, gates), Verdict::Ask(asked));
    let refused = Lot { is_granted: false, extra: 0, wait_milliseconds: 300 };
    assert_eq!(limiter.heard(7, START + 60_000, gates, refused), Err(300));
    assert_eq!((limiter.check_idle(7, START + 60_001), idle(START + 60_300)), (Err(299), 50));
}

#[test]
fn without_the_arbiter_each_gate_has_its_part_and_what_it_admitted_before_counts() {
    let gates = |can_ask| Gates { count: 2, can_ask };
    let alone = |limiter: &SharedLimiter, now| {
        (0..1_000).filter(|_| limiter.check(7, now, gates(false)) == Verdict::Admitted).count()
    };
    let fresh = SharedLimiter::new(1 << 14, 10, 100);
    assert_eq!(alone(&fresh, START), 50);
    assert_eq!(alone(&fresh, START + 10_000), 50, "five a second");
    assert_eq!(alone(&fresh, START + 11_000), 5);
    // 40 with the arbiter, so 10 are left of its part.
    let (limiter, mut arbiter) = (SharedLimiter::new(1 << 14, 10, 100), Arbiter::default());
    for _ in 0..40 {
        if let Verdict::Ask(question) = limiter.check(7, START, gates(true)) {
            limiter.heard(7, START, gates(true), arbiter.ask(7, START, question)).unwrap();
        }
    }
    assert_eq!(limiter.alone(7, START, gates(true)), Ok(()), "asked in vain");
    assert_eq!(alone(&limiter, START), 9);
    // And the way back: the arbiter still knows of the rest.
    let left = arbiter.ask(7, START, Asked { per_second: 10, burst: 100, extra_max: 0 });
    assert!(left.is_granted);
}

#[test]
fn a_burst_that_is_smaller_than_the_number_of_gates_closes_none_of_them() {
    let limiter = SharedLimiter::new(1 << 14, 1, 1);
    let gates = Gates { count: 500, can_ask: false };
    assert_eq!(limiter.check(7, START, gates), Verdict::Admitted);
    assert_eq!(limiter.check(7, START, gates), Verdict::Refused(64_000));
    assert_eq!(limiter.check(7, START + 64_000, gates), Verdict::Admitted);
}
