//! What the shop is told about a sale by the feed: every event once, in order, the same after kill -9 and after the books were lost.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use system_tests::{Reply, Request, Server, open_sale, until};

fn page(server: &Server, query: &str) -> Reply {
    server.operate(Request::get(&format!("/admin/v1/feed{query}")))
}

/// All events of a query, over pages of `limit`.
fn feed(server: &Server, sale: &str, limit: usize) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = page(server, &format!("?after={cursor}&limit={limit}{sale}"));
        assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
        let of_page = page.json()["events"].as_array().unwrap().clone();
        assert!(of_page.len() <= limit);
        events.extend(of_page);
        cursor = page.text("next_cursor");
        if page.json()["more"] == false {
            return events;
        }
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[test]
fn the_feed_tells_a_sale_from_opening_to_settlement() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let held = anna.attempt("boot", "a", 2).send().is(201, "held");
    let order = held.text("order");
    server.turn("drop", "pause").is(200, "");
    server.turn("drop", "resume").is(200, "");
    server.confirm(&order).is(200, "confirmed");
    let back = anna.buy("boot", "b").is(201, "held").text("order");
    anna.cancel(&back).is(200, "released");
    server.turn("drop", "close").is(200, "");
    until("the settlement", || server.turn("drop", "settle").status == 200);
    server.drained("drop");
    let events = feed(&server, "", 100);
    assert_eq!(
        kinds(&events),
        [
            "sale_opened",
            "held",
            "sale_paused",
            "sale_resumed",
            "confirmed",
            "held",
            "released",
            "sale_closed",
            "sale_settled"
        ]
    );
    assert_eq!(events[1]["position"], held.json()["receipt"]["position"]);
    assert_eq!(events[1]["data"]["pay_by"], held.json()["pay_by"]);
    for event in [&events[1], &events[4]] {
        let data = &event["data"];
        assert_eq!((&data["order"], &data["purchase"]), (&held.json()["order"], &held.json()["purchase"]));
        assert_eq!((&data["item"], &data["quantity"]), (&json!("boot"), &json!(2)));
        assert_eq!(data["price"], json!({ "amount": 9_800, "currency": "EUR" }));
        assert!(!event.to_string().contains("anna"), "the customer's name is told: {event}");
    }
    assert_eq!(
        (&events[2]["data"]["reason"], &events[6]["data"]["reason"]),
        (&json!("operator"), &json!("cancelled_by_customer"))
    );
    assert_eq!(events[8]["data"]["items"], json!([{ "item": "boot", "sold": 2, "unsold": 3, "withdrawn": 0 }]));
    assert_eq!(events[1]["test"], Value::Null);
    for limit in [1, 2, 1_000] {
        assert_eq!(feed(&server, "&sale=drop", limit), events, "in pages of {limit}");
    }
}

#[test]
fn a_cursor_outlives_kill_minus_9_and_the_loss_of_the_books() {
    let mut server = Server::start();
    for sale in ["one", "two", "three"] {
        server.create(&open_sale(sale, 50));
        let anna = server.customer("anna", sale);
        for key in 0..7 {
            anna.buy("boot", &key.to_string()).is(201, "held");
        }
        server.drained(sale);
    }
    let events = feed(&server, "", 1_000);
    assert_eq!(events.len(), 24);
    let first = page(&server, "?limit=10");
    let cursor = first.text("next_cursor");
    let rest = page(&server, &format!("?after={cursor}&limit=1000"));
    server.kill();
    for file in ["books.sqlite", "books.sqlite-wal", "books.sqlite-shm"] {
        // Not every one of them has to be there.
        let _ = fs::remove_file(server.data().join(file));
    }
    server.start_again();
    for sale in ["one", "two", "three"] {
        server.drained(sale);
    }
    assert_eq!(page(&server, "?limit=10").json()["events"], first.json()["events"]);
    let again = page(&server, &format!("?after={cursor}&limit=1000")).json();
    // The new start has paused and resumed nothing, so the same events follow.
    assert_eq!(again["events"], rest.json()["events"]);
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "no id stands twice");
}

#[test]
fn a_busy_sale_does_not_keep_the_others_from_the_feed() {
    let server = Server::start();
    for sale in ["one", "two"] {
        server.create(&open_sale(sale, 50));
        let anna = server.customer("anna", sale);
        for key in 0..9 {
            anna.buy("boot", &key.to_string()).is(201, "held");
        }
        server.drained(sale);
    }
    let first = page(&server, "?limit=3");
    let second = page(&server, &format!("?limit=3&after={}", first.text("next_cursor")));
    assert_eq!(first.json()["events"][0]["sale"], "one");
    assert_eq!(second.json()["events"][0]["sale"], "two", "each sale has its turn");
    assert_eq!(feed(&server, "", 3).len(), 20);
    assert_eq!(feed(&server, "&sale=two", 3).len(), 10);
}

#[test]
fn the_feed_refuses_what_it_cannot_read() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=x", "?after=AQAAAAAB"] {
        page(&server, query).is(400, "malformed");
    }
    page(&server, "?sale=nothing").is(404, "not_found");
    server.ask(&Request::get("/admin/v1/feed")).is(404, "not_found");
    Request::get("/admin/v1/feed").send(server.admin()).is(401, "token_invalid");
}
