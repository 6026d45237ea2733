//! Applying records to the state: the same code for a decision just made and for a chain replayed at start.

use domain::record::{Counts, Held};
use domain::{PurchaseId, PurchaseNumber, Record, SalePhase, Units, limits};

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
            }
            Record::Confirmed { number, purchase } => {
                let (item, units) = self.ending(*number, *purchase, true)?;
                self.stocks[item].confirm(units.len() as u32);
                let credit = self.credit;
                self.row(*number).confirm(credit);
                self.held_grants -= 1;
            }
            Record::Retaken { number, purchase, units } => {
                let (item, earlier) = self.ending(*number, *purchase, false)?;
                fits(earlier.len() == units.len(), "a retaken purchase changes its quantity")?;
                fits(self.stocks[item].retake(units), "the retaken units are not the next free ones")?;
                self.grants.set_units(*number, units);
                let credit = self.credit;
                self.row(*number).confirm(credit);
            }
            Record::StockChanged { item, added, withdrawn } => {
                let stock = self.stocks.get_mut(usize::from(*item)).ok_or("there is no such item")?;
                fits(stock.withdraw(withdrawn), "the withdrawn units are not the next free ones")?;
                stock.add(*added);
            }
            Record::Paused(reason) => self.paused = Some(*reason),
            Record::Resumed => self.paused = None,
            Record::ClockCredit(milliseconds) => self.credit += milliseconds,
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
                self.counts_fit(counts)?;
                self.phase = SalePhase::Settled;
            }
        }
        Ok(())
    }

    fn apply_held(&mut self, held: &Held) -> Result<(), &'static str> {
        fits(held.number.0 == self.grants.count(), "grants are not numbered without gaps")?;
        fits(held.pay_by.0 <= limits::TIME_MAX, "the pay-by time is too late")?;
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
        self.held_grants += 1;
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
