//! What may be asked of the books. Reads only; every answer is one committed state.

use domain::record::{Counts, ReleaseReason};
use domain::{ChainTime, Currency, Pseudonym, PurchaseId, PurchaseNumber, Unit};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Type, ValueRef};
use rusqlite::{OptionalExtension, Row, named_params};

use super::{Books, BooksError};

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderStatus {
    /// Waiting for payment.
    Held,
    /// Paid.
    Confirmed,
    /// Ended without a sale.
    Released,
}

impl OrderStatus {
    /// The status as the books and the HTTP contract write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }
}

impl FromSql for OrderStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let name = value.as_str()?;
        [Self::Held, Self::Confirmed, Self::Released]
            .into_iter()
            .find(|status| status.name() == name)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// The purchase's running number in its sale.
    pub number: PurchaseNumber,
    /// The purchase's id without sale and MAC.
    pub purchase: PurchaseId,
    /// Whose it is.
    pub customer: Pseudonym,
    /// Index of the item in the definition.
    pub item: u16,
    /// The units that it has, or had when it was released; their count is the quantity.
    pub units: Vec<Unit>,
    /// Minor units for all units together.
    pub price: u64,
    /// The sale's currency.
    pub currency: Currency,
    /// How it stands.
    pub status: OrderStatus,
    /// Why it was released, if it is.
    pub release_reason: Option<ReleaseReason>,
    /// When it was granted.
    pub held_at: ChainTime,
    /// Until when it can be paid, clock credits included.
    pub pay_by: ChainTime,
    /// When it ended, if it has.
    pub ended_at: Option<ChainTime>,
    /// Number of its `held` record in the chain.
    pub record: u64,
    /// What became of its money, as far as attempts to pay tell: `paid`, `refund_due` or `refunded`. `None` where no attempt was paid.
    pub payment_status: Option<&'static str>,
}

/// Units of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryRow {
    /// Index in the definition.
    pub item: u16,
    /// The shop's name of it.
    pub name: String,
    /// Where its units are.
    pub counts: Counts,
}

/// One attempt to pay an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    /// The order's running number in its sale.
    pub number: PurchaseNumber,
    /// The attempt, from 0.
    pub attempt: u8,
    /// Whose order it is.
    pub customer: Pseudonym,
    /// How it stands.
    pub status: String,
    /// Minor units: the order's price.
    pub amount: u64,
    /// The sale's currency.
    pub currency: Currency,
    /// When it began.
    pub begun_at: ChainTime,
    /// When it changed last.
    pub changed_at: ChainTime,
    /// Number of the record that changed it last.
    pub record: u64,
}

/// A provider's report on an order that nobody believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedPaymentRow {
    /// Number of its record.
    pub record: u64,
    /// The order's running number in its sale.
    pub number: PurchaseNumber,
    /// Whose order it is.
    pub customer: Pseudonym,
    /// Why it is not believed.
    pub reason: String,
    /// What the report tells apart from others like it.
    pub evidence: u64,
    /// Minor units, as reported.
    pub amount: u64,
    /// As reported.
    pub currency: String,
    /// The provider's name of the payment.
    pub reference: String,
    /// When.
    pub at: ChainTime,
}

/// A record that the books could not believe or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRow {
    /// Running number, the cursor of [`Books::parked`].
    pub id: u64,
    /// Who parked it.
    pub service: String,
    /// Whose chain.
    pub sale: String,
    /// The record's number.
    pub record: u64,
    /// The record's kind.
    pub kind: String,
    /// What does not fit.
    pub reason: String,
    /// The record's public bytes.
    pub evidence: Vec<u8>,
    /// The batch's chain time.
    pub at: ChainTime,
}

/// How many orders a sale has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// All of them.
    pub orders: u64,
    /// Waiting for payment.
    pub held: u64,
    /// Confirmed.
    pub paid: u64,
    /// Ended without a sale.
    pub released: u64,
}

/// What became of the money of a sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoneyCounts {
    /// Confirmed orders that have a payment which went back, and none that stands.
    pub refunded: u64,
    /// The same for released orders: the money came too late.
    pub refunded_late: u64,
    /// Attempts that are open, and money that has yet to go back.
    pub unsettled: u64,
}

/// What customers of a sale were given beside their units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BenefitCounts {
    /// Live orders with a coupon.
    pub coupons_used: u64,
    /// Points for paid orders.
    pub points_posted: u64,
    /// Those of them that refunds took back.
    pub points_taken_back: u64,
}

const ORDER_COLUMNS: &str = "number, purchase, customer, item, units, price, currency, status, release_reason, held_at, pay_by, \
     ended_at, record, (SELECT min(CASE payments.status WHEN 'paid' THEN 0 WHEN 'refund_due' THEN 1 WHEN 'refunded' THEN 2 END) \
     FROM payments WHERE payments.sale = orders.sale AND payments.number = orders.number)";

impl Books {
    /// Orders of a sale by ascending number, beginning behind `after` (from the first with `None`), at most `limit`.
    pub fn orders_of_sale(
        &self,
        sale: &str,
        after: Option<PurchaseNumber>,
        limit: u32,
    ) -> Result<Vec<OrderRow>, BooksError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {ORDER_COLUMNS} FROM orders WHERE sale = :sale AND number > :after ORDER BY number LIMIT :limit"
        ))?;
        let after = after.map_or(-1, |number| i64::from(number.0));
        let rows =
            statement.query_map(named_params! {":sale": sale, ":after": after, ":limit": limit}, order_of_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One order.
    pub fn order(&self, sale: &str, number: PurchaseNumber) -> Result<Option<OrderRow>, BooksError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {ORDER_COLUMNS} FROM orders WHERE sale = :sale AND number = :number"))?;
        let found = statement.query_row(named_params! {":sale": sale, ":number": number.0}, order_of_row);
        Ok(found.optional()?)
    }

    /// Attempts to pay orders of a sale by ascending number and attempt, beginning behind `after` (from the first with `None`), at most
    /// `limit`.
    pub fn payments_of_sale(
        &self,
        sale: &str,
        after: Option<(PurchaseNumber, u8)>,
        limit: u32,
    ) -> Result<Vec<PaymentRow>, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, attempt, customer, status, amount, currency, begun_at, changed_at, record              FROM payments JOIN payment_orders USING (sale, number)              WHERE sale = :sale AND (number, attempt) > (:number, :attempt) ORDER BY number, attempt LIMIT :limit",
        )?;
        let (number, attempt) = after.map_or((-1, 0), |(number, attempt)| (i64::from(number.0), attempt));
        let after = named_params! {":sale": sale, ":number": number, ":attempt": attempt, ":limit": limit};
        let rows = statement.query_map(after, |row| {
            Ok(PaymentRow {
                number: PurchaseNumber(row.get(0)?),
                attempt: row.get(1)?,
                customer: Pseudonym(row.get(2)?),
                status: row.get(3)?,
                amount: row.get(4)?,
                currency: Currency::parse(row.get_ref(5)?.as_str()?).ok_or_else(|| unreadable(5, Type::Text))?,
                begun_at: ChainTime(row.get(6)?),
                changed_at: ChainTime(row.get(7)?),
                record: row.get(8)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Reports on payments of a sale that nobody believed, by ascending record, beginning behind `after` (from the first with `None`), at
    /// most `limit`.
    pub fn payments_parked(
        &self,
        sale: &str,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<ParkedPaymentRow>, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT record, number, customer, reason, evidence, amount, currency, reference, at \
             FROM payments_parked JOIN payment_orders USING (sale, number) \
             WHERE sale = :sale AND record > :after ORDER BY record LIMIT :limit",
        )?;
        let after = after.map_or(-1, u64::cast_signed);
        let rows = statement.query_map(named_params! {":sale": sale, ":after": after, ":limit": limit}, |row| {
            Ok(ParkedPaymentRow {
                record: row.get(0)?,
                number: PurchaseNumber(row.get(1)?),
                customer: Pseudonym(row.get(2)?),
                reason: row.get(3)?,
                evidence: row.get(4)?,
                amount: row.get(5)?,
                currency: row.get(6)?,
                reference: row.get(7)?,
                at: ChainTime(row.get(8)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many attempts to pay stand how, by sale and status; `parked` are reports that nobody believed.
    pub fn payment_counts(&self) -> Result<Vec<(String, String, u64)>, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sale, status, count(*) FROM payments GROUP BY sale, status \
             UNION ALL SELECT sale, 'parked', count(*) FROM payments_parked GROUP BY sale",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Parked records of all sales by ascending id, beginning behind `after` (0 for the first), at most `limit`.
    pub fn parked(&self, after: u64, limit: u32) -> Result<Vec<ParkedRow>, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, service, sale, record, kind, reason, evidence, at FROM parked WHERE id > :after ORDER BY id LIMIT :limit",
        )?;
        let rows = statement.query_map(named_params! {":after": after, ":limit": limit}, |row| {
            Ok(ParkedRow {
                id: row.get(0)?,
                service: row.get(1)?,
                sale: row.get(2)?,
                record: row.get(3)?,
                kind: row.get(4)?,
                reason: row.get(5)?,
                evidence: row.get(6)?,
                at: ChainTime(row.get(7)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many orders a sale has, counted row by row (a million take about a tenth of a second).
    pub fn counts(&self, sale: &str) -> Result<OrderCounts, BooksError> {
        let mut statement =
            self.connection.prepare_cached("SELECT status, count(*) FROM orders WHERE sale = :sale GROUP BY status")?;
        let mut rows = statement.query(named_params! {":sale": sale})?;
        let mut counts = OrderCounts::default();
        while let Some(row) = rows.next()? {
            let number: u64 = row.get(1)?;
            counts.orders += number;
            match row.get(0)? {
                OrderStatus::Held => counts.held = number,
                OrderStatus::Confirmed => counts.paid = number,
                OrderStatus::Released => counts.released = number,
            }
        }
        Ok(counts)
    }

    /// What became of the money of a sale, as far as the services of orders and of payment have both read it.
    pub fn money(&self, sale: &str) -> Result<MoneyCounts, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "WITH paid AS (SELECT number, max(status = 'paid') AS stands, max(status = 'refunded') AS went_back, \
             sum(status IN ('open', 'refund_due')) AS unsettled FROM payments WHERE sale = :sale GROUP BY number) \
             SELECT status, sum(went_back AND NOT stands), sum(unsettled) FROM paid JOIN orders USING (number) \
             WHERE sale = :sale GROUP BY status",
        )?;
        let mut rows = statement.query(named_params! {":sale": sale})?;
        let mut counts = MoneyCounts::default();
        while let Some(row) = rows.next()? {
            counts.unsettled += row.get::<_, u64>(2)?;
            match row.get(0)? {
                OrderStatus::Held => {}
                OrderStatus::Confirmed => counts.refunded = row.get(1)?,
                OrderStatus::Released => counts.refunded_late = row.get(1)?,
            }
        }
        Ok(counts)
    }

    /// What customers of a sale were given beside their units.
    pub fn benefits(&self, sale: &str) -> Result<BenefitCounts, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT (SELECT coalesce(sum(used), 0) FROM coupons WHERE sale = :sale), coalesce(sum(posted), 0), \
             coalesce(sum(taken_back), 0) FROM points WHERE sale = :sale",
        )?;
        Ok(statement.query_row(named_params! {":sale": sale}, |row| {
            Ok(BenefitCounts { coupons_used: row.get(0)?, points_posted: row.get(1)?, points_taken_back: row.get(2)? })
        })?)
    }

    /// The units of every item of a sale, in the definition's order; empty before `created` has been applied.
    pub fn inventory(&self, sale: &str) -> Result<Vec<InventoryRow>, BooksError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT item, name, free, held, sold, withdrawn FROM inventory WHERE sale = :sale ORDER BY item",
        )?;
        let rows = statement.query_map(named_params! {":sale": sale}, |row| {
            let counts = Counts { free: row.get(2)?, held: row.get(3)?, sold: row.get(4)?, withdrawn: row.get(5)? };
            Ok(InventoryRow { item: row.get(0)?, name: row.get(1)?, counts })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn order_of_row(row: &Row<'_>) -> rusqlite::Result<OrderRow> {
    let reason: Option<String> = row.get(8)?;
    let release_reason = match reason {
        None => None,
        Some(name) => Some(reason_of_name(&name).ok_or_else(|| unreadable(8, Type::Text))?),
    };
    Ok(OrderRow {
        number: PurchaseNumber(row.get(0)?),
        purchase: PurchaseId(row.get(1)?),
        customer: Pseudonym(row.get(2)?),
        item: row.get(3)?,
        units: units_of_bytes(row.get_ref(4)?.as_blob()?).ok_or_else(|| unreadable(4, Type::Blob))?,
        price: row.get(5)?,
        currency: Currency::parse(row.get_ref(6)?.as_str()?).ok_or_else(|| unreadable(6, Type::Text))?,
        status: row.get(7)?,
        release_reason,
        held_at: ChainTime(row.get(9)?),
        pay_by: ChainTime(row.get(10)?),
        ended_at: row.get::<_, Option<u64>>(11)?.map(ChainTime),
        record: row.get(12)?,
        // Money that stayed counts before money that is to go back, and that before money that went.
        payment_status: row
            .get::<_, Option<usize>>(13)?
            .and_then(|place| ["paid", "refund_due", "refunded"].get(place).copied()),
    })
}

fn unreadable(column: usize, kind: Type) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(FromSqlError::InvalidType))
}

fn reason_of_name(name: &str) -> Option<ReleaseReason> {
    [ReleaseReason::Expired, ReleaseReason::CancelledByCustomer, ReleaseReason::CancelledByShop]
        .into_iter()
        .find(|reason| reason.name() == name)
}

/// Units as the `units` column holds them.
pub(super) fn bytes_of_units(units: &[Unit]) -> Vec<u8> {
    units.iter().flat_map(|unit| [unit.number.to_le_bytes(), unit.generation.to_le_bytes()]).flatten().collect()
}

fn units_of_bytes(bytes: &[u8]) -> Option<Vec<Unit>> {
    let (units, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| {
        let unit = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| Unit {
            number: u32::from_le_bytes([a, b, c, d]),
            generation: u32::from_le_bytes([e, f, g, h]),
        };
        units.iter().map(unit).collect()
    })
}
