//! The smoke over speed: the real binary against the bare server, short, and half of each ratio is enough. What a quiet machine reaches
//! is for `cargo xtask bars`; a build machine is noisy, so a run that misses is repeated.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::process::binary_output;

/// Figure and half of its bar.
const HALVES: [(&str, f64); 2] = [("refusals_vs_bare", 0.425), ("wins_vs_bare", 0.3)];
const TRIES: usize = 3;

/// Fails only when the same figure misses half of its bar in every try.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    for (figure, half) in HALVES {
        let mut seen = Vec::new();
        while seen.len() < TRIES
            && !seen.last().is_some_and(|ratio: &Option<f64>| ratio.is_none_or(|ratio| ratio >= half))
        {
            seen.push(measure(root, figure)?);
        }
        match seen.last().copied().flatten() {
            Some(ratio) if ratio < half => {
                bail!("{figure} is {ratio:.2} in every one of {TRIES} tries; at least {half} is expected here")
            }
            Some(ratio) => eprintln!("ci: {figure} {ratio:.2} (at least {half})"),
            None => {}
        }
    }
    Ok(())
}

/// The figure; `None` where this machine cannot measure it, which is said and is no failure.
fn measure(root: &Path, figure: &str) -> anyhow::Result<Option<f64>> {
    let folder = root.join("target/smoke");
    let folder = folder.to_str().context("the checkout's path must be UTF-8")?;
    let output = binary_output(root, &["bench", "--json", "--only", figure, "--data", folder])?;
    let outcome: Value = serde_json::from_slice(&output).context("the bench's JSON cannot be read")?;
    let ratio = outcome[figure].as_f64();
    if ratio.is_none() {
        eprintln!("ci: {figure} was not measured: {}", outcome["reasons"][figure]);
    }
    if outcome["audits_clean"] == false {
        bail!("{figure}: the audit of the measured run is not clean");
    }
    Ok(ratio)
}
