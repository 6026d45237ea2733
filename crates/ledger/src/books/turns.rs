//! How orders turn from one status into another, for the services that count by it: each keeps the orders that concern it.

use domain::{PurchaseId, PurchaseNumber, Received, Record};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::projection::{Contradiction, Stop};
use super::{BooksError, OrderStatus};

/// An order that turns by a record.
pub(super) struct Turn {
    pub(super) number: PurchaseNumber,
    purchase: PurchaseId,
    pub(super) from: OrderStatus,
    pub(super) to: OrderStatus,
}

impl Turn {
    /// What a record does to an order that was held before; `None` for one that leaves it as it is.
    pub(super) fn of(record: &Record) -> Option<Self> {
        use OrderStatus::{Confirmed, Held, Released};
        let (number, purchase, from, to) = match record {
            Record::Released { number, purchase, .. } => (*number, *purchase, Held, Released),
            Record::Confirmed { number, purchase } => (*number, *purchase, Held, Confirmed),
            Record::Retaken { number, purchase, .. } => (*number, *purchase, Released, Confirmed),
            Record::PaymentReceived(of, Received::Confirms) => (of.number, of.purchase, Held, Confirmed),
            Record::PaymentReceived(of, Received::Retakes(_)) => (of.number, of.purchase, Released, Confirmed),
            _ => return None,
        };
        Some(Self { number, purchase, from, to })
    }
}

/// The orders of a sale that a service keeps for itself.
pub(super) struct OwnOrders<'c> {
    sale: &'c str,
    select: CachedStatement<'c>,
    update: CachedStatement<'c>,
}

impl<'c> OwnOrders<'c> {
    /// Those in a table of the service's own, with the columns sale, number, purchase and status.
    pub(super) fn in_table(connection: &'c Connection, sale: &'c str, table: &'static str) -> Result<Self, BooksError> {
        let select = connection
            .prepare_cached(&format!("SELECT purchase, status FROM {table} WHERE sale = ?1 AND number = ?2"))?;
        let update =
            connection.prepare_cached(&format!("UPDATE {table} SET status = ?3 WHERE sale = ?1 AND number = ?2"))?;
        Ok(Self { sale, select, update })
    }

    /// Whether the service keeps the order; if so it must be that purchase's and stand as the turn needs it.
    pub(super) fn check(&mut self, turn: &Turn) -> Result<bool, Stop> {
        let number = turn.number.0;
        let found: Option<([u8; 12], OrderStatus)> =
            self.select.query_row(params![self.sale, number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            None => Ok(false),
            Some((id, _)) if id != turn.purchase.0 => Err(Contradiction::OtherPurchase(number).into()),
            Some((_, found)) if found != turn.from => {
                Err(Contradiction::Status { number, found, wanted: turn.from }.into())
            }
            Some(_) => Ok(true),
        }
    }

    /// Writes a turn that was checked.
    pub(super) fn turn(&mut self, turn: &Turn) -> Result<(), Stop> {
        self.update.execute(params![self.sale, turn.number.0, turn.to.name()])?;
        Ok(())
    }
}
