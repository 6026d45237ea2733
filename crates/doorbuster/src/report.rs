//! What the commands print: words for people, JSON for programs, progress on stderr.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

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
    /// A folder on a real disk for the bench's own data; removed afterwards.
    #[arg(long, value_name = "DIR", default_value = "doorbuster-bench")]
    data: PathBuf,
}

/// Prints a result. A reader that has gone away, such as `head`, wants no more of it.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[expect(clippy::print_stderr, reason = "the one place that prints progress")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "the one place that prints errors")]
pub(crate) fn say_error(text: &str) {
    eprintln!("doorbuster: {text}");
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
    let options =
        bench::BenchOptions { json: args.json, full: args.full, only: args.only.clone(), data: args.data.clone() };
    let outcome = bench::run(options, progress)?;
    if args.json {
        json(&outcome)?;
    }
    // A void figure is no failure, a broken promise is.
    Ok(if outcome["audits_clean"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
