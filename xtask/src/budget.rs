//! Minutes per suite of `cargo xtask ci`, from `xtask/budget.toml`. A suite that takes far longer fails, even when all of it passed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

/// What all suites together are planned to take on two cores.
const MINUTES_MAX: f64 = 40.0;
/// Times its plan that a suite may take: a machine may be slow or busy, and a suite that hangs or has doubled is still seen.
const SUITE_TOLERANCE: f64 = 2.0;
/// The same for all of them, since one that was late is made up for by others.
const SUM_TOLERANCE: f64 = 1.5;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    minutes: BTreeMap<String, f64>,
}

impl Budget {
    /// Reads and checks the file: exactly these suites, and a sum within the project's limit.
    pub(crate) fn read(root: &Path, suites: &[&str]) -> anyhow::Result<Self> {
        let path = root.join("xtask/budget.toml");
        let text = std::fs::read_to_string(&path).context("xtask/budget.toml cannot be read")?;
        let budget: Self = toml::from_str(&text).context("xtask/budget.toml")?;
        budget.check(suites)?;
        Ok(budget)
    }

    fn check(&self, suites: &[&str]) -> anyhow::Result<()> {
        for suite in suites {
            ensure!(self.minutes.contains_key(*suite), "xtask/budget.toml has no minutes for the suite {suite:?}");
        }
        for suite in self.minutes.keys() {
            ensure!(suites.contains(&suite.as_str()), "xtask/budget.toml names {suite:?}, which is no suite");
        }
        let sum: f64 = self.minutes.values().sum();
        ensure!(sum <= MINUTES_MAX, "xtask/budget.toml adds up to {sum} minutes; {MINUTES_MAX} are allowed");
        Ok(())
    }

    /// What a suite is planned to take.
    pub(crate) fn of(&self, suite: &str) -> Duration {
        Duration::from_secs_f64(self.minutes.get(suite).copied().unwrap_or(0.0) * 60.0)
    }

    /// Gives the time back if the suite may take as long.
    pub(crate) fn check_time(&self, suite: &str, took: Duration) -> anyhow::Result<Duration> {
        check_time(&format!("the suite {suite:?}"), took, self.of(suite), SUITE_TOLERANCE)?;
        Ok(took)
    }

    /// Whether all suites together may take as long.
    pub(crate) fn check_sum(&self, took: Duration) -> anyhow::Result<()> {
        let planned = Duration::from_secs_f64(self.minutes.values().sum::<f64>() * 60.0);
        check_time("the whole run", took, planned, SUM_TOLERANCE)
    }
}

fn check_time(what: &str, took: Duration, planned: Duration, tolerance: f64) -> anyhow::Result<()> {
    let allowed = planned.mul_f64(tolerance);
    ensure!(
        took < allowed,
        "{what} took {:.0} s; xtask/budget.toml plans {:.0} s, and {:.0} s are let pass",
        took.as_secs_f64(),
        planned.as_secs_f64(),
        allowed.as_secs_f64()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Budget;

    fn check(text: &str, suites: &[&str]) -> Result<(), String> {
        let budget: Budget = toml::from_str(text).map_err(|error| error.to_string())?;
        budget.check(suites).map_err(|error| error.to_string())
    }

    #[test]
    fn a_budget_names_every_suite_once_and_stays_within_the_sum() {
        assert_eq!(check("[minutes]\nlint = 30\ntests = 10", &["lint", "tests"]), Ok(()));
        assert!(check("[minutes]\nlint = 30\ntests = 11", &["lint", "tests"]).unwrap_err().contains("41 minutes"));
        assert!(check("[minutes]\nlint = 30", &["lint", "tests"]).unwrap_err().contains("\"tests\""));
        assert!(check("[minutes]\nlint = 3\nother = 1", &["lint"]).unwrap_err().contains("\"other\""));
        assert!(check("[seconds]\nlint = 3", &["lint"]).is_err());
    }

    #[test]
    fn a_suite_far_beyond_its_minutes_fails_and_so_does_the_whole_run() {
        let budget: Budget = toml::from_str("[minutes]\nlint = 2\ntests = 2").unwrap();
        assert!(budget.check_time("lint", Duration::from_secs(239)).is_ok());
        assert!(budget.check_time("lint", Duration::from_secs(240)).unwrap_err().to_string().contains("plans 120 s"));
        assert!(budget.check_sum(Duration::from_secs(359)).is_ok());
        assert!(budget.check_sum(Duration::from_secs(360)).unwrap_err().to_string().contains("plans 240 s"));
    }
}
