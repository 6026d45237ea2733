//! Any bytes against what reads them: a property is tried with good inputs and with changes of them, for a second in every test run, and
//! for minutes with `cargo xtask fuzz`, where inputs that reach new code are kept and changed further.
//!
//! For tests only: no crate depends on it otherwise. Both runs call the same property in the same process, so what one finds the other
//! repeats. Long runs compile with the compiler's coverage counters (`--cfg guided`); nothing else is compiled differently.

mod changes;
#[cfg(guided)]
mod coverage;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::changes::Changes;

/// Bytes of an input; as much as the longest that a parser here reads before it looks at lengths.
pub const INPUT_BYTES_MAX: usize = 8 * 1024;
/// How long one property is tried without `DOORBUSTER_FUZZ_SECONDS`.
const SHORT: Duration = Duration::from_secs(1);
/// Longer than any input may take; tried again before it counts, since a busy machine makes everything slow.
const SLOW: Duration = Duration::from_secs(1);
/// Long runs may map so much; what allocates by a length that an input names dies of it.
#[cfg(guided)]
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// Tries `property`, which panics where it does not hold, with each seed and then with changes of them.
///
/// `name` is a folder's name: long runs keep there which inputs reached new code, below `DOORBUSTER_FUZZ_FOLDER`. The run begins with
/// `DOORBUSTER_SEED` where that is set. An input that failed is printed as a byte string, to be put among the seeds for good.
pub fn check(name: &str, seeds: &[&[u8]], property: impl Fn(&[u8])) {
    let run = Run::of_environment(name);
    let mut inputs: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    inputs.extend(run.kept());
    for input in &inputs {
        run.try_one(input, &property);
        reached_more();
    }
    assert!(run.folder.is_none() || is_guided(), "a folder is for long runs: cargo xtask fuzz");
    let mut changes = Changes::new(run.seed, seeds);
    let start = Instant::now();
    let mut tried = 0_u64;
    while start.elapsed() < run.length {
        let input = changes.of(&inputs);
        run.try_one(&input, &property);
        tried += 1;
        if reached_more() {
            run.keep(inputs.len() - seeds.len(), &input);
            inputs.push(input);
        }
    }
    eprintln!("{name}: {tried} inputs in {:.0?}, {} kept", start.elapsed(), inputs.len() - seeds.len());
}

struct Run {
    seed: u64,
    length: Duration,
    folder: Option<PathBuf>,
}

impl Run {
    fn of_environment(name: &str) -> Self {
        let number = |variable: &str| {
            std::env::var(variable)
                .ok()
                .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{variable}: {text}")))
        };
        let seed = number("DOORBUSTER_SEED")
            .unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64));
        eprintln!("{name}: DOORBUSTER_SEED={seed}");
        let folder = std::env::var_os("DOORBUSTER_FUZZ_FOLDER").map(|folder| Path::new(&folder).join(name));
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).expect("the folder for inputs can be made");
            bound_memory();
        }
        Self { seed, length: number("DOORBUSTER_FUZZ_SECONDS").map_or(SHORT, Duration::from_secs), folder }
    }

    /// What earlier long runs kept.
    fn kept(&self) -> Vec<Vec<u8>> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let files = std::fs::read_dir(folder).expect("the folder for inputs can be read");
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("an input can be read")).collect()
    }

    fn keep(&self, number: usize, input: &[u8]) {
        if let Some(folder) = &self.folder {
            std::fs::write(folder.join(format!("{number:06}")), input).expect("an input can be kept");
        }
    }

    fn try_one(&self, input: &[u8], property: impl Fn(&[u8])) {
        if let Some(folder) = &self.folder {
            // Whatever ends the process leaves its input behind.
            std::fs::write(folder.with_extension("last"), input).expect("an input can be written");
        }
        begin_to_count();
        let begun = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(input))) {
            eprintln!("this input fails; keep it among the seeds:\nb\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
        let is_slow = begun.elapsed() > SLOW && (0..3).all(|_| takes(input, &property) > SLOW);
        assert!(!is_slow, "this input takes longer than {SLOW:?}:\nb\"{}\"", input.escape_ascii());
    }
}

fn takes(input: &[u8], property: impl Fn(&[u8])) -> Duration {
    let begun = Instant::now();
    property(input);
    begun.elapsed()
}

#[cfg(guided)]
use crate::coverage::{begin_to_count, reached_more};

#[cfg(guided)]
fn bound_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
    setrlimit(Resource::As, limit).expect("a process may bound its own memory");
}

fn is_guided() -> bool {
    cfg!(guided)
}

#[cfg(not(guided))]
fn begin_to_count() {}

#[cfg(not(guided))]
fn reached_more() -> bool {
    false
}

#[cfg(not(guided))]
fn bound_memory() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that fails on what nobody would write, and not on any seed.
    fn is_fine(input: &[u8]) {
        let text = std::str::from_utf8(input).unwrap_or_default();
        let length: Option<usize> = text.strip_prefix("length=").and_then(|length| length.parse().ok());
        assert!(length.is_none_or(|length| length < 1_000), "{length:?}");
    }

    #[test]
    fn what_is_wrong_with_a_reader_is_found_within_a_second() {
        let found = catch_unwind(|| check("example", &[b"length=12", b"width=7"], is_fine));
        assert!(found.is_err());
    }

    #[test]
    fn every_seed_is_tried_and_changes_stay_within_their_length() {
        let tried = std::cell::RefCell::new(Vec::new());
        check("lengths", &[b"", b"a", &[b'x'; INPUT_BYTES_MAX]], |input| {
            assert!(input.len() <= INPUT_BYTES_MAX);
            if tried.borrow().len() < 3 {
                tried.borrow_mut().push(input.len());
            }
        });
        assert_eq!(tried.into_inner(), [0, 1, INPUT_BYTES_MAX]);
    }
}
