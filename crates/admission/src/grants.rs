//! Every grant of a sale in compact rows, found by customer: a customer has few, so one index serves keys and limits alike.
//!
//! Nothing here ever moves all at once: rows lie in chunks, the index in a thousand small tables that double one by one, so that
//! the ten-millionth customer costs what the first did.

use std::collections::HashMap;

use domain::record::ReleaseReason;
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Unit};
use hashbrown::HashTable;

use crate::command::{Grant, GrantStatus};

/// A whole number of the allocator's 64 KiB slices, so that little of a chunk is padding.
const CHUNK_ROWS: usize = 16_384;
const SHARDS: u64 = 1024;
const NONE: u32 = u32::MAX;

/// One grant; 72 bytes.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) customer: Pseudonym,
    pub(crate) purchase: PurchaseId,
    /// The first half of the body's hash; enough to tell bodies under one key apart.
    pub(crate) body: [u8; 8],
    /// While held: pay-by time less the clock credits given before the grant, so that one running total moves every open deadline.
    /// Once ended: the pay-by time as it was then.
    pub(crate) pay_by_uncredited: u64,
    /// Number of the `held` record.
    pub(crate) record: u64,
    /// The first unit; the rest of a larger purchase is in `Grants::more_units`.
    unit: Unit,
    /// The low half of the pass's number; compared only among one customer's grants.
    pub(crate) pass: u32,
    older: u32,
    pub(crate) item: u8,
    pub(crate) quantity: u8,
    status: u8,
}

const HELD: u8 = 0;
const CONFIRMED: u8 = 255;

impl Row {
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
            self.pay_by_uncredited += credit;
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

pub(crate) struct Grants {
    chunks: Vec<Vec<Row>>,
    /// Customer to their newest row.
    newest: Vec<HashTable<u32>>,
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
        let newest = shard.find(customer.fingerprint(), |number| self.customer_at(*number) == customer);
        OfCustomer { grants: self, next: newest.copied().unwrap_or(NONE) }
    }

    fn customer_at(&self, number: u32) -> Pseudonym {
        self.chunks[number as usize / CHUNK_ROWS][number as usize % CHUNK_ROWS].customer
    }

    pub(crate) fn push(&mut self, grant: &NewGrant<'_>) -> PurchaseNumber {
        let number = self.count();
        assert!(number < NONE, "a sale has fewer than 2^32 - 1 grants");
        let chunks = &self.chunks;
        let customer_at = |number: u32| chunks[number as usize / CHUNK_ROWS][number as usize % CHUNK_ROWS].customer;
        let entry = self.newest[shard_of(grant.customer)].entry(
            grant.customer.fingerprint(),
            |candidate| customer_at(*candidate) == grant.customer,
            |candidate| customer_at(*candidate).fingerprint(),
        );
        let older = match entry {
            hashbrown::hash_table::Entry::Occupied(mut newest) => std::mem::replace(newest.get_mut(), number),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(number);
                NONE
            }
        };
        let row = Row {
            customer: grant.customer,
            purchase: grant.purchase,
            body: body_half(grant.body_hash),
            pay_by_uncredited: grant.pay_by_uncredited,
            record: grant.record,
            unit: grant.units[0],
            pass: grant.pass as u32,
            older,
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
            pay_by: ChainTime(row.pay_by_uncredited + if row.is_held() { credit } else { 0 }),
            status: row.status(),
            record: row.record,
        })
    }
}

pub(crate) fn body_half(hash: &[u8; 16]) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&hash[..8]);
    half
}

/// Bits that the small tables use neither to find a bucket nor to tell its entries apart.
fn shard_of(customer: Pseudonym) -> usize {
    ((customer.fingerprint() >> 32) % SHARDS) as usize
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
