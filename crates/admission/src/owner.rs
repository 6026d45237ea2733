//! The owner of one sale: decides a batch, chains it, and only then answers.
//!
//! One `step` is one turn: chain time, window, commands, expiries, one append, the published view, the answers. It blocks in the
//! append, and it is given both clocks, so the simulation steps it as the owner's thread does.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use chain::batch::{BatchBuilder, BatchHeader, EncodedBatch};
use chain::codec::bytes_about;
use chain::digest::StateHash;
use chain::disk::{SpareReady, SpareTask};
use chain::{AppendError, ChainLog, Files, HeadSigner, Log, OpenError, PrivatePart, SignedHead};
use domain::ids::Hash;
use domain::record::{Created, PauseReason};
use domain::{ChainTime, PurchaseNumber, Record, Refusal, SaleDefinition, SaleId, SalePhase, Stage, fault, limits};

use crate::command::{Answer, Command, Query, Request};
use crate::core::{Core, Guards, Verdict};
use crate::fold::{fold_record, replay};
use crate::view::SaleView;

/// Between two digests, while holds are open.
const DIGEST_EVERY_MILLISECONDS: u64 = 5_000;
/// A turn that comes this late after the last one was an outage of this process: open holds get the time back.
const STALL_MILLISECONDS_MAX: u64 = 3_000;
/// Between two tries to make a spare segment on a full disk.
const SPARE_RETRY_MILLISECONDS: u64 = 1_000;
/// Decisions stop filling a batch here; the last one may go beyond, the batch's bound is never reached.
const BATCH_BYTES_FULL: usize = limits::BATCH_BYTES_MAX / 2;

/// What an owner needs besides its log.
pub struct OwnerOptions {
    /// Signs the heads.
    pub signer: HeadSigner,
    /// Revealed after closing.
    pub slot_secret: Hash,
    /// All on, outside the simulation.
    pub guards: Guards,
}

/// Proof that a grant stands in the chain.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Number of the `held` record.
    pub position: u64,
    /// The chain's hash after that record.
    pub record_hash: Hash,
    /// The signed head of its batch.
    pub head: Arc<SignedHead>,
}

/// Why an owner stopped. The process must exit: what is on disk decides at the next start.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The log could not be opened or created.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is not known whether the last batch is durable; its requests are `outcome_unknown`.
    #[error("the last batch may or may not be durable: {0}")]
    Append(AppendError),
    /// The chain has no records: the process died while the sale was being created, and nobody was told that it exists.
    #[error("the chain has no records")]
    Empty,
    /// The first record does not define a sale that this version can run.
    #[error("the sale's definition cannot be read: {0}")]
    Definition(String),
}

/// One waiting request with whatever identifies who waits.
type Waiting<R> = (Request, R);

/// What a request in the batch will be told once the batch is durable.
enum Due {
    Refused(Refusal, u64, Option<ChainTime>),
    Grant(PurchaseNumber, Option<usize>),
    Grants(domain::Pseudonym),
    Unsettled(PurchaseNumber),
    Sale,
}

/// The records of a turn, with the private parts of those that have one.
#[derive(Default)]
struct Turn {
    records: Vec<Record>,
    private: Vec<(usize, PrivatePart)>,
    bytes: usize,
    /// Records that the state hash already covers.
    folded: usize,
}

/// One sale's owner. Its chain is a log on this machine's disk, or what a cluster keeps.
pub struct Owner<L = Log> {
    core: Core,
    log: L,
    options: OwnerOptions,
    state_hash: StateHash,
    view: Arc<SaleView>,
    /// Built and applied, but the disk was full when it should have been appended.
    unwritten: Option<EncodedBatch>,
    /// The wall and the monotonic clock at the last turn.
    clocks: (u64, u64),
    digest_at: u64,
    passes_open: bool,
    /// When, by the monotonic clock, no spare segment could be made: the disk is full for purchases.
    spare_failed_at: Option<u64>,
}

impl Owner {
    /// Creates the sale's chain: `created` and the first epoch are durable when this returns.
    pub fn create(
        files: Arc<dyn Files>,
        folder: &Path,
        sale: SaleId,
        created: Created,
        options: OwnerOptions,
        (wall, monotonic): (u64, u64),
    ) -> Result<Self, OwnerError> {
        let definition: SaleDefinition =
            serde_json::from_slice(&created.definition).map_err(|error| OwnerError::Definition(error.to_string()))?;
        let log = Log::create(files, folder, sale)?;
        let core = Core::new(definition, options.guards);
        let mut owner = Self::assemble(core, log, options, StateHash::default(), (wall, monotonic));
        let mut turn = Turn::default();
        owner.core.advance(ChainTime(wall));
        owner.core.emit(Record::Created(Box::new(created)), &mut turn.records);
        owner.core.emit(Record::Epoch(1), &mut turn.records);
        owner.chain(&mut turn)?;
        owner.publish(&turn);
        Ok(owner)
    }

    /// Opens an existing chain, replays it, and starts the next epoch; an outage is given back to every open hold.
    pub fn open(
        files: Arc<dyn Files>,
        folder: &Path,
        options: OwnerOptions,
        clocks: (u64, u64),
    ) -> Result<Self, OwnerError> {
        let mut replayed: Option<(Core, StateHash)> = None;
        let guards = options.guards;
        let log = Log::open(files, folder, None, &mut |batch| replay(&mut replayed, batch, guards))?;
        let (core, state_hash) = replayed.ok_or(OwnerError::Empty)?;
        Self::take_over((core, state_hash), log, options, clocks)
    }

    /// Names the last batch as durable on disk, so that later damage to it is noticed. For an idle moment.
    pub fn settle_tail(&mut self) -> Result<(), OwnerError> {
        self.log.settle_tail().map_err(OwnerError::Append)
    }

    /// The log's wish for a spare segment, once passes are given out; whoever grants it reports to [`Owner::spare_finished`].
    /// After a failure the wish is repeated every second.
    pub fn spare_wanted(&mut self) -> Option<SpareTask> {
        let retry = self.spare_failed_at.is_none_or(|at| self.clocks.1 >= at + SPARE_RETRY_MILLISECONDS);
        if self.passes_open && self.core.phase < SalePhase::Settled && retry { self.log.spare_wanted() } else { None }
    }

    /// How making the spare segment ended. Without a spare no purchase is taken: what room is left is for payments and releases.
    pub fn spare_finished(&mut self, outcome: std::io::Result<SpareReady>) {
        self.spare_failed_at = outcome.is_err().then_some(self.clocks.1);
        if let Err(error) = &outcome {
            tracing::error!(sale = %self.core.definition.sale, %error, "no room for a spare segment: purchases are refused");
        }
        self.log.spare_finished(outcome);
    }
}

impl<L: ChainLog> Owner<L> {
    /// Takes a chain over from whoever decided it before: `core` and `state_hash` stand at its end, and the next epoch begins here.
    /// An outage is given back to every open hold.
    pub fn take_over(
        (core, state_hash): (Core, StateHash),
        log: L,
        options: OwnerOptions,
        (wall, monotonic): (u64, u64),
    ) -> Result<Self, OwnerError> {
        let mut owner = Self::assemble(core, log, options, state_hash, (wall, monotonic));
        let mut turn = Turn::default();
        let outage = wall.saturating_sub(owner.core.now.0);
        owner.core.advance(ChainTime(wall));
        owner.core.emit(Record::Epoch(owner.core.epoch + 1), &mut turn.records);
        if owner.core.guards.credit && owner.core.held_grants > 0 && outage > 0 {
            owner.core.emit(Record::ClockCredit(outage), &mut turn.records);
        }
        owner.chain(&mut turn)?;
        owner.view.publish_replayed(&owner.core);
        Ok(owner)
    }

    fn assemble(core: Core, log: L, options: OwnerOptions, state_hash: StateHash, clocks: (u64, u64)) -> Self {
        let view = Arc::new(SaleView::new(core.definition.clone(), log.watermark(), options.slot_secret));
        let digest_at = clocks.1 + DIGEST_EVERY_MILLISECONDS;
        Self {
            core,
            log,
            options,
            state_hash,
            view,
            unwritten: None,
            clocks,
            digest_at,
            passes_open: false,
            spare_failed_at: None,
        }
    }

    /// One turn: takes requests from the front of `inbox` (as many as one batch holds), and appends to `answers` what may be told.
    ///
    /// On an error every request taken has been answered `outcome_unknown`, and the owner must not be used again.
    pub fn step<R>(
        &mut self,
        wall: u64,
        monotonic: u64,
        inbox: &mut VecDeque<Waiting<R>>,
        answers: &mut Vec<(R, Answer)>,
    ) -> Result<(), OwnerError> {
        if !self.write_unwritten()? {
            answers.extend(inbox.drain(..).map(|(_, who)| (who, self.refused(Refusal::OutcomeUnknown))));
            return Ok(());
        }
        let mut turn = Turn::default();
        self.read_clocks(wall, monotonic, &mut turn);
        self.core.turn_window(&mut turn.records);
        self.passes_open |= self.core.now >= self.core.definition.passes_open_at;
        self.core.set_storage_full(self.spare_failed_at.is_some());
        let due = self.decide(inbox, &mut turn);
        // However many requests there are: else whoever fills every batch would keep all holds.
        self.core.expire(limits::BATCH_EXPIRIES_MAX, &mut turn.records);
        self.core.finish(self.options.slot_secret, &mut turn.records);
        self.digest(monotonic, &mut turn);
        let receipts = match self.chain(&mut turn) {
            Ok(receipts) => receipts,
            Err(error) => {
                let unknown = due.into_iter().map(|(who, _)| (who, self.refused(Refusal::OutcomeUnknown)));
                answers.extend(unknown);
                return match error {
                    // The batch is kept and tried again; nobody is told anything that rests on it.
                    OwnerError::Append(AppendError::Full(_)) => Ok(()),
                    fatal => Err(fatal),
                };
            }
        };
        self.publish(&turn);
        answers.extend(due.into_iter().map(|(who, due)| (who, self.answer(due, receipts.as_ref()))));
        Ok(())
    }

    /// Chain time; a jump of the wall clock pauses, and both a jump ahead and a stall are given back to open holds.
    fn read_clocks(&mut self, wall: u64, monotonic: u64, turn: &mut Turn) {
        let (wall_before, monotonic_before) = std::mem::replace(&mut self.clocks, (wall, monotonic));
        let elapsed = monotonic.saturating_sub(monotonic_before);
        let ahead = wall.saturating_sub(wall_before.saturating_add(elapsed));
        let behind = wall_before.saturating_add(elapsed).saturating_sub(wall);
        let before = self.core.now;
        self.core.advance(ChainTime(wall));
        let jumped = ahead.max(behind) > limits::CLOCK_JUMP_MILLISECONDS_MAX;
        let lost = if jumped { ahead } else { 0 } + if elapsed > STALL_MILLISECONDS_MAX { elapsed } else { 0 };
        // Deadlines are in chain time: what did not pass there (the wall clock may be behind it) was lost by nobody. So deadlines
        // also stay in the order of their grants.
        let lost = lost.min(self.core.now.0 - before.0);
        if self.core.guards.credit && lost > 0 && self.core.held_grants > 0 {
            tracing::warn!(sale = %self.core.definition.sale, lost, "time was lost; open holds get it back");
            self.core.emit(Record::ClockCredit(lost), &mut turn.records);
        }
        if jumped && self.core.paused.is_none() && self.core.phase < SalePhase::Settled {
            tracing::error!(sale = %self.core.definition.sale, ahead, behind, "the wall clock jumped; the sale is paused");
            self.core.emit(Record::Paused(PauseReason::ClockJump), &mut turn.records);
        }
    }

    fn decide<R>(&mut self, inbox: &mut VecDeque<Waiting<R>>, turn: &mut Turn) -> Vec<(R, Due)> {
        for (request, _) in inbox.iter().take(limits::BATCH_DECISIONS_MAX) {
            if let Request::Decide(Command::Purchase(purchase), _) = request {
                self.core.grants.touch(purchase.wish.customer);
            }
        }
        let mut due = Vec::with_capacity(inbox.len().min(limits::BATCH_DECISIONS_MAX));
        while due.len() < limits::BATCH_DECISIONS_MAX && turn.bytes < BATCH_BYTES_FULL {
            let Some((request, who)) = inbox.pop_front() else { break };
            due.push((who, self.decide_one(request, turn)));
        }
        due
    }

    fn decide_one(&mut self, request: Request, turn: &mut Turn) -> Due {
        let (command, private) = match request {
            Request::Decide(command, private) => (command, private),
            Request::Read(query) => return self.read(&query),
        };
        let before = turn.records.len();
        let verdict = self.core.decide(&command, &mut turn.records);
        if matches!(command, Command::Purchase(_)) {
            fault::reach(Stage::Decided);
        }
        for record in &turn.records[before..] {
            turn.bytes += bytes_about(record) + private.as_ref().map_or(0, |part| part.sealed.len());
        }
        self.fold(turn);
        match verdict {
            Verdict::Refused(refusal, retry_at) => Due::Refused(refusal, self.position(), retry_at),
            Verdict::Sale => Due::Sale,
            Verdict::Unchanged(number) => Due::Grant(number, None),
            Verdict::Changed(number) => {
                let held = matches!(turn.records.last(), Some(Record::Held(_)));
                if let (true, Some(private)) = (held, private) {
                    turn.private.push((before, private));
                }
                Due::Grant(number, held.then_some(before))
            }
        }
    }

    fn read(&self, query: &Query) -> Due {
        match *query {
            Query::Sale => Due::Sale,
            Query::Mine { customer } => Due::Grants(customer),
            Query::Unsettled { from } => Due::Unsettled(from),
            Query::Purchase { .. } | Query::Order { .. } => match self.core.find(query) {
                Some(number) => Due::Grant(number, None),
                None => Due::Refused(Refusal::NotFound, self.position(), None),
            },
        }
    }

    /// The last record that is decided, durable by the time that an answer leaves.
    fn position(&self) -> u64 {
        self.core.next.saturating_sub(1)
    }

    fn digest(&mut self, monotonic: u64, turn: &mut Turn) {
        if monotonic < self.digest_at || self.core.held_grants == 0 {
            return;
        }
        self.digest_at = monotonic + DIGEST_EVERY_MILLISECONDS;
        self.fold(turn);
        let digest = Record::Digest { state: self.state_hash.bytes(), counts: self.core.counts() };
        self.core.emit(digest, &mut turn.records);
    }

    /// Brings the state hash up to the turn's last record.
    fn fold(&mut self, turn: &mut Turn) {
        for record in &turn.records[turn.folded..] {
            fold_record(&mut self.state_hash, &self.core, record);
        }
        turn.folded = turn.records.len();
    }

    /// Builds the turn's batch and appends it; `None` when there is nothing to append.
    fn chain(&mut self, turn: &mut Turn) -> Result<Option<Receipts>, OwnerError> {
        self.fold(turn);
        if turn.records.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader {
            sale: self.log.sale(),
            partition: 0,
            epoch: self.core.epoch,
            time: self.core.now,
            first: self.log.next(),
            count: turn.records.len() as u32,
        };
        let mut builder = BatchBuilder::new(header, self.log.head());
        let mut private = turn.private.iter().peekable();
        let mut hashes = Vec::with_capacity(turn.records.len());
        for (index, record) in turn.records.iter().enumerate() {
            let part = private.next_if(|(of, _)| *of == index).map(|(_, part)| part);
            hashes.push(builder.push(record, part));
        }
        let batch = builder.finish(&self.options.signer);
        let head = Arc::new(batch.head);
        match self.append(&batch) {
            Ok(()) => Ok(Some(Receipts { first: header.first, hashes, head })),
            Err(full @ AppendError::Full(_)) => {
                tracing::error!(sale = %self.core.definition.sale, "the disk is full; free some space and the sale goes on");
                self.unwritten = Some(batch);
                Err(OwnerError::Append(full))
            }
            Err(unknown) => Err(OwnerError::Append(unknown)),
        }
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        if !self.core.guards.durable {
            // What the simulation shows to be wrong: answering although the batch may be lost.
            return self.log.append(batch).or(Ok(()));
        }
        self.log.append(batch)?;
        fault::reach(Stage::Chained);
        Ok(())
    }

    /// Tries again what the full disk did not take; `false` while it still does not.
    fn write_unwritten(&mut self) -> Result<bool, OwnerError> {
        let Some(batch) = self.unwritten.take() else { return Ok(true) };
        match self.append(&batch) {
            Ok(()) => {
                self.view.publish_replayed(&self.core);
                Ok(true)
            }
            Err(AppendError::Full(_)) => {
                self.unwritten = Some(batch);
                Ok(false)
            }
            Err(unknown) => Err(OwnerError::Append(unknown)),
        }
    }

    fn publish(&self, turn: &Turn) {
        for record in &turn.records {
            if let Record::Held(held) = record {
                self.view.holders().insert(held.customer);
            }
        }
        self.view.publish(&self.core);
    }

    fn answer(&self, due: Due, receipts: Option<&Receipts>) -> Answer {
        match due {
            Due::Refused(refusal, position, retry_at) => Answer::Refused { refusal, position, retry_at },
            Due::Sale => Answer::Sale(Box::new(self.core.state())),
            Due::Grants(customer) => Answer::Grants(self.core.grants_of(customer)),
            Due::Unsettled(from) => Answer::Grants(self.core.unsettled_from(from, limits::UNSETTLED_MAX)),
            Due::Grant(number, index) => {
                let grant = self.core.grant(number).expect("a decided grant exists");
                let receipt = index.zip(receipts).map(|(index, receipts)| Receipt {
                    position: receipts.first + index as u64,
                    record_hash: receipts.hashes[index],
                    head: Arc::clone(&receipts.head),
                });
                Answer::Granted(grant, receipt)
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Answer {
        Answer::Refused { refusal, position: self.position(), retry_at: None }
    }

    /// Milliseconds from chain time until the next turn is due although nobody asks for anything.
    pub fn idle_milliseconds_max(&self, wall: u64) -> u64 {
        // While holds are open the clocks are compared every second, so that a stall or a jump is told from time that passed.
        let watch = if self.core.held_grants > 0 || self.core.storage_full { 1_000 } else { 60_000 };
        let event = self.core.next_event_at().map_or(u64::MAX, |at| at.0.saturating_sub(wall));
        watch.min(event)
    }

    /// What gates may know.
    pub fn view(&self) -> &Arc<SaleView> {
        &self.view
    }

    /// The decision core, for reading.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The log, for reading.
    pub fn log(&self) -> &L {
        &self.log
    }
}

/// The hashes of a batch that is durable now.
struct Receipts {
    first: u64,
    hashes: Vec<Hash>,
    head: Arc<SignedHead>,
}
