//! The order service: what each record of a chain does to orders and inventory.
//!
//! Counts are kept in memory while the transaction runs, so that the guard holds at every record and the inventory is written once.

use domain::record::{Attempt, Counts, Created, Held, ReleaseReason};
use domain::{ChainTime, PurchaseId, PurchaseNumber, Received, Record, RecordKind, Stage, Unit, fault, limits};
use rusqlite::{CachedStatement, Connection, OptionalExtension, named_params, params};

use super::projection::{Contradiction, Place, Projection, Service, Stop, definition_of, exact, kind_name, once};
use super::queries::bytes_of_units;
use super::{BooksError, OrderStatus};

/// An item's counts when the transaction began and now.
struct Item {
    before: Counts,
    now: Counts,
}

/// What the projection reads of an order before it ends it.
struct Order {
    item: u16,
    quantity: u32,
}

/// One transaction over one sale.
pub(super) struct Orders<'c> {
    connection: &'c Connection,
    sale: &'c str,
    currency: Option<String>,
    items: Vec<Item>,
    insert: CachedStatement<'c>,
    select: CachedStatement<'c>,
    end: CachedStatement<'c>,
}

impl<'c> Projection<'c> for Orders<'c> {
    const SERVICE: Service = Service::Orders;

    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError> {
        let currency = connection
            .prepare_cached("SELECT currency FROM sales WHERE sale = :sale")?
            .query_row(named_params! {":sale": sale}, |row| row.get(0))
            .optional()?;
        let items = connection
            .prepare_cached("SELECT free, held, sold, withdrawn FROM inventory WHERE sale = :sale ORDER BY item")?
            .query_map(named_params! {":sale": sale}, |row| {
                let counts = Counts { free: row.get(0)?, held: row.get(1)?, sold: row.get(2)?, withdrawn: row.get(3)? };
                Ok(Item { before: counts, now: counts })
            })?
            .collect::<Result<_, _>>()?;
        let insert = connection.prepare_cached(
            "INSERT INTO orders (sale, number, purchase, customer, item, quantity, units, price, currency, status, held_at, pay_by, \
             record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'held', ?10, ?11, ?12)",
        )?;
        let select = connection
            .prepare_cached("SELECT purchase, item, quantity, status FROM orders WHERE sale = ?1 AND number = ?2")?;
        let end = connection.prepare_cached(
            "UPDATE orders SET status = ?3, release_reason = ?4, ended_at = ?5, units = coalesce(?6, units) \
             WHERE sale = ?1 AND number = ?2",
        )?;
        Ok(Self { connection, sale, currency, items, insert, select, end })
    }

    fn record(&mut self, record: Record, Place { record: number_of_record, time }: Place) -> Result<(), Stop> {
        match record {
            Record::Created(created) => self.created(&created),
            Record::Held(held) => self.held(&held, number_of_record, time),
            Record::Released { number, purchase, reason } => self.released(number, purchase, reason, time),
            Record::Confirmed { number, purchase } => self.confirmed(number, purchase, time),
            Record::Retaken { number, purchase, units } => self.retaken(number, purchase, &units, time),
            Record::PaymentReceived(Attempt { number, purchase, .. }, Received::Confirms) => {
                self.confirmed(number, purchase, time)
            }
            Record::PaymentReceived(Attempt { number, purchase, .. }, Received::Retakes(units)) => {
                self.retaken(number, purchase, &units, time)
            }
            Record::StockChanged { item, added, withdrawn } => self.stock_changed(item, added, withdrawn.len()),
            Record::ClockCredit(milliseconds) => self.clock_credit(milliseconds),
            Record::Digest { counts, .. } => self.compare(counts),
            Record::Settled(counts) => {
                self.compare(counts)?;
                fault::reach(Stage::Settled);
                Ok(())
            }
            Record::Epoch(_)
            | Record::Opened
            | Record::Paused(_)
            | Record::Resumed
            | Record::Closed
            | Record::SecretRevealed(_)
            | Record::PaymentBegun(_)
            | Record::PaymentNamed(..)
            | Record::PaymentEnded(_)
            | Record::PaymentReceived(_, Received::RefundDue)
            | Record::RefundOrdered(_)
            | Record::Refunded(_)
            | Record::PaymentParked { .. } => Ok(()),
        }
    }

    /// Writes the inventory.
    fn finish(self) -> Result<(), BooksError> {
        let mut guarded = self.connection.prepare_cached(
            "UPDATE inventory SET free = free + ?3, held = held + ?4, sold = sold + ?5, withdrawn = withdrawn + ?6 \
             WHERE sale = ?1 AND item = ?2 AND free >= -?3 AND held >= -?4 AND sold >= -?5",
        )?;
        for (index, Item { before, now }) in self.items.iter().enumerate().filter(|(_, item)| item.now != item.before) {
            let change = |before: u32, now: u32| i64::from(now) - i64::from(before);
            let changed = guarded.execute(params![
                self.sale,
                index,
                change(before.free, now.free),
                change(before.held, now.held),
                change(before.sold, now.sold),
                change(before.withdrawn, now.withdrawn),
            ])?;
            if changed != 1 {
                return Err(BooksError::Guard { sale: self.sale.to_owned(), item: index as u16 });
            }
        }
        Ok(())
    }
}

impl Orders<'_> {
    fn created(&mut self, created: &Created) -> Result<(), Stop> {
        if self.currency.is_some() {
            return Err(Contradiction::CreatedAgain.into());
        }
        let definition = definition_of(created)?;
        let currency = definition.currency.as_str();
        self.connection.execute("INSERT INTO sales (sale, currency) VALUES (?1, ?2)", params![self.sale, currency])?;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO inventory (sale, item, name, free, held, sold, withdrawn) VALUES (?1, ?2, ?3, ?4, 0, 0, 0)",
        )?;
        for (index, item) in definition.items.iter().enumerate() {
            insert.execute(params![self.sale, index, item.item, item.stock])?;
            let counts = Counts { free: item.stock, ..Counts::default() };
            self.items.push(Item { before: counts, now: counts });
        }
        self.currency = Some(currency.to_owned());
        Ok(())
    }

    fn held(&mut self, held: &Held, record: u64, time: ChainTime) -> Result<(), Stop> {
        let quantity = held.units.len() as u32;
        let item = held.item;
        let free = self.counts(item)?.free;
        if free < quantity {
            return Err(Contradiction::NotFree { item, wanted: quantity, free }.into());
        }
        let inserted = self.insert.execute(params![
            self.sale,
            held.number.0,
            held.purchase.0,
            held.customer.0,
            item,
            quantity,
            bytes_of_units(&held.units),
            exact(held.price)?,
            self.currency,
            exact(time.0)?,
            exact(held.pay_by.0)?,
            record,
        ]);
        once(inserted, held.number)?;
        let counts = self.counts(item)?;
        counts.free -= quantity;
        counts.held += quantity;
        fault::reach(Stage::Ordered);
        Ok(())
    }

    fn released(
        &mut self,
        number: PurchaseNumber,
        purchase: PurchaseId,
        reason: ReleaseReason,
        time: ChainTime,
    ) -> Result<(), Stop> {
        let order = self.open_hold(number, purchase)?;
        self.end(number, OrderStatus::Released, Some(reason), time, None)?;
        let counts = self.counts(order.item)?;
        counts.held -= order.quantity;
        counts.free += order.quantity;
        fault::reach(Stage::Released);
        Ok(())
    }

    fn confirmed(&mut self, number: PurchaseNumber, purchase: PurchaseId, time: ChainTime) -> Result<(), Stop> {
        let order = self.open_hold(number, purchase)?;
        self.end(number, OrderStatus::Confirmed, None, time, None)?;
        let counts = self.counts(order.item)?;
        counts.held -= order.quantity;
        counts.sold += order.quantity;
        fault::reach(Stage::Confirmed);
        Ok(())
    }

    fn retaken(
        &mut self,
        number: PurchaseNumber,
        purchase: PurchaseId,
        units: &[Unit],
        time: ChainTime,
    ) -> Result<(), Stop> {
        let Order { item, quantity } = self.order(number, purchase, OrderStatus::Released)?;
        if quantity as usize != units.len() {
            return Err(Contradiction::Quantity { number: number.0, quantity, units: units.len() }.into());
        }
        let free = self.counts(item)?.free;
        if free < quantity {
            return Err(Contradiction::NotFree { item, wanted: quantity, free }.into());
        }
        self.end(number, OrderStatus::Confirmed, None, time, Some(units))?;
        let counts = self.counts(item)?;
        counts.free -= quantity;
        counts.sold += quantity;
        fault::reach(Stage::Confirmed);
        Ok(())
    }

    fn stock_changed(&mut self, item: u16, added: u32, withdrawn: usize) -> Result<(), Stop> {
        let wanted = u32::try_from(withdrawn).map_err(|_| Contradiction::OutOfRange)?;
        let counts = self.counts(item)?;
        // With the total in range no single count can overflow.
        if counts.total() + u64::from(added) > u64::from(limits::UNITS_PER_ITEM_MAX) {
            return Err(Contradiction::OutOfRange.into());
        }
        if counts.free + added < wanted {
            return Err(Contradiction::NotFree { item, wanted, free: counts.free + added }.into());
        }
        counts.free = counts.free + added - wanted;
        counts.withdrawn += wanted;
        Ok(())
    }

    /// Moves every open deadline. One pass over the sale's rows: simple and exact, rare (one per outage), and nobody waits for it.
    fn clock_credit(&mut self, milliseconds: u64) -> Result<(), Stop> {
        self.connection
            .prepare_cached("UPDATE orders SET pay_by = pay_by + ?2 WHERE sale = ?1 AND status = 'held'")?
            .execute(params![self.sale, exact(milliseconds)?])?;
        Ok(())
    }

    /// Compares the chain's own counts with the books'. A difference stays one, so only the first is parked.
    fn compare(&mut self, chain: Vec<Counts>) -> Result<(), Stop> {
        let books: Vec<Counts> = self.items.iter().map(|item| item.now).collect();
        if chain == books || self.has_parked_counts()? {
            return Ok(());
        }
        Err(Contradiction::Counts { chain, books }.into())
    }

    fn has_parked_counts(&self) -> Result<bool, rusqlite::Error> {
        let (digest, settled) = (kind_name(RecordKind::Digest), kind_name(RecordKind::Settled));
        self.connection
            .prepare_cached("SELECT 1 FROM parked WHERE service = ?1 AND sale = ?2 AND kind IN (?3, ?4) LIMIT 1")?
            .exists(params![Service::Orders.name(), self.sale, digest, settled])
    }

    fn counts(&mut self, item: u16) -> Result<&mut Counts, Contradiction> {
        let found = self.items.get_mut(usize::from(item)).ok_or(Contradiction::ItemUnknown(item))?;
        Ok(&mut found.now)
    }

    /// The order of a purchase, if it has the status that the record rests on.
    fn order(&mut self, number: PurchaseNumber, purchase: PurchaseId, wanted: OrderStatus) -> Result<Order, Stop> {
        let found: Option<([u8; 12], u16, u32, OrderStatus)> = self
            .select
            .query_row(params![self.sale, number.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let number = number.0;
        let (id, item, quantity, found) = found.ok_or(Contradiction::NumberUnknown(number))?;
        if id != purchase.0 {
            return Err(Contradiction::OtherPurchase(number).into());
        }
        if found != wanted {
            return Err(Contradiction::Status { number, found, wanted }.into());
        }
        Ok(Order { item, quantity })
    }

    /// The order of a purchase that is held, with the guard on the item's held units.
    fn open_hold(&mut self, number: PurchaseNumber, purchase: PurchaseId) -> Result<Order, Stop> {
        let order = self.order(number, purchase, OrderStatus::Held)?;
        let held = self.counts(order.item)?.held;
        if held < order.quantity {
            return Err(Contradiction::NotHeld { item: order.item, wanted: order.quantity, held }.into());
        }
        Ok(order)
    }

    fn end(
        &mut self,
        number: PurchaseNumber,
        status: OrderStatus,
        reason: Option<ReleaseReason>,
        time: ChainTime,
        units: Option<&[Unit]>,
    ) -> Result<(), Stop> {
        let (reason, units) = (reason.map(ReleaseReason::name), units.map(bytes_of_units));
        self.end.execute(params![self.sale, number.0, status.name(), reason, exact(time.0)?, units])?;
        Ok(())
    }
}
