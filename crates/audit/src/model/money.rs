//! Money and benefits: attempts to pay, what was received and where it belongs, refunds, coupons, and points.

use std::collections::{BTreeMap, HashMap, HashSet};

use chain::digest::GrantStatus;
use domain::record::{Attempt, Held, ReleaseReason};
use domain::{AttemptStatus, ParkedPayment, Promise, PurchaseNumber, Received, SaleDefinition};

use super::stock::Moment;
use super::{Grant, Model};

/// One attempt to pay.
pub(crate) struct Tried {
    pub(crate) status: AttemptStatus,
    pub(crate) begun_at: u64,
    pub(crate) changed_at: u64,
    /// Number of the record that changed it last.
    pub(crate) record: u64,
}

/// How often a coupon is used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Uses {
    /// By live grants.
    pub(crate) now: u32,
    pub(crate) ever: u32,
    pub(crate) given_back: u32,
}

/// The points of a paid order.
pub(crate) struct Posting {
    pub(crate) points: u64,
    pub(crate) posted: Moment,
    pub(crate) taken_back: Option<Moment>,
}

/// What the chain says of payments and benefits.
#[derive(Default)]
pub(crate) struct Purse {
    /// The attempts of each grant that has some, in order.
    pub(crate) attempts: HashMap<u32, Vec<Tried>>,
    /// Attempts whose name at the provider is known.
    named: HashSet<(u32, u8)>,
    /// The coupon that a grant uses, while it is live.
    coupons: HashMap<u32, u64>,
    uses: HashMap<u64, Uses>,
    /// Points of the grants that were paid and give some.
    pub(crate) postings: BTreeMap<u32, Posting>,
    /// The attempt whose money paid a grant.
    paid_by: HashMap<u32, u8>,
    /// Reports that were not believed, and on which grant.
    pub(crate) parked: Vec<(Moment, u32, ParkedPayment)>,
}

impl Purse {
    /// How many attempts are where.
    pub(crate) fn count(&self, status: AttemptStatus) -> u64 {
        self.attempts.values().flatten().filter(|known| known.status == status).count() as u64
    }

    /// Whether a payment of the grant is under way.
    pub(super) fn is_open(&self, number: u32) -> bool {
        self.attempts.get(&number).is_some_and(|attempts| has_open(attempts))
    }

    /// How often a coupon is used.
    pub(crate) fn uses_of(&self, coupon: u64) -> Uses {
        self.uses.get(&coupon).copied().unwrap_or_default()
    }
}

impl Model {
    /// Where the attempts of a grant are.
    fn attempts_of(&self, number: u32) -> &[Tried] {
        self.purse.attempts.get(&number).map_or(&[], |attempts| attempts)
    }

    pub(super) fn payment_begun(&mut self, at: Moment, of: &Attempt) {
        let is_held = self.status_of(at, of) == Some(GrantStatus::Held);
        let attempts = self.purse.attempts.entry(of.number.0).or_default();
        let follows = attempts.len() == usize::from(of.attempt) && !has_open(attempts);
        attempts.push(Tried {
            status: AttemptStatus::Open,
            begun_at: at.time,
            changed_at: at.time,
            record: at.position,
        });
        self.tally.check(Promise::Money, is_held && follows, || {
            format!("record {}: hold {} cannot begin attempt {} now", at.position, of.number.0, of.attempt)
        });
    }

    pub(super) fn payment_named(&mut self, at: Moment, of: &Attempt) {
        self.status_of(at, of);
        let known = usize::from(of.attempt) < self.attempts_of(of.number.0).len();
        let is_first = known && self.purse.named.insert((of.number.0, of.attempt));
        self.tally.check(Promise::Money, is_first, || {
            format!("record {}: attempt {} of order {} is named twice or unknown", at.position, of.attempt, of.number.0)
        });
    }

    pub(super) fn payment_ended(&mut self, at: Moment, of: &Attempt) {
        self.move_attempt(at, of, &[AttemptStatus::Open], AttemptStatus::Ended);
    }

    pub(super) fn payment_received(&mut self, at: Moment, of: &Attempt, received: &Received) {
        let status = self.status_of(at, of);
        let place = match received {
            Received::Confirms => status == Some(GrantStatus::Held),
            Received::Retakes(_) => status == Some(GrantStatus::Released),
            // That no unit could be taken again cannot be seen here; that there was none to keep can.
            Received::RefundDue => matches!(status, Some(GrantStatus::Released | GrantStatus::Confirmed)),
        };
        self.tally.check(Promise::Money, place, || {
            format!("record {}: the money of hold {}, which is {status:?}, has no such place", at.position, of.number.0)
        });
        let to = match received {
            Received::RefundDue => AttemptStatus::RefundDue,
            Received::Confirms | Received::Retakes(_) => AttemptStatus::Paid,
        };
        self.move_attempt(at, of, &[AttemptStatus::Open, AttemptStatus::Ended], to);
        if to == AttemptStatus::Paid {
            self.purse.paid_by.insert(of.number.0, of.attempt);
        }
        match received {
            Received::Confirms => self.confirmed(at, of.number, of.purchase),
            Received::Retakes(units) => self.retaken(at, of.number, of.purchase, units),
            Received::RefundDue => {}
        }
        let paid = self.attempts_of(of.number.0).iter().filter(|tried| tried.status == AttemptStatus::Paid).count();
        self.tally.check(Promise::Money, paid <= 1, || {
            format!("record {}: order {} is paid {paid} times", at.position, of.number.0)
        });
    }

    pub(super) fn refund_ordered(&mut self, at: Moment, of: &Attempt) {
        self.move_attempt(at, of, &[AttemptStatus::Paid], AttemptStatus::RefundDue);
    }

    pub(super) fn refunded(&mut self, at: Moment, of: &Attempt) {
        self.move_attempt(at, of, &[AttemptStatus::RefundDue], AttemptStatus::Refunded);
        if self.purse.paid_by.get(&of.number.0) == Some(&of.attempt)
            && let Some(posting) = self.purse.postings.get_mut(&of.number.0)
        {
            posting.taken_back.get_or_insert(at);
        }
    }

    pub(super) fn payment_parked(&mut self, at: Moment, number: PurchaseNumber, report: ParkedPayment) {
        let known = self.grants.get(number.0 as usize).is_some();
        self.tally.check(Promise::Money, known, || {
            format!("record {}: a report on hold {}, which there is not", at.position, number.0)
        });
        self.purse.parked.push((at, number.0, report));
    }

    /// What is being paid is kept for longer than a hold, and is not given back by anybody.
    pub(super) fn check_nobody_pays(&mut self, at: Moment, index: usize, reason: ReleaseReason) {
        let number = index as u32;
        if self.attempts_of(number).is_empty() {
            return;
        }
        let until = self.must_end_at(number, &self.grants[index]);
        let is_free = !self.purse.is_open(number) || (reason == ReleaseReason::Expired && at.time >= until);
        self.tally.check(Promise::Money, is_free, || {
            format!("record {}: hold {number} is released while a payment of it is under way", at.position)
        });
    }

    /// At the sale's end no money is under way.
    pub(super) fn check_money_at_rest(&mut self, at: Moment) {
        if self.purse.attempts.is_empty() {
            return;
        }
        let under_way = self.purse.count(AttemptStatus::Open) + self.purse.count(AttemptStatus::RefundDue);
        self.tally.check(Promise::Money, under_way == 0, || {
            format!("record {}: settled while {under_way} payments are open or have to go back", at.position)
        });
    }

    /// A grant begins to use its coupon: at its hold, and when it is taken again.
    pub(super) fn use_coupon(&mut self, position: u64, number: u32, coupon: u64) {
        if coupon == 0 {
            return;
        }
        let uses_max =
            self.definition.coupons.iter().find(|known| known.hash == Some(coupon)).map_or(0, |coupon| coupon.uses_max);
        let uses = self.purse.uses.entry(coupon).or_default();
        uses.now += 1;
        uses.ever += 1;
        let used = uses.now;
        self.purse.coupons.insert(number, coupon);
        self.tally.check(Promise::Benefits, used <= uses_max, || {
            format!("record {position}: a coupon is used {used} times at once, {uses_max} at most")
        });
    }

    /// The coupon of a grant that was released can be used again.
    pub(super) fn give_coupon_back(&mut self, number: u32) {
        if let Some(coupon) = self.purse.coupons.get(&number) {
            let uses = self.purse.uses.entry(*coupon).or_default();
            uses.now = uses.now.saturating_sub(1);
            uses.given_back += 1;
        }
    }

    /// The same coupon again, for a grant that is taken again.
    pub(super) fn use_coupon_again(&mut self, position: u64, number: u32) {
        let coupon = self.purse.coupons.get(&number).copied().unwrap_or_default();
        self.use_coupon(position, number, coupon);
    }

    /// A grant is paid: its customer gets its points, once.
    pub(super) fn post_points(&mut self, at: Moment, number: u32) {
        let grant = &self.grants[number as usize];
        let per_unit = self.definition.items.get(usize::from(grant.item)).map_or(0, |item| item.points);
        if per_unit == 0 {
            return;
        }
        let points = u64::from(per_unit) * self.units_of(grant).len() as u64;
        let is_first = self.purse.postings.insert(number, Posting { points, posted: at, taken_back: None }).is_none();
        self.tally.check(Promise::Benefits, is_first, || {
            format!("record {}: the points of order {number} are posted twice", at.position)
        });
    }

    fn move_attempt(&mut self, at: Moment, of: &Attempt, from: &[AttemptStatus], to: AttemptStatus) {
        self.status_of(at, of);
        let place = self.purse.attempts.get_mut(&of.number.0).and_then(|known| known.get_mut(usize::from(of.attempt)));
        let before = place.map(|tried| {
            (tried.changed_at, tried.record) = (at.time, at.position);
            std::mem::replace(&mut tried.status, to)
        });
        self.tally.check(Promise::Money, before.is_some_and(|before| from.contains(&before)), || {
            let (number, attempt) = (of.number.0, of.attempt);
            format!(
                "record {}: attempt {attempt} of order {number} is {before:?}, so it cannot become {to:?}",
                at.position
            )
        });
    }

    /// The status of the grant that an attempt names, if it is that purchase's.
    fn status_of(&mut self, at: Moment, of: &Attempt) -> Option<GrantStatus> {
        let same = self.people.purchase(of.number.0) == Some(of.purchase);
        self.tally.check(Promise::Money, same, || {
            format!("record {}: a payment of hold {} with another's purchase id", at.position, of.number.0)
        });
        self.grants.get(of.number.0 as usize).filter(|_| same).map(|grant| grant.status)
    }

    /// When a hold has to end at the latest.
    pub(super) fn must_end_at(&self, number: u32, grant: &Grant) -> u64 {
        let extension = self.definition.hold_extension_seconds.saturating_mul(1_000);
        self.deadline(grant).saturating_add(if self.purse.is_open(number) { extension } else { 0 })
    }
}

fn has_open(attempts: &[Tried]) -> bool {
    attempts.iter().any(|tried| tried.status == AttemptStatus::Open)
}

/// What a hold has to cost: the whole, less whole hundredths of it rounded down.
pub(super) fn price_of(definition: &SaleDefinition, held: &Held) -> Option<u64> {
    let item = definition.items.get(usize::from(held.item))?;
    let whole = item.price.saturating_mul(held.units.len() as u64);
    if held.coupon == 0 {
        return Some(whole);
    }
    let coupon = definition.coupons.iter().find(|coupon| coupon.hash == Some(held.coupon))?;
    Some(whole - whole.saturating_mul(u64::from(coupon.percent)) / 100)
}
