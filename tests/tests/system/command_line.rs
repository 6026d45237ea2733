//! The commands, as somebody types them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use system_tests::{Ended, Folder, Request, Server, doorbuster, doorbuster_in, open_sale};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A command for this server's data folder.
fn for_data(server: &Server, arguments: &[&str]) -> Ended {
    doorbuster(&[arguments, &["--data", server.data().to_str().unwrap()]].concat())
}

#[test]
fn the_sale_of_the_example_is_created_listed_paused_resumed_and_closed() {
    let server = Server::start();
    let nothing = for_data(&server, &["sale", "list"]);
    assert!(nothing.out.contains("doorbuster sale create FILE"), "{nothing:?}");
    let example = repository().join("examples/sale.toml");
    let created = for_data(&server, &["sale", "create", example.to_str().unwrap(), "--json"]).json();
    assert_eq!((&created["sale"], &created["items"][1]["item"]), (&"winter-drop".into(), &"sock".into()));
    assert_eq!(created["counts"][0]["free"], 500);
    for_data(&server, &["sale", "create", example.to_str().unwrap()]).refused_with(&["sale_exists"]);

    let applied = for_data(&server, &["sale", "apply", example.to_str().unwrap(), "--json"]).json();
    assert_eq!(applied["sale_id"], created["sale_id"]);
    let folder = Folder::new();
    let other = folder.join("other.toml");
    fs::write(&other, fs::read_to_string(&example).unwrap().replace("hold_seconds = 600", "hold_seconds = 60"))
        .unwrap();
    let refused = for_data(&server, &["sale", "apply", other.to_str().unwrap()]);
    refused.refused_with(&["hold_seconds: 600 in the sale that exists, 60 here", "sale_exists"]);
    let rehearsal = folder.join("rehearsal.json");
    let definition = domain::SaleDefinition { test: true, ..open_sale("rehearsal", 3) };
    fs::write(&rehearsal, serde_json::to_string(&definition).unwrap()).unwrap();
    let applied = for_data(&server, &["sale", "apply", rehearsal.to_str().unwrap()]);
    assert!(applied.out.starts_with("rehearsal  TEST  open  "), "{applied:?}");

    let list = for_data(&server, &["sale", "list"]);
    assert!(list.out.starts_with("winter-drop  ") && list.out.contains("boot-42  500 units: 500 free"), "{list:?}");
    assert_eq!(for_data(&server, &["sale", "list", "--json"]).json()[0]["sale"], "winter-drop");
    let turned = |action: &str| for_data(&server, &["sale", action, "winter-drop", "--json"]).json();
    assert_eq!(turned("pause")["pause_reason"], "operator");
    assert!(for_data(&server, &["sale", "list"]).out.contains("paused (operator)"));
    assert_eq!(turned("resume")["pause_reason"], Value::Null);
    assert_eq!(turned("close")["phase"], "closed");
    assert_eq!(turned("settle")["phase"], "settled");
    for_data(&server, &["sale", "pause", "winter-drop"]).refused_with(&["sale_phase_wrong"]);
    for_data(&server, &["sale", "pause", "nothing"]).refused_with(&["not_found"]);
}

#[test]
fn sale_files_that_are_wrong_are_refused_with_their_name_and_the_rule() {
    let server = Server::start();
    let folder = Folder::new();
    let example = fs::read_to_string(repository().join("examples/sale.toml")).unwrap();
    let table = [
        ("unknown.toml", example.replace("title = \"Winter drop\"", "titel = \"Winter drop\""), "titel"),
        ("order.toml", example.replace("2026-11-27T22:00:00Z", "2026-11-27T19:30:00Z"), "closes_at"),
        ("name.toml", example.replace("winter-drop", "Winter Drop"), "sale: use 1 to 40"),
        ("time.toml", example.replace("2026-11-27T20:00:00Z", "tonight"), "tonight"),
        ("broken.toml", "sale = ".to_owned(), "is not a sale"),
        ("broken.json", "{".to_owned(), "is not a sale"),
    ];
    for (name, text, word) in table {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        for_data(&server, &["sale", "create", file.to_str().unwrap()]).refused_with(&[name, word]);
    }
    for_data(&server, &["sale", "create", "/nowhere.toml"]).refused_with(&["/nowhere.toml"]);
    let json = folder.join("good.json");
    fs::write(&json, serde_json::to_string(&open_sale("json-sale", 3)).unwrap()).unwrap();
    assert_eq!(for_data(&server, &["sale", "create", json.to_str().unwrap(), "--json"]).json()["sale"], "json-sale");
}

#[test]
fn a_token_is_made_listed_used_and_revoked() {
    let server = Server::start();
    let made = for_data(&server, &["token", "create", "--label", "Grafana", "--role", "viewer"]);
    let token = made.out.trim();
    assert!(token.starts_with("da_") && made.error.contains("store it now"), "{made:?}");
    Request::get("/metrics").bearer(token).send(server.admin()).is(200, "");
    let list = for_data(&server, &["token", "list"]);
    assert!(list.out.contains("  viewer  made ") && list.out.contains("expires never  first"), "{list:?}");
    assert!(!list.out.contains("da_"), "{list:?}");
    let listed = for_data(&server, &["token", "list", "--json"]).json();
    let id = |label: &str| {
        let found = listed.as_array().unwrap().iter().find(|token| token["label"] == label);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    assert!(for_data(&server, &["token", "revoke", &id("Grafana")]).out.starts_with("revoked: "));
    Request::get("/metrics").bearer(token).send(server.admin()).is(401, "token_invalid");
    for_data(&server, &["token", "revoke", &id("first")]).refused_with(&["create another", "last_owner"]);
    for_data(&server, &["token", "create", "--label", "x", "--role", "king"]).refused_with(&["viewer, operator"]);
    let short = ["token", "create", "--label", "till", "--role", "cashier", "--expires-in-seconds", "60", "--json"];
    assert_eq!(for_data(&server, &short).json()["role"], "cashier");
}

#[test]
fn commands_without_a_server_say_how_to_start_one() {
    let folder = Folder::new();
    let nowhere = folder.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    doorbuster(&["sale", "list", "--data", nowhere]).refused_with(&["no server has run here", "doorbuster serve"]);
    doorbuster(&["audit", "--data", nowhere]).refused_with(&["holds no sales"]);
    let mut server = Server::start();
    server.kill();
    for_data(&server, &["sale", "list"]).refused_with(&["is it running?"]);
    server.start_again();
}

#[test]
fn the_proofs_work_beside_a_running_server_and_see_a_changed_byte() {
    let server = Server::start();
    server.create(&open_sale("drop", 2));
    server.create(&open_sale("other", 2));
    let anna = server.customer("anna", "drop");
    let held = anna.buy("boot", "a").is(201, "held");
    server.confirm(&held.text("order")).is(200, "confirmed");
    anna.buy("boot", "b").is(201, "held");
    anna.buy("boot", "c").is(409, "sold_out");
    server.drained("drop");
    let notes = server.notes();
    let audit = for_data(&server, &["audit", "--sale", "drop", "--json", "--notes", notes.to_str().unwrap()]).json();
    assert_eq!((&audit["ok"], &audit["promises"]["INV-1"]["status"]), (&true.into(), &"kept".into()), "{audit}");
    let words = for_data(&server, &["audit", "--sale", "drop", "--notes", notes.to_str().unwrap()]);
    assert!(words.out.contains("audit: every promise kept"), "{words:?}");
    for_data(&server, &["audit", "--sale", "nothing"]).refused_with(&["there is no sale", "drop, other"]);

    let folder = Folder::new();
    let file = folder.join("drop.chain");
    let out = file.to_str().unwrap();
    for_data(&server, &["log", "export", "--out", out]).refused_with(&["drop"]);
    let summary = for_data(&server, &["log", "export", "--sale", "drop", "--out", out, "--json"]).json();
    assert_eq!(summary["sale"], "drop");
    let key = server.ask(&Request::get("/v1/sales/drop")).text("signing_key");
    let receipt = folder.join("receipt.json");
    fs::write(&receipt, held.body).unwrap();
    let receipt = receipt.to_str().unwrap();
    let proof = doorbuster(&["verify", out, "--key", &key, "--receipt", receipt, "--json"]).json();
    assert_eq!((&proof["ok"], &proof["proof"]["receipts"]["checked"]), (&true.into(), &1.into()), "{proof}");
    assert!(doorbuster(&["verify", out]).out.contains("verify: proven"));
    let other = server.ask(&Request::get("/v1/sales/other")).text("signing_key");
    doorbuster(&["verify", out, "--key", &other]).refused_with(&["not by the one given"]);
    doorbuster(&["verify", out, "--key", "short"]).refused_with(&["--key", "43 characters"]);

    let bytes = fs::read(&file).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for number in 0..42 {
        let at = [0, bytes.len() - 1].get(number).copied().unwrap_or_else(|| rng.usize(0..bytes.len()));
        let mut changed = bytes.clone();
        changed[at] ^= 1 << rng.u8(0..8);
        fs::write(&file, changed).unwrap();
        let ended = doorbuster(&["verify", out, "--key", &key]);
        assert_eq!(ended.code, Some(1), "byte {at} of {} was changed: {ended:?}", bytes.len());
    }
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(doorbuster(&["verify", out]).code, Some(1));
}

#[test]
fn the_configuration_is_printed_with_its_words_and_without_its_secrets() {
    let secret = "identity.hs256_secrets=a-secret-that-nobody-should-ever-read-anywhere";
    let printed = doorbuster(&["config", "--set", secret, "--set", "public.threads=3"]);
    assert_eq!(printed.code, Some(0));
    let manual = fs::read_to_string(repository().join("config/default.toml")).unwrap();
    assert!(printed.out.starts_with(manual.trim_end()) && printed.out.contains("threads = 3"), "{}", printed.out);
    assert!(!printed.out.contains("nobody-should") && printed.out.contains("(hidden)"));
    let json = doorbuster(&["config", "--set", secret, "--json"]).json();
    assert_eq!(json["identity"]["hs256_secrets"], serde_json::json!(["(hidden)"]));
    let keys = manual.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    let in_force: usize = json.as_object().unwrap().values().map(|table| table.as_object().unwrap().len()).sum();
    assert_eq!(in_force, keys, "every key has its words");
}

#[test]
fn preflight_says_what_it_found_and_what_it_wants() {
    let folder = Folder::new();
    let data = folder.join("data");
    let ended = doorbuster(&["preflight", "--json", "--data", data.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "nobody could sign in");
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    let expected =
        ["data folder", "file system", "fdatasync", "free space", "open files", "clock", "identity", "pages"];
    assert_eq!(names, expected);
    assert_eq!((&report["ok"], &checks[0]["ok"], &checks[6]["ok"]), (&false.into(), &true.into(), &false.into()));
    assert!(checks.iter().all(|check| !check["found"].as_str().unwrap().is_empty()));
    let words = doorbuster(&["preflight", "--data", "/proc/nothing"]);
    assert!(words.out.contains("REFUSED data folder") && words.out.contains("Not fit for a sale"), "{words:?}");
}

#[test]
fn verify_tells_an_answer_that_was_changed_from_the_one_that_was_given() {
    let server = Server::start();
    server.create(&open_sale("drop", 5));
    let answer = server.customer("anna", "drop").buy("boot", "key").is(201, "held").json();
    let folder = Folder::new();
    let export = folder.join("drop.chain");
    for_data(&server, &["log", "export", "--out", export.to_str().unwrap()]);
    let verified = |answer: &Value| {
        let file = folder.join("answer.json");
        fs::write(&file, answer.to_string()).unwrap();
        doorbuster(&["verify", export.to_str().unwrap(), "--receipt", file.to_str().unwrap()])
    };
    assert_eq!(verified(&answer).code, Some(0), "{:?}", verified(&answer));
    let other = answer["purchase"].as_str().unwrap().replace(|letter: char| letter.is_ascii_digit(), "x");
    for (field, value) in [
        ("/quantity", 5.into()),
        ("/price/amount", 1.into()),
        ("/price/currency", "USD".into()),
        ("/units/0/number", 4.into()),
        ("/units/0/generation", 1.into()),
        ("/item", "sock".into()),
        ("/sale", "other".into()),
        ("/purchase", Value::from(format!("{}AAAA{}", &other[..12], &other[16..]))),
        ("/receipt/position", 2.into()),
    ] {
        let mut changed = answer.clone();
        *changed.pointer_mut(field).unwrap() = value;
        let said = verified(&changed);
        assert_eq!(said.code, Some(1), "{field}: {said:?}");
        assert!(said.out.contains("verify: FAILED"), "{field}: {said:?}");
    }
}

#[test]
fn secrets_from_the_environment_are_text_and_no_message_shows_them() {
    const NAME: &str = "DOORBUSTER_IDENTITY__HS256_SECRETS";
    let shop = ["--set", "identity.issuer=shop", "--set", "identity.audience=us"];
    for (secrets, count) in [
        ("1234567890123456789012345678901234567890", 1),
        ("1e400,true,[1],{\"a\":1},0x00000000000000000000000000000000", 5),
        ("", 0),
    ] {
        let json = doorbuster_in(&[(NAME, secrets)], &[&["config", "--json"][..], &shop].concat()).json();
        assert_eq!(json["identity"]["hs256_secrets"].as_array().unwrap().len(), count, "{secrets}");
        assert!(secrets.is_empty() || !json.to_string().contains(&secrets[..4]), "{json}");
    }
    // Other variables are numbers where numbers are wanted.
    let wrong = doorbuster_in(&[("DOORBUSTER_PUBLIC__THREADS", "many"), (NAME, "the-secret")], &["config"]);
    wrong.refused_with(&["threads"]);
    assert!(!wrong.error.contains("the-secret"), "{wrong:?}");
}
