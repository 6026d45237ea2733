//! The service's thread: whose turn it is, when to wait, what to do about an error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chain::{Files, LogReader};

use super::pace::{Meter, Pace};
use super::{Bell, Follow, FollowState, OnDrift, StepError, lock, step};
use crate::books::{Applied, Books};

/// After catching up, so long is waited for more, so that a busy sale makes few large transactions instead of many small ones.
const GATHER: Duration = Duration::from_millis(20);
/// How long a wait for a single quiet sale may hold up a new sale or the shutdown.
const QUIET_MAX: Duration = Duration::from_millis(200);
/// The first and the longest pause after an error that may pass.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// One sale as the thread sees it.
struct Followed {
    shared: Arc<Follow>,
    reader: Option<LogReader>,
    /// Where the books stand; unknown before the first step and after an error.
    next: Option<u64>,
    retry_at: Option<Instant>,
    retry_pause: Duration,
    stopped: bool,
}

impl Followed {
    fn new(shared: Arc<Follow>) -> Self {
        Self { shared, reader: None, next: None, retry_at: None, retry_pause: RETRY_FIRST, stopped: false }
    }

    /// Whether a step now would do something.
    fn has_work(&self, now: Instant) -> bool {
        let behind = self.next.is_none_or(|next| next < self.shared.watermark.next());
        !self.stopped && behind && self.retry_at.is_none_or(|at| at <= now)
    }
}

pub(super) struct Worker {
    books: Books,
    files: Arc<dyn Files>,
    meter: Meter,
    on_drift: OnDrift,
    bell: Arc<Bell>,
    sales: Vec<Followed>,
    turn: usize,
}

impl Worker {
    pub(super) fn new(books: Books, files: Arc<dyn Files>, pace: Pace, on_drift: OnDrift, bell: Arc<Bell>) -> Self {
        let meter = Meter::new(pace, Instant::now());
        Self { books, files, meter, on_drift, bell, sales: Vec::new(), turn: 0 }
    }

    pub(super) fn run(mut self) {
        loop {
            let pause = self.round();
            let (added, stop) = self.bell.wait(pause);
            if stop {
                return;
            }
            self.sales.extend(added.into_iter().map(Followed::new));
        }
    }

    /// One step for the next sale that has work. Gives how long to wait before the next round; `None` until told.
    fn round(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let wait = self.meter.wait(now);
        if !wait.is_zero() {
            return Some(wait);
        }
        let count = self.sales.len();
        let order = (0..count).map(|distance| (self.turn + distance) % count);
        let Some(index) = order.into_iter().find(|index| self.sales[*index].has_work(now)) else {
            return self.quiet();
        };
        self.turn = index + 1;
        let outcome = self.step(index);
        let idle = outcome.as_ref().is_ok_and(|applied| applied.records == 0);
        self.after(index, outcome);
        let caught_up = !self.sales.iter().any(|sale| sale.has_work(now));
        Some(if idle || caught_up { GATHER } else { Duration::ZERO })
    }

    /// Nothing to do. A single sale is waited for by its watermark; several are looked at in turn.
    fn quiet(&self) -> Option<Duration> {
        match &self.sales[..] {
            sales if sales.iter().all(|sale| sale.stopped) => None,
            [Followed { shared, next: Some(next), retry_at: None, .. }] => {
                shared.watermark.wait_beyond(*next, QUIET_MAX);
                Some(Duration::ZERO)
            }
            _ => Some(GATHER),
        }
    }

    fn step(&mut self, index: usize) -> Result<Applied, StepError> {
        let sale = &mut self.sales[index];
        let reader = match &mut sale.reader {
            Some(reader) => reader,
            empty => empty.insert(LogReader::open(Arc::clone(&self.files), &sale.shared.folder)?),
        };
        let durable_next = sale.shared.watermark.next();
        step(&mut self.books, reader, &sale.shared.name, durable_next, self.meter.records())
    }

    fn after(&mut self, index: usize, outcome: Result<Applied, StepError>) {
        let sale = &mut self.sales[index];
        let outcome = outcome.and_then(|applied| Ok((applied, self.books.offset(&sale.shared.name)?.0)));
        match outcome {
            Ok((applied, next)) => {
                self.meter.took(applied.records, Instant::now());
                sale.next = Some(next);
                sale.shared.drained.store(next, Ordering::Release);
                if sale.retry_at.take().is_some() {
                    tracing::info!(sale = sale.shared.name, next, "the books follow again");
                    sale.retry_pause = RETRY_FIRST;
                    *lock(&sale.shared.state) = FollowState::Running;
                }
                if let Some(reason) = applied.drift {
                    (self.on_drift)(&sale.shared.name, &reason);
                }
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(sale = sale.shared.name, %error, pause = ?sale.retry_pause, "the books wait and try again");
                (sale.reader, sale.next) = (None, None);
                sale.retry_at = Some(Instant::now() + sale.retry_pause);
                sale.retry_pause = (sale.retry_pause * 2).min(RETRY_MAX);
                *lock(&sale.shared.state) = FollowState::Retrying(error.to_string());
            }
            Err(error) => {
                tracing::error!(sale = sale.shared.name, %error, "the books have stopped following");
                (sale.reader, sale.stopped) = (None, true);
                *lock(&sale.shared.state) = FollowState::Stopped(error.to_string());
                (self.on_drift)(&sale.shared.name, &error.to_string());
            }
        }
    }
}
