//! More than can be answered: who is left out and who never is, what they are told, and how soon it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use domain::ChainTime;
use serde_json::Value;
use system_tests::{Connection, Reply, Request, Server, eventually, now_milliseconds, open_sale, until, within};

/// An overload that is over is over for everybody within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

fn load(server: &Server) -> Value {
    server.operate(Request::get("/admin/v1/load")).is(200, "").json()
}

fn bites(server: &Server, ceiling: &str) -> bool {
    load(server)["biting"].as_array().unwrap().iter().any(|biting| biting == ceiling)
}

/// Asks again and again over some connections, each of which has one request under way, while `meanwhile` runs. Gives how many were left
/// out; every one of them has to be told so properly.
fn flood(server: &Server, request: &Request, connections: usize, meanwhile: impl FnOnce()) -> u64 {
    let (is_over, left_out) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let open = || Connection::open(server.public()).unwrap();
            let mut connections: Vec<_> = (0..connections).map(|_| open()).collect();
            while !is_over.load(Ordering::Relaxed) {
                connections.iter_mut().for_each(|connection| connection.send(&request.bytes()).unwrap());
                for connection in &mut connections {
                    let reply = connection.receive(false).unwrap();
                    if reply.status == 503 {
                        is_left_out_properly(&reply);
                        left_out.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        // Over in any case, so that a failure in there ends the test.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = Over(&is_over);
        until("somebody to be left out", || left_out.load(Ordering::Relaxed) > 0);
        meanwhile();
        drop(over);
    });
    left_out.into_inner()
}

fn is_left_out_properly(reply: &Reply) {
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"), "{reply:?}");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&seconds), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "a shop's page may read it too");
    assert_eq!(reply.header("x-request-id"), None, "it was made before there was a request");
    assert_eq!(reply.text("type"), "/docs/errors/overloaded");
}

#[test]
fn whoever_proves_a_purchase_is_never_left_out_and_the_others_are_until_it_is_over() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 10));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let bought = anna.buy("boot", "key").is(201, "held");
    server.terminate();
    server.start_again_with(&["overload.requests_per_second_max=10"]);

    let purchase = Request::post("/v1/sales/drop/items/boot/purchases").header("idempotency-key", "key").body(b"{}");
    let left_out = flood(&server, &purchase, 4, || {
        // The key that was lost, the purchase and the order, as often as everybody may.
        for _ in 0..4 {
            let again = anna.attempt("boot", "key", 1).send().is(200, "held");
            assert_eq!(again.text("purchase"), bought.text("purchase"));
            anna.purchase(&bought.text("purchase")).is(200, "held");
            anna.order(&bought.text("order")).is(200, "held");
        }
        until("her to ask too often for that", || {
            let reply = anna.order(&bought.text("order"));
            if reply.status == 503 {
                is_left_out_properly(&reply);
            }
            reply.status == 503
        });
        // Ids that are not ours prove nothing, and neither does the pass of somebody who has bought nothing.
        let forged = bought.text("order").replace(|letter: char| letter.is_ascii_digit(), "x");
        until("a forged id to be left out", || anna.order(&forged).status == 503);
        until("a stranger to be left out", || ben.attempt("boot", "key", 1).send().status == 503);
        // What has to be known is told.
        for path in ["/healthz", "/readyz"] {
            (0..20).for_each(|_| drop(server.ask(&Request::get(path)).is(200, "")));
        }
        let callback = Request::post("/v1/payments/callbacks/stripe");
        (0..20).for_each(|_| drop(server.ask(&callback).is(404, "not_found")));
        until("the operator to see it", || bites(&server, "requests"));
        let shown = load(&server);
        assert_eq!((&shown["requests_per_second_max"], &shown["in_flight_ceiling"]), (&10.into(), &16_000.into()));
    });
    assert!(within(RECOVERY_MAX, || server.ask(&Request::get("/v1/sales")).status == 200), "it is over for lists too");
    eventually("ben's turn", || Some(ben.attempt("boot", "key", 1).send()).filter(|told| told.status == 201));
    until("it to be seen that it is over", || !bites(&server, "requests"));

    let metrics = String::from_utf8(server.operate(Request::get("/metrics")).body).unwrap();
    let counted = |priority: &str| -> u64 {
        let name = format!("doorbuster_left_out_total{{ceiling=\"requests\",priority=\"{priority}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    assert!(counted("purchases") > left_out && counted("rest") >= 2, "{metrics}");
    assert!(!metrics.contains("priority=\"proven\""), "{metrics}");
    let log = server.log();
    assert_eq!(log.matches("requests are left out").count(), 1, "{log}");
}

#[test]
fn a_connection_goes_on_after_a_request_was_left_out() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 1));
    server.terminate();
    server.start_again_with(&["overload.requests_per_second_max=4"]);
    let purchase = Request::post("/v1/sales/drop/items/boot/purchases").header("idempotency-key", "key").body(b"{}");
    // In the express lane, and beside it with and without a body.
    for request in [purchase, Request::post("/v1/session").body(b"{}"), Request::get("/v1/sales")] {
        let mut connection = Connection::open(server.public()).unwrap();
        let mut told: Vec<u16> = Vec::new();
        until("both kinds of answers on one connection", || {
            told.push(connection.ask(&request).unwrap().status);
            told.contains(&503) && told.last() != Some(&503) && told.iter().any(|status| *status != 503)
        });
    }
}

#[test]
fn a_browser_that_is_left_out_is_shown_a_page_that_comes_again() {
    let server = Server::start_with(&["overload.requests_per_second_max=4"]);
    let left_out = |request: &Request| {
        eventually("to be left out", || Some(server.ask(request)).filter(|reply| reply.status == 503))
    };
    let page = left_out(&Request::get("/").header("accept", "text/html,*/*;q=0.8"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("refresh"), page.header("retry-after"));
    // The sale's page may stand in a frame, and then so may this.
    assert_eq!(page.header("content-security-policy"), Some("default-src 'none'; style-src 'self'"));
    for words in ["Very many people are here.", "dir=\"rtl\"", "<title>"] {
        assert!(String::from_utf8_lossy(&page.body).contains(words), "{page:?}");
    }
    // What no browser shows is told as everything is told to programs.
    for request in [Request::get("/"), Request::get("/v1/sales").header("accept", "text/html")] {
        let problem = left_out(&request);
        assert_eq!((problem.code().as_str(), problem.header("refresh")), ("overloaded", None), "{problem:?}");
    }
}

#[test]
fn a_browser_that_asks_whether_its_page_may_ask_is_never_left_out() {
    let server = Server::start_with(&["overload.requests_per_second_max=1"]);
    server.create(&open_sale("drop", 1));
    until("to be let in", || server.ask(&Request::get("/v1/sales")).status == 200);
    let preflight = Request::new("OPTIONS", "/v1/sales/drop/items/boot/purchases")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST");
    for _ in 0..10 {
        assert_eq!(server.ask(&preflight).code(), "origin_refused", "it is judged");
    }
}

#[test]
fn whoever_is_answered_before_their_body_has_come_is_told_that_it_was_the_last_answer() {
    let server = Server::start_with(&["overload.requests_per_second_max=1", "public.body_seconds_max=1"]);
    let last = eventually("to be left out", || {
        // With the one request of this second.
        until("to be let in", || server.ask(&Request::get("/v1/sales")).status == 200);
        let mut connection = Connection::open(server.public()).unwrap();
        connection.send(b"POST /v1/session HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\n").unwrap();
        let reply = connection.receive(false).unwrap();
        (reply.status == 503).then(|| connection.read_to_end().map(|()| reply).unwrap())
    });
    assert_eq!(last.header("connection"), Some("close"), "{last:?}");
}

#[test]
fn bodies_that_come_slowly_have_no_place_and_keep_nobody_out() {
    let server = Server::start_with(&["overload.in_flight_max=64"]);
    server.create(&open_sale("drop", 10));
    let head = "POST /v1/sales/drop/passes HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer junk\r\n\
                content-type: application/json\r\ncontent-length: 20\r\n\r\n{";
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut connection = Connection::open(server.public()).unwrap();
            connection.send(head.as_bytes()).unwrap();
            connection
        })
        .collect();
    until("places that are free", || load(&server)["in_flight"].as_u64() == Some(0));
    for number in 0..5 {
        server.customer(&format!("anna-{number}"), "drop").buy("boot", "key").is(201, "held");
    }
    drop(slow);
}

#[test]
fn passes_have_a_ceiling_of_their_own_and_whoever_waits_is_given_a_time() {
    let server = Server::start_with(&["overload.passes_per_second_max=1"]);
    server.create(&open_sale("drop", 100));
    let anna = server.customer("anna", "drop");
    let refused = |name: &str| {
        let mut stranger = server.stranger(name, "drop");
        let reply = eventually("a refusal", || Some(stranger.take_pass()).filter(|reply| reply.status != 201));
        let reply = reply.is(503, "overloaded");
        let retry_at = ChainTime::parse_rfc3339(&reply.text("retry_at")).unwrap().0;
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        let rest = retry_at.saturating_sub(now_milliseconds());
        assert!(seconds * 1_000 >= rest && seconds <= 11, "{seconds} s are told for {rest} ms");
        retry_at
    };
    let times: Vec<_> = ["ben", "cleo", "dan", "eve"].map(refused).into();
    assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 900), "each another time: {times:?}");
    // Whoever has a pass buys, as often as they like, and sees what is theirs.
    for number in 0..5 {
        anna.buy("boot", &format!("key-{number}")).is(201, "held");
    }
    let mine = anna.asks(Request::get("/v1/sales/drop/mine")).is(200, "");
    assert_eq!(mine.json()["purchases"].as_array().unwrap().len(), 5);
    until("the time that ben was told", || now_milliseconds() >= times[0]);
    eventually("his pass", || Some(server.stranger("ben", "drop").take_pass()).filter(|reply| reply.status == 201));
    let left_out = load(&server)["left_out"].clone();
    assert_eq!((&left_out[0]["ceiling"], &left_out[0]["priority"]), (&"passes".into(), &"passes".into()));
}

#[test]
fn the_ceiling_falls_with_the_delay_and_comes_back_within_two_seconds() {
    // The dearest answer that everybody can ask for, and a delay that it exceeds by itself.
    let settings = ["public.threads=1", "overload.in_flight_max=400", "overload.queue_milliseconds_max=1"];
    let server = Server::start_with(&settings);
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    let ceiling = || load(&server)["in_flight_ceiling"].as_u64().unwrap();
    assert_eq!(ceiling(), 400);
    flood(&server, &Request::get("/openapi.json"), 60, || {
        until("the operator to see it", || bites(&server, "in_flight"));
        assert!(ceiling() < 240, "so low that a quarter of it is less than 60");
        // Lists and documents are left out; who buys is not.
        anna.buy("boot", "key").is(201, "held");
        server.customer("ben", "drop").buy("boot", "key").is(201, "held");
    });
    assert!(within(RECOVERY_MAX, || server.ask(&Request::get("/v1/time")).status == 200 && ceiling() == 400));
    until("it to be seen that it is over", || load(&server)["biting"].as_array().unwrap().is_empty());
}
