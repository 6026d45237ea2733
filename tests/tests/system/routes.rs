//! Every route once, and what every answer carries.

use std::collections::BTreeSet;

use system_tests::{Request, SMALL_PICTURE, Server, doorbuster, open_sale};

/// What the two listeners serve and the document describes. `{}` stands for an id of the test's own.
const ROUTES: &[(&str, &str, u16)] = &[
    ("GET", "/v1/time", 200),
    ("GET", "/v1/sales", 200),
    ("GET", "/v1/sales/{sale}", 200),
    ("GET", "/v1/sales/{sale}/heads", 200),
    ("POST", "/v1/session", 200),
    ("DELETE", "/v1/session", 204),
    // The walk's sale has no human check.
    ("POST", "/v1/sales/{sale}/challenges", 404),
    ("GET", "/v1/sales/{sale}/challenges/{challenge}/audio", 404),
    ("GET", "/v1/sales/{sale}/challenges/static/{set}", 404),
    ("GET", "/v1/sales/{sale}/challenges/static/{set}/{file}", 404),
    ("POST", "/v1/sales/{sale}/passes", 201),
    ("POST", "/v1/sales/{sale}/items/{item}/purchases", 201),
    ("GET", "/v1/sales/{sale}/mine", 200),
    ("GET", "/v1/purchases/{purchase}", 200),
    ("POST", "/v1/purchases/{purchase}/stream-tickets", 201),
    ("GET", "/v1/purchases/{purchase}/events", 403),
    ("GET", "/v1/orders", 200),
    ("GET", "/v1/orders/{order}", 200),
    ("POST", "/v1/orders/{order}/cancel", 200),
    ("GET", "/pictures/{file}", 200),
    ("GET", "/healthz", 200),
    ("GET", "/readyz", 200),
    // The order of the walk was given back, so the shop's way to give it back has to say so.
    ("POST", "/admin/v1/orders/{order}/cancel", 409),
    ("GET", "/admin/v1/orders/{order}", 200),
    ("POST", "/admin/v1/orders/{order}/confirm", 200),
    ("POST", "/admin/v1/orders/{order}/payments", 409),
    ("POST", "/admin/v1/orders/{order}/payments/{attempt}/{fact}", 404),
    ("POST", "/admin/v1/orders/{order}/refund", 409),
    ("POST", "/v1/orders/{order}/hold-token", 409),
    ("POST", "/v1/orders/{order}/payments", 404),
    ("POST", "/v1/payments/callbacks/{provider}", 404),
    ("GET", "/admin/v1/load", 200),
    ("GET", "/admin/v1/sales", 200),
    ("POST", "/admin/v1/sales", 201),
    ("PUT", "/admin/v1/sales/{sale}", 201),
    ("GET", "/admin/v1/sales/{sale}/orders", 200),
    ("GET", "/admin/v1/sales/{sale}/payments", 200),
    ("GET", "/admin/v1/sales/{sale}/payments/parked", 200),
    ("GET", "/admin/v1/sales/{sale}/orders.csv", 200),
    ("GET", "/admin/v1/sales/{sale}/orders.json", 200),
    ("POST", "/admin/v1/sales/{sale}/items/{item}/stock", 200),
    ("GET", "/admin/v1/sales/{sale}/showcase", 200),
    ("PUT", "/admin/v1/sales/{sale}/showcase", 200),
    ("PUT", "/admin/v1/sales/{sale}/human-check", 200),
    // The walk's picture is no picture.
    ("PUT", "/admin/v1/sales/{sale}/items/{item}/picture", 422),
    ("DELETE", "/admin/v1/sales/{sale}/items/{item}/picture", 200),
    ("GET", "/admin/v1/parked", 200),
    ("GET", "/admin/v1/feed", 200),
    ("GET", "/admin/v1/webhooks", 200),
    ("POST", "/admin/v1/webhooks", 201),
    ("POST", "/admin/v1/webhooks/{webhook}/{action}", 200),
    ("DELETE", "/admin/v1/webhooks/{webhook}", 200),
    ("GET", "/metrics", 200),
    ("POST", "/admin/v1/sales/{sale}/{action}", 200),
    ("POST", "/admin/v1/blocks", 201),
    ("GET", "/admin/v1/blocks", 200),
    ("DELETE", "/admin/v1/blocks/{block}", 404),
    ("GET", "/admin/v1/tokens", 200),
    ("POST", "/admin/v1/tokens", 201),
    ("DELETE", "/admin/v1/tokens/{id}", 200),
    ("POST", "/admin/v1/pass-keys/rotate", 200),
    ("POST", "/admin/v1/customers/erase", 200),
    ("POST", "/admin/v1/sales/{sale}/anonymise", 409),
];

fn is_the_operators(path: &str) -> bool {
    path.starts_with("/admin/") || path == "/metrics"
}

#[test]
fn every_route_answers_and_stands_in_the_document() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let bought = anna.buy("boot", "key").is(201, "held");
    let (purchase, order) = (bought.text("purchase"), bought.text("order"));
    let label = serde_json::json!({ "label": "a dashboard", "role": "viewer" });
    let token = server.operate(Request::post("/admin/v1/tokens").json(&label)).is(201, "").text("id");
    let hook = serde_json::json!({ "url": "https://shop.invalid/hook" });
    let added = server.operate(Request::post("/admin/v1/webhooks").json(&hook));
    let shown = Request::new("PUT", "/admin/v1/sales/drop/items/boot/picture").body(SMALL_PICTURE);
    let shown = server.operate(shown).is(200, "").json()["picture"]["sources"][0]["webp"].clone();
    let document = server.ask(&Request::get("/openapi.json")).json();
    assert_eq!(document, doorbuster(&["openapi"]).json(), "the command and the route give the same document");

    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let served: BTreeSet<_> = ROUTES.iter().map(|&(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(described, served, "the document describes exactly what is served");

    for &(method, path, status) in ROUTES {
        let filled = path
            .replace("{sale}", "drop")
            .replace("{item}", "boot")
            .replace("{action}", "pause")
            .replace("{attempt}/{fact}", "0/paid");
        let filled = filled.replace("{purchase}", &purchase).replace("{order}", &order).replace("{id}", &token);
        let filled = filled.replace("{webhook}", &added.text("id"));
        let filled = filled.replace("/pictures/{file}", shown.as_str().unwrap());
        let request = match path {
            "/admin/v1/sales" if method == "POST" => {
                Request::post(path).json(&serde_json::to_value(open_sale("second", 1)).unwrap())
            }
            "/admin/v1/sales/{sale}" => Request::new(method, "/admin/v1/sales/third")
                .json(&serde_json::to_value(open_sale("third", 1)).unwrap()),
            "/admin/v1/customers/erase" => {
                Request::post(path).json(&serde_json::json!({ "issuer": "https://shop.test", "subject": "nobody" }))
            }
            "/admin/v1/tokens" if method == "POST" => Request::post(path).json(&label),
            "/v1/sales/{sale}/items/{item}/purchases" => anna.attempt("boot", "another", 1).request().clone(),
            "/admin/v1/sales/{sale}/items/{item}/stock" => {
                Request::post(&filled).json(&serde_json::json!({ "change": 5 }))
            }
            "/admin/v1/sales/{sale}/human-check" => {
                Request::new(method, &filled).json(&serde_json::json!({ "human_check": "none" }))
            }
            "/admin/v1/blocks" if method == "POST" => {
                Request::post(path).json(&serde_json::json!({ "address": "192.0.2.0/24", "reason": "an example" }))
            }
            "/admin/v1/webhooks" if method == "POST" => Request::post(path).json(&hook),
            _ => Request::new(method, &filled),
        };
        let reply = if is_the_operators(path) { server.operate(request) } else { anna.asks(request) };
        assert_eq!(reply.status, status, "{method} {path}: {}", String::from_utf8_lossy(&reply.body));
    }
}

#[test]
fn answers_say_what_the_contract_promises() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let held = anna.attempt("boot", "key", 2).send().is(201, "held").json();
    assert_eq!((&held["sale"], &held["item"], &held["quantity"]), (&"drop".into(), &"boot".into(), &2.into()));
    assert_eq!(held["price"], serde_json::json!({ "amount": 9_800, "currency": "EUR" }));
    assert_eq!(held["units"], serde_json::json!([{ "number": 0, "generation": 0 }, { "number": 1, "generation": 0 }]));
    assert!(held["pay_by"].as_str().unwrap().ends_with('Z'));
    let again = anna.attempt("boot", "key", 2).send().is(200, "held").json();
    assert_eq!(again, held, "the same key reads the same purchase, receipt included");
    assert_eq!(anna.purchase(held["purchase"].as_str().unwrap()).is(200, "held").json(), held);
    assert_eq!(anna.order(held["order"].as_str().unwrap()).is(200, "held").json(), held);

    let mine = anna.asks(Request::get("/v1/sales/drop/mine")).json();
    assert_eq!(mine["purchases"][0]["purchase"], held["purchase"]);
    assert!(mine["pass"]["pass"].as_str().unwrap().starts_with("dp_"));
    let orders = anna.asks(Request::get("/v1/orders")).json();
    assert_eq!(orders["orders"][0]["order"], held["order"]);
    let heads = server.ask(&Request::get("/v1/sales/drop/heads?from=0")).json();
    let of_receipt = &held["receipt"]["head"];
    assert!(heads["heads"].as_array().unwrap().contains(of_receipt), "the receipt's head is published: {heads}");
    let sale = server.ask(&Request::get("/v1/sales/drop")).json();
    assert_eq!((&sale["phase"], &sale["items"][0]["available"]), (&"open".into(), &"yes".into()));
    assert_eq!(sale["sale_id"], held["receipt"]["sale_id"]);
    let metrics = server.operate(Request::get("/metrics")).body;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("doorbuster_purchases_total{stage=\"answered\"} 2"), "{metrics}");
}

#[test]
fn every_answer_carries_its_request_id_and_the_security_headers() {
    let server = Server::start();
    server.create(&open_sale("drop", 1));
    let anna = server.customer("anna", "drop");
    let kept = ["/v1/sales", "/v1/sales/drop"];
    for path in ["/v1/sales", "/v1/sales/drop", "/v1/time", "/v1/sales/drop/mine", "/nowhere", "/openapi.json"] {
        let reply = anna.asks(Request::get(path).header("x-request-id", "mine-1"));
        assert_eq!(reply.header("x-request-id"), Some("mine-1"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"), "{path}");
        let cache = if kept.contains(&path) { "public, max-age=1" } else { "no-store" };
        assert_eq!(reply.header("cache-control"), Some(cache), "{path}");
    }
    let bought = anna.attempt("boot", "key", 1).changed(|request| request.header("x-request-id", "mine-2")).send();
    assert_eq!(bought.header("x-request-id"), Some("mine-2"));
    assert_eq!(bought.header("cache-control"), Some("no-store"));
    for odd in ["", "has space", "quote\"", &"x".repeat(65)] {
        let reply = server.ask(&Request::get("/v1/time").header("x-request-id", odd));
        let given = reply.header("x-request-id").unwrap();
        assert!(!given.is_empty() && given != odd, "{odd:?} is replaced, not echoed");
    }
}

#[test]
fn methods_and_paths_that_do_not_exist_are_problems() {
    let server = Server::start();
    let head = server.ask(&Request::new("HEAD", "/v1/time"));
    assert_eq!((head.status, head.body.len()), (200, 0), "HEAD is GET without the body");
    for (method, path, status, code) in [
        ("DELETE", "/v1/sales", 405, "method_not_allowed"),
        ("POST", "/v1/time", 405, "method_not_allowed"),
        ("PUT", "/v1/sales/drop/items/boot/purchases", 405, "method_not_allowed"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/sales/nowhere", 404, "not_found"),
        ("GET", "/v1/sales/drop/heads?from=x", 400, "malformed"),
        ("GET", "/admin/v1/sales", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
    ] {
        let reply = server.ask(&Request::new(method, path)).is(status, code);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = reply.json();
        assert_eq!(problem["type"], format!("/docs/errors/{code}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"));
        assert!(problem["title"].as_str().unwrap().ends_with('.'));
        let allowed = reply.header("allow").unwrap_or_default();
        let expected = match (status, path) {
            (405, path) if path.ends_with("/purchases") => "POST",
            (405, _) => "GET,HEAD",
            _ => "",
        };
        assert_eq!(allowed, expected, "{method} {path}");
    }
    server.operate(Request::new("DELETE", "/admin/v1/sales")).is(405, "method_not_allowed");
    server.operate(Request::get("/v1/sales")).is(404, "not_found");
}
