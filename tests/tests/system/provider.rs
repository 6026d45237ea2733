//! Payments at a provider that keeps books of its own: whatever it does, and whatever dies, both sides agree to the cent.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use standin::{Behaviour, Customers, Outage, Plan, StandIn};
use system_tests::paying::{MoneyBooks, aim, compare, pay, provider_options, provider_settings, statuses, told_of};
use system_tests::{Connection, Customer, Request, Server, eventually_within, open_sale, until};

/// Nothing that was tried in vain is tried again later than after a minute.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// A server whose provider is the stand-in.
fn start(standin: &StandIn) -> Server {
    let server = Server::start_with(&provider_settings(standin).each_ref().map(String::as_str));
    aim(standin, server.public());
    server
}

#[test]
fn an_order_is_paid_at_the_provider_and_refunded_there_once() {
    let mut options = provider_options();
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    let server = start(&standin);
    server.create(&open_sale("drop", 3));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    pay(&ben, &order).is(404, "not_found");
    let begun = pay(&anna, &order).is(201, "");
    let secret = begun.text("client_secret");
    assert_eq!(pay(&anna, &order).is(201, "").text("client_secret"), secret, "the same payment again");
    assert_eq!(standin.books().payments.len(), 1);
    standin.pay(&secret).unwrap();
    until("the callback", || anna.order(&order).code() == "confirmed");
    pay(&anna, &order).is(409, "order_confirmed");
    // A forged callback, and a true one that was seen before.
    let forged = Request::post("/v1/payments/callbacks/stripe").header("stripe-signature", "t=1,v1=00").body(b"{}");
    forged.send(server.public()).is(400, "malformed");
    Request::post("/v1/payments/callbacks/sandbox").body(b"{}").send(server.public()).is(404, "not_found");
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    until("the refund", || statuses(&anna.order(&order).json()) == ["refunded"]);
    let books = standin.books();
    assert_eq!((books.captured["EUR"], books.refunded["EUR"], books.refunds.len()), (4_900, 4_900, 1));
    // A payment under way is ended there when the hold is given back.
    let second = anna.buy("boot", "key-2").is(201, "held").text("order");
    pay(&anna, &second).is(201, "");
    anna.cancel(&second).is(200, "released");
    assert_eq!(statuses(&anna.order(&second).json()), ["ended"]);
    assert!(!standin.books().payments.iter().any(|payment| payment.captured > payment.refunded));
}

/// Somebody edited or copied the names that the provider keeps: whose money it is, only a person can tell.
#[test]
fn money_in_the_name_of_another_attempt_is_parked_and_pays_nothing() {
    let mut options = provider_options();
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    let server = start(&standin);
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let secret = pay(&anna, &order).is(201, "").text("client_secret");
    let attempt = format!("{order}.0");
    told_of("pi_elsewhere", &attempt, 4_900).send(server.public()).is(200, "");
    anna.order(&order).is(200, "held");
    standin.pay(&secret).unwrap();
    until("the callback", || anna.order(&order).code() == "confirmed");
    for _ in 0..2 {
        told_of("pi_third", &attempt, 4_900).send(server.public()).is(200, "");
    }
    assert_eq!(statuses(&anna.order(&order).json()), ["paid"]);
    server.drained("drop");
    let parked = || server.operate(Request::get("/admin/v1/sales/drop/payments/parked")).json()["parked"].clone();
    until("what was parked", || parked().as_array().is_some_and(|parked| parked.len() == 2));
    let told: Vec<_> =
        parked().as_array().unwrap().iter().map(|row| (row["reason"].clone(), row["reference"].clone())).collect();
    assert_eq!(told, [("wrong_order".into(), "pi_elsewhere".into()), ("wrong_order".into(), "pi_third".into())]);
}

#[test]
fn killed_between_a_refund_and_its_record_it_refunds_once() {
    let mut options = provider_options();
    // Only what we ask tells us: no callback says that the money went back.
    options.plan = Plan { weights: vec![(Behaviour::CallbackNever, 1)], ..Plan::default() };
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    let mut server = start(&standin);
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    standin.pay(&pay(&anna, &order).is(201, "").text("client_secret")).unwrap();
    // Nobody tells of it, and the shop cannot wait: it asks for an end, and hears that the money was faster.
    anna.cancel(&order).is(409, "order_confirmed");
    server.terminate();
    server.start_again_with(&["testing.dangerous_fault_point=refunded:1"]);
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    until("the kill", || server.has_ended().is_some());
    let refunded = |standin: &StandIn| (standin.books().refunded["EUR"], standin.books().refunds.len());
    assert_eq!(refunded(&standin), (4_900, 1), "the money is back");
    server.start_again();
    until("the record", || statuses(&anna.order(&order).json()) == ["refunded"]);
    assert_eq!(refunded(&standin), (4_900, 1));
}

/// Two attempts that the provider hears of late, when their holds are over: it never answers for the first, and the second has its money
/// back before that is given up.
#[test]
fn a_call_that_hangs_holds_up_no_other_payment() {
    let mut options = provider_options();
    options.plan.script = [Behaviour::AnswerHangs].into();
    let standin = StandIn::start(options).unwrap();
    let server = start(&standin);
    let mut definition = open_sale("drop", 3);
    (definition.hold_seconds, definition.hold_extension_seconds) = (2, 0);
    server.create(&definition);
    standin.outage(Outage::Unavailable);
    let orders = buy(&server, 0..2);
    pay_all(&orders);
    until("the end of the holds", || server.counts("drop")[1] == 0);
    // Nothing is left for the money that comes.
    let anna = server.customer("anna", "drop");
    let bought = anna.attempt("boot", "key", 3).send().is(201, "held").text("order");
    server.confirm(&bought).is(200, "confirmed");
    standin.outage(Outage::None);
    until("a refund", || standin.books().refunds.len() == 1);
    assert_eq!(standin.hanging(), 1, "nobody has given up yet");
    settled(&server, || {});
    compare(&standin.books(), &told(&server, &orders), &MoneyBooks::read(server.data(), "drop"));
}

/// So many customers pay while the provider does whatever providers do, is away for a while, and our process is killed.
#[test]
fn both_sides_agree_to_the_cent_through_outages_and_kills() {
    let seed = 20_261_125;
    eprintln!("seed {seed}");
    let mut options = provider_options();
    options.plan = Plan { seed, weights: Behaviour::ALL.map(|behaviour| (behaviour, 1)).to_vec(), ..Plan::default() };
    let standin = StandIn::start(options).unwrap();
    let mut server = start(&standin);
    let mut definition = open_sale("drop", 1_000);
    (definition.hold_seconds, definition.hold_extension_seconds) = (8, 4);
    server.create(&definition);
    let mut orders = Vec::new();
    for round in 0..3 {
        if round == 1 {
            standin.outage(Outage::Unavailable);
        }
        let bought = buy(&server, round * 30..(round + 1) * 30);
        pay_all(&bought);
        orders.extend(bought);
        if round == 1 {
            server.kill();
            standin.outage(Outage::None);
            server.start_again();
            aim(&standin, server.public());
        }
    }
    settled(&server, || {
        // Banks come to their end.
        standin.books().payments.iter().for_each(|payment| standin.release(&payment.reference).unwrap_or_default());
    });
    let ended = compare(&standin.books(), &told(&server, &orders), &MoneyBooks::read(server.data(), "drop"));
    let has = |kind: &str| ended.keys().any(|ended| ended.starts_with(kind));
    assert!(has("payment paid") && has("payment ended"), "{ended:?}");
}

/// How many pay, and how long a hold of theirs lives: longer than the crowd takes.
fn length() -> (usize, u64) {
    if std::env::var_os("DOORBUSTER_SOAK").is_some() { (10_000, 60) } else { (200, 6) }
}

/// In a hundred payments five each are late, told twice, of unknown outcome, declined first, and of another amount. Some of the late
/// ones come when the hold ends.
fn troubles(payments: usize, hold_seconds: u64) -> Vec<Behaviour> {
    let in_a_thousand = [
        (Behaviour::Late(1_000), 25),
        (Behaviour::Late(hold_seconds * 1_000), 25),
        (Behaviour::CallbackTwice, 50),
        (Behaviour::AnswerLost, 40),
        (Behaviour::AnswerHangs, 10),
        (Behaviour::DeclinedThenPaid, 50),
        (Behaviour::OtherAmount, 50),
    ];
    let troubles = in_a_thousand.into_iter().flat_map(|(behaviour, share)| vec![behaviour; share * payments / 1_000]);
    let mut all: Vec<_> = troubles.collect();
    all.resize(payments, Behaviour::Plain);
    all
}

/// Two fifths of a crowd have gone to pay when the provider is away; a tenth more go in vain, until every hold has had its time. The other
/// half take all units but a few, and then the provider is back, with the money of those who had theirs before.
#[test]
fn a_crowd_with_every_trouble_and_an_outage_pays_and_is_refunded_to_the_cent() {
    let (payments, hold_seconds) = length();
    let (seed, start_time) = (20_261_126, Instant::now());
    eprintln!("seed {seed}");
    let mut options = provider_options();
    let mut script = troubles(payments, hold_seconds);
    fastrand::Rng::with_seed(seed).shuffle(&mut script);
    options.plan = Plan { seed, script: script.into(), ..Plan::default() };
    options.callback_delay_milliseconds_max = 200;
    let standin = StandIn::start(options).unwrap();
    let server = start(&standin);
    let mut definition = open_sale("drop", payments as u32 * 9 / 10);
    (definition.hold_seconds, definition.hold_extension_seconds) = (hold_seconds, 2);
    server.create(&definition);
    let say = |what: &str| {
        eprintln!(
            "{:6.1} s: {what}; [free, held, sold, withdrawn] are {:?}",
            start_time.elapsed().as_secs_f64(),
            server.counts("drop")
        )
    };
    let mut orders = buy(&server, 0..payments * 4 / 10);
    pay_all(&orders);
    standin.outage(Outage::Unavailable);
    say("the provider is away");
    let in_vain = buy(&server, payments * 4 / 10..payments / 2);
    pay_all(&in_vain);
    eventually_within(SETTLED_WITHIN, "the end of every hold", || (server.counts("drop")[1] == 0).then_some(()));
    say("every hold has ended");
    let late = buy(&server, payments / 2..payments);
    standin.outage(Outage::None);
    say("the provider is back");
    pay_all(&late);
    say("everybody has gone to pay");
    orders.extend(in_vain.into_iter().chain(late));
    settled(&server, || {});
    say("nothing is under way");
    let (theirs, ours) = (standin.books(), MoneyBooks::read(server.data(), "drop"));
    let ended = compare(&theirs, &told(&server, &orders), &ours);
    say("both sides agree");
    eprintln!("{payments} payments: {ended:#?}");
    let parked: u64 = ours.parked.values().map(|(amount, _)| amount).sum();
    let (captured, refunded) = (theirs.captured["EUR"], theirs.refunded["EUR"]);
    let of = |status: &str| ours.sums.get(&(status.to_owned(), "EUR".to_owned())).map_or(0, |(_, amount)| *amount);
    eprintln!("the provider: {captured} cents taken, {refunded} given back");
    eprintln!("the books: {} paid, {} refunded, {parked} parked", of("paid"), of("refunded"));
    assert_eq!((theirs.payments.len(), ours.parked.len()), (payments, payments / 20), "every payment has its trouble");
    assert_eq!((captured, refunded), (of("paid") + of("refunded") + parked, of("refunded")));
    assert!(of("paid") > 0 && of("refunded") > 0);
}

/// Customers with these numbers, each with a unit.
fn buy(server: &Server, numbers: std::ops::Range<usize>) -> Vec<(Customer, String)> {
    let (bought, numbers) = (Mutex::new(Vec::new()), numbers.collect::<Vec<_>>());
    each(&numbers, |number| {
        let customer = server.customer(&format!("customer-{number}"), "drop");
        let order = customer.buy("boot", "key").is(201, "held").text("order");
        bought.lock().unwrap().push((customer, order));
    });
    bought.into_inner().unwrap()
}

/// All go to pay; nobody waits for a provider that is away or does not answer in time.
fn pay_all(orders: &[(Customer, String)]) {
    each(orders, |(customer, order)| drop(pay(customer, order)));
}

/// Many at a time, so that one who waits holds up nobody.
fn each<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| std::iter::from_fn(|| all.get(next.fetch_add(1, Ordering::Relaxed))).for_each(&work));
        }
    });
}

/// Waits until no hold is open and no money is on its way.
fn settled(server: &Server, meanwhile: impl Fn()) {
    eventually_within(SETTLED_WITHIN, "an end of every hold and payment", || {
        meanwhile();
        server.drained("drop");
        let is_settled = server.counts("drop")[1] == 0 && MoneyBooks::read(server.data(), "drop").under_way == 0;
        is_settled.then_some(())
    });
}

/// The orders as their customers see them.
fn told(server: &Server, orders: &[(Customer, String)]) -> BTreeMap<String, Value> {
    let mut connection = Connection::open(server.public()).unwrap();
    let mut ask = |(customer, order): &(Customer, String)| {
        let request = Request::get(&format!("/v1/orders/{order}")).bearer(&customer.token);
        (order.clone(), connection.ask(&request).unwrap().json())
    };
    orders.iter().map(&mut ask).collect()
}
