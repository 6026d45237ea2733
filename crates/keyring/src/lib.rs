//! The shop's published keys: fetched at the start, kept, fetched anew now and then, and kept on while the shop is down.
//!
//! One thread fetches. Nobody who asks for the keys waits for it or for a lock; they get what was fetched last. It looks into no token and
//! believes no key that `gate` refuses, and however many tokens name keys that nobody knows, the shop is asked once in ten seconds.

mod fetch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::Clock;
use gate::KeySet;
use tokio::sync::{Notify, oneshot};

use crate::fetch::Source;
pub use crate::fetch::{FetchError, SourceError};

/// Between two fetches because of a key that is not known, in milliseconds.
pub const ASK_AGAIN_MILLISECONDS: u64 = 10_000;
/// Between two fetches while the shop does not answer as it should.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// In the place of a time: it has not happened yet.
const NEVER: u64 = u64::MAX;

/// Where the keys come from and how long they are good.
#[derive(Clone, Debug)]
pub struct KeyringOptions {
    /// `https://` with host, path and perhaps a query.
    pub url: String,
    /// Between two fetches; what the shop says about caching does not count.
    pub refresh: Duration,
    /// For how long keys are believed after the last fetch that brought any.
    pub stale_max: Duration,
    /// For connecting and TLS, and for the whole fetch.
    pub times: FetchTimes,
    /// Certificates in PEM form that vouch for the shop, instead of those that the system trusts.
    pub authority: Option<Vec<u8>>,
    /// Take `http://` with a loopback address too. Whoever listens there says who everybody is.
    pub dangerous_plain_http: bool,
}

/// How long a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct FetchTimes {
    /// Looking the host up, connecting, and TLS.
    pub connect: Duration,
    /// All of it, the answer's last byte included.
    pub whole: Duration,
}

impl Default for FetchTimes {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), whole: Duration::from_secs(5) }
    }
}

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The settings.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What is to be said of a token whose key is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The shop's keys were fetched a moment ago, and this is none of them.
    Certain,
    /// The keys are older, or could not be fetched: the shop has been asked, or will be soon.
    Unsure,
}

struct Shared {
    clock: Arc<dyn Clock>,
    keys: ArcSwap<KeySet>,
    stale_max: u64,
    /// When the fetch began that brought the keys, and when the last one began at all; monotonic milliseconds.
    fetched_at: AtomicU64,
    tried_at: AtomicU64,
    /// For statistics.
    fetches: AtomicU64,
    wanted: Notify,
}

/// The keys as last fetched. Dropped, it fetches no more.
pub struct Keyring {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Keyring {
    /// Begins to fetch, and returns when the first fetch has ended, with keys or without; it blocks for [`FetchTimes::whole`] at most.
    pub fn start(options: KeyringOptions, clock: Arc<dyn Clock>) -> Result<Self, KeyringError> {
        let source = Source::new(&options)?;
        let shared = Arc::new(Shared {
            clock,
            keys: ArcSwap::default(),
            stale_max: u64::try_from(options.stale_max.as_millis()).unwrap_or(NEVER),
            fetched_at: AtomicU64::new(NEVER),
            tried_at: AtomicU64::new(NEVER),
            fetches: AtomicU64::new(0),
            wanted: Notify::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (first, first_ended) = std::sync::mpsc::sync_channel(1);
        let fetching = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("keyring".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = keep(&fetching, &source, options.refresh, first) => {}
                }
            });
            // A look-up of the host may hang in the system; nobody waits for it.
            runtime.shutdown_background();
        })?;
        // A thread that ended has dropped its end, and the process with it.
        let _ = first_ended.recv();
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Does `with` the keys that are believed now, without a lock; with none once they are too old.
    pub fn with<T>(&self, with: impl FnOnce(&KeySet) -> T) -> T {
        match self.shared.age() {
            Some(_) => with(&self.shared.keys.load()),
            None => with(&KeySet::default()),
        }
    }

    /// A token names a key that is not among them. Asks the shop, unless that was just done; never waits.
    pub fn miss(&self) -> Absence {
        if self.shared.age().is_some_and(|age| age < ASK_AGAIN_MILLISECONDS) {
            return Absence::Certain;
        }
        if self.shared.may_ask() {
            self.shared.wanted.notify_one();
        }
        Absence::Unsure
    }

    /// How often the shop has been asked.
    pub fn fetches(&self) -> u64 {
        self.shared.fetches.load(Ordering::Relaxed)
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has ended the process.
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

impl Shared {
    fn since(&self, at: u64) -> u64 {
        self.clock.monotonic_milliseconds().saturating_sub(at)
    }

    /// How old the keys are that are believed; `None` without any.
    fn age(&self) -> Option<u64> {
        let fetched_at = self.fetched_at.load(Ordering::Acquire);
        let age = (fetched_at != NEVER).then(|| self.since(fetched_at));
        age.filter(|age| *age <= self.stale_max)
    }

    fn may_ask(&self) -> bool {
        let tried_at = self.tried_at.load(Ordering::Acquire);
        tried_at == NEVER || self.since(tried_at) >= ASK_AGAIN_MILLISECONDS
    }
}

/// Fetches, and waits for the time or for somebody who misses a key, for ever.
async fn keep(shared: &Shared, source: &Source, refresh: Duration, first: std::sync::mpsc::SyncSender<()>) {
    let mut first = Some(first);
    let mut failed = false;
    loop {
        let pause = match fetch(shared, source, &mut failed).await {
            true => refresh,
            false => refresh.min(TRY_AGAIN),
        };
        if let Some(first) = first.take() {
            // Whoever started this waits; if not any more, nobody has to be told.
            let _ = first.send(());
        }
        let due = tokio::time::sleep(pause);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => break,
                // Of many that asked during the last fetch one request may be left over: it is answered by that fetch.
                () = shared.wanted.notified() => if shared.may_ask() { break },
            }
        }
    }
}

/// One fetch, whose outcome is said in the log when it differs from the last one's.
async fn fetch(shared: &Shared, source: &Source, failed: &mut bool) -> bool {
    let began_at = shared.clock.monotonic_milliseconds();
    shared.tried_at.store(began_at, Ordering::Release);
    shared.fetches.fetch_add(1, Ordering::Relaxed);
    match source.fetch().await {
        Ok(read) => {
            let is_first = shared.fetched_at.load(Ordering::Acquire) == NEVER;
            if is_first || *failed {
                tracing::info!(url = source.url(), keys = read.keys.count(), "the shop's keys are here");
            }
            for (place, reason) in read.left_out.iter().filter(|_| is_first) {
                tracing::warn!(url = source.url(), place, %reason, "a key of the shop is not believed");
            }
            shared.keys.store(Arc::new(read.keys));
            shared.fetched_at.store(began_at, Ordering::Release);
            *failed = false;
            true
        }
        Err(error) => {
            if !*failed {
                let kept = shared.fetched_at.load(Ordering::Acquire) != NEVER;
                let meanwhile = if kept { "those it had are believed on" } else { "tokens that need them wait" };
                tracing::error!(url = source.url(), %error, meanwhile, "the shop's keys cannot be fetched; trying on");
            }
            *failed = true;
            false
        }
    }
}
