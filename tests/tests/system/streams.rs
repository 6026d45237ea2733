//! Streams of events of one's own purchase: what they tell, who may open them, how many there are, and how they end.

use std::time::{Duration, Instant};

use domain::{ChainTime, SaleDefinition};
use serde_json::Value;
use system_tests::{Customer, Event, Events, Request, Server, eventually, open_sale, until};

const GAUGE: &str = "doorbuster_streams";

fn held(customer: &Customer, key: &str) -> (String, String) {
    let bought = customer.buy("boot", key).is(201, "held");
    (bought.text("purchase"), bought.text("order"))
}

fn statuses(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.data["status"].as_str().unwrap_or_default()).collect()
}

fn payments(event: &Event) -> Vec<&str> {
    let payments = event.data["payments"].as_array().map(Vec::as_slice).unwrap_or_default();
    payments.iter().map(|payment| payment["status"].as_str().unwrap_or_default()).collect()
}

/// The purchase as `GET` tells it, without what a stream leaves out.
fn without_receipt(mut purchase: Value) -> Value {
    purchase.as_object_mut().unwrap().remove("receipt");
    purchase
}

#[test]
fn a_stream_tells_at_once_how_a_hold_stands_and_then_every_change_until_it_is_paid() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let (purchase, order) = held(&anna, "key");
    let mut stream = anna.watch(&purchase);
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(stream.header(name), Some(value));
    }
    let first = stream.next_event().unwrap();
    assert_eq!(first.name, "purchase");
    assert_eq!(first.data, without_receipt(anna.purchase(&purchase).is(200, "held").json()));
    assert!((2_000..3_000).contains(&stream.retry_milliseconds), "{}", stream.retry_milliseconds);
    assert_eq!(server.gauge(GAUGE), 1);

    held(&anna, "of-no-concern");
    let report = |what: &str| server.operate(Request::post(&format!("/admin/v1/orders/{order}/{what}")));
    report("payments").is(200, "held");
    let second = stream.next_event().unwrap();
    assert_eq!((second.name.as_str(), statuses(std::slice::from_ref(&second))[0]), ("purchase", "held"));
    assert_eq!(payments(&second), ["open"]);
    report("payments/0/paid").is(200, "confirmed");
    let third = stream.next_event().unwrap();
    assert_eq!(third.data, without_receipt(anna.purchase(&purchase).is(200, "confirmed").json()));
    assert_eq!(payments(&third), ["paid"]);
    assert!(first.id < second.id && second.id < third.id, "{first:?} {second:?} {third:?}");
    assert!(stream.next_event().is_none(), "there is nothing more to tell");
    until("its place to be free", || server.gauge(GAUGE) == 0);

    let all = anna.watch(&purchase).rest();
    assert_eq!(statuses(&all), ["confirmed"], "whoever comes later is told the end and nothing else");
}

#[test]
fn a_stream_tells_that_a_hold_was_not_paid_or_given_back() {
    let server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 1, ..open_sale("drop", 5) });
    server.create(&open_sale("patient", 5));
    let anna = server.customer("anna", "drop");
    let (purchase, _) = held(&anna, "key");
    let unpaid = anna.watch(&purchase).rest();
    assert_eq!(statuses(&unpaid), ["held", "released"]);
    assert_eq!(unpaid[1].data["release_reason"], "expired");
    let anna = server.customer("anna", "patient");
    let (purchase, order) = held(&anna, "key");
    let stream = anna.watch(&purchase);
    anna.cancel(&order).is(200, "released");
    let given_back = stream.rest();
    assert_eq!(given_back.last().unwrap().data["release_reason"], "cancelled_by_customer");
}

#[test]
fn a_ticket_is_for_one_stream_of_one_purchase_of_its_customer_and_not_for_long() {
    let server = Server::start();
    server.create(&open_sale("drop", 9));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let (purchase, _) = held(&anna, "key");
    let (other, _) = held(&anna, "another");
    let unknown = ben.take_ticket("pu_nothing").is(404, "not_found").json();
    let foreign = ben.take_ticket(&purchase).is(404, "not_found").json();
    assert_eq!((&foreign["title"], &foreign["code"]), (&unknown["title"], &unknown["code"]));
    Request::post(&format!("/v1/purchases/{purchase}/stream-tickets")).send(server.public()).is(401, "token_invalid");

    let taken = anna.take_ticket(&purchase).is(201, "");
    let (ticket, location) = (taken.text("ticket"), taken.text("location"));
    assert_eq!(location, format!("/v1/purchases/{purchase}/events?ticket={ticket}"));
    let refused = |path: &str| server.ask(&Request::get(path)).is(403, "ticket_invalid");
    let mut flipped = ticket.clone().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for wrong in ["", "st_", flipped.as_str(), &ticket[3..], &ticket[..60], &format!("{ticket}A")] {
        refused(&format!("/v1/purchases/{purchase}/events?ticket={wrong}"));
    }
    refused(&format!("/v1/purchases/{purchase}/events"));
    refused(&format!("/v1/purchases/{other}/events?ticket={ticket}"));
    refused(&format!("/v1/purchases/pu_nothing/events?ticket={ticket}"));
    let mut stream = Events::open(server.public(), &location);
    assert_eq!(stream.next_event().unwrap().data["purchase"], purchase);
    refused(&location);

    let late = anna.take_ticket(&purchase).is(201, "");
    let expires_at: ChainTime = serde_json::from_value(late.json()["expires_at"].clone()).unwrap();
    let now = || server.ask(&Request::get("/v1/time")).json()["unix_ms"].as_u64().unwrap();
    assert!(expires_at.0 <= now() + 10_000, "ten seconds at most");
    until("the ticket's end", || now() >= expires_at.0);
    refused(&late.text("location"));
}

#[test]
fn a_customer_has_four_streams_and_a_refused_ticket_is_not_used() {
    let server = Server::start();
    server.create(&open_sale("drop", 9));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let (purchase, order) = held(&anna, "key");
    let (bens, _) = held(&ben, "key");
    let streams: Vec<_> = (0..4).map(|_| anna.watch(&purchase)).collect();
    let fifth = anna.take_ticket(&purchase).is(201, "").text("location");
    let refused = server.ask(&Request::get(&fifth)).is(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(ben.watch(&bens).next_event().unwrap().data["status"], "held", "nobody else is in the way");
    anna.cancel(&order).is(200, "released");
    streams.into_iter().for_each(|stream| assert!(!stream.rest().is_empty()));
    let fifth = eventually("a place", || {
        let reply = server.ask(&Request::get(&fifth));
        (reply.status != 503).then_some(reply)
    });
    assert_eq!(fifth.status, 200);
}

#[test]
fn a_thousand_streams_whose_clients_have_gone_give_their_places_back() {
    let server = Server::start();
    server.create(&open_sale("drop", 1_000));
    let mut streams = Vec::new();
    for number in 0..256 {
        let customer = server.customer(&format!("customer-{number}"), "drop");
        let (purchase, _) = held(&customer, "key");
        streams.extend((0..4).map(|_| customer.watch(&purchase)));
    }
    let late = server.customer("late", "drop");
    let (purchase, _) = held(&late, "key");
    let location = late.take_ticket(&purchase).is(201, "").text("location");
    assert_eq!(server.gauge(GAUGE), 1_024);
    server.ask(&Request::get(&location)).is(503, "overloaded");
    let begun = Instant::now();
    held(&late, "beside-them");
    assert!(begun.elapsed() < Duration::from_secs(1), "they slow nobody down");
    drop(streams);
    // One keep-alive is 15 seconds.
    until("all places to be free", || server.gauge(GAUGE) == 0);
    assert_eq!(late.watch(&purchase).next_event().unwrap().data["status"], "held");
}

#[test]
fn who_reads_nothing_loses_the_stream_and_a_reader_beside_them_keeps_theirs() {
    let server = Server::start();
    server.create(&open_sale("drop", 100));
    let anna = server.customer("anna", "drop");
    // Many units make long events.
    let bought = anna.attempt("boot", "key", 100).send().is(201, "held");
    let (purchase, order) = (bought.text("purchase"), bought.text("order"));
    let location = anna.take_ticket(&purchase).is(201, "").text("location");
    let unread = Events::open_narrow(server.public(), &location);
    let mut read = anna.watch(&purchase);
    let told = |stream: &mut Events, attempt: usize, status: &str| {
        while payments(&stream.next_event().expect("the hold stands")).get(attempt) != Some(&status) {}
    };
    let mut is_dropped = false;
    for attempt in 0..domain::limits::PAYMENT_ATTEMPTS_MAX {
        for (report, status) in [("payments".to_owned(), "open"), (format!("payments/{attempt}/ended"), "ended")] {
            server.operate(Request::post(&format!("/admin/v1/orders/{order}/{report}"))).is(200, "held");
            told(&mut read, attempt, status);
            is_dropped |= server.gauge(GAUGE) == 1;
        }
    }
    assert!(is_dropped, "a client that reads nothing keeps no place");
    assert_eq!(server.gauge(GAUGE), 1, "one that reads does");
    drop(unread);
}

#[test]
fn open_streams_do_not_hold_up_a_servers_end() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 50));
    let mut streams: Vec<_> = (0..20)
        .map(|number| {
            let customer = server.customer(&format!("customer-{number}"), "drop");
            let (purchase, _) = held(&customer, "key");
            let mut stream = customer.watch(&purchase);
            assert_eq!(stream.next_event().unwrap().data["status"], "held");
            stream
        })
        .collect();
    let begun = Instant::now();
    server.terminate();
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    for stream in &mut streams {
        assert!(!matches!(stream.try_next(), Ok(Some(_))), "nothing is told any more");
    }
}

#[test]
fn a_living_stream_outlasts_what_an_idle_connection_may() {
    let server = Server::start_with(&["public.idle_seconds_max=1", "public.head_seconds_max=1"]);
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let (purchase, order) = held(&anna, "key");
    let mut stream = anna.watch(&purchase);
    assert_eq!(stream.next_event().unwrap().data["status"], "held");
    let mut idle = system_tests::Connection::open(server.public()).unwrap();
    idle.ask(&Request::get("/v1/time")).unwrap();
    idle.read_to_end().unwrap();
    server.confirm(&order).is(200, "confirmed");
    assert_eq!(stream.next_event().unwrap().data["status"], "confirmed");
}

#[test]
fn what_was_refused_has_no_stream_but_its_refusal() {
    let mut server = Server::start();
    server.create(&SaleDefinition { limit_per_customer: 1, ..open_sale("drop", 10) });
    let anna = server.customer("anna", "drop");
    held(&anna, "first");
    let asked = eventually("an answer before the decision", || {
        let attempt = anna.attempt("boot", "later", 1).changed(|request| request.header("prefer", "respond-async"));
        Some(attempt.send()).filter(|reply| reply.status == 202)
    });
    let (id, proof) = (asked.text("purchase"), asked.text("location").split_once('?').unwrap().1.to_owned());
    let path = format!("/v1/purchases/{id}/stream-tickets?{proof}");
    let outcome = eventually("the outcome", || {
        let reply = anna.asks(Request::post(&path));
        if reply.status != 201 {
            return Some(reply.code());
        }
        // It was quicker than the decision, so the stream has to tell.
        let told = Events::open(server.public(), &reply.text("location")).rest();
        let end = told.last().unwrap();
        assert_eq!(end.name, "refused", "{told:?}");
        end.data["code"].as_str().map(str::to_owned)
    });
    assert_eq!(outcome, "limit_sale_reached");
    server.kill();
    server.start_again();
    anna.asks(Request::post(&path)).is(409, "interrupted");
    anna.take_ticket(&id).is(404, "not_found");
}
