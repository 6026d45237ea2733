//! The thread: whose turn it is, when to wait, what to do about an error. Each service has a desk of its own, with its own pace, and at a
//! desk each sale has its own place, so that nobody waits for another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chain::{Files, LogReader};

use super::pace::{Meter, Pace};
use super::{Bell, Follow, FollowState, OnDrift, StepError, lock, step};
use crate::books::{Applied, Books, Service};

/// After catching up, so long is waited for more, so that a busy sale makes few large transactions instead of many small ones.
const GATHER: Duration = Duration::from_millis(20);
/// How long a wait for a single quiet sale may hold up a new sale or the shutdown.
const QUIET_MAX: Duration = Duration::from_millis(200);
/// The first and the longest pause after an error that may pass.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// One sale as one service sees it.
struct Followed {
    shared: Arc<Follow>,
    reader: Option<LogReader>,
    /// Where the service stands; unknown before the first step and after an error.
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

/// One service with all its sales.
struct Desk {
    service: Service,
    meter: Meter,
    sales: Vec<Followed>,
    turn: usize,
}

impl Desk {
    /// The next sale that has work; those behind it come first the next time.
    fn next_sale(&mut self, now: Instant) -> Option<usize> {
        let count = self.sales.len();
        let mut order = (0..count).map(|distance| (self.turn + distance) % count);
        let index = order.find(|index| self.sales[*index].has_work(now))?;
        self.turn = index + 1;
        Some(index)
    }

    fn step(&mut self, index: usize, books: &mut Books, files: &Arc<dyn Files>) -> Result<Applied, StepError> {
        let sale = &mut self.sales[index];
        let reader = match &mut sale.reader {
            Some(reader) => reader,
            empty => empty.insert(LogReader::open(Arc::clone(files), &sale.shared.folder)?),
        };
        let durable_next = sale.shared.watermark.next();
        step(books, self.service, reader, &sale.shared.name, durable_next, self.meter.records())
    }

    fn after(&mut self, index: usize, outcome: Result<(Applied, u64), StepError>, on_drift: &OnDrift) {
        let service = self.service;
        let sale = &mut self.sales[index];
        let name = sale.shared.name.as_str();
        let shared = sale.shared.progress(service);
        match outcome {
            Ok((applied, next)) => {
                self.meter.took(applied.records, Instant::now());
                sale.next = Some(next);
                shared.drained.store(next, Ordering::Release);
                if sale.retry_at.take().is_some() {
                    tracing::info!(service = service.name(), sale = name, next, "the books follow again");
                    sale.retry_pause = RETRY_FIRST;
                    *lock(&shared.state) = FollowState::Running;
                }
                if let Some(reason) = applied.drift {
                    on_drift(service, name, &reason);
                }
            }
            Err(error) if error.may_pass() => {
                let (service, pause) = (service.name(), sale.retry_pause);
                tracing::warn!(service, sale = name, %error, ?pause, "the books wait and try again");
                (sale.reader, sale.next) = (None, None);
                sale.retry_at = Some(Instant::now() + sale.retry_pause);
                sale.retry_pause = (sale.retry_pause * 2).min(RETRY_MAX);
                *lock(&shared.state) = FollowState::Retrying(error.to_string());
            }
            Err(error) => {
                tracing::error!(service = service.name(), sale = name, %error, "the books have stopped following");
                (sale.reader, sale.stopped) = (None, true);
                *lock(&shared.state) = FollowState::Stopped(error.to_string());
                on_drift(service, name, &error.to_string());
            }
        }
    }
}

pub(super) struct Worker {
    books: Books,
    files: Arc<dyn Files>,
    on_drift: OnDrift,
    bell: Arc<Bell>,
    desks: [Desk; Service::ALL.len()],
}

impl Worker {
    pub(super) fn new(books: Books, files: Arc<dyn Files>, pace: Pace, on_drift: OnDrift, bell: Arc<Bell>) -> Self {
        let now = Instant::now();
        let desks =
            Service::ALL.map(|service| Desk { service, meter: Meter::new(pace, now), sales: Vec::new(), turn: 0 });
        Self { books, files, on_drift, bell, desks }
    }

    pub(super) fn run(mut self) {
        loop {
            let pause = self.round();
            let (added, stop) = self.bell.wait(pause);
            if stop {
                return;
            }
            for desk in &mut self.desks {
                desk.sales.extend(added.iter().cloned().map(Followed::new));
            }
        }
    }

    /// At each desk whose pace allows it, orders first, one step for the next sale that has work. Gives how long to wait before the next
    /// round; `None` until told.
    fn round(&mut self) -> Option<Duration> {
        let Self { books, files, on_drift, desks, .. } = self;
        let (mut pause, mut waits_for_work) = (None::<Duration>, false);
        let mut within = |wait: Duration| pause = Some(pause.map_or(wait, |pause| pause.min(wait)));
        for desk in desks {
            let now = Instant::now();
            let wait = desk.meter.wait(now);
            if !wait.is_zero() {
                within(wait);
                continue;
            }
            let Some(index) = desk.next_sale(now) else {
                waits_for_work = true;
                continue;
            };
            let outcome = desk.step(index, books, files).and_then(|applied| {
                let (next, _) = books.offset(desk.service, &desk.sales[index].shared.name)?;
                Ok((applied, next))
            });
            let idle = outcome.as_ref().is_ok_and(|(applied, _)| applied.records == 0);
            desk.after(index, outcome, on_drift);
            let caught_up = !desk.sales.iter().any(|sale| sale.has_work(now));
            within(if idle || caught_up { GATHER } else { Duration::ZERO });
        }
        match pause {
            // A desk without work may get some while another keeps its pace.
            Some(pause) if waits_for_work => Some(pause.min(GATHER)),
            Some(pause) => Some(pause),
            None => self.quiet(),
        }
    }

    /// Nothing to do. A single sale is waited for by its watermark; several are looked at in turn.
    fn quiet(&self) -> Option<Duration> {
        let mut following = self.desks.iter().flat_map(|desk| &desk.sales).filter(|sale| !sale.stopped).peekable();
        let shared = Arc::clone(&following.peek()?.shared);
        let next = following.try_fold(u64::MAX, |first, sale| {
            let is_quiet = Arc::ptr_eq(&sale.shared, &shared) && sale.retry_at.is_none();
            sale.next.filter(|_| is_quiet).map(|next| next.min(first))
        });
        let Some(next) = next else { return Some(GATHER) };
        shared.watermark.wait_beyond(next, QUIET_MAX);
        Some(Duration::ZERO)
    }
}
