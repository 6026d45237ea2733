//! Failures that other sale engines shipped, by the number that they have in the list of them; each has its test here or, where
//! a number is missing, in the tests of a part: nothing that a whole process does can fail that way.

use std::sync::Barrier;

use domain::{ChainTime, SaleDefinition};
use serde_json::{Value, json};
use system_tests::{Customer, Reply, Request, Server, audit_is_complete, eventually, item, open_sale, sale_of, until};

/// Everybody at once; the replies in the order of the customers.
fn at_once<T: Sync, R: Send>(all: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let ready = Barrier::new(all.len());
    std::thread::scope(|scope| {
        let (ready, act) = (&ready, &act);
        let threads: Vec<_> = all
            .iter()
            .map(|one| {
                scope.spawn(move || {
                    ready.wait();
                    act(one)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn customers(server: &Server, sale: &str, count: usize) -> Vec<Customer> {
    (0..count).map(|number| server.customer(&format!("customer-{number}"), sale)).collect()
}

fn count(replies: &[Reply], code: &str) -> usize {
    replies.iter().filter(|reply| reply.code() == code).count()
}

/// Dies at a stage of the next purchase, which is left without an answer.
fn lose_a_purchase(server: &mut Server, customer: &Customer, stage: &str) {
    server.terminate();
    // Opening the sale makes one batch durable; the purchase's is the second.
    let passage = if stage == "chained" { 2 } else { 1 };
    server.start_again_with(&[&format!("testing.dangerous_fault_point={stage}:{passage}")]);
    customer.attempt("boot", "lost", 1).try_send().unwrap_err();
    until("the fault", || server.has_ended().is_some());
    server.start_again();
}

#[test]
fn f02_what_was_told_is_durable_and_what_was_not_durable_was_told_to_nobody() {
    for (stage, chained) in [("received", 0), ("gated", 0), ("decided", 0), ("chained", 1), ("answered", 1)] {
        let mut server = Server::start();
        server.create(&open_sale("drop", 5));
        let anna = server.customer("anna", "drop");
        lose_a_purchase(&mut server, &anna, stage);
        assert_eq!(server.counts("drop"), [5 - chained, chained, 0, 0], "{stage}");
        let status = if chained == 1 { 200 } else { 201 };
        anna.buy("boot", "lost").is(status, "held");
        assert_eq!(server.counts("drop"), [4, 1, 0, 0], "{stage}");
    }
}

#[test]
fn f03_an_unknown_outcome_is_neither_given_back_nor_sold_twice() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 1));
    let anna = server.customer("anna", "drop");
    let ben = server.customer("ben", "drop");
    lose_a_purchase(&mut server, &anna, "chained");
    ben.buy("boot", "key").is(409, "sold_out");
    anna.buy("boot", "lost").is(200, "held");
    server.drained("drop");
    assert_eq!(server.orders("drop").len(), 1);
}

#[test]
fn f04_a_double_click_takes_one_unit() {
    let server = Server::start();
    server.create(&SaleDefinition { limit_per_customer: 1, ..open_sale("drop", 20) });
    let people = customers(&server, "drop", 20);
    let clicks: Vec<_> = people.iter().chain(&people).chain(&people).collect();
    let replies = at_once(&clicks, |customer| customer.buy("boot", "click"));
    assert_eq!(count(&replies, "held"), 60, "every click of a winner reads the same");
    assert_eq!(server.counts("drop"), [0, 20, 0, 0], "nothing is left over and nothing is missing");
}

#[test]
fn f05_a_restart_does_not_take_stock_from_books_that_are_behind() {
    let mut server = Server::start_with(&["books.records_per_second_max=1"]);
    server.create(&open_sale("drop", 40));
    let anna = server.customer("anna", "drop");
    for number in 0..30 {
        anna.buy("boot", &format!("key-{number}")).is(201, "held");
    }
    server.kill();
    server.start_again();
    assert!(server.sale("drop")["books_lag"].as_u64().unwrap() > 0, "the books are behind");
    assert_eq!(server.counts("drop"), [10, 30, 0, 0]);
    let replies: Vec<_> = (30..50).map(|number| anna.buy("boot", &format!("key-{number}"))).collect();
    assert_eq!((count(&replies, "held"), count(&replies, "sold_out")), (10, 10));
}

#[test]
fn f06_n_units_sell_exactly_n() {
    let server = Server::start();
    server.create(&open_sale("drop", 37));
    let replies = at_once(&customers(&server, "drop", 150), |customer| customer.buy("boot", "key"));
    assert_eq!((count(&replies, "held"), count(&replies, "sold_out")), (37, 113));
    assert_eq!(server.counts("drop"), [0, 37, 0, 0]);
}

#[test]
fn f08_one_failed_customer_closes_the_sale_for_nobody_else() {
    let server = Server::start();
    let mut boots = item("boot", 5);
    boots.limit_per_customer = 3;
    server.create(&sale_of("drop", vec![boots, item("sock", 1)]));
    let ben = server.customer("ben", "drop");
    ben.attempt("boot", "many", 5).send().is(409, "limit_item_reached");
    ben.attempt("sock", "two", 2).send().is(409, "stock_insufficient");
    let coupon = ben.attempt("boot", "coupon", 1).changed(|request| request.json(&json!({ "coupon": "X" })));
    coupon.request().send(server.public()).is(409, "coupon_refused");
    ben.buy("sock", "one").is(201, "held");
    ben.buy("sock", "another").is(409, "sold_out");
    let anna = server.customer("anna", "drop");
    anna.buy("sock", "one").is(409, "sold_out");
    anna.attempt("boot", "three", 3).send().is(201, "held");
    server.customer("cleo", "drop").attempt("boot", "two", 2).send().is(201, "held");
}

#[test]
fn f09_the_sold_out_mark_is_cleared_when_units_return() {
    let server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 3, resale_delay_milliseconds: 1_000, ..open_sale("drop", 1) });
    let anna = server.customer("anna", "drop");
    let people = customers(&server, "drop", 41);
    let (early, people) = people.split_last().unwrap();
    let first = anna.buy("boot", "key").is(201, "held");
    assert_eq!(count(&at_once(people, |customer| customer.buy("boot", "early")), "sold_out"), 40);
    assert_eq!(server.ask(&Request::get("/v1/sales/drop")).json()["items"][0]["available"], "may_return");
    anna.cancel(&first.text("order")).is(200, "released");
    assert_eq!(server.ask(&Request::get("/v1/sales/drop")).json()["items"][0]["available"], "yes");
    // It rests for a second at most; then whoever asks gets it.
    until("the end of its rest", || early.buy("boot", "returned").code() == "held");
    let second = at_once(people, |customer| customer.buy("boot", "returned"));
    assert_eq!(count(&second, "sold_out"), 40, "one unit came back, one is sold");
    until("the expiry and a stranger's win", || people[7].buy("boot", "expired").code() == "held");
    let stock = Request::post("/admin/v1/sales/drop/items/boot/stock").json(&json!({ "change": 1 }));
    server.operate(stock).is(200, "");
    let added =
        eventually("a unit that was added", || Some(people[8].buy("boot", "more")).filter(|reply| reply.status == 201));
    assert_eq!(added.json()["units"][0]["number"], 1);
}

#[test]
fn f10_f11_a_slow_order_service_drops_nothing_however_late_and_however_much() {
    let mut server = Server::start_with(&["books.records_per_second_max=1"]);
    server.create(&open_sale("drop", 1_000));
    let people = customers(&server, "drop", 20);
    let orders = at_once(&people, |customer| {
        (0..20).map(|number| customer.buy("boot", &format!("key-{number}")).is(201, "held").text("order")).collect()
    });
    let orders: Vec<String> = orders.into_iter().flat_map(|orders: Vec<String>| orders).collect();
    let sold_at = now(&server);
    until("records that others would have dropped as too old", || now(&server) > sold_at + 5_500);
    assert!(server.sale("drop")["books_lag"].as_u64().unwrap() > 100);
    server.kill();
    server.start_again_with(&["books.records_per_second_max=0"]);
    server.drained("drop");
    let mut found: Vec<_> =
        server.orders("drop").iter().map(|order| order["order"].as_str().unwrap().to_owned()).collect();
    let mut told = orders;
    found.sort();
    told.sort();
    assert_eq!(found, told);
}

fn now(server: &Server) -> u64 {
    server.ask(&Request::get("/v1/time")).json()["unix_ms"].as_u64().unwrap()
}

#[test]
fn f12_the_chain_is_believed_and_not_the_books() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    server.confirm(&order).is(200, "confirmed");
    anna.buy("boot", "open").is(201, "held");
    server.drained("drop");
    server.terminate();
    let books = server.data().join("books.sqlite");
    let forge = |sql: &str| rusqlite::Connection::open(&books).unwrap().execute(sql, []).unwrap();
    assert_eq!(forge("UPDATE orders SET status = 'released' WHERE number = 0"), 1);
    assert_eq!(forge("UPDATE inventory SET free = free + 1, sold = sold - 1"), 1);
    let audit = system_tests::doorbuster(&["audit", "--json", "--data", server.data().to_str().unwrap()]);
    assert_eq!(audit.code, Some(1), "the auditor sees it: {audit:?}");
    server.start_again();
    assert_eq!(server.counts("drop"), [3, 1, 1, 0], "nobody sells by the books");
    anna.order(&order).is(200, "confirmed");
    server.terminate();
    for file in ["books.sqlite", "books.sqlite-wal", "books.sqlite-shm"] {
        // The last two are there only after a crash.
        let _ = std::fs::remove_file(server.data().join(file));
    }
    server.start_again();
    server.drained("drop");
    assert_eq!(server.orders("drop")[0]["status"], "confirmed");
}

#[test]
fn f13_unpaid_orders_are_closed_although_the_process_died() {
    let mut server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 1, ..open_sale("drop", 2) });
    let anna = server.customer("anna", "drop");
    let orders = ["a", "b"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    for _ in 0..3 {
        server.kill();
        server.start_again();
    }
    for order in &orders {
        until("the end of an unpaid order", || anna.order(order).code() == "released");
        assert_eq!(anna.order(order).json()["release_reason"], "expired");
    }
    server.customer("ben", "drop").attempt("boot", "both", 2).send().is(201, "held");
}

#[test]
fn f14_stock_is_returned_once() {
    let server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 1, ..open_sale("drop", 10) });
    let anna = server.customer("anna", "drop");
    let orders = ["a", "b", "c"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    let who: Vec<_> = (0..30).collect();
    for order in &orders {
        at_once(&who, |number| match number % 2 {
            0 => anna.cancel(order).status,
            _ => server.operate(Request::post(&format!("/admin/v1/orders/{order}/cancel"))).status,
        });
    }
    until("the end of every hold", || server.counts("drop")[1] == 0);
    assert_eq!(server.counts("drop"), [10, 0, 0, 0]);
}

#[test]
fn f16_a_limit_is_checked_where_the_unit_is_taken() {
    let server = Server::start();
    server.create(&SaleDefinition { limit_per_customer: 1, ..open_sale("drop", 100) });
    let anna = server.customer("anna", "drop");
    let keys: Vec<_> = (0..60).map(|number| format!("key-{number}")).collect();
    let replies = at_once(&keys, |key| anna.buy("boot", key));
    assert_eq!((count(&replies, "held"), count(&replies, "limit_sale_reached")), (1, 59));
}

#[test]
fn f17_units_of_several_purchases_add_up() {
    let server = Server::start();
    let definition = sale_of("drop", vec![item("boot", 50), item("sock", 50)]);
    server.create(&SaleDefinition { limit_per_customer: 5, ..definition });
    let anna = server.customer("anna", "drop");
    anna.attempt("boot", "two-boots", 2).send().is(201, "held");
    anna.attempt("sock", "two-socks", 2).send().is(201, "held");
    anna.attempt("boot", "two-more", 2).send().is(409, "limit_sale_reached");
    anna.attempt("sock", "one", 1).send().is(201, "held");
    anna.attempt("sock", "one-more", 1).send().is(409, "limit_sale_reached");
}

#[test]
fn f18_late_money_takes_a_unit_again_or_is_to_be_refunded() {
    let server = Server::start();
    let definition = SaleDefinition { hold_seconds: 1, limit_per_customer: 1, ..open_sale("drop", 2) };
    server.create(&definition);
    let [anna, ben, cleo] = ["anna", "ben", "cleo"].map(|name| server.customer(name, "drop"));
    let orders = [&anna, &ben].map(|customer| customer.buy("boot", "key").is(201, "held").text("order"));
    until("both expiries", || server.counts("drop") == [2, 0, 0, 0]);
    for _ in 0..2 {
        let retaken = server.confirm(&orders[0]).is(200, "confirmed").json();
        assert!(retaken["units"][0]["generation"].as_u64().unwrap() >= 1, "a returned unit is a new one: {retaken}");
    }
    anna.buy("boot", "key").is(200, "confirmed");
    let other = cleo.buy("boot", "key").is(201, "held").text("order");
    server.confirm(&other).is(200, "confirmed");
    for _ in 0..2 {
        server.confirm(&orders[1]).is(409, "refund_due");
    }
    assert_eq!(server.counts("drop"), [0, 0, 2, 0]);
    server.create(&SaleDefinition { sale: "second".to_owned(), ..definition });
    let dora = server.customer("dora", "second");
    let late = dora.buy("boot", "late").is(201, "held").text("order");
    until("the expiry", || dora.order(&late).code() == "released");
    let instead = dora.buy("boot", "instead").is(201, "held").text("order");
    server.confirm(&instead).is(200, "confirmed");
    server.confirm(&late).is(409, "refund_due");
    server.turn("second", "close").is(200, "");
    server.turn("second", "settle").is(200, "");
    server.confirm(&late).is(409, "refund_due");
}

#[test]
fn f20_who_has_paid_has_an_order_after_every_outage() {
    let mut server = Server::start_with(&["books.records_per_second_max=1"]);
    server.create(&open_sale("drop", 30));
    let anna = server.customer("anna", "drop");
    let orders: Vec<_> = (0..20).map(|number| anna.buy("boot", &format!("key-{number}")).text("order")).collect();
    for order in &orders {
        server.confirm(order).is(200, "confirmed");
    }
    anna.buy("boot", "open").is(201, "held");
    server.customer("ben", "drop").attempt("boot", "rest", 9).send().is(201, "held");
    anna.buy("boot", "late").is(409, "sold_out");
    server.kill();
    for file in ["books.sqlite", "books.sqlite-wal", "books.sqlite-shm"] {
        // Whatever there is: an outage took it.
        let _ = std::fs::remove_file(server.data().join(file));
    }
    server.start_again_with(&["books.records_per_second_max=0"]);
    server.drained("drop");
    let books = server.orders("drop");
    for order in &orders {
        let row = books.iter().find(|row| row["order"] == order.as_str());
        assert_eq!(row.unwrap()["status"], "confirmed");
    }
    audit_is_complete(server.data(), Some(&server.notes()));
}

#[test]
fn f22_nobody_waits_for_stock_that_is_gone() {
    let server = Server::start();
    server.create(&open_sale("drop", 1));
    let anna = server.customer("anna", "drop");
    let available = || server.ask(&Request::get("/v1/sales/drop")).json()["items"][0]["available"].clone();
    assert_eq!(available(), Value::from("yes"));
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    assert_eq!(available(), Value::from("may_return"), "somebody may not pay");
    let ben = server.customer("ben", "drop");
    ben.buy("boot", "key").is(409, "sold_out");
    server.confirm(&order).is(200, "confirmed");
    assert_eq!(available(), Value::from("no"), "nothing is held, so nothing will come back");
    ben.buy("boot", "key").is(409, "sold_out");
}

#[test]
fn order_service_stopped_for_three_holds_nobody_expires_unfairly() {
    let mut server = Server::start_with(&["books.records_per_second_max=1"]);
    server.create(&SaleDefinition { hold_seconds: 2, ..open_sale("drop", 100) });
    for round in 0..3 {
        let people = customers(&server, "drop", 9);
        let held = at_once(&people, |customer| customer.buy("boot", &format!("round-{round}")).is(201, "held").json());
        let pay_by = held.iter().filter_map(|held| ChainTime::parse_rfc3339(held["pay_by"].as_str()?)).min().unwrap();
        for (customer, held) in people.iter().zip(&held) {
            see_it_held_until(&server, customer, held, pay_by);
        }
        for (number, (customer, held)) in people.iter().zip(&held).enumerate() {
            let order = held["order"].as_str().unwrap();
            let (reply, end) = match number % 3 {
                0 => (server.confirm(order), "confirmed"),
                1 => (customer.cancel(order), "released"),
                _ => continue,
            };
            assert!(reply.code() == end || now(&server) >= pay_by.0, "round {round}: {}", reply.code());
        }
        until("the rest to expire", || server.counts("drop")[1] == 0);
        assert!(now(&server) >= pay_by.0, "nobody's time was cut short");
    }
    assert!(server.sale("drop")["books_lag"].as_u64().unwrap() > 20, "the order service was as good as stopped");
    server.terminate();
    server.start_again_with(&["books.records_per_second_max=0"]);
    server.drained("drop");
    assert_eq!(server.orders("drop").len(), 27);
}

/// Until a moment before the pay-by time, a hold is seen as held wherever a customer looks.
fn see_it_held_until(server: &Server, customer: &Customer, held: &Value, pay_by: ChainTime) {
    let text = |field: &str| held[field].as_str().unwrap();
    loop {
        let mine = customer.asks(Request::get("/v1/sales/drop/mine")).json()["purchases"][0]["status"].clone();
        let seen = [
            customer.purchase(text("purchase")).code(),
            customer.order(text("order")).code(),
            mine.as_str().unwrap().to_owned(),
        ];
        let now = now(server);
        if now >= pay_by.0 {
            return;
        }
        assert!(seen.iter().all(|status| status == "held"), "{seen:?} before the time was over");
        if now + 1_000 >= pay_by.0 {
            return;
        }
    }
}

#[test]
fn f23_connections_are_not_leaked_over_twelve_thousand_wins() {
    const WINS: usize = 12_500;
    let server = Server::start();
    server.create(&open_sale("drop", WINS as u32));
    let people = customers(&server, "drop", 25);
    at_once(&people, |customer| {
        for number in 0..WINS / 25 {
            customer.buy("boot", &format!("key-{number}")).is(201, "held");
        }
    });
    server.customer("late", "drop").buy("boot", "key").is(409, "sold_out");
    assert_eq!(server.counts("drop"), [0, WINS as u64, 0, 0]);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap().count();
    until("the connections to be gone", || files() < 100);
}
