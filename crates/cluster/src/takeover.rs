//! The ladder's second rung: Redis is away, and one process decides in its place, with the embedded engine's own owner on the cluster's
//! chain.
//!
//! The append elects it: of several that try, one begins the next epoch. From then on nothing that Redis decides can come into the
//! chain. A process that was frozen and thaws finds the next epoch taken, and answers nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use admission::core::Verdict;
use admission::redis::requests;
use admission::{Answer, Guards, Owner, OwnerError, OwnerOptions, Replaying, Request};
use bytes::Bytes;
use chain::batch::{Batch, EncodedBatch};
use chain::{AppendError, ChainLog, HeadSigner, Watermark};
use domain::ids::Hash;
use domain::{Clock, SaleId};
use futures_util::StreamExt as _;
use stream::StreamLog;
use tokio::runtime::Handle;

use crate::decider::Decision;
use crate::follower::Follower;
use crate::ladder::{Ladder, Order, Rung};
use crate::link::Link;
use crate::relay::RelayError;
use crate::wire::{decode_call, encode_decisions};

/// Where the process listens that has taken a sale over.
pub(crate) const OWNER: &str = "owner";
/// Calls that may wait for the owner; one more is not answered, and the gate asks again.
const CALLS_MAX: usize = 1_024;
/// Between two looks whether Redis is well again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest that an owner sleeps.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A call that waits for the owner.
struct Call {
    requests: Vec<Request>,
    reply: async_nats::Subject,
}

/// A call whose requests the owner has taken, with what became of the first of them.
struct Asked {
    reply: async_nats::Subject,
    count: usize,
    decisions: Vec<Decision>,
}

impl Asked {
    fn is_decided(&self) -> bool {
        self.decisions.len() == self.count
    }
}

/// What the owner is made of.
pub(crate) struct Takeover<'a> {
    pub(crate) follower: &'a Arc<Follower>,
    pub(crate) ladder: &'a Ladder,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) signer: &'a HeadSigner,
    pub(crate) slot_secret: Hash,
    /// How long Redis must be well again.
    pub(crate) return_after: Duration,
    /// Why this process decides.
    pub(crate) reason: &'static str,
}

impl Takeover<'_> {
    /// Decides until Redis is well again or another process has taken the chain over. The chain then stands where the follower does.
    pub(crate) async fn run(&self, log: StreamLog, link: &mut Link) -> Result<(), RelayError> {
        let subject = self.follower.store.beside(OWNER, &self.follower.name);
        let client = self.follower.store.client().clone();
        let subscribed = client.subscribe(subject).await.map_err(|error| RelayError::Takeover(error.to_string()))?;
        let parts = self.replay()?;
        let (calls, waiting) = sync_channel(CALLS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        // Also where this process is asked to end in the midst of it: the owner's thread must not go on by itself.
        let decides = StopsOwner(Arc::clone(&stop));
        let owning = Owning {
            chain: StreamChain {
                log,
                follower: Arc::clone(self.follower),
                runtime: Handle::current(),
                watermark: Arc::new(Watermark::new(parts.0.next())),
            },
            client: client.clone(),
            clock: Arc::clone(self.clock),
            stop,
            signer: self.signer.clone(),
            slot_secret: self.slot_secret,
            reason: self.reason,
        };
        let mut owner = tokio::task::spawn_blocking(move || owning.run(parts, &waiting));
        self.ladder.lead(Some(Rung::Takeover));
        let outcome = tokio::select! {
            outcome = &mut owner => Some(outcome),
            () = receive(subscribed, calls) => None,
            () = self.until_redis_is_well(link) => None,
        };
        drop(decides);
        self.ladder.lead(None);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => owner.await,
        };
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(RelayError::Takeover(error.to_string())),
            Err(panic) => Err(RelayError::Takeover(panic.to_string())),
        }
    }

    /// A second core from this process's copy of the chain.
    fn replay(&self) -> Result<(admission::Core, chain::digest::StateHash), RelayError> {
        let unreadable = |error: &dyn std::fmt::Display| RelayError::Replay(error.to_string());
        let mut reader = self.follower.reader()?;
        let mut replaying = Replaying::default();
        let end = self.follower.lock().replica.core().next();
        while let Some(bytes) = reader.next_batch(end).map_err(|error| unreadable(&error))? {
            let batch = Batch::parse(&bytes).map_err(|error| unreadable(&error))?;
            replaying.follow(&batch).map_err(RelayError::Replay)?;
        }
        match replaying.into_parts() {
            Some(parts) if parts.0.next() == end => Ok(parts),
            _ => Err(RelayError::Takeover("this process's copy of the chain is not complete".to_owned())),
        }
    }

    async fn until_redis_is_well(&self, link: &mut Link) {
        let mut well_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let well = link.state().await.is_ok() && self.ladder.order() == Order::Automatic;
            well_since = well.then(|| well_since.unwrap_or_else(Instant::now));
            if well_since.is_some_and(|since| since.elapsed() >= self.return_after) {
                return;
            }
        }
    }
}

/// Tells the owner's thread to end when this is dropped.
struct StopsOwner(Arc<AtomicBool>);

impl Drop for StopsOwner {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes calls in, until nobody takes them on.
async fn receive(mut subscribed: async_nats::Subscriber, calls: SyncSender<Call>) {
    while let Some(message) = subscribed.next().await {
        let Some(reply) = message.reply else { continue };
        let Some(requests) = decode_call(&message.payload).and_then(|arguments| requests(&arguments)) else { continue };
        if let Err(TrySendError::Disconnected(_)) = calls.try_send(Call { requests, reply }) {
            return;
        }
    }
}

/// The owner's thread.
struct Owning {
    chain: StreamChain,
    client: async_nats::Client,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    signer: HeadSigner,
    slot_secret: Hash,
    reason: &'static str,
}

impl Owning {
    fn run(self, parts: (admission::Core, chain::digest::StateHash), calls: &Receiver<Call>) -> Result<(), OwnerError> {
        let Self { chain, client, clock, stop, signer, slot_secret, reason } = self;
        let (name, runtime) = (chain.follower.name.clone(), chain.runtime.clone());
        let clocks = || (clock.wall_milliseconds(), clock.monotonic_milliseconds());
        let options = OwnerOptions { signer, slot_secret, guards: Guards::ON };
        let mut owner = Owner::take_over(parts, chain, options, clocks())?;
        tracing::warn!(sale = name, epoch = owner.core().epoch(), reason, "this process decides in Redis's place");
        let (mut inbox, mut answers) = (VecDeque::new(), Vec::new());
        let mut waiting: VecDeque<Asked> = VecDeque::new();
        while !stop.load(Ordering::Relaxed) || !inbox.is_empty() {
            let sleep = Duration::from_millis(owner.idle_milliseconds_max(clocks().0)).min(SLEEP_MAX);
            let first = if inbox.is_empty() { calls.recv_timeout(sleep) } else { Err(RecvTimeoutError::Timeout) };
            for Call { requests, reply } in first.into_iter().chain(calls.try_iter()) {
                waiting.push_back(Asked { reply, count: requests.len(), decisions: Vec::new() });
                inbox.extend(requests.into_iter().map(|request| (request, ())));
            }
            let (wall, monotonic) = clocks();
            // After an error nobody is answered: the gates ask whoever decides then.
            owner.step(wall, monotonic, &mut inbox, &mut answers)?;
            let (epoch, next) = (owner.core().epoch(), owner.core().next());
            for ((), answer) in answers.drain(..) {
                if let Some(asked) = waiting.iter_mut().find(|asked| !asked.is_decided()) {
                    asked.decisions.push(decision(answer, epoch, next));
                }
            }
            while let Some(Asked { reply, decisions, .. }) = waiting.pop_front_if(|asked| asked.is_decided()) {
                let reply = client.publish(reply, Bytes::from(encode_decisions(&decisions)));
                // A gate without an answer asks again.
                drop(runtime.block_on(reply));
            }
        }
        tracing::info!(sale = name, "the takeover ends as planned: Redis gets the sale back from the chain");
        Ok(())
    }
}

/// What an owner answered, as a decision that the chain already has.
fn decision(answer: Answer, epoch: u64, next: u64) -> Decision {
    let (verdict, next) = match answer {
        Answer::Granted(grant, Some(receipt)) => (Verdict::Changed(grant.number), receipt.position + 1),
        Answer::Granted(grant, None) => (Verdict::Unchanged(grant.number), next),
        Answer::Refused { refusal, position, retry_at } => (Verdict::Refused(refusal, retry_at), position + 1),
        Answer::Sale(_) | Answer::Grants(_) => (Verdict::Sale, next),
    };
    Decision { verdict, epoch, next }
}

/// The cluster's chain, as an owner appends to it.
struct StreamChain {
    log: StreamLog,
    follower: Arc<Follower>,
    runtime: Handle,
    watermark: Arc<Watermark>,
}

impl ChainLog for StreamChain {
    fn sale(&self) -> SaleId {
        self.follower.sale
    }

    fn next(&self) -> u64 {
        self.log.next()
    }

    fn head(&self) -> Hash {
        self.log.head()
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        let appended = self.runtime.block_on(self.follower.append(&mut self.log, batch));
        appended.map_err(|error| AppendError::Unknown(std::io::Error::other(error)))?;
        self.watermark.publish(self.log.next());
        Ok(())
    }

    fn watermark(&self) -> Arc<Watermark> {
        Arc::clone(&self.watermark)
    }
}
