//! Every route by everybody. The routes come from the generated document, so that a new one without an expectation fails here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use system_tests::{
    AUDIENCE, Customer, ISSUER, Reply, Request, SECRET, SMALL_PICTURE, Server, open_sale, sign_with, until,
};

/// Who asks. Anna owns what is asked for.
const IDENTITIES: [&str; 9] = [
    "nobody",
    "anna with an expired token",
    "another customer",
    "anna with another sale's pass",
    "viewer",
    "operator",
    "cashier",
    "owner",
    "an admin token that has expired",
];

type Expected = [&'static str; IDENTITIES.len()];

const FOR_ALL: Expected = ["2xx"; 9];
const NOBODY: &str = "401 token_invalid";
const EXPIRED: &str = "401 token_expired";
const ROLE: &str = "403 role_insufficient";
const FOREIGN_PASS: &str = "403 pass_foreign";

/// What customers ask for themselves: another customer gets their own.
const CUSTOMERS: Expected = [NOBODY, EXPIRED, "2xx", "2xx", NOBODY, NOBODY, NOBODY, NOBODY, NOBODY];
/// What belongs to Anna: to another customer it is not there.
const ANNAS: Expected = [NOBODY, EXPIRED, "404 not_found", "2xx", NOBODY, NOBODY, NOBODY, NOBODY, NOBODY];
/// The server of these tests has no provider: whoever could pay is told so, and to everybody else it is not there.
const WITHOUT_PROVIDER: Expected =
    [NOBODY, EXPIRED, "404 not_found", "404 not_found", NOBODY, NOBODY, NOBODY, NOBODY, NOBODY];
/// The sale of these tests has no human check.
const WITHOUT_CHECK: Expected = WITHOUT_PROVIDER;
/// A stream asks for its ticket, and a token is none.
const BY_TICKET: Expected = ["403 ticket_invalid"; 9];
const FOR_NOBODY: Expected = ["404 not_found"; 9];
/// Another customer comes with Anna's pass.
const BY_PASS: Expected = [NOBODY, EXPIRED, FOREIGN_PASS, FOREIGN_PASS, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY];
const READ: Expected = [NOBODY, NOBODY, NOBODY, NOBODY, "2xx", "2xx", "2xx", "2xx", NOBODY];
const RUN_SALES: Expected = [NOBODY, NOBODY, NOBODY, NOBODY, ROLE, "2xx", ROLE, "2xx", NOBODY];
const END_ORDERS: Expected = [NOBODY, NOBODY, NOBODY, NOBODY, ROLE, ROLE, "2xx", "2xx", NOBODY];
const MANAGE: Expected = [NOBODY, NOBODY, NOBODY, NOBODY, ROLE, ROLE, ROLE, "2xx", NOBODY];

const TABLE: &[(&str, &str, Expected)] = &[
    ("GET", "/v1/time", FOR_ALL),
    ("GET", "/v1/sales", FOR_ALL),
    ("GET", "/v1/sales/{sale}", FOR_ALL),
    ("GET", "/v1/sales/{sale}/heads", FOR_ALL),
    ("GET", "/pictures/{file}", FOR_ALL),
    ("GET", "/healthz", FOR_ALL),
    ("GET", "/readyz", FOR_ALL),
    ("POST", "/v1/session", CUSTOMERS),
    ("DELETE", "/v1/session", FOR_ALL),
    ("POST", "/v1/sales/{sale}/challenges", WITHOUT_CHECK),
    ("GET", "/v1/sales/{sale}/challenges/{challenge}/audio", WITHOUT_CHECK),
    ("GET", "/v1/sales/{sale}/challenges/static/{set}", FOR_NOBODY),
    ("GET", "/v1/sales/{sale}/challenges/static/{set}/{file}", FOR_NOBODY),
    ("POST", "/v1/sales/{sale}/passes", CUSTOMERS),
    ("GET", "/v1/sales/{sale}/mine", CUSTOMERS),
    ("GET", "/v1/orders", CUSTOMERS),
    ("POST", "/v1/sales/{sale}/items/{item}/purchases", BY_PASS),
    ("GET", "/v1/purchases/{purchase}", ANNAS),
    ("POST", "/v1/purchases/{purchase}/stream-tickets", ANNAS),
    ("GET", "/v1/purchases/{purchase}/events", BY_TICKET),
    ("GET", "/v1/orders/{order}", ANNAS),
    ("POST", "/v1/orders/{order}/cancel", ANNAS),
    ("POST", "/v1/orders/{order}/hold-token", ANNAS),
    ("POST", "/v1/orders/{order}/payments", WITHOUT_PROVIDER),
    ("POST", "/v1/payments/callbacks/{provider}", FOR_NOBODY),
    ("GET", "/metrics", READ),
    ("GET", "/admin/v1/load", READ),
    ("GET", "/admin/v1/sales", READ),
    ("GET", "/admin/v1/sales/{sale}/orders", READ),
    ("GET", "/admin/v1/sales/{sale}/payments", READ),
    ("GET", "/admin/v1/sales/{sale}/payments/parked", READ),
    ("GET", "/admin/v1/sales/{sale}/orders.csv", READ),
    ("GET", "/admin/v1/sales/{sale}/orders.json", READ),
    ("GET", "/admin/v1/parked", READ),
    ("POST", "/admin/v1/sales", RUN_SALES),
    ("PUT", "/admin/v1/sales/{sale}", RUN_SALES),
    ("POST", "/admin/v1/sales/{sale}/{action}", RUN_SALES),
    ("POST", "/admin/v1/sales/{sale}/items/{item}/stock", RUN_SALES),
    ("GET", "/admin/v1/sales/{sale}/showcase", READ),
    ("PUT", "/admin/v1/sales/{sale}/showcase", RUN_SALES),
    ("PUT", "/admin/v1/sales/{sale}/human-check", RUN_SALES),
    ("PUT", "/admin/v1/sales/{sale}/items/{item}/picture", RUN_SALES),
    ("DELETE", "/admin/v1/sales/{sale}/items/{item}/picture", RUN_SALES),
    ("GET", "/admin/v1/orders/{order}", END_ORDERS),
    ("POST", "/admin/v1/orders/{order}/confirm", END_ORDERS),
    ("POST", "/admin/v1/orders/{order}/cancel", END_ORDERS),
    ("POST", "/admin/v1/orders/{order}/payments", END_ORDERS),
    ("POST", "/admin/v1/orders/{order}/payments/{attempt}/{fact}", END_ORDERS),
    ("POST", "/admin/v1/orders/{order}/refund", END_ORDERS),
    ("GET", "/admin/v1/feed", READ),
    ("GET", "/admin/v1/webhooks", READ),
    ("POST", "/admin/v1/webhooks", MANAGE),
    ("POST", "/admin/v1/webhooks/{webhook}/{action}", MANAGE),
    ("DELETE", "/admin/v1/webhooks/{webhook}", MANAGE),
    ("GET", "/admin/v1/blocks", RUN_SALES),
    ("POST", "/admin/v1/blocks", RUN_SALES),
    ("DELETE", "/admin/v1/blocks/{block}", RUN_SALES),
    ("GET", "/admin/v1/tokens", MANAGE),
    ("POST", "/admin/v1/tokens", MANAGE),
    ("DELETE", "/admin/v1/tokens/{id}", MANAGE),
    ("POST", "/admin/v1/pass-keys/rotate", MANAGE),
    ("POST", "/admin/v1/customers/erase", MANAGE),
    ("POST", "/admin/v1/sales/{sale}/anonymise", MANAGE),
];

/// A server with one sale, and everybody's tokens.
struct World {
    server: Server,
    anna: Customer,
    elsewhere: Customer,
    /// In the order of [`IDENTITIES`].
    tokens: Vec<String>,
    count: u32,
}

fn make_token(server: &Server, role: &str, seconds: u64) -> Value {
    let body = json!({ "label": role, "role": role, "expires_in_seconds": seconds });
    server.operate(Request::post("/admin/v1/tokens").json(&body)).is(201, "").json()
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        server.create(&open_sale("drop", 1_000));
        server.create(&open_sale("other", 10));
        let [anna, elsewhere] = ["drop", "other"].map(|sale| server.customer("anna", sale));
        let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": 1_000_000_000 });
        let expired = make_token(&server, "owner", 1)["token"].as_str().unwrap().to_owned();
        let mut tokens = vec![
            String::new(),
            sign_with(SECRET, &Header::new(Algorithm::HS256), &claims),
            server.stranger("ben", "drop").token,
            anna.token.clone(),
        ];
        for role in ["viewer", "operator", "cashier", "owner"] {
            tokens.push(make_token(&server, role, 3_600)["token"].as_str().unwrap().to_owned());
        }
        until("the token's end", || {
            Request::get("/admin/v1/sales").bearer(&expired).send(server.admin()).status == 401
        });
        tokens.push(expired);
        Self { server, anna, elsewhere, tokens, count: 0 }
    }

    /// A name that was not used yet.
    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("fresh-{}", self.count)
    }

    /// The request of a route, for something of Anna's that no request has touched yet.
    fn request(&mut self, method: &str, path: &str) -> Request {
        let name = self.fresh();
        let mut filled = path.replace("{sale}", "drop").replace("{item}", "boot").replace("{action}", "resume");
        if filled.contains("{purchase}") || filled.contains("{order}") {
            let bought = self.anna.buy("boot", &name).is(201, "held");
            let order = bought.text("order");
            let report = |what: &str| self.server.operate(Request::post(&format!("/admin/v1/orders/{order}/{what}")));
            if path.ends_with("/refund") || path.contains("{attempt}") {
                report("payments").is(200, "held");
            }
            if path.ends_with("/refund") {
                report("payments/0/paid").is(200, "confirmed");
            }
            filled = filled.replace("{purchase}", &bought.text("purchase")).replace("{order}", &order);
            filled = filled.replace("{attempt}/{fact}", "0/ended");
        }
        if filled.contains("{file}") || path.ends_with("/picture") {
            let upload = Request::new("PUT", "/admin/v1/sales/drop/items/boot/picture").body(SMALL_PICTURE);
            let shown = self.server.operate(upload).is(200, "").json();
            let file = shown["picture"]["sources"][0]["jpeg"].as_str().unwrap().to_owned();
            filled = filled.replace("/pictures/{file}", &file);
        }
        if filled.contains("{id}") {
            let token = make_token(&self.server, "viewer", 3_600);
            filled = filled.replace("{id}", token["id"].as_str().unwrap());
        }
        if filled.contains("/webhooks") {
            // A process has some at most.
            for hook in self.server.operate(Request::get("/admin/v1/webhooks")).json().as_array().unwrap() {
                let path = format!("/admin/v1/webhooks/{}", hook["id"].as_str().unwrap());
                self.server.operate(Request::new("DELETE", &path)).is(200, "");
            }
        }
        if filled.contains("{webhook}") {
            let hook = json!({ "url": "https://shop.invalid/hook" });
            let added = self.server.operate(Request::post("/admin/v1/webhooks").json(&hook)).is(201, "");
            filled = filled.replace("{webhook}", &added.text("id"));
        }
        if filled.contains("{block}") {
            let block = self.server.operate(Request::post("/admin/v1/blocks").json(&nobody())).is(201, "");
            filled = filled.replace("{block}", &block.text("id"));
        }
        let request = Request::new(method, &filled);
        match (method, path) {
            ("POST", "/admin/v1/blocks") => request.json(&nobody()),
            (_, "/v1/sales/{sale}/items/{item}/purchases") => self.anna.attempt("boot", &name, 1).request().clone(),
            ("POST", "/admin/v1/sales") => request.json(&serde_json::to_value(open_sale(&name, 1)).unwrap()),
            ("PUT", "/admin/v1/sales/{sale}") => Request::new(method, &format!("/admin/v1/sales/{name}"))
                .json(&serde_json::to_value(open_sale(&name, 1)).unwrap()),
            ("POST", "/admin/v1/customers/erase") => request.json(&json!({ "issuer": ISSUER, "subject": name })),
            ("POST", "/admin/v1/webhooks") => request.json(&json!({ "url": "https://shop.invalid/hook" })),
            ("POST", "/admin/v1/tokens") => request.json(&json!({ "label": name, "role": "viewer" })),
            (_, path) if path.ends_with("/anonymise") => {
                self.server.create(&open_sale(&name, 1));
                for action in ["close", "settle"] {
                    self.server.turn(&name, action).is(200, "");
                }
                Request::new(method, &path.replace("{sale}", &name))
            }
            ("PUT", path) if path.ends_with("/picture") => request.body(SMALL_PICTURE),
            (_, path) if path.ends_with("/human-check") => request.json(&json!({ "human_check": "none" })),
            (_, path) if path.ends_with("/stock") => request.json(&json!({ "change": 1 })),
            _ => request,
        }
    }

    /// Sends it as one of [`IDENTITIES`].
    fn ask_as(&self, identity: usize, path: &str, request: Request) -> Reply {
        let mut request = request.without("authorization").header("x-request-id", "same");
        if identity > 0 {
            request = request.bearer(&self.tokens[identity]);
        }
        if IDENTITIES[identity] == "anna with another sale's pass" && path.ends_with("/purchases") {
            request = request.header("doorbuster-pass", &self.elsewhere.pass);
        }
        request.send(self.listener(path))
    }

    fn listener(&self, path: &str) -> SocketAddr {
        if is_admins(path) { self.server.admin() } else { self.server.public() }
    }
}

/// An entry of the block list that hits nobody.
fn nobody() -> Value {
    json!({ "address": "192.0.2.1", "reason": "an example" })
}

fn is_admins(path: &str) -> bool {
    path.starts_with("/admin/") || path == "/metrics"
}

fn told(reply: &Reply) -> String {
    if (200..300).contains(&reply.status) { "2xx".to_owned() } else { format!("{} {}", reply.status, reply.code()) }
}

/// The same route for things that nobody has, where what exists is not for everybody to know.
fn unknown(method: &str, path: &str) -> Option<Request> {
    let ids = [
        ("{order}", "or_nothing"),
        ("{purchase}", "pu_nothing"),
        ("{id}", "0123456789abcdef"),
        ("{webhook}", "wh_nothing"),
        ("{block}", "0123456789abcdef"),
    ];
    let is_private = is_admins(path) || ids.iter().any(|(name, _)| path.contains(name));
    let filled = ids.iter().fold(path.to_owned(), |filled, (name, id)| filled.replace(name, id));
    let filled = ["{sale}", "{item}", "{action}"].iter().fold(filled, |filled, name| filled.replace(name, "nothing"));
    (is_private && filled != path).then(|| Request::new(method, &filled))
}

#[test]
fn every_route_tells_everybody_what_it_should_and_foreign_is_as_unknown() {
    let mut world = World::new();
    let document = world.server.ask(&Request::get("/openapi.json")).json();
    let mut table: BTreeMap<(String, String), Expected> =
        TABLE.iter().map(|&(method, path, expected)| ((method.to_owned(), path.to_owned()), expected)).collect();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let expected = table.remove(&(method.clone(), path.clone()));
            let expected = expected.unwrap_or_else(|| panic!("{method} {path}: say in TABLE who may do this"));
            for (identity, expected) in expected.into_iter().enumerate() {
                let whom = IDENTITIES[identity];
                let request = world.request(&method, path);
                let reply = world.ask_as(identity, path, request);
                assert_eq!(told(&reply), expected, "{method} {path} by {whom}: {:?}", reply.json());
                let Some(unknown) = unknown(&method, path).filter(|_| reply.status >= 400) else { continue };
                let to_unknown = world.ask_as(identity, path, unknown);
                assert_eq!(to_unknown.body, reply.body, "{method} {path} by {whom}: byte for byte");
                assert_eq!(to_unknown.status, reply.status);
            }
        }
    }
    assert!(table.is_empty(), "these routes are gone: {:?}", table.keys());
}

#[test]
fn no_action_on_a_sale_is_for_whoever_only_looks_or_takes_money() {
    let world = World::new();
    for action in ["pause", "resume", "close", "settle", "takeover", "automatic", "dance"] {
        for identity in [4, 6] {
            let path = format!("/admin/v1/sales/drop/{action}");
            world.ask_as(identity, &path, Request::post(&path)).is(403, "role_insufficient");
        }
    }
    assert_eq!(world.server.sale("drop")["phase"], "open");
    assert_eq!(world.server.sale("drop")["paused"], false);
}

#[test]
fn tokens_are_made_listed_and_revoked_and_the_last_owner_stays() {
    let server = Server::start();
    let path = "/admin/v1/tokens";
    let made = make_token(&server, "cashier", 3_600);
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let ask = |token: &str| Request::get("/admin/v1/sales").bearer(token).send(server.admin());
    ask(token).is(200, "");
    let refused = Request::get(path).bearer(token).send(server.admin()).is(403, "role_insufficient");
    assert_eq!(refused.json()["detail"], "the token's role is cashier");

    let listed = server.operate(Request::get(path));
    assert!(!String::from_utf8(listed.body.clone()).unwrap().contains(token), "a list has no token");
    let listed = listed.json();
    let of = |label: &str| listed.as_array().unwrap().iter().find(|token| token["label"] == label).unwrap().clone();
    let (first, cashier) = (of("first"), of("cashier"));
    assert_eq!((&first["role"], &first["expires_at"]), (&"owner".into(), &Value::Null));
    assert_eq!((&cashier["id"], &cashier["role"]), (&id.into(), &"cashier".into()));
    assert_eq!(cashier["expires_at"], made["expires_at"]);

    let revoke = |id: &str| server.operate(Request::new("DELETE", &format!("{path}/{id}")));
    assert_eq!(revoke(id).is(200, "").json()["label"], "cashier");
    ask(token).is(401, "token_invalid");
    revoke(id).is(404, "not_found");
    revoke(first["id"].as_str().unwrap()).is(409, "last_owner");

    for (body, word) in [
        (json!({ "label": "", "role": "viewer" }), "label"),
        (json!({ "label": "x".repeat(201), "role": "viewer" }), "label"),
        (json!({ "label": "a\nb", "role": "viewer" }), "label"),
        (json!({ "label": "x" }), "role"),
        (json!({ "label": "x", "role": "king" }), "king"),
        (json!({ "label": "x", "role": "viewer", "expires_in_seconds": 0 }), "expires_in_seconds"),
        (json!({ "label": "x", "role": "viewer", "expires_in_seconds": 31_622_401 }), "expires_in_seconds"),
        (json!({ "label": "x", "role": "viewer", "for_ever": true }), "for_ever"),
    ] {
        let detail = server.operate(Request::post(path).json(&body)).is(400, "malformed").text("detail");
        assert!(detail.contains(word), "{body}: {detail}");
    }
}
