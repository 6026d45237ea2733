//! Pictures that are made before somebody asks: a picture takes milliseconds, and a crowd comes at once.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::challenge::CheckKeys;
use crate::drawn;
use crate::picture::{LEVEL_MAX, draw};

const LEVELS: usize = LEVEL_MAX as usize + 1;
/// Pictures of a level that lie ready: 1 to 3 MiB in all.
const READY_MAX: usize = 256;
/// Pictures of a level that were given out and are kept for those who come while none is ready.
const GIVEN_MAX: usize = 64;
/// Fewer of them are given to nobody again, so that few get one that they have had.
const GIVEN_MIN: usize = 16;

/// A picture and what its letters follow from.
pub struct Made {
    /// Goes into the challenge.
    pub seed: [u8; 16],
    /// A PNG file.
    pub png: Vec<u8>,
}

/// The pictures, and the thread that makes them.
pub struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stock: Mutex<Stock>,
    is_low: Condvar,
    is_made: Condvar,
}

#[derive(Default)]
struct Stock {
    ready: [VecDeque<Arc<Made>>; LEVELS],
    given: [VecDeque<Arc<Made>>; LEVELS],
    /// Harder ones are made once somebody needs them.
    is_wanted: [bool; LEVELS],
    is_over: bool,
}

impl Pool {
    /// Starts the thread. Fails only where the system gives no thread.
    pub fn start(keys: Arc<CheckKeys>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        shared.lock().is_wanted[0] = true;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("pictures".to_owned()).spawn(move || fill(&of_thread, &keys))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A picture of that level. While more are taken than are made, some are given to several; `None` before the first ones of a
    /// level are ready, see [`Pool::wait`]. Never waits for one to be made.
    pub fn take(&self, level: u8) -> Option<Arc<Made>> {
        let level = usize::from(level.min(LEVEL_MAX));
        let mut stock = self.shared.lock();
        let Some(made) = stock.ready[level].pop_front() else {
            stock.is_wanted[level] = true;
            self.shared.is_low.notify_one();
            let given = &mut stock.given[level];
            if given.len() < GIVEN_MIN {
                return None;
            }
            given.rotate_left(1);
            return given.front().cloned();
        };
        stock.given[level].push_back(Arc::clone(&made));
        if stock.given[level].len() > GIVEN_MAX {
            stock.given[level].pop_front();
        }
        self.shared.is_low.notify_one();
        Some(made)
    }
}

impl Pool {
    /// The same, once there is one. Blocks for some milliseconds, and only for the first of a level.
    pub fn wait(&self, level: u8) -> Arc<Made> {
        loop {
            if let Some(made) = self.take(level) {
                return made;
            }
            let stock = self.shared.lock();
            let index = usize::from(level.min(LEVEL_MAX));
            let is_missing = |stock: &mut Stock| stock.ready[index].is_empty() && stock.given[index].len() < GIVEN_MIN;
            drop(self.shared.is_made.wait_while(stock, is_missing));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.is_low.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    /// The wanted level with the fewest pictures ready, unless all are full.
    fn lowest(&self) -> Option<usize> {
        let wanted = (0..LEVELS).filter(|level| self.is_wanted[*level] && self.ready[*level].len() < READY_MAX);
        wanted.min_by_key(|level| self.ready[*level].len())
    }
}

/// The thread: makes one picture after the other, not under the lock.
fn fill(shared: &Shared, keys: &CheckKeys) {
    loop {
        let level = {
            let stock = shared.lock();
            let waiting = shared.is_low.wait_while(stock, |stock| !stock.is_over && stock.lowest().is_none());
            let stock = waiting.unwrap_or_else(PoisonError::into_inner);
            match stock.lowest() {
                Some(level) if !stock.is_over => level,
                _ => return,
            }
        };
        let seed = drawn();
        let png = draw(&keys.letters(&seed, level as u8), level as u8);
        shared.lock().ready[level].push_back(Arc::new(Made { seed, png }));
        shared.is_made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pictures_are_made_ahead_within_bounds_and_a_crowd_always_gets_one() {
        let pool = Pool::start(Arc::new(CheckKeys::new(&[7; 32]))).unwrap();
        let one = pool.wait(0);
        assert!(one.png.starts_with(b"\x89PNG"));
        assert!(pool.shared.lock().ready[3].is_empty(), "nobody has asked for the hardest");
        let seeds: HashSet<_> = (0..GIVEN_MIN).map(|_| pool.wait(3).seed).collect();
        assert_eq!(seeds.len(), GIVEN_MIN, "nobody gets one that somebody has had");
        for _ in 0..10_000 {
            assert!(pool.take(3).is_some());
        }
        let stock = pool.shared.lock();
        assert!(stock.ready.iter().all(|ready| ready.len() <= READY_MAX));
        assert!(stock.given.iter().all(|given| given.len() <= GIVEN_MAX));
    }
}
