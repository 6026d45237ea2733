//! The relay of a sale: brings to the chain what Redis has decided, and tells Redis and everybody else that it is there.
//!
//! One relay works at a time, by a lock with an expiry. The lock is for peace, not for safety: of two relays the append takes one batch,
//! and who was slower finds the other's in its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admission::Command;
use admission::redis::{
    DECIDE, Decided, OUTBOX, TICK, add_command, add_credit, clock_argument, outbox_arguments, tick_arguments,
};
use chain::batch::{BatchBuilder, BatchHeader};
use chain::codec::bytes_about;
use chain::{HeadSigner, PrivatePart};
use domain::ids::Hash;
use domain::record::PauseReason;
use domain::{ChainTime, Clock, Record, SalePhase, Stage, fault, limits};
use redis::Value;
use stream::{AppendError, ReadError, StreamLog};

use crate::follower::{FollowError, Follower};
use crate::ladder::{Ladder, Order, Rung};
use crate::link::{Link, LinkError};
use crate::options::ClusterOptions;
use crate::quiet::Quiet;
use crate::reconcile::Reconciler;
use crate::takeover::Takeover;

/// Records fetched at once.
const RECORDS_MAX: usize = 2_000;
/// A batch is cut here; the last record may go beyond, the bound of a batch is never reached.
const BATCH_BYTES_FULL: usize = limits::BATCH_BYTES_MAX / 2;
/// Besides what is known of a record's size.
const ROOM_BYTES: usize = 64;
/// How long a lock outlives its holder, and how often it is renewed.
const LOCK: (u64, Duration) = (3_000, Duration::from_secs(1));
const LOCK_PART: &str = "relay";
/// Between two looks into an empty outbox; while nothing can be bought.
const IDLE: Duration = Duration::from_millis(2);
const IDLE_SHUT: Duration = Duration::from_millis(50);
/// A sale that opens so soon is looked after like an open one.
const OPENS_SOON_MILLISECONDS: u64 = 1_000;
/// Between two looks at what chain time alone brings.
const TICK_EVERY: Duration = Duration::from_millis(100);
const DIGEST_EVERY: Duration = Duration::from_secs(5);
/// A turn that takes longer is told of, with its parts, where somebody wants to know (`RUST_LOG=debug`).
const SLOW_TURN: Duration = Duration::from_millis(30);
/// Between two tries after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// How long after a loss the relay waits for other processes' copies.
const OTHERS_PUT_BACK: Duration = Duration::from_millis(1_500);
/// So long without a turn is an outage, which open holds get back.
const STALL_MAX: Duration = Duration::from_secs(3);
/// So far the clocks may move against each other between two turns.
const CLOCK_JUMP_MILLISECONDS_MAX: i64 = 2_000;

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The stream lost records that were acknowledged, and this process does not have them either.
    #[error(
        "the chain ends at record {next}, although it had all before record {committed}; whoever has them must put them back"
    )]
    Missing { next: u64, committed: u64 },
    /// What Redis decided cannot be a record: its library is not ours, or it is damaged.
    #[error("entry {0} of the outbox is no record of this version")]
    Entry(u64),
    /// This process could not decide in Redis's place, or no longer can.
    #[error("the sale cannot be taken over: {0}")]
    Takeover(String),
    /// The chain refuses what Redis decided.
    #[error("the chain's next batch cannot be followed: {0}")]
    Replay(String),
}

pub(crate) struct Relay<'a> {
    pub(crate) follower: &'a Arc<Follower>,
    pub(crate) ladder: &'a Ladder,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) options: &'a ClusterOptions,
    pub(crate) link: Link,
    pub(crate) signer: &'a HeadSigner,
    pub(crate) slot_secret: Hash,
    pub(crate) log: StreamLog,
    pub(crate) reconciler: Reconciler,
    /// Since when Redis has not answered.
    away_since: Option<Instant>,
    /// When this relay last knew that everything is well: (monotonic, wall) milliseconds.
    turned: Option<(u64, u64)>,
    ticked: Instant,
    digested: Instant,
    quiet: Quiet,
}

/// A record on its way to the chain.
pub(crate) struct Entry {
    pub(crate) time: ChainTime,
    pub(crate) record: Record,
    pub(crate) private: Option<PrivatePart>,
}

impl<'a> Relay<'a> {
    pub(crate) fn new(
        (follower, ladder): (&'a Arc<Follower>, &'a Ladder),
        clock: &'a Arc<dyn Clock>,
        options: &'a ClusterOptions,
        (signer, slot_secret): (&'a HeadSigner, Hash),
        log: StreamLog,
    ) -> Self {
        let now = Instant::now();
        Self {
            follower,
            ladder,
            clock,
            options,
            link: Link::new(&options.redis, &follower.name),
            signer,
            slot_secret,
            log,
            reconciler: Reconciler::new(),
            away_since: None,
            turned: None,
            ticked: now,
            digested: now,
            quiet: Quiet::default(),
        }
    }

    /// Tells this relay from others in the lock.
    fn holder(&self) -> String {
        format!("{:016x}", self.options.process)
    }

    /// Renews the lock, or takes it; `false` while another relay has it.
    pub(crate) async fn keep_lock(&mut self) -> Result<bool, RelayError> {
        let holder = self.holder();
        Ok(self.link.lock(LOCK_PART, &holder, LOCK.0).await?)
    }

    /// For ever: waits for the lock, works while it has it, and takes the sale over when Redis stays away.
    pub(crate) async fn run(&mut self) {
        let mut locked_at: Option<Instant> = None;
        loop {
            if locked_at.is_none_or(|at| at.elapsed() >= LOCK.1) {
                match self.keep_lock().await {
                    Ok(true) => locked_at = Some(Instant::now()),
                    Ok(false) => (locked_at, self.turned, self.away_since) = (None, None, None),
                    Err(error) => self.note_away(&error),
                }
            }
            if self.is_to_take_over(locked_at.is_some()) {
                locked_at = None;
                self.take_over().await;
                continue;
            }
            if locked_at.is_none() {
                self.ladder.lead(None);
                tokio::time::sleep(LOCK.1 / 2).await;
                continue;
            }
            match self.turn().await {
                Ok(chained) => {
                    self.away_since = None;
                    self.quiet.is_over();
                    self.ladder.lead(Some(Rung::Full));
                    if chained == 0 {
                        tokio::time::sleep(self.idle()).await;
                    }
                }
                Err(error) => {
                    self.note_away(&error);
                    if matches!(error, RelayError::Link(LinkError::Full)) {
                        self.ladder.lead(Some(Rung::Paused));
                    }
                    self.mend(error).await;
                }
            }
        }
    }

    /// Between two looks into an empty outbox. The many sales that nobody can buy in must not take the servers' time from the one that is open.
    fn idle(&self) -> Duration {
        let soon = ChainTime(self.clock.wall_milliseconds()).plus(OPENS_SOON_MILLISECONDS);
        let state = self.follower.lock();
        let view = state.replica.view();
        match view.phase() {
            SalePhase::Open => IDLE,
            SalePhase::Planned if view.definition().opens_at <= soon => IDLE,
            SalePhase::Planned | SalePhase::Closed | SalePhase::Settled => IDLE_SHUT,
        }
    }

    fn note_away(&mut self, error: &RelayError) {
        if matches!(error, RelayError::Link(LinkError::Unreachable(_))) {
            self.away_since.get_or_insert_with(Instant::now);
        }
    }

    fn is_to_take_over(&self, has_lock: bool) -> bool {
        let ordered = has_lock && self.ladder.order() == Order::Takeover;
        ordered || self.is_away_too_long() && !self.ladder.is_led_by_another(self.options.process)
    }

    fn is_away_too_long(&self) -> bool {
        self.away_since.is_some_and(|since| since.elapsed() >= self.options.takeover_after)
    }

    async fn take_over(&mut self) {
        let outcome = async {
            self.find_again().await?;
            let takeover = Takeover {
                follower: self.follower,
                ladder: self.ladder,
                clock: self.clock,
                signer: self.signer,
                slot_secret: self.slot_secret,
                return_after: self.options.return_after,
                reason: if self.is_away_too_long() { "Redis is away" } else { "the operator ordered it" },
            };
            takeover.run(self.log.clone(), &mut self.link).await
        }
        .await;
        if let Err(error) = outcome {
            if self.quiet.is_due(&error) {
                tracing::warn!(sale = self.follower.name, %error, "this process does not decide in Redis's place");
            }
            tokio::time::sleep(LOCK.1 / 2).await;
        }
        // Whatever was decided meanwhile stands in the chain.
        (self.away_since, self.turned) = (None, None);
        drop(self.find_again().await);
    }

    pub(crate) async fn unlock(&mut self) {
        let holder = self.holder();
        // Without an answer the lock ends by itself.
        drop(self.link.unlock(LOCK_PART, &holder).await);
    }

    /// What follows from a failed turn.
    async fn mend(&mut self, error: RelayError) {
        let sale = &self.follower.name;
        let mended = match error {
            RelayError::Link(LinkError::Fenced(reason)) => {
                let is_new = self.follower.lock().replica.core().epoch() == 1;
                if is_new {
                    tracing::info!(sale, "Redis gets the new sale");
                } else {
                    tracing::warn!(sale, reason, "Redis is rebuilt from the chain");
                }
                self.rebuild().await
            }
            RelayError::Append(AppendError::Superseded(epoch)) => {
                tracing::warn!(sale, epoch, "another writer has taken the chain over");
                self.find_again().await
            }
            RelayError::Append(AppendError::Moved) => self.find_again().await,
            RelayError::Append(AppendError::Read(ReadError::Shorter { .. }))
            | RelayError::Read(ReadError::Shorter { .. }) => self.put_back().await,
            RelayError::Append(AppendError::Read(ReadError::Broken { .. }))
            | RelayError::Read(ReadError::Broken { .. }) => self.find_again().await,
            other => Err(other),
        };
        if let Err(error) = mended {
            if self.quiet.is_due(&error) {
                tracing::warn!(sale = self.follower.name, %error, "the relay tries again until it works");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn find_again(&mut self) -> Result<(), RelayError> {
        self.log = self.follower.find_again().await?;
        self.catch_up().await
    }

    pub(crate) async fn catch_up(&mut self) -> Result<(), RelayError> {
        Ok(self.follower.catch_up(&mut self.log).await?)
    }

    /// Puts back what the stream lost, and gives everybody else the time to put back what this process never had: nothing new may
    /// stand in its place.
    async fn put_back(&mut self) -> Result<(), RelayError> {
        self.log = self.follower.put_back().await?;
        tokio::time::sleep(OTHERS_PUT_BACK).await;
        self.catch_up().await
    }

    /// Refuses to go on from a chain that is shorter than what Redis was told of it.
    pub(crate) fn check_whole(&self, committed: u64) -> Result<(), RelayError> {
        let next = self.log.next();
        if committed > next { Err(RelayError::Missing { next, committed }) } else { Ok(()) }
    }

    /// One turn: what is in the outbox goes to the chain; now and then, what chain time brings. Gives how many records were chained.
    async fn turn(&mut self) -> Result<usize, RelayError> {
        let (start, wall) = (Instant::now(), self.clock.wall_milliseconds());
        if self.log.next() < self.follower.lock().replica.core().next() {
            // Another process was at work, and may have ended in the midst of it.
            self.catch_up().await?;
        }
        let (epoch, first, _, entries): (u64, u64, u64, Vec<Value>) =
            self.link.call(OUTBOX, &outbox_arguments(RECORDS_MAX, self.log.next())).await?;
        if epoch != self.log.epoch() {
            // Somebody else has written an epoch: Redis was rebuilt, or is to be.
            self.catch_up().await?;
            if epoch != self.log.epoch() {
                return Err(
                    LinkError::Fenced(format!("it decides under epoch {epoch}, the chain is in another")).into()
                );
            }
        }
        if first > self.log.next() {
            self.catch_up().await?;
            self.check_whole(first)?;
        }
        let known = self.log.next().saturating_sub(first) as usize;
        let entries = read_entries(entries.into_iter().skip(known), first + known as u64)?;
        let count = entries.len();
        let fetched = start.elapsed();
        for batch in cut(entries) {
            self.chain(batch).await?;
        }
        let chained = start.elapsed();
        if count < RECORDS_MAX {
            self.ladder.note_turn(wall);
        }
        self.tick().await?;
        self.reconcile().await?;
        if start.elapsed() > SLOW_TURN {
            let ticked = start.elapsed();
            tracing::debug!(sale = self.follower.name, count, ?fetched, ?chained, ?ticked, "a slow turn");
        }
        Ok(count)
    }

    /// Appends one batch, at the time of its last record. It stands in the chain, and everybody has been told, when this returns `Ok`.
    pub(crate) async fn chain(&mut self, entries: Vec<Entry>) -> Result<(), RelayError> {
        let Some(time) = entries.last().map(|entry| entry.time) else { return Ok(()) };
        let epoch = match entries.first().map(|entry| &entry.record) {
            Some(Record::Epoch(epoch)) => *epoch,
            _ => self.log.epoch(),
        };
        let header = BatchHeader {
            sale: self.follower.sale,
            partition: 0,
            epoch,
            time,
            first: self.log.next(),
            count: entries.len() as u32,
        };
        let mut builder = BatchBuilder::new(header, self.log.head());
        for Entry { record, private, .. } in &entries {
            match record {
                Record::Digest { .. } => builder.push(&self.digest(), None),
                record => builder.push(record, private.as_ref()),
            };
        }
        let batch = builder.finish(self.signer);
        fault::reach(Stage::Decided);
        self.ladder.append_begins();
        let appended = self.follower.append(&mut self.log, &batch).await;
        self.ladder.append_ends();
        appended?;
        fault::reach(Stage::Chained);
        Ok(())
    }

    /// Counts and state hash of the chain's present end.
    fn digest(&self) -> Record {
        let state = self.follower.lock();
        Record::Digest { state: state.replica.state_hash(), counts: state.replica.core().counts() }
    }

    async fn tick(&mut self) -> Result<(), RelayError> {
        if self.ticked.elapsed() < TICK_EVERY && self.turned.is_some() {
            return Ok(());
        }
        self.ticked = Instant::now();
        self.compare_clocks().await?;
        let digest = self.digested.elapsed() >= DIGEST_EVERY;
        if digest {
            self.digested = Instant::now();
        }
        let now = ChainTime(self.clock.wall_milliseconds());
        let arguments = tick_arguments(now, limits::BATCH_EXPIRIES_MAX, &self.slot_secret, digest);
        self.link.call::<u64>(TICK, &arguments).await?;
        Ok(())
    }

    /// Gives lost time back to open holds, and pauses the sale when this machine's wall clock jumps.
    async fn compare_clocks(&mut self) -> Result<(), RelayError> {
        let now = (self.clock.monotonic_milliseconds(), self.clock.wall_milliseconds());
        let Some(before) = self.turned.replace(now) else { return Ok(()) };
        let passed = now.0.saturating_sub(before.0);
        let jump = now.1.cast_signed() - before.1.cast_signed() - passed.cast_signed();
        let jumped = jump.abs() > CLOCK_JUMP_MILLISECONDS_MAX;
        let stalled = if passed > STALL_MAX.as_millis() as u64 { passed } else { 0 };
        let lost = stalled + if jumped { u64::try_from(jump).unwrap_or(0) } else { 0 };
        if lost == 0 && !jumped {
            return Ok(());
        }
        let mut arguments = vec![clock_argument(ChainTime(now.1))];
        let held = self.follower.lock().replica.core().held_grants();
        if lost > 0 && held > 0 {
            tracing::warn!(sale = self.follower.name, lost, "time was lost; open holds get it back");
            add_credit(&mut arguments, lost);
        }
        if jumped {
            tracing::error!(sale = self.follower.name, jump, "the wall clock jumped; the sale is paused");
            add_command(&mut arguments, &Command::Pause(PauseReason::ClockJump), None);
        }
        if arguments.len() > 1 {
            self.link.call::<Value>(DECIDE, &arguments).await?;
        }
        Ok(())
    }

    /// A rebuild has given all lost time back.
    pub(crate) fn turned_now(&mut self) {
        self.turned = Some((self.clock.monotonic_milliseconds(), self.clock.wall_milliseconds()));
    }
}

fn read_entries(entries: impl Iterator<Item = Value>, first: u64) -> Result<Vec<Entry>, RelayError> {
    let numbered = entries.zip(first..);
    numbered.map(|(value, number)| read_entry(value).ok_or(RelayError::Entry(number))).collect()
}

fn read_entry(value: Value) -> Option<Entry> {
    let bytes: Vec<u8> = redis::from_redis_value(value).ok()?;
    let decided = Decided::parse(&bytes)?;
    let record = match decided.kind {
        // The place of one: its content is known when everything before it is chained.
        kind if kind == domain::RecordKind::Digest as u8 => Record::Digest { state: [0; 32], counts: Vec::new() },
        kind => chain::codec::decode(kind, decided.public).ok()?,
    };
    let private = decided.private.split_first_chunk();
    let private = private.map(|(commitment, sealed)| PrivatePart { commitment: *commitment, sealed: sealed.to_vec() });
    Some(Entry { time: decided.time, record, private })
}

/// Batches, as few as may be: not too large, and at the time of their last record, which is a moment later than that of the others. What
/// begins or ends a phase by its time stands apart from what came before, and a digest, which tells of everything before it, alone.
fn cut(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let (mut bytes, mut open) = (0, false);
    for entry in entries {
        let stands_alone = stands_alone(&entry.record);
        let sealed = entry.private.as_ref().map_or(0, |part| part.sealed.len());
        let size = ROOM_BYTES + bytes_about(&entry.record) + sealed;
        match batches.last_mut() {
            Some(last) if open && !stands_alone && bytes + size <= BATCH_BYTES_FULL => {
                bytes += size;
                last.push(entry);
            }
            _ => {
                (bytes, open) = (size, !stands_alone);
                batches.push(vec![entry]);
            }
        }
    }
    batches
}

fn stands_alone(record: &Record) -> bool {
    match record {
        Record::Held(_)
        | Record::Released { .. }
        | Record::Confirmed { .. }
        | Record::Retaken { .. }
        | Record::PaymentBegun(_)
        | Record::PaymentNamed(..)
        | Record::PaymentEnded(_)
        | Record::PaymentReceived(..)
        | Record::RefundOrdered(_)
        | Record::Refunded(_)
        | Record::PaymentParked { .. }
        | Record::StockChanged { .. } => false,
        Record::Created(_)
        | Record::Epoch(_)
        | Record::Opened
        | Record::Paused(_)
        | Record::Resumed
        | Record::ClockCredit(_)
        | Record::Digest { .. }
        | Record::Closed
        | Record::SecretRevealed(_)
        | Record::Settled(_) => true,
    }
}
