//! The gates' view: marks are used for strangers only, permits are renewed, and nothing that a gate does can keep units unsold.

use std::sync::Arc;

use admission::view::EarlyRefusal;
use admission::{Command, GrantStatus, Wish};
use domain::{ChainTime, Refusal, limits};

use crate::counter::{Counter, OPENS_AT, customer, definition, granted, purchase, refusal, wish};

const PERMITS: u64 = limits::PERMITS_PER_FREE_UNIT;

/// What a gate says to stranger `number` now.
fn gate(counter: &Counter, number: u32) -> Option<EarlyRefusal> {
    counter.owner.view().refuse_early(&wish(number, 1), ChainTime(counter.wall))
}

/// A sale of two units, sold out to customers 0 and 1; customer 0 has given one back, and it has rested.
fn one_came_back() -> Counter {
    let mut counter = Counter::new(&definition(2));
    let grant = counter.hold(wish(0, 1), 1);
    counter.hold(wish(1, 1), 1);
    assert_eq!(gate(&counter, 9).map(|early| early.refusal), Some(Refusal::SoldOut));
    counter.tell(Command::Cancel { number: grant.number, customer: None });
    wait_for_rest(&mut counter);
    // With all its permits.
    counter.turn(Vec::new()).unwrap();
    counter
}

/// Waits until strangers may have what came back, and gives how many milliseconds that took.
fn wait_for_rest(counter: &mut Counter) -> u64 {
    let start = counter.wall;
    while gate(counter, 9).is_some() {
        counter.wall += 1;
    }
    counter.wall - start
}

/// Against those who give units back in order to take them again at the same moment under another name.
#[test]
fn units_that_came_back_rest_for_a_time_that_nobody_knows() {
    let mut counter = Counter::new(&definition(1));
    let longest = counter.owner.view().definition().resale_delay_milliseconds;
    let mut rests = std::collections::BTreeSet::new();
    for number in 0..20 {
        let grant = counter.hold(wish(100 + number, 1), 1);
        counter.tell(Command::Cancel { number: grant.number, customer: None });
        let rest = wait_for_rest(&mut counter);
        assert!(rest <= longest, "{rest}");
        rests.insert(rest);
    }
    assert!(rests.len() > 15 && rests.last().unwrap() - rests.first().unwrap() > longest / 2, "{rests:?}");
}

#[test]
fn the_sold_out_mark_is_never_used_for_a_holder() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    for _ in 0..1_000 {
        assert!(gate(&counter, 9).is_some());
        assert_eq!(gate(&counter, 0), None);
    }
    // Not even for one whose grant has ended: the key may be the same.
    counter.tell(Command::Cancel { number: grant.number, customer: None });
    counter.hold(wish(1, 1), 1);
    assert_eq!(gate(&counter, 0), None);
    let again = granted(&counter.tell(purchase(wish(0, 1), 1)));
    assert!(matches!(again.status, GrantStatus::Released(_)));
}

#[test]
fn a_mark_rests_on_the_record_that_took_the_last_unit() {
    let mut counter = Counter::new(&definition(1));
    let grant = counter.hold(wish(0, 1), 1);
    let early = gate(&counter, 9).unwrap();
    assert_eq!(early.position, grant.record);
    assert!(early.position <= counter.owner.view().durable_position());
    counter.turn(Vec::new()).unwrap();
    assert!(gate(&counter, 9).unwrap().position <= counter.owner.view().durable_position());
}

/// In a cluster a gate hears of units that came back from whoever brings decisions to the chain.
#[test]
fn a_mark_is_not_believed_while_nobody_tells_what_was_decided() {
    let mut counter = Counter::new(&definition(1));
    counter.hold(wish(0, 1), 1);
    let view = Arc::clone(counter.owner.view());
    view.inform(counter.wall - 999);
    assert_eq!(gate(&counter, 9).map(|early| early.refusal), Some(Refusal::SoldOut));
    view.inform(counter.wall - 1_000);
    assert_eq!(gate(&counter, 9), None, "whoever decides has to be asked");
    view.inform(counter.wall);
    assert!(gate(&counter, 9).is_some());
}

#[test]
fn a_mark_stands_after_a_restart() {
    let mut counter = Counter::new(&definition(1));
    counter.hold(wish(0, 1), 1);
    let counter = counter.restart();
    assert_eq!(gate(&counter, 9).map(|early| early.refusal), Some(Refusal::SoldOut));
    assert_eq!(gate(&counter, 0), None);
}

#[test]
fn a_unit_that_came_back_lets_four_through_and_not_the_crowd() {
    let counter = one_came_back();
    let passed = (0..1_000).filter(|number| gate(&counter, 100 + number).is_none()).count();
    assert_eq!(passed as u64, PERMITS);
}

#[test]
fn permits_are_renewed_by_every_turn() {
    let mut counter = one_came_back();
    for round in 0..5 {
        let passed = (0..50).filter(|number| gate(&counter, 100 + number).is_none()).count();
        assert_eq!(passed as u64, PERMITS, "round {round}");
        // Those who passed asked for more than is free.
        assert_eq!(refusal(&counter.tell(purchase(wish(round, 2), 9))), Refusal::StockInsufficient);
    }
}

#[test]
fn lost_permits_cannot_keep_a_unit_from_being_sold() {
    let mut counter = one_came_back();
    // All who passed are lost on the way, and the owner has nothing to do.
    while gate(&counter, 9).is_none() {}
    assert!(gate(&counter, 9).is_some());
    counter.wall += counter.owner.view().definition().resale_delay_milliseconds;
    for _ in 0..100 {
        assert_eq!(gate(&counter, 9), None, "a unit has been free for as long as sold_out may be told");
    }
    counter.hold(wish(9, 1), 1);
    assert!(gate(&counter, 10).is_some(), "the mark stands again");
}

#[test]
fn a_wall_clock_behind_the_chain_keeps_no_unit_from_being_sold() {
    let mut counter = one_came_back();
    counter.pass_time(5_000);
    while counter.wall > OPENS_AT {
        counter.wall -= 1_000;
        assert_eq!(gate(&counter, 9), None);
    }
}

#[test]
fn the_view_changes_only_with_what_is_durable() {
    let mut counter = Counter::new(&definition(1));
    counter.disk.fail_write_once();
    let failed = counter.turn(vec![admission::Request::Decide(purchase(wish(0, 1), 1), None)]);
    assert!(failed.is_err());
    assert_eq!(gate(&counter, 9), None, "the unit may still be free");
    assert_eq!(counter.owner.view().free(0), 1);
}

#[test]
fn a_batch_that_waited_for_room_is_seen_once_it_is_durable() {
    let mut counter = Counter::new(&definition(400));
    let part = |number: u32| {
        let sealed = vec![0x5A; limits::RECORD_PRIVATE_BYTES_MAX];
        let private = chain::PrivatePart { commitment: [1; 32], sealed };
        admission::Request::Decide(purchase(wish(number, 1), 1), Some(private))
    };
    counter.disk.leave_room(Some(0));
    let mut customers = 0..400;
    // Large records fill the first segment, and there is no room for a second.
    let waiting = loop {
        let number = customers.next().expect("a segment holds fewer");
        let answer = counter.turn(vec![part(number)]).unwrap().pop().unwrap();
        if matches!(&answer, admission::Answer::Refused { refusal: Refusal::OutcomeUnknown, .. }) {
            break number;
        }
    };
    let free = counter.owner.view().free(0);
    assert_eq!(refusal(&counter.tell(purchase(wish(waiting, 1), 1))), Refusal::OutcomeUnknown);
    counter.disk.leave_room(None);
    let late = counter.hold(wish(waiting, 1), 1);
    assert_eq!(late.customer, customer(waiting));
    assert_eq!(counter.owner.view().free(0), free - 1);
    assert_eq!(counter.restart().grant(late.number), late);
}

#[test]
fn gates_leave_the_opening_to_the_owner() {
    let mut definition = definition(1);
    definition.opens_at = ChainTime(OPENS_AT + 1_000);
    let counter = Counter::new(&definition);
    let view = Arc::clone(counter.owner.view());
    let slow = Wish { slot_offset: 700, ..wish(0, 1) };
    let early = view.refuse_early(&slow, ChainTime(OPENS_AT)).unwrap();
    assert_eq!((early.refusal, early.retry_at), (Refusal::NotOpen, Some(ChainTime(OPENS_AT + 1_700))));
    assert_eq!(
        view.refuse_early(&slow, ChainTime(OPENS_AT + 1_000)),
        None,
        "the owner opens the sale with this request"
    );
}
