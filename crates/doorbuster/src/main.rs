//! The binary: reads the command line and hands over to one file per command. No logic of a sale lives here.

mod audit;
mod block;
mod cluster;
mod config;
mod customer;
mod data_client;
mod demo;
mod human_check;
mod identity;
mod limits;
mod overload;
mod pages;
mod pass_key;
mod preflight;
mod report;
mod sale;
mod serve;
mod showcase;
mod till;
mod token;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A flash-sale engine: every unit sold once, every order kept, and the proof of both.
#[derive(Parser)]
#[command(name = "doorbuster", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// Options of every command that needs the configuration.
#[derive(Args, Clone, Debug)]
struct ConfigArgs {
    /// A TOML file over the built-in defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One key over everything else, for example --set public.address=127.0.0.1:9000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The data folder; the same as --set data.folder=DIR.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Watch a crowd buy out a sale on this machine, and read the proof.
    Demo(demo::DemoArgs),
    /// Run the engine.
    Serve {
        #[command(flatten)]
        config: ConfigArgs,
        /// This process's part in a cluster; may be given several times. Default: cluster.roles of the configuration.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<config::Role>,
        /// End when the parent process ends.
        #[arg(long, hide = true)]
        with_parent: bool,
    },
    /// Create, list, pause, resume, close or settle sales, and say what their pages show.
    Sale {
        #[command(subcommand)]
        command: sale::SaleCommand,
    },
    /// Make, list and revoke admin tokens.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Change the key that passes are made with.
    PassKey {
        #[command(subcommand)]
        command: pass_key::PassKeyCommand,
    },
    /// Erase a customer.
    Customer {
        #[command(subcommand)]
        command: customer::CustomerCommand,
    },
    /// Refuse addresses, networks and customers: add, list, remove.
    Block {
        #[command(subcommand)]
        command: block::BlockCommand,
    },
    /// Have events delivered to the shop: add, list, rotate, replay, pause, resume, remove.
    Webhook {
        #[command(subcommand)]
        command: webhook::WebhookCommand,
    },
    /// Check every promise from outside: the chain's bytes against the books, and clients' notes against both.
    Audit(audit::AuditArgs),
    /// Work with a chain.
    Log {
        #[command(subcommand)]
        command: audit::LogCommand,
    },
    /// Prove an exported chain offline.
    Verify(audit::VerifyArgs),
    /// Measure this machine: every figure with its method, side by side with a bare server and PostgreSQL.
    Bench(report::BenchArgs),
    /// Print the configuration in force, with the file's own words.
    Config {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Print the catalogue of all words that customers read, in English, instead.
        #[arg(long, conflicts_with = "json")]
        words: bool,
    },
    /// Check this machine before a sale.
    Preflight {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// The crowd's own process.
    #[command(hide = true)]
    Crowd,
    /// A process of the bench.
    #[command(hide = true)]
    BenchChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            report::say_error(&report::words(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve { config, roles, with_parent } => {
            if with_parent {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            }
            let mut settings = Settings::load(&config)?;
            if !roles.is_empty() {
                anyhow::ensure!(settings.is_cluster(), "--role: only for a cluster; give its servers with --config");
                settings.cluster.roles = roles;
            }
            serve::run(&settings)
        }
        Command::Sale { command } => sale::run(command),
        Command::Token { command } => token::run(command),
        Command::PassKey { command } => pass_key::run(command),
        Command::Customer { command } => customer::run(command),
        Command::Block { command } => block::run(command),
        Command::Webhook { command } => webhook::run(command),
        Command::Audit(args) => audit::run(&args),
        Command::Log { command } => audit::export(&command),
        Command::Verify(args) => audit::verify(&args),
        Command::Bench(args) => report::bench(&args),
        Command::Config { words: true, .. } => {
            report::say(pages::words());
            Ok(ExitCode::SUCCESS)
        }
        Command::Config { config, json, .. } => report::config(&Settings::load(&config)?, json),
        Command::Preflight { config, json } => preflight::run(&Settings::load(&config)?, json),
        Command::Openapi => report::json(&web::openapi()),
        Command::Crowd => demo::crowd(),
        Command::BenchChild { args } => bench::child(&args).map(|()| ExitCode::SUCCESS),
    }
}
