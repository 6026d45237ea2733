//! Writes the books that a chain leads to, with plain SQL and apart from the ledger's own projection.

use std::path::Path;

use chain::{Batch, EncodedBatch};
use domain::Record;
use rusqlite::{Connection, params};

use crate::sketch::{Folder, NAME, Sketch};

const SCHEMA: &str = "
CREATE TABLE offsets (service TEXT, sale TEXT, next INTEGER, head BLOB, PRIMARY KEY (service, sale));
CREATE TABLE orders (sale TEXT, number INTEGER, purchase BLOB, customer BLOB, item INTEGER, quantity INTEGER, units BLOB,
    price INTEGER, currency TEXT, status TEXT CHECK (status IN ('held', 'confirmed', 'released')), release_reason TEXT,
    held_at INTEGER, pay_by INTEGER, ended_at INTEGER, record INTEGER, PRIMARY KEY (sale, number));
CREATE TABLE inventory (sale TEXT, item INTEGER, name TEXT, free INTEGER, held INTEGER, sold INTEGER, withdrawn INTEGER,
    PRIMARY KEY (sale, item));
CREATE TABLE parked (id INTEGER PRIMARY KEY, service TEXT, sale TEXT, record INTEGER, kind TEXT, reason TEXT, evidence BLOB,
    at INTEGER);
PRAGMA journal_mode = WAL;";

pub(crate) fn open(data: &Path) -> Connection {
    Connection::open(data.join("books.sqlite")).unwrap()
}

/// Runs one statement against the books.
pub(crate) fn doctor(data: &Path, sql: &str) {
    assert!(open(data).execute(sql, []).unwrap() > 0, "the statement changed nothing");
}

/// Books that have read the first `read` batches.
pub(crate) fn write(data: &Path, batches: &[EncodedBatch], read: usize) {
    let mut connection = open(data);
    connection.execute_batch(SCHEMA).unwrap();
    let transaction = connection.transaction().unwrap();
    for encoded in &batches[..read] {
        let batch = Batch::parse(&encoded.bytes).unwrap();
        for record in batch.records() {
            let record = record.unwrap();
            apply(&transaction, record.number as i64, batch.header.time.0 as i64, record.decode().unwrap());
        }
    }
    if let Some(last) = batches[..read].last() {
        transaction
            .execute(
                "INSERT INTO offsets VALUES ('orders', ?1, ?2, ?3)",
                params![NAME, last.header.next() as i64, last.head.head],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
}

fn apply(books: &Connection, number: i64, time: i64, record: Record) {
    let shift = |order: u32, sql: &str| {
        let sql = format!(
            "UPDATE inventory SET {sql} FROM (SELECT item AS i, quantity AS q FROM orders WHERE number = ?1) WHERE item = i"
        );
        books.execute(&sql, [order]).unwrap();
    };
    let end = |order: u32, status: &str, reason: Option<&str>| {
        let sql = "UPDATE orders SET status = ?2, release_reason = ?3, ended_at = ?4 WHERE number = ?1";
        books.execute(sql, params![order, status, reason, time]).unwrap();
    };
    match record {
        Record::Created(created) => {
            let definition: domain::SaleDefinition = serde_json::from_slice(&created.definition).unwrap();
            for (index, item) in definition.items.iter().enumerate() {
                let row = params![NAME, index as i64, item.item, item.stock];
                books.execute("INSERT INTO inventory VALUES (?1, ?2, ?3, ?4, 0, 0, 0)", row).unwrap();
            }
        }
        Record::Held(held) => {
            let row = params![
                NAME,
                held.number.0,
                held.purchase.0,
                held.customer.0,
                held.item,
                held.units.len() as i64,
                units(&held.units),
                held.price as i64,
                time,
                held.pay_by.0 as i64,
                number
            ];
            let sql =
                "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'EUR', 'held', NULL, ?9, ?10, NULL, ?11)";
            books.execute(sql, row).unwrap();
            shift(held.number.0, "free = free - q, held = held + q");
        }
        Record::Released { number, reason, .. } => {
            end(number.0, "released", Some(reason.name()));
            shift(number.0, "held = held - q, free = free + q");
        }
        Record::Confirmed { number, .. } => {
            end(number.0, "confirmed", None);
            shift(number.0, "held = held - q, sold = sold + q");
        }
        Record::Retaken { number, units: taken, .. } => {
            end(number.0, "confirmed", None);
            books.execute("UPDATE orders SET units = ?2 WHERE number = ?1", params![number.0, units(&taken)]).unwrap();
            shift(number.0, "free = free - q, sold = sold + q");
        }
        Record::StockChanged { item, added, withdrawn } => {
            let sql = "UPDATE inventory SET free = free + ?2 - ?3, withdrawn = withdrawn + ?3 WHERE item = ?1";
            books.execute(sql, params![item, added, withdrawn.len() as i64]).unwrap();
        }
        Record::ClockCredit(milliseconds) => {
            books
                .execute("UPDATE orders SET pay_by = pay_by + ?1 WHERE status = 'held'", [milliseconds as i64])
                .unwrap();
        }
        _ => {}
    }
}

fn units(units: &[domain::Unit]) -> Vec<u8> {
    units.iter().flat_map(|unit| [unit.number.to_le_bytes(), unit.generation.to_le_bytes()].concat()).collect()
}

/// The good sale with books that stopped reading after `read` batches.
pub(crate) fn lagging(sketch: &Sketch, read: usize) -> Folder {
    let folder = Folder::new();
    let batches = sketch.encode();
    crate::log::write(&folder.sale(), &batches);
    write(&folder.0, &batches, read);
    folder
}
