//! Clients' notes: true ones are clean, each kind of lie breaks its own promise.

use std::path::PathBuf;

use chain::Batch;
use data_encoding::BASE64URL_NOPAD;
use domain::Record;
use serde_json::{Value, json};

use crate::sketch::*;

/// Notes under construction.
struct Notes {
    lines: Vec<Value>,
    request: u64,
}

/// The form in which a purchase id leaves the engine.
fn public(who: u8) -> String {
    let bytes = [&[0xAA; 4][..], &[who; 12], &[0xBB; 8]].concat();
    format!("pu_{}", BASE64URL_NOPAD.encode(&bytes))
}

impl Notes {
    fn new() -> Self {
        Self { lines: Vec::new(), request: 0 }
    }

    fn sent(&mut self, who: u8, key: &str, quantity: u32, at: u64) {
        self.request += 1;
        self.lines.push(json!({
            "note": "sent", "at_ms": START + at, "request": self.request, "sale": NAME, "item": "boot-42",
            "customer": format!("shopper-{who}"), "key": key, "quantity": quantity,
        }));
    }

    /// The answer to the last request.
    fn answered(&mut self, at: u64, more: Value) {
        let mut line = json!({"note": "answered", "at_ms": START + at, "request": self.request, "status": 200});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.lines.push(line);
    }

    /// A purchase that ended as the receipt of its hold says.
    fn won(&mut self, sketch: &Sketch, who: u8, at: u64) {
        self.sent(who, &format!("k-{who}"), 1, at - 50);
        let (position, hash) = receipt(sketch, who);
        let hash = BASE64URL_NOPAD.encode(&hash);
        self.answered(
            at,
            json!({"code": "held", "purchase": public(who), "order": "or_x", "position": position, "record_hash": hash}),
        );
    }

    fn write(&self, folder: &Folder) -> PathBuf {
        let path = folder.0.join("notes.jsonl");
        let lines: Vec<String> = self.lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, lines.concat()).unwrap();
        path
    }

    fn audit(&self, sketch: &Sketch) -> audit::AuditReport {
        let folder = sketch.data();
        let notes = self.write(&folder);
        audit(&folder.0, Some(&notes))
    }

    fn finds(&self, sketch: &Sketch, claims: &[&str]) {
        let report = self.audit(sketch);
        assert_eq!(broken(&report.promises, &report.proof), claims, "{report}");
    }
}

/// Position and hash of a customer's first hold.
fn receipt(sketch: &Sketch, who: u8) -> (u64, [u8; 32]) {
    for encoded in sketch.encode() {
        let batch = Batch::parse(&encoded.bytes).unwrap();
        let mut running = batch.running_start();
        for record in batch.records() {
            let record = record.unwrap();
            running = record.hash(&running);
            if matches!(record.decode().unwrap(), Record::Held(held) if held.customer == customer(who)) {
                return (record.number, running);
            }
        }
    }
    panic!("no hold of {who}");
}

/// What honest clients of the good sale note.
fn honest(sketch: &Sketch) -> Notes {
    let mut notes = Notes::new();
    for (who, at) in [(10, 12_050), (11, 12_050), (12, 13_050), (13, 21_050)] {
        notes.won(sketch, who, at);
    }
    let again = json!({"code": "confirmed", "purchase": public(10)});
    notes.sent(10, "k-10", 1, 25_000);
    notes.answered(25_010, again);
    notes.sent(10, "k-10", 2, 25_100);
    notes.answered(25_110, json!({"code": "key_reused"}));
    notes.sent(14, "k-14", 1, 14_000);
    notes.answered(14_010, json!({"code": "sold_out", "position": 5}));
    notes.sent(15, "k-15", 1, 14_000);
    notes.lines.push(json!({"note": "lost", "at_ms": START + 14_100, "request": notes.request}));
    notes.sent(15, "k-15", 1, 14_200);
    notes.answered(14_210, json!({"code": "before_slot"}));
    notes.sent(16, "k-16", 1, 14_300);
    notes.answered(14_310, json!({"code": "pending", "purchase": public(16)}));
    notes.lines.push(json!({"note": "confirmed", "at_ms": START + 20_010, "purchase": public(10)}));
    notes.lines.push(json!({"note": "cancelled", "at_ms": START + 20_010, "purchase": public(11)}));
    notes.lines.push(json!({"note": "confirmed", "at_ms": START + 80_010, "purchase": public(12)}));
    notes
}

#[test]
fn honest_notes_are_clean_and_add_checks() {
    let sketch = Sketch::good();
    let folder = sketch.data();
    let without = audit(&folder.0, None);
    let with = honest(&sketch).audit(&sketch);
    assert!(with.ok, "{with}");
    for id in ["INV-4", "INV-5", "INV-10"] {
        assert!(with.promises[id].checked > without.promises[id].checked, "{id}");
    }
}

#[test]
fn notes_do_not_stand_in_for_books() {
    let sketch = Sketch::good();
    let folder = sketch.data();
    let notes = honest(&sketch).write(&folder);
    std::fs::remove_file(folder.0.join("books.sqlite")).unwrap();
    let report = audit(&folder.0, Some(&notes));
    assert_eq!(report.promises["INV-4"].status.name(), "kept");
    assert!(!report.ok && !report.books_compared, "{report}");
}

#[test]
fn a_win_that_the_chain_does_not_have_breaks_durable_answer() {
    let sketch = Sketch::good();
    let mut absent = honest(&sketch);
    absent.sent(17, "k-17", 1, 14_000);
    absent.answered(14_010, json!({"code": "held", "purchase": public(17), "position": 4}));
    let mut hash = honest(&sketch);
    hash.lines[1]["record_hash"] = json!(BASE64URL_NOPAD.encode(&[1; 32]));
    let mut position = honest(&sketch);
    position.lines[1]["position"] = json!(receipt(&sketch, 11).0);
    position.lines[1].as_object_mut().unwrap().remove("record_hash");
    let mut beyond = honest(&sketch);
    beyond.lines[1]["position"] = json!(1_000);
    let mut confirmed = honest(&sketch);
    confirmed.lines[3]["code"] = json!("confirmed");
    let mut released = honest(&sketch);
    released.lines[1]["code"] = json!("released");
    for notes in [absent, hash, position, beyond, confirmed, released] {
        notes.finds(&sketch, &["INV-4"]);
    }
}

#[test]
fn an_acknowledged_end_that_the_chain_does_not_have_breaks_durable_answer() {
    let sketch = Sketch::good();
    for (note, who) in [("confirmed", 11), ("cancelled", 10), ("cancelled", 12), ("confirmed", 77)] {
        let mut notes = honest(&sketch);
        notes.lines.push(json!({"note": note, "at_ms": START + 90_000, "purchase": public(who)}));
        notes.finds(&sketch, &["INV-4"]);
    }
}

#[test]
fn two_purchases_for_one_key_or_two_keys_for_one_purchase_break_idempotency() {
    let sketch = Sketch::good();
    let mut two = honest(&sketch);
    two.sent(10, "k-10", 1, 26_000);
    two.answered(26_010, json!({"code": "pending", "purchase": public(18)}));
    let mut shared = honest(&sketch);
    shared.sent(10, "other", 1, 26_000);
    shared.answered(26_010, json!({"code": "confirmed", "purchase": public(10)}));
    let mut foreign = honest(&sketch);
    foreign.sent(19, "k-19", 1, 26_000);
    foreign.answered(26_010, json!({"code": "confirmed", "purchase": public(10)}));
    for notes in [two, shared, foreign] {
        notes.finds(&sketch, &["INV-5"]);
    }
}

#[test]
fn another_body_that_was_granted_and_the_same_body_that_was_refused_break_idempotency() {
    let sketch = Sketch::good();
    let mut granted = honest(&sketch);
    granted.sent(10, "k-10", 2, 26_000);
    granted.answered(26_010, json!({"code": "confirmed", "purchase": public(10)}));
    let mut refused = honest(&sketch);
    refused.sent(10, "k-10", 1, 26_000);
    refused.answered(26_010, json!({"code": "key_reused"}));
    let mut never = honest(&sketch);
    never.sent(20, "k-20", 1, 26_000);
    never.answered(26_010, json!({"code": "key_reused"}));
    for notes in [granted, refused, never] {
        notes.finds(&sketch, &["INV-5"]);
    }
}

#[test]
fn sold_out_while_a_unit_is_free_breaks_honest_refusal() {
    let sketch = Sketch::good();
    let lie = |sent: u64, answered: u64, position: Option<u64>| {
        let mut notes = honest(&sketch);
        notes.sent(14, "k-14", 1, sent);
        notes.answered(answered, json!({"code": "sold_out", "position": position}));
        notes
    };
    // Before the last boot is taken at 13,000; resting on a record with free boots; resting on nothing yet; after settlement
    // would be free is covered by the second: between 20,000 and 21,000 the cancelled boot is free, but not for long enough.
    lie(12_600, 12_700, None).finds(&sketch, &["INV-10"]);
    lie(14_000, 14_010, Some(4)).finds(&sketch, &["INV-10"]);
    lie(14_000, 14_010, Some(21)).finds(&sketch, &["INV-10"]);
    lie(20_500, 20_600, Some(5)).finds(&sketch, &[]);
    lie(20_500, 20_600, Some(7)).finds(&sketch, &["INV-10"]);
    lie(79_900, 79_950, Some(20)).finds(&sketch, &[]);
    let mut unknown = lie(14_000, 14_010, None);
    let last = unknown.lines.len() - 2;
    unknown.lines[last]["item"] = json!("sandal");
    unknown.finds(&sketch, &["INV-10"]);
}

#[test]
fn a_unit_that_came_back_and_stayed_free_beyond_the_delay_makes_sold_out_a_lie() {
    let mut sketch = Sketch::good();
    sketch.batches.truncate(5);
    let mut notes = Notes::new();
    notes.sent(14, "k-14", 1, 22_000);
    notes.answered(22_010, json!({"code": "sold_out", "position": 5}));
    notes.finds(&sketch, &["INV-10"]);
    let mut notes = Notes::new();
    notes.sent(14, "k-14", 1, 21_999);
    notes.answered(22_010, json!({"code": "sold_out", "position": 5}));
    notes.finds(&sketch, &[]);
}

#[test]
fn notes_that_cannot_be_read_are_refused_with_their_line_and_a_torn_last_line_is_not() {
    let sketch = Sketch::good();
    let folder = sketch.data();
    let path = honest(&sketch).write(&folder);
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}{{\"note\":\"sent\",\"at_")).unwrap();
    assert!(audit(&folder.0, Some(&path)).ok);
    for bad in [
        "{",
        r#"{"note":"dreamt","at_ms":1}"#,
        r#"{"note":"sent","at_ms":1,"request":1,"sale":"s","item":"i","customer":"c"}"#,
        r#"{"note":"answered","at_ms":1,"request":999,"code":"held"}"#,
        r#"{"note":"answered","at_ms":1,"request":1,"code":"held"}"#,
        r#"{"note":"confirmed","at_ms":1,"purchase":"pu_short"}"#,
    ] {
        std::fs::write(&path, format!("{good}{bad}\n")).unwrap();
        let error = audit::audit(&folder.0, None, Some(&path), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(&format!("line {}", good.lines().count() + 1)), "{bad}: {error}");
    }
}

#[test]
fn the_examples_in_the_document_can_be_read() {
    let folder = Sketch::good().data();
    let document = include_str!("../../../../docs/notes-format.md");
    let lines: Vec<String> =
        document.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect();
    assert_eq!(lines.len(), 5);
    let path = folder.0.join("notes.jsonl");
    std::fs::write(&path, lines.concat()).unwrap();
    let report = audit(&folder.0, Some(&path));
    assert_eq!(report.promises["INV-4"].violations, 1, "only the record hash is another sale's: {report}");
}
