//! What becomes of an order: granted, confirmed, given back, taken again.

use admission::{Grant, GrantStatus, PurchaseRequest};
use domain::record::ReleaseReason;
use domain::{Pseudonym, PurchaseId, PurchaseNumber, Refusal, SalePhase, Unit};

use super::payments::Money;
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
    /// Hash of the coupon, or zero.
    pub(super) coupon: u64,
    pub(super) money: Money,
}

impl Order {
    pub(super) fn went_unpaid(&self) -> bool {
        let unpaid = [ReleaseReason::Expired, ReleaseReason::CancelledByCustomer];
        unpaid.iter().any(|reason| self.status == Status::Returned(*reason))
    }
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
            price: self.price(wish.item, wish.quantity, wish.coupon),
            pay_by: self.now + self.definition.hold_seconds * 1_000,
            status: Status::Held,
            record: self.next,
            pass: wish.pass,
            coupon: wish.coupon,
            money: Money::default(),
        });
        self.next += 1;
        Expected::Order(self.orders.len() - 1)
    }

    /// The whole price, and from it as many hundredths as the coupon says; parts of a cent stay in the price.
    fn price(&self, item: u16, quantity: u32, coupon: u64) -> u64 {
        let whole = self.definition.items[usize::from(item)].price * u64::from(quantity);
        let percent =
            self.definition.coupons.iter().find(|known| known.hash == Some(coupon)).map_or(0, |known| known.percent);
        (whole * u64::from(100 - percent)).div_ceil(100)
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
            Status::Held if self.orders[number].money.is_open() => self.refused(Refusal::PaymentOpen),
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
        if self.orders[number].status != Status::Paid {
            if !self.pay(number) {
                return self.refused(Refusal::RefundDue);
            }
            self.next += 1;
        }
        Expected::Order(number)
    }

    /// The order is paid, if it has its units or may have free ones.
    pub(super) fn pay(&mut self, number: usize) -> bool {
        let order = &self.orders[number];
        let shelf = &mut self.shelves[usize::from(order.item)];
        match order.status {
            Status::Paid => {}
            Status::Held => {
                shelf.sell_held(&order.units);
                self.orders[number].status = Status::Paid;
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
                let spent = order.coupon != 0 && !self.coupon_is_free(order.coupon);
                if self.phase == SalePhase::Settled || too_many || spent || self.free(item) < quantity {
                    return false;
                }
                let units = self.shelves[usize::from(item)].sell_free(quantity);
                (self.orders[number].units, self.orders[number].status) = (units, Status::Paid);
            }
        }
        true
    }

    /// Whether a hold's time and grace are over.
    pub(super) fn is_over(&self, number: usize) -> bool {
        self.orders[number].pay_by + self.definition.grace_seconds * 1_000 <= self.now
    }

    pub(super) fn expire_order(&mut self, number: usize) {
        self.give_units_back(number, ReleaseReason::Expired);
    }

    /// Ends the holds whose time is over: the oldest first of those that nobody is paying, then of those whose payment takes too long.
    pub(super) fn expire(&mut self, at_most: usize) {
        let extension = self.definition.hold_extension_seconds * 1_000;
        let held = |number: &usize| self.orders[*number].status == Status::Held && self.is_over(*number);
        let (paying, idle): (Vec<usize>, Vec<usize>) =
            (0..self.orders.len()).filter(held).partition(|number| self.orders[*number].money.is_open());
        let too_long = |number: &usize| {
            self.orders[*number].pay_by + self.definition.grace_seconds * 1_000 + extension <= self.now
        };
        let due: Vec<usize> = idle.into_iter().chain(paying.into_iter().filter(too_long)).take(at_most).collect();
        for number in due {
            self.expire_order(number);
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
        if let Some(problem) = self.money_problem(number, grant) {
            return Some(problem);
        }
        (!same).then(|| {
            let Order { status, pay_by, units, .. } = order;
            format!("{grant:?}, the naive model has {own:?} {status:?} {pay_by} {units:?}")
        })
    }
}
