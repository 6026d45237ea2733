//! The crowd against a stand-in server: what it sends, repeats, counts and refuses to do.

mod bots;
mod stand_in;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crowd::{Checkout, CrowdError, CrowdOptions, CrowdReport, Progress};
use domain::ChainTime;
use serde_json::Value;
use stand_in::{Shop, StandIn, Temper};

/// One run with its notes, which leave no file behind.
struct Run {
    report: CrowdReport,
    /// What the terminal was told last; unlike the report's figures it is there in a void run, too.
    progress: Progress,
    notes: Vec<Value>,
}

fn now() -> ChainTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    ChainTime(u64::try_from(now).unwrap())
}

fn options(server: &StandIn, name: &str) -> CrowdOptions {
    CrowdOptions {
        public: vec![server.address],
        admin: vec![server.address],
        admin_token: "admin".to_owned(),
        sale: "drop".to_owned(),
        items: vec!["boot".to_owned()],
        shoppers: 300,
        seconds: 1,
        linger_seconds: 1,
        seed: 11,
        notes: std::env::temp_dir().join(format!("crowd-{name}-{}.jsonl", std::process::id())),
        token_secret: b"a secret of the shop".to_vec(),
        decide_milliseconds_max: 300,
        ..CrowdOptions::default()
    }
}

fn run(options: CrowdOptions) -> Run {
    let path = options.notes.clone();
    let mut progress = Vec::new();
    let report = crowd::run(options, |now| progress.push(now.clone())).unwrap();
    assert!(progress.len() >= 2);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let progress = progress.pop().unwrap();
    Run { report, progress, notes: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
}

impl Run {
    fn of(&self, note: &str) -> Vec<&Value> {
        self.notes.iter().filter(|line| line["note"] == note).collect()
    }

    /// Every request was noted as sent first and has one outcome; every key ended with an answer.
    fn check_notes(&self) {
        let mut keys: HashMap<u64, &str> = HashMap::new();
        let mut open: HashSet<u64> = HashSet::new();
        let mut answered: HashSet<&str> = HashSet::new();
        for line in &self.notes {
            let request = line["request"].as_u64();
            match line["note"].as_str().unwrap() {
                "sent" => {
                    keys.insert(request.unwrap(), line["key"].as_str().unwrap());
                    assert!(open.insert(request.unwrap()), "{line}");
                }
                "answered" => {
                    assert!(open.remove(&request.unwrap()), "{line}");
                    answered.insert(keys[&request.unwrap()]);
                }
                "lost" => assert!(open.remove(&request.unwrap()), "{line}"),
                _ => assert!(line["purchase"].is_string(), "{line}"),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(keys.values().all(|key| answered.contains(key)));
    }
}

#[test]
fn a_crowd_buys_out_a_sale_and_counts_every_answer() {
    let server = StandIn::open(Shop { stock: 100, opens_at: now().plus(1_200), ..Shop::default() });
    let run = run(options(&server, "buys-out"));
    let report = &run.report;
    run.check_notes();
    assert_eq!((report.shoppers, report.unanswered, report.protocol_errors), (300, 0, 0), "{report:?}");
    assert_eq!(report.wins, 100 + report.cancelled - u64::from(server.shop.lock().unwrap().stock), "{report:?}");
    assert!(report.paid > 30 && report.cancelled > 3, "{report:?}");
    assert_eq!(run.of("sent").len() as u64, report.attempts);
    assert_eq!(run.of("lost").len() as u64, report.lost);
    assert_eq!(run.of("confirmed").len() as u64, report.paid);
    assert_eq!(run.of("cancelled").len() as u64, report.cancelled);
    assert!(report.attempts > 300 && report.lost > 5 && report.retried >= report.lost, "{report:?}");
    assert!(report.refusals["sold_out"] > 150, "{report:?}");
    let told = &run.progress;
    assert_eq!((told.passes, told.arrived, told.in_flight, told.wins), (300, 300, 0, report.wins));
    // A machine too busy to send in time gives no figures; otherwise they are all there.
    let figures = [report.wins_per_s.is_some(), report.refusals_per_s.is_some(), report.held_latency_ms.is_some()];
    assert_eq!(figures, [report.void.is_none(); 3], "{report:?}");
}

#[test]
fn latency_counts_from_the_scheduled_arrival_while_the_server_stalls() {
    let temper = Temper::Stalls(Duration::from_millis(700));
    let server = StandIn::open(Shop { stock: 1_000, temper, ..Shop::default() });
    let habits = CrowdOptions { lost_reply_share: 0.0, double_click_share: 0.0, ..options(&server, "stalls") };
    let run = run(habits);
    assert_eq!(run.report.wins, 300, "{:?}", run.report);
    // Most arrive within half a second, so most wait for 200 ms and more, and somebody for nearly all of it.
    let latency = run.progress.latency_ms.unwrap();
    assert!(latency.max >= 650.0 && latency.p50 >= 200.0, "{latency:?}");
}

#[test]
fn too_few_connections_void_the_figures_and_keep_the_counts() {
    let temper = Temper::Stalls(Duration::from_millis(700));
    let server = StandIn::open(Shop { stock: 1_000, temper, ..Shop::default() });
    let report = run(CrowdOptions { connections: 4, ..options(&server, "few-connections") }).report;
    assert!(report.void.is_some() && report.latency_ms.is_none() && report.wins_per_s.is_none(), "{report:?}");
    assert_eq!((report.wins, report.unanswered), (300, 0), "{report:?}");
}

#[test]
fn lost_replies_are_asked_for_again_with_the_same_key() {
    let server = StandIn::open(Shop { stock: 1_000, ..Shop::default() });
    let always = CrowdOptions { lost_reply_share: 1.0, double_click_share: 0.0, ..options(&server, "lost") };
    let run = run(always);
    run.check_notes();
    let report = &run.report;
    assert_eq!((report.wins, report.unanswered, report.protocol_errors), (300, 0, 0), "{report:?}");
    assert!(report.lost >= 300 && report.retried == report.lost, "{report:?}");
    let keys: HashSet<&str> = run.of("sent").iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 300);
    // The first request of most took effect although its reply was thrown away: the retry hears 200, not 201.
    let again = run.of("answered").iter().filter(|line| line["status"] == 200).count();
    assert!(again > 150, "{again}");
}

#[test]
fn two_clicks_at_once_carry_one_key_and_win_once() {
    let server = StandIn::open(Shop { stock: 1_000, ..Shop::default() });
    let always = CrowdOptions { lost_reply_share: 0.0, double_click_share: 1.0, ..options(&server, "clicks") };
    let run = run(always);
    run.check_notes();
    assert_eq!((run.report.attempts, run.report.wins, run.report.protocol_errors), (600, 300, 0), "{:?}", run.report);
}

#[test]
fn a_killed_server_is_asked_again_until_everyone_has_an_answer() {
    let mut server = StandIn::open(Shop { stock: 100, ..Shop::default() });
    let options = CrowdOptions { seconds: 2, flush_each: true, ..options(&server, "killed") };
    let runner = std::thread::spawn(move || run(options));
    while server.shop.lock().unwrap().purchase_requests < 60 {
        std::thread::sleep(Duration::from_millis(2));
    }
    server.kill();
    std::thread::sleep(Duration::from_millis(400));
    server.start();
    let run = runner.join().unwrap();
    run.check_notes();
    assert_eq!((run.report.unanswered, run.report.protocol_errors), (0, 0), "{:?}", run.report);
    assert!(run.report.errors["connect"] > 0, "{:?}", run.report);
    assert_eq!(run.report.wins, 100 + run.report.cancelled - u64::from(server.shop.lock().unwrap().stock));
}

#[test]
fn an_overloaded_server_is_asked_again_after_the_time_it_gave() {
    let server = StandIn::open(Shop { stock: 1_000, temper: Temper::Overloaded(50), ..Shop::default() });
    let habits = CrowdOptions { lost_reply_share: 0.0, double_click_share: 0.0, ..options(&server, "overloaded") };
    let run = run(habits);
    run.check_notes();
    assert_eq!((run.report.wins, run.report.refusals["overloaded"]), (300, 50), "{:?}", run.report);
    let overloaded: Vec<u64> =
        run.of("answered").iter().filter(|l| l["code"] == "overloaded").map(|l| l["at_ms"].as_u64().unwrap()).collect();
    assert!(run.notes.last().unwrap()["at_ms"].as_u64().unwrap() >= overloaded[0] + 1_000);
}

#[test]
fn whoever_is_refused_a_coupon_buys_without_it_under_a_new_key() {
    let server = StandIn::open(Shop { stock: 1_000, ..Shop::default() });
    let coupons = vec!["GOOD".to_owned(), "RUMOUR".to_owned()];
    let run = run(CrowdOptions { coupons, coupon_share: 0.5, ..options(&server, "coupons") });
    run.check_notes();
    let report = &run.report;
    assert_eq!((report.wins, report.unanswered, report.protocol_errors), (300, 0, 0), "{report:?}");
    // About 75 people have heard of the wrong one; some of them ask twice with the first key.
    assert!((40..150).contains(&report.refusals["coupon_refused"]), "{report:?}");
    let with = |code: &str| server.shop.lock().unwrap().bodies.values().filter(|body| body["coupon"] == code).count();
    assert!(with("GOOD") > 40 && with("RUMOUR") > 40);
}

/// A hundred people at this checkout, with a shop that refunds.
fn paid_by(server: &StandIn, name: &str, checkout: Checkout) -> CrowdReport {
    let run = run(CrowdOptions { checkout, shoppers: 100, refund_share: 0.2, ..options(server, name) });
    run.check_notes();
    let report = run.report;
    assert_eq!((report.unanswered, report.protocol_errors), (0, 0), "{report:?}");
    assert!(report.paid > 40 && report.refunded > 3 && report.refunded < report.paid, "{report:?}");
    let shop = server.shop.lock().unwrap();
    let shown = |status| shop.purchases.values().filter(|purchase| purchase.is(status)).count() as u64;
    assert_eq!((shown("confirmed"), shown("refunded")), (report.paid, report.refunded), "{report:?}");
    report
}

#[test]
fn people_press_every_button_of_the_page_and_look_until_their_money_has_its_place() {
    let server = StandIn::open(Shop { stock: 1_000, ..Shop::default() });
    let report = paid_by(&server, "page", Checkout::Provider);
    let presses = &server.shop.lock().unwrap().presses;
    assert_eq!(presses["pay"] + presses["twice"] + presses["later"], report.paid, "{presses:?}");
    assert!(presses["decline"] > 0 && presses["never"] > 0 && presses["pay"] > presses["twice"], "{presses:?}");
}

#[test]
fn a_shop_with_its_own_provider_reports_every_attempt_and_every_refund() {
    let server = StandIn::open(Shop { stock: 1_000, ..Shop::default() });
    let report = paid_by(&server, "reported", Checkout::Reported);
    let reports = &server.shop.lock().unwrap().reports;
    assert!(
        reports["paid"] > report.paid && reports["ended"] > 0,
        "some are told twice, some come to nothing: {reports:?}"
    );
    assert_eq!(reports["refunded"], report.refunded, "{reports:?}");
}

#[test]
fn answers_that_break_the_contract_are_counted_with_samples() {
    let server = StandIn::open(Shop { stock: 1_000, temper: Temper::Careless, ..Shop::default() });
    let clicks = CrowdOptions {
        double_click_share: 1.0,
        lost_reply_share: 0.0,
        paid_share: 0.0,
        cancel_share: 0.0,
        ..options(&server, "careless")
    };
    let report = run(clicks).report;
    // Each of 600 answers lacks its pay-by time, and the second of each pair names another purchase.
    assert_eq!(report.protocol_errors, 900, "{report:?}");
    assert!(report.protocol_error_samples.iter().any(|sample| sample.contains("pay-by")), "{report:?}");
    assert!(report.protocol_error_samples.iter().any(|sample| sample.contains("INV-5")), "{report:?}");
}

#[test]
fn a_crowd_is_never_aimed_at_another_machine() {
    let server = StandIn::open(Shop::default());
    for (public, admin) in [("192.0.2.1:80", "127.0.0.1:80"), ("127.0.0.1:80", "192.0.2.1:80")] {
        let elsewhere = CrowdOptions {
            public: vec![public.parse().unwrap()],
            admin: vec![admin.parse().unwrap()],
            ..options(&server, "far")
        };
        assert!(matches!(crowd::run(elsewhere, |_| ()), Err(CrowdError::NotLoopback(_))));
    }
}

#[test]
fn options_survive_the_way_to_another_process_and_unknown_ones_are_refused() {
    let server = StandIn::open(Shop::default());
    let text = serde_json::to_string(&options(&server, "json")).unwrap();
    let read: CrowdOptions = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(serde_json::from_str::<CrowdOptions>(r#"{"shopers": 3}"#).is_err());
}

#[test]
fn a_single_request_reads_json_and_tells_definite_errors_from_unknown_ones() {
    let mut server = StandIn::open(Shop { stock: 1, ..Shop::default() });
    let second = Duration::from_secs(1);
    let get = |path: &str| crowd::http::request_blocking(server.address, http::Method::GET, path, &[], None, second);
    let reply = get("/v1/sales/drop").unwrap();
    assert_eq!((reply.status, reply.json()["sale"].as_str()), (200, Some("drop")));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(get("no path").unwrap_err().is_definite());

    server.shop.lock().unwrap().stalled_until = Some(std::time::Instant::now() + Duration::from_secs(30));
    let late = crowd::http::request_blocking(
        server.address,
        http::Method::GET,
        "/v1/sales/drop",
        &[],
        None,
        Duration::from_millis(100),
    );
    assert!(matches!(&late, Err(error) if !error.is_definite() && error.kind() == "timed_out"), "{late:?}");
    server.kill();
    let refused = crowd::http::request_blocking(server.address, http::Method::GET, "/v1/sales/drop", &[], None, second);
    assert!(matches!(&refused, Err(error) if error.is_definite() && error.kind() == "connect"), "{refused:?}");
}
