//! `cargo xtask instructions`: what a refusal, a pass and a win cost in instructions, against what is written down in `instructions.toml`. A
//! time depends on the machine and on what else it does; a count hardly does.
//!
//! Counted is the difference between making few and making many, over all threads, of the program that CI tests anyway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::process::{cargo, host};

const FILE: &str = "xtask/instructions.toml";
/// What is counted, and how many more are made the second time: so many that what else a process does drowns in them.
const THINGS: [(&str, u64); 3] = [("refusal", 2_000), ("pass", 500), ("win", 1_000)];
/// How many are made the first time, after which everything that is made once is there.
const FEW: u64 = 50;
const TEST: &str = "tests::instructions::so_many_are_made_for_the_instrument";

/// The file: for each target what one thing may cost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tolerance_percent: u64,
    instructions: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Written {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).with_context(|| format!("{FILE} cannot be read"))?;
        toml::from_str(&text).context(FILE)
    }

    /// Why a count is not what is written for this target; a target of which nothing is written allows anything.
    fn judge(&self, target: &str, thing: &str, counted: u64) -> Result<(), String> {
        let Some(written) = self.instructions.get(target).and_then(|things| things.get(thing)).copied() else {
            return Ok(());
        };
        let (allowed, most) =
            (written * self.tolerance_percent / 100, written + written * self.tolerance_percent / 100);
        if counted > most {
            return Err(format!(
                "a {thing} takes {counted} instructions; {FILE} says {written}, and {most} are allowed"
            ));
        }
        if counted + allowed < written {
            return Err(format!(
                "a {thing} takes {counted} instructions only; write that into {FILE}, so that it stays so"
            ));
        }
        Ok(())
    }
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let (written, target, program) = (Written::read(root)?, host()?, program(root)?);
    let mut wrong = Vec::new();
    for (thing, more) in THINGS {
        let (few, many) = std::thread::scope(|scope| {
            let few = scope.spawn(|| count(&program, thing, FEW));
            let many = count(&program, thing, FEW + more);
            few.join().map(|few| (few, many)).map_err(|_| anyhow::anyhow!("counting panicked"))
        })?;
        let each = many?.saturating_sub(few?) / more;
        eprintln!("instructions: {each:>8} per {thing}");
        wrong.extend(written.judge(&target, thing, each).err());
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// The library tests of `web`, built with everything else that CI builds, so that nothing is built twice.
fn program(root: &Path) -> anyhow::Result<PathBuf> {
    let build = ["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-run", "--message-format=json"];
    let output =
        cargo(root, &build).stderr(std::process::Stdio::inherit()).output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages = String::from_utf8(output.stdout).context("cargo does not print text")?;
    let of_web = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_web = message["target"]["name"] == "web" && message["target"]["kind"][0] == "lib";
        message["executable"].as_str().filter(|_| is_web).map(PathBuf::from)
    };
    messages.lines().find_map(of_web).context("cargo built no tests of web")
}

/// Instructions of a whole run that makes so many.
fn count(program: &Path, thing: &str, count: u64) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    command.args(["--exact", TEST, "--test-threads=1"]).env("DOORBUSTER_COUNT", format!("{thing}:{count}"));
    let output = command.output().context("valgrind cannot be started; cargo xtask packages installs it")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{thing}: {}\n{told}", String::from_utf8_lossy(&output.stdout));
    let line = told.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counted nothing")?;
    line.1.trim().parse().with_context(|| format!("{:?} is no count", line.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_beyond_the_tolerance_is_wrong_either_way_and_on_its_target_only() {
        let written: Written = toml::from_str("tolerance_percent = 10\n[instructions.here]\nwin = 1000").unwrap();
        for (counted, is_right) in [(900, true), (1_000, true), (1_100, true), (1_101, false), (899, false)] {
            assert_eq!(written.judge("here", "win", counted).is_ok(), is_right, "{counted}");
            assert!(written.judge("elsewhere", "win", counted).is_ok());
        }
    }
}
