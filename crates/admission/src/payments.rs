//! Paying a hold at a provider: attempts, what was reported of them, and money that has to go back.
//!
//! A hold with an open attempt is kept beyond its deadline, for `hold_extension_seconds` at most. Money that is reported finds its place in
//! the same record: it pays the order, takes free units again, or is to be refunded. Nothing here speaks to a provider.

use std::collections::HashMap;

use domain::record::Attempt;
use domain::{
    AttemptStatus, ParkedPayment, PaymentFact, Pseudonym, PurchaseNumber, Received, Record, Refusal, SalePhase, limits,
};

use crate::command::{Grant, GrantStatus};
use crate::core::{Core, Verdict};

/// What one grant's orders know of payments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payments {
    pub(crate) attempts: Vec<AttemptStatus>,
    /// The provider's name of each attempt; empty while it is not known.
    pub(crate) references: Vec<Vec<u8>>,
    /// The evidence of reports that were parked.
    pub(crate) parked: Vec<u64>,
}

impl Payments {
    fn is_open(&self) -> bool {
        self.attempts.contains(&AttemptStatus::Open)
    }

    /// A field of `payments` in the library on Redis: how many attempts, their statuses, whether each is named, and the evidence that was parked.
    pub(crate) fn packed(&self) -> Vec<u8> {
        let mut bytes = vec![self.attempts.len() as u8];
        bytes.extend(self.attempts.iter().map(|status| *status as u8));
        bytes.extend(self.references.iter().map(|reference| u8::from(!reference.is_empty())));
        bytes.extend(self.parked.iter().flat_map(|evidence| evidence.to_le_bytes()));
        bytes
    }
}

/// The payments of those grants that have some.
pub(crate) type PaymentsOf = HashMap<u32, Payments>;

impl Core {
    /// The customer goes to pay. An attempt that is open already is the one to go on with.
    pub(crate) fn begin_payment(
        &mut self,
        number: PurchaseNumber,
        customer: Option<Pseudonym>,
        out: &mut Vec<Record>,
    ) -> Verdict {
        let Some(row) = self.grants.row(number).filter(|row| customer.is_none_or(|asks| asks == row.customer)) else {
            return Verdict::Refused(Refusal::NotFound, None);
        };
        match row.status() {
            GrantStatus::Held => {}
            GrantStatus::Confirmed => return Verdict::Refused(Refusal::OrderConfirmed, None),
            GrantStatus::Released(_) => return Verdict::Refused(Refusal::HoldEnded, None),
        }
        if self.payments.get(&number.0).is_some_and(Payments::is_open) {
            return Verdict::Unchanged(number);
        }
        if self.now.0 >= row.pay_by_uncredited() + self.credit {
            return Verdict::Refused(Refusal::HoldEnded, None);
        }
        let purchase = row.purchase;
        let attempts = self.payments.get(&number.0).map_or(0, |payments| payments.attempts.len());
        if attempts == limits::PAYMENT_ATTEMPTS_MAX {
            return Verdict::Refused(Refusal::PaymentsExhausted, None);
        }
        self.emit(Record::PaymentBegun(Attempt { number, purchase, attempt: attempts as u8 }), out);
        Verdict::Changed(number)
    }

    /// The provider has given an attempt its name. The first name counts.
    pub(crate) fn name_payment(
        &mut self,
        number: PurchaseNumber,
        attempt: u8,
        reference: &[u8],
        out: &mut Vec<Record>,
    ) -> Verdict {
        let Some((of, _)) = self.attempt(number, attempt) else { return Verdict::Refused(Refusal::NotFound, None) };
        let known = self.payments.get(&number.0).map(|payments| &payments.references[usize::from(attempt)]);
        if known.is_some_and(|known| !known.is_empty()) || self.phase == SalePhase::Settled {
            return Verdict::Unchanged(number);
        }
        self.emit(Record::PaymentNamed(of, reference.to_vec()), out);
        Verdict::Changed(number)
    }

    /// A provider has said what became of an attempt. The same report again changes nothing.
    pub(crate) fn report_payment(
        &mut self,
        number: PurchaseNumber,
        attempt: u8,
        fact: PaymentFact,
        out: &mut Vec<Record>,
    ) -> Verdict {
        let Some((of, status)) = self.attempt(number, attempt) else {
            return Verdict::Refused(Refusal::NotFound, None);
        };
        match (fact, status) {
            (PaymentFact::Ended, AttemptStatus::Open) => {
                self.emit(Record::PaymentEnded(of), out);
                self.release_overdue(number, out);
            }
            (PaymentFact::Paid, AttemptStatus::Open | AttemptStatus::Ended) => {
                if self.phase == SalePhase::Settled {
                    return Verdict::Refused(Refusal::SalePhaseWrong, None);
                }
                let received = self.place_of_money(number);
                self.emit(Record::PaymentReceived(of, received), out);
            }
            _ => return Verdict::Unchanged(number),
        }
        Verdict::Changed(number)
    }

    /// Where money for a grant belongs that comes now.
    fn place_of_money(&self, number: PurchaseNumber) -> Received {
        let row = self.grants.row(number).expect("the caller looked the row up");
        match row.status() {
            GrantStatus::Held => Received::Confirms,
            GrantStatus::Released(_) if self.may_retake(number) => {
                Received::Retakes(self.stocks[usize::from(row.item)].peek(row.quantity.into()))
            }
            GrantStatus::Released(_) | GrantStatus::Confirmed => Received::RefundDue,
        }
    }

    /// Keeps a report that is not believed.
    pub(crate) fn park_payment(
        &mut self,
        number: PurchaseNumber,
        parked: &ParkedPayment,
        out: &mut Vec<Record>,
    ) -> Verdict {
        let Some(row) = self.grants.row(number) else { return Verdict::Refused(Refusal::NotFound, None) };
        let purchase = row.purchase;
        let known = self.payments.get(&number.0).map_or(&[][..], |payments| &payments.parked[..]);
        if known.contains(&parked.evidence) || known.len() >= limits::PAYMENTS_PARKED_MAX {
            return Verdict::Unchanged(number);
        }
        if self.phase == SalePhase::Settled {
            return Verdict::Refused(Refusal::SalePhaseWrong, None);
        }
        self.emit(Record::PaymentParked { number, purchase, parked: Box::new(parked.clone()) }, out);
        Verdict::Changed(number)
    }

    /// The shop gives a paid order's money back. The units stay out of the sale; whoever wants to sell them again adds stock.
    pub(crate) fn order_refund(&mut self, number: PurchaseNumber, out: &mut Vec<Record>) -> Verdict {
        let Some(row) = self.grants.row(number) else { return Verdict::Refused(Refusal::NotFound, None) };
        let purchase = row.purchase;
        let attempts = self.payments.get(&number.0).map_or(&[][..], |payments| &payments.attempts[..]);
        let place = |wanted: &[AttemptStatus]| attempts.iter().position(|status| wanted.contains(status));
        if let Some(attempt) = place(&[AttemptStatus::Paid]) {
            if self.phase == SalePhase::Settled {
                return Verdict::Refused(Refusal::SalePhaseWrong, None);
            }
            self.emit(Record::RefundOrdered(Attempt { number, purchase, attempt: attempt as u8 }), out);
            return Verdict::Changed(number);
        }
        match place(&[AttemptStatus::RefundDue, AttemptStatus::Refunded]) {
            Some(_) => Verdict::Unchanged(number),
            None => Verdict::Refused(Refusal::NothingToRefund, None),
        }
    }

    /// The provider has given an attempt's money back.
    pub(crate) fn note_refund(&mut self, number: PurchaseNumber, attempt: u8, out: &mut Vec<Record>) -> Verdict {
        match self.attempt(number, attempt) {
            Some((of, AttemptStatus::RefundDue)) => {
                self.emit(Record::Refunded(of), out);
                Verdict::Changed(number)
            }
            Some((_, AttemptStatus::Refunded)) => Verdict::Unchanged(number),
            Some(_) | None => Verdict::Refused(Refusal::NotFound, None),
        }
    }

    /// One attempt of a grant, with where it is.
    fn attempt(&self, number: PurchaseNumber, attempt: u8) -> Option<(Attempt, AttemptStatus)> {
        let row = self.grants.row(number)?;
        let status = *self.payments.get(&number.0)?.attempts.get(usize::from(attempt))?;
        Some((Attempt { number, purchase: row.purchase, attempt }, status))
    }

    pub(crate) fn has_open_attempt(&self, number: PurchaseNumber) -> bool {
        self.guards.attempt && self.payments.get(&number.0).is_some_and(Payments::is_open)
    }

    /// Applies `PaymentBegun`.
    pub(crate) fn apply_begun(&mut self, of: &Attempt) -> Result<(), &'static str> {
        let row = self.grants.row(of.number).ok_or("there is no such grant")?;
        if row.purchase != of.purchase || !row.is_held() {
            return Err("only a hold can be paid");
        }
        let payments = self.payments.entry(of.number.0).or_default();
        if payments.attempts.len() != usize::from(of.attempt) || payments.is_open() {
            return Err("attempts to pay do not follow each other");
        }
        payments.attempts.push(AttemptStatus::Open);
        payments.references.push(Vec::new());
        self.unsettled += 1;
        self.unsettled_grants.insert(of.number.0);
        Ok(())
    }

    /// Applies a record that moves an attempt from one of `from` to `to`.
    pub(crate) fn apply_attempt(
        &mut self,
        of: &Attempt,
        from: &[AttemptStatus],
        to: AttemptStatus,
    ) -> Result<(), &'static str> {
        let (known, status) = self.attempt(of.number, of.attempt).ok_or("there is no such attempt to pay")?;
        if known.purchase != of.purchase || !from.contains(&status) {
            return Err("the attempt to pay is elsewhere");
        }
        let payments = self.payments.get_mut(&of.number.0).expect("the attempt was just seen");
        payments.attempts[usize::from(of.attempt)] = to;
        if payments.attempts.iter().any(|status| status.is_unsettled()) {
            self.unsettled_grants.insert(of.number.0);
        } else {
            self.unsettled_grants.remove(&of.number.0);
        }
        self.unsettled = self.unsettled + u32::from(to.is_unsettled()) - u32::from(status.is_unsettled());
        Ok(())
    }

    /// Applies `PaymentNamed`.
    pub(crate) fn apply_named(&mut self, of: &Attempt, reference: &[u8]) -> Result<(), &'static str> {
        let (known, _) = self.attempt(of.number, of.attempt).ok_or("there is no such attempt to pay")?;
        let payments = self.payments.get_mut(&of.number.0).expect("the attempt was just seen");
        let place = &mut payments.references[usize::from(of.attempt)];
        if known.purchase != of.purchase || !place.is_empty() || reference.is_empty() {
            return Err("the attempt to pay has a name");
        }
        *place = reference.to_vec();
        Ok(())
    }

    /// Some grants, from a number on, with money that may still come or has to go back.
    pub fn unsettled_from(&self, from: PurchaseNumber, count_max: usize) -> Vec<Grant> {
        let numbers = self.unsettled_grants.range(from.0..).take(count_max);
        numbers.filter_map(|number| self.grant(PurchaseNumber(*number))).collect()
    }

    /// Applies `PaymentParked`.
    pub(crate) fn apply_parked(&mut self, number: PurchaseNumber, evidence: u64) {
        self.payments.entry(number.0).or_default().parked.push(evidence);
    }
}
