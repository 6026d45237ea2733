//! What the services beside that of orders have written, row by row against the model at each one's own cut: payments (INV-6), coupons and
//! points (INV-7), products (INV-1).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::books::{Books, Service};
use crate::model::{Model, Moment};
use crate::tally::Tally;

/// A table of the books without its column `sale`; the first `keys` columns tell its rows apart.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    keys: usize,
}

const PAYMENTS: Table = Table {
    name: "payments",
    columns: &["number", "attempt", "status", "amount", "currency", "begun_at", "changed_at", "record"],
    keys: 2,
};
const PAYMENTS_PARKED: Table = Table {
    name: "payments_parked",
    columns: &["record", "number", "reason", "evidence", "amount", "currency", "reference", "at"],
    keys: 1,
};
const COUPONS: Table = Table {
    name: "coupons",
    columns: &["coupon", "hash", "percent", "uses_max", "used", "used_ever", "given_back"],
    keys: 1,
};
const POINTS: Table = Table { name: "points", columns: &["customer", "posted", "taken_back", "shortfall"], keys: 1 };
const POINT_POSTINGS: Table =
    Table { name: "point_postings", columns: &["number", "posting", "points", "shortfall", "record", "at"], keys: 2 };
const PRODUCTS: Table =
    Table { name: "products", columns: &["item", "name", "sku", "external_id", "sold", "free"], keys: 1 };

/// A value in a row, in the order in which SQLite sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Nothing,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    fn read(row: &Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Self::Nothing,
            ValueRef::Integer(number) => Self::Number(number),
            // Nothing is a fraction, so it equals nothing that is expected.
            ValueRef::Real(number) => Self::Text(number.to_string()),
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        })
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("null"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&data_encoding::HEXLOWER.encode(bytes)),
        }
    }
}

/// The chain's numbers are below 2^53; one that lies about it equals no row.
impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(-1))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Cell {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, Self::from)
    }
}

impl Books {
    /// Compares attempts and reports that were not believed.
    pub(crate) fn compare_payments(&self, sale: &str, model: &Model, tally: &mut Tally) -> rusqlite::Result<()> {
        let currency = &model.definition.currency;
        let mut attempts: Vec<_> = model.purse.attempts.iter().collect();
        attempts.sort_unstable_by_key(|(number, _)| **number);
        let expected = attempts.into_iter().flat_map(|(number, attempts)| {
            let price = model.grants.get(*number as usize).map_or(0, |grant| grant.price);
            (0_u32..).zip(attempts).map(move |(attempt, tried)| {
                vec![
                    Cell::from(*number),
                    attempt.into(),
                    tried.status.name().into(),
                    price.into(),
                    currency.as_str().into(),
                    tried.begun_at.into(),
                    tried.changed_at.into(),
                    tried.record.into(),
                ]
            })
        });
        self.compare_rows(Service::Payment, &PAYMENTS, sale, expected, tally)?;
        let parked = model.purse.parked.iter().map(|(at, number, report)| {
            vec![
                Cell::from(at.position),
                (*number).into(),
                report.reason.name().into(),
                report.evidence.into(),
                report.amount.into(),
                report.currency.as_str().into(),
                String::from_utf8_lossy(&report.reference).as_ref().into(),
                at.time.into(),
            ]
        });
        self.compare_rows(Service::Payment, &PAYMENTS_PARKED, sale, parked, tally)
    }

    /// Compares how often each coupon is used.
    pub(crate) fn compare_coupons(&self, sale: &str, model: &Model, tally: &mut Tally) -> rusqlite::Result<()> {
        let coupons = (0_u32..).zip(&model.definition.coupons).map(|(index, coupon)| {
            let hash = coupon.hash.unwrap_or_default();
            let uses = model.purse.uses_of(hash);
            let percent = u32::from(coupon.percent);
            [index.into(), hash.into(), percent.into(), coupon.uses_max.into()]
                .into_iter()
                .chain([uses.now, uses.ever, uses.given_back].map(Cell::from))
                .collect()
        });
        self.compare_rows(Service::Coupon, &COUPONS, sale, coupons, tally)
    }

    /// Compares the points of each customer, and every posting.
    pub(crate) fn compare_points(&self, sale: &str, model: &Model, tally: &mut Tally) -> rusqlite::Result<()> {
        let mut customers: BTreeMap<[u8; 16], (u64, u64)> = BTreeMap::new();
        let mut postings = Vec::new();
        for (number, posting) in &model.purse.postings {
            let sums = customers.entry(model.customer_of(*number).map_or([0; 16], |customer| customer.0)).or_default();
            let mut posted = |name: &str, at: Moment, sum: &mut u64| {
                *sum = sum.saturating_add(posting.points);
                let short = Cell::Number(0);
                let row = vec![
                    Cell::from(*number),
                    name.into(),
                    posting.points.into(),
                    short,
                    at.position.into(),
                    at.time.into(),
                ];
                postings.push(row);
            };
            posted("posted", posting.posted, &mut sums.0);
            if let Some(taken_back) = posting.taken_back {
                posted("taken_back", taken_back, &mut sums.1);
            }
        }
        let customers = customers.into_iter().map(|(customer, (posted, taken_back))| {
            // Nothing lets customers spend points yet, so nothing is short.
            vec![Cell::Bytes(customer.to_vec()), posted.into(), taken_back.into(), Cell::Number(0)]
        });
        self.compare_rows(Service::Points, &POINTS, sale, customers, tally)?;
        self.compare_rows(Service::Points, &POINT_POSTINGS, sale, postings.into_iter(), tally)
    }

    /// Compares units sold and free of each article.
    pub(crate) fn compare_products(&self, sale: &str, model: &Model, tally: &mut Tally) -> rusqlite::Result<()> {
        let products =
            (0_u32..).zip(model.items.iter().zip(&model.definition.items)).map(|(index, (item, defined))| {
                vec![
                    Cell::from(index),
                    defined.item.as_str().into(),
                    defined.sku.as_deref().into(),
                    defined.external_id.as_deref().into(),
                    item.counts.sold.into(),
                    item.counts.free.into(),
                ]
            });
        self.compare_rows(Service::Product, &PRODUCTS, sale, products, tally)
    }

    /// Walks along the table's rows and those expected, both in the order of their keys.
    fn compare_rows(
        &self,
        service: Service,
        table: &Table,
        sale: &str,
        expected: impl Iterator<Item = Vec<Cell>>,
        tally: &mut Tally,
    ) -> rusqlite::Result<()> {
        let Table { name, columns, keys } = table;
        let (all, order) = (columns.join(", "), columns[..*keys].join(", "));
        let mut statement =
            self.connection().prepare(&format!("SELECT {all} FROM {name} WHERE sale = ?1 ORDER BY {order}"))?;
        let found = statement.query_map([sale], |row| {
            (0..columns.len()).map(|column| Cell::read(row, column)).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let which = |row: &[Cell]| row[..*keys].iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let (mut expected, promise) = (expected.peekable(), service.promise());
        for found in found {
            let found = found?;
            while let Some(missing) = expected.next_if(|row| row[..*keys] < found[..*keys]) {
                tally.broken(promise, || format!("{name}: row {} is missing in the books", which(&missing)));
            }
            let same = expected.next_if(|row| row[..*keys].cmp(&found[..*keys]) == Ordering::Equal);
            let wrong = match same {
                None => Some("is not in the chain".to_owned()),
                Some(row) => columns
                    .iter()
                    .zip(row.iter().zip(&found))
                    .find(|(_, (row, found))| row != found)
                    .map(|(column, (row, found))| format!("has {column} {found}, the chain says {row}")),
            };
            tally.check(promise, wrong.is_none(), || {
                format!("{name}: row {} {}", which(&found), wrong.unwrap_or_default())
            });
        }
        for missing in expected {
            tally.broken(promise, || format!("{name}: row {} is missing in the books", which(&missing)));
        }
        Ok(())
    }
}
