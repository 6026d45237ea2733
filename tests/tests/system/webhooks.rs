//! Webhooks of the real server: what a shop is called with, through kill -9, the loss of the file, and the example of a consumer.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use services::receiver::{Answer, Received, Receiver};
use system_tests::{Request, Server, doorbuster, open_sale, until};

const HERE: &str = "webhooks.dangerous_webhook_targets=true";

fn add(server: &Server, body: &Value) -> Value {
    server.operate(Request::post("/admin/v1/webhooks").json(body)).is(201, "").json()
}

fn state(server: &Server, id: &Value) -> Value {
    let all = server.operate(Request::get("/admin/v1/webhooks")).json();
    all.as_array().unwrap().iter().find(|webhook| webhook["id"] == *id).unwrap().clone()
}

fn is_told(server: &Server, id: &Value) -> bool {
    let state = state(server, id);
    state["lag"] == 0 && state["waiting"] == 0
}

fn kinds_of(calls: &[Received], order: &str) -> Vec<String> {
    let of_order = calls.iter().map(Received::json).filter(|event| event["data"]["order"] == order);
    of_order.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_shop_is_called_with_what_the_feed_tells() {
    let server = Server::start_with(&[HERE]);
    server.create(&open_sale("drop", 9));
    let shop = Receiver::start(|_| Answer::Status(204)).unwrap();
    let webhook = add(&server, &json!({ "url": shop.url(), "events": ["held", "confirmed", "released"] }));
    assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"));
    let anna = server.customer("anna", "drop");
    let [paid, back, shops] = ["a", "b", "c"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    server.confirm(&paid).is(200, "confirmed");
    anna.cancel(&back).is(200, "released");
    server.operate(Request::post(&format!("/admin/v1/orders/{shops}/cancel"))).is(200, "released");
    until("six calls", || shop.calls().len() == 6);
    let calls = shop.calls();
    assert_eq!(kinds_of(&calls, &paid), ["held", "confirmed"]);
    assert_eq!(kinds_of(&calls, &back), ["held", "released"]);
    assert_eq!(kinds_of(&calls, &shops), ["held", "released"]);
    let feed = server.operate(Request::get("/admin/v1/feed?sale=drop")).json();
    for event in feed["events"].as_array().unwrap().iter().filter(|event| event["type"] != "sale_opened") {
        let call = calls.iter().find(|call| call.header("webhook-id") == event["id"]).unwrap();
        assert_eq!(call.json(), *event);
    }
    until("the notes", || is_told(&server, &webhook["id"]));
    assert_eq!(state(&server, &webhook["id"])["last_status"], 204);
    assert_eq!(state(&server, &webhook["id"])["secret"], Value::Null, "a secret is told once");
}

#[test]
fn killed_between_a_delivery_and_its_note_the_server_delivers_under_the_same_id() {
    let mut server = Server::start_with(&[HERE]);
    server.create(&open_sale("drop", 9));
    let answers = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = Arc::clone(&answers);
    let shop = Receiver::start(move |_| {
        let answers = gate.1.wait_while(gate.0.lock().unwrap(), |answers| !*answers).unwrap();
        drop(answers);
        Answer::Status(200)
    });
    let shop = shop.unwrap();
    let webhook = add(&server, &json!({ "url": shop.url(), "sales": ["drop"], "events": ["held"] }));
    server.customer("anna", "drop").buy("boot", "a").is(201, "held");
    until("the delivery", || shop.calls().len() == 1);
    server.kill();
    *answers.0.lock().unwrap() = true;
    answers.1.notify_all();
    server.start_again();
    until("the second delivery", || shop.calls().len() == 2);
    let calls = shop.calls();
    assert_eq!(calls[0].header("webhook-id"), calls[1].header("webhook-id"));
    assert_eq!(calls[0].body, calls[1].body);
    until("the note", || is_told(&server, &webhook["id"]));
    server.kill();
    server.start_again();
    server.customer("ben", "drop").buy("boot", "a").is(201, "held");
    until("the next event", || shop.calls().len() == 3);
    assert_ne!(
        shop.calls()[2].header("webhook-id"),
        calls[0].header("webhook-id"),
        "what was noted does not come again"
    );
}

#[test]
fn without_its_file_the_server_tells_the_same_events_when_asked() {
    let mut server = Server::start_with(&[HERE]);
    server.create(&open_sale("drop", 9));
    let shop = Receiver::start(|_| Answer::Status(200)).unwrap();
    let webhook = add(&server, &json!({ "url": shop.url() }));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "a").is(201, "held").text("order");
    server.confirm(&order).is(200, "confirmed");
    until("the calls", || kinds_of(&shop.calls(), &order) == ["held", "confirmed"]);
    until("the notes", || is_told(&server, &webhook["id"]));
    let before = shop.calls().len();
    server.kill();
    for ending in ["", "-wal", "-shm"] {
        // Not every one of them has to be there.
        let _ = fs::remove_file(server.data().join(format!("webhooks.sqlite{ending}")));
    }
    server.start_again();
    assert_eq!(server.operate(Request::get("/admin/v1/webhooks")).json(), json!([]));
    let again = add(&server, &json!({ "url": shop.url() }));
    let replay = format!("/admin/v1/webhooks/{}/replay", again["id"].as_str().unwrap());
    server.operate(Request::post(&replay).json(&json!({ "since": "2020-01-01T00:00:00Z" }))).is(200, "");
    until("the calls again", || kinds_of(&shop.calls()[before..], &order) == ["held", "confirmed"]);
    let id_of = |calls: &[Received], kind: &str| {
        let call = calls.iter().find(|call| call.json()["type"] == kind).unwrap();
        call.header("webhook-id").to_owned()
    };
    let calls = shop.calls();
    for kind in ["held", "confirmed"] {
        assert_eq!(id_of(&calls[..before], kind), id_of(&calls[before..], kind), "{kind}");
    }
}

#[test]
fn a_server_as_it_comes_calls_nobody_inside() {
    let server = Server::start();
    let shop = Receiver::start(|_| Answer::Status(200)).unwrap();
    let refused = |url: &str| {
        let reply =
            server.operate(Request::post("/admin/v1/webhooks").json(&json!({ "url": url }))).is(400, "malformed");
        reply.text("detail")
    };
    assert!(refused(&shop.url()).contains("only https:// is"));
    for url in [
        "https://127.0.0.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://localhost:8443/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
    ] {
        assert!(refused(url).contains("not an address of the internet"), "{url}");
    }
    assert!(refused("https://shop.example:6379/").contains("port 6379"));
    let unknown = json!({ "url": "https://shop.invalid/", "events": ["sold"] });
    server.operate(Request::post("/admin/v1/webhooks").json(&unknown)).is(400, "malformed");
    server.operate(Request::post("/admin/v1/webhooks/wh_x/pause")).is(404, "not_found");
    server.operate(Request::new("DELETE", "/admin/v1/webhooks/wh_x")).is(404, "not_found");
    Request::get("/admin/v1/webhooks").send(server.admin()).is(401, "token_invalid");
    assert!(shop.calls().is_empty());
}

#[test]
fn webhooks_are_managed_from_the_command_line() {
    let server = Server::start_with(&[HERE]);
    server.create(&open_sale("drop", 9));
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let shop = Receiver::start(move |_| Answer::Status(if is_broken.load(Ordering::SeqCst) { 500 } else { 200 }));
    let shop = shop.unwrap();
    let data = server.data().to_str().unwrap();
    let run = |arguments: &[&str]| {
        let arguments: Vec<_> = ["webhook"].iter().chain(arguments).chain(&["--data", data]).copied().collect();
        doorbuster(&arguments)
    };
    assert!(run(&["list"]).out.contains("no webhooks yet"));
    let added = run(&["add", &shop.url(), "--sale", "drop", "--event", "held", "--json"]).json();
    let id = added["id"].as_str().unwrap();
    server.customer("anna", "drop").buy("boot", "a").is(201, "held");
    until("the failure", || run(&["list"]).out.contains("1 events wait, 0 parked; last call failed: answered 500"));
    let rotated = run(&["rotate", id]);
    assert!(rotated.out.contains("secret whsec_") && !rotated.out.contains(added["secret"].as_str().unwrap()));
    broken.store(false, Ordering::SeqCst);
    assert!(run(&["pause", id]).out.contains("paused (operator)"));
    assert!(!run(&["resume", id]).out.contains("paused"));
    until("the delivery", || run(&["list"]).out.contains("0 records behind, 0 events wait"));
    let calls = shop.calls().len();
    assert_eq!(run(&["replay", id, "--since", "2020-01-01T00:00:00Z"]).code, Some(0));
    until("the replay", || shop.calls().len() > calls);
    run(&["replay", id, "--since", "yesterday"]).refused_with(&["RFC 3339", "malformed"]);
    assert!(run(&["remove", id]).out.contains("is gone"));
    run(&["remove", id]).refused_with(&["no such webhook", "not_found"]);
    run(&["add", "https://10.0.0.1/"]).refused_with(&["not an address of the internet"]);
}

/// The example's process; ended with the test.
struct Consumer(Child);

impl Drop for Consumer {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Consumer {
    fn start(port: u16, secret: &str, database: &Path, output: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/webhook_consumer.py");
        let output = fs::File::options().create(true).append(true).open(output).unwrap();
        let mut command = Command::new("python3");
        command.arg(script).arg(port.to_string()).arg(database).env("WEBHOOK_SECRET", secret);
        let consumer = Self(command.stdout(output).spawn().expect("python3 runs the example"));
        until("the example to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        consumer
    }
}

#[test]
fn the_example_of_a_consumer_takes_every_event_once_and_only_from_us() {
    let server = Server::start_with(&[HERE]);
    server.create(&open_sale("drop", 99));
    // A port that was free a moment ago.
    let port = Receiver::start(|_| Answer::Status(200)).unwrap().address().port();
    let webhook = add(&server, &json!({ "url": format!("http://127.0.0.1:{port}/"), "events": ["held", "confirmed"] }));
    let (secret, id) = (webhook["secret"].as_str().unwrap(), webhook["id"].as_str().unwrap());
    let (database, output) = (server.data().join("../events.sqlite"), server.data().join("../events.txt"));
    let consumer = Consumer::start(port, secret, &database, &output);
    let anna = server.customer("anna", "drop");
    for key in 0..10 {
        let order = anna.buy("boot", &key.to_string()).is(201, "held").text("order");
        server.confirm(&order).is(200, "confirmed");
    }
    until("all events", || fs::read_to_string(&output).unwrap().lines().count() == 20);
    until("their notes", || is_told(&server, &webhook["id"]));
    let printed = fs::read_to_string(&output).unwrap();
    assert_eq!(printed.lines().count(), 20, "{printed}");
    // Everything again, to a consumer that was started again: it has seen it all.
    drop(consumer);
    let _consumer = Consumer::start(port, secret, &database, &output);
    let replay = Request::post(&format!("/admin/v1/webhooks/{id}/replay"));
    server.operate(replay.json(&json!({ "since": "2020-01-01T00:00:00Z" }))).is(200, "");
    until("all events again", || {
        is_told(&server, &webhook["id"]) && state(&server, &webhook["id"])["last_status"] == 204
    });
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
    let forged = Request::post("/")
        .json(&json!({ "id": "evt_1", "type": "confirmed" }))
        .header("webhook-id", "evt_1")
        .header("webhook-timestamp", "1614265330")
        .header("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert_eq!(forged.send(([127, 0, 0, 1], port).into()).status, 401);
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
}
