//! The coupon service: how many orders use each coupon, ever and now. An order that is released gives its coupon back.

use domain::Record;
use domain::record::{Created, Held};
use rusqlite::{Connection, params};

use super::projection::{Contradiction, Place, Projection, Service, Stop, definition_of, exact, once};
use super::turns::{OwnOrders, Turn};
use super::{BooksError, OrderStatus};

/// A coupon as it is now.
struct Coupon {
    hash: u64,
    uses_max: u32,
    used: u32,
    used_ever: u32,
    given_back: u32,
}

/// One transaction over one sale.
pub(super) struct Coupons<'c> {
    connection: &'c Connection,
    sale: &'c str,
    coupons: Vec<Coupon>,
    orders: OwnOrders<'c>,
}

impl<'c> Projection<'c> for Coupons<'c> {
    const SERVICE: Service = Service::Coupon;

    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError> {
        let coupons = connection
            .prepare_cached(
                "SELECT hash, uses_max, used, used_ever, given_back FROM coupons WHERE sale = ?1 ORDER BY coupon",
            )?
            .query_map([sale], |row| {
                Ok(Coupon {
                    hash: row.get(0)?,
                    uses_max: row.get(1)?,
                    used: row.get(2)?,
                    used_ever: row.get(3)?,
                    given_back: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        let orders = OwnOrders::in_table(connection, sale, "coupon_orders")?;
        Ok(Self { connection, sale, coupons, orders })
    }

    fn record(&mut self, record: Record, _: Place) -> Result<(), Stop> {
        match &record {
            Record::Created(created) => self.created(created),
            Record::Held(held) if held.coupon != 0 => self.held(held),
            _ => Turn::of(&record).map_or(Ok(()), |turn| self.turn(&turn)),
        }
    }

    fn finish(self) -> Result<(), BooksError> {
        let mut update = self.connection.prepare_cached(
            "UPDATE coupons SET used = ?3, used_ever = ?4, given_back = ?5 WHERE sale = ?1 AND coupon = ?2",
        )?;
        for (index, coupon) in self.coupons.iter().enumerate() {
            update.execute(params![self.sale, index, coupon.used, coupon.used_ever, coupon.given_back])?;
        }
        Ok(())
    }
}

impl Coupons<'_> {
    fn created(&mut self, created: &Created) -> Result<(), Stop> {
        if !self.coupons.is_empty() {
            return Err(Contradiction::CreatedAgain.into());
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO coupons (sale, coupon, hash, percent, uses_max, used, used_ever, given_back) \
             VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0)",
        )?;
        for (index, coupon) in definition_of(created)?.coupons.iter().enumerate() {
            let hash = coupon.hash.unwrap_or_default();
            insert.execute(params![self.sale, index, exact(hash)?, coupon.percent, coupon.uses_max])?;
            self.coupons.push(Coupon { hash, uses_max: coupon.uses_max, used: 0, used_ever: 0, given_back: 0 });
        }
        Ok(())
    }

    fn held(&mut self, held: &Held) -> Result<(), Stop> {
        let index = self.coupons.iter().position(|coupon| coupon.hash == held.coupon);
        let index = index.ok_or(Contradiction::CouponUnknown(held.number.0))?;
        self.check_free(index)?;
        let inserted = self
            .connection
            .prepare_cached(
                "INSERT INTO coupon_orders (sale, number, purchase, coupon, status) VALUES (?1, ?2, ?3, ?4, 'held')",
            )?
            .execute(params![self.sale, held.number.0, held.purchase.0, index]);
        once(inserted, held.number)?;
        self.coupons[index].used += 1;
        self.coupons[index].used_ever += 1;
        Ok(())
    }

    fn turn(&mut self, turn: &Turn) -> Result<(), Stop> {
        if !self.orders.check(turn)? {
            return Ok(());
        }
        let index: usize = self
            .connection
            .prepare_cached("SELECT coupon FROM coupon_orders WHERE sale = ?1 AND number = ?2")?
            .query_row(params![self.sale, turn.number.0], |row| row.get(0))?;
        if turn.from == OrderStatus::Released {
            self.check_free(index)?;
        }
        self.orders.turn(turn)?;
        let coupon = &mut self.coupons[index];
        match (turn.from, turn.to) {
            (_, OrderStatus::Released) => {
                coupon.used = coupon.used.saturating_sub(1);
                coupon.given_back += 1;
            }
            (OrderStatus::Released, _) => {
                coupon.used += 1;
                coupon.used_ever += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_free(&self, coupon: usize) -> Result<(), Contradiction> {
        let Coupon { used, uses_max, .. } = self.coupons[coupon];
        if used < uses_max { Ok(()) } else { Err(Contradiction::CouponSpent { coupon, used: used + 1, uses_max }) }
    }
}
