//! The crowd: what each client wants, sends, and was told. It checks its own answers and believes nobody.

use std::collections::BTreeMap;

use admission::{Answer, Command, Core, Grant, GrantStatus, PurchaseRequest, Query, Request, Wish};
use chain::PrivatePart;
use chain::batch::hash;
use chain::head::slot_offset;
use domain::{
    ChainTime, Currency, ParkReason, ParkedPayment, PaymentFact, Pseudonym, PurchaseId, PurchaseNumber, Refusal,
};

use crate::notes::Notes;
use crate::plan::Plan;

/// What a request in the owner's inbox was about.
#[derive(Clone, Debug)]
pub(crate) enum Ticket {
    /// A purchase of this intent with this quantity; the number is the note's.
    Purchase { intent: usize, quantity: u32, request: u64 },
    /// A customer gives an order back.
    Cancel,
    /// The shop was paid for an order.
    Confirm,
    /// Somebody looks, or the operator acts.
    Other,
}

/// What a client knows of its grant.
#[derive(Clone, Debug)]
struct Told {
    grant: Grant,
    /// The body under which it was granted.
    quantity: u32,
    /// Purchases that all clients had sent when this one learnt of it; later ones may not hear anything else.
    requests: u64,
}

/// One thing that a customer wants, under one key.
#[derive(Clone, Debug)]
struct Intent {
    customer: usize,
    purchase: PurchaseId,
    key: u32,
    item: u16,
    quantity: u32,
    told: Option<Told>,
    /// The last answer left nothing open.
    answered: bool,
}

struct Customer {
    pseudonym: Pseudonym,
    slot_offset: u32,
    pass: u64,
    pass_expires_at: ChainTime,
}

/// All clients.
pub(crate) struct Shoppers {
    customers: Vec<Customer>,
    intents: Vec<Intent>,
    passes: u64,
    pub(crate) notes: Notes,
    by_purchase: BTreeMap<PurchaseId, usize>,
    pass_milliseconds: u64,
    items: u16,
    pub(crate) wins: u64,
    pub(crate) refusals: u64,
}

impl Shoppers {
    pub(crate) fn new(plan: &Plan) -> Self {
        let spread = plan.definition.spread_milliseconds;
        let customers = (0..plan.shoppers).map(|number| {
            let mut name = [0; 16];
            name.copy_from_slice(&hash(&[&plan.sale.0, b"customer", &number.to_le_bytes()])[..16]);
            let pseudonym = Pseudonym(name);
            let slot_offset = if spread == 0 { 0 } else { slot_offset(&plan.slot_secret, pseudonym, spread) };
            Customer { pseudonym, slot_offset, pass: 0, pass_expires_at: ChainTime(0) }
        });
        Self {
            customers: customers.collect(),
            intents: Vec::new(),
            passes: 0,
            notes: Notes::default(),
            by_purchase: BTreeMap::new(),
            pass_milliseconds: plan.definition.pass_seconds * 1_000,
            items: plan.definition.items.len() as u16,
            wins: 0,
            refusals: 0,
        }
    }

    /// Somebody wants something, new or again: the purchase and its ticket.
    pub(crate) fn want(&mut self, random: &mut fastrand::Rng, plan: &Plan, wall: u64, time: u64) -> (Request, Ticket) {
        let again = !self.intents.is_empty() && random.u8(0..5) < 3;
        let intent = if again { random.usize(0..self.intents.len()) } else { self.new_intent(random, plan) };
        // A client that shows the same key with another body is broken, and has to hear so.
        let quantity = match random.u8(0..12) {
            0 => random.u32(1..4),
            _ => self.intents[intent].quantity,
        };
        self.take_pass(random, self.intents[intent].customer, wall);
        self.purchase(random, plan, (intent, quantity), time)
    }

    /// The requests of all clients that do not know yet how their purchase ended.
    pub(crate) fn unanswered(
        &mut self,
        random: &mut fastrand::Rng,
        plan: &Plan,
        wall: u64,
        time: u64,
    ) -> Vec<(Request, Ticket)> {
        let open: Vec<usize> = (0..self.intents.len()).filter(|intent| !self.intents[*intent].answered).collect();
        let mut requests = Vec::new();
        for intent in open {
            self.take_pass(random, self.intents[intent].customer, wall);
            requests.push(self.purchase(random, plan, (intent, self.intents[intent].quantity), time));
        }
        requests
    }

    /// From now on every client asks once more before it is content.
    pub(crate) fn ask_all_again(&mut self) {
        self.intents.iter_mut().for_each(|intent| intent.answered = false);
    }

    fn new_intent(&mut self, random: &mut fastrand::Rng, plan: &Plan) -> usize {
        let customer = random.usize(0..self.customers.len());
        let key = self.intents.len() as u32;
        let pseudonym = self.customers[customer].pseudonym;
        let mut purchase = [0; 12];
        purchase.copy_from_slice(&hash(&[&plan.sale.0, &pseudonym.0, &key.to_le_bytes()])[..12]);
        let (item, quantity) = (random.u16(0..self.items), if random.bool() { 1 } else { random.u32(1..4) });
        let purchase = PurchaseId(purchase);
        self.by_purchase.insert(purchase, self.intents.len());
        self.intents.push(Intent { customer, purchase, key, item, quantity, told: None, answered: false });
        self.intents.len() - 1
    }

    /// Most customers take a new pass when the old one is over; some go on with it.
    fn take_pass(&mut self, random: &mut fastrand::Rng, customer: usize, wall: u64) {
        let customer = &mut self.customers[customer];
        let over = customer.pass_expires_at.0 <= wall;
        if customer.pass == 0 || (over && random.u8(0..4) > 0) || random.u8(0..16) == 0 {
            self.passes += 1;
            customer.pass = self.passes;
            customer.pass_expires_at = ChainTime(wall + self.pass_milliseconds);
        }
    }

    fn purchase(
        &mut self,
        random: &mut fastrand::Rng,
        plan: &Plan,
        (index, quantity): (usize, u32),
        time: u64,
    ) -> (Request, Ticket) {
        let intent = &self.intents[index];
        let customer = &self.customers[intent.customer];
        let wish = Wish {
            customer: customer.pseudonym,
            item: intent.item,
            quantity,
            coupon: if random.u8(0..16) == 0 { random.u64(7..10) } else { 0 },
            pass: customer.pass,
            pass_expires_at: customer.pass_expires_at,
            slot_offset: customer.slot_offset,
        };
        let mut hashes = [[0; 16]; 2];
        hashes[0].copy_from_slice(&hash(&[b"key", &intent.key.to_le_bytes()])[..16]);
        hashes[1].copy_from_slice(&hash(&[b"body", &intent.item.to_le_bytes(), &quantity.to_le_bytes()])[..16]);
        let [key_hash, body_hash] = hashes;
        let request = PurchaseRequest { wish, purchase: intent.purchase, key_hash, body_hash };
        let sealed = vec![0x5A; random.usize(plan.private_bytes.clone())];
        let private = PrivatePart { commitment: hash(&[&intent.purchase.0]), sealed };
        let note = self.notes.sent(time, intent.item, intent.customer, intent.key, quantity);
        let ticket = Ticket::Purchase { intent: index, quantity, request: note };
        (Request::Decide(Command::Purchase(request), Some(private)), ticket)
    }

    /// Something that is no purchase: a cancellation, a payment, a look.
    pub(crate) fn act(&mut self, random: &mut fastrand::Rng) -> Option<(Request, Ticket)> {
        if self.intents.is_empty() {
            return None;
        }
        let index = random.usize(0..self.intents.len());
        let intent = &self.intents[index];
        let customer = self.customers[intent.customer].pseudonym;
        let number = intent.told.as_ref().map(|told| told.grant.number);
        // Somebody else's order, or one that nobody has, must look the same.
        let number = if random.u8(0..16) == 0 { Some(PurchaseNumber(random.u32(0..40))) } else { number };
        let decide = |command| Request::Decide(command, None);
        let by = Some(customer).filter(|_| random.u8(0..4) > 0);
        Some(match (random.u8(0..13), number) {
            (8..=12, Some(number)) => (decide(payment(random, number, by)), Ticket::Other),
            (0..=1, Some(number)) => (decide(Command::Cancel { number, customer: by }), Ticket::Cancel),
            (2..=4, Some(number)) => (decide(Command::Confirm { number }), Ticket::Confirm),
            (5, Some(number)) => (Request::Read(Query::Order { number, customer: by }), Ticket::Other),
            (6, _) => (Request::Read(Query::Mine { customer }), Ticket::Other),
            _ => (Request::Read(Query::Purchase { customer, purchase: intent.purchase }), Ticket::Other),
        })
    }

    /// The connection broke before an answer came.
    pub(crate) fn lost(&mut self, ticket: &Ticket, time: u64) {
        if let Ticket::Purchase { intent, request, .. } = ticket {
            self.intents[*intent].answered = false;
            self.notes.lost(*request, time);
        }
    }

    /// A gate refused without asking the owner.
    pub(crate) fn refused_early(
        &mut self,
        ticket: &Ticket,
        (refusal, position): (Refusal, u64),
        time: u64,
    ) -> Result<(), String> {
        self.hear(ticket, &Answer::Refused { refusal, position, retry_at: None }, time)
    }

    /// An answer arrives; what it says must fit everything that was said before.
    pub(crate) fn hear(&mut self, ticket: &Ticket, answer: &Answer, time: u64) -> Result<(), String> {
        match answer {
            Answer::Granted(grant, _) => self.learn(grant)?,
            Answer::Grants(grants) => grants.iter().try_for_each(|grant| self.learn(grant))?,
            Answer::Refused { .. } | Answer::Sale(_) => {}
        }
        match (ticket, answer) {
            (Ticket::Purchase { intent, quantity, request }, answer) => {
                self.hear_purchase((*intent, *quantity, *request), answer)?;
                self.notes.answered(*request, answer, time);
            }
            (Ticket::Cancel, Answer::Granted(grant, _)) if matches!(grant.status, GrantStatus::Released(_)) => {
                self.notes.ended("cancelled", grant.purchase, time);
            }
            (Ticket::Confirm, Answer::Granted(grant, _)) => {
                if grant.status != GrantStatus::Confirmed {
                    return Err(format!("a confirmation was acknowledged, but the order is {:?}", grant.status));
                }
                self.notes.ended("confirmed", grant.purchase, time);
            }
            _ => {}
        }
        Ok(())
    }

    fn hear_purchase(&mut self, (intent, quantity, request): (usize, u32, u64), answer: &Answer) -> Result<(), String> {
        let intent = &mut self.intents[intent];
        match answer {
            Answer::Granted(grant, receipt) => {
                let is_own = grant.purchase == intent.purchase && grant.item == intent.item;
                let told = intent.told.as_ref().ok_or("an unknown purchase was granted")?;
                if !is_own || grant.units.len() != quantity as usize || told.quantity != quantity {
                    return Err(format!("INV-5: {grant:?} answers a request for {quantity} of item {}", intent.item));
                }
                if receipt.as_ref().is_some_and(|receipt| receipt.position != grant.record) {
                    return Err(format!("a receipt names another record than {grant:?}"));
                }
                // Under another quantity the client's own request is still open.
                intent.answered = intent.answered || quantity == intent.quantity;
            }
            Answer::Refused { refusal, .. } => {
                self.refusals += 1;
                let reused = *refusal == Refusal::KeyReused;
                let unknown = *refusal == Refusal::OutcomeUnknown;
                intent.answered = !unknown && (intent.answered || quantity == intent.quantity);
                // Requests under way at once may be decided in any order; one that was sent later may not be.
                let told = intent.told.as_ref().filter(|told| request > told.requests);
                if told.is_some_and(|told| !unknown && (told.quantity == quantity || !reused)) {
                    return Err(format!("INV-5: {refusal:?} although the client was told {told:?}"));
                }
            }
            other => return Err(format!("a purchase was answered with {other:?}")),
        }
        Ok(())
    }

    /// Compares a grant with what was known of it, and keeps it.
    fn learn(&mut self, grant: &Grant) -> Result<(), String> {
        let Some(index) = self.by_purchase.get(&grant.purchase) else {
            return Err(format!("nobody asked for {grant:?}"));
        };
        let intent = &mut self.intents[*index];
        match &mut intent.told {
            Some(told) => {
                follows(&told.grant, grant)?;
                told.grant = grant.clone();
            }
            None => {
                self.wins += 1;
                let (quantity, requests) = (grant.units.len() as u32, self.notes.requests());
                intent.told = Some(Told { grant: grant.clone(), quantity, requests });
            }
        }
        Ok(())
    }

    /// After a restart: every grant that a client was told of is there.
    pub(crate) fn check_durable(&self, core: &Core) -> Result<(), String> {
        for told in self.intents.iter().filter_map(|intent| intent.told.as_ref()) {
            let found = core.grant(told.grant.number).ok_or_else(|| format!("INV-4: {told:?} is gone"))?;
            follows(&told.grant, &found).map_err(|problem| format!("INV-4: {problem}"))?;
        }
        Ok(())
    }

    /// Whether every client has its answer.
    pub(crate) fn all_answered(&self) -> bool {
        self.intents.iter().all(|intent| intent.answered)
    }

    /// Wishes of customers, for looking at a gate's view.
    pub(crate) fn wish_of(request: &Request) -> Option<&Wish> {
        match request {
            Request::Decide(Command::Purchase(purchase), _) => Some(&purchase.wish),
            Request::Decide(..) | Request::Read(_) => None,
        }
    }
}

/// Something that happens to the money for an order: the customer begins, the provider reports, the shop gives back.
fn payment(random: &mut fastrand::Rng, number: PurchaseNumber, by: Option<Pseudonym>) -> Command {
    let attempt = random.u8(0..3);
    let reasons = ParkReason::ALL;
    match random.u8(0..12) {
        0..=4 => Command::BeginPayment { number, customer: by },
        5..=6 => Command::ReportPayment { number, attempt, fact: PaymentFact::Ended },
        7..=8 => Command::ReportPayment { number, attempt, fact: PaymentFact::Paid },
        9 if random.bool() => Command::NamePayment { number, attempt, reference: b"pay_1".to_vec() },
        9 => Command::OrderRefund { number },
        10 => Command::NoteRefund { number, attempt },
        _ => {
            let parked = ParkedPayment {
                reason: reasons[random.usize(0..reasons.len())],
                evidence: random.u64(0..4),
                amount: random.u64(0..1_000),
                currency: Currency(*b"EUR"),
                reference: b"pay_1".to_vec(),
            };
            Command::ParkPayment { number, parked: Box::new(parked) }
        }
    }
}

/// Whether a grant may have become `now` since it was told as `before`.
fn follows(before: &Grant, now: &Grant) -> Result<(), String> {
    let name = |grant: &Grant| (grant.number, grant.purchase, grant.customer, grant.item, grant.price, grant.record);
    let way = match (before.status, now.status) {
        // A late payment may have taken other units.
        (GrantStatus::Held | GrantStatus::Released(_), GrantStatus::Confirmed) => before.units.len() == now.units.len(),
        (GrantStatus::Held, GrantStatus::Held | GrantStatus::Released(_)) => before.units == now.units,
        (earlier, later) => earlier == later && before.units == now.units,
    };
    // Time is only ever given back.
    let fair = before.pay_by <= now.pay_by;
    if way && fair && name(before) == name(now) { Ok(()) } else { Err(format!("{before:?} became {now:?}")) }
}
