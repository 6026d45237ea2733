//! An owner's thread and the inbox in front of it.
//!
//! A thread and not a task, because an append blocks. Commits are grouped by load alone: whatever has arrived while the last batch
//! was being synced is the next batch.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chain::Files;
use chain::disk::SpareReady;
use domain::{Clock, Refusal, limits};
use tokio::sync::Notify;

use crate::command::{Answer, Request};
use crate::owner::{Owner, OwnerError};
use crate::postbox::{Reply, deliver};
use crate::view::SaleView;

/// After this long without a request, the last batch is named as durable on disk.
const IDLE: Duration = Duration::from_millis(10);

/// Why a request was not taken; nothing of it will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests wait as may.
    #[error("the owner's inbox is full")]
    Full,
    /// The owner has stopped.
    #[error("the owner has stopped")]
    Stopped,
}

#[derive(Default)]
struct Inbox {
    requests: VecDeque<(Request, Reply)>,
    /// The owner sleeps and must be woken.
    asleep: bool,
    stop: bool,
}

struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// The same for a thread that waits for other things too.
    rung: Notify,
}

impl Shared {
    fn new() -> Self {
        Self { inbox: Mutex::default(), arrived: Condvar::new(), rung: Notify::new() }
    }

    fn ring(&self) {
        self.arrived.notify_one();
        self.rung.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to one sale's owner; cheap to share.
pub struct OwnerHandle {
    shared: Arc<Shared>,
    view: Arc<SaleView>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl OwnerHandle {
    /// Gives the owner its thread. `on_stop` hears why it ended, and must end the process on an error: the last batch is unknown then.
    pub fn spawn(
        owner: Owner,
        clock: Arc<dyn Clock>,
        files: Arc<dyn Files>,
        on_stop: impl FnOnce(Result<(), OwnerError>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new());
        let view = Arc::clone(owner.view());
        let turning = Turning { shared: Arc::clone(&shared), owner, clock, files, spares: sync_channel(1) };
        let name = format!("owner {}", view.definition().sale);
        let thread = std::thread::Builder::new().name(name).spawn(move || on_stop(turning.run()))?;
        Ok(Self { shared, view, thread: Mutex::new(Some(thread)) })
    }

    /// The way to a sale that is decided elsewhere: `run`, on a thread of its own, takes the requests and has them answered, until it
    /// is asked to stop.
    pub fn elsewhere(view: Arc<SaleView>, run: impl FnOnce(Requests) + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new());
        let requests = Requests { shared: Arc::clone(&shared) };
        let name = format!("sale {}", view.definition().sale);
        let thread = std::thread::Builder::new().name(name).spawn(move || run(requests))?;
        Ok(Self { shared, view, thread: Mutex::new(Some(thread)) })
    }

    /// Submits a request; the answer goes where `reply` says. On an error nothing of it will happen.
    pub fn submit(&self, request: Request, reply: Reply) -> Result<(), SubmitError> {
        let mut inbox = self.shared.lock();
        if inbox.stop {
            return Err(SubmitError::Stopped);
        }
        if inbox.requests.len() >= limits::INBOX_MAX {
            return Err(SubmitError::Full);
        }
        inbox.requests.push_back((request, reply));
        self.wake(inbox);
        Ok(())
    }

    /// Submits many; those that are not taken any more are answered `overloaded` in `refused`.
    pub(crate) fn submit_all(&self, requests: &mut Vec<(Request, Reply)>, refused: &mut Vec<(Reply, Answer)>) {
        let mut inbox = self.shared.lock();
        let room = if inbox.stop { 0 } else { limits::INBOX_MAX.saturating_sub(inbox.requests.len()) };
        let position = self.view.durable_position();
        let refusal = |(_, reply)| (reply, Answer::Refused { refusal: Refusal::Overloaded, position, retry_at: None });
        refused.extend(requests.drain(room.min(requests.len())..).map(refusal));
        inbox.requests.extend(requests.drain(..));
        self.wake(inbox);
    }

    fn wake(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let asleep = std::mem::take(&mut inbox.asleep);
        drop(inbox);
        if asleep {
            self.shared.ring();
        }
    }

    /// Submits a request and waits for the answer; `None` when the owner stopped or its inbox is full.
    pub async fn ask(&self, request: Request) -> Option<Answer> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(request, Reply::Oneshot(sender)).ok()?;
        receiver.await.ok()
    }

    /// What gates may know.
    pub fn view(&self) -> &Arc<SaleView> {
        &self.view
    }

    /// Lets the owner finish what it has taken, and waits for its thread to end.
    pub fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.ring();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("an owner's thread panicked");
        }
    }
}

impl Drop for OwnerHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The other end of [`OwnerHandle::elsewhere`].
pub struct Requests {
    shared: Arc<Shared>,
}

impl Requests {
    /// Waits until there is a request, or a wish to stop.
    pub async fn arrived(&self) {
        loop {
            {
                let mut inbox = self.shared.lock();
                if !inbox.requests.is_empty() || inbox.stop {
                    return;
                }
                inbox.asleep = true;
            }
            // A ring before this line is not lost: it is kept for the next who waits.
            self.shared.rung.notified().await;
        }
    }

    /// Takes up to `count_max` requests, the oldest first.
    pub fn take(&self, count_max: usize) -> Vec<(Request, Reply)> {
        let mut inbox = self.shared.lock();
        let count = count_max.min(inbox.requests.len());
        inbox.requests.drain(..count).collect()
    }

    /// Takes all that are `wanted`, wherever they stand.
    pub fn take_all(&self, wanted: impl Fn(&Request) -> bool) -> Vec<(Request, Reply)> {
        let mut inbox = self.shared.lock();
        if !inbox.requests.iter().any(|(request, _)| wanted(request)) {
            return Vec::new();
        }
        let (taken, rest): (VecDeque<_>, VecDeque<_>) =
            inbox.requests.drain(..).partition(|(request, _)| wanted(request));
        inbox.requests = rest;
        taken.into()
    }

    /// Whether nothing more will come.
    pub fn stopped(&self) -> bool {
        self.shared.lock().stop
    }
}

type SpareOutcome = std::io::Result<SpareReady>;

struct Turning {
    shared: Arc<Shared>,
    owner: Owner,
    clock: Arc<dyn Clock>,
    files: Arc<dyn Files>,
    spares: (SyncSender<SpareOutcome>, Receiver<SpareOutcome>),
}

impl Turning {
    fn run(mut self) -> Result<(), OwnerError> {
        let mut batch = VecDeque::new();
        let mut answers = Vec::new();
        loop {
            let stop = self.wait(&mut batch)?;
            let (wall, monotonic) = (self.clock.wall_milliseconds(), self.clock.monotonic_milliseconds());
            let turned = self.owner.step(wall, monotonic, &mut batch, &mut answers);
            deliver(&mut answers);
            turned?;
            self.keep_spare();
            if stop && batch.is_empty() {
                return self.owner.settle_tail();
            }
        }
    }

    /// Waits for requests or for the next thing that chain time brings; moves what has arrived to `batch`. Tells whether to stop.
    fn wait(&mut self, batch: &mut VecDeque<(Request, Reply)>) -> Result<bool, OwnerError> {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.lock();
        if batch.is_empty() && inbox.requests.is_empty() && !inbox.stop {
            inbox = sleep(&shared, inbox, IDLE);
            if inbox.requests.is_empty() && !inbox.stop {
                drop(inbox);
                self.owner.settle_tail()?;
                let until_event = self.owner.idle_milliseconds_max(self.clock.wall_milliseconds());
                inbox = shared.lock();
                if inbox.requests.is_empty() && !inbox.stop {
                    inbox = sleep(&shared, inbox, Duration::from_millis(until_event));
                }
            }
        }
        if batch.is_empty() {
            std::mem::swap(&mut inbox.requests, batch);
        } else {
            batch.append(&mut inbox.requests);
        }
        Ok(inbox.stop)
    }

    /// Has the spare segment made on a thread of its own, so that zero-filling 64 MiB stalls nobody.
    fn keep_spare(&mut self) {
        match self.spares.1.try_recv() {
            Ok(outcome) => self.owner.spare_finished(outcome),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        if let Some(task) = self.owner.spare_wanted() {
            let (files, report) = (Arc::clone(&self.files), self.spares.0.clone());
            let shared = Arc::clone(&self.shared);
            let made = std::thread::Builder::new().name("spare segment".to_owned()).spawn(move || {
                // The owner may be gone by then; the next start finds the spare or makes it again.
                drop(report.send(task.run(files.as_ref())));
                shared.arrived.notify_one();
            });
            if let Err(error) = made {
                self.owner.spare_finished(Err(error));
            }
        }
    }
}

fn sleep<'a>(shared: &'a Shared, mut inbox: MutexGuard<'a, Inbox>, at_most: Duration) -> MutexGuard<'a, Inbox> {
    inbox.asleep = true;
    let (mut inbox, _) = shared.arrived.wait_timeout(inbox, at_most).unwrap_or_else(PoisonError::into_inner);
    inbox.asleep = false;
    inbox
}
