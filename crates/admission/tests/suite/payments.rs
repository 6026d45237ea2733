//! Payments of holds: every way in which an attempt can end, before, at and after every deadline; and money that has to go back.

use admission::{Command, Grant, GrantStatus, Wish};
use domain::record::ReleaseReason;
use domain::{AttemptStatus, PaymentFact, PurchaseNumber, Refusal, SaleDefinition};

use crate::counter::{Counter, counts, coupon, customer, definition, granted, parked, purchase, refusal, wish};

/// The pay-by time and the grace are over, and the extension is, so long after the hold.
const OVER: u64 = 65_000;
const EXTENDED: u64 = OVER + 20_000;
const NUMBER: PurchaseNumber = PurchaseNumber(0);
const EXPIRED: GrantStatus = GrantStatus::Released(ReleaseReason::Expired);

fn sale(stock: u32) -> SaleDefinition {
    SaleDefinition { hold_extension_seconds: 20, ..definition(stock) }
}

fn begin(number: PurchaseNumber) -> Command {
    Command::BeginPayment { number, customer: Some(customer(0)) }
}

fn report(attempt: u8, fact: PaymentFact) -> Command {
    Command::ReportPayment { number: NUMBER, attempt, fact }
}

/// A hold of the only unit, with an attempt to pay it or without, so many milliseconds later.
fn hold_and_wait(attempt: bool, milliseconds: u64) -> Counter {
    let mut counter = Counter::new(&sale(1));
    counter.hold(wish(0, 1), 1);
    if attempt {
        let begun = granted(&counter.tell(begin(NUMBER)));
        assert_eq!(begun.attempts, [AttemptStatus::Open]);
    }
    counter.pass_time(milliseconds);
    counter
}

fn standing(counter: &Counter) -> (GrantStatus, Vec<AttemptStatus>) {
    let Grant { status, attempts, .. } = counter.grant(NUMBER);
    (status, attempts)
}

#[test]
fn every_outcome_of_an_attempt_before_at_and_after_every_deadline() {
    use AttemptStatus::{Ended, Open, Paid};
    use GrantStatus::{Confirmed, Held};
    for (at, while_open, when_ended) in [
        (1_000, Held, Held),
        (OVER - 1, Held, Held),
        (OVER, Held, EXPIRED),
        (OVER + 1, Held, EXPIRED),
        (EXTENDED - 1, Held, EXPIRED),
        (EXTENDED, EXPIRED, EXPIRED),
        (EXTENDED + 1, EXPIRED, EXPIRED),
    ] {
        // The provider says nothing: it is still at it, or cannot be reached.
        assert_eq!(standing(&hold_and_wait(true, at)), (while_open, vec![Open]), "{at}");
        let mut ended = hold_and_wait(true, at);
        ended.tell(report(0, PaymentFact::Ended));
        assert_eq!(standing(&ended), (when_ended, vec![Ended]), "{at}");
        // The money takes the free unit again where the hold is over.
        let mut paid = hold_and_wait(true, at);
        let told = granted(&paid.tell(report(0, PaymentFact::Paid)));
        assert_eq!((told.status, told.attempts), (Confirmed, vec![Paid]), "{at}");
        assert_eq!(paid.counts(), counts(0, 0, 1, 0), "{at}");
        // Without an attempt the hold ends in time, and nothing that is said of one is believed.
        let mut none = hold_and_wait(false, at);
        assert_eq!(standing(&none).0, if at < OVER { Held } else { EXPIRED }, "{at}");
        assert_eq!(refusal(&none.tell(report(0, PaymentFact::Paid))), Refusal::NotFound, "{at}");
    }
}

#[test]
fn reports_count_once_in_any_order_and_after_restarts() {
    for (first, second) in [(PaymentFact::Paid, PaymentFact::Ended), (PaymentFact::Ended, PaymentFact::Paid)] {
        let mut counter = hold_and_wait(true, 1_000);
        counter.tell(report(0, first));
        let mut counter = counter.restart();
        counter.tell(report(0, second));
        let records = counter.owner.log().next();
        counter.tell(report(0, PaymentFact::Paid));
        counter.tell(report(0, PaymentFact::Ended));
        assert_eq!(counter.owner.log().next(), records, "nothing more was decided");
        // Declined and then paid is paid.
        assert_eq!(standing(&counter), (GrantStatus::Confirmed, vec![AttemptStatus::Paid]));
    }
}

/// The hold ended, and somebody else has the unit: the money goes back, once.
#[test]
fn late_money_without_a_unit_is_due_and_goes_back_once() {
    let mut counter = hold_and_wait(true, EXTENDED);
    counter.hold(wish(1, 1), 1);
    let due = granted(&counter.tell(report(0, PaymentFact::Paid)));
    assert_eq!((due.status, due.attempts), (EXPIRED, vec![AttemptStatus::RefundDue]));
    let note = Command::NoteRefund { number: NUMBER, attempt: 0 };
    counter.tell(note.clone());
    let records = counter.owner.log().next();
    // The process died between the refund and its record, so it is told again.
    let mut counter = counter.restart();
    counter.tell(note);
    counter.tell(report(0, PaymentFact::Paid));
    assert_eq!(counter.owner.log().next(), records + 1, "an epoch, and nothing else");
    assert_eq!(standing(&counter).1, [AttemptStatus::Refunded]);
    assert_eq!(counter.counts(), counts(0, 1, 0, 0));
}

#[test]
fn of_two_payments_one_pays_the_order_and_the_other_goes_back() {
    let mut counter = hold_and_wait(true, 1_000);
    counter.tell(report(0, PaymentFact::Ended));
    assert_eq!(granted(&counter.tell(begin(NUMBER))).attempts, [AttemptStatus::Ended, AttemptStatus::Open]);
    counter.tell(report(1, PaymentFact::Paid));
    // The first was declined, and went through after all.
    let both = granted(&counter.tell(report(0, PaymentFact::Paid)));
    assert_eq!(
        (both.status, both.attempts),
        (GrantStatus::Confirmed, vec![AttemptStatus::RefundDue, AttemptStatus::Paid])
    );
    // The shop gives the other one back too; the unit stays sold.
    let back = granted(&counter.tell(Command::OrderRefund { number: NUMBER }));
    assert_eq!(back.attempts, [AttemptStatus::RefundDue, AttemptStatus::RefundDue]);
    assert_eq!(counter.counts(), counts(0, 0, 1, 0));
    assert_eq!(refusal(&counter.tell(Command::OrderRefund { number: PurchaseNumber(7) })), Refusal::NotFound);
}

#[test]
fn what_is_being_paid_is_not_given_back_and_an_attempt_has_its_time() {
    let mut counter = hold_and_wait(true, 1_000);
    for asks in [Some(customer(0)), None] {
        let told = counter.tell(Command::Cancel { number: NUMBER, customer: asks });
        assert_eq!(refusal(&told), Refusal::PaymentOpen);
    }
    let again = granted(&counter.tell(begin(NUMBER)));
    assert_eq!(again.attempts.len(), 1, "the attempt that is open is the one to go on with");
    let stranger = Command::BeginPayment { number: NUMBER, customer: Some(customer(1)) };
    assert_eq!(refusal(&counter.tell(stranger)), Refusal::NotFound);
    counter.tell(report(0, PaymentFact::Ended));
    for attempt in 1..16 {
        counter.tell(begin(NUMBER));
        counter.tell(report(attempt, PaymentFact::Ended));
    }
    assert_eq!(refusal(&counter.tell(begin(NUMBER))), Refusal::PaymentsExhausted);
    assert_eq!(refusal(&counter.tell(Command::OrderRefund { number: NUMBER })), Refusal::NothingToRefund);
    // In the grace that is left nobody begins to pay any more.
    let mut counter = hold_and_wait(false, 60_000);
    assert_eq!(refusal(&counter.tell(begin(NUMBER))), Refusal::HoldEnded);
}

#[test]
fn what_is_not_believed_is_kept_once_and_changes_nothing() {
    let mut counter = hold_and_wait(true, 1_000);
    let records = counter.owner.log().next();
    for evidence in [1, 2, 1, 2] {
        let command = Command::ParkPayment { number: NUMBER, parked: Box::new(parked(evidence, 1)) };
        assert_eq!(granted(&counter.tell(command)).status, GrantStatus::Held);
    }
    assert_eq!(counter.owner.log().next(), records + 2);
    assert_eq!(standing(&counter), (GrantStatus::Held, vec![AttemptStatus::Open]));
}

/// Money under way keeps a sale from being settled, since a settled chain takes no more records.
#[test]
fn a_sale_is_settled_when_its_money_is() {
    let mut counter = Counter::new(&SaleDefinition { settle_after_seconds: 600, ..sale(1) });
    counter.hold(wish(0, 1), 1);
    counter.tell(begin(NUMBER));
    counter.pass_time(EXTENDED);
    counter.tell(Command::Close);
    assert_eq!(refusal(&counter.tell(Command::Settle)), Refusal::SalePhaseWrong, "the attempt is open");
    counter.tell(report(0, PaymentFact::Paid));
    counter.tell(Command::OrderRefund { number: NUMBER });
    assert_eq!(refusal(&counter.tell(Command::Settle)), Refusal::SalePhaseWrong, "money has to go back");
    counter.pass_time(700_000);
    assert_eq!(counter.owner.core().state().phase, domain::SalePhase::Closed);
    counter.tell(Command::NoteRefund { number: NUMBER, attempt: 0 });
    assert_eq!(counter.owner.core().state().phase, domain::SalePhase::Settled, "and then it settles by itself");
}

#[test]
fn a_coupon_is_used_as_often_as_it_may_and_comes_back_with_a_release() {
    let mut definition = sale(10);
    definition.coupons = vec![coupon(7, 33, 1)];
    let mut counter = Counter::new(&definition);
    let with = |number: u32| Wish { coupon: 7, ..wish(number, 1) };
    let first = counter.hold(with(0), 1);
    assert_eq!(first.price, 4_900 - 1_617, "33 % of 49.00 are 16.17");
    assert_eq!(refusal(&counter.tell(purchase(with(1), 1))), Refusal::CouponRefused);
    let unknown = Wish { coupon: 8, ..wish(1, 1) };
    assert_eq!(refusal(&counter.tell(purchase(unknown, 2))), Refusal::CouponRefused);
    counter.tell(Command::Cancel { number: first.number, customer: None });
    let second = counter.hold(with(1), 1);
    // The first comes back late, and its coupon is with the second.
    assert_eq!(refusal(&counter.tell(Command::Confirm { number: first.number })), Refusal::RefundDue);
    counter.tell(Command::Cancel { number: second.number, customer: None });
    let late = granted(&counter.tell(Command::Confirm { number: first.number }));
    assert_eq!((late.status, late.price), (GrantStatus::Confirmed, first.price));
    let counter = counter.restart();
    assert_eq!(counter.grant(first.number).price, first.price, "the chain knows the coupon");
}

#[test]
fn who_lets_too_many_go_gets_no_more() {
    let mut definition = sale(10);
    definition.unpaid_releases_max = 2;
    let mut counter = Counter::new(&definition);
    for key in 0..2 {
        let grant = counter.hold(wish(0, 1), key);
        counter.tell(Command::Cancel { number: grant.number, customer: Some(customer(0)) });
    }
    assert_eq!(refusal(&counter.tell(purchase(wish(0, 1), 9))), Refusal::UnpaidReleases);
    counter.hold(wish(1, 1), 1);
    // What the shop took back is not counted, and what was paid late after all is not any more.
    counter.tell(Command::Confirm { number: NUMBER });
    counter.hold(wish(0, 1), 9);
}
