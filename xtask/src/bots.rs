//! The last part of `cargo xtask bars`: crowds with bots, seed by seed, and what bots gain over all of them. What a run said is kept with
//! the reason where it has no figure; nothing here judges.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::process::{binary_output, cargo, run as run_command};

const PROOF: &str = "docs/proof/bots.json";
const SEEDS: u64 = 5;
/// Student's t, one-sided, 95 %, for one degree of freedom less than there are seeds.
const T_95: f64 = 2.1318;
/// A machine that was busy with something else voids a run's figures; it is then run again.
const TRIES: usize = 3;
/// Twenty accounts for each of 2,500 units, one in five a bot's, and a spread of a minute and a half.
const SIZE: [&str; 10] =
    ["--shoppers", "40000", "--bots", "10000", "--stock", "2500", "--spread", "90", "--addresses-per-operator", "10"];
const ACCOUNTS_PER_OPERATOR: &str = "25";
/// What of a run's report is kept.
const KEPT: [&str; 16] = [
    "seed",
    "bot_advantage",
    "bot_advantage_expected",
    "bot_advantage_with_returns",
    "bot_request_ratio",
    "share_of_units_by_operator",
    "people",
    "bots",
    "bots_by_kind",
    "stock",
    "spread_seconds",
    "protocol_errors",
    "attempts",
    "orders",
    "latency_ms",
    "reasons",
];

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    // Who gets what does not hang on speed, as long as requests leave in time, so the debug build will do.
    run_command(&mut cargo(root, &["build", "--locked", "--quiet", "--bin", "doorbuster"]))?;
    let mut runs = Vec::new();
    for seed in 1..=SEEDS {
        runs.push(demo(root, seed, &[])?);
    }
    let many = demo(root, SEEDS + 1, &["--accounts-per-operator", ACCOUNTS_PER_OPERATOR])?;
    let figures = json!({
        "bot_advantage": summary(&runs, "bot_advantage"),
        "bot_advantage_with_returns": summary(&runs, "bot_advantage_with_returns"),
        "build": "debug",
        "command": format!("doorbuster demo --exit --json {} --seed N", SIZE.join(" ")),
        "machine": machine(),
        "many_accounts": many,
        "runs": runs,
    });
    let text = serde_json::to_string_pretty(&figures)?;
    std::fs::write(root.join(PROOF), text + "\n").with_context(|| format!("{PROOF} cannot be written"))?;
    eprintln!("bars: {PROOF} is written: bot_advantage {}", figures["bot_advantage"]);
    Ok(())
}

/// The mean over all seeds, and what the true one is below with 95 % confidence. Null unless every seed has its figure.
fn summary(runs: &[Value], figure: &str) -> Value {
    let advantages: Vec<_> = runs.iter().filter_map(|run| run[figure].as_f64()).collect();
    if advantages.len() as u64 != SEEDS {
        let reason = format!("{} of {SEEDS} seeds have a figure", advantages.len());
        return json!({ "mean": null, "upper_95": null, "reason": reason });
    }
    let count = advantages.len() as f64;
    let mean = advantages.iter().sum::<f64>() / count;
    let variance = advantages.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
    json!({ "mean": round(mean), "upper_95": round(mean + T_95 * (variance / count).sqrt()), "seeds": SEEDS })
}

/// One run; again where the machine was too busy to measure.
fn demo(root: &Path, seed: u64, more: &[&str]) -> anyhow::Result<Value> {
    let mut kept = Value::Null;
    for _ in 0..TRIES {
        let report = report(root, seed, more)?;
        ensure!(report["audit"]["ok"] == true, "seed {seed}: the audit is not clean");
        kept = KEPT.iter().map(|key| ((*key).to_owned(), report[*key].clone())).collect();
        if report["void"].is_null() {
            break;
        }
        eprintln!("bars: seed {seed} is void: {}", report["void"]);
    }
    Ok(kept)
}

fn report(root: &Path, seed: u64, more: &[&str]) -> anyhow::Result<Value> {
    let seed = seed.to_string();
    let arguments = [&["demo", "--exit", "--json"], &SIZE[..], &["--seed", &seed], more].concat();
    let output = binary_output(root, &arguments).with_context(|| format!("seed {seed}"))?;
    serde_json::from_slice(&output).context("the demo printed no JSON")
}

/// As the bench says it.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let cpu = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    json!({
        "cpu": cpu.map_or("unknown", |(_, name)| name.trim()),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn summary(advantages: &[f64]) -> Value {
        let runs: Vec<_> = advantages.iter().map(|advantage| json!({ "bot_advantage": advantage })).collect();
        super::summary(&runs, "bot_advantage")
    }

    #[test]
    fn the_bound_is_that_of_students_t_and_a_missing_seed_leaves_no_figure() {
        let bound = summary(&[1.0, 1.1, 1.2, 1.3, 1.4]);
        // Mean 1.2, deviation 0.1581, standard error 0.0707.
        assert_eq!((bound["mean"].as_f64(), bound["upper_95"].as_f64()), (Some(1.2), Some(1.3507)));
        let void = summary(&[1.0, 1.1, 1.2, 1.3]);
        assert!(void["mean"].is_null() && void["reason"] == "4 of 5 seeds have a figure");
    }
}
