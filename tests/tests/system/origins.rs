//! Where a request comes from, and what a cookie may do: on both ways that a purchase can take, and on every other route.

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;
use system_tests::{
    AUDIENCE, Connection, Customer, ISSUER, Reply, Request, SECRET, Server, open_sale, sign_with, until,
};

/// Let in by the sale `drop`.
const SHOP: &str = "https://shop.example";
/// Let in by the sale `other`.
const NEIGHBOUR: &str = "https://neighbour.example";
/// Where [`Request`] says that it goes.
const OWN: &str = "https://doorbuster.test";
const COOKIE: &str = "__Host-doorbuster";
const CODE: &str = "origin_refused";

/// How a request names its customer.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Bearer,
    Cookie,
    /// A cookie of Anna's, and the other customer's bearer.
    Both,
    Nobody,
}
use By::{Bearer, Both, Cookie, Nobody};

type Headers = &'static [(&'static str, &'static str)];

struct World {
    server: Server,
    anna: Customer,
    ben: Customer,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        for (sale, origin) in [("drop", SHOP), ("other", NEIGHBOUR)] {
            server.create(&open_sale(sale, 1_000));
            let path = format!("/admin/v1/sales/{sale}/showcase");
            server.operate(Request::new("PUT", &path).json(&json!({ "origins": [origin] }))).is(200, "");
        }
        let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
        Self { server, anna, ben }
    }

    /// The request as bytes, with headers that may stand in it twice.
    fn bytes(&self, request: &Request, by: By, headers: Headers) -> Vec<u8> {
        let request = request.clone().without("authorization");
        let cookie = format!("a=b; {COOKIE}={}", self.anna.token);
        let request = match by {
            Bearer => request.bearer(&self.anna.token),
            Cookie => request.header("cookie", &cookie),
            Both => request.header("cookie", &cookie).bearer(&self.ben.token),
            Nobody => request,
        };
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        with(&request.bytes(), &more)
    }

    fn ask(&self, bytes: &[u8]) -> Reply {
        let mut connection = Connection::open(self.server.public()).unwrap();
        connection.send(bytes).unwrap();
        connection.receive(bytes.starts_with(b"HEAD ")).unwrap()
    }
}

/// With more header lines, the first ones of all.
fn with(bytes: &[u8], lines: &str) -> Vec<u8> {
    std::str::from_utf8(bytes).unwrap().replacen("host:", &format!("{lines}host:"), 1).into_bytes()
}

/// Every value of a header; a browser takes none where there are two.
fn all<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    reply.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
}

/// Whom a browser would show the answer.
#[track_caller]
fn shown_to(reply: &Reply, origin: &[&str], what: &str) {
    assert_eq!(all(reply, "access-control-allow-origin"), origin, "{what}");
    assert_eq!(all(reply, "access-control-allow-credentials"), [""; 0], "{what}: no cookie ever counts there");
    if origin.first().is_some_and(|origin| *origin != "*") {
        assert!(all(reply, "vary").contains(&"origin"), "{what}: {:?}", reply.headers);
    }
}

/// What is sent, and whether it buys; and the shop that may read the answer.
const PURCHASES: &[(&str, By, Headers, bool, &[&str])] = &[
    ("a program", Bearer, &[], true, &[]),
    ("a program with other cookies", Bearer, &[("cookie", "a=b; theme=dark")], true, &[]),
    ("a program with cookies that are none", Bearer, &[("cookie", ";;=;caf\u{e9}")], true, &[]),
    ("a program with two cookie headers", Bearer, &[("cookie", "a=b"), ("cookie", "c=d")], true, &[]),
    ("a program with an empty session", Bearer, &[("cookie", "__Host-doorbuster=")], true, &[]),
    ("an own page", Cookie, &[("origin", OWN), ("sec-fetch-site", "same-origin")], true, &[]),
    ("an own page by its host", Cookie, &[("origin", OWN)], true, &[]),
    ("an own page behind an edge", Cookie, &[("origin", SHOP), ("sec-fetch-site", "same-origin")], true, &[]),
    ("an own page beside a bearer", Both, &[("sec-fetch-site", "same-origin")], true, &[]),
    ("the shop", Bearer, &[("origin", SHOP), ("sec-fetch-site", "cross-site")], true, &[SHOP]),
    ("the shop on the same site", Bearer, &[("origin", SHOP), ("sec-fetch-site", "same-site")], true, &[SHOP]),
    ("the shop in an old browser", Bearer, &[("origin", SHOP)], true, &[SHOP]),
    ("the shop with both", Both, &[("origin", SHOP)], true, &[SHOP]),
    ("the shop with a cookie only", Cookie, &[("origin", SHOP)], false, &[]),
    (
        "the host without TLS",
        Cookie,
        &[("origin", "http://doorbuster.test"), ("sec-fetch-site", "cross-site")],
        false,
        &[],
    ),
    (
        "a page of the same site",
        Cookie,
        &[("origin", "https://blog.doorbuster.test"), ("sec-fetch-site", "same-site")],
        false,
        &[],
    ),
    ("a cookie from no page", Cookie, &[], false, &[]),
    ("a form of another page in an old browser", Cookie, &[("sec-fetch-site", "cross-site")], false, &[]),
    ("another sale's shop", Bearer, &[("origin", NEIGHBOUR)], false, &[]),
    ("anybody", Bearer, &[("origin", "https://evil.example")], false, &[]),
    ("anybody by cookie", Cookie, &[("origin", "https://evil.example")], false, &[]),
    ("null", Bearer, &[("origin", "null")], false, &[]),
    ("null by cookie", Cookie, &[("origin", "null")], false, &[]),
    ("no text", Bearer, &[("origin", "caf\u{e9}")], false, &[]),
    ("empty", Bearer, &[("origin", "")], false, &[]),
    ("nothing but a scheme", Bearer, &[("origin", "https://")], false, &[]),
    ("a longer name", Bearer, &[("origin", "https://shop.example.evil")], false, &[]),
    ("a shorter name", Bearer, &[("origin", "https://shop.exampl")], false, &[]),
    ("a name before it", Bearer, &[("origin", "https://evilshop.example")], false, &[]),
    ("a name under it", Bearer, &[("origin", "https://a.shop.example")], false, &[]),
    ("another port", Bearer, &[("origin", "https://shop.example:8443")], false, &[]),
    ("the port that is meant", Bearer, &[("origin", "https://shop.example:443")], false, &[]),
    ("another scheme", Bearer, &[("origin", "http://shop.example")], false, &[]),
    ("capital letters", Bearer, &[("origin", "HTTPS://SHOP.EXAMPLE")], false, &[]),
    ("a path", Bearer, &[("origin", "https://shop.example/")], false, &[]),
    ("two in one", Bearer, &[("origin", "https://shop.example https://evil.example")], false, &[]),
    ("twice the shop", Bearer, &[("origin", SHOP), ("origin", SHOP)], false, &[]),
    ("the shop and another", Bearer, &[("origin", SHOP), ("origin", "https://evil.example")], false, &[]),
    (
        "twice a site",
        Cookie,
        &[("origin", OWN), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
        false,
        &[],
    ),
    ("a site that only looks like it", Cookie, &[("sec-fetch-site", "Same-Origin")], false, &[]),
];

#[test]
fn a_purchase_counts_by_where_it_comes_from_on_both_ways() {
    let world = World::new();
    let mut bought = 0;
    for (row, (what, by, headers, buys, shown)) in PURCHASES.iter().enumerate() {
        // The bearer counts and not the cookie, so the pass has to be the bearer's.
        let customer = if *by == Both { &world.ben } else { &world.anna };
        let ways = ["", "te: trailers\r\n", "split"];
        for (number, way) in ways.iter().enumerate() {
            let key = format!("key-{row}-{number}");
            let bytes = world.bytes(customer.attempt("boot", &key, 1).request(), *by, headers);
            let reply = match *way {
                "split" => {
                    let mut connection = Connection::open(world.server.public()).unwrap();
                    connection.send(&bytes[..50]).unwrap();
                    std::thread::yield_now();
                    connection.send(&bytes[50..]).unwrap();
                    connection.receive(false).unwrap()
                }
                lines => world.ask(&with(&bytes, lines)),
            };
            let what = format!("{what}, way {number}");
            let told = (reply.status, reply.code());
            assert_eq!(told, if *buys { (201, "held".into()) } else { (403, CODE.into()) }, "{what}");
            shown_to(&reply, shown, &what);
            bought += u64::from(*buys);
        }
    }
    assert_eq!(world.server.counts("drop"), [1_000 - bought, bought, 0, 0]);
    let of_ben = world.ben.asks(Request::get("/v1/orders")).json()["orders"].as_array().unwrap().len();
    assert_eq!(of_ben, 6, "whoever the bearer names, and not the cookie");
}

#[test]
fn two_tokens_of_either_kind_are_none() {
    let world = World::new();
    let purchase = world.anna.attempt("boot", "key", 1).request().clone();
    let own = "sec-fetch-site: same-origin\r\n";
    let (anna, ben) = (&world.anna.token, &world.ben.token);
    for (what, lines) in [
        ("two cookies of the name", format!("cookie: {COOKIE}={anna}; {COOKIE}={anna}\r\n")),
        ("one of them somebody else's", format!("cookie: {COOKIE}={ben}; {COOKIE}={anna}\r\n")),
        ("two cookie headers", format!("cookie: a=b\r\ncookie: {COOKIE}={anna}\r\n")),
        (
            "two bearers and a cookie",
            format!("authorization: Bearer {anna}\r\n").repeat(2) + &format!("cookie: {COOKIE}={anna}\r\n"),
        ),
        ("a bearer that is none and a cookie", format!("authorization: Basic x\r\ncookie: {COOKIE}={anna}\r\n")),
        ("a bearer that is no text and a cookie", format!("authorization: caf\u{e9}\r\ncookie: {COOKIE}={anna}\r\n")),
        ("another cookie", format!("cookie: __Host-Doorbuster={anna}; x={COOKIE}={anna}\r\n")),
        ("no token", String::new()),
    ] {
        for request in [&purchase, &Request::get("/v1/sales/drop/mine"), &Request::post("/v1/sales/drop/passes")] {
            for way in ["", "te: trailers\r\n"] {
                let bytes = world.bytes(request, Nobody, &[]);
                let reply = world.ask(&with(&bytes, &format!("{own}{lines}{way}")));
                assert_eq!((reply.status, reply.code().as_str()), (401, "token_invalid"), "{what} {way}");
            }
        }
    }
    // Whatever else has set cookies for this host, in whatever bytes.
    let bytes = with(
        &world.bytes(&purchase, Nobody, &[]),
        &format!("{own}cookie: caf\u{e9}=\u{1f45f}; {COOKIE}={anna}; b\r\n"),
    );
    world.ask(&bytes).is(201, "held");
    world.ask(&with(&bytes, "te: trailers\r\n")).is(200, "held");
    assert_eq!(world.server.counts("drop"), [999, 1, 0, 0]);
}

#[test]
fn every_other_route_knows_its_sale_and_shows_answers_to_no_other_page() {
    let world = World::new();
    let held = world.anna.buy("boot", "key").is(201, "held");
    let (purchase, order) = (held.text("purchase"), held.text("order"));
    let reads = ["/v1/sales/drop/mine", &format!("/v1/purchases/{purchase}"), &format!("/v1/orders/{order}")];
    let changes = [
        "/v1/sales/drop/passes",
        &format!("/v1/purchases/{purchase}/stream-tickets"),
        &format!("/v1/orders/{order}/hold-token"),
        &format!("/v1/orders/{order}/cancel"),
    ];
    let pages: [(&str, Headers, bool, bool); 5] = [
        // Who; whether it may act; whether it is the shop.
        ("the shop", &[("origin", SHOP)], true, true),
        ("an own page", &[("origin", OWN), ("sec-fetch-site", "same-origin")], true, false),
        ("another sale's shop", &[("origin", NEIGHBOUR)], false, false),
        ("anybody", &[("origin", "https://evil.example")], false, false),
        ("null", &[("origin", "null")], false, false),
    ];
    for (who, headers, may_act, is_shop) in pages.into_iter().rev() {
        let shown: &[&str] = if is_shop { &[SHOP] } else { &[] };
        for path in reads {
            let reply = world.ask(&world.bytes(&Request::get(path), Bearer, headers));
            assert_eq!(reply.status, 200, "{path} by {who}: the browser keeps it from the page");
            shown_to(&reply, shown, path);
            let nothing = world.ask(&world.bytes(&Request::get(path), Nobody, headers));
            assert_eq!(nothing.status, 401, "{path} by {who}");
            shown_to(&nothing, shown, path);
        }
        for path in changes {
            let reply = world.ask(&world.bytes(&Request::post(path), Bearer, headers));
            let what = format!("{path} by {who}");
            assert_eq!(reply.code() == CODE, !may_act, "{what}: {:?}", reply.json());
            shown_to(&reply, shown, &what);
            if !path.ends_with("/cancel") {
                let by_cookie = world.ask(&world.bytes(&Request::post(path), Cookie, headers));
                assert_eq!(by_cookie.code() == CODE, !may_act || is_shop, "{what} by cookie: {:?}", by_cookie.json());
            }
        }
        // No sale, so nobody's but the own pages'.
        for (method, path) in [("POST", "/v1/session"), ("DELETE", "/v1/session")] {
            let reply = world.ask(&world.bytes(&Request::new(method, path), Bearer, headers));
            assert_eq!(reply.code() == CODE, !may_act || is_shop, "{method} {path} by {who}");
            shown_to(&reply, &[], path);
            assert_eq!(reply.header("set-cookie").is_some(), reply.status < 300, "{method} {path} by {who}");
        }
        let reply = world.ask(&world.bytes(&Request::get("/v1/orders"), Bearer, headers));
        shown_to(&reply, &[], "the orders of all sales");
        // An escaped name is no other name.
        let escaped = world.ask(&world.bytes(&Request::post("/v1/sales/dr%6fp/passes"), Bearer, headers));
        shown_to(&escaped, &[], "an escaped name");
        let told = world.ask(&world.bytes(&Request::get("/button/access?sale=drop"), Nobody, headers));
        assert_eq!(told.json(), json!({ "let_in": may_act }), "{who}");
        shown_to(&told, &["*"], "access");
        assert_eq!(told.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn what_is_everybodys_is_shown_to_every_page_and_says_nothing_of_it() {
    let world = World::new();
    for (path, status) in [
        ("/v1/time", 200),
        ("/v1/sales", 200),
        ("/v1/sales/drop", 200),
        ("/v1/sales/drop/heads", 200),
        ("/v1/sales/nothing", 404),
        ("/v1/sales/nothing/heads", 404),
        ("/button.js", 200),
        ("/button/words?sale=drop&lang=de", 200),
        ("/button/words?sale=nothing", 200),
        ("/button/access?sale=nothing", 200),
    ] {
        let pages: [Headers; 4] =
            [&[], &[("origin", SHOP)], &[("origin", "https://evil.example")], &[("origin", "null")]];
        for method in ["GET", "HEAD"] {
            let replies = pages.map(|headers| world.ask(&world.bytes(&Request::new(method, path), Nobody, headers)));
            for reply in &replies {
                assert_eq!(reply.status, status, "{method} {path}");
                shown_to(reply, &["*"], path);
                assert!(!all(reply, "vary").contains(&"origin"), "{path}: an edge may keep it for all");
            }
        }
    }
}

#[test]
fn a_browser_that_asks_first_hears_what_the_page_may() {
    let world = World::new();
    let order = world.anna.buy("boot", "key").is(201, "held").text("order");
    let asked: Headers = &[
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,doorbuster-pass,idempotency-key"),
    ];
    for path in ["/v1/sales/drop/items/boot/purchases", "/v1/sales/drop/mine", &format!("/v1/orders/{order}/payments")]
    {
        for (origin, is_let_in) in [
            (SHOP, true),
            (NEIGHBOUR, false),
            ("https://evil.example", false),
            ("null", false),
            ("https://shop.example.evil", false),
            ("HTTPS://SHOP.EXAMPLE", false),
        ] {
            let request = Request::new("OPTIONS", path).header("origin", origin);
            let reply = world.ask(&world.bytes(&request, Nobody, asked));
            if !is_let_in {
                shown_to(&reply.is(403, CODE), &[], origin);
                continue;
            }
            shown_to(&reply, &[SHOP], path);
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
            assert_eq!(
                reply.header("access-control-allow-headers"),
                Some("authorization, content-type, doorbuster-pass, idempotency-key, prefer")
            );
            assert_eq!(reply.header("access-control-max-age"), Some("7200"));
        }
    }
    for path in ["/v1/session", "/v1/orders", "/v1/sales/nothing/mine", "/v1/orders/or_nothing", "/admin/v1/sales"] {
        let request = Request::new("OPTIONS", path).header("origin", SHOP);
        shown_to(&world.ask(&world.bytes(&request, Nobody, asked)).is(403, CODE), &[], path);
    }
}

#[test]
fn a_session_is_the_token_in_a_cookie_that_ends_with_it() {
    let world = World::new();
    let server = &world.server;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |expires: u64, more: &str| {
        let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": expires, "more": more });
        sign_with(SECRET, &Header::new(Algorithm::HS256), &claims)
    };
    let begin = |token: &str| server.ask(&Request::post("/v1/session").bearer(token));
    for (seconds, expected) in [(600, 600), (7 * 86_400, 12 * 3_600)] {
        let token = token(now + seconds, "");
        let reply = begin(&token).is(200, "");
        let cookie = reply.header("set-cookie").unwrap();
        let rest = cookie.strip_prefix(&format!("{COOKIE}={token}; Path=/; Max-Age=")).unwrap();
        let (age, rest) = rest.split_once("; ").unwrap();
        assert_eq!(rest, "Secure; HttpOnly; SameSite=Strict");
        let age: u64 = age.parse().unwrap();
        assert!((expected - 30..=expected).contains(&age), "{age} of {expected}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(!String::from_utf8(reply.body.clone()).unwrap().contains(&token), "the script has it no more");
    }
    let customer = |token: &str| begin(token).text("customer");
    assert_eq!(customer(&world.anna.token), customer(&token(now + 600, "")), "a renewed token is the same customer's");
    assert_ne!(customer(&world.anna.token), customer(&world.ben.token));

    for (what, token, status, code) in [
        ("expired", token(1_000_000_000, ""), 401, "token_expired"),
        ("changed", world.anna.token.clone() + "x", 401, "token_invalid"),
        ("a guest where there are none", "guest_anna".to_owned(), 401, "token_invalid"),
        ("too long for a cookie", token(now + 600, &"x".repeat(2_750)), 400, "malformed"),
        ("too long", token(now + 600, &"x".repeat(3_100)), 401, "token_invalid"),
        ("none", String::new(), 401, "token_invalid"),
        ("another cookie behind it", world.anna.token.clone() + "; Domain=example", 401, "token_invalid"),
    ] {
        let reply = begin(&token);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{what}");
        assert_eq!(reply.header("set-cookie"), None, "{what}");
    }
    let ended = server.ask(&Request::new("DELETE", "/v1/session"));
    assert_eq!(ended.status, 204);
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(ended.header("set-cookie"), Some(gone.as_str()));
}

#[test]
fn a_session_buys_on_an_own_page_and_ends_with_its_token() {
    let world = World::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "carl", "exp": now + 4 });
    let token = sign_with(SECRET, &Header::new(Algorithm::HS256), &claims);
    let own = |request: Request| request.header("origin", OWN).header("sec-fetch-site", "same-origin");
    let reply = world.server.ask(&own(Request::post("/v1/session").bearer(&token))).is(200, "");
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let with_cookie = |request: Request| own(request).header("cookie", &cookie);
    let pass = world.server.ask(&with_cookie(Request::post("/v1/sales/drop/passes"))).is(201, "").text("pass");
    let buy = |key: &str| {
        let request = Request::post("/v1/sales/drop/items/boot/purchases").header("doorbuster-pass", &pass);
        with_cookie(request.header("idempotency-key", key).json(&json!({ "quantity": 1 })))
    };
    let order = world.server.ask(&buy("key")).is(201, "held").text("order");
    world.server.ask(&buy("key").without("origin").without("sec-fetch-site")).is(403, CODE);
    world.server.ask(&with_cookie(Request::get(&format!("/v1/orders/{order}")))).is(200, "held");
    until("the token's end", || world.server.ask(&with_cookie(Request::get("/v1/orders"))).code() == "token_expired");
    world.server.ask(&buy("key")).is(401, "token_expired");
}

#[test]
fn the_page_of_a_sale_is_framed_by_its_shops_and_nobody_else() {
    let world = World::new();
    let framed_by = |path: &str| {
        let reply = world.server.ask(&Request::get(path));
        let policy = reply.header("content-security-policy").unwrap().to_owned();
        policy.split_once("frame-ancestors ").unwrap().1.to_owned()
    };
    let order = world.anna.buy("boot", "key").is(201, "held").text("order");
    assert_eq!(framed_by("/sales/drop"), SHOP);
    assert_eq!(framed_by("/sales/other"), NEIGHBOUR);
    for path in ["/", "/mine", "/sales/nothing", &format!("/orders/{order}"), "/v1/time", "/button.js"] {
        assert_eq!(framed_by(path), "'none'", "{path}");
    }
    let set = |origins: &[&str]| {
        let request = Request::new("PUT", "/admin/v1/sales/drop/showcase").json(&json!({ "origins": origins }));
        world.server.operate(request).is(200, "");
    };
    set(&[SHOP, "https://m.shop.example"]);
    assert_eq!(framed_by("/sales/drop"), format!("{SHOP} https://m.shop.example"));
    set(&[]);
    assert_eq!(framed_by("/sales/drop"), "'none'");
    let request = world.anna.attempt("boot", "key-2", 1).request().clone();
    world.server.ask(&request.header("origin", SHOP)).is(403, CODE);
}
