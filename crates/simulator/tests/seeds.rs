//! The seeds that every CI runs: two hundred, each that ever failed, and one twice.

use std::sync::atomic::{AtomicU64, Ordering};

use simulator::{Outcome, SimulationOptions, simulate};

fn run(seed: u64) -> Outcome {
    simulate(seed, SimulationOptions::default()).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn two_hundred_seeds_keep_every_promise() {
    let next = AtomicU64::new(0);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = || {
            let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            seeds.take_while(|seed| *seed < 200).map(run).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut tally = simulator::Tally::default();
    outcomes.iter().for_each(|outcome| tally.add(&outcome.tally));
    // A simulation in which nothing happens would keep every promise too.
    let lively = [tally.crashes, tally.failed_opens, tally.refused, tally.wins, tally.refusals, tally.paid];
    let lively = lively
        .into_iter()
        .chain([tally.released, tally.full, tally.settled])
        .chain(tally.callbacks_at_ends.chunks(3).map(|around| around.iter().sum()));
    assert!(lively.into_iter().all(|count| count > 0), "{tally:?}");
    eprintln!("callbacks around the ends of holds: {:?}", tally.callbacks_at_ends);
}

#[test]
fn every_seed_that_ever_failed_keeps_every_promise_now() {
    let lines = include_str!("../failed-seeds.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let seed = line.split_whitespace().next().and_then(|word| word.parse().ok());
        run(seed.unwrap_or_else(|| panic!("{line:?} does not begin with a seed")));
    }
}

#[test]
fn the_same_seed_twice_gives_the_same_bytes() {
    for seed in 0..8 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0).digest, run(1).digest);
}
