//! Payments over HTTP, as a shop with a provider of its own reports them; coupons; and what the audit says of both.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use domain::CouponDefinition;
use serde_json::{Value, json};
use system_tests::{Reply, Request, Server, open_sale, until};

fn report(server: &Server, order: &str, what: &str) -> Reply {
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/{what}")))
}

fn statuses(reply: &Reply) -> Vec<String> {
    let payments = reply.json()["payments"].as_array().cloned().unwrap_or_default();
    payments.iter().map(|payment| payment["status"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_hold_is_paid_given_back_and_every_report_counts_once() {
    let server = Server::start();
    server.create(&open_sale("drop", 2));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    assert_eq!(statuses(&report(&server, &order, "payments").is(200, "held")), ["open"]);
    report(&server, &order, "payments").is(200, "held");
    report(&server, &order, "payments/3/paid").is(404, "not_found");
    report(&server, &order, "payments/0/stolen").is(404, "not_found");
    anna.cancel(&order).is(409, "payment_open");
    report(&server, &order, "cancel").is(409, "payment_open");
    report(&server, &order, "refund").is(409, "nothing_to_refund");
    assert_eq!(statuses(&report(&server, &order, "payments/0/paid").is(200, "confirmed")), ["paid"]);
    report(&server, &order, "payments/0/ended").is(200, "confirmed");
    report(&server, &order, "payments").is(409, "order_confirmed");
    assert_eq!(statuses(&anna.order(&order).is(200, "confirmed")), ["paid"], "the customer sees it too");
    for _ in 0..2 {
        assert_eq!(statuses(&report(&server, &order, "refund").is(200, "confirmed")), ["refund_due"]);
    }
    for _ in 0..2 {
        assert_eq!(statuses(&report(&server, &order, "payments/0/refunded").is(200, "confirmed")), ["refunded"]);
    }
    assert_eq!(server.counts("drop"), [1, 0, 1, 0], "the unit stays sold until the shop adds stock");
}

#[test]
fn a_payment_under_way_keeps_a_hold_and_its_end_gives_it_back() {
    let server = Server::start();
    let mut definition = open_sale("drop", 1);
    definition.hold_seconds = 1;
    server.create(&definition);
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    report(&server, &order, "payments").is(200, "held");
    until("a time after the deadline", || is_over(&anna.order(&order)));
    anna.order(&order).is(200, "held");
    ben.buy("boot", "key").is(409, "sold_out");
    report(&server, &order, "payments/0/ended").is(200, "released");
    let other = ben.buy("boot", "again").is(201, "held").text("order");
    // The money comes after all, and ben has the unit.
    let late = report(&server, &order, "payments/0/paid").is(200, "released");
    assert_eq!(statuses(&late), ["refund_due"]);
    report(&server, &order, "payments/0/refunded").is(200, "released");
    until("the end of a hold that nobody pays", || ben.order(&other).code() == "released");
    server.drained("drop");
}

/// The pay-by time is over for a second.
fn is_over(order: &Reply) -> bool {
    let pay_by = domain::ChainTime::parse_rfc3339(&order.text("pay_by")).expect("an order has a pay-by time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    now.as_millis() > u128::from(pay_by.0 + 1_000)
}

#[test]
fn a_coupon_makes_it_cheaper_as_often_as_it_may_and_the_chain_does_not_tell_its_code() {
    let server = Server::start();
    let mut definition = open_sale("drop", 5);
    definition.coupons =
        vec![CouponDefinition { code: Some("SPRING-33".to_owned()), hash: None, percent: 33, uses_max: 1 }];
    server.create(&definition);
    let with = |customer: &system_tests::Customer, key: &str, code: &str| {
        let body = json!({ "coupon": code });
        customer.attempt("boot", key, 1).changed(|request| request.json(&body)).send()
    };
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let won = with(&anna, "key", "SPRING-33").is(201, "held");
    assert_eq!(won.json()["price"]["amount"], 3_283, "33 % of 49.00 are 16.17");
    with(&anna, "key", "SPRING-33").is(200, "held");
    // Another body under the key, which the notes for the audit know nothing of.
    let other = anna.attempt("boot", "key", 1).changed(|request| request.json(&json!({ "coupon": "spring-33" })));
    other.request().send(server.public()).is(422, "key_reused");
    with(&ben, "key", "SPRING-33").is(409, "coupon_refused");
    anna.cancel(&won.text("order")).is(200, "released");
    assert_eq!(with(&ben, "key-2", "SPRING-33").is(201, "held").json()["price"]["amount"], 3_283);
    for path in ["/v1/sales", "/v1/sales/drop"] {
        let told = Request::get(path).send(server.public());
        assert!(!String::from_utf8_lossy(&told.body).contains("SPRING"), "{path}");
    }
    let definitions = server.operate(Request::get("/admin/v1/sales")).json();
    assert!(!definitions.to_string().contains("SPRING") && definitions != Value::Null);
}

/// The example's process, and where it listens; ended with the test.
struct Shop(Child, SocketAddr);

impl Drop for Shop {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Shop {
    fn start(server: &Server, sale: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.py");
        let key = server.ask(&Request::get(&format!("/v1/sales/{sale}"))).text("signing_key");
        let role = json!({ "label": "the example", "role": "cashier" });
        let token = server.operate(Request::post("/admin/v1/tokens").json(&role)).is(201, "").text("token");
        let mut command = Command::new("python3");
        command.args([script, "0", &server.admin().to_string(), &token, sale, &key]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs the example");
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self(child, ([127, 0, 0, 1], port.trim().parse().unwrap()).into())
    }

    fn checkout(&self, token: &str) -> Reply {
        Request::post("/checkout").body(token.as_bytes()).send(self.1)
    }
}

#[test]
fn the_example_of_a_shop_believes_the_sales_hold_tokens_and_no_others() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    server.create(&open_sale("other", 3));
    let shop = Shop::start(&server, "drop");
    let (anna, elsewhere) = (server.customer("anna", "drop"), server.customer("anna", "other"));
    let token_of = |customer: &system_tests::Customer, order: &str| {
        customer.asks(Request::post(&format!("/v1/orders/{order}/hold-token")))
    };
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let token = token_of(&anna, &order).is(200, "").text("hold_token");
    for _ in 0..2 {
        assert_eq!(shop.checkout(&token).is(200, "confirmed").text("order"), order);
    }
    token_of(&anna, &order).is(409, "order_confirmed");
    // The answer to the purchase has it too, where it is asked for.
    let bought = elsewhere.attempt("boot", "key", 1).changed(|request| request.header("prefer", "hold-token")).send();
    let (other, foreign) = (bought.text("order"), bought.is(201, "held").text("hold_token"));
    assert_eq!(shop.checkout(&foreign).status, 400, "another sale's");
    let (text, signature) = token.rsplit_once('.').unwrap();
    for forged in [format!("{text}.{}", "A".repeat(signature.len())), format!("{text}x.{signature}"), "a.b".to_owned()]
    {
        assert_eq!(shop.checkout(&forged).status, 400, "{forged}");
    }
    let second = anna.buy("boot", "key-2").is(201, "held").text("order");
    anna.cancel(&second).is(200, "released");
    token_of(&anna, &second).is(409, "hold_ended");
    elsewhere.cancel(&other).is(200, "released");
}

/// A shop that takes the money itself keeps its own name of the payment with the order, and can give it back later.
#[test]
fn a_confirmation_keeps_the_shops_own_reference() {
    let server = Server::start();
    let mut definition = open_sale("drop", 3);
    definition.items[0].points = 7;
    server.create(&definition);
    let anna = server.customer("anna", "drop");
    let confirm = |order: &str, body: &str| {
        let path = format!("/admin/v1/orders/{order}/confirm");
        server.operate(Request::post(&path).header("content-type", "application/json").body(body.as_bytes()))
    };
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    for wrong in [r#"{"reference":""}"#, r#"{"reference":"a b"}"#, r#"{"reference":7}"#, r#"{"invoice":"1"}"#, "{{"] {
        confirm(&order, wrong).is(400, "malformed");
    }
    for _ in 0..2 {
        confirm(&order, r#"{"reference":"INV-1"}"#).is(200, "confirmed");
    }
    confirm(&order, r#"{"reference":"INV-2"}"#).is(409, "order_confirmed");
    confirm(&order, "").is(200, "confirmed");
    let handed = server.operate(Request::get(&format!("/admin/v1/orders/{order}"))).json();
    assert_eq!(handed["references"], json!(["INV-1"]));
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/payments/0/refunded"))).is(200, "confirmed");
    server.drained("drop");
    assert_eq!(server.orders("drop")[0]["payment_status"], "refunded");
    let books = rusqlite::Connection::open(server.data().join("books.sqlite")).unwrap();
    let taken_back = || books.query_row("SELECT taken_back FROM points", [], |row| row.get::<_, u32>(0)).unwrap_or(0);
    until("the points' way back", || taken_back() == 7);
    // What was given back is paid too late: units again, without the name.
    let late = anna.buy("boot", "key-2").is(201, "held").text("order");
    anna.cancel(&late).is(200, "released");
    confirm(&late, r#"{"reference":"INV-3"}"#).is(200, "confirmed");
}

/// Rows of the tables that the services beside that of orders keep, as text.
fn accounts(server: &Server) -> Vec<String> {
    let books = rusqlite::Connection::open(server.data().join("books.sqlite")).unwrap();
    let mut all = Vec::new();
    for table in ["payments", "payments_parked", "coupons", "points", "point_postings", "products"] {
        let mut statement = books.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cells = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
            cells.collect::<Result<Vec<_>, _>>()
        };
        let rows = statement.query_map([], row).unwrap();
        all.extend(rows.map(|row| format!("{table} {:?}", row.unwrap())));
    }
    all
}

/// A sale with a refund, a coupon given back and used again, and points.
fn accounted_for(server: &Server) {
    let mut definition = open_sale("drop", 5);
    (definition.items[0].points, definition.items[0].sku) = (7, Some("B-42".to_owned()));
    definition.coupons =
        vec![CouponDefinition { code: Some("SPRING".to_owned()), hash: None, percent: 50, uses_max: 2 }];
    server.create(&definition);
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let with = |customer: &system_tests::Customer, key: &str| {
        let body = json!({ "coupon": "SPRING" });
        customer.attempt("boot", key, 1).changed(|request| request.json(&body)).send().is(201, "held").text("order")
    };
    let paid = with(&anna, "paid");
    for what in ["payments", "payments/0/ended", "payments", "payments/1/paid", "payments/0/paid", "refund"] {
        let reply = report(server, &paid, what);
        assert_eq!(reply.status, 200, "{what}");
    }
    report(server, &paid, "payments/1/refunded").is(200, "confirmed");
    report(server, &paid, "payments/0/refunded").is(200, "confirmed");
    anna.cancel(&with(&anna, "given-back")).is(200, "released");
    server.confirm(&with(&ben, "by-hand")).is(200, "confirmed");
    server.drained("drop");
    let page = server.operate(Request::get("/admin/v1/sales/drop/payments")).json();
    let told: Vec<_> =
        page["payments"].as_array().unwrap().iter().map(|line| (&line["order"], &line["status"])).collect();
    let (order, refunded) = (Value::from(paid), Value::from("refunded"));
    assert_eq!(told, [(&order, &refunded), (&order, &refunded)], "{page}");
    let behind = server.operate(Request::get("/admin/v1/sales/drop/payments?cursor=0")).json();
    assert_eq!(behind["payments"].as_array().unwrap().len(), 1, "{behind}");
    let metrics = String::from_utf8(server.operate(Request::get("/metrics")).body).unwrap();
    assert!(metrics.contains("doorbuster_books_service_lag{sale=\"drop\",service=\"points\"} 0"), "{metrics}");
    assert!(metrics.contains("doorbuster_payments{sale=\"drop\",status=\""), "{metrics}");
}

#[test]
fn a_forged_row_of_any_service_is_named_by_the_audit_and_deleted_books_come_back_equal() {
    let mut server = Server::start();
    accounted_for(&server);
    server.terminate();
    let data = server.data().to_str().unwrap().to_owned();
    let audit = || system_tests::doorbuster(&["audit", "--json", "--data", &data]);
    let clean = audit();
    assert_eq!(clean.code, Some(0), "{clean:?}");
    for (table, promise, forged, mended) in [
        ("payments", "INV-6", "status = 'paid' WHERE attempt = 1", "status = 'refunded' WHERE attempt = 1"),
        ("payments", "INV-6", "amount = amount + 1", "amount = amount - 1"),
        ("coupons", "INV-7", "used = used - 1", "used = used + 1"),
        ("points", "INV-7", "posted = posted + 7", "posted = posted - 7"),
        ("point_postings", "INV-7", "points = points + 1", "points = points - 1"),
        ("products", "INV-1", "sold = sold + 1", "sold = sold - 1"),
        ("products", "INV-1", "sku = 'B-43'", "sku = 'B-42'"),
        ("offsets", "INV-6", "next = next + 9 WHERE service = 'payment'", "next = next - 9 WHERE service = 'payment'"),
    ] {
        let books = rusqlite::Connection::open(server.data().join("books.sqlite")).unwrap();
        assert!(books.execute(&format!("UPDATE {table} SET {forged}"), []).unwrap() > 0);
        let found = audit();
        assert_eq!(found.code, Some(1), "{table} {forged}: {found:?}");
        let report: Value = serde_json::from_str(&found.out).unwrap();
        let line = &report["promises"][promise];
        assert_eq!(line["status"], "broken", "{table} {forged}: {line}");
        let named = if table == "offsets" { "the books of payment" } else { table };
        assert!(line["evidence"].to_string().contains(named), "{table} {forged}: {line}");
        books.execute(&format!("UPDATE {table} SET {mended}"), []).unwrap();
    }
    let before = accounts(&server);
    assert_eq!(before.len(), 2 + 1 + 2 + 3 + 1, "{before:?}");
    for file in ["books.sqlite", "books.sqlite-wal", "books.sqlite-shm"] {
        // The last two are there only after a crash.
        let _ = std::fs::remove_file(server.data().join(file));
    }
    server.start_again();
    server.drained("drop");
    assert_eq!(accounts(&server), before);
}
