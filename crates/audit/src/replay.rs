//! One sale's chain from its first batch to its last: links, times and epochs between batches, and the model inside them.

use std::collections::HashMap;

use chain::batch::GENESIS_HEAD;
use chain::{Batch, SignedHead};
use domain::ids::Hash;
use domain::record::Held;
use domain::{ChainTime, PurchaseId, Record, SaleId};

use crate::books::Service;
use crate::model::{Model, Moment};
use crate::prove::prove_beside;
use crate::tally::{Claim, Tally};

/// Room made beforehand for the records that headers announce; headers may lie, and beyond this the tables grow as they must.
const RECORDS_RESERVED_MAX: u64 = 1 << 22;

/// What is known of a record that an answer, a receipt or the books name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// The chain's hash after it.
    pub(crate) hash: Option<Hash>,
    /// The purchase that it is about.
    pub(crate) purchase: Option<PurchaseId>,
    /// What it granted, where it is a grant.
    pub(crate) held: Option<Held>,
}

/// A service of the books, whose tables are looked at when the first `at` records have been applied.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) at: u64,
    pub(crate) service: Service,
}

/// What is done at the cut of a service.
type AtCut<'a> = &'a mut dyn FnMut(Service, &mut Model);

/// What to look at during a replay.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    /// Records whose hash and purchase are wanted.
    pub(crate) records: Vec<u64>,
    /// Positions whose signed head is wanted: those of the first records after a batch.
    pub(crate) heads: Vec<u64>,
    /// The cuts of the books' services, and what to do at each.
    pub(crate) cuts: Vec<Cut>,
    pub(crate) at_cut: Option<AtCut<'a>>,
    /// Whether questions about answers will be asked.
    pub(crate) with_free_times: bool,
}

/// A replay under way.
pub(crate) struct Replay<'a> {
    watch: Watch<'a>,
    model: Option<Model>,
    tally: Tally,
    /// Set at the first contradiction that makes the rest unreadable.
    stopped: bool,
    sale: Option<SaleId>,
    epoch: Option<u64>,
    named: HashMap<u64, Named>,
    heads: HashMap<u64, SignedHead>,
    end: End,
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Number of the next record.
    pub(crate) next: u64,
    /// Batches so far.
    pub(crate) batches: u64,
    /// The last head.
    pub(crate) head: Hash,
    /// The last batch's chain time.
    pub(crate) time: ChainTime,
}

/// A replay at its end. Without a model there was no readable `created`.
pub(crate) struct Replayed {
    pub(crate) model: Option<Model>,
    /// Everything that was checked outside the model.
    pub(crate) tally: Tally,
    pub(crate) named: HashMap<u64, Named>,
    pub(crate) heads: HashMap<u64, SignedHead>,
    pub(crate) sale: Option<SaleId>,
    pub(crate) end: End,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(mut watch: Watch<'a>) -> Self {
        watch.records.sort_unstable();
        watch.records.dedup();
        watch.heads.sort_unstable();
        watch.cuts.sort_unstable_by_key(|cut| std::cmp::Reverse(cut.at));
        Self {
            watch,
            model: None,
            tally: Tally::default(),
            stopped: false,
            sale: None,
            epoch: None,
            named: HashMap::new(),
            heads: HashMap::new(),
            end: End { next: 0, batches: 0, head: GENESIS_HEAD, time: ChainTime(0) },
        }
    }

    /// Records applied so far.
    pub(crate) fn records(&self) -> u64 {
        self.end.next
    }

    /// The public key that `created` names.
    pub(crate) fn signing_key(&self) -> Option<Hash> {
        self.model.as_ref().map(Model::signing_key)
    }

    /// Goes on with the next batches.
    pub(crate) fn feed(&mut self, batches: &[Batch<'_>]) {
        if self.model.is_none() && !self.stopped {
            self.begin(batches);
        }
        let Some(key) = self.signing_key().filter(|_| !self.stopped) else { return };
        if let Some(model) = &mut self.model {
            let records: u64 = batches.iter().map(|batch| u64::from(batch.header.count)).sum();
            model.reserve(records.min(RECORDS_RESERVED_MAX) as usize);
        }
        let wanted = std::mem::take(&mut self.watch.records);
        let ((), proven) = prove_beside(batches, &key, &wanted, || self.apply(batches, &wanted));
        self.watch.records = wanted;
        for (number, hash) in proven.hashes {
            self.named.entry(number).or_default().hash = Some(hash);
        }
        let of_heads = proven.broken.iter().filter(|(_, claim, _)| *claim == Claim::Heads).count() as u64;
        self.tally.kept(Claim::Heads, proven.batches - of_heads);
        self.tally.kept(Claim::Chain, proven.batches - (proven.broken.len() as u64 - of_heads));
        for (_, claim, line) in proven.broken {
            self.tally.broken(claim, || line);
        }
    }

    /// Reports that the log or the file ends before the chain does.
    pub(crate) fn damaged(&mut self, damage: String) {
        self.tally.broken(Claim::Chain, || damage);
    }

    /// Makes the last checks.
    pub(crate) fn finish(mut self) -> Replayed {
        self.run_cuts();
        if let Some(model) = &mut self.model {
            model.finish(self.end.time.0);
        }
        let Self { model, tally, named, heads, sale, end, .. } = self;
        Replayed { model, tally, named, heads, sale, end }
    }

    fn begin(&mut self, batches: &[Batch<'_>]) {
        let Some(batch) = batches.first() else { return };
        let at = Moment { position: batch.header.first, time: batch.header.time.0 };
        let first = batch.records().next().map(|record| record.and_then(|record| record.decode()));
        let model = match first {
            Some(Ok(Record::Created(created))) => {
                Model::new(batch.header.sale, *created, at, self.watch.with_free_times)
            }
            Some(Err(error)) => Err(error.to_string()),
            _ => Err("it is not created".to_owned()),
        };
        match model {
            Ok(model) => self.model = Some(model),
            Err(reason) => self.stop(|| format!("record 0: {reason}")),
        }
    }

    fn stop(&mut self, evidence: impl FnOnce() -> String) {
        self.tally.broken(Claim::Chain, evidence);
        self.stopped = true;
    }

    fn apply(&mut self, batches: &[Batch<'_>], wanted: &[u64]) {
        for batch in batches {
            if batch.header.next() == self.end.next && batch.head.head == self.end.head {
                // The last batch again: a server that starts copies its frame into the next segment.
                continue;
            }
            if !self.check_link(batch) {
                return self.stop(|| format!("record {}: the batch does not continue the chain", batch.header.first));
            }
            if !self.apply_records(batch, wanted) {
                return;
            }
            self.epoch = Some(batch.header.epoch);
            self.end = End {
                next: batch.header.next(),
                batches: self.end.batches + 1,
                head: batch.head.head,
                time: batch.header.time,
            };
            if self.watch.heads.binary_search(&self.end.next).is_ok() {
                self.heads.insert(self.end.next, batch.head);
            }
        }
    }

    /// Whether the batch is the next one of this chain; smaller faults are counted and passed over.
    fn check_link(&mut self, batch: &Batch<'_>) -> bool {
        let header = &batch.header;
        let sale = *self.sale.get_or_insert(header.sale);
        let (time, before) = (header.time, self.end.time);
        self.tally.check(Claim::Chain, time >= before, || {
            format!("record {}: chain time goes back from {} to {}", header.first, before.0, time.0)
        });
        header.first == self.end.next && batch.previous == self.end.head && header.sale == sale && header.partition == 0
    }

    fn apply_records(&mut self, batch: &Batch<'_>, wanted: &[u64]) -> bool {
        let decoded: Result<Vec<Record>, _> = batch.records().map(|record| record?.decode()).collect();
        let records = match decoded {
            Ok(records) => records,
            Err(error) => {
                self.stop(|| format!("batch at record {}: {error}", batch.header.first));
                return false;
            }
        };
        if let Some(model) = &self.model {
            model.warm(&records);
        }
        let mut wanted = wanted[wanted.partition_point(|number| *number < batch.header.first)..].iter().peekable();
        let mut epoch = self.epoch;
        for (number, record) in (batch.header.first..).zip(records) {
            self.end.next = number;
            self.run_cuts();
            if wanted.next_if_eq(&&number).is_some() {
                let named = self.named.entry(number).or_default();
                named.purchase = purchase_of(&record);
                named.held = if let Record::Held(held) = &record { Some(held.clone()) } else { None };
            }
            if let Record::Epoch(new) = record {
                let follows = epoch.map_or(new <= 1, |epoch| epoch.checked_add(1) == Some(new));
                self.tally.check(Claim::Chain, follows, || format!("record {number}: epoch {new} after {epoch:?}"));
                epoch = Some(new);
            }
            if number > 0
                && let Some(model) = &mut self.model
            {
                model.apply(Moment { position: number, time: batch.header.time.0 }, record);
            }
        }
        // A chain begins in epoch 0 or 1; from then on only an epoch record changes what the headers say.
        let stated = batch.header.epoch;
        let fits = epoch.map_or(stated <= 1, |epoch| stated == epoch);
        self.tally.check(Claim::Chain, fits, || {
            format!("record {}: the batch is of epoch {stated}, the chain of {epoch:?}", batch.header.first)
        });
        true
    }

    fn run_cuts(&mut self) {
        let Self { watch, model, end, .. } = self;
        let Some(model) = model else { return };
        while let Some(cut) = watch.cuts.pop_if(|cut| cut.at == end.next) {
            if let Some(run) = &mut watch.at_cut {
                run(cut.service, model);
            }
        }
    }
}

fn purchase_of(record: &Record) -> Option<PurchaseId> {
    match record {
        Record::Held(held) => Some(held.purchase),
        Record::Released { purchase, .. }
        | Record::Confirmed { purchase, .. }
        | Record::Retaken { purchase, .. }
        | Record::PaymentParked { purchase, .. } => Some(*purchase),
        Record::PaymentBegun(attempt)
        | Record::PaymentEnded(attempt)
        | Record::PaymentReceived(attempt, _)
        | Record::RefundOrdered(attempt)
        | Record::Refunded(attempt)
        | Record::PaymentNamed(attempt, _) => Some(attempt.purchase),
        _ => None,
    }
}
