//! The books: what five services project from the chains of every sale into one SQLite file, each into tables of its own.
//!
//! A batch takes effect exactly once for each service, because its offset commits with it. A service believes a record only if it
//! fits what it holds; one that does not is parked with its evidence, and the records behind it go on. None corrects a chain.

mod coupons;
mod orders;
mod payments;
mod points;
mod products;
mod projection;
mod queries;
mod turns;

use std::path::Path;

use chain::BatchError;
use domain::ids::Hash;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, named_params};

pub use self::projection::Service;
pub use self::queries::{
    BenefitCounts, InventoryRow, MoneyCounts, OrderCounts, OrderRow, OrderStatus, ParkedPaymentRow, ParkedRow,
    PaymentRow,
};
use crate::store::{self, Schema, StoreError};

const SCHEMA: Schema =
    Schema { version: 2, sql: include_str!("books/schema.sql"), synchronous: "NORMAL", checkpoint_pages: 1_000 };

/// Why the books could not do what they were asked. Nothing of the transaction has been kept, except where a
/// [`StoreError`] at the commit leaves that unknown; the offset tells, so reading it and going on from there is always right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BooksError {
    /// The file.
    #[error("books.sqlite: {0} (the books may be deleted; they are rebuilt from the chains)")]
    Store(#[from] StoreError),
    /// The batch is not the one that follows. Definite.
    #[error("sale {sale}: the books stand at record {expected}, the batch begins at {found}")]
    NotNext {
        /// The sale.
        sale: String,
        /// The books' offset.
        expected: u64,
        /// The batch's first record.
        found: u64,
    },
    /// The batch follows another history than the one in the books. Definite.
    #[error("sale {sale}: the batch at record {at} does not extend the head in the books")]
    OtherHistory {
        /// The sale.
        sale: String,
        /// The books' offset.
        at: u64,
    },
    /// The books have records that the log lacks: the log was lost or restored. Definite.
    #[error("sale {sale}: the books stand at record {books}, but the log ends at {log}; the log has lost records")]
    AheadOfLog {
        /// The sale.
        sale: String,
        /// The books' offset.
        books: u64,
        /// Number of the first record that the log does not have.
        log: u64,
    },
    /// The bytes are not a batch. Definite.
    #[error("sale {sale}: the batch at record {at} cannot be read: {source}")]
    Batch {
        /// The sale.
        sale: String,
        /// The books' offset.
        at: u64,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A guarded update found other counts than its own transaction had read (INV-1). Definite.
    #[error("sale {sale}: the guard on the inventory of item {item} failed")]
    Guard {
        /// The sale.
        sale: String,
        /// Index of the item.
        item: u16,
    },
}

impl From<rusqlite::Error> for BooksError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What one transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records taken, the parked ones included.
    pub records: u64,
    /// Orders written.
    pub orders: u64,
    /// Records parked.
    pub parked: u64,
    /// The first contradiction between chain and books in this transaction: the sale should pause until somebody has looked.
    /// An unreadable record alone is parked without one.
    pub drift: Option<String>,
}

/// One connection to the books: the single writer, or any number of readers. Blocking.
pub struct Books {
    connection: Connection,
}

impl Books {
    /// Opens or creates the books for writing; there must be one writer at most.
    pub fn open(path: &Path) -> Result<Self, BooksError> {
        Ok(Self { connection: store::open(path, &SCHEMA)? })
    }

    /// Opens existing books for queries; it sees what the writer has committed and never waits for it.
    pub fn open_reader(path: &Path) -> Result<Self, BooksError> {
        Ok(Self { connection: store::open_reader(path, &SCHEMA)? })
    }

    /// Empty books without a file.
    pub fn in_memory() -> Result<Self, BooksError> {
        Ok(Self { connection: store::open_in_memory(&SCHEMA, None)? })
    }

    /// The committed state as bytes, for [`Books::restore`].
    pub fn snapshot(&mut self) -> Result<Vec<u8>, BooksError> {
        Ok(self.connection.serialize("main")?.to_vec())
    }

    /// Books in memory as they were at a snapshot.
    pub fn restore(bytes: &[u8]) -> Result<Self, BooksError> {
        Ok(Self { connection: store::open_in_memory(&SCHEMA, Some(bytes))? })
    }

    /// The first record that a service has not applied, and the chain's head before it; the start of the chain for a new sale.
    pub fn offset(&self, service: Service, sale: &str) -> Result<(u64, Hash), BooksError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT next, head FROM offsets WHERE service = :service AND sale = :sale")?;
        let found = statement
            .query_row(named_params! {":service": service.name(), ":sale": sale}, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or((0, chain::batch::GENESIS_HEAD)))
    }

    /// Lets a service apply batches that follow each other from its offset on, in one transaction: all of them or none.
    pub fn apply(&mut self, service: Service, sale: &str, batches: &[Vec<u8>]) -> Result<Applied, BooksError> {
        if batches.is_empty() {
            return Ok(Applied::default());
        }
        let from = self.offset(service, sale)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let applied = match service {
            Service::Orders => projection::project::<orders::Orders<'_>>(&transaction, sale, from, batches),
            Service::Payment => projection::project::<payments::Payments<'_>>(&transaction, sale, from, batches),
            Service::Coupon => projection::project::<coupons::Coupons<'_>>(&transaction, sale, from, batches),
            Service::Points => projection::project::<points::Points<'_>>(&transaction, sale, from, batches),
            Service::Product => projection::project::<products::Products<'_>>(&transaction, sale, from, batches),
        }?;
        transaction.commit()?;
        Ok(applied)
    }

    /// Refuses a service's books that are ahead of their log or come from another history. `log_next` is the first record that the log
    /// does not have; `head_at_offset` is the log's head before the service's offset, `None` where the log has no batch boundary there.
    pub fn check_not_ahead(
        &self,
        service: Service,
        sale: &str,
        log_next: u64,
        head_at_offset: Option<&Hash>,
    ) -> Result<(), BooksError> {
        let (next, head) = self.offset(service, sale)?;
        if next > log_next {
            return Err(BooksError::AheadOfLog { sale: sale.to_owned(), books: next, log: log_next });
        }
        if head_at_offset != Some(&head) {
            return Err(BooksError::OtherHistory { sale: sale.to_owned(), at: next });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chain::{BatchBuilder, BatchHeader, HeadSigner};
    use domain::{ChainTime, PurchaseId, PurchaseNumber, Record, SaleId};

    use super::*;

    #[test]
    fn a_full_disk_leaves_the_books_where_they_were_and_room_lets_them_go_on() {
        let count = 5_000;
        let header = BatchHeader { sale: SaleId([1; 16]), partition: 0, epoch: 1, time: ChainTime(1), first: 0, count };
        let mut builder = BatchBuilder::new(header, chain::batch::GENESIS_HEAD);
        for number in 0..count {
            // Nothing to confirm: each leaves a parked row, and together they need many pages.
            builder.push(&Record::Confirmed { number: PurchaseNumber(number), purchase: PurchaseId([1; 12]) }, None);
        }
        let batch = [builder.finish(&HeadSigner::from_seed(&[1; 32])).bytes];
        let mut books = Books::in_memory().unwrap();
        books.connection.pragma_update(None, "max_page_count", 20).unwrap();
        assert_eq!(books.apply(Service::Orders, "sale", &batch).unwrap_err(), BooksError::Store(StoreError::Full));
        assert_eq!(books.offset(Service::Orders, "sale").unwrap(), (0, chain::batch::GENESIS_HEAD));
        assert_eq!(books.parked(0, 10).unwrap(), []);
        books.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        assert_eq!(books.apply(Service::Orders, "sale", &batch).unwrap().parked, u64::from(count));
    }
}
