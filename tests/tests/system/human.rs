//! Human checks: each kind passed and failed, and what somebody tries who has not done what was asked.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use aws_lc_rs::pbkdf2;
use data_encoding::BASE64URL_NOPAD;
use domain::ChainTime;
use serde_json::{Value, json};
use system_tests::human::{Ear, solve};
use system_tests::{Customer, ISSUER, Reply, Request, Server, doorbuster, now_milliseconds, open_sale, until};

/// Little work, and no time that a test would have to wait for.
const QUICK: &[&str] = &[
    "human_check.proof_rounds=20",
    "human_check.letters_floor_milliseconds=0",
    "human_check.proof_floor_milliseconds=0",
    "limits.customer_passes_per_second=0",
];

static EAR: LazyLock<Ear> = LazyLock::new(Ear::new);

fn server(check: &str, more: &[&str]) -> Server {
    let server = Server::start_with(&QUICK.iter().chain(more).copied().collect::<Vec<_>>());
    for sale in ["drop", "other"] {
        server.create(&open_sale(sale, 10));
        choose(&server, sale, check);
    }
    server
}

fn choose(server: &Server, sale: &str, check: &str) {
    let body = json!({ "human_check": check });
    let request = Request::new("PUT", &format!("/admin/v1/sales/{sale}/human-check")).json(&body);
    assert_eq!(server.operate(request).is(200, "").json(), body);
    assert_eq!(server.sale(sale)["human_check"], check);
}

fn ask(who: &Customer, body: &Value) -> Reply {
    who.asks(Request::post("/v1/sales/drop/challenges").json(body))
}

fn challenge(who: &Customer) -> Value {
    ask(who, &json!({})).is(201, "").json()
}

fn answer(who: &Customer, challenge: &Value, answer: &Value) -> Reply {
    let body = json!({ "challenge": challenge["challenge"], "answer": answer });
    who.asks(Request::post("/v1/sales/drop/passes").json(&body))
}

/// Unix milliseconds.
fn time(text: &Value) -> u64 {
    serde_json::from_value::<ChainTime>(text.clone()).unwrap().0
}

/// The letters of a challenge, by ear.
fn heard(who: &Customer, challenge: &Value) -> Value {
    let reply = who.asks(Request::get(challenge["audio"].as_str().unwrap())).is(200, "");
    assert_eq!(reply.header("content-type"), Some("audio/wav"));
    json!(EAR.listen(&reply.body))
}

#[test]
fn a_sale_with_a_check_gives_its_first_pass_for_an_answer_and_the_next_ones_for_nothing() {
    let mut server = server("proof_of_work", &[]);
    let mut anna = server.stranger("anna", "drop");
    anna.take_pass().is(403, "challenge_required");
    let mine = |anna: &Customer| anna.asks(Request::get("/v1/sales/drop/mine")).is(200, "").json();
    assert_eq!(mine(&anna)["pass"], Value::Null);
    let asked = challenge(&anna);
    assert_eq!((&asked["kind"], &asked["level"]), (&json!("proof_of_work"), &json!(0)));
    let solution = solve(&asked);
    let pass = answer(&anna, &asked, &solution).is(201, "").json();
    assert_eq!(mine(&anna)["pass"]["slot"], pass["slot"]);
    // The answer that had the pass got lost, and the device sends the same again.
    assert_eq!(answer(&anna, &asked, &solution).is(201, "").json()["slot"], pass["slot"]);
    anna.take_pass().is(201, "");
    anna.buy("boot", "key").is(201, "held");

    server.kill();
    server.start_again();
    assert_eq!(server.sale("drop")["human_check"], "proof_of_work", "the check lasts");
    anna.take_pass().is(201, "");
    let mut bert = server.stranger("bert", "drop");
    bert.take_pass().is(403, "challenge_required");
    choose(&server, "drop", "none");
    bert.take_pass().is(201, "");
    ask(&bert, &json!({})).is(404, "not_found");
}

#[test]
fn a_used_challenge_is_refused_whether_its_answer_was_right_or_wrong() {
    let server = server("proof_of_work", &[]);
    let anna = server.stranger("anna", "drop");
    let asked = challenge(&anna);
    let solution = solve(&asked);
    let mut wrong = solution.clone();
    wrong["derivedKey"] = json!("00".repeat(32));
    let refused = |reply: Reply, why: &str| {
        let detail = reply.is(403, "challenge_failed").text("detail");
        assert!(detail.contains(why), "{detail}");
    };
    refused(answer(&anna, &asked, &wrong), "wrong");
    refused(answer(&anna, &asked, &solution), "used");
    let asked = challenge(&anna);
    let solution = solve(&asked);
    answer(&anna, &asked, &solution).is(201, "");
    // Whoever is forgotten has to do it again, and not with the same.
    let erase = json!({ "issuer": ISSUER, "subject": "anna" });
    server.operate(Request::post("/admin/v1/customers/erase").json(&erase)).is(200, "");
    refused(answer(&anna, &asked, &solution), "used");
    anna.asks(Request::post("/v1/sales/drop/passes")).is(403, "challenge_required");
}

#[test]
fn a_stolen_challenge_is_refused_with_its_right_answer() {
    let server = server("answer", &[]);
    let (anna, eve) = (server.stranger("anna", "drop"), server.stranger("eve", "drop"));
    let asked = challenge(&anna);
    let letters = heard(&anna, &asked);
    answer(&eve, &asked, &letters).is(403, "challenge_failed");
    eve.asks(Request::get(asked["audio"].as_str().unwrap())).is(404, "not_found");
    let elsewhere = json!({ "challenge": asked["challenge"], "answer": letters });
    let elsewhere = anna.asks(Request::post("/v1/sales/other/passes").json(&elsewhere));
    elsewhere.is(403, "challenge_failed");
    // Neither has used it up.
    answer(&anna, &asked, &letters).is(201, "");
}

#[test]
fn a_forged_challenge_is_refused() {
    let server = server("proof_of_work", &[]);
    let anna = server.stranger("anna", "drop");
    let asked = challenge(&anna);
    let solution = solve(&asked);
    let real = asked["challenge"].as_str().unwrap();
    for at in [3, 5, 10, 30, 60, 80, 98] {
        let mut forged = real.to_owned().into_bytes();
        forged[at] = if forged[at] == b'x' { b'y' } else { b'x' };
        let forged = json!({ "challenge": String::from_utf8(forged).unwrap() });
        answer(&anna, &forged, &solution).is(403, "challenge_failed");
    }
    for forged in ["", "hc_", "x", &real[1..], &format!("{real}x"), &"h".repeat(10_000)] {
        answer(&anna, &json!({ "challenge": forged }), &solution).is(403, "challenge_failed");
    }
    answer(&anna, &asked, &solution).is(201, "");
}

#[test]
fn what_cannot_be_an_answer_or_is_of_another_kind_passes_nothing() {
    let server = server("answer", &["human_check.challenge_seconds=2"]);
    let anna = server.stranger("anna", "drop");
    let table = [
        (json!({ "kind": "static" }), 400, "malformed"),
        (json!({ "kind": "none" }), 400, "malformed"),
        (json!({ "kind": 1 }), 400, "malformed"),
        (json!({ "other": true }), 400, "malformed"),
    ];
    for (body, status, code) in table {
        ask(&anna, &body).is(status, code);
    }
    let asked = challenge(&anna);
    let body = json!({ "challenge": asked["challenge"] });
    anna.asks(Request::post("/v1/sales/drop/passes").json(&body)).is(400, "malformed");
    for malformed in [json!(1), json!([]), json!({}), json!({ "counter": -1, "derivedKey": "" })] {
        answer(&anna, &asked, &malformed).is(400, "malformed");
    }
    // None of that has used it up, and what can be read does.
    answer(&anna, &asked, &json!({ "counter": 0, "derivedKey": "00" })).is(403, "challenge_failed");
    let asked = challenge(&anna);
    let letters = heard(&anna, &asked);
    let expires = time(&asked["expires_at"]);
    until("the challenge has expired", || now_milliseconds() > expires);
    let detail = answer(&anna, &asked, &letters).is(403, "challenge_failed").text("detail");
    assert!(detail.contains("expired"), "{detail}");
    anna.asks(Request::get(asked["audio"].as_str().unwrap())).is(403, "challenge_failed");
    Request::post("/v1/sales/drop/challenges").send(server.public()).is(401, "token_invalid");
    anna.asks(Request::post("/v1/sales/nothing/challenges")).is(404, "not_found");
    server.turn("drop", "close").is(200, "");
    ask(&anna, &json!({})).is(409, "closed");
}

#[test]
fn letters_are_seen_or_heard_and_wrong_ones_make_the_next_picture_harder() {
    let server = server("answer", &[]);
    let anna = server.stranger("anna", "drop");
    let mut seen = Vec::new();
    for (level, letters) in [(0, 4), (0, 4), (1, 5), (1, 5), (2, 6)] {
        let asked = challenge(&anna);
        assert_eq!((&asked["level"], &asked["letters"]), (&json!(level), &json!(letters)));
        assert!(asked["picture"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
        seen.push(asked["picture"].clone());
        answer(&anna, &asked, &json!("nothing")).is(403, "challenge_failed");
    }
    assert!((1..seen.len()).all(|at| !seen[..at].contains(&seen[at])), "each is another picture");
    let bert = server.stranger("bert", "drop");
    assert_eq!(challenge(&bert)["level"], 0, "nobody else has it harder");
    let asked = challenge(&anna);
    let letters = heard(&anna, &asked).as_str().unwrap().to_owned();
    assert_eq!(letters.len(), 6);
    let typed = format!(" {} {}", letters[..3].to_lowercase(), &letters[3..]);
    answer(&anna, &asked, &json!(typed)).is(201, "");
    let metrics = String::from_utf8(server.operate(Request::get("/metrics")).body).unwrap();
    for line in ["{check=\"answer\",outcome=\"wrong\"} 5", "{check=\"answer\",outcome=\"passed\"} 1"] {
        assert!(metrics.contains(&format!("doorbuster_human_checks_total{line}")), "{line}");
    }
}

#[test]
fn whoever_neither_sees_nor_hears_passes_letters_by_a_harder_proof() {
    for check in ["answer", "static"] {
        let server = server(check, &[]);
        let anna = server.stranger("anna", "drop");
        let asked = ask(&anna, &json!({ "kind": "proof_of_work" })).is(201, "").json();
        assert_eq!((&asked["kind"], &asked["level"]), (&json!("proof_of_work"), &json!(1)));
        assert_eq!(asked["proof_of_work"]["parameters"]["cost"], 40);
        answer(&anna, &asked, &solve(&asked)).is(201, "");
    }
}

#[test]
fn an_answer_that_comes_too_fast_makes_it_harder_and_the_next_one_blocks_for_a_while() {
    let server = server("proof_of_work", &["human_check.proof_floor_milliseconds=10000"]);
    let bot = server.stranger("bot", "drop");
    let asked = challenge(&bot);
    assert_eq!(asked["wait_ms"], 10_000);
    let detail = answer(&bot, &asked, &solve(&asked)).is(403, "challenge_failed").text("detail");
    assert!(detail.contains("too fast"), "{detail}");
    let asked = challenge(&bot);
    assert_eq!(asked["level"], 1);
    answer(&bot, &asked, &solve(&asked)).is(403, "challenge_failed");
    let refused = ask(&bot, &json!({})).is(429, "rate_limited");
    let seconds = time(&refused.json()["retry_at"]).saturating_sub(now_milliseconds()) / 1_000;
    assert!((5..=10).contains(&seconds), "{seconds}");
    ask(&bot, &json!({ "kind": "proof_of_work" })).is(429, "rate_limited");
    answer(&bot, &asked, &solve(&asked)).is(429, "rate_limited");
    assert_eq!(challenge(&server.stranger("anna", "drop"))["level"], 0, "nobody else is in the way");
}

#[test]
fn a_static_picture_is_cacheable_and_its_answer_is_checked_by_the_page_and_by_the_server() {
    let server = server("static", &[]);
    let (anna, bert) = (server.stranger("anna", "drop"), server.stranger("bert", "drop"));
    let asked = challenge(&anna);
    let set = server.ask(&Request::get(asked["set"].as_str().unwrap())).is(200, "");
    assert_eq!(set.header("cache-control"), Some("public, max-age=3600, immutable"));
    let set = set.json();
    assert_eq!((&set["algorithm"], set["entries"].as_array().unwrap().len()), (&json!("PBKDF2/SHA-256"), 16));
    let entry = &set["entries"][asked["index"].as_u64().unwrap() as usize];
    assert_eq!((&entry["picture"], &entry["audio"]), (&asked["picture"], &asked["audio"]));
    let picture = server.ask(&Request::get(entry["picture"].as_str().unwrap())).is(200, "");
    assert_eq!(picture.header("cache-control"), Some("public, max-age=3600, immutable"));
    assert!(picture.body.starts_with(b"\x89PNG"));
    let letters = heard(&anna, &asked);
    let bytes = |field: &str| BASE64URL_NOPAD.decode(entry[field].as_str().unwrap().as_bytes()).unwrap();
    let rounds = NonZeroU32::new(set["rounds"].as_u64().unwrap() as u32).unwrap();
    let matches = |letters: &str| {
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, rounds, &bytes("salt"), letters.as_bytes(), &bytes("hash")).is_ok()
    };
    assert!(matches(letters.as_str().unwrap()) && !matches("CCCCC"));

    // Whatever a page says about it: the server looks again.
    answer(&anna, &asked, &json!("CCCCC")).is(403, "challenge_failed");
    answer(&anna, &asked, &letters).is(403, "challenge_failed");
    let place = |asked: &Value| (asked["set"].clone(), asked["index"].clone());
    let others: Vec<_> = (0..6).map(|_| place(&ask(&anna, &json!({ "another": true })).is(201, "").json())).collect();
    assert!(others.iter().any(|other| *other != place(&asked)), "{others:?}");
    let asked = challenge(&anna);
    answer(&anna, &asked, &heard(&anna, &asked)).is(201, "");
    // Another customer's challenge is not opened by letters that are everybody's.
    answer(&bert, &asked, &heard(&anna, &asked)).is(403, "challenge_failed");
    for (path, code) in [
        ("static/0", "not_found"),
        ("static/x", "not_found"),
        ("static/18446744073709551615", "not_found"),
        ("static/-1/0.png", "not_found"),
    ] {
        server.ask(&Request::get(&format!("/v1/sales/drop/challenges/{path}"))).is(404, code);
    }
    let set = asked["set"].as_str().unwrap();
    for file in ["16.png", "0.svg", "0", "x.png", "..%2f0.png"] {
        server.ask(&Request::get(&format!("{set}/{file}"))).is(404, "not_found");
    }
}

#[test]
fn the_operator_chooses_the_check_by_command() {
    let server = server("none", &[]);
    for (word, name) in
        [("proof-of-work", "proof_of_work"), ("static", "static"), ("answer", "answer"), ("none", "none")]
    {
        let data = server.data().to_str().unwrap();
        let ended = doorbuster(&["sale", "human-check", "drop", word, "--data", data]);
        assert_eq!(
            (ended.code, ended.out.trim()),
            (Some(0), format!("drop  human check {name}").as_str()),
            "{ended:?}"
        );
        assert_eq!(server.sale("drop")["human_check"], name);
    }
    let wrong = json!({ "human_check": "captcha" });
    let wrong = Request::new("PUT", "/admin/v1/sales/drop/human-check").json(&wrong);
    server.operate(wrong).is(400, "malformed");
    doorbuster(&["sale", "human-check", "ghost", "none", "--data", server.data().to_str().unwrap()])
        .refused_with(&["no sale of that name"]);
    for setting in ["human_check.proof_rounds=0", "human_check.block_seconds=601", "human_check.challenge_seconds=0"] {
        let key = setting.split('=').next().unwrap();
        server.refused(&[setting]).refused_with(&[key]);
    }
    let nobody_in_time = ["human_check.challenge_seconds=1", "human_check.letters_floor_milliseconds=1000"];
    server.refused(&nobody_in_time).refused_with(&["human_check.challenge_seconds", "letters_floor"]);
}
