//! Two small sales for the person who runs the demo, beside the crowd's: one that is open, and one that opens while they look.
//!
//! They are made by the admin API, as an operator makes them, and counted in no figure of the crowd's.

use std::time::{Duration, Instant};

use crowd::http::request_blocking;
use http::Method;
use serde_json::{Value, json};

use super::stage::{ITEM, Stage, crowd_clock};
use domain::ChainTime;

const POSTER: &str = "poster";
/// Somebody else was faster, so that one sees what that looks like.
const LAST: &str = "last-pair";
const FASTER: &str = "Bearer guest_somebody-faster";
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const BOOT_PICTURE: &[u8] = include_bytes!("boot.jpg");
const POSTER_PICTURE: &[u8] = include_bytes!("poster.jpg");
const BOOT_SHOWS: &str = "A brown winter boot with red laces and a collar of white fleece, standing in the snow.";
const POSTER_SHOWS: &str = "A framed poster: a mountain under a winter moon, and the word WINTER.";
const HOUR_MILLISECONDS: u64 = 3_600_000;
/// Until the second sale opens: one sees its countdown first.
const UNTIL_OPENING_MILLISECONDS: u64 = 100_000;
/// Long enough to see that it is not yet one's turn.
const SPREAD_MILLISECONDS: u64 = 8_000;

/// Makes both sales; `number` makes their names new. Gives the time that a picture takes.
pub(super) fn make(stage: &Stage, number: usize) -> anyhow::Result<Duration> {
    let now = crowd_clock();
    let boot = json!({ "item": ITEM, "title": "Winter boot", "stock": 5, "price": 8_900, "limit_per_customer": 2 });
    let poster =
        json!({ "item": POSTER, "title": "Winter poster", "stock": 3, "price": 1_900, "limit_per_customer": 2 });
    let last = json!({ "item": LAST, "title": "The last pair", "stock": 1, "price": 4_900, "limit_per_customer": 1 });
    let open = format!("tour-{number}-open");
    create(stage, &open, "For you: open for an hour", (now, 0), &[&boot, &poster, &last])?;
    if stage.identity.dangerous_guest_tokens {
        sell_the_last(stage, &open)?;
    }
    let soon = format!("tour-{number}-soon");
    let opening = (now + UNTIL_OPENING_MILLISECONDS, SPREAD_MILLISECONDS);
    create(stage, &soon, "For you: opens in a moment", opening, &[&poster])?;
    let began = Instant::now();
    show(stage, &open, &[ITEM, POSTER, LAST])?;
    let one = began.elapsed() / 3;
    show(stage, &soon, &[POSTER])?;
    Ok(one)
}

/// Buys and pays what there is one of, as any customer and any shop would.
fn sell_the_last(stage: &Stage, sale: &str) -> anyhow::Result<()> {
    let ask = |path: &str, headers: &[(&str, &str)], body: Option<&Value>| -> anyhow::Result<Value> {
        let path = format!("/v1/sales/{sale}{path}");
        let reply = request_blocking(stage.public[0], Method::POST, &path, headers, body, ANSWER_TIME_MAX)?;
        anyhow::ensure!((200..300).contains(&reply.status), "{path} was answered with {}", reply.status);
        Ok(serde_json::from_slice(&reply.body)?)
    };
    let pass = ask("/passes", &[("authorization", FASTER)], None)?;
    let pass = pass["pass"].as_str().unwrap_or_default();
    let headers = [("authorization", FASTER), ("doorbuster-pass", pass), ("idempotency-key", "the-last-pair")];
    let bought = ask(&format!("/items/{LAST}/purchases"), &headers, Some(&json!({ "quantity": 1 })))?;
    let order = bought["order"].as_str().unwrap_or_default();
    stage.operator.ask(Method::POST, &format!("/admin/v1/orders/{order}/confirm"), None)?;
    Ok(())
}

/// Shows the boot beside the crowd's item.
pub(super) fn show_boot(stage: &Stage) -> anyhow::Result<()> {
    show(stage, &stage.sale, &[ITEM])
}

fn create(
    stage: &Stage,
    sale: &str,
    title: &str,
    (opens_at, spread_milliseconds): (u64, u64),
    items: &[&Value],
) -> anyhow::Result<()> {
    let definition = json!({
        "sale": sale,
        "title": title,
        "currency": "EUR",
        "passes_open_at": ChainTime(crowd_clock()).rfc3339(),
        "opens_at": ChainTime(opens_at).rfc3339(),
        "closes_at": ChainTime(opens_at + HOUR_MILLISECONDS).rfc3339(),
        "spread_milliseconds": spread_milliseconds,
        "hold_seconds": 600,
        "limit_per_customer": 2,
        "test": true,
        "items": items,
    });
    stage.operator.ask(Method::POST, "/admin/v1/sales", Some(&definition))?;
    stage.wait_until_known(sale)
}

fn show(stage: &Stage, sale: &str, items: &[&str]) -> anyhow::Result<()> {
    let of = |item: &str| if item == POSTER { (POSTER_PICTURE, POSTER_SHOWS) } else { (BOOT_PICTURE, BOOT_SHOWS) };
    for item in items {
        let path = format!("/admin/v1/sales/{sale}/items/{item}/picture");
        stage.operator.upload(&path, of(item).0.to_vec())?;
    }
    let descriptions: Value = items.iter().map(|item| ((*item).to_owned(), Value::from(of(item).1))).collect();
    let showcase = json!({ "origins": [], "button": {}, "descriptions": descriptions });
    stage.operator.ask(Method::PUT, &format!("/admin/v1/sales/{sale}/showcase"), Some(&showcase))?;
    Ok(())
}
