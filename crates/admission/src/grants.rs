//! Every grant of a sale in compact rows, found by customer: a customer has few, so one index serves keys and limits alike.
//!
//! Nothing here ever moves all at once: rows lie in chunks, the index in a thousand small tables that double one by one, so that
//! the ten-millionth customer costs what the first did.

use std::collections::HashMap;

use domain::record::ReleaseReason;
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Unit, limits};
use hashbrown::HashTable;

use crate::command::{Grant, GrantStatus};
use crate::shards::{SHARDS, kept, shard_of, spread};

/// A whole number of the allocator's 64 KiB slices, so that little of a chunk is padding.
const CHUNK_ROWS: usize = 16_384;
const NONE: u32 = u32::MAX;

/// One grant in one cache line, so that whatever is asked of a customer costs one visit to memory.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct Row {
    pub(crate) customer: Pseudonym,
    pub(crate) purchase: PurchaseId,
    /// The first unit; the rest of a larger purchase is in `Grants::more_units`.
    unit: Unit,
    /// The low half of the pass's number; compared only among one customer's grants.
    pub(crate) pass: u32,
    older: u32,
    /// The front of the body's hash; enough to tell bodies under one key apart.
    pub(crate) body: BodyFront,
    /// See [`Row::pay_by_uncredited`].
    pay_by: [u8; 6],
    /// See [`Row::record`].
    record: [u8; 5],
    pub(crate) item: u8,
    pub(crate) quantity: u8,
    status: u8,
}

const _: () = assert!(size_of::<Row>() == 64);
const _: () = assert!(limits::TIME_MAX < 1 << 48 && limits::RECORDS_MAX <= 1 << 40);

const HELD: u8 = 0;
const CONFIRMED: u8 = 255;

impl Row {
    /// While held: pay-by time less the clock credits given before the grant, so that one running total moves every open deadline.
    /// Once ended: the pay-by time as it was then.
    pub(crate) fn pay_by_uncredited(&self) -> u64 {
        widen(&self.pay_by)
    }

    /// Number of the `held` record.
    pub(crate) fn record(&self) -> u64 {
        widen(&self.record)
    }

    /// `ROW` of the library on Redis, without the units; with the index of the coupon, from 1, or 0.
    pub(crate) fn packed(&self, coupon: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.customer.0);
        bytes.extend(self.purchase.0);
        bytes.extend(self.body);
        bytes.extend(self.pay_by_uncredited().to_le_bytes());
        bytes.extend(self.record().to_le_bytes());
        bytes.extend(self.pass.to_le_bytes());
        bytes.extend(self.older.to_le_bytes());
        bytes.extend(u16::from(self.item).to_le_bytes());
        bytes.extend([self.status, coupon]);
        bytes
    }

    pub(crate) fn status(&self) -> GrantStatus {
        match self.status {
            HELD => GrantStatus::Held,
            CONFIRMED => GrantStatus::Confirmed,
            reason => GrantStatus::Released(ReleaseReason::from_number(reason).expect("only release() writes reasons")),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.status, HELD | CONFIRMED)
    }

    /// Whether the customer let it go without paying.
    pub(crate) fn is_unpaid_release(&self) -> bool {
        self.status == ReleaseReason::Expired as u8 || self.status == ReleaseReason::CancelledByCustomer as u8
    }

    pub(crate) fn is_held(&self) -> bool {
        self.status == HELD
    }

    /// The hold ends; later clock credits are not for it. `credit` is the total so far.
    pub(crate) fn release(&mut self, reason: ReleaseReason, credit: u64) {
        self.end(reason as u8, credit);
    }

    /// The hold ends in a sale, or a released grant is taken again.
    pub(crate) fn confirm(&mut self, credit: u64) {
        self.end(CONFIRMED, credit);
    }

    fn end(&mut self, status: u8, credit: u64) {
        if self.is_held() {
            self.pay_by = narrow((self.pay_by_uncredited() + credit).min(limits::TIME_MAX));
        }
        self.status = status;
    }
}

/// What a new grant starts with.
pub(crate) struct NewGrant<'a> {
    pub(crate) customer: Pseudonym,
    pub(crate) purchase: PurchaseId,
    pub(crate) body_hash: &'a [u8; 16],
    pub(crate) pay_by_uncredited: u64,
    pub(crate) record: u64,
    pub(crate) units: &'a [Unit],
    pub(crate) pass: u64,
    pub(crate) item: u16,
}

/// A customer's entry in the index.
struct Newest {
    number: u32,
    kept: u32,
}

impl Newest {
    fn is(&self, chunks: &[Vec<Row>], customer: Pseudonym) -> bool {
        let at = self.number as usize;
        self.kept == kept(customer) && chunks[at / CHUNK_ROWS][at % CHUNK_ROWS].customer == customer
    }
}

pub(crate) struct Grants {
    chunks: Vec<Vec<Row>>,
    /// Customer to their newest row.
    newest: Vec<HashTable<Newest>>,
    /// Units beyond the first, of grants with several.
    more_units: HashMap<u32, Box<[Unit]>>,
}

impl Grants {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), newest: (0..SHARDS).map(|_| HashTable::new()).collect(), more_units: HashMap::new() }
    }

    pub(crate) fn count(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_ROWS;
        (full + self.chunks.last().map_or(0, Vec::len)) as u32
    }

    pub(crate) fn row(&self, number: PurchaseNumber) -> Option<&Row> {
        self.chunks.get(number.0 as usize / CHUNK_ROWS)?.get(number.0 as usize % CHUNK_ROWS)
    }

    pub(crate) fn row_mut(&mut self, number: PurchaseNumber) -> Option<&mut Row> {
        self.chunks.get_mut(number.0 as usize / CHUNK_ROWS)?.get_mut(number.0 as usize % CHUNK_ROWS)
    }

    pub(crate) fn units(&self, number: PurchaseNumber) -> impl Iterator<Item = Unit> + use<'_> {
        let first = self.row(number).map(|row| row.unit);
        let more = self.row(number).filter(|row| row.quantity > 1).and_then(|_| self.more_units.get(&number.0));
        first.into_iter().chain(more.into_iter().flat_map(|units| units.iter().copied()))
    }

    pub(crate) fn set_units(&mut self, number: PurchaseNumber, units: &[Unit]) {
        let (first, more) = units.split_first().expect("a grant has at least one unit");
        if !more.is_empty() {
            self.more_units.insert(number.0, more.into());
        }
        let row = self.row_mut(number).expect("the caller looked the row up");
        row.unit = *first;
        row.quantity = units.len() as u8;
    }

    /// The customer's grants, newest first.
    pub(crate) fn of_customer(&self, customer: Pseudonym) -> OfCustomer<'_> {
        let shard = &self.newest[shard_of(customer)];
        let newest = shard.find(spread(kept(customer)), |newest| newest.is(&self.chunks, customer));
        OfCustomer { grants: self, next: newest.map_or(NONE, |newest| newest.number) }
    }

    /// Looks at what a decision about the customer will read. Many such looks in a row wait for memory together, where decisions
    /// would wait one after the other.
    pub(crate) fn touch(&self, customer: Pseudonym) {
        std::hint::black_box(self.of_customer(customer).next().map(|(_, row)| row.status));
    }

    pub(crate) fn push(&mut self, grant: &NewGrant<'_>) -> PurchaseNumber {
        let number = self.count();
        assert!(number < NONE, "a sale has fewer than 2^32 - 1 grants");
        let (chunks, kept) = (&self.chunks, kept(grant.customer));
        let entry = self.newest[shard_of(grant.customer)].entry(
            spread(kept),
            |newest| newest.is(chunks, grant.customer),
            |newest| spread(newest.kept),
        );
        let older = match entry {
            hashbrown::hash_table::Entry::Occupied(mut newest) => {
                std::mem::replace(&mut newest.get_mut().number, number)
            }
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(Newest { number, kept });
                NONE
            }
        };
        let row = Row {
            customer: grant.customer,
            purchase: grant.purchase,
            unit: grant.units[0],
            pass: grant.pass as u32,
            older,
            body: body_front(grant.body_hash),
            pay_by: narrow(grant.pay_by_uncredited),
            record: narrow(grant.record),
            item: grant.item as u8,
            quantity: grant.units.len() as u8,
            status: HELD,
        };
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ROWS) {
            self.chunks.push(Vec::with_capacity(CHUNK_ROWS));
        }
        self.chunks.last_mut().expect("one was just made").push(row);
        if grant.units.len() > 1 {
            self.more_units.insert(number, grant.units[1..].into());
        }
        PurchaseNumber(number)
    }

    /// Customers of all grants; one with several comes several times.
    pub(crate) fn customers(&self) -> impl Iterator<Item = Pseudonym> + '_ {
        self.chunks.iter().flatten().map(|row| row.customer)
    }

    pub(crate) fn grant(&self, number: PurchaseNumber, price: u64, credit: u64) -> Option<Grant> {
        let row = self.row(number)?;
        Some(Grant {
            number,
            purchase: row.purchase,
            customer: row.customer,
            item: u16::from(row.item),
            units: self.units(number).collect(),
            price,
            pay_by: ChainTime(row.pay_by_uncredited() + if row.is_held() { credit } else { 0 }),
            status: row.status(),
            record: row.record(),
            attempts: Vec::new(),
            references: Vec::new(),
        })
    }
}

/// What a row keeps of a body's hash.
pub(crate) type BodyFront = [u8; 6];

pub(crate) fn body_front(hash: &[u8; 16]) -> BodyFront {
    let mut front = BodyFront::default();
    front.copy_from_slice(&hash[..size_of::<BodyFront>()]);
    front
}

/// A row has room for times up to `TIME_MAX` and for record numbers below `RECORDS_MAX`.
fn narrow<const N: usize>(value: u64) -> [u8; N] {
    let bytes = value.to_le_bytes();
    assert!(bytes[N..].iter().all(|byte| *byte == 0), "a number outgrew its place in a row");
    let mut narrow = [0; N];
    narrow.copy_from_slice(&bytes[..N]);
    narrow
}

fn widen<const N: usize>(narrow: &[u8; N]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(narrow);
    u64::from_le_bytes(bytes)
}

/// Iterator over one customer's grants.
pub(crate) struct OfCustomer<'a> {
    grants: &'a Grants,
    next: u32,
}

impl<'a> Iterator for OfCustomer<'a> {
    type Item = (PurchaseNumber, &'a Row);

    fn next(&mut self) -> Option<Self::Item> {
        let number = PurchaseNumber(self.next);
        let row = self.grants.row(number)?;
        self.next = row.older;
        Some((number, row))
    }
}
