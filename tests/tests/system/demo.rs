//! The demo as a program reads it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use system_tests::{Folder, doorbuster};

const KEYS: [&str; 15] = [
    "attempts",
    "audit",
    "latency_ms",
    "lost_replies",
    "orders",
    "paid",
    "records",
    "refusals",
    "refusals_per_s",
    "released",
    "shoppers",
    "unanswered",
    "void",
    "wins",
    "wins_per_s",
];

/// Runs the demo to its exit and gives its report.
fn demo(arguments: &[&str]) -> Value {
    doorbuster(&[&["demo", "--exit", "--json"], arguments].concat()).json()
}

#[test]
fn the_demo_ends_with_a_clean_audit_and_numbers_that_agree() {
    let folder = Folder::new();
    let data = folder.join("demo");
    let size = ["--shoppers", "2000", "--stock", "200", "--seconds", "3", "--data", data.to_str().unwrap()];
    let report = demo(&size);
    let keys: BTreeSet<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(KEYS), "{report}");
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"));
    assert_eq!((number("shoppers"), number("unanswered")), (2_000, 0));
    assert_eq!(number("orders"), number("wins"), "every win has its order, and every order its winner");
    assert_eq!(number("paid") + number("released"), number("orders"), "every hold has ended");
    assert!((1..=200).contains(&number("paid")), "nothing is paid for twice: {report}");
    assert!(number("wins") >= 200 && number("released") > 0 && number("lost_replies") > 0, "{report}");
    let refusals: u64 = report["refusals"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert!(number("attempts") >= refusals + number("wins"), "{report}");
    assert!(report["refusals"]["sold_out"].as_u64().unwrap() > 0, "{report}");
    if report["void"].is_null() {
        let latency = |key: &str| report["latency_ms"][key].as_f64().unwrap();
        assert!(latency("p50") <= latency("p99") && latency("p99") <= latency("max"), "{report}");
        assert!(report["wins_per_s"].as_f64().unwrap() > 0.0 && report["refusals_per_s"].is_f64(), "{report}");
    } else {
        assert!(
            report["latency_ms"].is_null() && report["wins_per_s"].is_null(),
            "a void run has no figures: {report}"
        );
    }
    let audit = &report["audit"];
    assert_eq!(audit["ok"], true, "{audit}");
    for promise in ["INV-1", "INV-2", "INV-3", "INV-4", "INV-5", "INV-8", "INV-10"] {
        let promise = &audit["promises"][promise];
        assert!(promise["checked"].as_u64().unwrap() > 0 && promise["violations"] == 0, "{audit}");
    }
    for promise in ["INV-6", "INV-7", "INV-9"] {
        assert_eq!(audit["promises"][promise]["status"], "not_applicable", "{audit}");
    }
    let notes = data.join("notes.jsonl");
    let again = doorbuster(&["audit", "--json", "--data", data.to_str().unwrap(), "--notes", notes.to_str().unwrap()]);
    assert_eq!(again.json()["ok"], true, "the folder proves itself again");
    assert!(fs::metadata(data.join("books.sqlite")).is_ok(), "a folder that was asked for stays");
}
