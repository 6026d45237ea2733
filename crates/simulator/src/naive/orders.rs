//! What becomes of an order: granted, confirmed, given back, taken again.

use admission::{Grant, GrantStatus, PurchaseRequest};
use domain::record::ReleaseReason;
use domain::{Pseudonym, PurchaseId, PurchaseNumber, Refusal, SalePhase, Unit};

use super::{Expected, Naive};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Held,
    Paid,
    Returned(ReleaseReason),
}

#[derive(Clone)]
pub(super) struct Order {
    pub(super) customer: Pseudonym,
    pub(super) purchase: PurchaseId,
    body: [u8; 16],
    pub(super) item: u16,
    pub(super) units: Vec<Unit>,
    price: u64,
    /// Moved by every clock credit while it is held.
    pub(super) pay_by: u64,
    pub(super) status: Status,
    record: u64,
    pub(super) pass: u64,
}

impl Naive {
    pub(super) fn purchase(&mut self, request: &PurchaseRequest) -> Expected {
        let wish = &request.wish;
        if let Some(number) = self.find(wish.customer, request.purchase) {
            let same = self.orders[number].body == request.body_hash;
            return if same { Expected::Order(number) } else { self.refused(Refusal::KeyReused) };
        }
        if let Some((refusal, from)) = self.refusal(wish, self.now) {
            return Expected::Refused(refusal, self.next - 1, from);
        }
        let units = self.shelves[usize::from(wish.item)].hold(wish.quantity);
        self.orders.push(Order {
            customer: wish.customer,
            purchase: request.purchase,
            body: request.body_hash,
            item: wish.item,
            units,
            price: self.definition.items[usize::from(wish.item)].price * u64::from(wish.quantity),
            pay_by: self.now + self.definition.hold_seconds * 1_000,
            status: Status::Held,
            record: self.next,
            pass: wish.pass,
        });
        self.next += 1;
        Expected::Order(self.orders.len() - 1)
    }

    pub(super) fn cancel(&mut self, number: PurchaseNumber, customer: Option<Pseudonym>) -> Expected {
        let Some(number) = self.order_for(number, customer) else { return self.refused(Refusal::NotFound) };
        let reason = match customer {
            Some(_) => ReleaseReason::CancelledByCustomer,
            None => ReleaseReason::CancelledByShop,
        };
        match self.orders[number].status {
            Status::Paid => self.refused(Refusal::OrderConfirmed),
            Status::Returned(before) if before != reason => self.refused(Refusal::HoldEnded),
            Status::Returned(_) => Expected::Order(number),
            Status::Held => {
                self.give_units_back(number, reason);
                Expected::Order(number)
            }
        }
    }

    fn give_units_back(&mut self, number: usize, reason: ReleaseReason) {
        let order = &mut self.orders[number];
        order.status = Status::Returned(reason);
        self.shelves[usize::from(order.item)].give_back(&order.units);
        self.next += 1;
    }

    pub(super) fn confirm(&mut self, number: PurchaseNumber) -> Expected {
        let Some(number) = self.order_for(number, None) else { return self.refused(Refusal::NotFound) };
        let order = &self.orders[number];
        let shelf = &mut self.shelves[usize::from(order.item)];
        match order.status {
            Status::Paid => {}
            Status::Held => {
                shelf.sell_held(&order.units);
                self.orders[number].status = Status::Paid;
                self.next += 1;
            }
            Status::Returned(_) => {
                let (customer, item, quantity) = (order.customer, order.item, order.units.len() as u32);
                let live = |of_item: bool| {
                    let own = self.orders.iter().filter(|order| order.customer == customer);
                    let live = own.filter(|order| matches!(order.status, Status::Held | Status::Paid));
                    live.filter(|order| !of_item || order.item == item)
                        .map(|order| order.units.len() as u32)
                        .sum::<u32>()
                };
                let too_many = live(true) + quantity > self.definition.items[usize::from(item)].limit_per_customer
                    || live(false) + quantity > self.definition.limit_per_customer;
                if self.phase == SalePhase::Settled || too_many || self.free(item) < quantity {
                    return self.refused(Refusal::RefundDue);
                }
                let units = self.shelves[usize::from(item)].sell_free(quantity);
                (self.orders[number].units, self.orders[number].status) = (units, Status::Paid);
                self.next += 1;
            }
        }
        Expected::Order(number)
    }

    /// Ends the holds whose time is over, the oldest first.
    pub(super) fn expire(&mut self, at_most: usize) {
        let over = self.now.saturating_sub(self.definition.grace_seconds * 1_000);
        let due = |order: &Order| order.status == Status::Held && order.pay_by <= over;
        let due: Vec<usize> = (0..self.orders.len()).filter(|number| due(&self.orders[*number])).collect();
        for number in due.into_iter().take(at_most) {
            self.give_units_back(number, ReleaseReason::Expired);
        }
    }

    /// Where a grant is not what this model says of that order.
    pub(super) fn order_problem(&self, number: usize, grant: &Grant) -> Option<String> {
        let order = &self.orders[number];
        let status = match grant.status {
            GrantStatus::Held => Status::Held,
            GrantStatus::Confirmed => Status::Paid,
            GrantStatus::Released(reason) => Status::Returned(reason),
        };
        let own = (number as u32, order.purchase, order.customer, order.item, order.price, order.record);
        let real = (grant.number.0, grant.purchase, grant.customer, grant.item, grant.price, grant.record);
        let same =
            own == real && (order.status, order.pay_by, &order.units[..]) == (status, grant.pay_by.0, &grant.units[..]);
        (!same).then(|| {
            let Order { status, pay_by, units, .. } = order;
            format!("{grant:?}, the naive model has {own:?} {status:?} {pay_by} {units:?}")
        })
    }
}
