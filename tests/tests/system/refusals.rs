//! Bad requests: each has one clear answer with its own code, and nothing is lost or granted by it.

use domain::SaleDefinition;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use system_tests::{
    AUDIENCE, Customer, ISSUER, Request, SECRET, Server, item, open_sale, sale_of, sign_with, token_of,
};

/// Nothing was taken by what went before, and the customer can still buy.
fn nothing_was_lost(server: &Server, customer: &Customer) {
    assert_eq!(server.counts("drop"), [10, 0, 0, 0]);
    customer.buy("boot", "the-good-one").is(201, "held");
}

#[test]
fn bodies_that_cannot_be_read_or_granted_are_refused() {
    let server = Server::start();
    server.create(&SaleDefinition { limit_per_customer: 5, ..open_sale("drop", 10) });
    let anna = server.customer("anna", "drop");
    let deep = format!("{{\"quantity\":{}", "[".repeat(4_000));
    let coupon = |length| format!("{{\"coupon\":\"{}\"}}", "x".repeat(length));
    let (long, huge) = (coupon(5_000), coupon(17_000));
    let table: &[(&str, u16, &str)] = &[
        ("{\"quantity\":1", 400, "malformed"),
        ("{\"quantity\":1}}", 400, "malformed"),
        ("quantity=1", 400, "malformed"),
        ("null", 400, "malformed"),
        ("1", 400, "malformed"),
        ("\"{}\"", 400, "malformed"),
        ("[]", 400, "malformed"),
        ("[1]", 400, "malformed"),
        ("  [1, null]", 400, "malformed"),
        (&deep, 400, "malformed"),
        (&long, 413, "body_too_large"),
        (&huge, 413, "body_too_large"),
        ("{\"quantity\":1,\"colour\":\"red\"}", 400, "malformed"),
        ("{\"quantity\":1,\"quantity\":2}", 400, "malformed"),
        ("{\"quantity\":\"1\"}", 400, "malformed"),
        ("{\"quantity\":1.5}", 400, "malformed"),
        ("{\"quantity\":null}", 400, "malformed"),
        ("{\"quantity\":true}", 400, "malformed"),
        ("{\"quantity\":[1]}", 400, "malformed"),
        ("{\"quantity\":NaN}", 400, "malformed"),
        ("{\"quantity\":18446744073709551616}", 400, "malformed"),
        ("{\"quantity\":1e400}", 400, "malformed"),
        ("{\"coupon\":5}", 400, "malformed"),
        ("{\"quantity\":0}", 400, "quantity_invalid"),
        ("{\"quantity\":-1}", 400, "quantity_invalid"),
        ("{\"quantity\":101}", 400, "quantity_invalid"),
        ("{\"quantity\":4294967297}", 400, "quantity_invalid"),
        ("{\"quantity\":9223372036854775807}", 400, "quantity_invalid"),
        ("{\"quantity\":6}", 409, "limit_sale_reached"),
        ("{\"quantity\":1,\"coupon\":\"HALF\"}", 409, "coupon_refused"),
        ("{\"coupon\":\"\"}", 409, "coupon_refused"),
    ];
    for (body, status, code) in table {
        let shown = &body[..body.len().min(60)];
        let attempt = anna.attempt("boot", "key", 1).changed(|request| request.body(body.as_bytes()));
        let reply = attempt.request().send(server.public());
        assert_eq!((reply.status, reply.code().as_str()), (*status, *code), "{shown}");
    }
    let not_text = anna.attempt("boot", "key", 1).changed(|request| request.body(b"{\"coupon\":\"\xff\xfe\"}"));
    not_text.request().send(server.public()).is(400, "malformed");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let attempt = anna.attempt("boot", "key", 1).changed(|request| request.header("content-type", kind));
        attempt.request().send(server.public()).is(415, "media_type_unsupported");
    }
    nothing_was_lost(&server, &anna);
    let spelled = anna.attempt("boot", "the-good-one", 1).changed(|request| {
        request.body(b" { \"coupon\" : null } ").header("content-type", "Application/JSON; charset=utf-8")
    });
    spelled.send().is(200, "held");
}

#[test]
fn keys_are_needed_and_bounded_and_bound_to_one_body() {
    let server = Server::start();
    server.create(&sale_of("drop", vec![item("boot", 10), item("sock", 10)]));
    let anna = server.customer("anna", "drop");
    let missing = anna.attempt("boot", "key", 1).changed(|request| request.without("idempotency-key"));
    missing.request().send(server.public()).is(400, "malformed");
    for key in ["", " ", "a b", "käse", "tab\there", &"k".repeat(129)] {
        anna.attempt("boot", key, 1).request().send(server.public()).is(400, "malformed");
    }
    nothing_was_lost(&server, &anna);
    let longest = "k".repeat(128);
    let first = anna.buy("boot", &longest).is(201, "held");
    anna.attempt("boot", &longest, 2).send().is(422, "key_reused");
    anna.buy("sock", &longest).is(422, "key_reused");
    let coupon = anna.attempt("boot", &longest, 1).changed(|request| request.json(&json!({ "coupon": "HALF" })));
    coupon.request().send(server.public()).is(422, "key_reused");
    assert_eq!(anna.buy("boot", &longest).is(200, "held").json(), first.json());
    let ben = server.customer("ben", "drop");
    let other = ben.buy("boot", &longest).is(201, "held");
    assert_ne!(other.text("purchase"), first.text("purchase"), "a key belongs to its customer");
}

/// Anna has something; Ben asks for it, and for things that nobody has.
#[test]
fn unknown_and_foreign_things_are_the_same_404() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let bought = anna.buy("boot", "key").is(201, "held");
    let (purchase, order) = (bought.text("purchase"), bought.text("order"));
    let forged = |id: &str| {
        let last = if id.ends_with('A') { "B" } else { "A" };
        format!("{}{last}{}", &id[..10], &id[11..])
    };
    let requests = [
        Request::get(&format!("/v1/purchases/{purchase}")),
        Request::get(&format!("/v1/purchases/{}", forged(&purchase))),
        Request::get(&format!("/v1/purchases/{purchase}?pending=guess")),
        Request::get("/v1/purchases/pu_nothing"),
        Request::get("/v1/purchases/%2e%2e"),
        Request::get(&format!("/v1/orders/{order}")),
        Request::get(&format!("/v1/orders/{}", forged(&order))),
        Request::get("/v1/orders/or_nothing"),
        Request::get("/v1/orders?cursor=or_nothing"),
        Request::post(&format!("/v1/orders/{order}/cancel")),
        Request::post(&format!("/v1/orders/{}/cancel", forged(&order))),
        Request::post("/v1/orders/or_nothing/cancel"),
        Request::post("/v1/sales/nothing/passes"),
        Request::get("/v1/sales/nothing/mine"),
        ben.attempt("nothing", "key", 1).request().clone(),
        Request::get("/v1/nothing"),
    ];
    let mut answers: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let reply = ben.asks(request.header("x-request-id", "same")).is(404, "not_found");
            (reply.headers.into_iter().filter(|(name, _)| name != "date").collect::<Vec<_>>(), reply.body)
        })
        .collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "byte for byte: {answers:?}");
    anna.order(&order).is(200, "held");
    let unknown = Request::post("/admin/v1/orders/or_nothing/confirm").header("x-request-id", "same");
    assert_eq!(server.operate(unknown).is(404, "not_found").body, answers[0].1);
}

/// An access token with one thing wrong, and what is said to it.
fn bad_tokens() -> Vec<(&'static str, String, &'static str)> {
    let good = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": 4_000_000_000_u64 });
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        sign_with(SECRET, &Header::new(Algorithm::HS256), &claims)
    };
    let without = |field: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(field);
        sign_with(SECRET, &Header::new(Algorithm::HS256), &claims)
    };
    let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let real = token_of("anna");
    let parts: Vec<_> = real.split('.').collect();
    let payload = encode(&good.to_string());
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["exp".to_owned()]);
    let mut elsewhere = Header::new(Algorithm::HS256);
    elsewhere.jku = Some("https://shop.test/keys".to_owned());
    let invalid = [
        ("nothing", String::new()),
        ("no token", "hello".to_owned()),
        ("a guest where none is believed", "guest_anna".to_owned()),
        ("another secret", sign_with("another-secret-longer-than-32-bytes-by-far", &Header::default(), &good)),
        ("another algorithm", sign_with(SECRET, &Header::new(Algorithm::HS512), &good)),
        ("no algorithm", format!("{}.{payload}.", encode("{\"alg\":\"none\",\"typ\":\"JWT\"}"))),
        ("no algorithm, a signature", format!("{}.{payload}.{}", encode("{\"alg\":\"none\"}"), parts[2])),
        ("a cut signature", real[..real.len() - 2].to_owned()),
        ("no signature", format!("{}.{}", parts[0], parts[1])),
        ("changed claims", format!("{}.{payload}.{}", parts[0], parts[2])),
        ("a part too many", format!("{real}.x")),
        ("critical headers", sign_with(SECRET, &critical, &good)),
        ("a key from elsewhere", sign_with(SECRET, &elsewhere, &good)),
        ("another shop's", with("iss", json!("https://other.test"))),
        ("another audience", with("aud", json!("somebody-else"))),
        ("audiences without ours", with("aud", json!(["a", "b"]))),
        ("a list as subject", with("sub", json!(["anna", "ben"]))),
        ("a number as subject", with("sub", json!(17))),
        ("an empty subject", with("sub", json!(""))),
        ("a subject without end", with("sub", json!("x".repeat(257)))),
        ("a line break in the subject", with("sub", json!("an\nna"))),
        ("not yet", with("nbf", json!(4_000_000_000_u64))),
        ("an end that is no number", with("exp", json!("never"))),
        ("an end beyond all time", with("exp", json!(1e300))),
        ("no end", without("exp")),
        ("no issuer", without("iss")),
        ("no audience", without("aud")),
        ("no subject", without("sub")),
        ("8 KiB", with("colour", json!("x".repeat(8_000)))),
    ];
    let expired = ("expired", with("exp", json!(1_000_000_000)), "token_expired");
    invalid.into_iter().map(|(what, token)| (what, token, "token_invalid")).chain([expired]).collect()
}

#[test]
fn tokens_that_are_not_believed_open_nothing() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let anna = server.customer("anna", "drop");
    for (what, token, code) in bad_tokens() {
        let mut bad = anna.clone();
        bad.token = token;
        for reply in [
            bad.take_pass(),
            bad.asks(Request::get("/v1/sales/drop/mine")),
            bad.asks(Request::get("/v1/orders")),
            bad.purchase("pu_x"),
            bad.attempt("boot", "key", 1).request().send(server.public()),
        ] {
            assert_eq!((reply.status, reply.code().as_str()), (401, code), "{what}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{what}");
        }
    }
    for headers in [None, Some("Basic YW5uYTpzZWNyZXQ="), Some("Bearer")] {
        let mut request = anna.attempt("boot", "key", 1).request().clone().without("authorization");
        if let Some(value) = headers {
            request = request.header("authorization", value);
        }
        request.send(server.public()).is(401, "token_invalid");
    }
    nothing_was_lost(&server, &anna);
}

#[test]
fn passes_serve_their_customer_in_their_sale_and_nobody_else() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    server.create(&open_sale("other", 10));
    let anna = server.customer("anna", "drop");
    let ben = server.customer("ben", "drop");
    let elsewhere = server.customer("anna", "other");
    let pass = &anna.pass;
    let swapped = |at: usize| {
        let other = if &pass[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &pass[..at], &pass[at + 1..])
    };
    let table = [
        ("none", String::new(), "pass_invalid"),
        ("a word", "dp_hello".to_owned(), "pass_invalid"),
        ("cut", pass[..pass.len() - 4].to_owned(), "pass_invalid"),
        ("longer", format!("{pass}AAAA"), "pass_invalid"),
        ("another slot", swapped(60), "pass_invalid"),
        ("another MAC", swapped(pass.len() - 5), "pass_invalid"),
        ("another key", swapped(4), "pass_invalid"),
        ("ben's", ben.pass.clone(), "pass_foreign"),
        ("for another sale", elsewhere.pass.clone(), "pass_foreign"),
    ];
    for (what, pass, code) in table {
        let attempt = anna.attempt("boot", "key", 1).changed(|request| request.header("doorbuster-pass", &pass));
        let reply = attempt.request().send(server.public());
        assert_eq!((reply.status, reply.code().as_str()), (403, code), "{what}");
    }
    nothing_was_lost(&server, &anna);
}

#[test]
fn a_renewed_token_goes_on_with_the_old_pass_and_a_stolen_pass_buys_nothing() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let mut anna = server.customer("anna", "drop");
    let first = anna.buy("boot", "key").is(201, "held");
    let claims = json!({ "iss": ISSUER, "aud": [AUDIENCE, "more"], "sub": "anna", "exp": 3_000_000_000_u64 });
    anna.token = sign_with(SECRET, &Header::new(Algorithm::HS256), &claims);
    assert_eq!(anna.buy("boot", "key").is(200, "held").json(), first.json());
    anna.buy("boot", "another").is(201, "held");
    let mut thief = server.stranger("thief", "drop");
    thief.pass.clone_from(&anna.pass);
    thief.attempt("boot", "key", 1).request().send(server.public()).is(403, "pass_foreign");
}

#[test]
fn limits_and_stock_refuse_what_goes_beyond_them() {
    let server = Server::start();
    let mut boots = item("boot", 10);
    boots.limit_per_customer = 2;
    let definition = sale_of("drop", vec![boots, item("sock", 3)]);
    server.create(&SaleDefinition { limit_per_customer: 4, grants_per_customer_max: 4, ..definition });
    let anna = server.customer("anna", "drop");
    anna.attempt("boot", "three", 3).send().is(409, "limit_item_reached");
    let two = anna.attempt("boot", "two", 2).send().is(201, "held");
    anna.buy("boot", "one-more").is(409, "limit_item_reached");
    anna.attempt("sock", "three-socks", 3).send().is(409, "limit_sale_reached");
    anna.attempt("sock", "two-socks", 2).send().is(201, "held");
    anna.cancel(&two.text("order")).is(200, "released");
    let again = anna.buy("boot", "boot-again").is(201, "held");
    anna.cancel(&again.text("order")).is(200, "released");
    anna.buy("boot", "boot-again-2").is(201, "held");
    anna.buy("boot", "boot-again-3").is(409, "grants_exhausted");
    let ben = server.customer("ben", "drop");
    let few = ben.attempt("sock", "two", 2).send().is(409, "stock_insufficient").json();
    assert!(few["position"].is_u64(), "{few}");
    ben.buy("sock", "one").is(201, "held");
    server.customer("cleo", "drop").buy("sock", "one").is(409, "sold_out");
}
