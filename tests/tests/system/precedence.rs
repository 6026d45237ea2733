//! Of several reasons against a purchase, the one that stands first is told: every two and three reasons that can hold at once, over HTTP, in
//! the express lane and out of it. What the owner judges by itself is tried in every combination by the tests of `admission`.

use std::net::{IpAddr, Ipv4Addr};

use domain::Refusal;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use services::keys::ShopKey;
use services::receiver::{Answer, Receiver};
use system_tests::{
    AUDIENCE, Connection, Customer, ISSUER, Reply, Request, SECRET, Server, item, sale_of, sign_with, until,
};

/// Who is believed about the addresses of others.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const BLOCKED_ADDRESS: &str = "203.0.113.7";
const BUSY_ADDRESS: &str = "198.51.100.7";
/// Purchases that a customer may send at once: more than this test sends for one whom no limit should hit.
const BURST: usize = 40;

/// One thing that is wrong, and what is told for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    AddressBlocked,
    AddressBusy,
    Page,
    Key,
    BodyLarge,
    BodyType,
    Quantity,
    Item,
    TokenForged,
    TokenExpired,
    TokenOfUnknownKey,
    ClaimMissing,
    PassForged,
    PassForeign,
    CustomerBlocked,
    CustomerBusy,
    KeyBound,
    Coupon,
}

use Wrong::*;

const ALL: [(Wrong, Refusal); 18] = [
    // Before anything of a request is read.
    (AddressBlocked, Refusal::Blocked),
    (AddressBusy, Refusal::RateLimited),
    (Page, Refusal::OriginRefused),
    // From here on in the order in which `Refusal` declares them.
    (Key, Refusal::Malformed),
    (BodyLarge, Refusal::BodyTooLarge),
    (BodyType, Refusal::MediaTypeUnsupported),
    (Quantity, Refusal::QuantityInvalid),
    (Item, Refusal::NotFound),
    (TokenForged, Refusal::TokenInvalid),
    (TokenExpired, Refusal::TokenExpired),
    (PassForged, Refusal::PassInvalid),
    (PassForeign, Refusal::PassForeign),
    (ClaimMissing, Refusal::NotEligible),
    (TokenOfUnknownKey, Refusal::IdentityUnavailable),
    (CustomerBlocked, Refusal::Blocked),
    (CustomerBusy, Refusal::RateLimited),
    (KeyBound, Refusal::KeyReused),
    (Coupon, Refusal::CouponRefused),
];
/// Of each of these only one can be wrong in one way.
const ONE_OF: [&[Wrong]; 5] = [
    &[AddressBlocked, AddressBusy],
    &[Key, KeyBound],
    &[TokenForged, TokenExpired, TokenOfUnknownKey, ClaimMissing],
    &[PassForged, PassForeign],
    // Nobody can say whose pass it is.
    &[PassForeign, TokenOfUnknownKey],
];

/// A sale that is sold out, and who may want something of it.
struct Table {
    server: Server,
    /// With nothing against her, blocked, asking too often, and both.
    customers: [Customer; 4],
    stranger: Customer,
    key: ShopKey,
    _shop: Receiver,
}

fn claims(subject: &str, vip: bool, expires: u64) -> String {
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": expires, "vip": vip });
    sign_with(SECRET, &Header::new(Algorithm::HS256), &claims)
}

fn block(server: &Server, who: &Value) {
    server.operate(Request::post("/admin/v1/blocks").json(who)).is(201, "");
}

impl Table {
    fn new() -> Self {
        let shop = Receiver::start(|_| Answer::Status(500)).unwrap();
        let url = format!("identity.jwks_url={}", shop.url());
        let burst = format!("limits.customer_purchases_burst={BURST}");
        let server = Server::start_with(&[
            &url,
            "identity.dangerous_plain_http=true",
            "identity.required_claims=vip=true",
            "public.trusted_proxies=127.0.0.2",
            "limits.address_purchases_per_second=1",
            "limits.address_purchases_burst=1",
            "limits.hammering_per_second=0",
            "limits.customer_purchases_per_second=1",
            &burst,
        ]);
        server.create(&sale_of("drop", vec![item("boot", 8)]));
        let customer = |name: &str| {
            let mut customer = server.stranger(name, "drop");
            customer.token = claims(name, true, 4_000_000_000);
            customer.take_pass().is(201, "");
            customer
        };
        let customers = ["anna", "ben", "carl", "dora"].map(customer);
        for customer in &customers {
            customer.attempt("boot", "bound", 2).send().is(201, "held");
        }
        let stranger = customer("stranger");
        let table = Self { server, customers, stranger, key: ShopKey::es256("unknown"), _shop: shop };
        for busy in &table.customers[2..] {
            table.keep_busy(busy);
        }
        block(&table.server, &json!({ "address": BLOCKED_ADDRESS, "reason": "x" }));
        for name in ["ben", "dora"] {
            block(&table.server, &json!({ "issuer": ISSUER, "subject": name, "reason": "x" }));
        }
        table
    }

    fn request(&self, wrong: &[Wrong], number: usize) -> Request {
        let is = |one| wrong.contains(&one);
        let (name, customer) = match (is(CustomerBusy), is(CustomerBlocked)) {
            (false, false) => ("anna", &self.customers[0]),
            (false, true) => ("ben", &self.customers[1]),
            (true, false) => ("carl", &self.customers[2]),
            (true, true) => ("dora", &self.customers[3]),
        };
        let mut request = customer.attempt("boot", "new", 1).request().clone();
        if is(Item) {
            request = customer.attempt("nothing", "new", 1).request().clone();
        }
        let token = match () {
            () if is(TokenForged) => sign_with(&"x".repeat(40), &Header::new(Algorithm::HS256), &json!({})),
            () if is(TokenExpired) => claims(name, true, 1_000_000_000),
            () if is(ClaimMissing) => claims(name, false, 4_000_000_000),
            () if is(TokenOfUnknownKey) => {
                self.key.token(&json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": name, "exp": 4_000_000_000_u64 }))
            }
            () => customer.token.clone(),
        };
        request = request.bearer(&token);
        let mut body = json!({ "quantity": if is(Quantity) { 0 } else { 1 } });
        if is(Coupon) {
            body["coupon"] = "HALF".into();
        }
        if is(BodyLarge) {
            body["coupon"] = "x".repeat(5_000).into();
        }
        request = request.json(&body);
        let address = match () {
            () if is(AddressBlocked) => BLOCKED_ADDRESS.to_owned(),
            () if is(AddressBusy) => BUSY_ADDRESS.to_owned(),
            () => format!("2001:db8:{:x}::1", number % 0xffff),
        };
        request = request.header("x-forwarded-for", &address);
        for (one, name, value) in [
            (Page, "origin", "https://evil.example"),
            (BodyType, "content-type", "text/plain"),
            (PassForged, "doorbuster-pass", "dp_forged"),
            (PassForeign, "doorbuster-pass", &self.stranger.pass),
            (KeyBound, "idempotency-key", "bound"),
        ] {
            if is(one) {
                request = request.header(name, value);
            }
        }
        if is(Key) { request.without("idempotency-key") } else { request }
    }

    fn send(&self, request: &Request) -> Reply {
        Connection::open_from(PROXY, self.server.public()).and_then(|mut connection| connection.ask(request)).unwrap()
    }

    fn told(&self, wrong: &[Wrong], number: usize) -> String {
        // Places that have become free since are taken first.
        if wrong.contains(&AddressBusy) {
            self.send(&self.request(&[AddressBusy, PassForged], number));
        }
        if wrong.contains(&CustomerBusy) {
            self.keep_busy(&self.customers[2]);
        }
        let request = self.request(wrong, number);
        let request = if number.is_multiple_of(2) { request } else { request.header("te", "trailers") };
        self.send(&request).code()
    }

    fn keep_busy(&self, customer: &Customer) {
        let again = customer.attempt("boot", "bound", 2);
        until("the customer's limit", || again.request().send(self.server.public()).status == 429);
    }
}

fn can_hold_at_once(wrong: &[Wrong]) -> bool {
    let of = |group: &[Wrong]| wrong.iter().filter(|one| group.contains(one)).count();
    let is_nobody = of(&[TokenForged, TokenExpired, TokenOfUnknownKey, ClaimMissing, PassForged, PassForeign]) > 0;
    // Whoever proves a pass is let through now and then, however busy the address is.
    let busy_is_certain = of(&[AddressBusy]) == 0 || is_nobody;
    ONE_OF.iter().all(|group| of(group) <= 1) && busy_is_certain
}

#[test]
fn of_all_reasons_against_a_request_the_first_is_told_over_http() {
    let table = Table::new();
    let reasons: Vec<Wrong> = ALL.iter().map(|(wrong, _)| *wrong).collect();
    let mut sets: Vec<Vec<Wrong>> = vec![Vec::new()];
    for one in 0..reasons.len() {
        sets.push(vec![reasons[one]]);
        for two in 0..one {
            sets.push(vec![reasons[two], reasons[one]]);
            sets.extend((0..two).map(|three| vec![reasons[three], reasons[two], reasons[one]]));
        }
    }
    sets.retain(|set| can_hold_at_once(set));
    assert!(sets.len() > 500, "{} sets", sets.len());
    for (number, set) in sets.iter().enumerate() {
        let first = ALL.iter().find(|(wrong, _)| set.contains(wrong)).map_or(Refusal::SoldOut, |(_, refusal)| *refusal);
        assert_eq!(table.told(set, number), first.code(), "{set:?}");
    }
    // Where the sale is paused, that comes behind whatever is wrong with the request, and before what is left of it.
    table.server.turn("drop", "pause").is(200, "");
    for (number, (wrong, refusal)) in ALL.into_iter().enumerate().filter(|(_, (wrong, _))| can_hold_at_once(&[*wrong]))
    {
        let told = table.told(&[wrong], 1_000 + number);
        assert_eq!(told, if wrong == Coupon { "paused" } else { refusal.code() }, "{wrong:?} in a paused sale");
    }
    assert_eq!(table.told(&[], 2_000), "paused");
    assert_eq!(table.server.counts("drop"), [0, 8, 0, 0], "nothing was taken by any of it");
}

/// The table stands in the order that `Refusal` declares, so that one who reads either knows both.
#[test]
fn the_table_of_reasons_is_in_the_order_of_the_refusals() {
    let told: Vec<Refusal> = ALL[3..].iter().map(|(_, refusal)| *refusal).collect();
    assert!(told.is_sorted(), "{told:?}");
}
