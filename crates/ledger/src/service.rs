//! The thread of the books: lets every service follow the chains of any number of sales, each at its own pace and in transactions of its own.
//!
//! It never reads beyond a log's durable end, so the books cannot get ahead of a chain. A failing disk makes a service wait and try
//! again; a contradiction stops nobody but is reported. It writes nothing but the books.

mod follow;
mod pace;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chain::{Files, LogReader, ReadError, Watermark};

use self::follow::Worker;
pub use self::pace::Pace;
use crate::books::{Applied, Books, BooksError, Service};

/// Bytes of batches in one transaction, besides the bound on records.
const STEP_BYTES_MAX: usize = 16 << 20;

/// Called with the service, the sale and what contradicts, on the thread of the books; should only pass it on.
pub type OnDrift = Box<dyn Fn(Service, &str, &str) + Send>;

/// Why one step failed. The books stand where their offset says.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The books refused or could not be written.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StepError {
    /// Whether the same step may succeed later by itself.
    fn may_pass(&self) -> bool {
        match self {
            Self::Books(BooksError::Store(error)) => error.may_pass(),
            Self::Read(ReadError::Io { .. }) => true,
            Self::Books(_) | Self::Read(_) => false,
        }
    }
}

/// One step of a service: reads whole batches below `durable_next` until `max_records` are reached or the log is drained, and
/// applies them in one transaction. Does nothing when there are none.
pub fn step(
    books: &mut Books,
    service: Service,
    reader: &mut LogReader,
    sale: &str,
    durable_next: u64,
    max_records: u64,
) -> Result<Applied, StepError> {
    let (next, _) = books.offset(service, sale)?;
    if next > durable_next {
        return Err(BooksError::AheadOfLog { sale: sale.to_owned(), books: next, log: durable_next }.into());
    }
    if reader.next() != next {
        reader.seek(next)?;
    }
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while reader.next().saturating_sub(next) < max_records && bytes < STEP_BYTES_MAX {
        let Some(batch) = reader.next_batch(durable_next)? else { break };
        bytes += batch.len();
        batches.push(batch);
    }
    Ok(books.apply(service, sale, &batches)?)
}

/// How a service stands with one sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowState {
    /// Following.
    Running,
    /// The disk refused; it tries again, with growing pauses. Holds the reason.
    Retrying(String),
    /// Books and log contradict each other or a file is damaged; somebody has to look. Holds the reason.
    Stopped(String),
}

/// What the thread and its observers share about one sale.
struct Follow {
    name: String,
    folder: PathBuf,
    watermark: Arc<Watermark>,
    services: [Progress; Service::ALL.len()],
}

impl Follow {
    fn progress(&self, service: Service) -> &Progress {
        &self.services[service as usize]
    }
}

/// How one service stands with one sale.
struct Progress {
    drained: AtomicU64,
    state: Mutex<FollowState>,
}

/// What the thread is told.
#[derive(Default)]
struct Orders {
    added: Vec<Arc<Follow>>,
    stop: bool,
}

/// Where the thread waits for orders.
#[derive(Default)]
struct Bell {
    orders: Mutex<Orders>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut lock(&self.orders));
        self.rung.notify_all();
    }

    /// Waits until there are orders or the time is over (`None`: for as long as it takes). Gives the sales added since, and whether to stop.
    fn wait(&self, timeout: Option<Duration>) -> (Vec<Arc<Follow>>, bool) {
        let quiet = |orders: &mut Orders| orders.added.is_empty() && !orders.stop;
        let guard = lock(&self.orders);
        let mut guard = match timeout {
            Some(timeout) => {
                self.rung.wait_timeout_while(guard, timeout, quiet).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.rung.wait_while(guard, quiet).unwrap_or_else(PoisonError::into_inner),
        };
        (std::mem::take(&mut guard.added), guard.stop)
    }
}

/// The running service.
pub struct BooksService {
    bell: Arc<Bell>,
    follows: Mutex<HashMap<String, Arc<Follow>>>,
    thread: Option<JoinHandle<()>>,
}

impl BooksService {
    /// Starts the thread, which owns the books from here on (open a reader for queries). Each service keeps the
    /// pace over all its sales.
    /// Fails only where the system gives no thread.
    pub fn start(books: Books, files: Arc<dyn Files>, pace: Pace, on_drift: OnDrift) -> io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let worker = Worker::new(books, files, pace, on_drift, Arc::clone(&bell));
        let thread = thread::Builder::new().name("books".to_owned()).spawn(move || worker.run())?;
        Ok(Self { bell, follows: Mutex::default(), thread: Some(thread) })
    }

    /// Follows a sale's log in `folder` up to its watermark, from each service's offset on. A sale that is followed already stays as it is.
    pub fn add_sale(&self, name: &str, folder: PathBuf, watermark: Arc<Watermark>) {
        let mut follows = lock(&self.follows);
        if follows.contains_key(name) {
            return;
        }
        let services =
            Service::ALL.map(|_| Progress { drained: AtomicU64::new(0), state: Mutex::new(FollowState::Running) });
        let follow = Arc::new(Follow { name: name.to_owned(), folder, watermark, services });
        follows.insert(name.to_owned(), Arc::clone(&follow));
        self.bell.ring(|orders| orders.added.push(follow));
    }

    /// The first record of a sale that a service has not applied, as last committed; 0 for an unknown sale.
    pub fn drained(&self, service: Service, sale: &str) -> u64 {
        lock(&self.follows).get(sale).map_or(0, |follow| follow.progress(service).drained.load(Ordering::Acquire))
    }

    /// How a service stands with a sale; `None` for an unknown one.
    pub fn state(&self, service: Service, sale: &str) -> Option<FollowState> {
        lock(&self.follows).get(sale).map(|follow| lock(&follow.progress(service).state).clone())
    }

    /// Ends the thread after the transaction that it is in, and closes the books.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.bell.ring(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its own hook; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Drop for BooksService {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The state behind these locks is whole after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
