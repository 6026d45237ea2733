//! What the commands print: words for people, JSON for programs, progress on stderr.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::ConfigArgs;
use crate::config::{DEFAULTS, Settings};

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
    /// Also the figures over one and ten million customers, which take long.
    #[arg(long)]
    full: bool,
    /// Only these figures; may be given several times.
    #[arg(long, value_name = "FIGURE")]
    only: Vec<String>,
    /// The figures of a cluster instead, on the servers that FILE names; `cargo xtask services up` starts some on this machine.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "target/services/cluster.toml")]
    cluster: Option<PathBuf>,
    /// A folder on a real disk for the bench's own data; removed afterwards.
    #[arg(long, value_name = "DIR", default_value = "doorbuster-bench")]
    data: PathBuf,
}

/// Prints a result. A reader that has gone away, such as `head`, wants no more of it.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints what the operator's interface answered: one entry, a list of them, or the one that is gone.
pub(crate) fn entries(
    answer: Value,
    is_gone: bool,
    empty: &str,
    describe: impl Fn(&Value) -> String,
) -> anyhow::Result<ExitCode> {
    if is_gone {
        say(&format!("{} is gone", text(&answer["id"])));
        return Ok(ExitCode::SUCCESS);
    }
    let entries = answer.as_array().cloned().unwrap_or_else(|| vec![answer]);
    if entries.is_empty() {
        say(empty);
    }
    entries.iter().for_each(|entry| say(&describe(entry)));
    Ok(ExitCode::SUCCESS)
}

/// A field's text, or a dash where there is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[expect(clippy::print_stderr, reason = "the one place that prints progress")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "the one place that prints errors")]
pub(crate) fn say_error(text: &str) {
    eprintln!("doorbuster: {text}");
}

/// An error with its causes, each said once: many of our errors have their cause's words in their own already, for whoever logs them.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
    }
    words
}

pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<ExitCode> {
    say(&serde_json::to_string_pretty(value)?);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn config(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let shown = settings.without_secrets();
    if as_json {
        return json(&shown);
    }
    say(DEFAULTS.trim_end());
    say("\n# ---- in force now ----\n");
    say(toml::to_string(&shown)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(configuration) = &args.cluster {
        return bench_cluster(args, configuration);
    }
    let options =
        bench::BenchOptions { json: args.json, full: args.full, only: args.only.clone(), data: args.data.clone() };
    let outcome = bench::run(options, progress)?;
    if args.json {
        json(&outcome)?;
    }
    // A void figure is no failure, a broken promise is.
    Ok(if outcome["audits_clean"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bench_cluster(args: &BenchArgs, configuration: &Path) -> anyhow::Result<ExitCode> {
    let config = ConfigArgs {
        config: Some(configuration.to_owned()),
        // Nobody else's sales are on these servers under this name.
        set: vec![format!("cluster.name=bench-{}", std::process::id())],
        data: None,
    };
    let settings = Settings::load(&config)?;
    let settings = settings.cluster_settings()?.with_context(|| {
        format!("{} names no servers of a cluster; start some with `cargo xtask services up`", configuration.display())
    })?;
    let options =
        bench::ClusterBenchOptions { settings, configuration: configuration.to_owned(), data: args.data.clone() };
    let outcome = bench::run_cluster(options, progress)?;
    if args.json {
        json(&outcome)?;
    } else {
        for (key, value) in outcome.as_object().into_iter().flatten().filter(|(_, value)| !value.is_array()) {
            say(&format!("{key:<32} {value}"));
        }
    }
    Ok(if outcome["audits_clean"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::words;

    /// As `thiserror` makes them of a message that tells its source.
    #[derive(Debug)]
    struct Telling(io::Error);

    impl std::fmt::Display for Telling {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "drop.chain: {}", self.0)
        }
    }

    impl std::error::Error for Telling {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_says_every_cause_once() {
        let telling = || Telling(io::Error::other("no such file"));
        assert_eq!(words(&telling().into()), "drop.chain: no such file");
        assert_eq!(words(&Err::<(), _>(telling()).context("verify").unwrap_err()), "verify: drop.chain: no such file");
        let silent = Err::<(), _>(io::Error::other("no such file")).context("cannot read drop.toml").unwrap_err();
        assert_eq!(words(&silent), "cannot read drop.toml: no such file");
    }
}
