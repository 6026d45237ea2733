//! Answers that come later: `Prefer`, the place to ask, and what a crash makes of it.

use domain::SaleDefinition;
use system_tests::{Customer, Reply, Request, Server, open_sale, until};

/// Asks under ever new keys until one was answered before its decision. Gives the key and the answer.
fn pending(customer: &Customer, prefer: &str) -> (String, Reply) {
    for number in 0..2_000 {
        let key = format!("later-{number}");
        let reply = customer.attempt("boot", &key, 1).changed(|request| request.header("prefer", prefer)).send();
        if reply.status == 202 {
            return (key, reply.is(202, "pending"));
        }
    }
    panic!("two thousand times the decision was quicker than the clock");
}

#[test]
fn who_does_not_wait_is_told_where_to_ask_and_gets_the_outcome_there() {
    let server = Server::start();
    server.create(&open_sale("drop", 100_000));
    let anna = server.customer("anna", "drop");
    let ben = server.customer("ben", "drop");
    for prefer in ["respond-async", "wait=0", "handling=lenient, Respond-Async"] {
        let (key, reply) = pending(&anna, prefer);
        let location = reply.header("location").unwrap().to_owned();
        assert_eq!(reply.text("location"), location);
        until("the outcome", || {
            let outcome = anna.asks(Request::get(&location));
            assert!(matches!(outcome.status, 200 | 202), "{outcome:?}");
            outcome.code() == "held"
        });
        let again = anna.buy("boot", &key).is(200, "held");
        assert_eq!(again.text("purchase"), reply.text("purchase"));
        ben.asks(Request::get(&location)).is(404, "not_found");
    }
    for (number, patient) in ["wait=5", "wait=99999", "wait=x", "", "return=minimal"].iter().enumerate() {
        let key = format!("patient-{number}");
        anna.attempt("boot", &key, 1).changed(|request| request.header("prefer", patient)).send().is(201, "held");
    }
}

#[test]
fn a_pending_of_an_older_epoch_without_a_record_is_interrupted() {
    let mut server = Server::start();
    server.create(&SaleDefinition { limit_per_customer: 1, ..open_sale("drop", 10) });
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "first").is(201, "held").text("order");
    // A refusal leaves no record: while the process lives, the place tells it; after that, nobody knows it any more.
    let (key, reply) = pending(&anna, "respond-async");
    let location = reply.header("location").unwrap().to_owned();
    until("the outcome", || anna.asks(Request::get(&location)).code() == "limit_sale_reached");
    server.kill();
    server.start_again();
    anna.asks(Request::get(&location)).is(409, "interrupted");
    anna.purchase(&reply.text("purchase")).is(404, "not_found");
    anna.cancel(&order).is(200, "released");
    let held = anna.buy("boot", &key).is(201, "held");
    assert_eq!(held.text("purchase"), reply.text("purchase"));
    anna.asks(Request::get(&location)).is(200, "held");
}
