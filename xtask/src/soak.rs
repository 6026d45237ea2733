//! `cargo xtask soak`: what takes too long for every change. Its whole output is kept as a proof, failures included.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;

use crate::process::{cargo, run_and_copy};

const PROOF: &str = "docs/proof/soak.txt";

pub(crate) fn run(root: &Path, seeds: u64) -> anyhow::Result<()> {
    let mut proof = File::create(root.join(PROOF)).with_context(|| format!("{PROOF} cannot be written"))?;
    let start = Instant::now();
    writeln!(proof, "cargo xtask soak --seeds {seeds}")?;
    let ended = simulate(root, seeds, &mut proof).and_then(|()| chaos(root, &mut proof));
    let minutes = start.elapsed().as_secs() / 60;
    match &ended {
        Ok(()) => writeln!(proof, "soak: passed in {minutes} minutes")?,
        Err(error) => writeln!(proof, "soak: FAILED after {minutes} minutes: {error:#}")?,
    }
    proof.sync_all()?;
    ended
}

/// The real code with a fake clock and disk, from many seeds.
fn simulate(root: &Path, seeds: u64, proof: &mut File) -> anyhow::Result<()> {
    let seeds = seeds.to_string();
    let mut command = cargo(root, &["run", "--release", "--quiet", "--package", "simulator", "--", "--seeds", &seeds]);
    run_and_copy(&mut command, root, proof)
}

/// The system's tests with `DOORBUSTER_SOAK=1`: the same tests with more rounds, so that nothing lies idle behind a switch.
fn chaos(root: &Path, proof: &mut File) -> anyhow::Result<()> {
    run_and_copy(&mut cargo(root, &["build", "--release", "--quiet", "--package", "doorbuster"]), root, proof)?;
    let mut command = cargo(root, &["test", "--release", "--quiet", "--package", "system-tests", "--", "--nocapture"]);
    run_and_copy(command.env("DOORBUSTER_SOAK", "1"), root, proof)
}
