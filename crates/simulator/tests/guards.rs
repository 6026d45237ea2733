//! With any guard of admission switched off, the simulation fails within a few seeds: by the naive model, and for each guard whose
//! promise is visible from outside, also without it, by clients and the auditor alone.

use admission::Guards;
use simulator::{SimulationOptions, simulate};

const SEEDS: u64 = 60;

/// The first failure, with the naive model or without.
fn first_failure(guards: Guards, naive: bool) -> Option<String> {
    let options = SimulationOptions { guards, naive, ..SimulationOptions::default() };
    (0..SEEDS).find_map(|seed| simulate(seed, options).err()).map(|failure| failure.to_string())
}

fn must_fail(guards: Guards, naive: bool) {
    let judges = if naive { "with" } else { "without" };
    let failure = first_failure(guards, naive);
    let failure = failure.unwrap_or_else(|| panic!("{SEEDS} seeds {judges} the naive model noticed nothing"));
    eprintln!("{judges} the naive model: {failure}");
}

#[test]
fn with_all_guards_clients_and_auditor_find_nothing() {
    assert_eq!(first_failure(Guards::ON, false), None);
}

#[test]
fn without_the_key_guard_the_simulation_fails() {
    let guards = Guards { key: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_window_guard_the_simulation_fails() {
    let guards = Guards { window: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_pause_guard_the_simulation_fails() {
    let guards = Guards { pause: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_slot_guard_the_simulation_fails() {
    let guards = Guards { slot: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_limit_guard_the_simulation_fails() {
    let guards = Guards { limit: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_stock_guard_the_simulation_fails() {
    let guards = Guards { stock: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_deadline_guard_the_simulation_fails() {
    let guards = Guards { deadline: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_durable_guard_the_simulation_fails() {
    let guards = Guards { durable: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

/// Only the naive model knows how much time was lost: the chain without its credits contradicts nothing.
#[test]
fn without_the_credit_guard_the_simulation_fails() {
    must_fail(Guards { credit: false, ..Guards::ON }, true);
}

#[test]
fn without_the_attempt_guard_the_simulation_fails() {
    let guards = Guards { attempt: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}

#[test]
fn without_the_coupon_guard_the_simulation_fails() {
    let guards = Guards { coupon: false, ..Guards::ON };
    must_fail(guards, true);
    must_fail(guards, false);
}
