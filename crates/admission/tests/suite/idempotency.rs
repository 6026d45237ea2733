//! One key, one purchase: whatever has happened since, a winner who asks again reads the same (INV-5).

use admission::{Answer, Command, Grant, GrantStatus, Wish};
use domain::record::{PauseReason, ReleaseReason};
use domain::{ChainTime, Refusal};

use crate::counter::{Counter, OPENS_AT, counts, definition, granted, held, purchase, refusal, wish};

/// Customer 0 wins one of two units with key 1.
fn won() -> (Counter, Grant) {
    let mut definition = definition(2);
    definition.grants_per_pass_max = 1;
    definition.limit_per_customer = 1;
    let mut counter = Counter::new(&definition);
    let grant = counter.hold(wish(0, 1), 1);
    (counter, grant)
}

fn retry(counter: &mut Counter) -> Answer {
    // As a gate does: the view may not stand in a winner's way.
    let early = counter.owner.view().refuse_early(&wish(0, 1), ChainTime(counter.wall));
    assert_eq!(early, None);
    counter.tell(purchase(wish(0, 1), 1))
}

#[test]
fn winner_retry_after_sell_out_is_held() {
    let (mut counter, grant) = won();
    counter.hold(wish(1, 1), 1);
    assert_eq!(refusal(&counter.tell(purchase(wish(2, 1), 1))), Refusal::SoldOut);
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_after_closing_is_held() {
    let (mut counter, grant) = won();
    counter.tell(Command::Close);
    assert_eq!(refusal(&counter.tell(purchase(wish(2, 1), 1))), Refusal::Closed);
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_with_spent_pass_is_held() {
    let (mut counter, grant) = won();
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 1), 2))), Refusal::PassSpent);
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_with_expired_pass_and_early_slot_is_held() {
    let (mut counter, grant) = won();
    let late = Wish { pass_expires_at: ChainTime(OPENS_AT), slot_offset: 500_000, coupon: 7, ..wish(0, 1) };
    assert_eq!(held(&counter.tell(purchase(late, 1))), grant);
}

#[test]
fn winner_retry_while_paused_is_held() {
    let (mut counter, grant) = won();
    counter.tell(Command::Pause(PauseReason::Operator));
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_while_the_disk_is_full_is_held() {
    let (mut counter, grant) = won();
    counter.owner.spare_finished(Err(std::io::ErrorKind::StorageFull.into()));
    assert_eq!(refusal(&counter.tell(purchase(wish(2, 1), 1))), Refusal::StorageFull);
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_after_a_restart_is_held() {
    let (counter, grant) = won();
    let mut counter = counter.restart();
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn winner_retry_after_settlement_reads_how_it_ended() {
    let (mut counter, grant) = won();
    counter.tell(Command::Confirm { number: grant.number });
    counter.tell(Command::Close);
    counter.tell(Command::Settle);
    assert_eq!(granted(&retry(&mut counter)).status, GrantStatus::Confirmed);
}

#[test]
fn a_released_purchase_stays_released_under_its_key() {
    let (mut counter, grant) = won();
    counter.tell(Command::Cancel { number: grant.number, customer: Some(grant.customer) });
    let again = granted(&retry(&mut counter));
    assert_eq!(again.status, GrantStatus::Released(ReleaseReason::CancelledByCustomer));
    assert_eq!((again.number, &again.units), (grant.number, &grant.units));
    assert_eq!(counter.counts(), counts(2, 0, 0, 0), "a retry takes nothing");
}

#[test]
fn another_body_under_a_bound_key_is_key_reused_whatever_else_holds() {
    let (mut counter, grant) = won();
    let other = purchase(wish(0, 2), 1);
    assert_eq!(refusal(&counter.tell(other.clone())), Refusal::KeyReused);
    counter.tell(Command::Close);
    assert_eq!(refusal(&counter.tell(other)), Refusal::KeyReused);
    assert_eq!(held(&retry(&mut counter)), grant);
}

#[test]
fn a_refusal_binds_nothing() {
    let mut counter = Counter::new(&definition(1));
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 2), 1))), Refusal::StockInsufficient);
    let grant = counter.hold(wish(0, 1), 1);
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 2), 1))), Refusal::KeyReused);
    assert_eq!(held(&counter.tell(purchase(wish(0, 1), 1))), grant);
}

#[test]
fn the_same_key_of_two_customers_makes_two_purchases() {
    let mut counter = Counter::new(&definition(2));
    let (first, second) = (counter.hold(wish(0, 1), 1), counter.hold(wish(1, 1), 1));
    assert_ne!(first.purchase, second.purchase);
    assert_ne!(first.units, second.units);
}

#[test]
fn hundred_clicks_one_win() {
    let mut counter = Counter::new(&definition(100));
    let clicks = vec![purchase(wish(0, 1), 1); 100];
    let first: Vec<Grant> = counter.decide(clicks.clone()).iter().map(held).collect();
    let later: Vec<Grant> = counter.decide(clicks).iter().map(held).collect();
    assert!(first.iter().chain(&later).all(|grant| *grant == first[0]));
    assert_eq!(counter.counts(), counts(99, 1, 0, 0));
}

#[test]
fn only_the_first_of_many_clicks_carries_the_receipt() {
    let mut counter = Counter::new(&definition(100));
    let answers = counter.decide(vec![purchase(wish(0, 1), 1); 3]);
    let receipts: Vec<bool> = answers.iter().map(|answer| matches!(answer, Answer::Granted(_, Some(_)))).collect();
    assert_eq!(receipts, [true, false, false]);
}
