//! Connections that are slow, idle, many or endless: they cost their own time and nobody else's.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use system_tests::{Connection, Request, Server, open_sale, until};

/// One byte at a time, each in time for itself, until the other side has enough. Gives how long that took.
fn drip(to: SocketAddr, start: &[u8]) -> Duration {
    let begun = Instant::now();
    let mut connection = Connection::open(to).unwrap();
    connection.send(start).unwrap();
    // The first write after the other side has closed still succeeds; the one after it does not.
    until("the end of a slow connection", || {
        std::thread::sleep(Duration::from_millis(50));
        connection.send(b"x").is_err()
    });
    begun.elapsed()
}

/// Times are exact to half a second: the limit of one second, and much patience for a slow machine.
const CUT_AFTER: std::ops::Range<f64> = 0.4..5.0;

#[test]
fn slow_headers_and_slow_bodies_are_cut_off() {
    let server = Server::start_with(&["public.head_seconds_max=1", "public.body_seconds_max=1"]);
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let purchase = anna.attempt("boot", "slow", 1);
    let mut slow_body = purchase.request().bytes();
    slow_body.truncate(slow_body.len() - 5);
    let chunked = b"POST /v1/sales/drop/passes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\n";
    let cases: [(&str, &[u8]); 4] = [
        ("a request line", b"GE"),
        ("a header", b"GET /v1/time HTTP/1.1\r\nhost: x\r\nx-slow: "),
        ("a chunked body", chunked),
        ("an endless header", b"GET /v1/time HTTP/1.1\r\nhost: x\r\n"),
    ];
    std::thread::scope(|scope| {
        for (what, start) in cases {
            let public = server.public();
            scope.spawn(move || {
                let took = drip(public, start);
                assert!(CUT_AFTER.contains(&took.as_secs_f64()), "{what} was cut after {took:?}");
            });
        }
        scope.spawn(|| {
            let mut connection = Connection::open(server.public()).unwrap();
            connection.send(&slow_body).unwrap();
            let begun = Instant::now();
            connection.read_to_end().unwrap();
            let took = begun.elapsed();
            assert!(CUT_AFTER.contains(&took.as_secs_f64()), "a silent body was cut after {took:?}");
        });
    });
    assert_eq!(server.counts("drop"), [5, 0, 0, 0], "half a purchase is none");
    purchase.send().is(201, "held");
}

#[test]
fn a_silent_connection_is_closed_and_a_busy_one_stays() {
    let server = Server::start_with(&["public.idle_seconds_max=1"]);
    let mut silent = Connection::open(server.public()).unwrap();
    let mut busy = Connection::open(server.public()).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(busy.ask(&Request::get("/v1/time")).unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    silent.read_to_end().unwrap();
    silent = Connection::open(server.public()).unwrap();
    assert_eq!(silent.ask(&Request::get("/v1/time")).unwrap().status, 200);
    silent.read_to_end().unwrap();
}

#[test]
fn what_is_no_http_or_too_much_of_it_ends_the_connection_only() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let mut many = Request::get("/v1/time");
    for number in 0..200 {
        many = many.header(&format!("x-{number}"), "y");
    }
    let large = Request::get("/v1/time").header("x-large", &"y".repeat(40_000));
    let table: &[(&str, Vec<u8>, u16)] = &[
        ("no HTTP", b"hello there\r\n\r\n".to_vec(), 400),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        ("a header without a colon", b"GET /v1/time HTTP/1.1\r\nhost x\r\n\r\n".to_vec(), 400),
        (
            "two lengths",
            b"POST /v1/time HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
            400,
        ),
        ("a long line", [b"GET /".to_vec(), vec![b'a'; 70_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(), 0),
        ("too many headers", many.bytes(), 431),
        ("too large headers", large.bytes(), 431),
    ];
    for (what, bytes, status) in table {
        let mut connection = Connection::open(server.public()).unwrap();
        // A server that has had enough may close before everything is written.
        let sent = connection.send(bytes);
        match connection.receive(false) {
            Ok(reply) if *status != 0 => assert_eq!(reply.status, *status, "{what}"),
            Ok(reply) => assert!((400..500).contains(&reply.status), "{what}: {}", reply.status),
            Err(error) => assert!(
                sent.is_err() || matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
                "{what}: {error}"
            ),
        }
    }
    let promised = b"POST /v1/sales/drop/passes HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n";
    let mut connection = Connection::open(server.public()).unwrap();
    connection.send(promised).unwrap();
    connection.receive(false).unwrap().is(413, "body_too_large");
    connection.read_to_end().unwrap();
    server.customer("anna", "drop").buy("boot", "key").is(201, "held");
}

#[test]
fn ten_thousand_idle_connections_slow_nobody_down() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let count = most.saturating_sub(600).min(10_000);
    if count < 10_000 {
        eprintln!("only {count} connections: a process may open no more than {most} files here (ulimit -Hn)");
    }
    let server = Server::start();
    server.create(&open_sale("drop", 100));
    let anna = server.customer("anna", "drop");
    let idle: Vec<_> = (0..count).map(|_| Connection::open(server.public()).unwrap()).collect();
    until("all connections to be counted", || server.gauge("doorbuster_connections") >= count);
    let mut longest = Duration::ZERO;
    for number in 0..50 {
        let begun = Instant::now();
        anna.buy("boot", &format!("key-{number}")).is(201, "held");
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "a purchase took {longest:?} beside {count} idle connections");
    drop(idle);
    until("all connections to be forgotten", || server.gauge("doorbuster_connections") < 10);
}

#[test]
fn beyond_the_ceiling_an_idle_connection_makes_room() {
    let server = Server::start_with(&["public.connections_max=8", "public.threads=1"]);
    let first: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = Connection::open(server.public()).unwrap();
            connection.ask(&Request::get("/v1/time")).unwrap();
            connection
        })
        .collect();
    until("room for one more", || {
        Connection::open(server.public()).and_then(|mut one| one.ask(&Request::get("/v1/time"))).is_ok()
    });
    assert!(server.gauge("doorbuster_connections_refused_total") >= 1, "the first tries came too early");
    drop(first);
}
