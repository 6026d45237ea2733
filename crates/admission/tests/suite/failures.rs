//! Failures that other sale engines shipped, each a test with its number. Those of the books and of payments by provider are
//! tested where those live.

use admission::{Command, GrantStatus, OwnerError, Query, Request};
use chain::AppendError;
use domain::record::ReleaseReason;
use domain::{ChainTime, Refusal};

use crate::counter::{Counter, counts, customer, definition, granted, held, purchase, refusal, wish};

fn decide(command: Command) -> Vec<Request> {
    vec![Request::Decide(command, None)]
}

#[test]
fn f01_a_crash_between_taking_and_telling_loses_no_unit() {
    for operations in 0..4 {
        let mut counter = Counter::new(&definition(1));
        counter.disk.lose_power_after(operations);
        let told = counter.turn(decide(purchase(wish(0, 1), 1)));
        let mut counter = counter.lose_power();
        let counted = counter.counts();
        assert!(counted == counts(1, 0, 0, 0) || counted == counts(0, 1, 0, 0), "{operations}: {counted:?}");
        assert!(told.is_err() || counted.held == 1, "{operations}: a win that was told is there");
        // Whoever it was asks again and has the unit, once.
        held(&counter.tell(purchase(wish(0, 1), 1)));
        assert_eq!(counter.counts(), counts(0, 1, 0, 0));
    }
}

#[test]
fn f02_nobody_is_told_of_a_win_that_may_be_lost() {
    let mut counter = Counter::new(&definition(1));
    counter.disk.fail_sync_once();
    let mut inbox = decide(purchase(wish(0, 1), 1)).into_iter().map(|request| (request, ())).collect();
    let mut answers = Vec::new();
    let outcome = counter.owner.step(counter.wall, counter.monotonic, &mut inbox, &mut answers);
    assert!(matches!(outcome, Err(OwnerError::Append(AppendError::Unknown(_)))), "the process has to end");
    assert_eq!(refusal(&answers[0].1), Refusal::OutcomeUnknown);
}

#[test]
fn f03_an_unknown_outcome_is_neither_undone_nor_sold_again() {
    let mut counter = Counter::new(&definition(1));
    counter.disk.fail_sync_once();
    counter.turn(decide(purchase(wish(0, 1), 1))).unwrap_err();
    // The page cache still has the batch: the next process finds it, and makes it durable before it answers.
    let mut counter = counter.restart();
    let left = counter.counts();
    let other = counter.tell(purchase(wish(1, 1), 1));
    let own = counter.tell(purchase(wish(0, 1), 1));
    match left.free {
        0 => assert_eq!((held(&own).customer, refusal(&other)), (customer(0), Refusal::SoldOut)),
        _ => assert_eq!((held(&other).customer, refusal(&own)), (customer(1), Refusal::SoldOut)),
    }
    assert_eq!(counter.counts(), counts(0, 1, 0, 0));
}

#[test]
fn f04_a_double_click_takes_one_unit() {
    let mut counter = Counter::new(&definition(2));
    let answers = counter.decide(vec![purchase(wish(0, 1), 1), purchase(wish(0, 1), 1)]);
    assert_eq!(held(&answers[0]), held(&answers[1]));
    held(&counter.tell(purchase(wish(1, 1), 1)));
    assert_eq!(counter.counts(), counts(0, 2, 0, 0), "both units were sold, to two customers");
}

#[test]
fn f05_a_restart_has_the_stock_of_the_chain() {
    let mut counter = Counter::new(&definition(5));
    let first = counter.hold(wish(0, 2), 1);
    counter.hold(wish(1, 1), 1);
    counter.tell(Command::Confirm { number: first.number });
    counter.tell(Command::ChangeStock { item: 0, change: -1 });
    let before = counter.counts();
    assert_eq!(before, counts(1, 1, 2, 1));
    assert_eq!(counter.restart().lose_power().counts(), before);
}

#[test]
fn f06_n_units_sell_exactly_n() {
    for stock in [1, 2, 3, 17] {
        let mut counter = Counter::new(&definition(stock));
        let clicks = (0..stock + 5).map(|number| purchase(wish(number, 1), 1)).collect();
        let answers = counter.decide(clicks);
        assert!(answers[..stock as usize].iter().all(|answer| held(answer).units.len() == 1));
        assert!(answers[stock as usize..].iter().all(|answer| refusal(answer) == Refusal::SoldOut));
        assert_eq!(counter.counts(), counts(0, stock, 0, 0));
    }
}

#[test]
fn f08_a_customer_who_fails_closes_the_item_for_nobody() {
    let mut definition = definition(2);
    definition.limit_per_customer = 1;
    let mut counter = Counter::new(&definition);
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 2), 1))), Refusal::LimitSaleReached);
    assert_eq!(
        refusal(&counter.tell(purchase(admission::Wish { coupon: 7, ..wish(0, 1) }, 2))),
        Refusal::CouponRefused
    );
    assert_eq!(counter.owner.view().refuse_early(&wish(1, 1), ChainTime(counter.wall)), None);
    held(&counter.tell(purchase(wish(1, 1), 1)));
}

#[test]
fn f09_a_unit_that_returns_clears_the_sold_out_mark() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    let now = ChainTime(counter.wall);
    let early = counter.owner.view().refuse_early(&wish(1, 1), now).unwrap();
    assert_eq!((early.refusal, early.position), (Refusal::SoldOut, grant.record));
    counter.tell(Command::Cancel { number: grant.number, customer: None });
    // It rests for a while that nobody can know, and no longer than this.
    counter.pass_time(definition(1).resale_delay_milliseconds);
    let now = ChainTime(counter.wall);
    assert_eq!(counter.owner.view().refuse_early(&wish(1, 1), now), None);
    held(&counter.tell(purchase(wish(1, 1), 1)));
    assert!(counter.owner.view().refuse_early(&wish(2, 1), now).is_some());
}

#[test]
fn f11_a_full_disk_refuses_aloud_and_drops_nothing() {
    let mut counter = Counter::new(&definition(5));
    let grant = counter.hold(wish(0, 1), 1);
    counter.disk.leave_room(Some(0));
    let task = counter.owner.spare_wanted().expect("passes are given out, so a spare is wanted");
    let outcome = task.run(&counter.disk);
    assert!(outcome.is_err());
    counter.owner.spare_finished(outcome);
    assert_eq!(refusal(&counter.tell(purchase(wish(1, 1), 1))), Refusal::StorageFull);
    // Payments and releases go on.
    assert_eq!(granted(&counter.tell(Command::Confirm { number: grant.number })).status, GrantStatus::Confirmed);
    counter.disk.leave_room(None);
    counter.pass_time(1_000);
    let task = counter.owner.spare_wanted().expect("it is asked for again");
    let outcome = task.run(&counter.disk);
    counter.owner.spare_finished(outcome);
    held(&counter.tell(purchase(wish(1, 1), 1)));
}

#[test]
fn f13_unpaid_holds_end_although_the_process_died() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    let mut counter = counter.restart();
    counter.pass_time(64_000);
    assert_eq!(counter.grant(grant.number).status, GrantStatus::Held);
    counter.pass_time(2_000);
    assert_eq!(counter.grant(grant.number).status, GrantStatus::Released(ReleaseReason::Expired));
    assert_eq!(counter.counts(), counts(1, 0, 0, 0));
}

#[test]
fn f14_a_unit_returns_once() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    let cancel = |by| Command::Cancel { number: grant.number, customer: by };
    counter.decide(vec![cancel(Some(grant.customer)), cancel(Some(grant.customer)), cancel(None)]);
    counter.pass_time(70_000);
    let mut counter = counter.restart();
    counter.tell(cancel(Some(grant.customer)));
    assert_eq!(counter.counts(), counts(1, 0, 0, 0));
    let again = counter.hold(wish(1, 1), 1);
    assert_eq!(again.units[0].generation, grant.units[0].generation + 1);
    assert_eq!(refusal(&counter.tell(purchase(wish(2, 1), 1))), Refusal::SoldOut);
}

#[test]
fn f16_checking_and_taking_are_one_decision() {
    let mut definition = definition(1);
    definition.limit_per_customer = 1;
    let mut counter = Counter::new(&definition);
    // Two customers and one unit, one customer and two keys, all in one batch.
    let sock = |number| admission::Wish { item: 1, ..wish(number, 1) };
    let answers = counter.decide(vec![
        purchase(wish(0, 1), 1),
        purchase(wish(1, 1), 1),
        purchase(sock(2), 1),
        purchase(sock(2), 2),
    ]);
    assert_eq!(held(&answers[0]).customer, customer(0));
    assert_eq!(refusal(&answers[1]), Refusal::SoldOut);
    assert_eq!(held(&answers[2]).customer, customer(2));
    assert_eq!(refusal(&answers[3]), Refusal::LimitSaleReached);
}

#[test]
fn f17_all_purchases_of_a_customer_are_added_up() {
    let mut definition = definition(50);
    definition.limit_per_customer = 5;
    definition.items[0].limit_per_customer = 4;
    let mut counter = Counter::new(&definition);
    let sock = |quantity| admission::Wish { item: 1, ..wish(0, quantity) };
    let first = counter.hold(wish(0, 3), 1);
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 2), 2))), Refusal::LimitItemReached);
    assert_eq!(refusal(&counter.tell(purchase(sock(3), 3))), Refusal::LimitSaleReached);
    counter.hold(sock(2), 4);
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 1), 5))), Refusal::LimitSaleReached);
    // What was given back counts no longer; what was paid does.
    counter.tell(Command::Cancel { number: first.number, customer: None });
    counter.hold(wish(0, 3), 6);
    counter.tell(Command::Confirm { number: counter.owner.core().grants_of(customer(0))[0].number });
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 1), 7))), Refusal::LimitSaleReached);
}

#[test]
fn f18_money_after_the_end_of_a_hold_takes_a_unit_again_or_is_refunded() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    counter.pass_time(66_000);
    let late = granted(&counter.tell(Command::Confirm { number: grant.number }));
    assert_eq!(late.status, GrantStatus::Confirmed);
    assert_eq!(late.units[0].generation, 1, "the unit of the next generation");
    assert_eq!(counter.counts(), counts(0, 0, 1, 0));

    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    counter.pass_time(66_000);
    counter.hold(wish(1, 1), 1);
    let confirm = Command::Confirm { number: grant.number };
    assert_eq!(refusal(&counter.tell(confirm.clone())), Refusal::RefundDue);
    assert_eq!(counter.counts(), counts(0, 1, 0, 0), "the second customer keeps the unit");
    let order = Query::Order { number: grant.number, customer: None };
    assert_eq!(granted(&counter.ask(order)).status, GrantStatus::Released(ReleaseReason::Expired));
}

#[test]
fn f18_a_late_payment_keeps_to_the_limit() {
    let mut definition = definition(5);
    definition.limit_per_customer = 1;
    let mut counter = Counter::new(&definition);
    let first = counter.hold(wish(0, 1), 1);
    counter.pass_time(66_000);
    counter.hold(wish(0, 1), 2);
    assert_eq!(refusal(&counter.tell(Command::Confirm { number: first.number })), Refusal::RefundDue);
}
