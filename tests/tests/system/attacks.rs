//! Replay, theft, another network and another clock: what somebody gets who has a part of what a customer has, and what a customer keeps whose
//! telephone changes its network. Forged tokens and passes are in `refusals`, keys that change and a shop that is down in `identity_keys`.

use std::net::{IpAddr, Ipv4Addr};

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;
use system_tests::{
    AUDIENCE, Connection, ISSUER, Reply, Request, SECRET, Server, now_milliseconds, open_sale, sign_with, token_of,
};

/// Who is believed about the addresses of others.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn send_raw(server: &Server, bytes: &[u8]) -> Reply {
    let mut connection = Connection::open(server.public()).unwrap();
    connection.send(bytes).unwrap();
    connection.receive(false).unwrap()
}

#[test]
fn a_purchase_that_is_replayed_byte_by_byte_takes_nothing_more() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let bytes = anna.attempt("boot", "key", 1).request().bytes();
    let won = anna.buy("boot", "key").is(201, "held");
    for _ in 0..20 {
        assert_eq!(send_raw(&server, &bytes).is(200, "held").text("purchase"), won.text("purchase"));
    }
    let together = send_raw(&server, &bytes.repeat(20));
    assert_eq!(together.is(200, "held").text("order"), won.text("order"));
    // What it was replayed after does not matter: the end of the hold, and of the process.
    anna.cancel(&won.text("order")).is(200, "released");
    assert_eq!(send_raw(&server, &bytes).is(200, "released").text("purchase"), won.text("purchase"));
    server.terminate();
    server.start_again();
    assert_eq!(send_raw(&server, &bytes).is(200, "released").text("purchase"), won.text("purchase"));
    assert_eq!(server.counts("drop"), [10, 0, 0, 0]);
}

#[test]
fn a_stolen_pass_without_its_token_buys_nothing_and_shows_nothing() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let won = anna.buy("boot", "key").is(201, "held");
    let ask = |change: &dyn Fn(Request) -> Request| {
        // The key that she used too, which would show her purchase.
        ["key", "another"].map(|key| change(anna.attempt("boot", key, 1).request().clone()).send(server.public()))
    };
    let tokens = [
        ("none", None, 401, "token_invalid"),
        ("the pass itself", Some(anna.pass.clone()), 401, "token_invalid"),
        ("one that is over", Some(claims(&json!({ "sub": "anna", "exp": 1_000_000_000 }))), 401, "token_expired"),
        ("a thief's own", Some(token_of("thief")), 403, "pass_foreign"),
        ("of another shop", Some(claims(&json!({ "sub": "anna", "iss": "https://other.test" }))), 401, "token_invalid"),
    ];
    for (what, token, status, code) in tokens {
        let replies = ask(&|request| match &token {
            Some(token) => request.bearer(token),
            None => request.without("authorization"),
        });
        for reply in replies {
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{what}");
            assert_eq!(reply.text("purchase"), "", "{what}");
        }
    }
    // The other half alone is no better: her token without her pass.
    for reply in ask(&|request| request.without("doorbuster-pass")) {
        reply.is(403, "pass_invalid");
    }
    assert_eq!(server.counts("drop"), [9, 1, 0, 0]);
    anna.order(&won.text("order")).is(200, "held");
}

/// The shop's claims, and those.
fn claims(more: &serde_json::Value) -> String {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": 4_000_000_000_u64 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    sign_with(SECRET, &Header::new(Algorithm::HS256), &claims)
}

/// A minute of leeway: a shop's clock may be half a minute off, either way, and not two.
#[test]
fn a_shops_clock_may_differ_by_the_leeway_and_no_more() {
    let server = Server::start_with(&["identity.leeway_seconds=60"]);
    server.create(&open_sale("drop", 10));
    let now = now_milliseconds() / 1_000;
    let table = [
        ("a token that begins in half a minute", json!({ "nbf": now + 30 }), 201, ""),
        ("one that begins in two", json!({ "nbf": now + 120 }), 401, "token_invalid"),
        ("a token that ended half a minute ago", json!({ "exp": now - 30 }), 201, ""),
        ("one that ended two ago", json!({ "exp": now - 120 }), 401, "token_expired"),
        ("one that was made tomorrow and begins today", json!({ "iat": now + 86_400, "nbf": now - 1 }), 201, ""),
    ];
    for (number, (what, mut more, status, code)) in table.into_iter().enumerate() {
        let name = format!("customer-{number}");
        more["sub"] = name.clone().into();
        let mut customer = server.stranger(&name, "drop");
        customer.token = claims(&more);
        let reply = customer.take_pass();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{what}");
        if status == 201 {
            customer.buy("boot", "key").is(201, "held");
        }
    }
    assert_eq!(server.counts("drop"), [7, 3, 0, 0]);
}

/// A telephone that leaves the house: another address, another kind of address, and the pass goes on, with the limits as they come.
#[test]
fn a_pass_that_was_taken_over_ipv4_buys_over_ipv6_and_back() {
    let settings = [
        "public.trusted_proxies=127.0.0.2",
        "limits.address_purchases_per_second=5",
        "limits.address_purchases_burst=5",
    ];
    let server = Server::start_with(&settings);
    server.create(&open_sale("drop", 10));
    let from = |address: &str, request: &Request| {
        let request = request.clone().header("x-forwarded-for", address);
        Connection::open_from(PROXY, server.public()).and_then(|mut connection| connection.ask(&request)).unwrap()
    };
    let mut anna = server.stranger("anna", "drop");
    let passes = Request::post("/v1/sales/drop/passes").bearer(&anna.token);
    anna.pass = from("198.51.100.7", &passes).is(201, "").text("pass");
    let buy = |address: &str, key: &str| from(address, anna.attempt("boot", key, 1).request());
    let won = buy("2001:db8:7::1", "key").is(201, "held");
    for address in ["198.51.100.7", "::ffff:203.0.113.9", "2001:db8:8:1:2:3:4:5", "203.0.113.200"] {
        assert_eq!(buy(address, "key").is(200, "held").text("purchase"), won.text("purchase"), "{address}");
    }
    buy("2001:db8:9::1", "another").is(201, "held");
    let order = Request::get(&format!("/v1/orders/{}", won.text("order"))).bearer(&anna.token);
    from("2001:db8:9::1", &order).is(200, "held");
    assert_eq!(server.counts("drop"), [8, 2, 0, 0]);
}
