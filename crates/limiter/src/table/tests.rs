//! The table against an exact model, and at sizes that its model could not have.

use std::collections::HashMap;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::Hasher;

/// A start that is nothing special.
const START: u64 = 1_790_000_000_000;

/// The rule as its source states it, in fractions of a millisecond that are exact: times in 1/per_second milliseconds, T is 1000.
struct Model {
    per_second: u64,
    burst: u64,
    arrivals: HashMap<u64, u128>,
}

impl Model {
    fn check(&mut self, key: u64, now_milliseconds: u64) -> Result<(), u64> {
        let now = u128::from(now_milliseconds) * u128::from(self.per_second);
        let tat = self.arrivals.get(&key).copied().unwrap_or(now).max(now);
        let tolerance = u128::from(self.burst - 1) * 1_000;
        if tat > now + tolerance {
            return Err(u64::try_from((tat - now - tolerance).div_ceil(u128::from(self.per_second))).unwrap());
        }
        self.arrivals.insert(key, tat + 1_000);
        Ok(())
    }
}

/// A few keys that share nothing.
fn keys() -> [u64; 5] {
    [1, 2, 3, 4, 5].map(|key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

proptest! {
    #[test]
    fn it_decides_as_the_formula_does(
        per_second in 1..=PER_SECOND_MAX,
        burst in prop_oneof![1_u32..10, 1..=BURST_MAX],
        asked in prop::collection::vec((0..5_usize, prop_oneof![0_u64..3, 0_u64..2_000, 0_u64..100_000_000]), 1..400),
    ) {
        let limiter = Limiter::new(1 << 20, per_second, burst);
        let mut model = Model { per_second: per_second.into(), burst: burst.into(), arrivals: HashMap::new() };
        let mut now = START;
        let wraps = (1_u64 << TIME_BITS) / u64::from(per_second);
        for (key, later) in asked {
            // Not a whole turn of a word's clock in all: what passed is not mistaken for what is to come.
            now += later % (wraps / 800);
            prop_assert_eq!(limiter.check(keys()[key], now), model.check(keys()[key], now), "at {}", now);
        }
    }

    #[test]
    fn whoever_waits_as_told_is_admitted_and_a_millisecond_earlier_is_not(
        per_second in 1..=PER_SECOND_MAX, burst in 1_u32..100, more in 0_u64..1_000,
    ) {
        let limiter = Limiter::new(1 << 20, per_second, burst);
        let mut now = START + more;
        let refused = loop {
            if let Err(wait) = limiter.check(7, now) {
                break wait;
            }
        };
        prop_assert!(refused >= 1);
        prop_assert!(limiter.check(7, now + refused - 1).is_err() || refused == 1);
        now += refused;
        prop_assert_eq!(limiter.check(7, now), Ok(()));
    }
}

#[test]
fn a_burst_is_admitted_whole_and_then_one_per_interval() {
    let limiter = Limiter::new(1 << 16, 10, 5);
    let admitted = (0..100).filter(|_| limiter.check(1, START).is_ok()).count();
    assert_eq!(admitted, 5);
    assert_eq!(limiter.check(1, START), Err(100));
    assert_eq!(limiter.check(1, START + 99), Err(1));
    assert_eq!(limiter.check(1, START + 100), Ok(()));
    assert_eq!(limiter.check(1, START + 100), Err(100));
    // A pause fills the burst again and not more.
    let admitted = (0..100).filter(|_| limiter.check(1, START + 3_600_000).is_ok()).count();
    assert_eq!(admitted, 5);
    let one = Limiter::new(1 << 16, 1, 1);
    assert_eq!(
        [one.check(1, 0), one.check(1, 0), one.check(1, 999), one.check(1, 1_000)],
        [Ok(()), Err(1_000), Err(1), Ok(())]
    );
}

#[test]
fn a_clock_that_goes_back_neither_frees_nor_locks_out() {
    let limiter = Limiter::new(1 << 16, 10, 5);
    while limiter.check(1, START).is_ok() {}
    // A little: the wait grows by as much.
    assert_eq!(limiter.check(1, START - 1), Err(101));
    assert_eq!(limiter.check(1, START - 30_000), Err(30_100));
    // Far: nobody is locked out for hours.
    assert_eq!(limiter.check(1, START - 3_600_000), Ok(()));
}

#[test]
fn huge_gaps_forget_everything() {
    let limiter = Limiter::new(1 << 16, 10, 5);
    let mut now = 0;
    for days in [0, 1, 24, 25, 49, 50, 365, 3_650, 10_000] {
        now += days * 86_400_000;
        assert_eq!((0..20).filter(|_| limiter.check(1, now).is_ok()).count(), 5, "after {days} days");
    }
    assert_eq!(limiter.check(2, u64::MAX), Ok(()));
}

#[test]
fn ten_million_keys_stay_within_their_memory_and_nobody_new_is_refused() {
    let hasher = Hasher::new(&[7; 16]);
    let bytes_max = 32 << 20;
    // As the shares of addresses and of customers are: both together have 64 MiB.
    let tables = [Limiter::new(bytes_max, 10, 20), Limiter::new(bytes_max, 1, 20)];
    let abuser = hasher.hash(b"the abuser");
    let mut admitted = [0_u64; 2];
    // At one a second, all of them count at the end, and there is room for four in ten.
    let seconds = 1;
    for number in 0..10_000_000_u64 {
        let now = START + number * seconds * 1_000 / 10_000_000;
        for (table, admitted) in tables.iter().zip(&mut admitted) {
            let hash = hasher.hash(&number.to_le_bytes());
            assert_eq!(table.check(hash, now), Ok(()), "key {number} had never asked");
            if number % 100 == 0 {
                *admitted += u64::from(table.check(abuser, now).is_ok());
            }
        }
    }
    for (table, (admitted, per_second)) in tables.iter().zip(admitted.into_iter().zip([10, 1])) {
        assert!(table.bytes() <= table.bytes_max() && table.bytes_max() <= bytes_max);
        // A burst and the rate: as if there were nobody else.
        assert!(admitted <= 20 + per_second * seconds, "the abuser was admitted {admitted} times");
        let in_use = table.in_use(START + seconds * 1_000);
        eprintln!("{} bytes, {in_use} keys in use, the abuser was admitted {admitted} times", table.bytes());
    }
}

#[test]
fn memory_is_taken_as_it_is_used() {
    let limiter = Limiter::new(32 << 20, 10, 20);
    assert!(limiter.bytes() < 256 << 10, "{}", limiter.bytes());
    limiter.check(1, START).unwrap();
    assert_eq!((limiter.in_use(START), limiter.in_use(START + 100)), (1, 0));
    assert!(limiter.bytes() < 300 << 10);
    assert!(Limiter::new(0, 1, 1).bytes_max() < 5_000);
}

#[test]
fn many_threads_admit_no_more_than_one_would() {
    let limiter = Limiter::new(1 << 16, 1, 1_000);
    // In the table before they all begin, so that there is one place of it.
    limiter.check(1, START).unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let ask = || (0..10_000).filter(|_| limiter.check(1, START).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 999);
}

/// A figure, not a bar: what a check costs where the table is larger than the caches.
#[test]
fn a_check_costs_some_nanoseconds() {
    let hasher = Hasher::new(&[7; 16]);
    let limiter = Limiter::new(32 << 20, 100, 200);
    let count = 2_000_000_u64;
    let measure = |what: &str, key: &dyn Fn(u64) -> u64| {
        let start = Instant::now();
        let refused = (0..count).filter(|number| limiter.check(key(*number), START).is_err()).count();
        eprintln!("{what}: {} ns a check, {refused} refused", start.elapsed().as_nanos() / u128::from(count));
    };
    let random: Vec<u64> = (0..count).map(|number| hasher.hash(&number.to_le_bytes())).collect();
    measure("new keys, memory taken", &|number| random[number as usize]);
    measure("known keys", &|number| random[number as usize]);
    measure("one abuser, hashed once", &|_| 42);
    measure("one abuser, hashed each time", &|_| hasher.hash(&[7; 16]));
}
