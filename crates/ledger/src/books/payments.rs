//! The payment service: each attempt to pay an order at a provider, and the reports that were not believed.

use domain::record::{Attempt, Held};
use domain::{AttemptStatus, ParkedPayment, PurchaseId, PurchaseNumber, Received, Record};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::BooksError;
use super::projection::{Contradiction, Place, Projection, Service, Stop, definition_of, exact, once};

/// One transaction over one sale.
pub(super) struct Payments<'c> {
    connection: &'c Connection,
    sale: &'c str,
    currency: Option<String>,
    keep: CachedStatement<'c>,
    order: CachedStatement<'c>,
}

impl<'c> Projection<'c> for Payments<'c> {
    const SERVICE: Service = Service::Payment;

    fn begin(connection: &'c Connection, sale: &'c str) -> Result<Self, BooksError> {
        let currency = connection
            .prepare_cached("SELECT currency FROM payment_sales WHERE sale = ?1")?
            .query_row([sale], |row| row.get(0))
            .optional()?;
        let keep = connection.prepare_cached(
            "INSERT INTO payment_orders (sale, number, purchase, customer, price) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let order =
            connection.prepare_cached("SELECT purchase, price FROM payment_orders WHERE sale = ?1 AND number = ?2")?;
        Ok(Self { connection, sale, currency, keep, order })
    }

    fn record(&mut self, record: Record, place: Place) -> Result<(), Stop> {
        match record {
            Record::Created(created) => {
                if self.currency.is_some() {
                    return Err(Contradiction::CreatedAgain.into());
                }
                let currency = definition_of(&created)?.currency.as_str().to_owned();
                let insert = "INSERT INTO payment_sales (sale, currency) VALUES (?1, ?2)";
                self.connection.execute(insert, params![self.sale, currency])?;
                self.currency = Some(currency);
                Ok(())
            }
            Record::Held(held) => self.held(&held),
            Record::PaymentBegun(of) => self.begun(&of, place),
            Record::PaymentEnded(of) => self.turn(&of, &[AttemptStatus::Open], AttemptStatus::Ended, place),
            Record::PaymentReceived(of, received) => self.received(&of, &received, place),
            Record::RefundOrdered(of) => self.turn(&of, &[AttemptStatus::Paid], AttemptStatus::RefundDue, place),
            Record::Refunded(of) => self.turn(&of, &[AttemptStatus::RefundDue], AttemptStatus::Refunded, place),
            Record::PaymentParked { number, purchase, parked } => self.parked(number, purchase, &parked, place),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<(), BooksError> {
        Ok(())
    }
}

impl Payments<'_> {
    fn held(&mut self, held: &Held) -> Result<(), Stop> {
        let row = params![self.sale, held.number.0, held.purchase.0, held.customer.0, exact(held.price)?];
        once(self.keep.execute(row), held.number)
    }

    fn begun(&mut self, of: &Attempt, Place { record, time }: Place) -> Result<(), Stop> {
        let price = self.price(of.number, of.purchase)?;
        let (number, attempt) = (of.number.0, of.attempt);
        let (attempts, open): (u8, u8) = self
            .connection
            .prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE status = 'open') FROM payments WHERE sale = ?1 AND number = ?2",
            )?
            .query_row(params![self.sale, number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if attempt != attempts || open > 0 {
            return Err(Contradiction::NotNextAttempt { number, attempt, attempts, open }.into());
        }
        let time = exact(time.0)?;
        self.connection
            .prepare_cached(
                "INSERT INTO payments (sale, number, attempt, status, amount, currency, begun_at, changed_at, record) \
                 VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6, ?6, ?7)",
            )?
            .execute(params![self.sale, number, attempt, price, self.currency, time, record])?;
        Ok(())
    }

    fn received(&mut self, of: &Attempt, received: &Received, place: Place) -> Result<(), Stop> {
        let from = [AttemptStatus::Open, AttemptStatus::Ended];
        let to = match received {
            Received::RefundDue => AttemptStatus::RefundDue,
            Received::Confirms | Received::Retakes(_) => AttemptStatus::Paid,
        };
        let is_paid = self
            .connection
            .prepare_cached("SELECT 1 FROM payments WHERE sale = ?1 AND number = ?2 AND status = 'paid'")?
            .exists(params![self.sale, of.number.0])?;
        if is_paid && to == AttemptStatus::Paid {
            return Err(Contradiction::PaidAlready(of.number.0).into());
        }
        self.turn(of, &from, to, place)
    }

    fn turn(
        &mut self,
        of: &Attempt,
        from: &[AttemptStatus],
        wanted: AttemptStatus,
        Place { record, time }: Place,
    ) -> Result<(), Stop> {
        self.price(of.number, of.purchase)?;
        let (number, attempt) = (of.number.0, of.attempt);
        let found: Option<String> = self
            .connection
            .prepare_cached("SELECT status FROM payments WHERE sale = ?1 AND number = ?2 AND attempt = ?3")?
            .query_row(params![self.sale, number, attempt], |row| row.get(0))
            .optional()?;
        let found = found
            .and_then(|name| AttemptStatus::ALL.into_iter().find(|status| status.name() == name))
            .ok_or(Contradiction::AttemptUnknown { number, attempt })?;
        if !from.contains(&found) {
            return Err(Contradiction::Attempt { number, attempt, found, wanted }.into());
        }
        self.connection
            .prepare_cached(
                "UPDATE payments SET status = ?4, changed_at = ?5, record = ?6 WHERE sale = ?1 AND number = ?2 AND attempt = ?3",
            )?
            .execute(params![self.sale, number, attempt, wanted.name(), exact(time.0)?, record])?;
        Ok(())
    }

    fn parked(
        &mut self,
        number: PurchaseNumber,
        purchase: PurchaseId,
        parked: &ParkedPayment,
        Place { record, time }: Place,
    ) -> Result<(), Stop> {
        self.price(number, purchase)?;
        self.connection
            .prepare_cached(
                "INSERT INTO payments_parked (sale, record, number, reason, evidence, amount, currency, reference, at) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                self.sale,
                record,
                number.0,
                parked.reason.name(),
                exact(parked.evidence)?,
                exact(parked.amount)?,
                parked.currency.as_str(),
                String::from_utf8_lossy(&parked.reference),
                exact(time.0)?,
            ])?;
        Ok(())
    }

    /// The price of an order, if it is that purchase's.
    fn price(&mut self, number: PurchaseNumber, purchase: PurchaseId) -> Result<i64, Stop> {
        let found: Option<([u8; 12], i64)> =
            self.order.query_row(params![self.sale, number.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (id, price) = found.ok_or(Contradiction::NumberUnknown(number.0))?;
        if id == purchase.0 { Ok(price) } else { Err(Contradiction::OtherPurchase(number.0).into()) }
    }
}
