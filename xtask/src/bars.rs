//! `cargo xtask bars`: the bench at full length. The figures are kept as they were printed; nothing here judges or rounds them.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::process::cargo;

const PROOF: &str = "docs/proof/bars.json";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let output =
        cargo(root, &["run", "--release", "--quiet", "--package", "doorbuster", "--", "bench", "--json", "--full"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .context("the bench cannot be started")?;
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the bench ({}) printed no JSON", output.status))?;
    let text = serde_json::to_string_pretty(&figures)?;
    std::fs::write(root.join(PROOF), text + "\n").with_context(|| format!("{PROOF} cannot be written"))?;
    if !output.status.success() {
        bail!("the bench failed: {}", output.status);
    }
    eprintln!("bars: {PROOF} is written");
    Ok(())
}
