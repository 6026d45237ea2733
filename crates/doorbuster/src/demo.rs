//! `doorbuster demo`: a server process, a crowd process, real HTTP between them, and the audit at the end.

mod cluster;
mod fairness;
mod run;
mod screen;
mod stage;
mod tour;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crowd::{BotKind, BotOptions, CrowdOptions, Solving};
use serde_json::json;

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// People who come.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    shoppers: u32,
    /// Units on sale; default: 2,000, with bots one for every twenty accounts.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    stock: Option<u32>,
    /// Seconds over which they come, most of them at the opening.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds after the opening over which slots are spread; default: 1, with bots 60.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3_600))]
    spread: Option<u64>,
    /// Accounts of bots that come too. People are then all there at the opening, behind networks and with fingers of their own.
    #[arg(long, value_name = "ACCOUNTS", conflicts_with_all = ["cluster", "seconds"], value_parser = clap::value_parser!(u32).range(1..))]
    bots: Option<u32>,
    /// Accounts of each operator of bots who has many; every other bot is alone.
    #[arg(long, value_name = "ACCOUNTS", default_value_t = 1, requires = "bots", value_parser = clap::value_parser!(u32).range(1..))]
    accounts_per_operator: u32,
    /// Addresses of each bot that has many.
    #[arg(long, value_name = "ADDRESSES", default_value_t = 20, requires = "bots", value_parser = clap::value_parser!(u32).range(1..))]
    addresses_per_operator: u32,
    /// A human check before everybody's first pass, as a time that it takes: `proof-of-work` or `answer`.
    #[arg(long, value_name = "CHECK", requires = "bots", value_parser = solving)]
    solving: Option<Solving>,
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

impl DemoArgs {
    fn bots(&self) -> Option<BotOptions> {
        Some(BotOptions {
            kinds: BotKind::ALL.into(),
            accounts: self.bots?,
            accounts_per_operator: self.accounts_per_operator,
            addresses_per_operator: self.addresses_per_operator,
            solving: self.solving,
        })
    }

    fn stock(&self) -> u32 {
        let default = self.bots.map_or(2_000, |bots| (self.shoppers.saturating_add(bots) / 20).max(1));
        self.stock.unwrap_or(default)
    }

    /// In seconds. With bots it is what a shop would take that minds them; docs/fairness.md says why.
    fn spread(&self) -> u64 {
        self.spread.unwrap_or(if self.bots.is_some() { 60 } else { 1 })
    }
}

fn solving(name: &str) -> Result<Solving, String> {
    let names = Solving::ALL.map(Solving::name);
    let known = Solving::ALL.into_iter().find(|solving| solving.name() == name);
    known.ok_or_else(|| format!("it is one of {}", names.join(", ")))
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
