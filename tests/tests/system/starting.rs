//! What a configuration may not say, and who may not be the operator.

use serde_json::json;
use system_tests::{Folder, Request, Server, doorbuster, item, open_sale, sale_of};

#[test]
fn configurations_that_cannot_be_meant_are_refused_before_anything_is_touched() {
    let folder = Folder::new();
    let data = folder.join("data");
    let guests = "identity.dangerous_guest_tokens=true";
    let table: &[(&[&str], &[&str])] = &[
        (&[], &["nobody could sign in", "identity.hs256_secrets"]),
        (&["identity.hs256_secrets=short"], &["identity.issuer and identity.audience"]),
        (&["identity.issuer=shop", "identity.audience=us", "identity.hs256_secrets=short"], &["at least 32 bytes"]),
        (&[guests, "public.adress=127.0.0.1:0"], &["adress", "config/default.toml"]),
        (&[guests, "colour=red"], &["colour"]),
        (&[guests, "public.threads=many"], &["threads"]),
        (&[guests, "public.threads=1000"], &["public.threads: 256 at most"]),
        (&[guests, "public.head_seconds_max=0"], &["public.head_seconds_max: 1 to 3600"]),
        (&[guests, "purchases.wait_seconds=0"], &["purchases.wait_seconds: 1 to 60"]),
        (&[guests, "books.records_per_second_max=-1"], &["records_per_second_max"]),
        (&[guests, "admin.address=0.0.0.0:0"], &["admin.address: must be a loopback address"]),
        (&[guests, "admin.address=192.0.2.1:80"], &["admin.address: must be a loopback address"]),
        (&[guests, "public.address=0.0.0.0:0"], &["dangerous_guest_tokens", "loopback"]),
        (&[guests, "testing.dangerous_fault_point=lunch:1"], &["STAGE:COUNT"]),
        (&[guests, "testing.dangerous_fault_point=chained"], &["STAGE:COUNT"]),
        (&[guests, "no-value"], &["KEY=VALUE"]),
    ];
    for (settings, words) in table {
        let mut arguments = vec!["serve", "--data", data.to_str().unwrap()];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        doorbuster(&arguments).refused_with(words);
        assert!(!data.exists(), "{settings:?} left something behind");
    }
    let file = folder.join("mine.toml");
    std::fs::write(&file, "[public]\nadress = \"127.0.0.1:0\"\n").unwrap();
    doorbuster(&["config", "--config", file.to_str().unwrap()]).refused_with(&["adress"]);
    std::fs::write(&file, "[limits]\ncustomer_passes_per_second = 0.5\n").unwrap();
    let half = ["limits.customer_passes_per_second: 0.5 is no whole number"];
    doorbuster(&["config", "--config", file.to_str().unwrap()]).refused_with(&half);
    doorbuster(&["config", "--config", "/nowhere.toml"]).refused_with(&["/nowhere.toml"]);
}

#[test]
fn a_port_has_one_server() {
    let server = Server::start();
    let folder = Folder::new();
    for taken in ["public.address", "admin.address"] {
        let address = if taken == "public.address" { server.public() } else { server.admin() };
        let (data, setting) = (folder.join(taken), format!("{taken}={address}"));
        let mut arguments = vec!["serve", "--data", data.to_str().unwrap(), "--set", &setting];
        arguments.extend(["--set", "identity.dangerous_guest_tokens=true"]);
        for other in ["public.address=127.0.0.1:0", "admin.address=127.0.0.1:0"] {
            if !other.starts_with(taken) {
                arguments.extend(["--set", other]);
            }
        }
        doorbuster(&arguments).refused_with(&[&address.to_string(), "another process may have the port"]);
    }
    assert_eq!(server.ask(&Request::get("/healthz")).status, 200, "the one that was first is not disturbed");
}

#[test]
fn the_operators_routes_want_the_operators_token() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let token = server.admin_token();
    let swapped = format!("{}{}", &token[1..], &token[..1]);
    let document = server.ask(&Request::get("/openapi.json")).json();
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !(path.starts_with("/admin/") || path == "/metrics") {
            continue;
        }
        let filled = path.replace("{sale}", "drop").replace("{item}", "boot").replace("{order}", &order);
        let filled = filled.replace("{action}", "close");
        for method in methods.as_object().unwrap().keys() {
            routes += 1;
            let request = Request::new(&method.to_uppercase(), &filled).json(&json!({ "change": 1 }));
            for request in [
                request.clone(),
                request.clone().bearer(""),
                request.clone().bearer(&swapped),
                request.clone().bearer(&anna.token),
                request.clone().header("authorization", &format!("Basic {token}")),
            ] {
                request.send(server.admin()).is(401, "token_invalid");
            }
            request.bearer(&token).send(server.public()).is(404, "not_found");
        }
    }
    assert_eq!(routes, 38);
    assert_eq!(server.counts("drop"), [4, 1, 0, 0], "nothing of it had an effect");
    server.operate(Request::get("/v1/sales/drop/mine")).is(404, "not_found");
    let file = std::fs::metadata(server.data().join("admin-token")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
}

#[test]
fn sales_that_contradict_themselves_are_refused_with_the_field() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let good = serde_json::to_value(open_sale("second", 5)).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut definition = good.clone();
        definition[field] = value;
        definition
    };
    let items =
        |items: Vec<domain::ItemDefinition>| serde_json::to_value(sale_of("x", items)).unwrap()["items"].clone();
    let table = [
        (with("sale", json!("drop")), 409, "sale_exists", ""),
        (with("sale", json!("../drop")), 400, "sale_invalid", "sale:"),
        (with("sale", json!("Winter Drop")), 400, "sale_invalid", "sale:"),
        (with("title", json!("")), 400, "sale_invalid", "title:"),
        (with("opens_at", good["closes_at"].clone()), 400, "sale_invalid", "closes_at:"),
        (with("hold_seconds", json!(0)), 400, "sale_invalid", "hold_seconds:"),
        (with("limit_per_customer", json!(0)), 400, "sale_invalid", "limit_per_customer:"),
        (with("spread_milliseconds", json!(86_400_000)), 400, "sale_invalid", "spread_milliseconds:"),
        (with("items", json!([])), 400, "sale_invalid", "items:"),
        (with("items", items(vec![item("boot", 1), item("boot", 1)])), 400, "sale_invalid", "items[1].item:"),
        (with("items", items(vec![item("boot", 100_000_001)])), 400, "sale_invalid", "items[0].stock:"),
        (with("opens_at", json!("tomorrow")), 400, "malformed", "RFC 3339"),
        (with("currency", json!("euro")), 400, "malformed", "ISO 4217"),
        (with("colour", json!("red")), 400, "malformed", "colour"),
        (json!({ "sale": "second" }), 400, "malformed", "missing field"),
        (json!(["second"]), 400, "malformed", "object"),
    ];
    for (definition, status, code, word) in table {
        let reply = server.operate(Request::post("/admin/v1/sales").json(&definition)).is(status, code);
        assert!(reply.text("detail").contains(word), "{word:?}: {}", reply.text("detail"));
    }
    let sales = server.operate(Request::get("/admin/v1/sales")).json();
    assert_eq!(sales.as_array().unwrap().len(), 1);
    let huge = with("title", json!("x".repeat(300_000)));
    server.operate(Request::post("/admin/v1/sales").json(&huge)).is(413, "body_too_large");
}

#[test]
fn guests_are_believed_on_loopback_where_the_configuration_says_so() {
    let server = Server::start_with(&["identity.dangerous_guest_tokens=true"]);
    server.create(&open_sale("drop", 5));
    let mut guest = server.stranger("me", "drop");
    guest.token = "guest_me".to_owned();
    guest.take_pass().is(201, "");
    let held = guest.buy("boot", "key").is(201, "held");
    let mut namesake = server.customer("me", "drop");
    namesake.purchase(&held.text("purchase")).is(404, "not_found");
    for token in ["guest_", "guest_a b", "guest_ä", &format!("guest_{}", "x".repeat(65))] {
        namesake.token = token.to_owned();
        namesake.take_pass().is(401, "token_invalid");
    }
}
