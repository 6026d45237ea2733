//! Any sequence of requests, clocks and restarts is decided as the naive model decides it: answer by answer, count by count.

use std::collections::BTreeSet;

use admission::{Command, Query, Request};
use domain::record::PauseReason;
use domain::{PaymentFact, PurchaseNumber, SaleDefinition};
use proptest::prelude::*;
use simulator::naive::Naive;

use crate::counter::{Counter, OPENS_AT, coupon, customer, definition, parked, purchase, wish};

#[derive(Clone, Debug)]
enum Event {
    Ask(Request),
    /// Time passes by both clocks, and a turn ends.
    Turn(u64),
    /// The wall clock alone moves.
    Jump(i64),
    StorageFull(bool),
    Restart,
}

fn decide(command: Command) -> Event {
    Event::Ask(Request::Decide(command, None))
}

fn event() -> impl Strategy<Value = Event> {
    let number = || (0..12_u32).prop_map(PurchaseNumber);
    let wishes = (0..4_u32, 0..2_u16, 1..4_u32, 0..6_u32, 0..3_u64, 0..3_u32, 0..20_u8);
    prop_oneof![
        12 => wishes.prop_map(|(who, item, quantity, key, pass, slot, coupon)| {
            let mut wish = wish(who, quantity);
            (wish.item, wish.pass, wish.slot_offset) = (item, pass, slot * 1_500);
            wish.pass_expires_at = domain::ChainTime(OPENS_AT + 20_000 * (pass + 1));
            wish.coupon = if coupon < 4 { 7 + u64::from(coupon % 3) } else { 0 };
            decide(purchase(wish, key))
        }),
        3 => (number(), 0..5_u32).prop_map(|(number, by)| {
            decide(Command::Cancel { number, customer: (by < 4).then(|| customer(by)) })
        }),
        4 => number().prop_map(|number| decide(Command::Confirm { number })),
        4 => (number(), 0..5_u32).prop_map(|(number, by)| {
            decide(Command::BeginPayment { number, customer: (by < 4).then(|| customer(by)) })
        }),
        4 => (number(), 0..3_u8, any::<bool>()).prop_map(|(number, attempt, paid)| {
            let fact = if paid { PaymentFact::Paid } else { PaymentFact::Ended };
            decide(Command::ReportPayment { number, attempt, fact })
        }),
        1 => (number(), 0..20_u64, 1..5_u8).prop_map(|(number, evidence, reason)| {
            decide(Command::ParkPayment { number, parked: Box::new(parked(evidence, reason)) })
        }),
        1 => number().prop_map(|number| decide(Command::OrderRefund { number })),
        1 => (number(), 0..3_u8).prop_map(|(number, attempt)| {
            decide(Command::NamePayment { number, attempt, reference: vec![b'p', b'a' + attempt] })
        }),
        1 => (number(), 0..3_u8).prop_map(|(number, attempt)| decide(Command::NoteRefund { number, attempt })),
        1 => Just(decide(Command::Pause(PauseReason::Operator))),
        2 => Just(decide(Command::Resume)),
        2 => (0..3_u16, -3..4_i64).prop_map(|(item, change)| decide(Command::ChangeStock { item, change })),
        1 => prop_oneof![Just(decide(Command::Close)), Just(decide(Command::Settle))],
        1 => (0..4_u32).prop_map(|who| Event::Ask(Request::Read(Query::Mine { customer: customer(who) }))),
        1 => Just(Event::Ask(Request::Read(Query::Sale))),
        6 => prop_oneof![4 => 0..1_500_u64, 1 => 1_500..30_000_u64].prop_map(Event::Turn),
        1 => prop_oneof![-2_500..2_500_i64, -40_000..40_000_i64].prop_map(Event::Jump),
        1 => any::<bool>().prop_map(Event::StorageFull),
        1 => Just(Event::Restart),
    ]
}

fn sale() -> impl Strategy<Value = SaleDefinition> {
    (0..6_u32, 0..6_u32, 1..5_u32, 1..6_u32, 1..4_u32, 1..6_u32, 1..20_u64).prop_map(
        |(stock, other, of_item, of_sale, of_pass, of_customer, hold_seconds)| {
            let mut definition = definition(stock);
            definition.opens_at = domain::ChainTime(OPENS_AT + 1_000);
            definition.closes_at = domain::ChainTime(OPENS_AT + 60_000);
            definition.items[1].stock = other;
            definition.items[0].limit_per_customer = of_item;
            definition.limit_per_customer = of_sale;
            definition.grants_per_pass_max = of_pass;
            definition.grants_per_customer_max = of_customer;
            definition.hold_seconds = hold_seconds;
            definition.spread_milliseconds = 5_000;
            definition.settle_after_seconds = 10;
            definition.unpaid_releases_max = of_customer;
            definition.hold_extension_seconds = 5 * u64::from(of_pass);
            definition.coupons = vec![coupon(7, 10, 1), coupon(8, 33, 2)];
            definition
        },
    )
}

/// A counter, the naive model beside it, and what both have been asked since the last turn.
struct Pair {
    counter: Counter,
    naive: Naive,
    asked: Vec<Request>,
    storage_full: bool,
}

impl Pair {
    fn turn(&mut self) -> Result<(), TestCaseError> {
        let requests = std::mem::take(&mut self.asked);
        let clocks = (self.counter.wall, self.counter.monotonic);
        let expected = self.naive.turn(clocks, self.storage_full, &requests);
        let answers = self.counter.turn(requests.clone()).unwrap();
        prop_assert_eq!(self.naive.differs_from(self.counter.owner.core(), true), None);
        prop_assert_eq!(answers.len(), expected.len());
        for ((expected, answer), request) in expected.iter().zip(&answers).zip(&requests) {
            prop_assert_eq!(self.naive.problem_with(expected, answer), None, "{:?}", request);
        }
        Ok(())
    }

    fn restart(self) -> Result<Self, TestCaseError> {
        let counter = self.counter.restart();
        let naive = self.naive.reopened((counter.wall, counter.monotonic));
        prop_assert_eq!(naive.differs_from(counter.owner.core(), true), None);
        Ok(Self { counter, naive, asked: Vec::new(), storage_full: false })
    }
}

fn run(definition: &SaleDefinition, events: Vec<Event>) -> Result<(), TestCaseError> {
    let counter = Counter::new(definition);
    let mut naive = Naive::create(definition.clone(), (OPENS_AT, 0));
    naive.turn((OPENS_AT, 0), false, &[]);
    let mut pair = Pair { counter, naive, asked: Vec::new(), storage_full: false };
    for event in events {
        match event {
            Event::Ask(request) => pair.asked.push(request),
            Event::Turn(milliseconds) => {
                pair.counter.wall += milliseconds;
                pair.counter.monotonic += milliseconds;
                pair.turn()?;
            }
            Event::Jump(by) => pair.counter.wall = pair.counter.wall.saturating_add_signed(by),
            Event::StorageFull(true) => {
                pair.counter.owner.spare_finished(Err(std::io::ErrorKind::StorageFull.into()));
                pair.storage_full = true;
            }
            // Making the spare, as the owner's thread does, is what gives the sale free again.
            Event::StorageFull(false) => {
                if let Some(task) = pair.counter.owner.spare_wanted() {
                    let outcome = task.run(&pair.counter.disk);
                    pair.storage_full = outcome.is_err();
                    pair.counter.owner.spare_finished(outcome);
                }
            }
            Event::Restart => pair = pair.restart()?,
        }
    }
    pair.turn()?;
    single_holders(&pair.counter);
    pair.restart().map(drop)
}

/// INV-2, told from the grants alone: no live unit stands in two of them.
fn single_holders(counter: &Counter) {
    let mut live = BTreeSet::new();
    for number in 0.. {
        let Some(grant) = counter.owner.core().grant(PurchaseNumber(number)) else { break };
        if !matches!(grant.status, admission::GrantStatus::Released(_)) {
            assert!(grant.units.iter().all(|unit| live.insert((grant.item, unit.number))), "{grant:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_is_the_naive_models(definition in sale(), events in prop::collection::vec(event(), 1..80)) {
        run(&definition, events)?;
    }
}
