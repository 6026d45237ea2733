//! kill -9 of the real process, at every stage and at any moment, with at least fifty requests under way.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use domain::Stage;
use serde_json::Value;
use system_tests::{Server, TIME_MAX, audit_is_clean, audit_is_complete, open_sale, until};

use crate::load::{Load, Watch};

const UNDER_WAY_MIN: usize = 50;

/// Long runs are asked for with a length of their own.
fn is_soak() -> bool {
    std::env::var_os("DOORBUSTER_SOAK").is_some()
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let given = std::env::var("DOORBUSTER_SEED").ok().map(|text| text.parse().expect("DOORBUSTER_SEED is a number"));
    let seed = given.unwrap_or(since.as_nanos() as u64);
    eprintln!("DOORBUSTER_SEED={seed}");
    seed
}

/// The server is there again: everybody learns what they do not know, and every promise has been kept.
fn settle(server: &Server, load: &mut Load) {
    load.ask_again();
    audit_is_clean(server.data(), Some(&server.notes()));
}

/// How often a stage is passed before the process dies in it: somewhere in the middle of the crowd.
const STAGES: [(Stage, u64); 8] = [
    (Stage::Received, 300),
    (Stage::Gated, 300),
    (Stage::Decided, 300),
    (Stage::Chained, 15),
    (Stage::Answered, 300),
    (Stage::Ordered, 120),
    (Stage::Confirmed, 12),
    (Stage::Released, 12),
];

#[test]
fn f01_killed_at_every_stage_nobody_loses_a_unit_or_an_order() {
    let mut server = Server::start();
    let mut load = Load::new(&server, seed());
    for (stage, passage) in STAGES {
        let mut tries = 0;
        loop {
            server.terminate();
            server.start_again_with(&[&format!("testing.dangerous_fault_point={}:{passage}", stage.name())]);
            let unanswered =
                load.shop(|_| until("the fault", || server.has_ended().is_some_and(|status| !status.success())));
            server.start_again();
            settle(&server, &mut load);
            tries += 1;
            eprintln!("{}: died with {unanswered} requests under way", stage.name());
            if unanswered >= UNDER_WAY_MIN {
                break;
            }
            assert!(tries < 5, "{}: never {UNDER_WAY_MIN} requests under way", stage.name());
        }
    }
    load.everybody_has_their_order(&server);
    audit_is_complete(server.data(), Some(&server.notes()));
}

#[test]
fn f01_killed_at_random_moments_nobody_loses_a_unit_or_an_order() {
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut server = Server::start();
    let mut load = Load::new(&server, seed);
    let kills = if is_soak() { 100 } else { 20 };
    for number in 0..kills {
        let after = rng.usize(80..600);
        let moment = Duration::from_micros(rng.u64(0..3_000));
        let mut under_way = 0;
        load.shop(|watch| under_way = kill(&mut server, watch, after, moment));
        assert!(under_way >= UNDER_WAY_MIN, "kill {number}: only {under_way} requests were under way");
        server.start_again();
        settle(&server, &mut load);
    }
    load.everybody_has_their_order(&server);
    audit_is_complete(server.data(), Some(&server.notes()));
}

/// Kills the server a moment after so many answers; gives how many requests were under way just before.
fn kill(server: &mut Server, watch: &Watch, after: usize, moment: Duration) -> usize {
    until("the crowd", || watch.answers.load(Ordering::Relaxed) >= after);
    let due = Instant::now() + moment;
    loop {
        let under_way = watch.under_way.load(Ordering::Relaxed);
        if Instant::now() >= due && under_way >= UNDER_WAY_MIN {
            server.kill();
            return under_way;
        }
        assert!(due.elapsed() < TIME_MAX, "never {UNDER_WAY_MIN} requests under way");
        std::hint::spin_loop();
    }
}

#[test]
fn killed_while_it_settles_it_is_settled_once() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 5));
    let order = server.customer("anna", "drop").buy("boot", "key").is(201, "held").text("order");
    server.confirm(&order).is(200, "confirmed");
    server.turn("drop", "close").is(200, "");
    server.drained("drop");
    server.terminate();
    server.start_again_with(&["testing.dangerous_fault_point=settled:1"]);
    // The process may die before it has answered.
    let _ = server.try_operate(system_tests::Request::post("/admin/v1/sales/drop/settle"));
    until("the fault", || server.has_ended().is_some_and(|status| !status.success()));
    server.start_again();
    server.drained("drop");
    let sale = server.sale("drop");
    assert_eq!((&sale["phase"], &sale["counts"][0]["sold"]), (&Value::from("settled"), &Value::from(1)));
}

#[test]
fn killed_before_it_ever_served_it_starts_as_if_nothing_had_been() {
    let mut server = Server::start();
    for number in 0..5 {
        server.kill();
        server.start_again();
        server.create(&open_sale(&format!("drop-{number}"), 5));
    }
    server.kill();
    server.start_again();
    let anna = server.customer("anna", "drop-4");
    anna.buy("boot", "key").is(201, "held");
}

#[test]
fn a_stop_right_after_the_start_is_an_orderly_one() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 5));
    for number in 0..10 {
        server.terminate();
        server.start_again();
        if number % 2 == 0 {
            server.customer("anna", "drop").buy("boot", "key").is(if number == 0 { 201 } else { 200 }, "held");
        }
    }
}
