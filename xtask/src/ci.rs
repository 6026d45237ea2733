//! `cargo xtask ci`: every suite in order, each within its budget. The last thing on the screen is the test runner's closing line.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::budget::Budget;
use crate::process::{cargo, run as run_command, succeeds};
use crate::{instructions, packages, smoke, tidy};

struct Suite {
    name: &'static str,
    run: fn(&Path) -> anyhow::Result<()>,
}

/// What needs no compiler comes first; the tests follow after these.
const SUITES: [Suite; 11] = [
    Suite { name: "packages", run: packages::check },
    Suite { name: "format", run: format },
    Suite { name: "tidy", run: tidy::run },
    Suite { name: "lint", run: lint },
    Suite { name: "build", run: build },
    Suite { name: "documentation", run: documentation },
    Suite { name: "instructions", run: instructions::run },
    Suite { name: "smoke", run: smoke::run },
    Suite { name: "browser", run: browser },
    Suite { name: "http-on-cluster", run: crate::cluster::http_suite },
    Suite { name: "cluster", run: cluster },
];
const TESTS: &str = "tests";

/// Whether everything passed. After the tests nothing is printed, passed or failed, unless they took too long.
pub(crate) fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let mut names = SUITES.map(|suite| suite.name).to_vec();
    names.push(TESTS);
    let budget = Budget::read(root, &names)?;
    let mut times = Vec::new();
    for suite in &SUITES {
        let start = announce(suite.name, &budget);
        (suite.run)(root).with_context(|| format!("the suite {:?} failed", suite.name))?;
        times.push((suite.name, budget.check_time(suite.name, start.elapsed())?));
    }
    let so_far = print_times(&times, &budget);
    let start = announce(TESTS, &budget);
    let passed = tests(root)?;
    budget.check_sum(so_far + budget.check_time(TESTS, start.elapsed())?)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn announce(suite: &str, budget: &Budget) -> Instant {
    eprintln!("ci: {suite} (planned: {} s)", budget.of(suite).as_secs());
    Instant::now()
}

/// Printed before the last suite, so that the runner's closing line stays the last. Gives the sum.
fn print_times(times: &[(&str, Duration)], budget: &Budget) -> Duration {
    for (name, took) in times {
        eprintln!("ci: {name:<14} {:>7.1} s, planned {:>4} s", took.as_secs_f64(), budget.of(name).as_secs());
    }
    let sum: Duration = times.iter().map(|(_, took)| *took).sum();
    eprintln!("ci: so far      {:>7.1} s", sum.as_secs_f64());
    sum
}

fn format(root: &Path) -> anyhow::Result<()> {
    run_command(&mut cargo(root, &["fmt", "--all", "--check"]))
}

fn lint(root: &Path) -> anyhow::Result<()> {
    run_command(&mut cargo(root, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// The binaries too, because the system's tests start the real one. Always the whole workspace, here and in the suites that follow: for a
/// single package, dependencies get other features and are built once more.
fn build(root: &Path) -> anyhow::Result<()> {
    run_command(&mut cargo(root, &["build", "--workspace", "--bins", "--locked"]))?;
    run_command(&mut cargo(root, &["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-run"]))
}

fn documentation(root: &Path) -> anyhow::Result<()> {
    run_command(&mut cargo(root, &["test", "--workspace", "--doc", "--locked", "--quiet"]))
}

/// The pages, in one Chromium. It has processes of its own, so more than two tests at a time would only wait for each other.
fn browser(root: &Path) -> anyhow::Result<()> {
    let test = ["test", "--quiet", "--locked", "--workspace", "--test", "browser", "--", "--test-threads=2"];
    run_command(&mut cargo(root, &test))
}

/// The faults of a cluster. In one process, whatever else runs tests here: it takes half a minute to start a cluster.
fn cluster(root: &Path) -> anyhow::Result<()> {
    run_command(&mut cargo(root, &["test", "--quiet", "--locked", "--workspace", "--test", "cluster"]))
}

/// Whether all tests passed. One closing line for all of them where nextest is installed, cargo's own runner elsewhere.
fn tests(root: &Path) -> anyhow::Result<bool> {
    let has_nextest = succeeds(&mut cargo(root, &["nextest", "--version"]));
    let runner: &[&str] = if has_nextest { &["nextest", "run"] } else { &["test"] };
    let what = ["--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"];
    // Suites of their own ran them. Without nextest they run again, which costs time and nothing else.
    let but_not: &[&str] = if has_nextest { &["-E", "not binary(cluster) and not binary(browser)"] } else { &[] };
    let status = cargo(root, runner).args(what).args(but_not).status().context("the tests cannot be started")?;
    Ok(status.success())
}
