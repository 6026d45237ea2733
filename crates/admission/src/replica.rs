//! A sale as its chain tells it, in a process that does not decide: every gate of a cluster keeps one, and answers from it.
//!
//! Whoever decides says what became of a request, under which epoch, and how far the chain must come until that counts. The answer
//! itself is read here, once the chain has come so far; so nobody is told anything that is not in the chain.

use std::collections::VecDeque;
use std::sync::Arc;

use chain::batch::Batch;
use chain::digest::StateHash;
use chain::{SignedHead, Watermark};
use domain::ids::Hash;
use domain::{Pseudonym, PurchaseNumber, Record, Refusal, limits};

use crate::command::{Answer, Query, Request};
use crate::core::{Core, Guards, Verdict};
use crate::fold::replay;
use crate::owner::Receipt;
use crate::view::SaleView;

/// Record hashes kept for receipts; a verdict hardly ever comes later than the chain has gone on by so many.
const RECENT_HASHES_MAX: usize = 65_536;

/// Follows a chain from its front, until there is a sale to keep.
#[derive(Default)]
pub struct Replaying(Option<(Core, StateHash)>);

impl Replaying {
    /// Takes the next batch, whose hashes have been checked.
    pub fn follow(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        replay(&mut self.0, batch, Guards::ON)
    }

    /// The sale where the chain stands now, at `head`; `None` when no batch came. `watermark` tells how far this process has the chain on disk.
    /// `slot_secret` is the sale's.
    pub fn finish(self, watermark: Arc<Watermark>, head: Hash, slot_secret: Hash) -> Option<Replica> {
        let (core, state_hash) = self.0?;
        let view = Arc::new(SaleView::new(core.definition.clone(), watermark, slot_secret));
        view.publish_replayed(&core);
        let epochs = vec![(core.epoch, 0)];
        Some(Replica { core, state_hash, view, epochs, head, recent: VecDeque::new(), recent_hashes: 0 })
    }

    /// The core and its hash, for a process that is going to decide itself.
    pub fn into_parts(self) -> Option<(Core, StateHash)> {
        self.0
    }
}

/// How a decision stands with the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The chain has it.
    Chained,
    /// The chain has not come so far.
    Waiting,
    /// The chain went on without it: it never happened.
    Interrupted,
}

/// What an answer needs of a request once it is decided.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// The grant that was named.
    Grant,
    /// All grants of a customer.
    Grants(Pseudonym),
    /// Grants with money under way.
    Unsettled(PurchaseNumber),
    /// The sale.
    Sale,
}

impl Wanted {
    /// What the answer to `request` tells.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Read(Query::Mine { customer }) => Self::Grants(*customer),
            Request::Read(Query::Sale) => Self::Sale,
            Request::Read(Query::Unsettled { from }) => Self::Unsettled(*from),
            Request::Read(Query::Purchase { .. } | Query::Order { .. }) | Request::Decide(..) => Self::Grant,
        }
    }
}

/// The hashes of one batch.
struct Chained {
    first: u64,
    hashes: Vec<Hash>,
    head: Arc<SignedHead>,
}

/// The sale, followed batch by batch.
pub struct Replica {
    core: Core,
    state_hash: StateHash,
    view: Arc<SaleView>,
    /// Each epoch since this process follows, with the number of its first record.
    epochs: Vec<(u64, u64)>,
    head: Hash,
    recent: VecDeque<Chained>,
    recent_hashes: usize,
}

impl Replica {
    /// Takes the next batch of the chain and publishes what it changes.
    pub fn follow(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        let mut running = batch.running_start();
        let mut hashes = Vec::with_capacity(batch.header.count as usize);
        for bytes in batch.records() {
            let bytes = bytes.map_err(|error| error.to_string())?;
            running = bytes.hash(&running);
            hashes.push(running);
            let record = bytes.decode().map_err(|error| error.to_string())?;
            crate::fold::follow(&mut self.core, &mut self.state_hash, batch.header.time, &record)?;
            match &record {
                Record::Held(held) => self.view.holders().insert(held.customer),
                Record::Epoch(epoch) => self.epochs.push((*epoch, bytes.number)),
                _ => {}
            }
        }
        self.head = running;
        self.view.publish(&self.core);
        self.recent_hashes += hashes.len();
        self.recent.push_back(Chained { first: batch.header.first, hashes, head: Arc::new(batch.head) });
        while self.recent_hashes > RECENT_HASHES_MAX && self.recent.len() > 1 {
            self.recent_hashes -= self.recent.pop_front().map_or(0, |oldest| oldest.hashes.len());
        }
        Ok(())
    }

    /// The record at which an epoch ended, if it did since this process follows.
    pub fn sealed_at(&self, epoch: u64) -> Option<u64> {
        let known = self.epochs.first().is_some_and(|(oldest, _)| *oldest <= epoch);
        self.epochs.iter().find(|(newer, _)| known && *newer > epoch).map(|(_, first)| *first)
    }

    /// How a decision stands that was made under `epoch` and counts once the chain has all records below `next`.
    pub fn standing(&self, epoch: u64, next: u64) -> Standing {
        match self.sealed_at(epoch) {
            Some(first) if next > first => Standing::Interrupted,
            // This process is younger than the decision.
            None if epoch < self.core.epoch => Standing::Interrupted,
            None if epoch > self.core.epoch || next > self.core.next => Standing::Waiting,
            Some(_) | None => Standing::Chained,
        }
    }

    /// The answer to a request that was decided so; the chain must have the decision. `next` is how far it had to come.
    pub fn answer(&self, wanted: Wanted, verdict: Verdict, next: u64) -> Answer {
        match (verdict, wanted) {
            (Verdict::Refused(refusal, retry_at), _) => {
                Answer::Refused { refusal, position: next.saturating_sub(1), retry_at }
            }
            (Verdict::Sale, Wanted::Grants(customer)) => Answer::Grants(self.core.grants_of(customer)),
            (Verdict::Sale, Wanted::Unsettled(from)) => {
                Answer::Grants(self.core.unsettled_from(from, limits::UNSETTLED_MAX))
            }
            (Verdict::Sale, _) => Answer::Sale(Box::new(self.core.state())),
            (Verdict::Changed(number) | Verdict::Unchanged(number), _) => match self.core.grant(number) {
                Some(grant) => {
                    let is_new = matches!(verdict, Verdict::Changed(_)) && grant.record + 1 == next;
                    let receipt = is_new.then(|| self.receipt(grant.record)).flatten();
                    Answer::Granted(grant, receipt)
                }
                None => {
                    Answer::Refused { refusal: Refusal::Internal, position: next.saturating_sub(1), retry_at: None }
                }
            },
        }
    }

    /// What is asked, as the chain has it now; whoever decides may be further.
    pub fn read(&self, query: &Query) -> Answer {
        let next = self.core.next;
        let verdict = match *query {
            Query::Sale | Query::Mine { .. } | Query::Unsettled { .. } => Verdict::Sale,
            Query::Purchase { .. } | Query::Order { .. } => {
                self.core.find(query).map_or(Verdict::Refused(Refusal::NotFound, None), Verdict::Unchanged)
            }
        };
        self.answer(Wanted::of(&Request::Read(*query)), verdict, next)
    }

    fn receipt(&self, record: u64) -> Option<Receipt> {
        let place = self.recent.partition_point(|batch| batch.first <= record).checked_sub(1)?;
        let batch = &self.recent[place];
        let record_hash = *batch.hashes.get(usize::try_from(record - batch.first).ok()?)?;
        Some(Receipt { position: record, record_hash, head: Arc::clone(&batch.head) })
    }

    /// What gates may know.
    pub fn view(&self) -> &Arc<SaleView> {
        &self.view
    }

    /// The sale at the chain's end, for reading.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The chain's head there.
    pub fn head(&self) -> Hash {
        self.head
    }

    /// The state hash at the chain's end.
    pub fn state_hash(&self) -> Hash {
        self.state_hash.bytes()
    }
}
