//! Chains made by hand and folders that remove themselves, for the ledger's tests. Decides nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chain::{BatchBuilder, BatchHeader, EncodedBatch, HeadSigner};
use domain::record::{Counts, Created, Held, ReleaseReason};
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Record, SaleId, SaleOrdinal, Unit};

/// The sale that most tests are about.
pub(crate) const SALE: &str = "winter-drop";

/// When every test chain begins.
pub(crate) const BEGIN: u64 = 1_795_800_000_000;

/// A folder in the system's temporary folder, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ledger-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until `condition` holds; the test fails when it does not within half a minute.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A chain under construction: batches that extend each other.
pub(crate) struct TestChain {
    signer: HeadSigner,
    sale: SaleId,
    pub(crate) head: [u8; 32],
    pub(crate) next: u64,
    pub(crate) time: u64,
    pub(crate) encoded: Vec<EncodedBatch>,
}

impl TestChain {
    pub(crate) fn new() -> Self {
        Self {
            signer: HeadSigner::from_seed(&[7; 32]),
            sale: SaleId([1; 16]),
            head: chain::batch::GENESIS_HEAD,
            next: 0,
            time: BEGIN,
            encoded: Vec::new(),
        }
    }

    /// A chain whose first batch creates the sale and opens it, with these stocks.
    pub(crate) fn created(stocks: &[u32]) -> Self {
        let mut chain = Self::new();
        chain.push(&[created(stocks), Record::Epoch(1), Record::Opened]);
        chain
    }

    pub(crate) fn sale(&self) -> SaleId {
        self.sale
    }

    /// Adds one batch, a second after the last.
    pub(crate) fn push(&mut self, records: &[Record]) {
        self.time += 1_000;
        let header = BatchHeader {
            sale: self.sale,
            partition: 0,
            epoch: 1,
            time: ChainTime(self.time),
            first: self.next,
            count: records.len() as u32,
        };
        let mut builder = BatchBuilder::new(header, self.head);
        for record in records {
            builder.push(record, None);
        }
        let batch = builder.finish(&self.signer);
        (self.head, self.next) = (batch.head.head, header.next());
        self.encoded.push(batch);
    }

    /// All batches as the log gives them.
    pub(crate) fn batches(&self) -> Vec<Vec<u8>> {
        self.encoded.iter().map(|batch| batch.bytes.clone()).collect()
    }
}

pub(crate) fn created(stocks: &[u32]) -> Record {
    let items: Vec<_> = stocks
        .iter()
        .enumerate()
        .map(|(index, stock)| {
            serde_json::json!({"item": format!("item-{index}"), "title": "Item", "stock": stock, "price": 4900, "limit_per_customer": 2})
        })
        .collect();
    created_with(&serde_json::json!({
        "sale": SALE, "title": "Winter", "currency": "EUR", "opens_at": "2026-11-27T20:00:00Z",
        "closes_at": "2026-11-27T21:00:00Z", "limit_per_customer": 2, "items": items,
    }))
}

/// The `created` of a definition.
pub(crate) fn created_with(definition: &serde_json::Value) -> Record {
    Record::Created(Box::new(Created {
        ordinal: SaleOrdinal(1),
        slot_commitment: [2; 32],
        pseudonym_commitment: [3; 32],
        signing_key: [4; 32],
        definition: serde_json::to_vec(definition).unwrap(),
    }))
}

pub(crate) fn purchase(number: u32) -> PurchaseId {
    let mut bytes = [9; 12];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PurchaseId(bytes)
}

pub(crate) fn unit(number: u32, generation: u32) -> Unit {
    Unit { number, generation }
}

/// A hold of the given units; purchase, customer and pay-by time follow from the number.
pub(crate) fn held(number: u32, item: u16, units: &[Unit]) -> Record {
    let mut customer = [5; 16];
    customer[..4].copy_from_slice(&number.to_le_bytes());
    Record::Held(Held {
        number: PurchaseNumber(number),
        purchase: purchase(number),
        customer: Pseudonym(customer),
        item,
        units: units.into(),
        price: 4_900 * units.len() as u64,
        key_hash: [6; 16],
        body_hash: [7; 16],
        pass: 8,
        slot_offset: 0,
        coupon: 0,
        pay_by: ChainTime(BEGIN + 600_000 + u64::from(number)),
    })
}

pub(crate) fn released(number: u32, reason: ReleaseReason) -> Record {
    Record::Released { number: PurchaseNumber(number), purchase: purchase(number), reason }
}

pub(crate) fn confirmed(number: u32) -> Record {
    Record::Confirmed { number: PurchaseNumber(number), purchase: purchase(number) }
}

pub(crate) fn retaken(number: u32, units: &[Unit]) -> Record {
    Record::Retaken { number: PurchaseNumber(number), purchase: purchase(number), units: units.into() }
}

pub(crate) fn digest(counts: &[Counts]) -> Record {
    Record::Digest { state: [0; 32], counts: counts.to_vec() }
}

pub(crate) fn counts(free: u32, held: u32, sold: u32, withdrawn: u32) -> Counts {
    Counts { free, held, sold, withdrawn }
}
