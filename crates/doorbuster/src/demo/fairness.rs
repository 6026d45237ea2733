//! What the demo says of people and bots: the figures of its JSON, and a table for whoever reads it.

use std::fmt::Write as _;

use crowd::fairness::{Fairness, Group, advantage_expected};
use crowd::{CrowdReport, Solving};
use serde_json::{Map, Value, json};

use super::DemoArgs;

/// Refusal codes that the table shows of each kind: the most frequent ones.
const CODES_MAX: usize = 3;

/// Adds the figures to the demo's outcome. One that cannot be had is null, and `reasons` says why.
pub(super) fn add(outcome: &mut Value, args: &DemoArgs, crowd: &CrowdReport, fairness: &Fairness) {
    let mut reasons = Map::new();
    let mut figure = |name: &str, figure: Result<f64, String>| {
        let figure = crowd.void.clone().map_or(figure, Err);
        match figure {
            Ok(figure) => json!(round(figure)),
            Err(reason) => {
                reasons.insert(name.to_owned(), reason.into());
                Value::Null
            }
        }
    };
    let stock = u64::from(args.stock());
    outcome["bot_advantage"] = figure("bot_advantage", fairness.advantage(stock));
    outcome["bot_advantage_with_returns"] = figure("bot_advantage_with_returns", fairness.advantage_with_returns());
    outcome["bot_request_ratio"] = figure("bot_request_ratio", fairness.request_ratio());
    outcome["reasons"] = reasons.into();
    let accounts = fairness.people.accounts + fairness.bots.accounts;
    let of_accounts = |number: u64| number as f64 / accounts as f64;
    let expected =
        advantage_expected((args.spread() * 1_000).max(1), of_accounts(stock), of_accounts(fairness.bots.accounts));
    let is_comparable = stock < accounts && expected.is_finite();
    outcome["bot_advantage_expected"] = if is_comparable { json!(round(expected)) } else { Value::Null };
    let largest: Vec<_> = fairness
        .largest
        .iter()
        .map(|one| {
            json!({
                "operator": one.operator, "kind": one.kind, "accounts": one.accounts, "units": one.units,
                "share": round(fairness.share(one.units)),
            })
        })
        .collect();
    outcome["share_of_units_by_operator"] = json!({
        "people": round(fairness.share(fairness.people.granted())),
        "bots": round(fairness.share(fairness.bots.granted())),
        "operators": fairness.operators,
        "largest": largest,
    });
    outcome["people"] = json!(fairness.people);
    outcome["bots"] = json!(fairness.bots);
    outcome["bots_by_kind"] = json!(fairness.kinds);
    outcome["spread_seconds"] = json!(args.spread());
    outcome["stock"] = json!(stock);
    outcome["solving"] = json!(args.solving.map(Solving::name));
    outcome["seed"] = json!(args.seed);
    outcome["protocol_errors"] = json!(crowd.protocol_errors);
}

/// Four decimals: shares of single units in a large sale are small.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Who got what, why the others did not, and what that comes to.
pub(super) fn describe(fairness: &Fairness, outcome: &Value) -> String {
    let mut text = format!(
        "\n{:<16}{:>9}{:>11}{:>8}{:>13}{:>10}   most often refused\n",
        "", "accounts", "requests", "units", "per account", "came back"
    );
    let mut row = |name: &str, group: &Group| {
        let mut refusals: Vec<_> = group.refusals.iter().collect();
        refusals.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        let refusals: Vec<_> = refusals.iter().take(CODES_MAX).map(|(code, times)| format!("{code} {times}")).collect();
        let per_account = group.units as f64 / group.accounts.max(1) as f64;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name:<16}{:>9}{:>11}{:>8}{per_account:>13.4}{:>10}   {}",
            group.accounts,
            group.requests,
            group.units,
            group.units_returned,
            refusals.join(", ")
        );
    };
    row("people", &fairness.people);
    row("bots", &fairness.bots);
    for (kind, group) in &fairness.kinds {
        row(&format!("  {kind}"), group);
    }
    text.push('\n');
    text.push_str(&sentences(fairness, outcome));
    text
}

fn sentences(fairness: &Fairness, outcome: &Value) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    match outcome["bot_advantage"].as_f64() {
        Some(advantage) => line(format!(
            "A bot's account was sold {advantage:.2} times as many of the fresh units as a person's, at {:.0} times the requests; \
             slots alone would give {:.2}.",
            outcome["bot_request_ratio"].as_f64().unwrap_or(0.0),
            outcome["bot_advantage_expected"].as_f64().unwrap_or(0.0)
        )),
        None => {
            line(format!("No advantage is reported: {}.", outcome["reasons"]["bot_advantage"].as_str().unwrap_or("")))
        }
    }
    if let Some(advantage) = outcome["bot_advantage_with_returns"].as_f64() {
        line(format!(
            "With the units that came back, which go to whoever asks most often, a bot's account got {advantage:.2} times as many."
        ));
    }
    if let Some(largest) = fairness.largest.first() {
        line(format!(
            "{} operators run the bots; the one with most units got {} with {} account{}, {:.2} % of all.",
            fairness.operators,
            largest.units,
            largest.accounts,
            if largest.accounts == 1 { "" } else { "s" },
            100.0 * fairness.share(largest.units)
        ));
    }
    text
}
