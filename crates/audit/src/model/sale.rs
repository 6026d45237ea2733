//! The sale around its units: creation, window, limits, slots, digests, the end, and what is checked once at the end of a chain.

use std::thread;

use aws_lc_rs::hmac;
use chain::digest::{GrantStatus, StateHash};
use chain::head;
use domain::ids::Hash;
use domain::record::{Counts, Created, Held};
use domain::{Promise, Pseudonym, SaleDefinition, SaleId};

use super::money::{Purse, price_of};
use super::people::{Customer, People};
use super::stock::{Item, Moment};
use super::{Grant, Model, OVERDUE_MILLISECONDS_MAX, Phase};
use crate::tally::{Claim, Tally};

impl Model {
    /// The state after `created`, or why it cannot be one.
    pub(crate) fn new(sale: SaleId, created: Created, at: Moment, with_free_times: bool) -> Result<Self, String> {
        let definition: SaleDefinition = serde_json::from_slice(&created.definition)
            .map_err(|error| format!("the definition cannot be read: {error}"))?;
        definition.validate().map_err(|rule| format!("the definition breaks a rule: {rule}"))?;
        let items = definition.items.iter().map(|item| Item::new(item, at, with_free_times)).collect();
        let mut tally = Tally::default();
        tally.kept(Promise::Conservation, 1);
        Ok(Self {
            sale,
            definition,
            created,
            items,
            grants: Vec::new(),
            units: Vec::new(),
            people: People::new(),
            state: StateHash::default(),
            phase: Phase::Planned,
            paused: false,
            opened_at: None,
            credit: 0,
            secret: None,
            purse: Purse::default(),
            tally,
        })
    }

    /// The key that signs the chain's heads.
    pub(crate) fn signing_key(&self) -> Hash {
        self.created.signing_key
    }

    /// How many orders are confirmed and how many released.
    pub(crate) fn ended(&self) -> (u64, u64) {
        let with = |status| self.grants.iter().filter(|grant| grant.status == status).count() as u64;
        (with(GrantStatus::Confirmed), with(GrantStatus::Released))
    }

    /// The time by which a hold is to be paid, with every clock credit that was given while it was open.
    pub(crate) fn pay_by(&self, grant: &Grant) -> u64 {
        let later = if grant.status == GrantStatus::Held { self.credit - grant.credit } else { 0 };
        grant.pay_by.saturating_add(later)
    }

    /// When a hold may expire: pay-by time and grace.
    pub(super) fn deadline(&self, grant: &Grant) -> u64 {
        self.pay_by(grant).saturating_add(self.definition.grace_seconds.saturating_mul(1_000))
    }

    pub(super) fn opened(&mut self, at: Moment) {
        let opens_at = self.definition.opens_at.0;
        let phase = self.phase;
        self.tally.check(Promise::Window, phase == Phase::Planned && at.time >= opens_at, || {
            format!("record {}: opened at {} while {phase:?}; it opens at {opens_at}", at.position, at.time)
        });
        self.phase = Phase::Open;
        self.opened_at = Some(at.time);
    }

    pub(super) fn closed(&mut self, at: Moment) {
        let phase = self.phase;
        self.tally.check(Promise::Window, phase < Phase::Closed, || {
            format!("record {}: closed while {phase:?}", at.position)
        });
        self.phase = phase.max(Phase::Closed);
    }

    pub(super) fn check_window(&mut self, at: Moment, held: &Held) {
        let slot = self.opened_at.unwrap_or(u64::MAX).saturating_add(u64::from(held.slot_offset));
        let reason = if self.phase != Phase::Open {
            Some(format!("while the sale is {:?}", self.phase).to_lowercase())
        } else if self.paused {
            Some("while the sale is paused".to_owned())
        } else if at.time >= self.definition.closes_at.0 {
            Some(format!("at {}; the sale closes at {}", at.time, self.definition.closes_at.0))
        } else if at.time < slot {
            Some(format!("at {}; the customer's slot comes at {slot}", at.time))
        } else {
            None
        };
        self.tally.check(Promise::Window, reason.is_none(), || {
            format!("record {}: a hold {}", at.position, reason.unwrap_or_default())
        });
        let latest = at.time.saturating_add(self.definition.hold_seconds.saturating_mul(1_000));
        self.tally.check(Promise::HonestRefusal, held.pay_by.0 <= latest, || {
            format!("record {}: a hold until {}, longer than hold_seconds", at.position, held.pay_by.0)
        });
    }

    pub(super) fn check_slot(&mut self, position: u64, customer: u32, slot_offset: u32) {
        let spread = self.definition.spread_milliseconds;
        let first = self.people.customers[customer as usize].slot_offset;
        let fits = first == slot_offset && u64::from(slot_offset) <= spread;
        if !fits {
            self.tally.broken(Claim::Slots, || {
                format!("record {position}: slot {slot_offset} of a customer with slot {first}, spread {spread}")
            });
        }
    }

    pub(super) fn check_price(&mut self, at: Moment, held: &Held) {
        let price = price_of(&self.definition, held);
        self.tally.check(Claim::Chain, Some(held.price) == price, || {
            format!("record {}: the price is {} but the definition makes it {price:?}", at.position, held.price)
        });
    }

    /// The customer gets `units`: a new purchase, or an ended one that is taken again.
    pub(super) fn check_limits(&mut self, position: u64, customer: u32, item: u16, units: u32) {
        let (of_item, of_sale) = self.people.gain(customer, item, units);
        let grants = self.people.customers[customer as usize].grants;
        let limit_item = self.items[usize::from(item)].limit;
        let SaleDefinition { limit_per_customer: limit_sale, grants_per_customer_max, .. } = self.definition;
        let within = of_item <= limit_item && of_sale <= limit_sale && grants <= grants_per_customer_max;
        self.tally.check(Promise::Limit, within, || {
            format!(
                "record {position}: a customer has {of_item} of item {item} (limit {limit_item}), {of_sale} in the sale \
                 (limit {limit_sale}), {grants} purchases (limit {grants_per_customer_max})"
            )
        });
    }

    /// A hold is granted to nobody who has let too many go.
    pub(super) fn check_unpaid(&mut self, position: u64, customer: u32) {
        let unpaid = self.people.customers[customer as usize].unpaid_releases;
        let at_most = self.definition.unpaid_releases_max;
        self.tally.check(Promise::Limit, unpaid < at_most, || {
            format!("record {position}: a hold for a customer who let {unpaid} go unpaid (limit {at_most})")
        });
    }

    pub(super) fn digest(&mut self, at: Moment, state: &Hash, counts: &[Counts]) {
        self.check_counts(at, "digest", counts);
        self.tally.check(Promise::Conservation, *state == self.state.bytes(), || {
            format!("record {}: the digest's state hash is not that of the grants", at.position)
        });
    }

    pub(super) fn settled(&mut self, at: Moment, counts: &[Counts]) {
        let phase = self.phase;
        self.tally.check(Promise::Window, phase == Phase::Closed, || {
            format!("record {}: settled while {phase:?}", at.position)
        });
        self.phase = Phase::Settled;
        self.check_counts(at, "settled", counts);
        let held: u64 = self.items.iter().map(|item| u64::from(item.counts.held)).sum();
        self.tally.check(Promise::HonestRefusal, held == 0, || {
            format!("record {}: settled while {held} units are held", at.position)
        });
        self.check_money_at_rest(at);
    }

    fn check_counts(&mut self, at: Moment, record: &str, counts: &[Counts]) {
        let own: Vec<Counts> = self.items.iter().map(|item| item.counts).collect();
        self.tally.check(Promise::Conservation, own == counts, || {
            format!("record {}: {record} counts {counts:?}, the records before it give {own:?}", at.position)
        });
    }

    pub(super) fn secret_revealed(&mut self, at: Moment, secret: Hash) {
        let proper = self.phase >= Phase::Closed && self.secret.is_none();
        self.tally.check(Claim::Slots, proper, || {
            format!("record {}: the slot secret is revealed before closing or twice", at.position)
        });
        let committed = head::slot_commitment(self.sale, &secret) == self.created.slot_commitment;
        self.tally.check(Claim::Slots, committed, || {
            format!("record {}: the slot secret is not the one that created committed to", at.position)
        });
        self.secret = Some(secret);
    }

    /// What can be said only at the end of the chain, whose last batch has chain time `time`.
    pub(crate) fn finish(&mut self, time: u64) {
        for (number, grant) in self.grants.iter().enumerate() {
            if grant.status == GrantStatus::Held {
                let due = self.must_end_at(number as u32, grant);
                self.tally.check(Promise::HonestRefusal, time <= due.saturating_add(OVERDUE_MILLISECONDS_MAX), || {
                    format!("hold {number} should have ended at {due}, the chain is at {time}")
                });
            }
        }
        let is_sold =
            |grant: u32| self.grants.get(grant as usize).is_some_and(|grant| grant.status == GrantStatus::Confirmed);
        for item in &self.items {
            let counts = item.recount(is_sold);
            self.tally.check(Promise::Conservation, counts == item.counts, || {
                format!("{}: the units themselves give {counts:?}, the records {:?}", item.name, item.counts)
            });
        }
        if self.phase == Phase::Settled {
            let revealed = self.secret.is_some();
            self.tally.check(Claim::Slots, revealed, || "settled without the slot secret".to_owned());
        }
        self.check_ids_and_slots();
    }

    /// Looks for purchase ids that were granted twice and, once the secret is known, recomputes every customer's slot: on all cores.
    fn check_ids_and_slots(&mut self) {
        let Self { people, tally, grants, secret, definition, .. } = self;
        let spread = definition.spread_milliseconds;
        let customers: &[Customer] = secret.as_ref().map_or(&[], |_| &people.customers);
        let share = customers.len().div_ceil(cores()).max(1);
        let (sorted, wrong) = thread::scope(|scope| {
            let ids = scope.spawn(|| people.sorted_purchases());
            let shares: Vec<_> = customers
                .chunks(share)
                .map(|customers| scope.spawn(|| wrong_slots(customers, &secret.unwrap_or_default(), spread)))
                .collect();
            let joined = shares.into_iter().map(|share| share.join().expect("a slot check does not panic"));
            let wrong: Vec<String> = joined.flatten().collect();
            (ids.join().expect("sorting does not panic"), wrong)
        });
        tally.kept(Claim::Slots, (customers.len() - wrong.len()) as u64);
        for line in wrong {
            tally.broken(Claim::Slots, || line);
        }
        for number in people.index(sorted) {
            let record = grants[number as usize].record;
            tally.broken(Promise::Idempotent, || {
                format!("record {record}: hold {number} has the purchase id of an earlier one")
            });
        }
    }
}

fn wrong_slots(customers: &[Customer], secret: &Hash, spread: u64) -> Vec<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut wrong = Vec::new();
    for customer in customers {
        let slot = slot(&key, &customer.pseudonym, spread);
        if slot != u64::from(customer.slot_offset) {
            let who = data_encoding::HEXLOWER.encode(&customer.pseudonym.0);
            wrong.push(format!("customer {who}: slot {} stated, {slot} by the secret", customer.slot_offset));
        }
    }
    wrong
}

/// The slot as `docs/chain-format.md` describes it, with the key prepared once for all customers.
fn slot(key: &hmac::Key, pseudonym: &Pseudonym, spread: u64) -> u64 {
    if spread == 0 {
        // Every slot is the opening itself; no draw can say otherwise.
        return 0;
    }
    let mut message = *b"doorbuster slot v1................";
    message[18..].copy_from_slice(&pseudonym.0);
    let tag = hmac::sign(key, &message);
    let draw = tag.as_ref().first_chunk().map_or(0, |draw| u64::from_le_bytes(*draw));
    draw % (spread + 1)
}

/// Threads worth starting.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
