//! What chain time alone brings: the window, the end of holds, the end of the sale.

use domain::record::ReleaseReason;
use domain::{ChainTime, PurchaseNumber, Record, SalePhase};

use crate::core::Core;
use crate::grants::Row;

impl Core {
    /// Opens or closes the sale if chain time says so. Runs before a batch's commands, so that they meet the right window.
    pub fn turn_window(&mut self, out: &mut Vec<Record>) {
        if self.phase == SalePhase::Planned && self.now >= self.definition.opens_at {
            self.emit(Record::Opened, out);
        }
        if self.phase == SalePhase::Open && self.now >= self.definition.closes_at {
            self.emit(Record::Closed, out);
        }
    }

    /// Whether no unit is in a hold and no money is under way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.held_grants == 0 && self.unsettled == 0
    }

    /// Releases up to `expiries_max` holds whose deadline and grace are over. Runs after a batch's commands: purchases first.
    pub fn expire(&mut self, expiries_max: usize, out: &mut Vec<Record>) {
        let mut expired = 0;
        while let Some(row) = self.grants.row(self.expires_next) {
            let number = self.expires_next;
            if row.is_held() {
                if !self.is_over(row) || expired == expiries_max {
                    break;
                }
                if !self.has_open_attempt(number) {
                    self.release_expired(number, out);
                    expired += 1;
                }
            }
            self.expires_next = PurchaseNumber(number.0 + 1);
        }
        // Behind that place only a payment under way has kept a hold, and it may for so long.
        let extension = self.definition.hold_extension_seconds * 1_000;
        while self.extended_next < self.expires_next {
            let number = self.extended_next;
            if let Some(row) = self.grants.row(number).filter(|row| row.is_held()) {
                if self.now < self.ends_at(row).plus(extension) || expired == expiries_max {
                    return;
                }
                self.release_expired(number, out);
                expired += 1;
            }
            self.extended_next = PurchaseNumber(number.0 + 1);
        }
    }

    /// When deadline and grace of a hold are over.
    fn ends_at(&self, row: &Row) -> ChainTime {
        ChainTime(row.pay_by_uncredited() + self.credit).plus(self.definition.grace_seconds * 1_000)
    }

    fn is_over(&self, row: &Row) -> bool {
        !self.guards.deadline || self.now >= self.ends_at(row)
    }

    fn release_expired(&mut self, number: PurchaseNumber, out: &mut Vec<Record>) {
        let purchase = self.grants.row(number).expect("the caller looked the row up").purchase;
        self.emit(Record::Released { number, purchase, reason: ReleaseReason::Expired }, out);
    }

    /// Releases a hold that only a payment under way has kept, and that has ended.
    pub(crate) fn release_overdue(&mut self, number: PurchaseNumber, out: &mut Vec<Record>) {
        let is_due = self.grants.row(number).is_some_and(|row| row.is_held() && self.is_over(row));
        if is_due {
            self.release_expired(number, out);
        }
    }

    /// Reveals the slot secret after closing, and settles once no hold is open and late payments have had their time.
    pub fn finish(&mut self, slot_secret: [u8; 32], out: &mut Vec<Record>) {
        if self.phase == SalePhase::Closed && self.slot_secret.is_none() {
            self.emit(Record::SecretRevealed(slot_secret), out);
        }
        let settles_at = self.closed_at.plus(self.definition.settle_after_seconds * 1_000);
        if self.phase == SalePhase::Closed && self.is_at_rest() && self.now >= settles_at {
            self.emit(Record::Settled(self.counts()), out);
        }
    }

    /// When chain time alone will next change something, if ever.
    pub fn next_event_at(&self) -> Option<ChainTime> {
        let window = match self.phase {
            SalePhase::Planned => Some(self.definition.opens_at),
            SalePhase::Open => Some(self.definition.closes_at),
            SalePhase::Closed if self.is_at_rest() => {
                Some(self.closed_at.plus(self.definition.settle_after_seconds * 1_000))
            }
            SalePhase::Closed | SalePhase::Settled => None,
        };
        let expiry = self.grants.row(self.expires_next).map(|row| self.ends_at(row));
        let extended = self.grants.row(self.extended_next).filter(|_| self.extended_next < self.expires_next);
        let extended = extended.map(|row| self.ends_at(row).plus(self.definition.hold_extension_seconds * 1_000));
        window.into_iter().chain(expiry).chain(extended).min()
    }
}
