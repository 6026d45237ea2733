//! The express lane and the general way: whichever a purchase takes, the answer is the same.

use system_tests::{Connection, Reply, Server, open_sale};

/// What must not depend on the way: all but time and request id.
fn shown(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let of_the_moment = |name: &str| matches!(name, "date" | "x-request-id" | "connection");
    let mut headers: Vec<_> = reply.headers.iter().filter(|(name, _)| !of_the_moment(name)).cloned().collect();
    headers.sort();
    (reply.status, headers, reply.body.clone())
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_purchase_is_answered_alike_in_the_lane_and_out_of_it() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let purchase = anna.attempt("boot", "key-1", 1).changed(|request| request.header("x-request-id", "mine"));
    let first = purchase.send().is(201, "held");
    assert_eq!(first.header("x-request-id"), Some("mine"));
    assert!(first.header("date").is_some_and(|date| date.ends_with(" GMT")));
    // In the lane, a second time.
    let plain = purchase.request().bytes();
    let again = purchase.send().is(200, "held");
    let chunked = replaced(&plain, "content-length: 14\r\n\r\n{\"quantity\":1}", "transfer-encoding: chunked\r\n\r\n");
    let chunked = [chunked, b"5\r\n{\"qua\r\n9\r\nntity\":1}\r\n0\r\n\r\n".to_vec()].concat();
    let ways: &[(&str, Vec<u8>)] = &[
        ("kept alive by name", replaced(&plain, "host:", "connection: Keep-Alive\r\nhost:")),
        ("capital names", replaced(&plain, "idempotency-key:", "IDEMPOTENCY-KEY:")),
        ("unknown headers", replaced(&plain, "host:", "x-a: \u{e9}\r\naccept: */*\r\nhost:")),
        ("closing", replaced(&plain, "host:", "connection: close\r\nhost:")),
        ("chunked", chunked),
        ("a query", replaced(&plain, "/purchases ", "/purchases?x=1 ")),
        ("too many headers for the lane", replaced(&plain, "host:", &("x-a: b\r\n".repeat(60) + "host:"))),
        ("an old version", replaced(&plain, "HTTP/1.1", "HTTP/1.0")),
    ];
    for (way, bytes) in ways {
        let mut connection = Connection::open(server.public()).unwrap();
        connection.send(bytes).unwrap();
        let reply = connection.receive(false).unwrap();
        assert_eq!(shown(&reply), shown(&again), "{way}");
    }
    assert_eq!(server.counts("drop"), [9, 1, 0, 0]);
}

#[test]
fn refusals_are_told_alike_in_the_lane_and_out_of_it() {
    let server = Server::start();
    server.create(&open_sale("drop", 1));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    anna.buy("boot", "key-1").is(201, "held");
    let good = ben.attempt("boot", "key-1", 1).request().bytes();
    let bad: &[(&str, Vec<u8>, u16, &str)] = &[
        ("sold out", good.clone(), 409, "sold_out"),
        ("no key", replaced(&good, "idempotency-key: key-1\r\n", ""), 400, "malformed"),
        ("two keys", replaced(&good, "host:", "idempotency-key: other\r\nhost:"), 400, "malformed"),
        ("two tokens", replaced(&good, "host:", "authorization: Bearer guest_x\r\nhost:"), 401, "token_invalid"),
        ("two passes", replaced(&good, "host:", "doorbuster-pass: dp_x\r\nhost:"), 403, "pass_invalid"),
        ("no token", replaced(&good, "authorization: Bearer", "authorization: Basic"), 401, "token_invalid"),
        ("no sale", replaced(&good, "/drop/", "/nope/"), 404, "not_found"),
        ("another type", replaced(&good, "application/json", "text/plain"), 415, "media_type_unsupported"),
        ("broken body", replaced(&good, "{\"quantity\":1}", "{\"quantity\":,}"), 400, "malformed"),
    ];
    for (what, bytes, status, code) in bad {
        let ask = |bytes: &[u8]| {
            let mut connection = Connection::open(server.public()).unwrap();
            connection.send(bytes).unwrap();
            connection.receive(false).unwrap().is(*status, code)
        };
        let named = replaced(bytes, "host:", "x-request-id: same\r\nhost:");
        let (in_lane, outside) = (ask(&named), ask(&replaced(&named, "host:", "connection: close\r\nhost:")));
        assert_eq!(shown(&in_lane), shown(&outside), "{what}");
    }
}

#[test]
fn a_connection_may_leave_the_lane_at_any_byte_and_goes_on() {
    let server = Server::start();
    server.create(&open_sale("drop", 100));
    let anna = server.customer("anna", "drop");
    let held = anna.buy("boot", "key-1").is(201, "held");
    let purchase = anna.attempt("boot", "key-1", 1).request().bytes();
    for cut in (1..purchase.len()).step_by(97).chain([purchase.len() - 1]) {
        let mut connection = Connection::open(server.public()).unwrap();
        // Some purchases in the lane, then one that arrives in two pieces, then more.
        for _ in 0..2 {
            connection.send(&purchase).unwrap();
            assert_eq!(connection.receive(false).unwrap().text("purchase"), held.text("purchase"));
        }
        connection.send(&purchase[..cut]).unwrap();
        std::thread::yield_now();
        connection.send(&purchase[cut..]).unwrap();
        for _ in 0..2 {
            assert_eq!(connection.receive(false).unwrap().text("purchase"), held.text("purchase"), "cut at {cut}");
            connection.send(&purchase).unwrap();
        }
        connection.receive(false).unwrap();
    }
    // Several at once on one connection: each is answered, in order.
    let mut connection = Connection::open(server.public()).unwrap();
    connection.send(&[&purchase[..], &system_tests::Request::get("/v1/time").bytes(), &purchase].concat()).unwrap();
    connection.receive(false).unwrap().is(200, "held");
    assert!(connection.receive(false).unwrap().json()["unix_ms"].is_u64());
    connection.receive(false).unwrap().is(200, "held");
    assert_eq!(server.counts("drop"), [99, 1, 0, 0]);
}

#[test]
fn what_is_no_http_is_refused_in_words_and_takes_no_answer_with_it() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let good = server.customer("anna", "drop").attempt("boot", "key-1", 1).request().bytes();
    let length = "content-length: 14";
    let bad: &[(&str, Vec<u8>, u16)] = &[
        ("a sign before the length", replaced(&good, length, "content-length: +14"), 400),
        ("two lengths", replaced(&good, length, "content-length: 14\r\ncontent-length: 15"), 400),
        ("no such version", replaced(&good, "HTTP/1.1", "HTTP/2.0"), 400),
        ("a blank before the colon", replaced(&good, "host:", "x-a : b\r\nhost:"), 400),
        ("a folded line", replaced(&good, "host:", "x-a: b\r\n c\r\nhost:"), 400),
        ("an endless header", replaced(&good, "host:", &format!("x-a: {}\r\nhost:", "b".repeat(40_000))), 431),
        ("headers without number", replaced(&good, "host:", &("x-a: b\r\n".repeat(500) + "host:")), 431),
        ("no words at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
    ];
    for (what, bytes, status) in bad {
        let mut connection = Connection::open(server.public()).unwrap();
        // The server may have answered and closed before the last byte left.
        drop(connection.send(bytes));
        let reply = connection.receive(false).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reply.status, *status, "{what}");
    }
    assert_eq!(server.counts("drop"), [10, 0, 0, 0]);
    // A win is told although rubbish follows it on the same connection.
    let mut connection = Connection::open(server.public()).unwrap();
    connection.send(&[&good[..], b"RUBBISH\r\n\r\n"].concat()).unwrap();
    connection.receive(false).unwrap().is(201, "held");
    assert_eq!(connection.receive(false).unwrap().status, 400);
}

#[test]
fn who_has_said_everything_still_gets_the_answer() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let in_lane = anna.attempt("boot", "key-1", 1).request().bytes();
    let outside = replaced(&anna.attempt("boot", "key-2", 1).request().bytes(), "host:", "te: trailers\r\nhost:");
    for bytes in [in_lane, outside] {
        let mut connection = Connection::open(server.public()).unwrap();
        connection.send(&bytes).unwrap();
        connection.say_no_more().unwrap();
        connection.receive(false).unwrap().is(201, "held");
    }
}
