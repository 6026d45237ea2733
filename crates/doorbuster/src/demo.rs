//! `doorbuster demo`: a server process, a crowd process, real HTTP between them, and the audit at the end.

mod cluster;
mod run;
mod screen;
mod stage;
mod tour;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crowd::CrowdOptions;
use serde_json::json;

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// People who come.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    shoppers: u32,
    /// Units on sale.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    stock: u32,
    /// Seconds over which they come, most of them at the opening.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Everything random about the crowd comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Against a cluster that runs on this machine (`cargo xtask cluster up`), given by its folder of nodes.
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "target/services/nodes", conflicts_with = "data")]
    cluster: Option<PathBuf>,
    /// The data folder; default: a new temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End after the report: 0 only if the audit is clean.
    #[arg(long)]
    exit: bool,
    /// The report as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    run::run(args)
}

/// The crowd's process: options on stdin, one JSON line per progress and one for the report on stdout.
pub(crate) fn crowd() -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let options: CrowdOptions = serde_json::from_str(&text)?;
    let mut out = std::io::stdout();
    let report = crowd::run(options, |progress| {
        // Nobody listening any more means that nobody wants the rest either; the report's write will say so.
        let _ = writeln!(std::io::stdout(), "{}", json!({ "progress": progress }));
    })?;
    writeln!(out, "{}", json!({ "report": report }))?;
    Ok(ExitCode::SUCCESS)
}
