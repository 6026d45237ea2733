//! The books as rows: what each service has written, read in one transaction and compared with the chain at that service's offset.

use std::path::Path;

use chain::digest::GrantStatus;
use domain::Promise;
use domain::ids::Hash;
use rusqlite::{Connection, OpenFlags, Row};

use crate::model::{Grant, Model};
use crate::tally::Tally;

/// A service whose offset is its cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Orders,
    Payment,
    Coupon,
    Points,
    Product,
}

impl Service {
    pub(crate) const ALL: [Self; 5] = [Self::Orders, Self::Payment, Self::Coupon, Self::Points, Self::Product];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payment => "payment",
            Self::Coupon => "coupon",
            Self::Points => "points",
            Self::Product => "product",
        }
    }

    /// What is broken where the service's tables are not what the chain says.
    pub(crate) fn promise(self) -> Promise {
        match self {
            Self::Orders => Promise::DurableAnswer,
            Self::Payment => Promise::Money,
            Self::Coupon | Self::Points => Promise::Benefits,
            Self::Product => Promise::Conservation,
        }
    }
}

/// The books, held still by one read transaction.
pub(crate) struct Books {
    connection: Connection,
}

/// How far a service has read a sale.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offset {
    /// Number of the first record that it has not applied.
    pub(crate) next: u64,
    /// The chain's hash before that record, as it remembers it.
    pub(crate) head: Option<Hash>,
}

impl Books {
    /// Opens the books read-only and begins the transaction; `None` when there is no file.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -65536; BEGIN")?;
        // The transaction sees the database as it is at its first read, so the first read happens here.
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(Some(Self { connection }))
    }

    /// The cut of a service in a sale; position 0 when it has not begun.
    fn offset(&self, service: Service, sale: &str) -> rusqlite::Result<Offset> {
        let mut statement =
            self.connection.prepare("SELECT next, head FROM offsets WHERE service = ?1 AND sale = ?2")?;
        let mut rows = statement.query((service.name(), sale))?;
        let Some(row) = rows.next()? else { return Ok(Offset::default()) };
        let head: Option<Vec<u8>> = row.get(1)?;
        Ok(Offset { next: number(row, 0)?, head: head.and_then(|head| head.try_into().ok()) })
    }

    /// The cuts of all services in a sale.
    pub(crate) fn offsets(&self, sale: &str) -> rusqlite::Result<Vec<(Service, Offset)>> {
        Service::ALL.into_iter().map(|service| Ok((service, self.offset(service, sale)?))).collect()
    }

    /// Compares every row that a service has of a sale with the model, which stands at the service's offset.
    pub(crate) fn compare(
        &self,
        service: Service,
        sale: &str,
        started: bool,
        model: &mut Model,
    ) -> rusqlite::Result<()> {
        match service {
            Service::Orders => {
                self.compare_orders(sale, model)?;
                self.compare_inventory(sale, started, model)?;
            }
            // Books of an earlier version have no tables of these before the service begins.
            _ if !started => return Ok(()),
            Service::Payment => beside(model, |model, tally| self.compare_payments(sale, model, tally))?,
            Service::Coupon => beside(model, |model, tally| self.compare_coupons(sale, model, tally))?,
            Service::Points => beside(model, |model, tally| self.compare_points(sale, model, tally))?,
            Service::Product => beside(model, |model, tally| self.compare_products(sale, model, tally))?,
        }
        let mut parked =
            self.connection.prepare("SELECT record, kind, reason FROM parked WHERE service = ?1 AND sale = ?2")?;
        let mut rows = parked.query((service.name(), sale))?;
        while let Some(row) = rows.next()? {
            let (record, kind, reason): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            model.tally.broken(service.promise(), || {
                format!("record {record} ({kind}) is parked and not in the books of {}: {reason}", service.name())
            });
        }
        Ok(())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn compare_orders(&self, sale: &str, model: &mut Model) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT number, purchase, customer, item, quantity, units, price, currency, status, release_reason, held_at, \
             pay_by, ended_at, record FROM orders WHERE sale = ?1 ORDER BY number",
        )?;
        let mut rows = statement.query([sale])?;
        let mut expected = 0;
        let mut units = Vec::new();
        while let Some(row) = rows.next()? {
            let stated = number(row, 0)?;
            while expected < stated.min(model.grants.len() as u64) {
                missing(model, expected);
                expected += 1;
            }
            let Some(grant) = usize::try_from(stated).ok().and_then(|index| model.grants.get(index)) else {
                model.tally.broken(Promise::DurableAnswer, || format!("order {stated} has no hold in the chain"));
                continue;
            };
            let wrong = wrong_column(row, model, stated as u32, grant, &mut units)?;
            model.tally.check(Promise::DurableAnswer, wrong.is_none(), || {
                format!("order {stated}: column {} is not what the chain says", wrong.unwrap_or_default())
            });
            expected = stated + 1;
        }
        while expected < model.grants.len() as u64 {
            missing(model, expected);
            expected += 1;
        }
        Ok(())
    }

    fn compare_inventory(&self, sale: &str, started: bool, model: &mut Model) -> rusqlite::Result<()> {
        let mut statement = self
            .connection
            .prepare("SELECT item, name, free, held, sold, withdrawn FROM inventory WHERE sale = ?1 ORDER BY item")?;
        let mut rows = statement.query([sale])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let item = number(row, 0)?;
            let books: [u64; 4] = [number(row, 2)?, number(row, 3)?, number(row, 4)?, number(row, 5)?];
            let chain = model.items.get(item as usize).map(|item| {
                let counts = item.counts;
                (item.name.clone(), [counts.free, counts.held, counts.sold, counts.withdrawn].map(u64::from))
            });
            let equal = chain.as_ref().is_some_and(|(name, counts)| {
                *counts == books && row.get_ref(1).is_ok_and(|column| column.as_str().is_ok_and(|text| text == name))
            });
            model.tally.check(Promise::Conservation, equal, || {
                format!("inventory of item {item}: the books have {books:?}, the chain {chain:?}")
            });
            seen += 1;
        }
        let expected = if started { model.items.len() } else { 0 };
        model.tally.check(Promise::Conservation, seen == expected, || {
            format!("the books have inventory of {seen} items, the chain of {expected}")
        });
        Ok(())
    }
}

/// Lets a comparison read the model while it counts.
fn beside(model: &mut Model, compare: impl FnOnce(&Model, &mut Tally) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut tally = std::mem::take(&mut model.tally);
    let compared = compare(model, &mut tally);
    model.tally = tally;
    compared
}

fn missing(model: &mut Model, number: u64) {
    let record = model.grants[number as usize].record;
    model.tally.broken(Promise::DurableAnswer, || format!("hold {number} (record {record}) has no order in the books"));
}

/// The first column that differs from the grant.
fn wrong_column(
    row: &Row<'_>,
    model: &Model,
    order: u32,
    grant: &Grant,
    units: &mut Vec<u8>,
) -> rusqlite::Result<Option<&'static str>> {
    units.clear();
    for unit in model.units_of(grant) {
        units.extend(unit.number.to_le_bytes());
        units.extend(unit.generation.to_le_bytes());
    }
    let (status, reason) = match grant.status {
        GrantStatus::Held => ("held", None),
        GrantStatus::Confirmed => ("confirmed", None),
        GrantStatus::Released => ("released", grant.released.map(|reason| reason.name())),
    };
    let optional_text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str_or_null()?.map(str::to_owned));
    let purchase = model.purchase_of(order).map(|purchase| purchase.0);
    let customer = model.customer_of(order).map(|customer| customer.0);
    let columns = [
        ("purchase", purchase.is_some_and(|purchase| row.get_ref(1).is_ok_and(|v| v.as_blob() == Ok(&purchase)))),
        ("customer", customer.is_some_and(|customer| row.get_ref(2).is_ok_and(|v| v.as_blob() == Ok(&customer)))),
        ("item", number(row, 3)? == u64::from(grant.item)),
        ("quantity", number(row, 4)? as usize == model.units_of(grant).len()),
        ("units", row.get_ref(5)?.as_blob()? == &units[..]),
        ("price", number(row, 6)? == grant.price),
        ("currency", row.get_ref(7)?.as_str()? == model.definition.currency.as_str()),
        ("status", row.get_ref(8)?.as_str()? == status),
        ("release_reason", optional_text(9)?.as_deref() == reason),
        ("held_at", number(row, 10)? == grant.held_at),
        ("pay_by", number(row, 11)? == model.pay_by(grant)),
        ("ended_at", row.get::<_, Option<i64>>(12)?.map(|at| at as u64) == grant.ended_at),
        ("record", number(row, 13)? == grant.record),
    ];
    Ok(columns.into_iter().find_map(|(name, equal)| (!equal).then_some(name)))
}

/// A column that is never negative.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}
