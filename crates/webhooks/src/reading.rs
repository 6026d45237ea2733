//! Reading events: the records of a chain below the end that the books have reached, told one by one. Blocks; reads only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chain::batch::Batch;
use chain::{BatchError, LogReader, ReadError};
use domain::{ChainTime, PurchaseNumber, Record, SaleOrdinal};
use engine::{Engine, Sale};
use ledger::{Books, BooksError, Service};

use crate::event::{Definition, Event, EventKind, OrderFacts, Teller};

/// Readers that are kept for the next time; each has an index of its chain and a piece of it, a megabyte at most.
const READERS_MAX: usize = 32;
/// Records looked at in one go at most, so that a chain without wanted events does not hold up the others.
const RECORDS_MAX: u64 = 100_000;

/// Why events cannot be read. Definite for this attempt; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The chain's files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bytes are not a batch, or a record cannot be read.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The books.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The chain's first record is not one that begins a sale.
    #[error("sale {0}: the chain does not begin with a definition that can be read")]
    Definition(String),
    /// A record ends a purchase that the chain has never granted.
    #[error("sale {sale}: purchase {number} has no held record")]
    Unheld {
        /// The sale.
        sale: String,
        /// The purchase.
        number: u32,
    },
}

/// Which events of a sale are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// From this record on.
    pub(crate) from: u64,
    /// From this chain time on.
    pub(crate) since: ChainTime,
    /// Of these kinds; empty is all.
    pub(crate) kinds: &'a [EventKind],
    /// This many at most.
    pub(crate) count_max: usize,
}

impl Wanted<'_> {
    /// All kinds, from a record on.
    pub(crate) fn from(from: u64, count_max: usize) -> Self {
        Self { from, since: ChainTime(0), kinds: &[], count_max }
    }
}

/// What one look at a sale has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of the chain.
    pub(crate) events: Vec<Event>,
    /// From which record on to look next.
    pub(crate) next: u64,
    /// The first record that the books did not have.
    pub(crate) end: u64,
}

/// A chain that is being read, with what its first record says.
struct Reading {
    log: LogReader,
    definition: Definition,
}

/// Readers of the chains, kept from one look to the next since a new one has to search its place; several of a sale that is read by
/// several at once.
#[derive(Default)]
pub(crate) struct Readers {
    /// The one used last stands last.
    kept: Mutex<Vec<(SaleOrdinal, Reading)>>,
}

impl Readers {
    /// The wanted events of a sale that the books have, as far as one look goes.
    pub(crate) fn read(&self, engine: &Engine, sale: &Arc<Sale>, wanted: &Wanted<'_>) -> Result<Found, EventError> {
        let books = engine.books_reader()?;
        let (end, _) = books.offset(Service::Orders, sale.name())?;
        if wanted.from >= end {
            return Ok(Found { events: Vec::new(), next: wanted.from, end });
        }
        let kept = {
            let mut kept = self.kept();
            let index = kept.iter().rposition(|(ordinal, _)| *ordinal == sale.ordinal);
            index.map(|index| kept.remove(index).1)
        };
        let mut reading = match kept {
            Some(reading) => reading,
            None => Reading::open(sale)?,
        };
        // A reader that failed is not kept: the next look starts with a new one.
        let found = reading.read(engine, sale, &books, wanted, end)?;
        let mut kept = self.kept();
        if kept.len() >= READERS_MAX {
            kept.remove(0);
        }
        kept.push((sale.ordinal, reading));
        Ok(found)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(SaleOrdinal, Reading)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn open(sale: &Sale) -> Result<Self, EventError> {
        let mut log = sale.log_reader()?;
        let unreadable = || EventError::Definition(sale.name().to_owned());
        let bytes = log.batch_containing(0)?.ok_or_else(unreadable)?;
        let first = Batch::parse(&bytes)?.records().next().ok_or_else(unreadable)??.decode()?;
        let Record::Created(created) = first else { return Err(unreadable()) };
        let definition = serde_json::from_slice(&created.definition).map_err(|_| unreadable())?;
        Ok(Self { log, definition })
    }

    fn read(
        &mut self,
        engine: &Engine,
        sale: &Sale,
        books: &Books,
        wanted: &Wanted<'_>,
        end: u64,
    ) -> Result<Found, EventError> {
        let Self { log, definition } = self;
        let (ids, name) = (&engine.ids, sale.name());
        let teller = Teller { ids, name, sale: sale.id, ordinal: sale.ordinal, definition };
        let mut found = Found { events: Vec::new(), next: wanted.from, end };
        if log.next() != wanted.from {
            log.seek(wanted.from)?;
        }
        while found.next < wanted.from.saturating_add(RECORDS_MAX) {
            let Some(bytes) = log.next_batch(end)? else { break };
            let batch = Batch::parse(&bytes)?;
            let time = batch.header.time;
            if time < wanted.since {
                found.next = batch.header.next();
                continue;
            }
            for record in batch.records() {
                let bytes = record?;
                if bytes.number < wanted.from {
                    continue;
                }
                if found.events.len() >= wanted.count_max {
                    return Ok(found);
                }
                let facts = |number| order_facts(sale, books, number);
                let event = teller.tell(bytes.number, time, &bytes.decode()?, facts)?;
                found
                    .events
                    .extend(event.filter(|event| wanted.kinds.is_empty() || wanted.kinds.contains(&event.kind)));
                found.next = bytes.number + 1;
            }
        }
        Ok(found)
    }
}

/// What the `held` record of a purchase said. The books have it from there and never change it; where they parked the record, the chain
/// is searched for it.
fn order_facts(sale: &Sale, books: &Books, number: PurchaseNumber) -> Result<OrderFacts, EventError> {
    if let Some(order) = books.order(sale.name(), number)? {
        let quantity = u32::try_from(order.units.len()).expect("an order has 100 units at most");
        return Ok(OrderFacts { customer: order.customer, item: order.item, quantity, price: order.price });
    }
    let (mut log, end) = (sale.log_reader()?, books.offset(Service::Orders, sale.name())?.0);
    while let Some(bytes) = log.next_batch(end)? {
        for record in Batch::parse(&bytes)?.records() {
            if let Record::Held(held) = record?.decode()?
                && held.number == number
            {
                return Ok(OrderFacts::of(&held));
            }
        }
    }
    Err(EventError::Unheld { sale: sale.name().to_owned(), number: number.0 })
}
