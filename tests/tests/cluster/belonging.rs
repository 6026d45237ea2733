//! Processes that do not belong to the cluster that they are pointed at, and people who wait while nothing can be decided.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use system_tests::cluster::Cluster;
use system_tests::{ISSUER, Request, doorbuster, eventually, open_sale, until};

#[test]
fn a_process_that_belongs_elsewhere_is_refused_at_its_start() {
    let mut cluster = Cluster::lock();
    let sale = open_sale("strangers", 5);
    cluster.create(&sale);
    let wrong = cluster.refused("wrong-redis", &["redis.password=wrong"]);
    wrong.refused_with(&["Redis refuses us", "redis.password"]);
    // The vault of this cluster under another name, and this cluster's name with another vault.
    let renamed = cluster.refused("renamed", &["cluster.name=autumn"]);
    renamed.refused_with(&["belongs to the cluster", "main", "autumn", "cluster.name"]);
    cluster.create_database("empty");
    let emptied = cluster.refused("emptied", &["postgres.database=empty"]);
    emptied.refused_with(&["doorbuster_main", "belongs to another vault", "postgres.database"]);
    // A folder in which a process that is alone has kept its own deployment.
    let alone = cluster.path("alone");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let public = format!("public.address={}", taken.local_addr().unwrap());
    let settings =
        ["--set", &public, "--set", "admin.address=127.0.0.1:0", "--set", "identity.dangerous_guest_tokens=true"];
    let made = doorbuster(&[&["serve", "--data", alone.to_str().unwrap()], &settings[..]].concat());
    made.refused_with(&[&taken.local_addr().unwrap().to_string()]);
    let moved = cluster.refused("alone", &[]);
    moved.refused_with(&["a process that is alone", "--data"]);
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "strangers");
    let won = anna.buy("boot", "key").is(201, "held");
    anna.cancel(&won.text("order")).is(200, "released");
    gate.flush_notes();
    cluster.judge("strangers", &[&notes]);
}

/// A gate remembers a customer's key; once they were erased at another gate it must not seal anything with it any more.
#[test]
fn an_erased_customer_is_forgotten_by_every_gate() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("forgotten", 50));
    let (gate, notes) = cluster.gate("gate-1");
    let (other, notes_of_other) = cluster.gate("gate-2");
    let mut anna = other.customer("anna", "forgotten");
    let body = json!({ "issuer": ISSUER, "subject": "anna" });
    let erased = gate.operate(Request::post("/admin/v1/customers/erase").json(&body));
    assert_eq!(erased.is(200, "").json()["erased"], true);
    let mut keys = 0..;
    let order = eventually("an order whose customer the vault knows", || {
        anna.take_pass().is(201, "");
        let order = anna.buy("boot", &format!("key-{}", keys.next()?)).is(201, "held").text("order");
        let handed = gate.operate(Request::get(&format!("/admin/v1/orders/{order}"))).json();
        if handed["customer"]["subject"] == "anna" {
            return Some(order);
        }
        anna.cancel(&order).is(200, "released");
        None
    });
    anna.cancel(&order).is(200, "released");
    [&gate, &other].iter().for_each(|gate| gate.flush_notes());
    cluster.judge("forgotten", &[&notes, &notes_of_other]);
}

/// Redis decides and nobody brings it to the chain: whoever operates, pays or gives back hears so soon, and what they asked for happens once.
#[test]
fn where_nothing_is_chained_nobody_waits_long() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("stuck", 5));
    let (gate, notes) = cluster.gate("gate-1");
    let (anna, ben) = (gate.customer("anna", "stuck"), gate.customer("ben", "stuck"));
    let orders = ["key-1", "key-2"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    ["relay-1", "relay-2"].iter().for_each(|relay| cluster.signal_node(relay, Signal::STOP));
    let start = Instant::now();
    gate.confirm(&orders[0]).is(503, "outcome_unknown");
    anna.cancel(&orders[1]).is(503, "outcome_unknown");
    gate.turn("stuck", "pause").is(503, "outcome_unknown");
    gate.turn("stuck", "takeover").is(503, "paused");
    ben.buy("boot", "key").is(503, "paused");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    ["relay-1", "relay-2"].iter().for_each(|relay| cluster.signal_node(relay, Signal::CONT));
    until("a sale that was paused once", || {
        cluster
            .sale_at("gate-1", "stuck")
            .is_some_and(|sale| sale["phase"] == "open" && sale["pause_reason"] == "operator")
    });
    gate.confirm(&orders[0]).is(200, "confirmed");
    anna.cancel(&orders[1]).is(200, "released");
    gate.turn("stuck", "resume").is(200, "");
    gate.flush_notes();
    cluster.judge("stuck", &[&notes]);
}
