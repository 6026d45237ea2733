//! The points service: what each customer gets for paid orders. An order is posted once and taken back once, whatever comes twice.

use domain::Record;
use domain::record::{Attempt, Created, Held};
use rusqlite::{Connection, OptionalExtension, params};

use super::projection::{Contradiction, Place, Projection, Service, Stop, definition_of, exact, once};
use super::turns::{OwnOrders, Turn};
use super::{BooksError, OrderStatus};

/// One transaction over one sale.
pub(super) struct Points<'c> {
    connection: &'c Connection,
    sale: &'c str,
    /// Points per unit of the items that give some.
    rules: Vec<(u16, u64)>,
    orders: OwnOrders<'c>,
}

impl<'c> Projection<'c> for Points<'c> {
    const SERVICE: Service = Service::Points;

    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError> {
        let rules = connection
            .prepare_cached("SELECT item, points FROM point_rules WHERE sale = ?1 ORDER BY item")?
            .query_map([sale], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let orders = OwnOrders::in_table(connection, sale, "point_orders")?;
        Ok(Self { connection, sale, rules, orders })
    }

    fn record(&mut self, record: Record, place: Place) -> Result<(), Stop> {
        match &record {
            Record::Created(created) => self.created(created),
            Record::Held(held) => self.held(held),
            Record::Refunded(of) => self.refunded(of, place),
            _ => Turn::of(&record).map_or(Ok(()), |turn| self.turn(&record, &turn, place)),
        }
    }

    fn finish(self) -> Result<(), BooksError> {
        Ok(())
    }
}

impl Points<'_> {
    fn created(&mut self, created: &Created) -> Result<(), Stop> {
        if !self.rules.is_empty() {
            return Err(Contradiction::CreatedAgain.into());
        }
        let definition = definition_of(created)?;
        let mut insert =
            self.connection.prepare_cached("INSERT INTO point_rules (sale, item, points) VALUES (?1, ?2, ?3)")?;
        for (index, item) in (0..).zip(&definition.items).filter(|(_, item)| item.points > 0) {
            insert.execute(params![self.sale, index, item.points])?;
            self.rules.push((index, u64::from(item.points)));
        }
        Ok(())
    }

    fn held(&mut self, held: &Held) -> Result<(), Stop> {
        let Some((_, per_unit)) = self.rules.iter().find(|(item, _)| *item == held.item) else { return Ok(()) };
        let points = exact(per_unit.saturating_mul(held.units.len() as u64))?;
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO point_orders (sale, number, purchase, customer, points, status) VALUES (?1, ?2, ?3, ?4, ?5, 'held')",
            )?
            .execute(params![self.sale, held.number.0, held.purchase.0, held.customer.0, points]);
        once(inserted, held.number)
    }

    fn turn(&mut self, record: &Record, turn: &Turn, place: Place) -> Result<(), Stop> {
        if !self.orders.check(turn)? {
            return Ok(());
        }
        let number = turn.number.0;
        if turn.to != OrderStatus::Confirmed {
            return self.orders.turn(turn);
        }
        let (customer, points): ([u8; 16], u64) = self
            .connection
            .prepare_cached("SELECT customer, points FROM point_orders WHERE sale = ?1 AND number = ?2")?
            .query_row(params![self.sale, number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let posted = self.has(&customer)?.0.saturating_add(points);
        exact(posted)?;
        self.orders.turn(turn)?;
        if let Record::PaymentReceived(of, _) = record {
            self.connection
                .prepare_cached("UPDATE point_orders SET paid_by = ?3 WHERE sale = ?1 AND number = ?2")?
                .execute(params![self.sale, number, of.attempt])?;
        }
        self.connection
            .prepare_cached(
                "INSERT INTO points (sale, customer, posted, taken_back, shortfall) VALUES (?1, ?2, ?3, 0, 0) \
                 ON CONFLICT (sale, customer) DO UPDATE SET posted = excluded.posted",
            )?
            .execute(params![self.sale, customer, posted])?;
        self.write(number, "posted", (points, 0), place)
    }

    /// Takes the points of an order back, if its money came by the attempt that was refunded.
    fn refunded(&mut self, of: &Attempt, place: Place) -> Result<(), Stop> {
        let number = of.number.0;
        let found: Option<([u8; 12], [u8; 16], u64)> = self
            .connection
            .prepare_cached(
                "SELECT purchase, customer, points FROM point_orders WHERE sale = ?1 AND number = ?2 AND paid_by = ?3",
            )?
            .query_row(params![self.sale, number, of.attempt], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((purchase, customer, points)) = found else { return Ok(()) };
        if purchase != of.purchase.0 {
            return Err(Contradiction::OtherPurchase(number).into());
        }
        let is_taken = self
            .connection
            .prepare_cached("SELECT 1 FROM point_postings WHERE sale = ?1 AND number = ?2 AND posting = 'taken_back'")?
            .exists(params![self.sale, number])?;
        if is_taken {
            return Err(Contradiction::TakenBackAlready(number).into());
        }
        let (posted, taken_back) = self.has(&customer)?;
        let taken = points.min(posted.saturating_sub(taken_back));
        let shortfall = points - taken;
        self.connection
            .prepare_cached(
                "UPDATE points SET taken_back = taken_back + ?3, shortfall = shortfall + ?4 WHERE sale = ?1 AND customer = ?2",
            )?
            .execute(params![self.sale, customer, taken, shortfall])?;
        self.write(number, "taken_back", (taken, shortfall), place)
    }

    /// What was posted to a customer, and what of it was taken back.
    fn has(&self, customer: &[u8; 16]) -> Result<(u64, u64), Stop> {
        let found = self
            .connection
            .prepare_cached("SELECT posted, taken_back FROM points WHERE sale = ?1 AND customer = ?2")?
            .query_row(params![self.sale, customer], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    fn write(&self, number: u32, posting: &str, (points, shortfall): (u64, u64), at: Place) -> Result<(), Stop> {
        self.connection
            .prepare_cached(
                "INSERT INTO point_postings (sale, number, posting, points, shortfall, record, at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![self.sale, number, posting, points, shortfall, at.record, exact(at.time.0)?])?;
        Ok(())
    }
}
