//! One good sale is clean; each doctored record is reported under exactly its own promise.

use domain::record::{Counts, ReleaseReason};
use domain::{ChainTime, PurchaseNumber, Record};

use crate::log;
use crate::sketch::*;

/// Changes the first hold of the batch at that time.
fn hold_at(sketch: &mut Sketch, time: u64) -> &mut domain::record::Held {
    let records = sketch.at(time).iter_mut();
    let mut holds = records.filter_map(|record| if let Record::Held(held) = record { Some(held) } else { None });
    holds.next().expect("a hold in that batch")
}

#[test]
fn a_good_sale_is_clean_and_every_applicable_promise_was_checked() {
    let folder = Sketch::good().data();
    let report = audit(&folder.0, None);
    assert!(report.ok, "{report}");
    for (id, promise) in &report.promises {
        let expected = if ["INV-6", "INV-7", "INV-9"].contains(&id.as_str()) { "not_applicable" } else { "kept" };
        assert_eq!(promise.status.name(), expected, "{id}\n{report}");
        assert_eq!(promise.checked > 0, expected == "kept", "{id}");
    }
    let sale = &report.sales[0];
    assert_eq!((sale.records, sale.batches, sale.orders, sale.paid, sale.released), (21, 15, 4, 3, 1));
    assert_eq!(sale.books_lag, 0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["ok"], true);
    assert!(json["promises"]["INV-1"]["checked"].as_u64().unwrap() > 0);
    assert_eq!(json["promises"]["INV-10"]["violations"], 0);
    assert_eq!(json["promises"]["INV-6"]["status"], "not_applicable");
    assert!(report.to_string().ends_with("audit: every promise kept"));
}

#[test]
fn a_good_sale_without_its_sums_is_clean_too() {
    let mut sketch = Sketch::without_sums();
    sketch.batches.pop();
    audit_finds(&sketch, &[]);
}

#[test]
fn a_sale_without_a_hold_has_nothing_to_check_and_fails() {
    let mut sketch = Sketch::good();
    sketch.batches.truncate(2);
    let report = audit(&sketch.data().0, None);
    assert!(!report.ok);
    let limit = &report.promises["INV-3"];
    assert_eq!((limit.status.name(), limit.evidence[0].as_str()), ("nothing_checked", "nothing to check"));
}

#[test]
fn wrong_counts_in_a_digest_break_conservation() {
    let mut sketch = Sketch::good();
    if let Record::Digest { counts, .. } = &mut sketch.at(30_000)[0] {
        counts[0].free += 1;
    }
    audit_finds(&sketch, &["INV-1"]);
}

#[test]
fn a_wrong_state_hash_in_a_digest_breaks_conservation() {
    let mut sketch = Sketch::good();
    if let Record::Digest { state, .. } = &mut sketch.at(30_000)[0] {
        state[0] ^= 1;
    }
    audit_finds(&sketch, &["INV-1"]);
}

#[test]
fn wrong_counts_at_settlement_break_conservation() {
    let mut sketch = Sketch::good();
    *sketch.at(600_100) = vec![Record::Settled(vec![Counts::default(); 2])];
    audit_finds(&sketch, &["INV-1"]);
}

#[test]
fn a_unit_from_nowhere_breaks_conservation() {
    let mut sketch = Sketch::without_sums();
    hold_at(&mut sketch, 21_000).units = [unit(3, 0)].as_slice().into();
    sketch.batches.truncate(6);
    // The honest projection counts the unit as taken, so the books' inventory differs as well: the same promise.
    audit_finds(&sketch, &["INV-1"]);
}

#[test]
fn a_unit_held_twice_breaks_single_holder() {
    let mut sketch = Sketch::without_sums();
    hold_at(&mut sketch, 13_000).units = [unit(1, 0)].as_slice().into();
    sketch.batches.truncate(4);
    let report = audit(&sketch.data().0, None);
    assert_eq!(report.promises["INV-2"].violations, 1, "{report}");
    assert!(report.promises["INV-2"].evidence[0].contains("unit 1.0"), "{report}");
}

#[test]
fn a_generation_before_its_release_breaks_single_holder() {
    let mut sketch = Sketch::without_sums();
    sketch.at(20_000).pop();
    sketch.batches.truncate(6);
    let file = Folder::new();
    let report = verify_sketch(&sketch, &file);
    assert_eq!(broken(&report.promises, &report.proof), ["INV-2"], "{report}");
}

#[test]
fn a_hold_that_ends_twice_breaks_single_holder() {
    let mut sketch = Sketch::without_sums();
    sketch.insert(79_600, vec![released(2, 12, ReleaseReason::CancelledByShop)]);
    let report = verify_sketch(&sketch, &Folder::new());
    assert!(report.promises["INV-2"].violations == 1, "{report}");
}

#[test]
fn a_release_under_another_purchase_id_breaks_single_holder() {
    let mut sketch = Sketch::without_sums();
    sketch.batches.truncate(4);
    sketch.insert(14_000, vec![released(2, 11, ReleaseReason::CancelledByShop)]);
    let report = verify_sketch(&sketch, &Folder::new());
    assert_eq!(broken(&report.promises, &report.proof), ["INV-2"], "{report}");
}

#[test]
fn one_unit_more_than_the_items_limit_breaks_the_limit() {
    let mut sketch = Sketch::without_sums();
    hold_at(&mut sketch, 12_000).units = [unit(0, 0), unit(1, 0), unit(2, 0)].as_slice().into();
    hold_at(&mut sketch, 12_000).price *= 3;
    sketch.at(12_000).pop();
    sketch.batches.truncate(3);
    audit_finds(&sketch, &["INV-3"]);
}

#[test]
fn one_unit_more_than_the_sales_limit_breaks_the_limit() {
    let mut sketch = Sketch::without_sums();
    sketch.batches.truncate(2);
    let mut first = held(0, 10, 0, &[unit(0, 0), unit(1, 0)], 12_000);
    let mut second = held(1, 10, 1, &[unit(0, 0), unit(1, 0)], 12_000);
    (first.key_hash, second.key_hash) = ([1; 16], [2; 16]);
    second.purchase = purchase(11);
    sketch.insert(12_000, vec![Record::Held(first), Record::Held(second)]);
    audit_finds(&sketch, &["INV-3"]);
}

#[test]
fn a_late_payment_beyond_the_limit_breaks_the_limit() {
    let mut sketch = Sketch::without_sums();
    sketch.batches.truncate(2);
    let hold = |number, who, units: &[_], at| {
        let mut held = held(number, who, 0, units, at);
        held.customer = customer(10);
        held.slot_offset = crate::sketch::held(0, 10, 0, &[], 0).slot_offset;
        Record::Held(held)
    };
    sketch.insert(12_000, vec![hold(0, 10, &[unit(0, 0)], 12_000)]);
    sketch.insert(12_100, vec![released(0, 10, ReleaseReason::CancelledByShop)]);
    sketch.insert(12_200, vec![hold(1, 11, &[unit(1, 0), unit(2, 0)], 12_200)]);
    let units = vec![unit(0, 1)];
    sketch.insert(
        12_300,
        vec![Record::Retaken { number: PurchaseNumber(0), purchase: purchase(10), units: units.into() }],
    );
    audit_finds(&sketch, &["INV-3"]);
}

#[test]
fn a_second_grant_of_one_purchase_or_key_breaks_idempotency() {
    for same_id in [true, false] {
        let mut sketch = Sketch::without_sums();
        sketch.batches.truncate(3);
        let mut again = held(2, 10, 0, &[unit(2, 0)], 13_000);
        if !same_id {
            again.purchase = purchase(99);
        }
        sketch.insert(13_000, vec![Record::Held(again)]);
        audit_finds(&sketch, &["INV-5"]);
    }
}

#[test]
fn a_hold_outside_the_window_or_in_a_pause_breaks_the_window() {
    let mut closed = Sketch::without_sums();
    closed.insert(600_100, vec![Record::Held(held(4, 14, 1, &[unit(1, 0)], 600_100))]);
    let mut late = Sketch::without_sums();
    late.batches.pop();
    late.insert(600_000, vec![Record::Held(held(4, 14, 1, &[unit(1, 0)], 600_000))]);
    let mut paused = Sketch::without_sums();
    paused.insert(40_500, vec![Record::Held(held(4, 14, 1, &[unit(1, 0)], 40_500))]);
    paused.insert(40_600, vec![confirmed(4, 14)]);
    let mut early = Sketch::without_sums();
    early.batches.truncate(1);
    early.insert(9_000, vec![Record::Held(held(0, 14, 1, &[unit(1, 0)], 9_000))]);
    let mut slot = Sketch::without_sums();
    slot.batches.truncate(2);
    slot.insert(10_000, vec![Record::Held(held(0, 14, 1, &[unit(0, 0)], 10_000))]);
    for sketch in [closed, late, paused, early, slot] {
        audit_finds(&sketch, &["INV-8"]);
    }
}

#[test]
fn an_opening_before_its_time_and_a_retake_after_settlement_break_the_window() {
    let mut early = Sketch::good();
    early.batches[1].time = 9_000;
    audit_finds(&early, &["INV-8"]);
    let mut late = Sketch::good();
    late.batches.insert(12, Sketched { epoch: 2, time: 79_600, records: vec![confirmed(3, 13)] });
    let retaken = late.batches.remove(13).records.swap_remove(0);
    let Record::Settled(counts) = &mut late.at(600_100)[0] else { panic!("the last record settles") };
    counts[0] = Counts { free: 1, held: 0, sold: 2, withdrawn: 0 };
    late.insert(600_200, vec![retaken]);
    audit_finds(&late, &["INV-8"]);
}

#[test]
fn an_expiry_before_pay_by_credit_and_grace_breaks_honest_refusal() {
    let mut sketch = Sketch::good();
    sketch.batches[11].time = 78_499;
    audit_finds(&sketch, &["INV-10"]);
}

#[test]
fn a_hold_that_never_ends_breaks_honest_refusal() {
    let mut sketch = Sketch::without_sums();
    sketch.batches.truncate(6);
    sketch.insert(140_000, vec![Record::Paused(domain::record::PauseReason::Operator)]);
    audit_finds(&sketch, &["INV-10"]);
}

#[test]
fn a_settlement_with_an_open_hold_breaks_honest_refusal() {
    let mut sketch = Sketch::good();
    sketch.at(80_000).pop();
    let hold = hold_at(&mut sketch, 21_000);
    hold.pay_by = ChainTime(START + 81_000);
    let hold = hold.clone();
    assert_eq!(hold.number.0, 3);
    let Record::Settled(counts) = &mut sketch.at(600_100)[0] else { panic!("the last record settles") };
    (counts[0].held, counts[0].sold) = (1, 2);
    audit_finds(&sketch, &["INV-10"]);
}

#[test]
fn a_hold_longer_than_the_definition_allows_breaks_honest_refusal() {
    let mut sketch = Sketch::good();
    hold_at(&mut sketch, 12_000).pay_by.0 += 1;
    audit_finds(&sketch, &["INV-10"]);
}

#[test]
fn times_epochs_and_prices_that_do_not_follow_break_the_chain() {
    let mut time = Sketch::good();
    time.batches[4].time = 11_900;
    let mut epoch = Sketch::good();
    epoch.at(22_000)[0] = Record::Epoch(3);
    let mut header = Sketch::good();
    header.batches[3].epoch = 2;
    let mut price = Sketch::good();
    hold_at(&mut price, 12_000).price -= 1;
    for sketch in [time, epoch, header, price] {
        audit_finds(&sketch, &["chain"]);
    }
}

#[test]
fn heads_signed_by_another_key_are_found() {
    audit_finds(&Sketch { seed: [1; 32], ..Sketch::good() }, &["heads"]);
}

#[test]
fn slots_that_do_not_follow_the_committed_secret_are_found() {
    let mut secret = Sketch::good();
    secret.at(600_000)[1] = Record::SecretRevealed([4; 32]);
    audit_finds(&secret, &["slots"]);
    let mut slot = Sketch::good();
    let hold = hold_at(&mut slot, 12_000);
    hold.slot_offset = (hold.slot_offset + 1) % SPREAD as u32;
    audit_finds(&slot, &["slots"]);
    let mut early = Sketch::good();
    early.insert(599_000, vec![Record::SecretRevealed(SECRET)]);
    early.at(600_000).pop();
    audit_finds(&early, &["slots"]);
    let mut never = Sketch::good();
    never.at(600_000).pop();
    audit_finds(&never, &["slots"]);
}

pub(crate) fn verify_sketch(sketch: &Sketch, folder: &Folder) -> audit::VerifyReport {
    log::write(&folder.sale(), &sketch.encode());
    let file = folder.0.join("out.chain");
    audit::export(&folder.0, None, &file).unwrap();
    audit::verify(&file, None, &[]).unwrap()
}
