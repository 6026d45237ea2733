//! Money for an order, as plainly as possible: a list of attempts per order, each looked at whole.

use admission::Grant;
use domain::{AttemptStatus, ParkedPayment, PaymentFact, Pseudonym, PurchaseNumber, Refusal, SalePhase};

use super::orders::Status;
use super::{Expected, Naive};

/// What a sale takes as an attempt's place.
#[derive(Clone, Default)]
pub(super) struct Money {
    pub(super) attempts: Vec<AttemptStatus>,
    names: Vec<Option<Vec<u8>>>,
    parked: Vec<u64>,
}

impl Money {
    pub(super) fn is_open(&self) -> bool {
        self.attempts.contains(&AttemptStatus::Open)
    }
}

impl Naive {
    pub(super) fn begin_payment(&mut self, number: PurchaseNumber, customer: Option<Pseudonym>) -> Expected {
        let Some(number) = self.order_for(number, customer) else { return self.refused(Refusal::NotFound) };
        let order = &self.orders[number];
        match order.status {
            Status::Paid => return self.refused(Refusal::OrderConfirmed),
            Status::Returned(_) => return self.refused(Refusal::HoldEnded),
            Status::Held if order.money.is_open() => return Expected::Order(number),
            Status::Held if self.now >= order.pay_by => return self.refused(Refusal::HoldEnded),
            Status::Held if order.money.attempts.len() >= 16 => return self.refused(Refusal::PaymentsExhausted),
            Status::Held => {}
        }
        self.orders[number].money.attempts.push(AttemptStatus::Open);
        self.orders[number].money.names.push(None);
        self.next += 1;
        Expected::Order(number)
    }

    pub(super) fn name_payment(&mut self, number: PurchaseNumber, attempt: u8, reference: &[u8]) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        let settled = self.phase == SalePhase::Settled;
        let Some(name) = self.orders[number].money.names.get_mut(usize::from(attempt)) else {
            return self.refused(Refusal::NotFound);
        };
        if name.is_none() && !settled {
            *name = Some(reference.to_vec());
            self.next += 1;
        }
        Expected::Order(number)
    }

    pub(super) fn report_payment(&mut self, number: PurchaseNumber, attempt: u8, fact: PaymentFact) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        let attempt = usize::from(attempt);
        let Some(status) = self.orders[number].money.attempts.get(attempt).copied() else {
            return self.refused(Refusal::NotFound);
        };
        match (fact, status) {
            (PaymentFact::Ended, AttemptStatus::Open) => {
                self.orders[number].money.attempts[attempt] = AttemptStatus::Ended;
                self.next += 1;
                if self.orders[number].status == Status::Held && self.is_over(number) {
                    self.expire_order(number);
                }
            }
            (PaymentFact::Paid, AttemptStatus::Open | AttemptStatus::Ended) => {
                if self.phase == SalePhase::Settled {
                    return self.refused(Refusal::SalePhaseWrong);
                }
                let was_paid = self.orders[number].status == Status::Paid;
                let becomes_paid = !was_paid && self.pay(number);
                self.next += 1;
                self.orders[number].money.attempts[attempt] =
                    if becomes_paid { AttemptStatus::Paid } else { AttemptStatus::RefundDue };
            }
            _ => {}
        }
        Expected::Order(number)
    }

    pub(super) fn park_payment(&mut self, number: PurchaseNumber, parked: &ParkedPayment) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        let known = &mut self.orders[number].money.parked;
        if known.contains(&parked.evidence) || known.len() >= 16 {
            return Expected::Order(number);
        }
        if self.phase == SalePhase::Settled {
            return self.refused(Refusal::SalePhaseWrong);
        }
        known.push(parked.evidence);
        self.next += 1;
        Expected::Order(number)
    }

    pub(super) fn order_refund(&mut self, number: PurchaseNumber) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        let settled = self.phase == SalePhase::Settled;
        let attempts = &mut self.orders[number].money.attempts;
        if let Some(paid) = attempts.iter_mut().find(|status| **status == AttemptStatus::Paid) {
            if settled {
                return self.refused(Refusal::SalePhaseWrong);
            }
            *paid = AttemptStatus::RefundDue;
            self.next += 1;
            return Expected::Order(number);
        }
        let is_back =
            attempts.iter().any(|status| [AttemptStatus::RefundDue, AttemptStatus::Refunded].contains(status));
        if is_back { Expected::Order(number) } else { self.refused(Refusal::NothingToRefund) }
    }

    pub(super) fn note_refund(&mut self, number: PurchaseNumber, attempt: u8) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        match self.orders[number].money.attempts.get_mut(usize::from(attempt)) {
            Some(AttemptStatus::Refunded) => Expected::Order(number),
            Some(status @ AttemptStatus::RefundDue) => {
                *status = AttemptStatus::Refunded;
                self.next += 1;
                Expected::Order(number)
            }
            _ => self.refused(Refusal::NotFound),
        }
    }

    /// Whether money may still come or has to go back.
    pub(super) fn has_money_under_way(&self) -> bool {
        let under_way = |status: &AttemptStatus| [AttemptStatus::Open, AttemptStatus::RefundDue].contains(status);
        self.orders.iter().any(|order| order.money.attempts.iter().any(under_way))
    }

    pub(super) fn money_problem(&self, number: usize, grant: &Grant) -> Option<String> {
        let Money { attempts, names, .. } = &self.orders[number].money;
        let names: Vec<_> = names.iter().map(|name| name.clone().unwrap_or_default()).collect();
        let same = *attempts == grant.attempts && names == grant.references;
        (!same).then(|| format!("{grant:?}, the naive model has {attempts:?} {names:?}"))
    }
}
