//! A small sale with every kind of record, written by hand: the tests doctor its records, its log, its books or its notes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{books, log};
use audit::{AuditReport, PromiseReport};
use chain::digest::{GrantStatus, StateHash};
use chain::{BatchBuilder, BatchHeader, EncodedBatch, HeadSigner, PrivatePart, head};
use domain::record::{Counts, Created, Held, ReleaseReason};
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Record, SaleId, SaleOrdinal, Unit};

pub(crate) const SALE: SaleId = SaleId([7; 16]);
pub(crate) const NAME: &str = "winter-drop";
pub(crate) const SECRET: [u8; 32] = [3; 32];
pub(crate) const SEED: [u8; 32] = [9; 32];
/// When the sketched sale is created, Unix milliseconds; its times count from here.
pub(crate) const START: u64 = 1_800_000_000_000;
pub(crate) const SPREAD: u64 = 1_000;

/// A folder of the test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("doorbuster-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn sale(&self) -> PathBuf {
        let path = self.0.join("sales").join(NAME);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// One batch before it is encoded.
#[derive(Clone)]
pub(crate) struct Sketched {
    pub(crate) epoch: u64,
    /// Milliseconds after [`START`].
    pub(crate) time: u64,
    pub(crate) records: Vec<Record>,
}

/// A chain before it is encoded.
#[derive(Clone)]
pub(crate) struct Sketch {
    pub(crate) batches: Vec<Sketched>,
    pub(crate) seed: [u8; 32],
}

pub(crate) fn unit(number: u32, generation: u32) -> Unit {
    Unit { number, generation }
}

pub(crate) fn customer(of: u8) -> Pseudonym {
    Pseudonym([of; 16])
}

pub(crate) fn purchase(of: u8) -> PurchaseId {
    PurchaseId([of; 12])
}

/// Hold `number` of one customer each: customer, purchase and key are made from `who`.
pub(crate) fn held(number: u32, who: u8, item: u16, units: &[Unit], at: u64) -> Held {
    Held {
        number: PurchaseNumber(number),
        purchase: purchase(who),
        customer: customer(who),
        item,
        units: units.into(),
        price: 4_900 * units.len() as u64,
        key_hash: [who; 16],
        body_hash: [1; 16],
        pass: u64::from(who),
        slot_offset: head::slot_offset(&SECRET, customer(who), SPREAD),
        coupon: 0,
        pay_by: ChainTime(START + at + 60_000),
    }
}

pub(crate) fn released(number: u32, who: u8, reason: ReleaseReason) -> Record {
    Record::Released { number: PurchaseNumber(number), purchase: purchase(who), reason }
}

pub(crate) fn confirmed(number: u32, who: u8) -> Record {
    Record::Confirmed { number: PurchaseNumber(number), purchase: purchase(who) }
}

fn created() -> Record {
    let time = |at: u64| ChainTime(START + at).rfc3339();
    let item = |name: &str, stock: u32, limit: u32| serde_json::json!({"item": name, "title": name, "stock": stock, "price": 4_900, "limit_per_customer": limit});
    let definition = serde_json::json!({
        "sale": NAME, "title": "Winter drop", "currency": "EUR",
        "passes_open_at": time(0), "opens_at": time(10_000), "closes_at": time(600_000),
        "spread_milliseconds": SPREAD, "hold_seconds": 60, "grace_seconds": 5, "settle_after_seconds": 0,
        "limit_per_customer": 3, "items": [item("boot-42", 3, 2), item("sock", 2, 2)],
    });
    Record::Created(Box::new(Created {
        ordinal: SaleOrdinal(1),
        slot_commitment: head::slot_commitment(SALE, &SECRET),
        pseudonym_commitment: [5; 32],
        signing_key: HeadSigner::from_seed(&SEED).public_key(),
        definition: serde_json::to_vec(&definition).unwrap(),
    }))
}

fn counts(free: u32, held: u32, sold: u32, withdrawn: u32) -> Counts {
    Counts { free, held, sold, withdrawn }
}

impl Sketch {
    /// The whole life of a sale: three boots sold out, one cancelled and sold again, one expired and retaken by a late payment;
    /// an outage, a pause, a stock change, a digest; closed, revealed, settled.
    pub(crate) fn good() -> Self {
        let mut state = StateHash::default();
        state.add(0, GrantStatus::Confirmed, 0, &[unit(0, 0)]);
        state.add(1, GrantStatus::Released, 0, &[]);
        state.add(2, GrantStatus::Held, 0, &[unit(2, 0)]);
        state.add(3, GrantStatus::Held, 0, &[unit(1, 1)]);
        let batch = |epoch, time, records| Sketched { epoch, time, records };
        let hold = |number, who, units: &[Unit], at| Record::Held(held(number, who, 0, units, at));
        let retaken = Record::Retaken {
            number: PurchaseNumber(2),
            purchase: purchase(12),
            units: [unit(2, 1)].as_slice().into(),
        };
        let batches = vec![
            batch(1, 0, vec![created(), Record::Epoch(1)]),
            batch(1, 10_000, vec![Record::Opened]),
            batch(1, 12_000, vec![hold(0, 10, &[unit(0, 0)], 12_000), hold(1, 11, &[unit(1, 0)], 12_000)]),
            batch(1, 13_000, vec![hold(2, 12, &[unit(2, 0)], 13_000)]),
            batch(1, 20_000, vec![confirmed(0, 10), released(1, 11, ReleaseReason::CancelledByCustomer)]),
            batch(1, 21_000, vec![hold(3, 13, &[unit(1, 1)], 21_000)]),
            batch(2, 22_000, vec![Record::Epoch(2), Record::ClockCredit(500)]),
            batch(
                2,
                30_000,
                vec![Record::Digest { state: state.bytes(), counts: vec![counts(0, 2, 1, 0), counts(2, 0, 0, 0)] }],
            ),
            batch(
                2,
                31_000,
                vec![Record::StockChanged { item: 1, added: 2, withdrawn: [unit(0, 0)].as_slice().into() }],
            ),
            batch(2, 40_000, vec![Record::Paused(domain::record::PauseReason::Operator)]),
            batch(2, 41_000, vec![Record::Resumed]),
            batch(2, 79_500, vec![released(2, 12, ReleaseReason::Expired)]),
            batch(2, 80_000, vec![retaken, confirmed(3, 13)]),
            batch(2, 600_000, vec![Record::Closed, Record::SecretRevealed(SECRET)]),
            batch(2, 600_100, vec![Record::Settled(vec![counts(0, 0, 3, 0), counts(3, 0, 0, 1)])]),
        ];
        Self { batches, seed: SEED }
    }

    /// The good sale without the records that sum up what was before them, so that a doctored record stands alone.
    pub(crate) fn without_sums() -> Self {
        let mut sketch = Self::good();
        for batch in &mut sketch.batches {
            batch.records.retain(|record| !matches!(record, Record::Digest { .. } | Record::Settled(_)));
        }
        sketch.batches.retain(|batch| !batch.records.is_empty());
        sketch
    }

    /// The batch at that many milliseconds after the start.
    pub(crate) fn at(&mut self, time: u64) -> &mut Vec<Record> {
        &mut self.batches.iter_mut().find(|batch| batch.time == time).expect("a batch at that time").records
    }

    /// Puts a batch of the same epoch behind the one before its time.
    pub(crate) fn insert(&mut self, time: u64, records: Vec<Record>) {
        let index = self.batches.iter().position(|batch| batch.time > time).unwrap_or(self.batches.len());
        let epoch = self.batches[index - 1].epoch;
        self.batches.insert(index, Sketched { epoch, time, records });
    }

    pub(crate) fn encode(&self) -> Vec<EncodedBatch> {
        let signer = HeadSigner::from_seed(&self.seed);
        let mut previous = chain::batch::GENESIS_HEAD;
        let mut first = 0;
        let private = PrivatePart { commitment: [6; 32], sealed: vec![8; 40] };
        let mut encoded = Vec::new();
        for Sketched { epoch, time, records } in &self.batches {
            let header = BatchHeader {
                sale: SALE,
                partition: 0,
                epoch: *epoch,
                time: ChainTime(START + time),
                first,
                count: records.len() as u32,
            };
            let mut builder = BatchBuilder::new(header, previous);
            for record in records {
                builder.push(record, matches!(record, Record::Held(_)).then_some(&private));
            }
            let batch = builder.finish(&signer);
            (previous, first) = (batch.head.head, header.next());
            encoded.push(batch);
        }
        encoded
    }

    /// A data folder with this chain as its log and books that have read all of it.
    pub(crate) fn data(&self) -> Folder {
        let folder = Folder::new();
        let batches = self.encode();
        log::write(&folder.sale(), &batches);
        books::write(&folder.0, &batches, batches.len());
        folder
    }
}

pub(crate) fn audit(data: &Path, notes: Option<&Path>) -> AuditReport {
    audit::audit(data, None, notes, &mut |_| {}).unwrap()
}

/// The names of the claims with violations.
pub(crate) fn broken(
    promises: &BTreeMap<String, PromiseReport>,
    proof: &BTreeMap<String, PromiseReport>,
) -> Vec<String> {
    let both = promises.iter().chain(proof);
    both.filter(|(_, report)| report.violations > 0).map(|(name, _)| name.clone()).collect()
}

/// Audits the chain with its own books and expects violations of exactly `claims`.
pub(crate) fn audit_finds(sketch: &Sketch, claims: &[&str]) {
    let folder = sketch.data();
    let report = audit(&folder.0, None);
    assert_eq!(broken(&report.promises, &report.proof), claims, "{report}");
    assert_eq!(report.ok, claims.is_empty(), "{report}");
}
