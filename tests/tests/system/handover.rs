//! What a purchase hands over to the shop: attributes that come back for an order, who its customer is, and a hold token in the answer.

use serde_json::{Value, json};
use system_tests::{Customer, ISSUER, Reply, Request, Server, open_sale};

/// The attributes of the tests; their bytes must not stand anywhere in the chain.
const ENGRAVING: &str = "Zürich, 42 \"for Anna\"";

fn buy(customer: &Customer, key: &str, body: &str) -> Reply {
    customer.attempt("boot", key, 1).changed(|request| request.body(body.as_bytes())).send()
}

fn handed_over(server: &Server, order: &str) -> Value {
    let reply = server.operate(Request::get(&format!("/admin/v1/orders/{order}")));
    assert_eq!(reply.status, 200, "{}", reply.code());
    reply.json()
}

#[test]
fn attributes_come_back_to_the_shop_and_only_there() {
    let server = Server::start();
    server.create(&open_sale("drop", 9));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let attributes = json!({ "engraving": ENGRAVING, "size": 42 });
    let body = json!({ "quantity": 1, "attributes": attributes });
    let order = buy(&anna, "key", &body.to_string()).is(201, "held").text("order");
    let around = format!(r#" {{ "quantity" : 1, "attributes":{attributes} }} "#);
    assert_eq!(buy(&anna, "key", &around).is(200, "held").text("order"), order, "the same attributes");
    for other in
        [r#"{"quantity":1}"#, r#"{"quantity":1,"attributes":{}}"#, r#"{"quantity":1,"attributes":{"size":43}}"#]
    {
        // Without a note: notes know nothing of attributes, and this is another wish.
        let attempt = anna.attempt("boot", "key", 1).changed(|request| request.body(other.as_bytes()));
        server.ask(attempt.request()).is(422, "key_reused");
    }
    let without = ben.buy("boot", "key").is(201, "held").text("order");

    let handed = handed_over(&server, &order);
    assert_eq!(handed["attributes"], attributes);
    assert_eq!(handed["customer"], json!({ "issuer": ISSUER, "subject": "anna" }));
    assert_eq!((&handed["order"], &handed["status"]), (&json!(order), &json!("held")));
    let handed = handed_over(&server, &without);
    assert_eq!((&handed["attributes"], &handed["customer"]["subject"]), (&Value::Null, &json!("ben")));
    assert!(!anna.order(&order).json().to_string().contains("engraving"));
    for file in files_below(&server.data().join("sales")) {
        let found = std::fs::read(&file).unwrap();
        assert!(!found.windows(7).any(|bytes| bytes == "Zürich".as_bytes()), "{} can be read", file.display());
    }
    for order in [&order, &without] {
        server.confirm(order).is(200, "confirmed");
    }
    assert_eq!(handed_over(&server, &order)["status"], "confirmed");
}

#[test]
fn attributes_have_two_kilobytes_and_are_an_object() {
    let server = Server::start();
    server.create(&open_sale("drop", 9));
    let anna = server.customer("anna", "drop");
    let of_length = |length: usize| {
        let text = "x".repeat(length - r#"{"a":""}"#.len());
        format!(r#"{{"quantity":1,"attributes":{{"a":"{text}"}}}}"#)
    };
    let refused = buy(&anna, "key", &of_length(2_049)).is(400, "malformed");
    assert!(refused.text("detail").contains("2048 bytes"), "{}", refused.text("detail"));
    for wrong in [r#"{"attributes":"text"}"#, r#"{"attributes":[1]}"#, r#"{"attributes":7}"#] {
        buy(&anna, "key", wrong).is(400, "malformed");
    }
    let order = buy(&anna, "key", &of_length(2_048)).is(201, "held").text("order");
    assert_eq!(handed_over(&server, &order)["attributes"]["a"].as_str().unwrap().len(), 2_040);
    // Kept as it came, whatever a reader of JSON would make of it.
    let odd = r#"{"a":1, "a":2,"n":123456789012345678901234567890,"f":0.1000000000000000055511151231257827}"#;
    let kept = buy(&anna, "odd", &format!(r#"{{"attributes":{odd}}}"#)).is(201, "held").text("order");
    let handed = server.operate(Request::get(&format!("/admin/v1/orders/{kept}")));
    assert!(String::from_utf8(handed.body).unwrap().contains(odd));
    anna.cancel(&kept).is(200, "released");
    let nothing = buy(&anna, "key-2", r#"{"attributes":null}"#).is(201, "held").text("order");
    assert_eq!(handed_over(&server, &nothing)["attributes"], Value::Null);
    for order in [order, nothing] {
        anna.cancel(&order).is(200, "released");
    }
}

#[test]
fn an_order_of_nobody_is_not_there() {
    let server = Server::start();
    server.create(&open_sale("drop", 1));
    let order = format!("/admin/v1/orders/or_{}", "A".repeat(22));
    server.operate(Request::get(&order)).is(404, "not_found");
}

#[test]
fn a_purchase_that_prefers_it_is_answered_with_its_hold_token() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let token = |key: &str, prefer: &str| {
        anna.attempt("boot", key, 1).changed(|request| request.header("prefer", prefer)).send().json()["hold_token"]
            .as_str()
            .map(str::to_owned)
    };
    let first = token("key", "hold-token").expect("a token with the grant");
    let again = token("key", "wait=5, hold-token").expect("a token with the same purchase");
    let payload = |token: &str| {
        let text = token.split('.').nth(1).unwrap();
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert_eq!(payload(&first)["order"], payload(&again)["order"]);
    assert_eq!(token("key", "wait=5"), None);
    let order = payload(&first)["order"].as_str().unwrap().to_owned();
    anna.cancel(&order).is(200, "released");
    assert_eq!(token("key", "hold-token"), None, "nothing is held any more");
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}
