//! webhooks.sqlite: the endpoints, how far each has been told, and what waits. What an operator changes is synced before it is answered;
//! what a delivery notes is not, since a lost note only means that an event is delivered once more, under the same id.

use std::collections::BTreeMap;
use std::path::Path;

use domain::{ChainTime, PurchaseNumber};
use ledger::StoreError;
use ledger::store::{self, Schema};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, named_params, params};

use crate::event::EventKind;
use crate::signature::Secret;

const SCHEMA: Schema =
    Schema { version: 1, sql: include_str!("schema.sql"), synchronous: "NORMAL", checkpoint_pages: 1_000 };

/// Somebody who is called.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) url: String,
    /// Names; empty is all.
    pub(crate) sales: Vec<String>,
    /// Empty is all.
    pub(crate) events: Vec<EventKind>,
    pub(crate) secret: Secret,
    pub(crate) former_secret: Option<Secret>,
    pub(crate) former_until: u64,
    pub(crate) since: ChainTime,
    pub(crate) paused: Option<String>,
    pub(crate) created_at: u64,
    pub(crate) last: LastCall,
}

impl Endpoint {
    pub(crate) fn wants(&self, sale: &str) -> bool {
        self.sales.is_empty() || self.sales.iter().any(|name| name == sale)
    }
}

/// How the last call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastCall {
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) at: Option<u64>,
}

/// Which event: the sale's name and the record's number.
pub(crate) type EventKey = (String, u64);

/// An event that was not delivered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) lane: Option<PurchaseNumber>,
    pub(crate) at: ChainTime,
    pub(crate) attempts: u32,
    pub(crate) due_at: u64,
    pub(crate) failed_at: Option<u64>,
    pub(crate) reason: String,
}

/// The open file.
pub(crate) struct Store {
    connection: Connection,
}

const COLUMNS: &str = "id, url, sales, events, secret, former_secret, former_until, since, paused, created_at, last_status, last_error, last_at";

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: store::open(path, &SCHEMA)? })
    }

    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, StoreError> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM endpoints ORDER BY created_at, id"))?;
        let rows = statement.query_map([], endpoint_of_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn endpoint(&self, id: &str) -> Result<Option<Endpoint>, StoreError> {
        Ok(self.endpoints()?.into_iter().find(|endpoint| endpoint.id == id))
    }

    pub(crate) fn places(&self, id: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT sale, next FROM places WHERE endpoint = ?1")?;
        let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What waits, without what is parked.
    pub(crate) fn waiting(&self, id: &str) -> Result<BTreeMap<EventKey, Waiting>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sale, position, lane, at, attempts, due_at, failed_at, reason FROM waiting WHERE endpoint = ?1 AND parked = 0",
        )?;
        let rows = statement.query_map([id], |row| {
            let waiting = Waiting {
                lane: row.get::<_, Option<u32>>(2)?.map(PurchaseNumber),
                at: ChainTime(row.get(3)?),
                attempts: row.get(4)?,
                due_at: row.get(5)?,
                failed_at: row.get(6)?,
                reason: row.get(7)?,
            };
            Ok(((row.get(0)?, row.get(1)?), waiting))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many events wait, how many are parked, and why the last of those is.
    pub(crate) fn undelivered(&self, id: &str) -> Result<(u64, u64, Option<String>), StoreError> {
        let counted = self.connection.query_row(
            "SELECT count(*) FILTER (WHERE parked = 0), count(*) FILTER (WHERE parked = 1) FROM waiting WHERE endpoint = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut statement = self.connection.prepare_cached(
            "SELECT reason FROM waiting WHERE endpoint = ?1 AND parked = 1 ORDER BY failed_at DESC LIMIT 1",
        )?;
        let reason = statement.query_map([id], |row| row.get(0))?.next().transpose()?;
        Ok((counted.0, counted.1, reason))
    }

    pub(crate) fn insert(&mut self, endpoint: &Endpoint) -> Result<(), StoreError> {
        let list = |list: serde_json::Result<String>| list.expect("a list of texts is JSON");
        let (sales, events) =
            (list(serde_json::to_string(&endpoint.sales)), list(serde_json::to_string(&endpoint.events)));
        self.durably(|transaction| {
            transaction.execute(
                "INSERT INTO endpoints (id, url, sales, events, secret, former_until, since, created_at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)",
                params![
                    endpoint.id,
                    endpoint.url,
                    sales,
                    events,
                    endpoint.secret.bytes(),
                    endpoint.since.0,
                    endpoint.created_at
                ],
            )
        })
    }

    pub(crate) fn remove(&mut self, id: &str) -> Result<(), StoreError> {
        self.durably(|transaction| {
            transaction.execute("DELETE FROM waiting WHERE endpoint = ?1", [id])?;
            transaction.execute("DELETE FROM places WHERE endpoint = ?1", [id])?;
            transaction.execute("DELETE FROM endpoints WHERE id = ?1", [id])
        })
    }

    pub(crate) fn rotate(&mut self, id: &str, secret: &Secret, former_until: u64) -> Result<(), StoreError> {
        self.durably(|transaction| {
            transaction.execute(
                "UPDATE endpoints SET former_secret = secret, former_until = ?3, secret = ?2 WHERE id = ?1",
                params![id, secret.bytes(), former_until],
            )
        })
    }

    pub(crate) fn pause(&mut self, id: &str, reason: Option<&str>) -> Result<(), StoreError> {
        self.durably(|transaction| {
            transaction.execute("UPDATE endpoints SET paused = ?2 WHERE id = ?1", params![id, reason])
        })
    }

    /// Everything from a chain time on is told again; what waits from before then stays.
    pub(crate) fn tell_again(&mut self, id: &str, since: ChainTime) -> Result<(), StoreError> {
        self.durably(|transaction| {
            transaction.execute("DELETE FROM waiting WHERE endpoint = ?1 AND at >= ?2", params![id, since.0])?;
            transaction.execute("DELETE FROM places WHERE endpoint = ?1", [id])?;
            transaction.execute("UPDATE endpoints SET since = ?2 WHERE id = ?1", params![id, since.0])
        })
    }

    /// What is parked waits again, due at once and with all its time before it.
    pub(crate) fn revive_parked(&mut self, id: &str, now: u64) -> Result<(), StoreError> {
        self.durably(|transaction| {
            transaction.execute(
                "UPDATE waiting SET parked = 0, attempts = 0, due_at = ?2, failed_at = NULL WHERE endpoint = ?1 AND parked = 1",
                params![id, now],
            )
        })
    }

    /// What waits is due at once: the receiver is back.
    pub(crate) fn make_due(&mut self, id: &str, now: u64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE waiting SET due_at = ?2 WHERE endpoint = ?1 AND parked = 0")?
            .execute(params![id, now])?;
        Ok(())
    }

    /// What came of looking at a sale or calling about it, in one transaction.
    pub(crate) fn note(&mut self, id: &str, note: &Note<'_>) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some((sale, next)) = note.place {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO places (endpoint, sale, next) VALUES (?1, ?2, ?3)")?
                .execute(params![id, sale, next])?;
        }
        if let Some((sale, position)) = note.delivered {
            transaction
                .prepare_cached("DELETE FROM waiting WHERE endpoint = ?1 AND sale = ?2 AND position = ?3")?
                .execute(params![id, sale, position])?;
        }
        if let Some(((sale, position), waiting, parked)) = note.waits {
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO waiting (endpoint, sale, position, lane, at, attempts, due_at, failed_at, reason, parked) \
                 VALUES (:id, :sale, :position, :lane, :at, :attempts, :due_at, :failed_at, :reason, :parked)",
            )?;
            statement.execute(named_params! {
                ":id": id, ":sale": sale, ":position": position, ":lane": waiting.lane.map(|number| number.0),
                ":at": waiting.at.0, ":attempts": waiting.attempts, ":due_at": waiting.due_at,
                ":failed_at": waiting.failed_at, ":reason": waiting.reason, ":parked": parked,
            })?;
        }
        if let Some(LastCall { status, error, at }) = note.last {
            transaction
                .prepare_cached("UPDATE endpoints SET last_status = ?2, last_error = ?3, last_at = ?4 WHERE id = ?1")?
                .execute(params![id, status, error, at])?;
        }
        Ok(transaction.commit()?)
    }

    fn durably(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>) -> Result<(), StoreError> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction).and_then(|_| transaction.commit());
        self.connection.pragma_update(None, "synchronous", SCHEMA.synchronous)?;
        Ok(changed?)
    }
}

/// What is to be noted together.
#[derive(Default)]
pub(crate) struct Note<'a> {
    /// How far a sale has been told.
    pub(crate) place: Option<(&'a str, u64)>,
    /// What waited, and was delivered.
    pub(crate) delivered: Option<&'a EventKey>,
    /// What waits, and whether it was given up.
    pub(crate) waits: Option<(&'a EventKey, &'a Waiting, bool)>,
    pub(crate) last: Option<&'a LastCall>,
}

fn endpoint_of_row(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    let unreadable = |column| {
        move |error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        }
    };
    Ok(Endpoint {
        id: row.get(0)?,
        url: row.get(1)?,
        sales: serde_json::from_str(row.get_ref(2)?.as_str()?).map_err(unreadable(2))?,
        events: serde_json::from_str(row.get_ref(3)?.as_str()?).map_err(unreadable(3))?,
        secret: Secret::from_bytes(row.get(4)?),
        former_secret: row.get::<_, Option<Vec<u8>>>(5)?.map(Secret::from_bytes),
        former_until: row.get(6)?,
        since: ChainTime(row.get(7)?),
        paused: row.get(8)?,
        created_at: row.get(9)?,
        last: LastCall { status: row.get(10)?, error: row.get(11)?, at: row.get(12)? },
    })
}
