//! The rules of a sale, written a second time: replays records and checks every promise that a chain alone can show.
//!
//! It never stops at a contradiction: it counts it and goes on as well as it can, so one report shows all of them.

mod money;
mod people;
mod sale;
mod stock;

use chain::digest::{GrantStatus, StateHash};
use domain::ids::Hash;
use domain::record::{Created, Held, ReleaseReason};
use domain::{Promise, Pseudonym, PurchaseId, PurchaseNumber, Record, SaleDefinition, SaleId, Unit, limits};
use money::Purse;
use people::People;
pub(crate) use sale::cores;
pub(crate) use stock::{FreeSpans, Moment};
use stock::{Item, Move, UnitFault, WITHDRAWN};

use crate::tally::{Claim, Tally};

/// A hold may be this much older than its deadline and its grace at the end of the chain, since at most 256 holds expire with one
/// batch and purchases go first. In milliseconds.
pub(crate) const OVERDUE_MILLISECONDS_MAX: u64 = 60_000;

/// One grant: a purchase and the order that it made.
pub(crate) struct Grant {
    pub(crate) customer: u32,
    units_from: u32,
    pub(crate) item: u16,
    quantity: u16,
    pub(crate) status: GrantStatus,
    /// Why it was released, the last time; kept when it is taken again.
    pub(crate) released: Option<ReleaseReason>,
    pub(crate) price: u64,
    pub(crate) held_at: u64,
    /// As granted, plus the clock credits up to its end once it has ended.
    pay_by: u64,
    /// The sum of all clock credits that `pay_by` has: only later ones move it.
    credit: u64,
    pub(crate) ended_at: Option<u64>,
    /// The number of its `held` record.
    pub(crate) record: u64,
}

/// Where the sale is, as its records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Planned,
    Open,
    Closed,
    Settled,
}

/// The state of one sale at a position of its chain.
pub(crate) struct Model {
    sale: SaleId,
    pub(crate) definition: SaleDefinition,
    created: Created,
    pub(crate) items: Vec<Item>,
    pub(crate) grants: Vec<Grant>,
    units: Vec<Unit>,
    people: People,
    state: StateHash,
    phase: Phase,
    paused: bool,
    opened_at: Option<u64>,
    credit: u64,
    secret: Option<Hash>,
    pub(crate) purse: Purse,
    pub(crate) tally: Tally,
}

impl Model {
    /// Applies the record at `at`.
    pub(crate) fn apply(&mut self, at: Moment, record: Record) {
        match record {
            Record::Created(_) => {
                self.tally.broken(Claim::Chain, || format!("record {}: a second created", at.position))
            }
            // The writer's epochs are checked beside the batch headers, in `replay`.
            Record::Epoch(_) => {}
            Record::Opened => self.opened(at),
            Record::Held(held) => self.held(at, &held),
            Record::Released { number, purchase, reason } => self.released(at, number, purchase, reason),
            Record::Confirmed { number, purchase } => self.confirmed(at, number, purchase),
            Record::Retaken { number, purchase, units } => self.retaken(at, number, purchase, &units),
            Record::PaymentBegun(attempt) => self.payment_begun(at, &attempt),
            Record::PaymentNamed(attempt, _) => self.payment_named(at, &attempt),
            Record::PaymentEnded(attempt) => self.payment_ended(at, &attempt),
            Record::PaymentReceived(attempt, received) => self.payment_received(at, &attempt, &received),
            Record::RefundOrdered(attempt) => self.refund_ordered(at, &attempt),
            Record::Refunded(attempt) => self.refunded(at, &attempt),
            Record::PaymentParked { number, parked, .. } => self.payment_parked(at, number, *parked),
            Record::StockChanged { item, added, withdrawn } => self.stock_changed(at, item, added, &withdrawn),
            Record::Paused(_) => self.paused = true,
            Record::Resumed => self.paused = false,
            Record::ClockCredit(milliseconds) => self.credit = self.credit.saturating_add(milliseconds),
            Record::Digest { state, counts } => self.digest(at, &state, &counts),
            Record::Closed => self.closed(at),
            Record::SecretRevealed(secret) => self.secret_revealed(at, secret),
            Record::Settled(counts) => self.settled(at, &counts),
        }
    }

    /// The units that a grant has, or had before its release.
    pub(crate) fn units_of(&self, grant: &Grant) -> &[Unit] {
        let from = grant.units_from as usize;
        &self.units[from..from + usize::from(grant.quantity)]
    }

    /// The grant of that purchase id, with its number; known once the replay is finished.
    pub(crate) fn grant_of(&self, purchase: PurchaseId) -> Option<(u32, &Grant)> {
        let number = self.people.find(purchase)?;
        Some((number, self.grants.get(number as usize)?))
    }

    /// The purchase id of a grant.
    pub(crate) fn purchase_of(&self, number: u32) -> Option<PurchaseId> {
        self.people.purchase(number)
    }

    /// The customer of a grant.
    pub(crate) fn customer_of(&self, number: u32) -> Option<Pseudonym> {
        self.people.customer_of(number)
    }

    /// Makes room for up to that many more records.
    pub(crate) fn reserve(&mut self, records: usize) {
        self.people.reserve(records);
        self.grants.reserve(records);
        self.units.reserve(records);
    }

    /// Begins to fetch what `records` will need.
    pub(crate) fn warm(&self, records: &[Record]) {
        self.people.warm(records.iter().filter_map(|record| match record {
            Record::Held(held) => Some(held.customer),
            _ => None,
        }));
    }

    fn held(&mut self, at: Moment, held: &Held) {
        let position = at.position;
        let number = self.grants.len() as u32;
        let quantity = held.units.len() as u32;
        let numbered = held.number.0 == number;
        if !self.tally.check(Claim::Chain, numbered && self.items.get(usize::from(held.item)).is_some(), || {
            format!("record {position}: hold {} of item {} is not the next of this sale", held.number.0, held.item)
        }) {
            return;
        }
        self.check_window(at, held);
        let customer = self.people.customer(held.customer, held.slot_offset, held.item);
        self.check_slot(position, customer, held.slot_offset);
        let key_is_new = self.people.add_purchase(held.purchase, customer, held.key_hash);
        self.tally.check(Promise::Idempotent, key_is_new, || {
            format!("record {position}: hold {number} has the key of an earlier one of its customer")
        });
        self.check_limits(position, customer, held.item, quantity);
        self.check_unpaid(position, customer);
        self.check_price(at, held);
        self.use_coupon(position, number, held.coupon);
        let units_from = self.units.len() as u32;
        self.units.extend(&held.units);
        self.take(at, held.item, &held.units, number, Move::FreeToHeld);
        self.state.add(number, GrantStatus::Held, held.item, &held.units);
        self.grants.push(Grant {
            customer,
            units_from,
            item: held.item,
            quantity: quantity as u16,
            status: GrantStatus::Held,
            released: None,
            price: held.price,
            held_at: at.time,
            pay_by: held.pay_by.0,
            credit: self.credit,
            ended_at: None,
            record: position,
        });
        self.check_conservation(position, held.item);
    }

    fn released(&mut self, at: Moment, number: PurchaseNumber, purchase: PurchaseId, reason: ReleaseReason) {
        let Some(index) = self.end_of(at, number, purchase, GrantStatus::Held) else { return };
        let grant = &self.grants[index];
        let (item, customer, quantity) = (grant.item, grant.customer, u32::from(grant.quantity));
        let due = self.deadline(grant);
        self.tally.check(Promise::HonestRefusal, reason != ReleaseReason::Expired || at.time >= due, || {
            format!("record {}: hold {} expired {} ms before its time", at.position, number.0, due - at.time)
        });
        let range = grant.units_from as usize..grant.units_from as usize + quantity as usize;
        self.check_nobody_pays(at, index, reason);
        self.state.remove(number.0, GrantStatus::Held, item, &self.units[range.clone()]);
        self.state.add(number.0, GrantStatus::Released, item, &[]);
        let mut moved = 0;
        for unit in &self.units[range] {
            let given = self.items[usize::from(item)].give_back(*unit, number.0, at);
            moved += u32::from(given.is_ok());
            self.tally.check(Promise::SingleHolder, given.is_ok(), || {
                format!("record {}: hold {} gives back {}, which it does not have", at.position, number.0, name(*unit))
            });
        }
        self.items[usize::from(item)].shift(Move::HeldToFree, moved);
        self.people.lose(customer, item, quantity);
        let went_unpaid = matches!(reason, ReleaseReason::Expired | ReleaseReason::CancelledByCustomer);
        self.people.customers[customer as usize].unpaid_releases += u32::from(went_unpaid);
        self.give_coupon_back(number.0);
        self.end(index, GrantStatus::Released, at);
        self.grants[index].released = Some(reason);
        self.check_conservation(at.position, item);
    }

    fn confirmed(&mut self, at: Moment, number: PurchaseNumber, purchase: PurchaseId) {
        let Some(index) = self.end_of(at, number, purchase, GrantStatus::Held) else { return };
        self.tally.kept(Promise::HonestRefusal, 1);
        self.end(index, GrantStatus::Confirmed, at);
        let grant = &self.grants[index];
        let (item, quantity, from) = (grant.item, u32::from(grant.quantity), grant.units_from as usize);
        let units = &self.units[from..from + quantity as usize];
        self.state.remove(number.0, GrantStatus::Held, item, units);
        self.state.add(number.0, GrantStatus::Confirmed, item, units);
        let stock = &mut self.items[usize::from(item)];
        // A unit that an earlier contradiction left in other hands is not sold twice.
        let moved = units.iter().filter(|unit| stock.is_with(**unit, number.0)).count();
        stock.shift(Move::HeldToSold, moved as u32);
        self.post_points(at, number.0);
        self.check_conservation(at.position, item);
    }

    fn retaken(&mut self, at: Moment, number: PurchaseNumber, purchase: PurchaseId, units: &[Unit]) {
        let Some(index) = self.end_of(at, number, purchase, GrantStatus::Released) else { return };
        let grant = &self.grants[index];
        let (item, customer, quantity) = (grant.item, grant.customer, u32::from(grant.quantity));
        self.tally.check(Promise::Window, (Phase::Open..Phase::Settled).contains(&self.phase), || {
            format!("record {}: hold {} is retaken while the sale is {:?}", at.position, number.0, self.phase)
        });
        if !self.tally.check(Promise::SingleHolder, units.len() == quantity as usize, || {
            format!("record {}: hold {} of {quantity} is retaken with {} units", at.position, number.0, units.len())
        }) {
            return;
        }
        self.check_limits(at.position, customer, item, quantity);
        if self.grants[index].released.is_some_and(|reason| reason != ReleaseReason::CancelledByShop) {
            self.people.customers[customer as usize].unpaid_releases -= 1;
        }
        self.use_coupon_again(at.position, number.0);
        self.state.remove(number.0, GrantStatus::Released, item, &[]);
        self.state.add(number.0, GrantStatus::Confirmed, item, units);
        self.take(at, item, units, number.0, Move::FreeToSold);
        let units_from = self.units.len() as u32;
        self.units.extend(units);
        let grant = &mut self.grants[index];
        grant.units_from = units_from;
        grant.status = GrantStatus::Confirmed;
        grant.ended_at = Some(at.time);
        self.post_points(at, number.0);
        self.check_conservation(at.position, item);
    }

    /// The grant that a record ends, if it is there, is that purchase's and has the status that may end so.
    fn end_of(
        &mut self,
        at: Moment,
        number: PurchaseNumber,
        purchase: PurchaseId,
        status: GrantStatus,
    ) -> Option<usize> {
        let index = number.0 as usize;
        let found = self.grants.get(index).map(|grant| grant.status);
        let same = self.people.purchase(number.0) == Some(purchase);
        self.tally
            .check(Promise::SingleHolder, same && found == Some(status), || {
                let found = found.map_or("unknown".to_owned(), |found| format!("{found:?}").to_lowercase());
                let whose = if same { "" } else { ", and the purchase id is another's" };
                format!("record {}: hold {} is {found}, so it cannot end this way{whose}", at.position, number.0)
            })
            .then_some(index)
    }

    /// An open hold ends: later clock credits are not for it.
    fn end(&mut self, index: usize, status: GrantStatus, at: Moment) {
        let pay_by = self.pay_by(&self.grants[index]);
        let grant = &mut self.grants[index];
        (grant.pay_by, grant.credit) = (pay_by, self.credit);
        (grant.status, grant.ended_at) = (status, Some(at.time));
    }

    fn take(&mut self, at: Moment, item: u16, units: &[Unit], holder: u32, step: Move) {
        let stock = &mut self.items[usize::from(item)];
        let mut moved = 0;
        for unit in units {
            let taken = stock.take(*unit, holder, at);
            moved += u32::from(taken.is_ok());
            if taken == Err(UnitFault::Unknown) {
                let total = stock.total;
                self.tally.broken(Promise::Conservation, || {
                    format!("record {}: {} of an item with {total} units", at.position, name(*unit))
                });
            }
            self.tally.check(Promise::SingleHolder, taken != Err(UnitFault::Elsewhere), || {
                format!("record {}: {} is not free in that generation", at.position, name(*unit))
            });
        }
        stock.shift(step, moved);
    }

    fn stock_changed(&mut self, at: Moment, item: u16, added: u32, withdrawn: &[Unit]) {
        let index = usize::from(item);
        let known = self.items.get(index).is_some();
        if !self.tally.check(Claim::Chain, known, || format!("record {}: item {item} is unknown", at.position)) {
            return;
        }
        self.items[index].add(added, at);
        self.take(at, item, withdrawn, WITHDRAWN, Move::FreeToWithdrawn);
        let total = self.items[index].total;
        self.tally.check(Promise::Conservation, total <= u64::from(limits::UNITS_PER_ITEM_MAX), || {
            format!("record {}: item {item} grew to {total} units, more than an item may have", at.position)
        });
        self.check_conservation(at.position, item);
    }

    fn check_conservation(&mut self, position: u64, item: u16) {
        let stock = &mut self.items[usize::from(item)];
        stock.note_free(position);
        let (sum, total) = (stock.counts.total(), stock.total);
        self.tally.check(Promise::Conservation, sum == total, || {
            format!("record {position}: item {item} has {total} units but its counts add up to {sum}")
        });
    }
}

/// A unit in evidence.
fn name(unit: Unit) -> String {
    format!("unit {}.{}", unit.number, unit.generation)
}
