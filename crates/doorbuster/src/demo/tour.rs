//! Two small sales for the person who runs the demo, beside the crowd's: one that is open, and one that opens while they look.
//!
//! They are made by the admin API, as an operator makes them, and counted in no figure of the crowd's.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::stage::{ITEM, Stage, crowd_clock};
use domain::ChainTime;

const POSTER: &str = "poster";
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
    let open = format!("tour-{number}-open");
    create(stage, &open, "For you: open for an hour", (now, 0), &[&boot, &poster])?;
    let soon = format!("tour-{number}-soon");
    let opening = (now + UNTIL_OPENING_MILLISECONDS, SPREAD_MILLISECONDS);
    create(stage, &soon, "For you: opens in a moment", opening, &[&poster])?;
    let began = Instant::now();
    show(stage, &open, &[ITEM, POSTER])?;
    let one = began.elapsed() / 2;
    show(stage, &soon, &[POSTER])?;
    Ok(one)
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
    let of = |item: &str| if item == ITEM { (BOOT_PICTURE, BOOT_SHOWS) } else { (POSTER_PICTURE, POSTER_SHOWS) };
    for item in items {
        let path = format!("/admin/v1/sales/{sale}/items/{item}/picture");
        stage.operator.upload(&path, of(item).0.to_vec())?;
    }
    let descriptions: Value = items.iter().map(|item| ((*item).to_owned(), Value::from(of(item).1))).collect();
    let showcase = json!({ "origins": [], "button": {}, "descriptions": descriptions });
    stage.operator.ask(Method::PUT, &format!("/admin/v1/sales/{sale}/showcase"), Some(&showcase))?;
    Ok(())
}
