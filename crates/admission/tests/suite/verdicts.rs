//! One table for every refusal of a command that is not a purchase: the situation, the command, the answer; nothing changes.

use admission::{Answer, Command, GrantStatus, Query, Request};
use domain::record::{PauseReason, ReleaseReason};
use domain::{PurchaseNumber, Refusal, limits};

use crate::counter::{Counter, counts, customer, definition, granted, purchase, refusal, wish};

const FIRST: PurchaseNumber = PurchaseNumber(0);

fn cancel(by: Option<u32>) -> Command {
    Command::Cancel { number: FIRST, customer: by.map(customer) }
}

fn stock(item: u16, change: i64) -> Command {
    Command::ChangeStock { item, change }
}

/// What happened to a sale of three units in which customer 0 holds two.
#[derive(Clone, Copy, Debug)]
enum Situation {
    Held,
    Confirmed,
    CancelledByCustomer,
    CancelledByShop,
    Expired,
    ExpiredAndSoldToAnother,
    Closed,
    Settled,
}

fn counter_in(situation: Situation) -> Counter {
    let mut counter = Counter::new(&definition(3));
    counter.hold(wish(0, 2), 1);
    match situation {
        Situation::Held => {}
        Situation::Confirmed => drop(counter.tell(Command::Confirm { number: FIRST })),
        Situation::CancelledByCustomer => drop(counter.tell(cancel(Some(0)))),
        Situation::CancelledByShop => drop(counter.tell(cancel(None))),
        Situation::Expired => counter.pass_time(65_000),
        Situation::ExpiredAndSoldToAnother => {
            counter.pass_time(65_000);
            counter.hold(wish(1, 3), 1);
        }
        Situation::Closed => drop(counter.tell(Command::Close)),
        Situation::Settled => {
            counter.tell(cancel(None));
            counter.tell(Command::Close);
            counter.tell(Command::Settle);
        }
    }
    counter
}

#[test]
fn every_refusal_of_the_other_commands_changes_nothing() {
    use Situation::*;
    let most = i64::from(limits::UNITS_PER_ITEM_MAX);
    let table: [(Situation, Command, Refusal); 19] = [
        (Held, Command::Cancel { number: PurchaseNumber(7), customer: None }, Refusal::NotFound),
        (Held, cancel(Some(1)), Refusal::NotFound),
        (Held, Command::Confirm { number: PurchaseNumber(7) }, Refusal::NotFound),
        (Held, stock(2, 1), Refusal::NotFound),
        (Confirmed, cancel(Some(0)), Refusal::OrderConfirmed),
        (Confirmed, cancel(None), Refusal::OrderConfirmed),
        (CancelledByCustomer, cancel(None), Refusal::HoldEnded),
        (CancelledByShop, cancel(Some(0)), Refusal::HoldEnded),
        (Expired, cancel(Some(0)), Refusal::HoldEnded),
        (Expired, cancel(Some(1)), Refusal::NotFound),
        (ExpiredAndSoldToAnother, Command::Confirm { number: FIRST }, Refusal::RefundDue),
        (Settled, Command::Confirm { number: FIRST }, Refusal::RefundDue),
        (Held, stock(0, -2), Refusal::StockUnavailable),
        (Held, stock(0, most), Refusal::QuantityInvalid),
        (Held, stock(1, -i64::from(limits::WITHDRAWN_PER_RECORD_MAX) - 1), Refusal::QuantityInvalid),
        (Held, stock(0, i64::MIN), Refusal::QuantityInvalid),
        (Held, Command::Settle, Refusal::SalePhaseWrong),
        (Closed, Command::Settle, Refusal::SalePhaseWrong),
        (Settled, Command::Pause(PauseReason::Operator), Refusal::SalePhaseWrong),
    ];
    for (situation, command, expected) in table {
        let mut counter = counter_in(situation);
        let before = counter.owner.core().state();
        assert_eq!(refusal(&counter.tell(command.clone())), expected, "{situation:?}, {command:?}");
        assert_eq!(counter.owner.core().state(), before, "{situation:?}, {command:?}");
    }
}

#[test]
fn a_command_that_had_its_effect_has_it_once() {
    for (situation, command) in [
        (Situation::Confirmed, Command::Confirm { number: FIRST }),
        (Situation::CancelledByCustomer, cancel(Some(0))),
        (Situation::CancelledByShop, cancel(None)),
        (Situation::Closed, Command::Close),
        (Situation::Settled, Command::Settle),
        (Situation::Held, Command::Resume),
        (Situation::Held, stock(0, 0)),
    ] {
        let mut counter = counter_in(situation);
        let before = counter.owner.core().state();
        assert!(!matches!(counter.tell(command.clone()), Answer::Refused { .. }), "{situation:?}, {command:?}");
        assert_eq!(counter.owner.core().state(), before, "{situation:?}, {command:?}");
    }
}

#[test]
fn stock_can_be_added_while_closed_and_not_after_settlement() {
    assert!(matches!(counter_in(Situation::Closed).tell(stock(0, 1)), Answer::Sale(_)));
    assert_eq!(refusal(&counter_in(Situation::Settled).tell(stock(0, 1))), Refusal::SalePhaseWrong);
}

#[test]
fn added_units_get_new_numbers_and_withdrawn_ones_never_return() {
    let mut counter = Counter::new(&definition(2));
    counter.tell(stock(0, -2));
    assert_eq!(counter.counts(), counts(0, 0, 0, 2));
    counter.tell(stock(0, 1));
    assert_eq!(counter.hold(wish(0, 1), 1).units[0].number, 2);
    assert_eq!(refusal(&counter.tell(purchase(wish(1, 1), 1))), Refusal::SoldOut);
}

#[test]
fn foreign_and_unknown_objects_look_the_same() {
    let mut counter = counter_in(Situation::Held);
    let (own, other) = (customer(0), customer(1));
    let purchase = counter.grant(FIRST).purchase;
    for (query, expected) in [
        (Query::Purchase { customer: own, purchase }, true),
        (Query::Purchase { customer: other, purchase }, false),
        (Query::Order { number: FIRST, customer: Some(own) }, true),
        (Query::Order { number: FIRST, customer: None }, true),
        (Query::Order { number: FIRST, customer: Some(other) }, false),
        (Query::Order { number: PurchaseNumber(9), customer: None }, false),
    ] {
        let answer = counter.ask(query);
        if expected {
            assert_eq!(granted(&answer).number, FIRST, "{query:?}");
        } else {
            assert_eq!(refusal(&answer), Refusal::NotFound, "{query:?}");
        }
    }
    assert!(matches!(counter.ask(Query::Mine { customer: other }), Answer::Grants(grants) if grants.is_empty()));
}

#[test]
fn a_hold_ends_at_its_deadline_and_grace_and_not_before() {
    let mut counter = counter_in(Situation::Held);
    counter.pass_time(64_999);
    assert_eq!(counter.grant(FIRST).status, GrantStatus::Held);
    counter.pass_time(1);
    assert_eq!(counter.grant(FIRST).status, GrantStatus::Released(ReleaseReason::Expired));
    assert_eq!(counter.counts(), counts(3, 0, 0, 0));
}

/// Whoever fills every batch, by looking at their orders say, keeps no hold beyond its end.
#[test]
fn a_hold_ends_in_a_turn_that_is_full_of_requests() {
    let mut counter = counter_in(Situation::Held);
    counter.pass_time(64_999);
    (counter.wall, counter.monotonic) = (counter.wall + 1, counter.monotonic + 1);
    counter.turn(vec![Request::Read(Query::Sale); limits::BATCH_DECISIONS_MAX]).unwrap();
    assert_eq!(counter.owner.core().counts()[0], counts(3, 0, 0, 0));
}

#[test]
fn a_payment_and_the_expiry_in_one_turn_end_as_paid() {
    let mut counter = counter_in(Situation::Held);
    counter.wall += 65_000;
    // The clocks agree that 65 s passed but no turn came: an outage, given back to the hold.
    counter.monotonic += 65_000;
    assert_eq!(granted(&counter.tell(Command::Confirm { number: FIRST })).status, GrantStatus::Confirmed);
    let mut counter = counter_in(Situation::Held);
    counter.pass_time(64_999);
    counter.wall += 1;
    assert_eq!(granted(&counter.tell(Command::Confirm { number: FIRST })).status, GrantStatus::Confirmed);
}

#[test]
fn an_outage_is_given_back_to_open_holds_only() {
    let mut counter = counter_in(Situation::Held);
    let ended = counter.hold(wish(1, 1), 1);
    counter.tell(Command::Confirm { number: ended.number });
    let before = counter.grant(FIRST).pay_by;
    counter.wall += 40_000;
    counter.monotonic += 40_000;
    counter.tell(Command::Resume);
    assert_eq!(counter.grant(FIRST).pay_by, before.plus(40_000));
    assert_eq!(counter.grant(ended.number).pay_by, ended.pay_by, "an order that has ended keeps its time");
    counter.wall += 30_000;
    let counter = counter.restart();
    assert_eq!(counter.grant(FIRST).pay_by, before.plus(70_000));
}

#[test]
fn time_that_did_not_pass_on_the_chain_is_not_given_back() {
    let mut counter = counter_in(Situation::Held);
    let before = counter.grant(FIRST).pay_by;
    counter.wall -= 100_000;
    counter.monotonic += 10_000;
    counter.tell(Command::Resume);
    assert_eq!(counter.grant(FIRST).pay_by, before);
}

#[test]
fn a_clock_jump_pauses_and_a_small_step_does_not() {
    for (by, paused) in [(2_001, true), (2_000, false), (-2_001, true), (-2_000, false)] {
        let mut counter = counter_in(Situation::Held);
        counter.wall = counter.wall.saturating_add_signed(by);
        counter.turn(Vec::new()).unwrap();
        let expected = paused.then_some(PauseReason::ClockJump);
        assert_eq!(counter.owner.core().state().paused, expected, "{by} ms");
    }
}
