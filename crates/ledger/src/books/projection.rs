//! What every service shares: one transaction over whole batches, the offset that commits with it, and the parking of records that
//! do not fit. A service says only what a record does to its own tables.
//!
//! Check everything, then write: a record either takes its whole effect or is parked, and those behind it go on.

use chain::Batch;
use chain::batch::RecordBytes;
use chain::codec::CodecError;
use domain::ids::Hash;
use domain::record::{Counts, Created};
use domain::{AttemptStatus, ChainTime, PurchaseNumber, Record, RecordKind, SaleDefinition, limits};
use rusqlite::{Connection, ErrorCode, named_params, params};

use super::{Applied, BooksError, OrderStatus};

/// Who keeps which tables of the books. None reads those of another, and each stands in a chain by its own offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Orders and inventory.
    Orders,
    /// Attempts to pay, and reports that were not believed.
    Payment,
    /// How often each coupon is used.
    Coupon,
    /// Points of each customer.
    Points,
    /// Units sold of each article of the shop's catalogue.
    Product,
}

impl Service {
    /// All of them, in the order in which they take their turns.
    pub const ALL: [Self; 5] = [Self::Orders, Self::Payment, Self::Coupon, Self::Points, Self::Product];

    /// The service's name in `offsets`, `parked`, answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payment => "payment",
            Self::Coupon => "coupon",
            Self::Points => "points",
            Self::Product => "product",
        }
    }
}

/// What does not fit between a record and the books.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    #[error("unreadable: {0}")]
    Unreadable(CodecError),
    #[error("a number is too large to be compared exactly")]
    OutOfRange,
    #[error("the sale has been created before")]
    CreatedAgain,
    #[error("the definition cannot be read: {0}")]
    Definition(String),
    #[error("the sale has no item {0}")]
    ItemUnknown(u16),
    #[error("item {item}: {wanted} wanted of {free} free")]
    NotFree { item: u16, wanted: u32, free: u32 },
    #[error("item {item}: {wanted} to end of {held} held")]
    NotHeld { item: u16, wanted: u32, held: u32 },
    #[error("purchase {0} has an order already")]
    NumberTaken(u32),
    #[error("purchase {0} has no order")]
    NumberUnknown(u32),
    #[error("purchase {0} has another id in its order")]
    OtherPurchase(u32),
    #[error("the order of purchase {number} is {}, not {}", found.name(), wanted.name())]
    Status { number: u32, found: OrderStatus, wanted: OrderStatus },
    #[error("purchase {number} has {quantity} units, the record {units}")]
    Quantity { number: u32, quantity: u32, units: usize },
    #[error("the chain counts {chain:?}, the books {books:?}")]
    Counts { chain: Vec<Counts>, books: Vec<Counts> },
    #[error("attempt {attempt} of purchase {number} cannot begin: it has {attempts}, {open} of them open")]
    NotNextAttempt { number: u32, attempt: u8, attempts: u8, open: u8 },
    #[error("purchase {number} has no attempt {attempt}")]
    AttemptUnknown { number: u32, attempt: u8 },
    #[error("attempt {attempt} of purchase {number} is {}, so it cannot become {}", found.name(), wanted.name())]
    Attempt { number: u32, attempt: u8, found: AttemptStatus, wanted: AttemptStatus },
    #[error("purchase {0} is paid already")]
    PaidAlready(u32),
    #[error("purchase {0} uses a coupon that the sale does not have")]
    CouponUnknown(u32),
    #[error("the points of purchase {0} have been taken back already")]
    TakenBackAlready(u32),
    #[error("coupon {coupon} is used {used} times, {uses_max} at most")]
    CouponSpent { coupon: usize, used: u32, uses_max: u32 },
}

impl Contradiction {
    /// Whether chain and books disagree, rather than one record being unreadable; a missing effect shows at the next digest.
    fn is_drift(&self) -> bool {
        !matches!(self, Self::Unreadable(_))
    }
}

/// Either the record is to be parked or the whole transaction fails.
pub(super) enum Stop {
    Park(Contradiction),
    Fail(BooksError),
}

impl From<Contradiction> for Stop {
    fn from(contradiction: Contradiction) -> Self {
        Self::Park(contradiction)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fail(error.into())
    }
}

/// Where in the chain a record stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The record's number.
    pub(super) record: u64,
    /// Its batch's chain time.
    pub(super) time: ChainTime,
}

/// What one service makes of one sale, inside one transaction.
pub(super) trait Projection<'c>: Sized {
    /// Whose tables these are.
    const SERVICE: Service;

    /// Reads what the service keeps in memory while the transaction runs.
    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError>;

    /// Takes the whole effect of a record, or nothing of it.
    fn record(&mut self, record: Record, place: Place) -> Result<(), Stop>;

    /// Writes what was kept in memory; offset and commit follow.
    fn finish(self) -> Result<(), BooksError>;
}

/// Lets a service take batches that follow each other from its offset on; the caller commits.
pub(super) fn project<'c, P: Projection<'c>>(
    connection: &'c Connection,
    sale: &'c str,
    (next, head): (u64, Hash),
    batches: &[Vec<u8>],
) -> Result<Applied, BooksError> {
    let projection = P::begin(connection, sale)?;
    let mut frame = Frame { connection, sale, next, head, applied: Applied::default(), projection };
    for bytes in batches {
        frame.batch(bytes)?;
    }
    frame.finish()
}

/// One transaction of one service over one sale.
struct Frame<'c, P> {
    connection: &'c Connection,
    sale: &'c str,
    next: u64,
    head: Hash,
    applied: Applied,
    projection: P,
}

impl<'c, P: Projection<'c>> Frame<'c, P> {
    /// Takes one batch, which must be the next one of this history.
    fn batch(&mut self, bytes: &[u8]) -> Result<(), BooksError> {
        let unreadable = |at, source| BooksError::Batch { sale: self.sale.to_owned(), at, source };
        let batch = Batch::parse(bytes).map_err(|source| unreadable(self.next, source))?;
        if batch.header.first != self.next {
            let (expected, found) = (self.next, batch.header.first);
            return Err(BooksError::NotNext { sale: self.sale.to_owned(), expected, found });
        }
        if batch.previous != self.head {
            return Err(BooksError::OtherHistory { sale: self.sale.to_owned(), at: self.next });
        }
        let time = batch.header.time;
        for record in batch.records() {
            let record = record.map_err(|source| unreadable(self.next, source))?;
            match self.record(&record, time) {
                Ok(()) => {}
                Err(Stop::Park(contradiction)) => self.park(&record, time, &contradiction)?,
                Err(Stop::Fail(error)) => return Err(error),
            }
        }
        self.applied.records += u64::from(batch.header.count);
        self.next = batch.header.next();
        self.head = batch.head.head;
        Ok(())
    }

    fn record(&mut self, record: &RecordBytes<'_>, time: ChainTime) -> Result<(), Stop> {
        let value = chain::codec::decode(record.kind, record.public).map_err(Contradiction::Unreadable)?;
        let is_order = P::SERVICE == Service::Orders && value.kind() == RecordKind::Held;
        self.projection.record(value, Place { record: record.number, time })?;
        self.applied.orders += u64::from(is_order);
        Ok(())
    }

    /// Writes what the service kept in memory, and the offset.
    fn finish(self) -> Result<Applied, BooksError> {
        self.projection.finish()?;
        self.connection
            .prepare_cached(
                "INSERT INTO offsets (service, sale, next, head) VALUES (:service, :sale, :next, :head) \
                 ON CONFLICT (service, sale) DO UPDATE SET next = excluded.next, head = excluded.head",
            )?
            .execute(
                named_params! {":service": P::SERVICE.name(), ":sale": self.sale, ":next": self.next, ":head": self.head},
            )?;
        Ok(self.applied)
    }

    fn park(&mut self, record: &RecordBytes<'_>, time: ChainTime, why: &Contradiction) -> Result<(), BooksError> {
        let kind = match RecordKind::from_number(record.kind) {
            Some(kind) => kind_name(kind).to_owned(),
            None => format!("kind {}", record.kind),
        };
        let (service, reason) = (P::SERVICE.name(), why.to_string());
        tracing::error!(service, sale = self.sale, record = record.number, kind, reason, "parked a record");
        self.connection
            .prepare_cached(
                "INSERT INTO parked (service, sale, record, kind, reason, evidence, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![service, self.sale, record.number, kind, reason, record.public, saturated(time.0)])?;
        self.applied.parked += 1;
        if why.is_drift() && self.applied.drift.is_none() {
            self.applied.drift = Some(format!("record {} ({kind}): {reason}", record.number));
        }
        Ok(())
    }
}

/// What an insertion says whose key is the number of an order.
pub(super) fn once(inserted: rusqlite::Result<usize>, number: PurchaseNumber) -> Result<(), Stop> {
    match inserted {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(Contradiction::NumberTaken(number.0).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The definition of a sale, as its `created` record has it.
pub(super) fn definition_of(created: &Created) -> Result<SaleDefinition, Contradiction> {
    serde_json::from_slice(&created.definition).map_err(|error| Contradiction::Definition(error.to_string()))
}

/// A number as the books compare it; the chain's are exact below 2^53.
pub(super) fn exact(number: u64) -> Result<i64, Contradiction> {
    if number > limits::INTEGER_MAX { Err(Contradiction::OutOfRange) } else { Ok(saturated(number)) }
}

fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A record's kind as `parked` names it.
pub(super) fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Created => "created",
        RecordKind::Epoch => "epoch",
        RecordKind::Opened => "opened",
        RecordKind::Held => "held",
        RecordKind::Released => "released",
        RecordKind::Confirmed => "confirmed",
        RecordKind::PaymentBegun => "payment_begun",
        RecordKind::PaymentNamed => "payment_named",
        RecordKind::PaymentEnded => "payment_ended",
        RecordKind::PaymentReceived => "payment_received",
        RecordKind::RefundOrdered => "refund_ordered",
        RecordKind::Refunded => "refunded",
        RecordKind::PaymentParked => "payment_parked",
        RecordKind::Retaken => "retaken",
        RecordKind::StockChanged => "stock_changed",
        RecordKind::Paused => "paused",
        RecordKind::Resumed => "resumed",
        RecordKind::ClockCredit => "clock_credit",
        RecordKind::Digest => "digest",
        RecordKind::Closed => "closed",
        RecordKind::SecretRevealed => "secret_revealed",
        RecordKind::Settled => "settled",
    }
}
