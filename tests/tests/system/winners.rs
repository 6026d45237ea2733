//! What a winner hears who asks again, and what clicking more often or taking more passes is worth: nothing.

use std::collections::BTreeSet;
use std::sync::Barrier;

use domain::{ChainTime, SaleDefinition};
use serde_json::Value;
use system_tests::{Customer, Reply, Request, Server, open_sale, until};

/// The purchase of a winner who asks again, which must be the one of the first answer, receipt and all.
fn same_purchase(first: &Reply, again: &Reply) {
    assert_eq!(first.json(), again.json());
}

#[test]
fn winner_retry_after_sell_out_is_held() {
    let server = Server::start();
    server.create(&open_sale("drop", 1));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let won = anna.buy("boot", "key").is(201, "held");
    let refused = ben.buy("boot", "key").is(409, "sold_out").json();
    assert!(refused["position"].as_u64() >= won.json()["receipt"]["position"].as_u64(), "{refused}");
    same_purchase(&won, &anna.buy("boot", "key").is(200, "held"));
    anna.buy("boot", "another").is(409, "sold_out");
}

#[test]
fn winner_retry_after_closing_is_held() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let won = anna.buy("boot", "key").is(201, "held");
    assert_eq!(server.turn("drop", "close").json()["phase"], "closed");
    same_purchase(&won, &anna.buy("boot", "key").is(200, "held"));
    anna.buy("boot", "another").is(409, "closed");
}

#[test]
fn winner_retry_with_spent_pass_is_held() {
    let server = Server::start();
    server.create(&SaleDefinition { grants_per_pass_max: 1, ..open_sale("drop", 5) });
    let mut anna = server.customer("anna", "drop");
    let won = anna.buy("boot", "key").is(201, "held");
    same_purchase(&won, &anna.buy("boot", "key").is(200, "held"));
    anna.buy("boot", "another").is(409, "pass_spent");
    anna.take_pass().is(201, "");
    anna.buy("boot", "another").is(201, "held");
}

#[test]
fn winner_retry_with_expired_pass_is_held() {
    let server = Server::start();
    server.create(&SaleDefinition { pass_seconds: 1, ..open_sale("drop", 1_000) });
    let mut anna = server.customer("anna", "drop");
    let won = anna.buy("boot", "key").is(201, "held");
    let mut number = 0;
    until("the end of the pass", || {
        number += 1;
        anna.buy("boot", &format!("another-{number}")).code() == "pass_expired"
    });
    same_purchase(&won, &anna.buy("boot", "key").is(200, "held"));
    anna.take_pass().is(201, "");
    same_purchase(&won, &anna.buy("boot", "key").is(200, "held"));
}

#[test]
fn winner_retry_after_a_restart_is_held() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 1));
    let anna = server.customer("anna", "drop");
    let won = anna.buy("boot", "key").is(201, "held");
    for way in [Server::kill, Server::terminate] {
        way(&mut server);
        server.start_again();
        let again = anna.buy("boot", "key").is(200, "held");
        let without_pay_by = |reply: &Reply| {
            let mut json = reply.json();
            json.as_object_mut().unwrap().remove("pay_by");
            json
        };
        assert_eq!(without_pay_by(&won), without_pay_by(&again));
        let pay_by = |reply: &Reply| ChainTime::parse_rfc3339(&reply.text("pay_by")).unwrap();
        assert!(pay_by(&again) >= pay_by(&won), "an outage is given back, never taken");
        server.customer("ben", "drop").buy("boot", "key").is(409, "sold_out");
    }
}

#[test]
fn winner_retry_after_the_end_reads_how_it_ended() {
    let server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 3, ..open_sale("drop", 3) });
    let anna = server.customer("anna", "drop");
    let held =
        ["paid", "given back", "left"].map(|end| (end, anna.buy("boot", &end.replace(' ', "-")).is(201, "held")));
    server.confirm(&held[0].1.text("order")).is(200, "confirmed");
    anna.cancel(&held[1].1.text("order")).is(200, "released");
    until("the expiry", || anna.purchase(&held[2].1.text("purchase")).code() == "released");
    server.turn("drop", "close").is(200, "");
    for ((end, first), (status, reason)) in held.iter().zip([
        ("confirmed", Value::Null),
        ("released", "cancelled_by_customer".into()),
        ("released", "expired".into()),
    ]) {
        let again = anna.buy("boot", &end.replace(' ', "-")).is(200, status);
        assert_eq!(again.text("purchase"), first.text("purchase"), "{end}");
        assert_eq!(again.json()["release_reason"], reason, "{end}");
    }
}

/// Sends the same request from many threads at once.
fn clicks(count: usize, customer: &Customer, key: &str) -> Vec<Reply> {
    let ready = Barrier::new(count);
    std::thread::scope(|scope| {
        let click = || {
            ready.wait();
            customer.buy("boot", key)
        };
        let clicks: Vec<_> = (0..count).map(|_| scope.spawn(click)).collect();
        clicks.into_iter().map(|click| click.join().unwrap()).collect()
    })
}

#[test]
fn hundred_clicks_one_win() {
    let server = Server::start();
    server.create(&open_sale("drop", 1_000));
    let anna = server.customer("anna", "drop");
    let replies = clicks(100, &anna, "key");
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1, "one of them made the purchase");
    let purchases: BTreeSet<_> = replies.into_iter().map(|reply| reply.json().to_string()).collect();
    assert_eq!(purchases.len(), 1, "and all read the same: {purchases:?}");
    assert_eq!(server.counts("drop"), [999, 1, 0, 0]);
}

#[test]
fn thousand_passes_one_slot() {
    let mut server = Server::start();
    server.create(&SaleDefinition { spread_milliseconds: 3_000_000, ..open_sale("drop", 10) });
    let mut anna = server.stranger("anna", "drop");
    let mut slots = BTreeSet::new();
    let mut passes = BTreeSet::new();
    for number in 0..1_000 {
        if number == 500 {
            server.kill();
            server.start_again();
        }
        let pass = anna.take_pass().is(201, "").json();
        slots.insert((pass["slot_offset_ms"].as_u64().unwrap(), pass["slot"].to_string()));
        passes.insert(pass["pass"].to_string());
    }
    assert_eq!((slots.len(), passes.len()), (1, 1_000), "{slots:?}");
    let others: BTreeSet<_> = (0..50)
        .map(|number| server.stranger(&format!("other-{number}"), "drop").take_pass().json()["slot_offset_ms"].as_u64())
        .collect();
    assert!(others.len() > 45, "slots are spread: {others:?}");
    let early = anna.buy("boot", "key");
    if early.status == 201 {
        // One in a thousand has the first slots.
        return;
    }
    let retry_at = early.is(409, "before_slot").json()["retry_at"].clone();
    let mine = anna.asks(Request::get("/v1/sales/drop/mine")).json();
    assert_eq!(retry_at, mine["pass"]["slot"]);
}
