//! A customer who is erased: gone from the vault of a process that is alone, and nothing that was promised breaks.

use domain::ChainTime;
use serde_json::json;
use system_tests::{ISSUER, Request, Server, doorbuster, open_sale, until};

/// A sale whose time is over: nobody is behind its orders any more, by order and by retention, and its books and proofs stand.
#[test]
fn a_sale_is_forgotten_and_its_orders_are_not() {
    let mut server = Server::start();
    let names = ["drop", "kept"];
    let orders = names.map(|name| {
        server.create(&open_sale(name, 2));
        let anna = server.customer("anna", name);
        let sized =
            anna.attempt("boot", "a", 1).changed(|request| request.json(&json!({ "attributes": { "size": 42 } })));
        let order = sized.send().is(201, "held").text("order");
        server.confirm(&order).is(200, "confirmed");
        order
    });
    let handed = |server: &Server, order: &str| {
        let order = server.operate(Request::get(&format!("/admin/v1/orders/{order}"))).json();
        (order["customer"]["subject"].clone(), order["attributes"].clone(), order["status"].clone())
    };
    let known = (json!("anna"), json!({ "size": 42 }), json!("confirmed"));
    let forgotten = (json!(null), json!(null), json!("confirmed"));
    server.turn("drop", "anonymise").is(409, "sale_phase_wrong");
    for name in names {
        server.turn(name, "close").is(200, "");
        server.turn(name, "settle").is(200, "");
    }
    assert_eq!(handed(&server, &orders[0]), known);
    assert!(server.turn("drop", "anonymise").is(200, "").json()["anonymised_at"].is_string());
    assert!(server.turn("drop", "anonymise").is(200, "").json()["anonymised_at"].is_string(), "twice is once");
    assert_eq!((handed(&server, &orders[0]), handed(&server, &orders[1])), (forgotten.clone(), known.clone()));
    let anna = server.stranger("anna", "drop");
    anna.order(&orders[0]).is(404, "not_found");
    anna.order(&orders[1]).is(200, "confirmed");
    // Its end was planned for yesterday.
    let mut past = open_sale("past", 2);
    let yesterday = past.opens_at.0 - 25 * 3_600_000;
    (past.passes_open_at, past.opens_at, past.closes_at) =
        (ChainTime(yesterday), ChainTime(yesterday), ChainTime(yesterday + 1_000));
    server.create(&past);
    until("a sale that is over", || server.sale("past")["phase"] == "closed");
    server.turn("past", "settle").is(200, "");
    assert_eq!(server.sale("past")["anonymised_at"], json!(null));
    server.terminate();
    server.start_again_with(&["retention.days=1"]);
    until("a sale that was forgotten", || server.sale("past")["anonymised_at"].is_string());
    assert_eq!((handed(&server, &orders[0]), handed(&server, &orders[1])), (forgotten, known));
}

#[test]
fn an_erased_customer_leaves_the_vault_and_every_promise_stands() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 9));
    server.create(&open_sale("other", 9));
    let anna = server.customer("anna", "drop");
    let ben = server.customer("ben", "drop");
    server.customer("anna", "other").buy("boot", "a").is(201, "held");
    let sized = json!({ "attributes": { "size": 42 } });
    let bought = anna.attempt("boot", "a", 1).changed(|request| request.json(&sized)).send();
    let held = bought.is(201, "held").text("order");
    ben.buy("boot", "a").is(201, "held");
    let erase = |server: &Server, subject: &str| {
        let body = json!({ "issuer": ISSUER, "subject": subject });
        server.operate(Request::post("/admin/v1/customers/erase").json(&body))
    };
    let refused = erase(&server, "anna").is(409, "hold_open");
    assert_eq!(refused.text("detail"), "in the sale drop");
    server.confirm(&held).is(200, "confirmed");
    assert_eq!(erase(&server, "anna").is(409, "hold_open").text("detail"), "in the sale other");
    server.turn("other", "close").is(200, "");
    let elsewhere = server.stranger("anna", "other");
    let open = elsewhere.asks(Request::get("/v1/orders")).json()["orders"][0]["order"].as_str().unwrap().to_owned();
    elsewhere.cancel(&open).is(200, "released");
    let map = |server: &Server| {
        let vault = rusqlite::Connection::open(server.data().join("vault.sqlite")).unwrap();
        let count = |table: &str| {
            vault.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0)).unwrap()
        };
        (count("customers"), count("map"))
    };
    assert_eq!(map(&server), (2, 3));
    let handed = |server: &Server| {
        let order = server.operate(Request::get(&format!("/admin/v1/orders/{held}"))).is(200, "confirmed").json();
        (order["customer"].clone(), order["attributes"].clone())
    };
    assert_eq!(handed(&server), (json!({ "issuer": ISSUER, "subject": "anna" }), json!({ "size": 42 })));
    assert_eq!(erase(&server, "anna").is(200, "").json()["erased"], true);
    assert_eq!(map(&server), (1, 1));
    assert_eq!(handed(&server), (json!(null), json!(null)));
    assert_eq!(erase(&server, "anna").is(200, "").json()["erased"], false);
    server.kill();
    server.start_again();
    assert_eq!(map(&server), (1, 1));
    anna.order(&held).is(200, "confirmed");
    let data = server.data().to_str().unwrap();
    let told = doorbuster(&["customer", "erase", "--issuer", ISSUER, "--subject", "anna", "--data", data]);
    assert!(told.out.contains("erased before"), "{told:?}");
    server.customer("anna", "drop").buy("boot", "b").is(201, "held");
    assert_eq!(map(&server), (2, 2), "whoever comes back is new");
    let (customer, attributes) = handed(&server);
    assert_eq!((customer["subject"].as_str(), attributes), (Some("anna"), json!(null)), "what was sealed stays closed");
}
