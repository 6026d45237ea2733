//! The durable end of a log as a number that readers wait on. It says what may be read, never what stands there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of the first record that is not durable yet, shared by the writer and its readers.
#[derive(Debug, Default)]
pub struct Watermark {
    next: AtomicU64,
    waiting: AtomicUsize,
    gate: Mutex<()>,
    risen: Condvar,
}

impl Watermark {
    /// A watermark at `next`.
    pub fn new(next: u64) -> Self {
        Self { next: AtomicU64::new(next), ..Self::default() }
    }

    /// All records below this number are durable.
    pub fn next(&self) -> u64 {
        self.next.load(SeqCst)
    }

    /// Raises the watermark. Without a waiting reader this is one store and one load.
    pub fn publish(&self, next: u64) {
        // Sequential consistency pairs this store with the waiter's increment: one of the two sees the other, so no wake-up is lost.
        self.next.store(next, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            drop(self.lock());
            self.risen.notify_all();
        }
    }

    /// Waits until the watermark stands above `next` or the time is over; gives where it stands then.
    pub fn wait_beyond(&self, next: u64, timeout: Duration) -> u64 {
        if self.next() > next {
            return self.next();
        }
        let deadline = Instant::now() + timeout;
        self.waiting.fetch_add(1, SeqCst);
        let mut guard = self.lock();
        while self.next() <= next {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            guard = self.risen.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(guard);
        self.waiting.fetch_sub(1, SeqCst);
        self.next()
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
