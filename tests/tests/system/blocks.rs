//! The block list: whom it hits and whom it does not, until when, and how it is kept.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use system_tests::{
    Connection, ISSUER, Reply, Request, Server, doorbuster, eventually, now_milliseconds, open_sale, until,
};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 2));

fn from(server: &Server, address: IpAddr, request: &Request) -> Reply {
    Connection::open_from(address, server.public()).and_then(|mut connection| connection.ask(request)).unwrap()
}

fn block(server: &Server, body: &Value) -> Reply {
    server.operate(Request::post("/admin/v1/blocks").json(body))
}

fn unblock(server: &Server, id: &str) -> Reply {
    server.operate(Request::new("DELETE", &format!("/admin/v1/blocks/{id}")))
}

#[test]
fn a_blocked_address_gets_nothing_but_own_orders_and_what_is_for_everybody() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let bought = anna.buy("boot", "key").is(201, "held");
    let id = block(&server, &json!({ "address": "127.0.0.2", "reason": "a bot" })).is(201, "").text("id");
    let passes = Request::post("/v1/sales/drop/passes").bearer(&anna.token);
    let refused = from(&server, ONE, &passes).is(403, "blocked").json();
    assert_eq!((&refused["retry_at"], &refused["detail"]), (&Value::Null, &Value::Null), "neither until when nor why");
    let purchase = anna.attempt("boot", "another", 1).request().clone();
    from(&server, ONE, &purchase).is(403, "blocked");
    // The same beside the express lane.
    from(&server, ONE, &purchase.clone().header("expect", "")).is(403, "blocked");
    let no_order = Request::get("/v1/orders/or_AAAAAAAAAAAAAAAAAAAAAA");
    from(&server, ONE, &no_order.bearer(&anna.token)).is(403, "blocked");
    // Who somebody is, and what is theirs, is no use to anybody else: a page of their order needs it.
    let ben = server.customer("ben", "drop");
    from(&server, ONE, &Request::post("/v1/session").bearer(&ben.token)).is(200, "");
    for path in ["/v1/orders", "/v1/sales/drop/mine"] {
        from(&server, ONE, &Request::get(path).bearer(&ben.token)).is(200, "");
        from(&server, ONE, &Request::get(path).bearer("nobody's")).is(403, "blocked");
    }
    for (kind, field) in [("orders", "order"), ("purchases", "purchase")] {
        let own = Request::get(&format!("/v1/{kind}/{}", bought.text(field)));
        from(&server, ONE, &own.clone().bearer(&anna.token)).is(200, "held");
        from(&server, ONE, &own).is(403, "blocked");
    }
    let own = Request::get(&format!("/v1/orders/{}", bought.text("order"))).bearer(&anna.token);
    let often =
        eventually("to have looked too often", || Some(from(&server, ONE, &own)).filter(|reply| reply.status != 200));
    assert!(often.is(429, "rate_limited").header("retry-after").is_some(), "it is over by itself");
    for path in ["/v1/time", "/v1/sales/drop", "/healthz", "/sales/drop"] {
        assert_eq!(from(&server, ONE, &Request::get(path)).status, 200, "{path}");
    }
    from(&server, OTHER, &passes).is(201, "");
    anna.attempt("boot", "key", 1).send().is(200, "held");
    assert_eq!(unblock(&server, &id).is(200, "").json()["address"], "127.0.0.2");
    unblock(&server, &id).is(404, "not_found");
    from(&server, ONE, &passes).is(201, "");
    let metrics = String::from_utf8(server.operate(Request::get("/metrics")).body).unwrap();
    assert!(metrics.contains("doorbuster_refusals_total{code=\"blocked\"} 8"), "{metrics}");
}

#[test]
fn a_network_is_blocked_until_its_time_over_restarts_too_and_a_header_is_no_way_out() {
    let proxy = "public.trusted_proxies=127.0.1.2";
    let mut server = Server::start_with(&[proxy]);
    server.create(&open_sale("drop", 10));
    let orders = Request::get("/v1/orders");
    for address in ["127.0.0.0/24", "2001:db8::/32"] {
        let body = json!({ "address": address, "reason": "bots", "expires_in_seconds": 20 });
        block(&server, &body).is(201, "");
    }
    from(&server, ONE, &orders.clone().header("x-forwarded-for", "198.51.100.1")).is(403, "blocked");
    from(&server, OTHER, &orders).is(401, "token_invalid");
    for (client, status) in [("2001:db8:7::1", 403), ("127.0.0.9", 403), ("2001:db9::1", 401), ("198.51.100.1", 401)] {
        let reply = from(&server, OTHER, &orders.clone().header("x-forwarded-for", client));
        assert_eq!(reply.status, status, "{client}");
    }
    // The later entry of a network counts.
    let body = json!({ "address": "127.0.0.0/24", "reason": "bots", "expires_in_seconds": 6 });
    block(&server, &body).is(201, "");
    server.terminate();
    server.start_again();
    let refused = from(&server, ONE, &orders).is(403, "blocked");
    let retry_at = domain::ChainTime::parse_rfc3339(&refused.text("retry_at")).unwrap().0;
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    until("the end of the block", || now_milliseconds() >= retry_at);
    from(&server, ONE, &orders).is(401, "token_invalid");
    let listed = server.operate(Request::get("/admin/v1/blocks")).is(200, "").json();
    let addresses: Vec<_> = listed.as_array().unwrap().iter().map(|block| block["address"].clone()).collect();
    assert_eq!(addresses, ["2001:db8::/32"]);
}

#[test]
fn a_blocked_customer_neither_gets_a_pass_nor_buys_and_keeps_what_they_have() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let (mut anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let bought = anna.buy("boot", "key").is(201, "held");
    let whom = json!({ "issuer": ISSUER, "subject": "anna", "reason": "resells", "expires_in_seconds": 3_600 });
    let made = block(&server, &whom).is(201, "");
    let shown = String::from_utf8(server.operate(Request::get("/admin/v1/blocks")).body).unwrap();
    assert!(!shown.contains("anna"), "a customer is kept as a hash: {shown}");
    assert!(!server.log().contains("anna"));
    // With the pass that she has, and from any address.
    from(&server, ONE, anna.attempt("boot", "another", 1).request()).is(403, "blocked");
    let refused = anna.attempt("boot", "key", 1).request().send(server.public()).is(403, "blocked");
    assert_eq!(refused.text("retry_at"), made.text("expires_at"));
    anna.take_pass().is(403, "blocked");
    let mine = anna.asks(Request::get("/v1/sales/drop/mine")).is(200, "").json();
    assert_eq!((&mine["pass"], mine["purchases"].as_array().unwrap().len()), (&Value::Null, 1));
    anna.order(&bought.text("order")).is(200, "held");
    // Somebody else with her pass is told what is wrong with that, and nothing about her.
    let mixed = ben.attempt("boot", "key", 1).changed(|request| request.header("doorbuster-pass", &anna.pass));
    mixed.request().send(server.public()).is(403, "pass_foreign");
    ben.buy("boot", "key").is(201, "held");
    // Whoever was looked for and not found is looked for again once the list has changed.
    let whom = json!({ "issuer": ISSUER, "subject": "ben", "reason": "resells too" });
    let too = block(&server, &whom).is(201, "").text("id");
    ben.attempt("boot", "key", 1).request().send(server.public()).is(403, "blocked");
    unblock(&server, &too).is(200, "");
    ben.attempt("boot", "key", 1).send().is(200, "held");
    anna.cancel(&bought.text("order")).is(200, "released");
    unblock(&server, &made.text("id")).is(200, "");
    anna.buy("boot", "another").is(201, "held");
}

#[test]
fn the_command_blocks_lists_and_removes_and_says_what_it_cannot_read() {
    let server = Server::start();
    let data = server.data().to_str().unwrap();
    let run = |arguments: &[&str]| doorbuster(&[&["block"], arguments, &["--data", data]].concat());
    assert!(run(&["list"]).out.contains("Nobody is blocked."));
    let added = run(&["add", "203.0.113.0/24", "--reason", "bots", "--json"]).json();
    let id = added["id"].as_str().unwrap();
    let again = run(&["add", "203.0.113.0/24", "--reason", "more bots", "--expires-in-seconds", "60", "--json"]).json();
    assert_eq!(again["id"], id, "a network has one entry");
    run(&["add", "--issuer", ISSUER, "--subject", "anna", "--reason", "resells"]);
    let listed = run(&["list"]).out;
    for words in ["203.0.113.0/24", "more bots", "customer ", "until removed", "resells"] {
        assert!(listed.contains(words), "{words} is not in {listed}");
    }
    let tokens = server.operate(Request::get("/admin/v1/tokens")).json();
    assert_eq!(added["made_by"], tokens[0]["id"]);
    run(&["remove", id]);
    assert!(!run(&["list"]).out.contains("203.0.113.0/24"));
    run(&["remove", id]).refused_with(&["no such entry"]);

    for (body, words) in [
        (json!({ "address": "10.0.0.1/8", "reason": "x" }), "10.0.0.0/8"),
        (json!({ "address": "10.0.0", "reason": "x" }), "203.0.113.0/24"),
        (json!({ "address": "0.0.0.0/1", "reason": "x" }), "everybody"),
        (json!({ "address": "::/0", "reason": "x" }), "everybody"),
        (json!({ "issuer": "", "subject": "", "reason": "x" }), "never empty"),
        (json!({ "address": "10.0.0.1", "subject": "anna", "issuer": ISSUER, "reason": "x" }), "either"),
        (json!({ "subject": "anna", "reason": "x" }), "either"),
        (json!({ "reason": "x" }), "either"),
        (json!({ "address": "10.0.0.1", "reason": "" }), "reason"),
        (json!({ "address": "10.0.0.1", "reason": "x", "expires_in_seconds": 0 }), "a year"),
    ] {
        let detail = block(&server, &body).is(400, "malformed").text("detail");
        assert!(detail.contains(words), "{body}: {detail}");
    }
    run(&["add", "--reason", "x"]).refused_with(&["say whom"]);
}
