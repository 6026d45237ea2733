//! `cargo xtask bars`: the bench at full length. The figures are kept as they were printed; nothing here judges or rounds them.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use services::process::Life;

use crate::process::cargo;

const PROOF: &str = "docs/proof/bars.json";
const CLUSTER_PROOF: &str = "docs/proof/bars-cluster.json";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    figures(root, &["--full"], PROOF)?;
    let folder = root.join("target/bars");
    services::down(&folder)?;
    let cluster = services::up(Life::Ours, &folder, &services::nats::program(), &|part| eprintln!("bars: {part}"))?;
    let outcome = figures(root, &["--cluster", &cluster.file.to_string_lossy()], CLUSTER_PROOF);
    drop(cluster);
    services::down(&folder)?;
    outcome
}

/// Runs the bench and keeps what it prints.
fn figures(root: &Path, arguments: &[&str], proof: &str) -> anyhow::Result<()> {
    let bench = ["run", "--release", "--quiet", "--package", "doorbuster", "--", "bench", "--json"];
    let output = cargo(root, &bench)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("the bench cannot be started")?;
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the bench ({}) printed no JSON", output.status))?;
    let text = serde_json::to_string_pretty(&figures)?;
    std::fs::write(root.join(proof), text + "\n").with_context(|| format!("{proof} cannot be written"))?;
    if !output.status.success() {
        bail!("the bench failed: {}", output.status);
    }
    eprintln!("bars: {proof} is written");
    Ok(())
}
