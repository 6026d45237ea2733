//! The repository's own commands: `cargo xtask ci`, `tidy`, `packages`, `soak`, `bars`, `fuzz`, `instructions`, `screenshots`, `services`,
//! `cluster`. Nothing of the engine is in here.

mod bars;
mod bots;
mod budget;
mod ci;
mod cluster;
mod fuzz;
mod instructions;
mod packages;
mod process;
mod screenshots;
mod services;
mod smoke;
mod soak;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Checks and proofs of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that a change has to pass: packages, format, lints, tidy, build, documentation tests, tests.
    Ci,
    /// Sizes, file heads, names, marks, and what the documents name.
    Tidy,
    /// Install what tests need and cargo does not bring; without root, say what is missing.
    Packages,
    /// Long simulation and long chaos; the output goes to `docs/proof/soak.txt`.
    Soak {
        /// How many seeds the simulation runs.
        #[arg(long, default_value_t = 100_000)]
        seeds: u64,
    },
    /// Any bytes against everything that reads some, guided by what they reach; inputs are kept in `target/fuzz/inputs`.
    Fuzz {
        /// How long each test runs.
        #[arg(long, default_value_t = 5)]
        minutes: u64,
    },
    /// What a refusal, a pass and a win cost in instructions, against `xtask/instructions.toml`.
    Instructions,
    /// The figures of the bench at full length, and those of crowds with bots; they go to `docs/proof`.
    Bars {
        /// Only those with bots, which take a quarter of an hour.
        #[arg(long)]
        bots: bool,
    },
    /// Pictures of every page, in every width and scheme; they go to `docs/pages`.
    Screenshots,
    /// A whole cluster on this machine: the servers of `services`, two gates, a relay and two workers.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Private Redis, NATS and PostgreSQL servers on loopback ports of this machine.
    Services {
        #[command(subcommand)]
        command: ServicesCommand,
        /// Where they live; `target/services` without it.
        #[arg(long, global = true)]
        folder: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Start what is not running yet; returns when everything serves.
    Up,
    /// End it all and remove what it wrote.
    Down,
}

#[derive(Subcommand)]
enum ServicesCommand {
    /// Start them all; returns when they are ready, and writes `cluster.toml`.
    Up,
    /// End them all and remove what they wrote.
    Down,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = root()?;
    match arguments.command {
        Command::Ci => return ci::run(&root),
        Command::Tidy => tidy::run(&root)?,
        Command::Packages => packages::check(&root)?,
        Command::Soak { seeds } => soak::run(&root, seeds)?,
        Command::Fuzz { minutes } => fuzz::run(&root, minutes)?,
        Command::Instructions => instructions::run(&root)?,
        Command::Bars { bots: true } => bots::run(&root)?,
        Command::Bars { bots: false } => bars::run(&root).and_then(|()| bots::run(&root))?,
        Command::Screenshots => screenshots::run(&root)?,
        Command::Cluster { command: ClusterCommand::Up } => cluster::up(&root)?,
        Command::Cluster { command: ClusterCommand::Down } => services::down(&root, None)?,
        Command::Services { command: ServicesCommand::Up, folder } => services::up(&root, folder)?,
        Command::Services { command: ServicesCommand::Down, folder } => services::down(&root, folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The repository's folder: the parent of this package's, which cargo names.
fn root() -> anyhow::Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let package = PathBuf::from(package);
    Ok(package.parent().context("xtask lies in the repository's folder")?.to_owned())
}
