//! The decision core of one sale. Pure: it is told the chain time, it answers with a verdict and the records that carry it.
//!
//! Integers below 2^53 and fixed bytes only, so that a short Lua twin gives the same records. Nothing here reads a clock, draws a
//! random number, does input or output, or derives an id. A record is applied the moment it is decided; durability is the owner's.

use std::collections::{BTreeSet, HashMap};

use domain::record::{Counts, Held, PauseReason, ReleaseReason};
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Record, Refusal, SaleDefinition, SalePhase, limits};

use crate::command::{Command, Grant, GrantStatus, PurchaseRequest, Query, SaleState, Wish};
use crate::grants::{Grants, body_front};
use crate::payments::PaymentsOf;
use crate::stock::Stock;
use crate::verdict::{self, Holdings, Window};

/// The checks that make the promises true. The simulation switches each off once, to show that it would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Look a key up before anything else (INV-5).
    pub key: bool,
    /// Refuse before opening and after closing (INV-8).
    pub window: bool,
    /// Refuse while paused.
    pub pause: bool,
    /// Refuse before the customer's slot (INV-8).
    pub slot: bool,
    /// Count live units against the limits (INV-3).
    pub limit: bool,
    /// Grant only what is free (INV-1, INV-2).
    pub stock: bool,
    /// Keep a hold until its deadline and grace are over.
    pub deadline: bool,
    /// Answer only after the batch is durable (INV-4).
    pub durable: bool,
    /// Give an outage back to open holds.
    pub credit: bool,
    /// Keep a hold while a payment of it is under way (INV-6).
    pub attempt: bool,
    /// Take a coupon only as often as it may be used (INV-7).
    pub coupon: bool,
}

impl Guards {
    /// All checks on: the only value outside the simulation.
    pub const ON: Self = Self {
        key: true,
        window: true,
        pause: true,
        slot: true,
        limit: true,
        stock: true,
        deadline: true,
        durable: true,
        credit: true,
        attempt: true,
        coupon: true,
    };
}

/// A record of the chain that this state cannot follow: damage, or a bug, but never to be skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {record}: {reason}")]
pub struct Contradiction {
    /// The record's number.
    pub record: u64,
    /// What does not fit.
    pub reason: &'static str,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new grant, or one changed by the command.
    Changed(PurchaseNumber),
    /// Nothing changed: the command had its effect before.
    Unchanged(PurchaseNumber),
    /// The sale itself changed, or already was as asked.
    Sale,
    /// Refused; nothing changed.
    Refused(Refusal, Option<ChainTime>),
}

/// The state of one sale, rebuilt from its chain at start.
pub struct Core {
    pub(crate) definition: SaleDefinition,
    pub(crate) guards: Guards,
    pub(crate) phase: SalePhase,
    pub(crate) paused: Option<PauseReason>,
    pub(crate) storage_full: bool,
    pub(crate) opened_at: ChainTime,
    pub(crate) closed_at: ChainTime,
    pub(crate) slot_secret: Option<[u8; 32]>,
    pub(crate) now: ChainTime,
    pub(crate) epoch: u64,
    /// Number of the next record.
    pub(crate) next: u64,
    pub(crate) credit: u64,
    pub(crate) stocks: Vec<Stock>,
    pub(crate) grants: Grants,
    /// The first grant that may still be held. Deadlines stand in the order of grants, so expiry walks along the numbers.
    pub(crate) expires_next: PurchaseNumber,
    pub(crate) held_grants: u32,
    pub(crate) payments: PaymentsOf,
    /// The first grant that a payment under way may keep beyond its deadline.
    pub(crate) extended_next: PurchaseNumber,
    /// Attempts to pay that are open, and refunds that are due.
    pub(crate) unsettled: u32,
    /// The grants that have some of those.
    pub(crate) unsettled_grants: BTreeSet<u32>,
    /// The index of the coupon of those grants that have one.
    pub(crate) coupons: HashMap<u32, u8>,
    /// How many live grants use each coupon.
    pub(crate) coupons_used: Vec<u32>,
}

impl Core {
    /// The state before the first record of a sale defined so.
    pub fn new(definition: SaleDefinition, guards: Guards) -> Self {
        let coupons_used = vec![0; definition.coupons.len()];
        let stocks = definition.items.iter().map(|item| Stock::new(item.stock)).collect();
        Self {
            definition,
            guards,
            phase: SalePhase::Planned,
            paused: None,
            storage_full: false,
            opened_at: ChainTime(0),
            closed_at: ChainTime(0),
            slot_secret: None,
            now: ChainTime(0),
            epoch: 0,
            next: 0,
            credit: 0,
            stocks,
            grants: Grants::new(),
            expires_next: PurchaseNumber(0),
            held_grants: 0,
            payments: PaymentsOf::default(),
            extended_next: PurchaseNumber(0),
            unsettled: 0,
            unsettled_grants: BTreeSet::new(),
            coupons: HashMap::new(),
            coupons_used,
        }
    }

    /// Moves chain time on; it never goes back.
    pub fn advance(&mut self, clock: ChainTime) {
        self.now = self.now.max(clock);
    }

    /// Decides one command; what it changes is appended to `out` and already applied.
    pub fn decide(&mut self, command: &Command, out: &mut Vec<Record>) -> Verdict {
        match command {
            Command::Purchase(request) => self.purchase(request, out),
            Command::Cancel { number, customer } => self.cancel(*number, *customer, out),
            Command::Confirm { number } => self.confirm(*number, out),
            Command::Pause(reason) => self.pause(*reason, out),
            Command::Resume => self.resume(out),
            Command::ChangeStock { item, change } => self.change_stock(*item, *change, out),
            Command::Close => self.close(out),
            Command::Settle => self.settle(out),
            Command::BeginPayment { number, customer } => self.begin_payment(*number, *customer, out),
            Command::NamePayment { number, attempt, reference } => self.name_payment(*number, *attempt, reference, out),
            Command::ReportPayment { number, attempt, fact } => self.report_payment(*number, *attempt, *fact, out),
            Command::ParkPayment { number, parked } => self.park_payment(*number, parked, out),
            Command::OrderRefund { number } => self.order_refund(*number, out),
            Command::NoteRefund { number, attempt } => self.note_refund(*number, *attempt, out),
        }
    }

    fn purchase(&mut self, request: &PurchaseRequest, out: &mut Vec<Record>) -> Verdict {
        let wish = &request.wish;
        if self.guards.key
            && let Some((number, row)) =
                self.grants.of_customer(wish.customer).find(|(_, row)| row.purchase == request.purchase)
        {
            return if row.body == body_front(&request.body_hash) {
                Verdict::Unchanged(number)
            } else {
                Verdict::Refused(Refusal::KeyReused, None)
            };
        }
        let window = self.window();
        let holdings = self.holdings(wish);
        let coupon = self.definition.coupon_index(wish.coupon);
        let coupon_is_good = coupon.is_some_and(|coupon| self.coupon_is_free(coupon));
        let against =
            verdict::before_stock(&self.definition, window, self.now, wish, holdings, coupon_is_good, self.guards);
        if let Err(refusal) = against {
            let retry_at = verdict::retry_at(&self.definition, window, wish, refusal);
            return Verdict::Refused(refusal, retry_at);
        }
        let free = self.stocks[usize::from(wish.item)].free();
        if self.guards.stock && free < wish.quantity {
            let refusal = if free == 0 { Refusal::SoldOut } else { Refusal::StockInsufficient };
            return Verdict::Refused(refusal, None);
        }
        // The point of no return: every check has passed, from here on the customer holds the units.
        let number = PurchaseNumber(self.grants.count());
        let held = self.held(number, request);
        self.emit(Record::Held(held), out);
        Verdict::Changed(number)
    }

    fn held(&self, number: PurchaseNumber, request: &PurchaseRequest) -> Held {
        let wish = &request.wish;
        Held {
            number,
            purchase: request.purchase,
            customer: wish.customer,
            item: wish.item,
            units: self.stocks[usize::from(wish.item)].peek(wish.quantity),
            price: self.definition.price(wish.item, wish.quantity, self.definition.coupon_index(wish.coupon)),
            key_hash: request.key_hash,
            body_hash: request.body_hash,
            pass: wish.pass,
            slot_offset: wish.slot_offset,
            coupon: wish.coupon,
            pay_by: self.now.plus(self.definition.hold_seconds * 1_000),
        }
    }

    fn cancel(&mut self, number: PurchaseNumber, customer: Option<Pseudonym>, out: &mut Vec<Record>) -> Verdict {
        let reason =
            if customer.is_some() { ReleaseReason::CancelledByCustomer } else { ReleaseReason::CancelledByShop };
        let Some(row) = self.grants.row(number).filter(|row| customer.is_none_or(|asks| asks == row.customer)) else {
            return Verdict::Refused(Refusal::NotFound, None);
        };
        match row.status() {
            // Money may be on its way: whoever asks has the provider end it first.
            GrantStatus::Held if self.has_open_attempt(number) => Verdict::Refused(Refusal::PaymentOpen, None),
            GrantStatus::Held => {
                let purchase = row.purchase;
                self.emit(Record::Released { number, purchase, reason }, out);
                Verdict::Changed(number)
            }
            GrantStatus::Released(earlier) if earlier == reason => Verdict::Unchanged(number),
            GrantStatus::Released(_) => Verdict::Refused(Refusal::HoldEnded, None),
            GrantStatus::Confirmed => Verdict::Refused(Refusal::OrderConfirmed, None),
        }
    }

    fn confirm(&mut self, number: PurchaseNumber, out: &mut Vec<Record>) -> Verdict {
        let Some(row) = self.grants.row(number) else {
            return Verdict::Refused(Refusal::NotFound, None);
        };
        let (purchase, item, quantity) = (row.purchase, usize::from(row.item), u32::from(row.quantity));
        match row.status() {
            GrantStatus::Held => {
                self.emit(Record::Confirmed { number, purchase }, out);
                Verdict::Changed(number)
            }
            GrantStatus::Confirmed => Verdict::Unchanged(number),
            GrantStatus::Released(_) => {
                // Money for a hold that has ended: it takes free units again where the rules allow, else it is to be refunded.
                if !self.may_retake(number) {
                    return Verdict::Refused(Refusal::RefundDue, None);
                }
                let units = self.stocks[item].peek(quantity);
                self.emit(Record::Retaken { number, purchase, units }, out);
                Verdict::Changed(number)
            }
        }
    }

    /// Whether a grant that was released may have free units again.
    pub(crate) fn may_retake(&self, number: PurchaseNumber) -> bool {
        let row = self.grants.row(number).expect("the caller looked the row up");
        let (item, quantity) = (u16::from(row.item), u32::from(row.quantity));
        let (live_of_item, live_of_sale) = self.live_units(row.customer, item);
        self.phase < SalePhase::Settled
            && live_of_item + quantity <= self.definition.items[usize::from(item)].limit_per_customer
            && live_of_sale + quantity <= self.definition.limit_per_customer
            && self.coupons.get(&number.0).is_none_or(|coupon| self.coupon_is_free(usize::from(*coupon)))
            && self.stocks[usize::from(item)].free() >= quantity
    }

    /// Whether one more order may use the coupon.
    pub(crate) fn coupon_is_free(&self, coupon: usize) -> bool {
        !self.guards.coupon || self.coupons_used[coupon] < self.definition.coupons[coupon].uses_max
    }

    fn pause(&mut self, reason: PauseReason, out: &mut Vec<Record>) -> Verdict {
        if self.phase == SalePhase::Settled {
            return Verdict::Refused(Refusal::SalePhaseWrong, None);
        }
        if self.paused.is_none() {
            self.emit(Record::Paused(reason), out);
        }
        Verdict::Sale
    }

    fn resume(&mut self, out: &mut Vec<Record>) -> Verdict {
        if self.paused.is_some() {
            self.emit(Record::Resumed, out);
        }
        Verdict::Sale
    }

    fn change_stock(&mut self, item: u16, change: i64, out: &mut Vec<Record>) -> Verdict {
        let Some(stock) = self.stocks.get(usize::from(item)) else {
            return Verdict::Refused(Refusal::NotFound, None);
        };
        if self.phase == SalePhase::Settled {
            return Verdict::Refused(Refusal::SalePhaseWrong, None);
        }
        let amount = u32::try_from(change.unsigned_abs()).unwrap_or(u32::MAX);
        let (added, withdrawn) = if change >= 0 { (amount, 0) } else { (0, amount) };
        if added > limits::UNITS_PER_ITEM_MAX - stock.total() || withdrawn > limits::WITHDRAWN_PER_RECORD_MAX {
            return Verdict::Refused(Refusal::QuantityInvalid, None);
        }
        if withdrawn > stock.free() {
            return Verdict::Refused(Refusal::StockUnavailable, None);
        }
        if amount > 0 {
            let withdrawn = stock.peek(withdrawn);
            self.emit(Record::StockChanged { item, added, withdrawn }, out);
        }
        Verdict::Sale
    }

    fn close(&mut self, out: &mut Vec<Record>) -> Verdict {
        if self.phase < SalePhase::Closed {
            self.emit(Record::Closed, out);
        }
        Verdict::Sale
    }

    fn settle(&mut self, out: &mut Vec<Record>) -> Verdict {
        match self.phase {
            SalePhase::Settled => Verdict::Sale,
            // The turn that closes the sale reveals the slot secret behind its commands; a settled chain takes no more records.
            SalePhase::Closed if self.is_at_rest() && self.slot_secret.is_some() => {
                self.emit(Record::Settled(self.counts()), out);
                Verdict::Sale
            }
            SalePhase::Planned | SalePhase::Open | SalePhase::Closed => Verdict::Refused(Refusal::SalePhaseWrong, None),
        }
    }

    /// Appends a record that the owner itself is the source of: created, epoch, clock credit, digest.
    pub fn emit(&mut self, record: Record, out: &mut Vec<Record>) {
        self.apply(&record).expect("what the core decides, it can follow");
        out.push(record);
    }

    pub(crate) fn window(&self) -> Window {
        Window {
            phase: self.phase,
            paused: self.paused.is_some(),
            storage_full: self.storage_full,
            opened_at: self.opened_at,
        }
    }

    fn holdings(&self, wish: &Wish) -> Holdings {
        let mut holdings = Holdings::default();
        for (_, row) in self.grants.of_customer(wish.customer) {
            holdings.grants += 1;
            holdings.unpaid_releases += u32::from(row.is_unpaid_release());
            holdings.grants_of_pass += u32::from(row.pass == wish.pass as u32);
            if row.is_live() {
                holdings.live_of_sale += u32::from(row.quantity);
                holdings.live_of_item += if u16::from(row.item) == wish.item { u32::from(row.quantity) } else { 0 };
            }
        }
        holdings
    }

    /// Live units of a customer: of the item, of the sale.
    fn live_units(&self, customer: Pseudonym, item: u16) -> (u32, u32) {
        let live = |of_item: bool| {
            let rows = self.grants.of_customer(customer).map(|(_, row)| row);
            let live = rows.filter(|row| row.is_live() && (!of_item || u16::from(row.item) == item));
            live.map(|row| u32::from(row.quantity)).sum()
        };
        (live(true), live(false))
    }

    /// The sale's definition.
    pub fn definition(&self) -> &SaleDefinition {
        &self.definition
    }

    /// Chain time.
    pub fn now(&self) -> ChainTime {
        self.now
    }

    /// The epoch that the chain is in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Counts per item.
    pub fn counts(&self) -> Vec<Counts> {
        self.stocks.iter().map(Stock::counts).collect()
    }

    /// Holds that have not ended.
    pub fn held_grants(&self) -> u32 {
        self.held_grants
    }

    /// Tells the core whether the disk can take purchases; refused ones hear `storage_full`.
    pub fn set_storage_full(&mut self, storage_full: bool) {
        self.storage_full = storage_full;
    }

    /// A grant as it stands.
    pub fn grant(&self, number: PurchaseNumber) -> Option<Grant> {
        let row = self.grants.row(number)?;
        let coupon = self.coupons.get(&number.0).map(|coupon| usize::from(*coupon));
        let price = self.definition.price(u16::from(row.item), u32::from(row.quantity), coupon);
        let mut grant = self.grants.grant(number, price, self.credit)?;
        if let Some(payments) = self.payments.get(&number.0) {
            grant.attempts.clone_from(&payments.attempts);
            grant.references.clone_from(&payments.references);
        }
        Some(grant)
    }

    /// The customer's grant under this purchase id.
    pub fn purchase_of(&self, customer: Pseudonym, purchase: PurchaseId) -> Option<PurchaseNumber> {
        self.grants.of_customer(customer).find(|(_, row)| row.purchase == purchase).map(|(number, _)| number)
    }

    /// The grant that a query names, if there is one that the asker may see.
    pub(crate) fn find(&self, query: &Query) -> Option<PurchaseNumber> {
        match *query {
            Query::Purchase { customer, purchase } => self.purchase_of(customer, purchase),
            Query::Order { number, customer } => {
                let row = self.grants.row(number);
                row.filter(|row| customer.is_none_or(|asks| asks == row.customer)).map(|_| number)
            }
            Query::Mine { .. } | Query::Sale | Query::Unsettled { .. } => None,
        }
    }

    /// All grants of a customer, newest first.
    pub fn grants_of(&self, customer: Pseudonym) -> Vec<Grant> {
        self.grants.of_customer(customer).filter_map(|(number, _)| self.grant(number)).collect()
    }

    /// The state of the sale.
    pub fn state(&self) -> SaleState {
        SaleState {
            phase: self.phase,
            paused: self.paused,
            opened_at: (self.phase > SalePhase::Planned).then_some(self.opened_at),
            counts: self.counts(),
            next: self.next,
            time: self.now,
            storage_full: self.storage_full,
        }
    }
}
