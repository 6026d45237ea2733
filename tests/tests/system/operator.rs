//! The operator's hand on a running sale: pause, stock, closing, settling, money that comes late, and many sales at once.

use std::fs;

use domain::{ChainTime, SaleDefinition};
use serde_json::{Value, json};
use system_tests::{Connection, Folder, Reply, Request, Server, audit_is_clean, doorbuster, open_sale, until};

fn change_stock(server: &Server, sale: &str, change: &Value) -> Reply {
    let path = format!("/admin/v1/sales/{sale}/items/boot/stock");
    server.operate(Request::post(&path).json(&json!({ "change": change })))
}

#[test]
fn a_pause_stops_purchases_and_nothing_else() {
    let server = Server::start();
    server.create(&open_sale("drop", 9));
    let anna = server.customer("anna", "drop");
    let orders = ["a", "b", "c"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    for _ in 0..2 {
        assert_eq!(server.turn("drop", "pause").is(200, "").json()["pause_reason"], "operator");
    }
    let paused = anna.buy("boot", "d").is(503, "paused");
    assert_eq!(paused.header("retry-after"), Some("5"));
    let ben = server.customer("ben", "drop");
    ben.buy("boot", "a").is(503, "paused");
    anna.buy("boot", "a").is(200, "held");
    anna.cancel(&orders[0]).is(200, "released");
    server.confirm(&orders[1]).is(200, "confirmed");
    assert_eq!(server.ask(&Request::get("/v1/sales/drop")).json()["paused"], true);
    for _ in 0..2 {
        assert_eq!(server.turn("drop", "resume").is(200, "").json()["pause_reason"], Value::Null);
    }
    ben.buy("boot", "a").is(201, "held");
    anna.buy("boot", "d").is(201, "held");
    server.turn("drop", "dance").is(404, "not_found");
    server.turn("nothing", "pause").is(404, "not_found");
}

#[test]
fn a_sale_is_applied_once_and_another_definition_is_told_where_it_differs() {
    let mut server = Server::start();
    let mut definition = SaleDefinition { external_id: Some("c-7".to_owned()), test: true, ..open_sale("drop", 3) };
    definition.items[0].sku = Some("B-42".to_owned());
    let apply = |server: &Server, path: &str, definition: &SaleDefinition| {
        let body = serde_json::to_value(definition).unwrap();
        server.operate(Request::new("PUT", &format!("/admin/v1/sales/{path}")).json(&body))
    };
    let made = apply(&server, "drop", &definition).is(201, "").json();
    assert_eq!((&made["test"], &made["external_id"]), (&true.into(), &"c-7".into()));
    let anna = server.customer("anna", "drop");
    let bought = anna.buy("boot", "a").is(201, "held").json();
    assert_eq!(bought["test"], true);
    assert_eq!(anna.order(bought["order"].as_str().unwrap()).json(), bought);
    let again = apply(&server, "drop", &definition).is(200, "").json();
    assert_eq!((&again["sale_id"], &again["counts"][0]["held"]), (&made["sale_id"], &1.into()), "the sale as it is");
    server.kill();
    server.start_again();
    apply(&server, "drop", &definition).is(200, "");

    let shown = server.ask(&Request::get("/v1/sales/drop")).json();
    assert_eq!((&shown["test"], &shown["items"][0]["sku"]), (&true.into(), &"B-42".into()));
    assert_eq!(server.ask(&Request::get("/v1/sales")).json()[0]["test"], true);
    server.drained("drop");
    assert_eq!(server.orders("drop")[0]["test"], true);

    let mut other = definition.clone();
    other.items[0].price = 1;
    let refused = apply(&server, "drop", &other).is(409, "sale_exists");
    assert_eq!(refused.text("detail"), "items[0].price: 4900 in the sale that exists, 1 here");
    apply(&server, "elsewhere", &definition).is(400, "sale_invalid");
    other.items[0].sku = Some(String::new());
    assert!(apply(&server, "drop", &other).is(400, "sale_invalid").text("detail").starts_with("items[0].sku: "));
    assert_eq!(server.ask(&Request::get("/v1/sales")).json().as_array().unwrap().len(), 1);
}

/// Fields of a line of CSV without line breaks.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            letter => fields.last_mut().unwrap().push(letter),
        }
    }
    fields
}

#[test]
fn orders_are_exported_whole_in_both_forms() {
    let server = Server::start_with(&["books.records_per_second_max=0"]);
    let mut definition =
        SaleDefinition { external_id: Some("=1+1".to_owned()), test: true, ..open_sale("drop", 2_100) };
    definition.items[0].sku = Some("a,b".to_owned());
    server.create(&definition);
    let people = ["anna", "ben", "cleo"].map(|name| server.customer(name, "drop"));
    let mut connection = Connection::open(server.public()).unwrap();
    let count = 2_050;
    for key in 0..count {
        let bought =
            people[key % people.len()].attempt("boot", &key.to_string(), 1).try_send_on(&mut connection).unwrap();
        assert_eq!(bought.status, 201);
    }
    server.drained("drop");
    let last = server.orders("drop").last().map(|order| order["order"].as_str().unwrap().to_owned());
    server.confirm(&last.unwrap()).is(200, "confirmed");
    server.drained("drop");
    let listed = server.orders("drop");
    let command = |format: &str, out: &[&str]| {
        let data = server.data().to_str().unwrap();
        let command = [&["sale", "orders", "drop", "--format", format, "--data", data], out].concat();
        let ended = doorbuster(&command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out
    };
    let json: Value = serde_json::from_str(&command("json", &[])).unwrap();
    let json = json.as_array().unwrap();
    assert_eq!(json.len(), count);
    for (line, order) in json.iter().zip(&listed) {
        for name in ["order", "number", "item", "quantity", "status", "test", "position"] {
            assert_eq!(line[name], order[name], "{name}");
        }
        assert_eq!((&line["price"], &line["currency"]), (&4_900.into(), &"EUR".into()));
        assert_eq!((&line["sale_external_id"], &line["sku"]), (&"=1+1".into(), &"a,b".into()));
    }
    let folder = Folder::new();
    let file = folder.join("drop.csv");
    command("csv", &["--out", file.to_str().unwrap()]);
    let csv = fs::read_to_string(&file).unwrap();
    let mut lines = csv.split_terminator("\r\n");
    let names = fields(lines.next().unwrap());
    let lines: Vec<_> = lines.map(fields).collect();
    assert_eq!(lines.len(), count);
    for (line, order) in lines.iter().zip(json) {
        for (name, field) in names.iter().zip(line) {
            let text = order[name].as_str().map_or_else(|| order[name].to_string(), ToOwned::to_owned);
            let text = if text.starts_with('=') { format!("'{text}") } else { text.replace("null", "") };
            assert_eq!(*field, text, "{name}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    server.operate(Request::get("/admin/v1/sales/nothing/orders.csv")).is(404, "not_found");
}

#[test]
fn a_pause_outlives_the_process() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 9));
    let anna = server.customer("anna", "drop");
    server.turn("drop", "pause").is(200, "");
    server.kill();
    server.start_again();
    anna.buy("boot", "a").is(503, "paused");
    server.turn("drop", "resume").is(200, "");
    anna.buy("boot", "a").is(201, "held");
}

#[test]
fn stock_can_be_added_and_only_free_units_withdrawn() {
    let server = Server::start();
    server.create(&open_sale("drop", 2));
    let anna = server.customer("anna", "drop");
    anna.buy("boot", "a").is(201, "held");
    change_stock(&server, "drop", &json!(-2)).is(409, "stock_unavailable");
    change_stock(&server, "drop", &json!(-1)).is(200, "");
    assert_eq!(server.counts("drop"), [0, 1, 0, 1]);
    anna.buy("boot", "b").is(409, "sold_out");
    change_stock(&server, "drop", &json!(3)).is(200, "");
    change_stock(&server, "drop", &json!(0)).is(200, "");
    let fresh = anna.attempt("boot", "b", 3).send().is(201, "held").json();
    let numbers: Vec<_> = fresh["units"].as_array().unwrap().iter().map(|unit| unit["number"].clone()).collect();
    assert_eq!(numbers, [2, 3, 4], "restocking adds numbers; the withdrawn one stays away");
    for (change, code) in [
        (json!(100_000_000), "quantity_invalid"),
        (json!(i64::MAX), "quantity_invalid"),
        (json!(i64::MIN), "quantity_invalid"),
        (json!(-10_001), "quantity_invalid"),
        (json!("5"), "malformed"),
        (json!(1.5), "malformed"),
        (Value::Null, "malformed"),
    ] {
        change_stock(&server, "drop", &change).is(400, code);
    }
    let elsewhere = Request::post("/admin/v1/sales/drop/items/sock/stock").json(&json!({ "change": 1 }));
    server.operate(elsewhere).is(404, "not_found");
    assert_eq!(server.counts("drop"), [0, 4, 0, 1]);
}

#[test]
fn a_closed_sale_settles_when_no_hold_is_open() {
    let server = Server::start();
    server.create(&SaleDefinition { spread_milliseconds: 2, ..open_sale("drop", 5) });
    let anna = server.customer("anna", "drop");
    server.turn("drop", "settle").is(409, "sale_phase_wrong");
    let order = anna.buy("boot", "a").is(201, "held").text("order");
    for _ in 0..2 {
        assert_eq!(server.turn("drop", "close").is(200, "").json()["phase"], "closed");
    }
    server.turn("drop", "settle").is(409, "sale_phase_wrong");
    server.confirm(&order).is(200, "confirmed");
    // The slot secret is revealed first, in a cluster a moment after the closing.
    until("the settlement", || server.turn("drop", "settle").status == 200);
    assert_eq!(server.turn("drop", "settle").is(200, "").json()["phase"], "settled");
    assert_eq!(server.counts("drop"), [4, 0, 1, 0]);
    server.turn("drop", "pause").is(409, "sale_phase_wrong");
    change_stock(&server, "drop", &json!(1)).is(409, "sale_phase_wrong");
    anna.buy("boot", "b").is(409, "closed");
    anna.buy("boot", "a").is(200, "confirmed");
    server.stranger("ben", "drop").take_pass().is(409, "closed");
    server.drained("drop");
    let report = audit_is_clean(server.data(), Some(&server.notes()));
    assert!(report.proof["slots"].checked > 0, "the revealed secret proves the slots: {report}");
}

#[test]
fn an_order_ends_once_whoever_asks_again() {
    let server = Server::start();
    server.create(&SaleDefinition { hold_seconds: 3, ..open_sale("drop", 9) });
    let anna = server.customer("anna", "drop");
    let [paid, back, shop, left] = ["a", "b", "c", "d"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    let by_shop = |order: &str| server.operate(Request::post(&format!("/admin/v1/orders/{order}/cancel")));
    for _ in 0..2 {
        server.confirm(&paid).is(200, "confirmed");
        anna.cancel(&back).is(200, "released");
        by_shop(&shop).is(200, "released");
    }
    anna.cancel(&paid).is(409, "order_confirmed");
    by_shop(&paid).is(409, "order_confirmed");
    anna.cancel(&shop).is(409, "hold_ended");
    until("the expiry", || anna.order(&left).code() == "released");
    anna.cancel(&left).is(409, "hold_ended");
    assert_eq!(server.counts("drop"), [8, 0, 1, 0]);
}

#[test]
fn a_planned_sale_opens_by_itself_and_says_when() {
    let mut server = Server::start();
    let now = server.ask(&Request::get("/v1/time")).json()["unix_ms"].as_u64().unwrap();
    let (passes_open_at, opens_at) = (ChainTime(now + 1_500), ChainTime(now + 3_000));
    server.create(&SaleDefinition { passes_open_at, opens_at, ..open_sale("drop", 5) });
    let mut anna = server.stranger("anna", "drop");
    let early = anna.take_pass().is(409, "not_open");
    assert_eq!(early.text("retry_at"), passes_open_at.rfc3339());
    server.kill();
    server.start_again();
    until("the passes", || anna.take_pass().status == 201);
    let early = anna.buy("boot", "a");
    if early.status != 201 {
        assert_eq!(early.is(409, "not_open").text("retry_at"), opens_at.rfc3339());
    }
    until("the opening", || anna.buy("boot", "a").code() == "held");
    let sale = server.ask(&Request::get("/v1/sales/drop")).json();
    let opened = ChainTime::parse_rfc3339(sale["opened_at"].as_str().unwrap()).unwrap();
    assert!(opened >= opens_at, "{sale}");
}

#[test]
fn many_sales_at_once_each_with_its_own_owner() {
    let mut server = Server::start();
    let names: Vec<_> = (0..12).map(|number| format!("drop-{number}")).collect();
    for name in &names {
        server.create(&open_sale(name, 20));
    }
    server.turn("drop-3", "pause").is(200, "");
    std::thread::scope(|scope| {
        for name in &names {
            let server = &server;
            scope.spawn(move || {
                let anna = server.customer("anna", name);
                for number in 0..25 {
                    let reply = anna.buy("boot", &format!("key-{number}"));
                    let expected = match (name.as_str(), number) {
                        ("drop-3", _) => "paused",
                        (_, 0..20) => "held",
                        _ => "sold_out",
                    };
                    assert_eq!(reply.code(), expected, "{name} {number}");
                }
            });
        }
    });
    assert_eq!(fs::read_dir(server.data().join("sales")).unwrap().count(), names.len(), "a folder each");
    server.kill();
    server.start_again();
    for name in &names {
        let held = if name == "drop-3" { 0 } else { 20 };
        assert_eq!(server.counts(name), [20 - held, held, 0, 0], "{name}");
        server.drained(name);
        assert_eq!(server.orders(name).len() as u64, held);
    }
    let listed = server.ask(&Request::get("/v1/sales")).json();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|sale| sale["sale"].as_str().unwrap()).collect();
    assert_eq!(listed, names, "the oldest first");
}
