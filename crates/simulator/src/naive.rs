//! Admission written a second time, as plainly as possible: lists that are searched, no index, no running totals.
//!
//! It is told what the owner is told and says what must come of it: every answer, every count, the number of every record. It
//! shares the words of `domain` and the requests of `admission` with the real code, and no rule.

mod orders;
mod payments;
mod units;

use admission::{Answer, Command, Core, Query, Request, Wish};
use domain::record::{Counts, PauseReason};
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Refusal, SaleDefinition, SalePhase, limits};

use self::orders::{Order, Status};
use self::units::Shelf;

/// What an answer must be; grants are looked at as they stand when the turn is over.
pub enum Expected {
    /// This order.
    Order(usize),
    /// All orders of a customer.
    OrdersOf(Pseudonym),
    /// The sale.
    Sale,
    /// A refusal with the record that it rests on.
    Refused(Refusal, u64, Option<ChainTime>),
}

/// The whole sale.
#[derive(Clone)]
pub struct Naive {
    definition: SaleDefinition,
    phase: SalePhase,
    paused: Option<PauseReason>,
    storage_full: bool,
    opened_at: u64,
    closed_at: u64,
    revealed: bool,
    now: u64,
    /// Chain time of the last batch: what a new process knows.
    recorded_at: u64,
    clocks: (u64, u64),
    digest_at: u64,
    epoch: u64,
    next: u64,
    shelves: Vec<Shelf>,
    orders: Vec<Order>,
}

impl Naive {
    /// The sale just after it was created: two records are on its chain.
    pub fn create(definition: SaleDefinition, clocks: (u64, u64)) -> Self {
        let shelves = definition.items.iter().map(|item| Shelf::new(item.stock)).collect();
        Self {
            definition,
            phase: SalePhase::Planned,
            paused: None,
            storage_full: false,
            opened_at: 0,
            closed_at: 0,
            revealed: false,
            now: clocks.0,
            recorded_at: clocks.0,
            clocks,
            digest_at: clocks.1 + 5_000,
            epoch: 1,
            next: 2,
            shelves,
            orders: Vec::new(),
        }
    }

    /// A new process opens the chain: an epoch, and the outage given back to whoever holds.
    pub fn reopened(mut self, clocks: (u64, u64)) -> Self {
        let outage = clocks.0.saturating_sub(self.recorded_at);
        self.now = self.recorded_at + outage;
        self.recorded_at = self.now;
        self.clocks = clocks;
        self.digest_at = clocks.1 + 5_000;
        self.epoch += 1;
        self.next += 1;
        self.storage_full = false;
        self.give_back(outage);
        self
    }

    /// One turn of the owner: what each request must hear.
    pub fn turn(&mut self, clocks: (u64, u64), storage_full: bool, requests: &[Request]) -> Vec<Expected> {
        let records = self.next;
        self.read_clocks(clocks);
        if self.phase == SalePhase::Planned && self.now >= self.definition.opens_at.0 {
            (self.phase, self.opened_at) = (SalePhase::Open, self.now);
            self.next += 1;
        }
        if self.phase == SalePhase::Open && self.now >= self.definition.closes_at.0 {
            self.close();
        }
        self.storage_full = storage_full;
        let expected: Vec<Expected> = requests.iter().map(|request| self.request(request)).collect();
        self.expire(limits::BATCH_EXPIRIES_MAX);
        self.finish();
        if clocks.1 >= self.digest_at && self.holds() > 0 {
            self.digest_at = clocks.1 + 5_000;
            self.next += 1;
        }
        if self.next > records {
            self.recorded_at = self.now;
        }
        expected
    }

    /// The next record's number.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Free units of an item.
    pub fn free(&self, item: u16) -> u32 {
        self.shelves[usize::from(item)].counts().free
    }

    /// Whether the customer was ever granted anything.
    pub fn has_orders(&self, customer: Pseudonym) -> bool {
        self.orders.iter().any(|order| order.customer == customer)
    }

    /// Chain time.
    pub fn time(&self) -> u64 {
        self.now
    }

    fn read_clocks(&mut self, (wall, monotonic): (u64, u64)) {
        let (wall_before, monotonic_before) = self.clocks;
        self.clocks = (wall, monotonic);
        let elapsed = monotonic - monotonic_before;
        let distance = i128::from(wall) - i128::from(wall_before) - i128::from(elapsed);
        let passed = wall.saturating_sub(self.now);
        self.now += passed;
        let jumped = distance.abs() > 2_000;
        let mut lost = 0;
        if jumped && distance > 0 {
            lost += distance as u64;
        }
        if elapsed > 3_000 {
            lost += elapsed;
        }
        // What did not pass on the chain's clock was not lost by anybody.
        self.give_back(lost.min(passed));
        if jumped && self.paused.is_none() && self.phase != SalePhase::Settled {
            self.paused = Some(PauseReason::ClockJump);
            self.next += 1;
        }
    }

    fn give_back(&mut self, milliseconds: u64) {
        if milliseconds == 0 || self.holds() == 0 {
            return;
        }
        for order in self.orders.iter_mut().filter(|order| order.status == Status::Held) {
            order.pay_by += milliseconds;
        }
        self.next += 1;
    }

    fn holds(&self) -> usize {
        self.orders.iter().filter(|order| order.status == Status::Held).count()
    }

    fn is_at_rest(&self) -> bool {
        self.holds() == 0 && !self.has_money_under_way()
    }

    fn close(&mut self) {
        (self.phase, self.closed_at) = (SalePhase::Closed, self.now);
        self.next += 1;
    }

    fn finish(&mut self) {
        if self.phase != SalePhase::Closed {
            return;
        }
        if !self.revealed {
            self.revealed = true;
            self.next += 1;
        }
        if self.is_at_rest() && self.now >= self.closed_at + self.definition.settle_after_seconds * 1_000 {
            self.phase = SalePhase::Settled;
            self.next += 1;
        }
    }

    fn refused(&self, refusal: Refusal) -> Expected {
        Expected::Refused(refusal, self.next - 1, None)
    }

    fn request(&mut self, request: &Request) -> Expected {
        match request {
            Request::Decide(command, _) => self.command(command),
            Request::Read(Query::Sale) => Expected::Sale,
            Request::Read(Query::Unsettled { .. }) => unreachable!("nobody asks that here"),
            Request::Read(Query::Mine { customer }) => Expected::OrdersOf(*customer),
            Request::Read(Query::Purchase { customer, purchase }) => match self.find(*customer, *purchase) {
                Some(number) => Expected::Order(number),
                None => self.refused(Refusal::NotFound),
            },
            Request::Read(Query::Order { number, customer }) => match self.order_for(*number, *customer) {
                Some(number) => Expected::Order(number),
                None => self.refused(Refusal::NotFound),
            },
        }
    }

    fn command(&mut self, command: &Command) -> Expected {
        match command {
            Command::Purchase(request) => self.purchase(request),
            Command::Cancel { number, customer } => self.cancel(*number, *customer),
            Command::Confirm { number } => self.confirm(*number),
            Command::Pause(_) if self.phase == SalePhase::Settled => self.refused(Refusal::SalePhaseWrong),
            Command::Pause(reason) => {
                if self.paused.is_none() {
                    self.paused = Some(*reason);
                    self.next += 1;
                }
                Expected::Sale
            }
            Command::Resume => {
                if self.paused.take().is_some() {
                    self.next += 1;
                }
                Expected::Sale
            }
            Command::ChangeStock { item, change } => self.change_stock(*item, *change),
            Command::Close => {
                if matches!(self.phase, SalePhase::Planned | SalePhase::Open) {
                    self.close();
                }
                Expected::Sale
            }
            Command::Settle => match self.phase {
                SalePhase::Settled => Expected::Sale,
                SalePhase::Closed if self.is_at_rest() && self.revealed => {
                    self.phase = SalePhase::Settled;
                    self.next += 1;
                    Expected::Sale
                }
                _ => self.refused(Refusal::SalePhaseWrong),
            },
            Command::BeginPayment { number, customer } => self.begin_payment(*number, *customer),
            Command::NamePayment { number, attempt, reference } => self.name_payment(*number, *attempt, reference),
            Command::ReportPayment { number, attempt, fact } => self.report_payment(*number, *attempt, *fact),
            Command::ParkPayment { number, parked } => self.park_payment(*number, parked),
            Command::OrderRefund { number } => self.order_refund(*number),
            Command::NoteRefund { number, attempt } => self.note_refund(*number, *attempt),
        }
    }

    fn change_stock(&mut self, item: u16, change: i64) -> Expected {
        let Some(shelf) = self.shelves.get_mut(usize::from(item)) else { return self.refused(Refusal::NotFound) };
        let counts = shelf.counts();
        let amount = change.unsigned_abs();
        let too_many = if change > 0 {
            counts.total() + amount > u64::from(limits::UNITS_PER_ITEM_MAX)
        } else {
            amount > u64::from(limits::WITHDRAWN_PER_RECORD_MAX)
        };
        if self.phase == SalePhase::Settled {
            return self.refused(Refusal::SalePhaseWrong);
        }
        if too_many {
            return self.refused(Refusal::QuantityInvalid);
        }
        if change < 0 && amount > u64::from(counts.free) {
            return self.refused(Refusal::StockUnavailable);
        }
        if change > 0 {
            shelf.add(amount as u32);
        } else {
            shelf.withdraw(amount as u32);
        }
        if change != 0 {
            self.next += 1;
        }
        Expected::Sale
    }

    /// Every reason against a purchase under a key that is bound to nothing; the one that is declared first is told.
    fn reasons(&self, wish: &Wish, now: u64) -> Option<Refusal> {
        let item = &self.definition.items[usize::from(wish.item)];
        let own = || self.orders.iter().filter(|order| order.customer == wish.customer);
        let live = |order: &&Order| !matches!(order.status, Status::Returned(_));
        let units = |orders: Vec<&Order>| orders.iter().map(|order| order.units.len() as u32).sum::<u32>();
        let of_item = units(own().filter(live).filter(|order| order.item == wish.item).collect());
        let of_sale = units(own().filter(live).collect());
        let of_pass = own().filter(|order| order.pass == wish.pass).count();
        let free = self.free(wish.item);
        let all = [
            (Refusal::SoldOut, free == 0),
            (Refusal::StockInsufficient, free > 0 && free < wish.quantity),
            (Refusal::CouponRefused, wish.coupon != 0 && !self.coupon_is_free(wish.coupon)),
            (
                Refusal::UnpaidReleases,
                own().filter(|order| order.went_unpaid()).count() >= self.definition.unpaid_releases_max as usize,
            ),
            (Refusal::GrantsExhausted, own().count() >= self.definition.grants_per_customer_max as usize),
            (Refusal::LimitSaleReached, of_sale + wish.quantity > self.definition.limit_per_customer),
            (Refusal::LimitItemReached, of_item + wish.quantity > item.limit_per_customer),
            (Refusal::PassSpent, of_pass >= self.definition.grants_per_pass_max as usize),
            (Refusal::BeforeSlot, now < self.opened_at + u64::from(wish.slot_offset)),
            (Refusal::PassExpired, now >= wish.pass_expires_at.0),
            (Refusal::StorageFull, self.storage_full),
            (Refusal::Paused, self.paused.is_some()),
            (Refusal::Closed, matches!(self.phase, SalePhase::Closed | SalePhase::Settled)),
            (Refusal::NotOpen, self.phase == SalePhase::Planned),
        ];
        all.into_iter().filter(|(_, holds)| *holds).map(|(refusal, _)| refusal).min()
    }

    /// Whether one more order may use the coupon of that hash.
    fn coupon_is_free(&self, hash: u64) -> bool {
        let used =
            self.orders.iter().filter(|order| order.coupon == hash && !matches!(order.status, Status::Returned(_)));
        let coupon = self.definition.coupons.iter().find(|coupon| coupon.hash == Some(hash));
        coupon.is_some_and(|coupon| used.count() < coupon.uses_max as usize)
    }

    /// The refusal that a customer without any order must hear, and from when another try makes sense.
    pub fn refusal(&self, wish: &Wish, now: u64) -> Option<(Refusal, Option<ChainTime>)> {
        let refusal = self.reasons(wish, now)?;
        let from = match refusal {
            Refusal::NotOpen => Some(self.definition.opens_at.0),
            Refusal::BeforeSlot => Some(self.opened_at),
            _ => None,
        };
        Some((refusal, from.map(|from| ChainTime(from + u64::from(wish.slot_offset)))))
    }

    fn find(&self, customer: Pseudonym, purchase: PurchaseId) -> Option<usize> {
        self.orders.iter().position(|order| order.customer == customer && order.purchase == purchase)
    }

    fn order_for(&self, number: PurchaseNumber, customer: Option<Pseudonym>) -> Option<usize> {
        let order = self.orders.get(number.0 as usize)?;
        (customer.is_none() || customer == Some(order.customer)).then_some(number.0 as usize)
    }

    /// What is wrong with an answer, if anything.
    pub fn problem_with(&self, expected: &Expected, answer: &Answer) -> Option<String> {
        match (expected, answer) {
            (Expected::Order(number), Answer::Granted(grant, _)) => self.order_problem(*number, grant),
            (Expected::OrdersOf(customer), Answer::Grants(grants)) => {
                let own: Vec<usize> =
                    (0..self.orders.len()).rev().filter(|number| self.orders[*number].customer == *customer).collect();
                if own.len() != grants.len() {
                    return Some(format!("{} orders of a customer, not {}", grants.len(), own.len()));
                }
                own.iter().zip(grants).find_map(|(number, grant)| self.order_problem(*number, grant))
            }
            (Expected::Sale, Answer::Sale(state)) => {
                let same = state.phase == self.phase && state.paused == self.paused && state.next == self.next;
                (!same).then(|| format!("{state:?}"))
            }
            (Expected::Refused(refusal, at, from), Answer::Refused { refusal: told, position, retry_at }) => {
                let same = (refusal, at, from) == (told, position, retry_at);
                (!same).then(|| format!("{told:?} at {position} {retry_at:?}, not {refusal:?} at {at} {from:?}"))
            }
            (_, answer) => Some(format!("{answer:?}")),
        }
    }

    /// Where the real core stands elsewhere.
    pub fn differs_from(&self, core: &Core, every_order: bool) -> Option<String> {
        let state = core.state();
        let counts: Vec<Counts> = self.shelves.iter().map(Shelf::counts).collect();
        let opened_at = (self.phase != SalePhase::Planned && self.opened_at > 0).then_some(self.opened_at);
        let own = (self.phase, self.paused, self.next, self.now, self.holds(), opened_at.unwrap_or(0));
        let holds = core.held_grants() as usize;
        let real = (state.phase, state.paused, state.next, state.time.0, holds, state.opened_at.map_or(0, |at| at.0));
        if own != real || counts != state.counts {
            return Some(format!("the core has {real:?} {:?}, the naive model {own:?} {counts:?}", state.counts));
        }
        let orders = if every_order { self.orders.len() } else { 0 };
        (0..orders).find_map(|number| match core.grant(PurchaseNumber(number as u32)) {
            Some(grant) => self.order_problem(number, &grant),
            None => Some(format!("order {number} is missing")),
        })
    }
}
