//! Applying records to the state: the same code for a decision just made and for a chain replayed at start.

use domain::record::{Counts, Held};
use domain::{AttemptStatus, PurchaseId, PurchaseNumber, Received, Record, SalePhase, Units, limits};

use crate::command::GrantStatus;
use crate::core::{Contradiction, Core};
use crate::grants::NewGrant;
use crate::stock::Stock;

impl Core {
    /// Applies the next record. A record that does not fit is a contradiction and changes nothing that matters: the caller stops.
    pub fn apply(&mut self, record: &Record) -> Result<(), Contradiction> {
        let room = fits(self.next < limits::RECORDS_MAX, "a chain has no place for more records");
        room.and_then(|()| self.apply_fitting(record)).map_err(|reason| Contradiction { record: self.next, reason })?;
        self.next += 1;
        Ok(())
    }

    fn apply_fitting(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Created(_) => fits(self.next == 0, "the sale is created twice")?,
            Record::Epoch(epoch) => {
                fits(*epoch == self.epoch + 1, "epochs do not follow each other")?;
                self.epoch = *epoch;
            }
            Record::Opened => {
                fits(self.phase == SalePhase::Planned, "a sale opens once")?;
                self.phase = SalePhase::Open;
                self.opened_at = self.now;
            }
            Record::Held(held) => self.apply_held(held)?,
            Record::Released { number, purchase, reason } => {
                let (item, units) = self.ending(*number, *purchase, true)?;
                self.stocks[item].release(units.into_iter());
                let credit = self.credit;
                self.row(*number).release(*reason, credit);
                self.held_grants -= 1;
                if let Some(coupon) = self.coupons.get(&number.0) {
                    self.coupons_used[usize::from(*coupon)] -= 1;
                }
            }
            Record::Confirmed { number, purchase } => self.apply_confirmed(*number, *purchase)?,
            Record::Retaken { number, purchase, units } => self.apply_retaken(*number, *purchase, units)?,
            Record::PaymentBegun(_)
            | Record::PaymentEnded(_)
            | Record::PaymentReceived(..)
            | Record::RefundOrdered(_)
            | Record::Refunded(_)
            | Record::PaymentNamed(..)
            | Record::PaymentParked { .. } => self.apply_payment(record)?,
            Record::StockChanged { item, added, withdrawn } => {
                let stock = self.stocks.get_mut(usize::from(*item)).ok_or("there is no such item")?;
                fits(stock.withdraw(withdrawn), "the withdrawn units are not the next free ones")?;
                stock.add(*added);
            }
            Record::Paused(reason) => self.paused = Some(*reason),
            Record::Resumed => self.paused = None,
            Record::ClockCredit(milliseconds) => {
                self.credit += milliseconds;
                // A hold that only a payment has kept has time again of its own.
                self.expires_next = self.expires_next.min(self.extended_next);
            }
            Record::Digest { counts, .. } => self.counts_fit(counts)?,
            Record::Closed => {
                fits(self.phase < SalePhase::Closed, "a sale closes once")?;
                self.phase = SalePhase::Closed;
                self.closed_at = self.now;
            }
            Record::SecretRevealed(secret) => {
                fits(self.phase == SalePhase::Closed, "the secret is revealed after closing")?;
                self.slot_secret = Some(*secret);
            }
            Record::Settled(counts) => {
                fits(self.phase == SalePhase::Closed && self.held_grants == 0, "a hold is open at settlement")?;
                fits(self.unsettled == 0, "money is under way at settlement")?;
                self.counts_fit(counts)?;
                self.phase = SalePhase::Settled;
            }
        }
        Ok(())
    }

    fn apply_held(&mut self, held: &Held) -> Result<(), &'static str> {
        fits(held.number.0 == self.grants.count(), "grants are not numbered without gaps")?;
        fits(held.pay_by.0 <= limits::TIME_MAX, "the pay-by time is too late")?;
        let coupon = self.definition.coupon_index(held.coupon);
        fits(held.coupon == 0 || coupon.is_some(), "the sale has no such coupon")?;
        let stock = self.stocks.get_mut(usize::from(held.item)).ok_or("there is no such item")?;
        fits(stock.hold(&held.units), "the held units are not the next free ones")?;
        self.grants.push(&NewGrant {
            customer: held.customer,
            purchase: held.purchase,
            body_hash: &held.body_hash,
            pay_by_uncredited: held.pay_by.0.checked_sub(self.credit).ok_or("the pay-by time is too early")?,
            record: self.next,
            units: &held.units,
            pass: held.pass,
            item: held.item,
        });
        if let Some(coupon) = coupon {
            self.coupons_used[coupon] += 1;
            self.coupons.insert(held.number.0, coupon as u8);
        }
        self.held_grants += 1;
        Ok(())
    }

    fn apply_payment(&mut self, record: &Record) -> Result<(), &'static str> {
        use AttemptStatus::{Ended, Open, Paid, RefundDue, Refunded};
        match record {
            Record::PaymentBegun(attempt) => self.apply_begun(attempt),
            Record::PaymentNamed(attempt, reference) => self.apply_named(attempt, reference),
            Record::PaymentEnded(attempt) => self.apply_attempt(attempt, &[Open], Ended),
            Record::PaymentReceived(attempt, received) => {
                let to = if *received == Received::RefundDue { RefundDue } else { Paid };
                self.apply_attempt(attempt, &[Open, Ended], to)?;
                match received {
                    Received::Confirms => self.apply_confirmed(attempt.number, attempt.purchase),
                    Received::Retakes(units) => self.apply_retaken(attempt.number, attempt.purchase, units),
                    Received::RefundDue => Ok(()),
                }
            }
            Record::RefundOrdered(attempt) => self.apply_attempt(attempt, &[Paid], RefundDue),
            Record::Refunded(attempt) => self.apply_attempt(attempt, &[RefundDue], Refunded),
            Record::PaymentParked { number, purchase, parked } => {
                let row = self.grants.row(*number).ok_or("there is no such grant")?;
                fits(row.purchase == *purchase, "the grant has another purchase id")?;
                self.apply_parked(*number, parked.evidence);
                Ok(())
            }
            _ => Err("this is no record of a payment"),
        }
    }

    fn apply_confirmed(&mut self, number: PurchaseNumber, purchase: PurchaseId) -> Result<(), &'static str> {
        let (item, units) = self.ending(number, purchase, true)?;
        self.stocks[item].confirm(units.len() as u32);
        let credit = self.credit;
        self.row(number).confirm(credit);
        self.held_grants -= 1;
        Ok(())
    }

    fn apply_retaken(
        &mut self,
        number: PurchaseNumber,
        purchase: PurchaseId,
        units: &Units,
    ) -> Result<(), &'static str> {
        let (item, earlier) = self.ending(number, purchase, false)?;
        fits(earlier.len() == units.len(), "a retaken purchase changes its quantity")?;
        fits(self.stocks[item].retake(units), "the retaken units are not the next free ones")?;
        self.grants.set_units(number, units);
        let credit = self.credit;
        self.row(number).confirm(credit);
        if let Some(coupon) = self.coupons.get(&number.0) {
            self.coupons_used[usize::from(*coupon)] += 1;
        }
        Ok(())
    }

    /// Item and units of a grant that ends (`held`) or comes back (not `held`).
    fn ending(&self, number: PurchaseNumber, purchase: PurchaseId, held: bool) -> Result<(usize, Units), &'static str> {
        let row = self.grants.row(number).ok_or("there is no such grant")?;
        fits(row.purchase == purchase, "the grant has another purchase id")?;
        let as_expected = if held { row.is_held() } else { matches!(row.status(), GrantStatus::Released(_)) };
        fits(as_expected, "the grant has already ended another way")?;
        Ok((usize::from(row.item), self.grants.units(number).collect()))
    }

    fn row(&mut self, number: PurchaseNumber) -> &mut crate::grants::Row {
        self.grants.row_mut(number).expect("ending() found the row")
    }

    fn counts_fit(&self, counts: &[Counts]) -> Result<(), &'static str> {
        let equal =
            counts.len() == self.stocks.len() && self.stocks.iter().map(Stock::counts).eq(counts.iter().copied());
        fits(equal, "the recorded counts are not those of the records before")
    }
}

fn fits(holds: bool, reason: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(reason) }
}
