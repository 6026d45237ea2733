//! Who asks too often: by address and by customer, behind proxies that are believed and behind headers that are not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use system_tests::{Connection, Reply, Request, Server, doorbuster, eventually, now_milliseconds, open_sale, until};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// So small that a test reaches them; hammering blocks nobody.
const TIGHT: &[&str] = &[
    "limits.loopback=true",
    "limits.address_passes_per_second=1",
    "limits.address_passes_burst=3",
    "limits.address_purchases_per_second=1",
    "limits.address_purchases_burst=3",
    "limits.address_status_per_second=1",
    "limits.address_status_burst=3",
    "limits.hammering_per_second=0",
];

fn server(more: &[&str]) -> Server {
    let server = Server::start_with(&TIGHT.iter().chain(more).copied().collect::<Vec<_>>());
    server.create(&open_sale("drop", 10));
    server
}

/// Sends it from an address of this machine.
fn from(server: &Server, address: IpAddr, request: &Request) -> Reply {
    Connection::open_from(address, server.public()).and_then(|mut connection| connection.ask(request)).unwrap()
}

fn told(replies: impl IntoIterator<Item = Reply>) -> Vec<u16> {
    replies.into_iter().map(|reply| reply.status).collect()
}

/// What is told in less than a second, in which no limit of these tests admits another; `ask` begins anew for each number.
fn in_a_second<T>(mut ask: impl FnMut(u8) -> T) -> T {
    (10..250)
        .find_map(|number| {
            let start = Instant::now();
            let told = ask(number);
            (start.elapsed() < Duration::from_millis(950)).then_some(told)
        })
        .expect("a machine that can do that within a second")
}

/// Five times in a second, each time from an address that has not asked before.
fn five_times(server: &Server, request: impl Fn(usize) -> Request) -> (IpAddr, Vec<u16>) {
    static TRIES: AtomicU8 = AtomicU8::new(1);
    in_a_second(|number| {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, number, TRIES.fetch_add(1, Ordering::Relaxed)));
        (address, told((0..5).map(|time| from(server, address, &request(time)))))
    })
}

/// Asks until a limit refuses it.
fn until_refused(server: &Server, address: IpAddr, request: &Request) -> Reply {
    eventually("a refusal", || Some(from(server, address, request)).filter(|reply| reply.code() == "rate_limited"))
}

/// Waits until the time that a refusal gave, and no longer.
fn wait_as_told(refused: &Reply) {
    let retry_at = refused.text("retry_at");
    let retry_at = domain::ChainTime::parse_rfc3339(&retry_at).unwrap_or_else(|| panic!("{:?}", refused.json())).0;
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let rest = retry_at.saturating_sub(now_milliseconds());
    assert!(seconds >= 1 && seconds * 1_000 >= rest, "{seconds} s is not up to {rest} ms");
    until("the time that was given", || now_milliseconds() >= retry_at);
}

#[test]
fn an_address_that_asks_too_often_waits_as_told_and_others_do_not() {
    let server = server(&[]);
    let orders = Request::get("/v1/orders");
    let (one, statuses) = five_times(&server, |_| orders.clone());
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let refused = until_refused(&server, one, &orders).is(429, "rate_limited");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    from(&server, OTHER, &orders).is(401, "token_invalid");
    wait_as_told(&refused);
    from(&server, one, &orders).is(401, "token_invalid");

    // Each kind by itself, and nothing that is for everybody.
    let (_, statuses) = five_times(&server, |_| Request::post("/v1/sales/drop/passes"));
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let (_, statuses) = five_times(&server, |_| Request::post("/v1/sales/drop/items/boot/purchases"));
    assert_eq!(statuses, [400, 400, 400, 429, 429]);
    let (one, _) = five_times(&server, |time| if time == 0 { orders.clone() } else { Request::post("/v1/session") });
    from(&server, one, &orders).is(401, "token_invalid");
    for path in ["/v1/time", "/v1/sales", "/v1/sales/drop", "/healthz", "/readyz", "/sales/drop", "/openapi.json"] {
        assert_eq!(told((0..10).map(|_| from(&server, ONE, &Request::get(path)))), [200; 10], "{path}");
    }
    let callback = Request::post("/v1/payments/callbacks/stripe");
    assert_eq!(told((0..10).map(|_| from(&server, ONE, &callback))), [404; 10]);
    let metrics = String::from_utf8(server.operate(Request::get("/metrics")).body).unwrap();
    let count = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {metrics}")).trim().parse().unwrap()
    };
    let of_kind = |kind: &str| count(&format!("doorbuster_limited_total{{by=\"address\",kind=\"{kind}\"}}"));
    let all = of_kind("status") + of_kind("passes") + of_kind("purchases");
    assert!(of_kind("status") >= 3 && of_kind("passes") >= 3 && of_kind("purchases") >= 2, "{metrics}");
    assert_eq!(count("doorbuster_refusals_total{code=\"rate_limited\"}"), all);
    assert_eq!(count("doorbuster_automatic_blocks_total"), 0);
    assert!(metrics.contains("doorbuster_limit_entries{by=\"address\",kind=\"status\"}"), "{metrics}");
}

#[test]
fn this_machine_is_not_limited_by_address_unless_it_is_wanted() {
    let server = server(&["limits.loopback=false"]);
    assert_eq!(told((0..20).map(|_| from(&server, ONE, &Request::get("/v1/orders")))), [401; 20]);
}

#[test]
fn a_customer_is_one_at_every_address_and_a_winner_who_asks_again_waits_and_gets_it() {
    let off = ["limits.loopback=false", "limits.customer_purchases_per_second=1", "limits.customer_purchases_burst=3"];
    let server = server(&off);
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let attempt = anna.attempt("boot", "key", 1);
    // Somebody with her pass and another token is not her, and costs her nothing.
    let forged = attempt.request().clone().bearer("not.a.token");
    assert_eq!(told((0..10).map(|_| from(&server, ONE, &forged))), [401; 10]);
    let won = attempt.send().is(201, "held");
    let mut addresses = [ONE, OTHER].into_iter().cycle();
    let refused = eventually("a refusal", || {
        let reply = from(&server, addresses.next().unwrap(), attempt.request());
        assert!(matches!(reply.code().as_str(), "held" | "rate_limited"), "{:?}", reply.json());
        (reply.status == 429).then_some(reply)
    });
    ben.buy("boot", "key").is(201, "held");
    // What is no purchase is counted by itself.
    anna.order(&won.text("order")).is(200, "held");
    wait_as_told(&refused);
    let again = attempt.send().is(200, "held");
    assert_eq!(again.text("purchase"), won.text("purchase"));

    // The rest of the order of refusals: what the request is comes before how often she asks, and the sale behind.
    let refusal = |change: &dyn Fn(Request) -> Request| {
        until("her limit to be reached", || from(&server, ONE, attempt.request()).status == 429);
        from(&server, ONE, &change(anna.attempt("boot", "another", 1).request().clone())).code()
    };
    let without = |name: &'static str| move |request: Request| request.without(name);
    assert_eq!(refusal(&without("idempotency-key")), "malformed");
    assert_eq!(refusal(&without("authorization")), "token_invalid");
    assert_eq!(refusal(&without("doorbuster-pass")), "pass_invalid");
    assert_eq!(refusal(&|request| request.header("doorbuster-pass", &ben.pass)), "pass_foreign");
    server.turn("drop", "close").is(200, "");
    until("the sale to be closed", || server.sale("drop")["phase"] == "closed");
    let after = eventually("a refusal by the limit", || Some(refusal(&|request| request)).filter(|it| it != "closed"));
    assert_eq!(after, "rate_limited");
}

#[test]
fn a_forged_header_changes_nothing() {
    let server = server(&[]);
    let forwarded = |request: Request, number: usize| {
        request.header("x-forwarded-for", &format!("198.51.100.{number}")).header("forwarded", "for=198.51.100.9")
    };
    let (_, statuses) = five_times(&server, |time| forwarded(Request::get("/v1/orders"), time));
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let purchase = Request::post("/v1/sales/drop/items/boot/purchases").header("idempotency-key", "key");
    let (_, statuses) = five_times(&server, |time| forwarded(purchase.clone().body(b"{}"), time));
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
}

#[test]
fn a_trusted_proxy_is_believed_about_the_last_address_that_is_no_proxy() {
    let server = server(&["public.trusted_proxies=127.0.0.2/32,10.0.0.0/8", "limits.loopback=false"]);
    let purchase = Request::post("/v1/sales/drop/items/boot/purchases").header("idempotency-key", "key").body(b"{}");
    // In the express lane and beside it.
    for (lane, request) in [(1, Request::get("/v1/orders")), (2, purchase)] {
        let for_client = |client: &str| from(&server, ONE, &request.clone().header("x-forwarded-for", client)).status;
        let statuses = in_a_second(|number| {
            let client = format!("198.51.{lane}.{number}");
            let mut statuses: Vec<_> = (0..4).map(|_| for_client(&client)).collect();
            // What it says of itself does not count; a second proxy of ours is one too.
            statuses.push(for_client(&format!("1.2.3.4, {client}")));
            statuses.push(for_client(&format!("{client}, 10.0.0.7")));
            statuses.push(for_client(&format!("::ffff:{client}")));
            // Two lines are one list. In the lane they are odd enough for the general way.
            let lines = format!("x-forwarded-for: 1.2.3.4\r\nx-forwarded-for: {client}\r\n");
            let bytes = request.bytes();
            let head = bytes.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
            let mut connection = Connection::open_from(ONE, server.public()).unwrap();
            connection.send(&[&bytes[..head], lines.as_bytes(), &bytes[head..]].concat()).unwrap();
            statuses.push(connection.receive(false).unwrap().status);
            // Another peer says the same and is not believed, and another client is another.
            statuses.push(from(&server, OTHER, &request.clone().header("x-forwarded-for", &client)).status);
            statuses.push(for_client(&format!("203.0.113.{number}")));
            statuses
        });
        assert_eq!(statuses, [401, 401, 401, 429, 429, 429, 429, 429, 401, 401], "lane {lane}");
        // An IPv6 network of 64 bits is one client.
        let statuses = in_a_second(|number| {
            let network = |network: u8| move |host: u8| format!("2001:db8:{lane}{number:02x}:{network}::{host:x}:1");
            (1..=5).map(network(1)).chain([network(2)(1)]).map(|client| for_client(&client)).collect::<Vec<_>>()
        });
        assert_eq!(statuses, [401, 401, 401, 429, 429, 401], "lane {lane}");
        // What cannot be read ends the walk: such requests are the proxy's own, and that is this machine.
        assert_eq!((0..9).map(|_| for_client("198.51.100.1, unknown")).collect::<Vec<_>>(), [401; 9]);
    }
}

#[test]
fn whoever_goes_on_is_blocked_for_a_while_and_an_own_order_stays_readable_beside_them() {
    let settings = [
        "limits.hammering_per_second=1",
        "limits.hammering_burst=5",
        "limits.automatic_block_seconds=5",
        "limits.automatic_block_seconds_max=10",
    ];
    let server = server(&settings);
    let anna = server.customer("anna", "drop");
    let bought = anna.buy("boot", "key").is(201, "held");
    let order = Request::get(&format!("/v1/orders/{}", bought.text("order"))).bearer(&anna.token);
    let forged = Request::get("/v1/orders/or_AAAAAAAAAAAAAAAAAAAAAA").bearer(&anna.token);
    let passes = Request::post("/v1/sales/drop/passes");
    // Somebody at Anna's address goes on until the address is blocked.
    let refused = eventually("a block", || {
        let refused = from(&server, ONE, &passes);
        (refused.header("retry-after") == Some("5")).then_some(refused)
    });
    assert_eq!(
        told((0..3).map(|_| from(&server, ONE, &Request::get("/v1/orders")))),
        [401; 3],
        "it is no block of pages"
    );
    from(&server, ONE, &Request::get("/v1/orders")).is(429, "rate_limited");
    // Purchases too, of strangers; whoever has a pass is none, within two a second.
    from(&server, ONE, &Request::post("/v1/sales/drop/items/boot/purchases")).is(429, "rate_limited");
    from(&server, ONE, anna.attempt("boot", "key", 1).request()).is(200, "held");
    from(&server, OTHER, &passes).is(401, "token_invalid");
    for _ in 0..3 {
        let seen = from(&server, ONE, &order).is(200, "held");
        assert_eq!(seen.text("order"), bought.text("order"));
        until_refused(&server, ONE, &forged);
        until_refused(&server, ONE, &passes);
    }
    // More than two a second are refused to her as well.
    until_refused(&server, ONE, &order);
    assert_eq!(server.gauge("doorbuster_automatic_blocks_in_force"), 1);
    let listed = doorbuster(&["block", "list", "--data", server.data().to_str().unwrap()]).out;
    assert!(listed.contains("although they were refused: 1\n"), "{listed}");
    assert!(server.gauge("doorbuster_automatic_blocks_total") >= 1);
    wait_as_told(&refused);
    until("the end of the block", || from(&server, ONE, &passes).status == 401);
}
