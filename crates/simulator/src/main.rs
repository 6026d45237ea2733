//! `cargo run --release -p simulator -- --seeds N [--first S] [--seconds LIMIT]`: many seeds on all cores.
//!
//! Progress and failures go to stderr, the closing summary to stdout. The exit code says whether every seed kept every promise.

use std::cell::Cell;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use simulator::{SimulationOptions, Tally, simulate};

thread_local! {
    /// The seed that this thread runs, for the last words of a panic.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone, Copy)]
struct Arguments {
    seeds: u64,
    first: u64,
    limit: Option<Duration>,
}

/// What all threads have done.
#[derive(Default)]
struct Done {
    taken: AtomicU64,
    seeds: AtomicU64,
    failures: AtomicU64,
    over: AtomicBool,
    tally: Mutex<Tally>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = arguments(std::env::args().skip(1))?;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {} panics:", SEED.get());
        usual(panic);
    }));
    let began = Instant::now();
    let done = Done::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(arguments, began, &done))).collect();
        scope.spawn(|| report(arguments, began, &done));
        for worker in workers {
            worker.join().expect("a worker catches what its seed throws");
        }
        done.over.store(true, Ordering::Relaxed);
    });
    summary(began, &done)?;
    Ok(if done.failures.load(Ordering::Relaxed) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments(mut words: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments { seeds: 1_000, first: 0, limit: None };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a number"))?;
        let number: u64 = value.parse().with_context(|| format!("{word} {value}: not a number"))?;
        match word.as_str() {
            "--seeds" => arguments.seeds = number,
            "--first" => arguments.first = number,
            "--seconds" => arguments.limit = Some(Duration::from_secs(number)),
            _ => bail!("{word} is not known; there are --seeds, --first and --seconds"),
        }
    }
    Ok(arguments)
}

fn work(arguments: Arguments, began: Instant, done: &Done) {
    while arguments.limit.is_none_or(|limit| began.elapsed() < limit) {
        let index = done.taken.fetch_add(1, Ordering::Relaxed);
        if index >= arguments.seeds {
            return;
        }
        let seed = arguments.first + index;
        SEED.set(seed);
        match simulate(seed, SimulationOptions::default()) {
            Ok(outcome) => done.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome.tally),
            Err(failure) => {
                done.failures.fetch_add(1, Ordering::Relaxed);
                eprintln!("FAILED {failure}");
            }
        }
        done.seeds.fetch_add(1, Ordering::Relaxed);
    }
}

fn report(arguments: Arguments, began: Instant, done: &Done) {
    let mut told = began;
    while !done.over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            let (seeds, failures) = (done.seeds.load(Ordering::Relaxed), done.failures.load(Ordering::Relaxed));
            let pace = seeds as f64 / began.elapsed().as_secs_f64();
            eprintln!("{seeds} of {} seeds, {failures} failed, {pace:.0} seeds/s", arguments.seeds);
        }
    }
}

fn summary(began: Instant, done: &Done) -> std::io::Result<()> {
    let tally = *done.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let seeds = done.seeds.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let mut out = std::io::stdout().lock();
    writeln!(out, "simulation: {seeds} seeds in {seconds:.1} s, {:.0} seeds/s", seeds as f64 / seconds)?;
    writeln!(
        out,
        "  {} steps, {} crashes, {} starts that the disk spoiled, {} batches that waited for room",
        tally.steps, tally.crashes, tally.failed_opens, tally.full
    )?;
    writeln!(
        out,
        "  {} records, {} orders ({} paid, {} released), {} wins and {} refusals heard",
        tally.records, tally.orders, tally.paid, tally.released, tally.wins, tally.refusals
    )?;
    writeln!(
        out,
        "  {} sales settled, {} logs refused after damage, {} FAILED seeds",
        tally.settled,
        tally.refused,
        done.failures.load(Ordering::Relaxed)
    )
}
