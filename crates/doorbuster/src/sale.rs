//! `doorbuster sale`: the operator's commands, sent to the running server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use domain::SaleDefinition;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ConfigArgs;
use crate::config::Settings;
use crate::data_client::Operator;
use crate::human_check::{self, CheckName};
use crate::{report, showcase};

#[derive(Subcommand)]
pub(crate) enum SaleCommand {
    /// Create a sale from a TOML or JSON file.
    Create {
        /// The definition; examples/sale.toml shows one.
        file: PathBuf,
        #[command(flatten)]
        to: Target,
    },
    /// Create a sale from a file, or find that it is there with the same definition; may be repeated.
    Apply {
        /// The definition; examples/sale.toml shows one.
        file: PathBuf,
        #[command(flatten)]
        to: Target,
    },
    /// List all sales.
    List {
        #[command(flatten)]
        to: Target,
    },
    /// Print all orders of a sale, for your own systems.
    Orders {
        /// The sale's name.
        sale: String,
        /// csv (harmless in a spreadsheet) or json.
        #[arg(long, value_name = "FORMAT", value_parser = ["csv", "json"])]
        format: String,
        /// Write them to a file, which appears when it is whole.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say what a sale's page shows beside its definition, and who may embed it.
    Showcase {
        /// The sale's name.
        sale: String,
        /// A TOML or JSON file; examples/showcase.toml shows one. What it does not name is empty afterwards. Without it, print what is set.
        file: Option<PathBuf>,
        #[command(flatten)]
        to: Target,
    },
    /// Choose what customers have to do before their first pass, against programs; see docs/human-checks.md.
    HumanCheck {
        /// The sale's name.
        sale: String,
        /// What it is.
        check: CheckName,
        #[command(flatten)]
        to: Target,
    },
    /// Show a picture beside an item.
    Picture {
        /// The sale's name.
        sale: String,
        /// The item's name.
        item: String,
        /// A JPEG, PNG or WebP file of 8 MiB at most; small files without any metadata are made of it.
        #[arg(required_unless_present = "remove", conflicts_with = "remove")]
        file: Option<PathBuf>,
        /// Take the picture away.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        to: Target,
    },
    /// Stop purchases; holds can still be paid and given back.
    Pause(Turn),
    /// Let purchases go on.
    Resume(Turn),
    /// End the granting of holds for good.
    Close(Turn),
    /// Settle a closed sale without open holds.
    Settle(Turn),
    /// Make a settled sale's customers unknown for good: nobody can tell any more who bought. Orders, chain and proofs stay.
    Anonymise(Turn),
    /// In a cluster: have one process decide in Redis's place, for as long as you say.
    Takeover(Turn),
    /// In a cluster: let Redis decide when it is well, and one process while it is not.
    Automatic(Turn),
}

#[derive(Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Turn {
    /// The sale's name.
    sale: String,
    #[command(flatten)]
    to: Target,
}

pub(crate) fn run(command: SaleCommand) -> anyhow::Result<ExitCode> {
    let (to, method, path, body) = match command {
        SaleCommand::Create { file, to } => {
            let definition = serde_json::to_value(read_definition(&file)?)?;
            (to, Method::POST, "/admin/v1/sales".to_owned(), Some(definition))
        }
        SaleCommand::Apply { file, to } => {
            let definition = read_definition(&file)?;
            let path = format!("/admin/v1/sales/{}", definition.sale);
            (to, Method::PUT, path, Some(serde_json::to_value(definition)?))
        }
        SaleCommand::Orders { sale, format, out, config } => {
            return export(&config, &format!("/admin/v1/sales/{sale}/orders.{format}"), out.as_deref());
        }
        SaleCommand::Showcase { sale, file, to } => return showcase::set(&sale, file.as_deref(), &to),
        SaleCommand::HumanCheck { sale, check, to } => return human_check::set(&sale, check, &to),
        // `remove` is there exactly where there is no file.
        SaleCommand::Picture { sale, item, file, remove: _, to } => {
            return showcase::picture(&sale, &item, file.as_deref(), &to);
        }
        SaleCommand::List { to } => (to, Method::GET, "/admin/v1/sales".to_owned(), None),
        SaleCommand::Pause(turn) => turned(turn, "pause"),
        SaleCommand::Resume(turn) => turned(turn, "resume"),
        SaleCommand::Close(turn) => turned(turn, "close"),
        SaleCommand::Settle(turn) => turned(turn, "settle"),
        SaleCommand::Anonymise(turn) => turned(turn, "anonymise"),
        SaleCommand::Takeover(turn) => turned(turn, "takeover"),
        SaleCommand::Automatic(turn) => turned(turn, "automatic"),
    };
    let settings = Settings::load(&to.config)?;
    let answer = Operator::of(&settings.data.folder)?.ask(method, &path, body.as_ref())?;
    if to.json {
        return report::json(&answer);
    }
    let sales = answer.as_array().cloned().unwrap_or_else(|| vec![answer]);
    if sales.is_empty() {
        report::say("There are no sales yet. Create one with: doorbuster sale create FILE");
    }
    for sale in sales {
        report::say(&describe(&sale));
    }
    Ok(ExitCode::SUCCESS)
}

fn export(config: &ConfigArgs, path: &str, out: Option<&Path>) -> anyhow::Result<ExitCode> {
    let operator = Operator::of(&Settings::load(config)?.data.folder)?;
    let Some(out) = out else {
        operator.download(path, &mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut unfinished = out.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = Path::new(&unfinished);
    let mut file = File::create(unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
    let written = operator.download(path, &mut file).and_then(|()| {
        file.sync_all()
            .and_then(|()| std::fs::rename(unfinished, out))
            .with_context(|| format!("cannot write {}", out.display()))
    });
    if written.is_err() {
        // A part must not be taken for the whole, and nobody needs it.
        let _ = std::fs::remove_file(unfinished);
    }
    written.map(|()| ExitCode::SUCCESS)
}

fn turned(turn: Turn, action: &str) -> (Target, Method, String, Option<Value>) {
    (turn.to, Method::POST, format!("/admin/v1/sales/{}/{action}", turn.sale), None)
}

/// Reads a TOML file, or a JSON one if its name says so.
pub(crate) fn read<T: DeserializeOwned>(file: &Path, what: &str) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    let read = if is_json {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::from)
    };
    read.with_context(|| format!("{} is not a {what}", file.display()))
}

fn read_definition(file: &Path) -> anyhow::Result<SaleDefinition> {
    let definition: SaleDefinition = read(file, "sale")?;
    definition.validate().map_err(|rule| anyhow::anyhow!("{}: {rule}", file.display()))?;
    Ok(definition)
}

fn describe(sale: &Value) -> String {
    let text = |key: &str| sale[key].as_str().unwrap_or("-").to_owned();
    let paused = sale["pause_reason"].as_str().map(|reason| format!(", paused ({reason})")).unwrap_or_default();
    let test = if sale["test"] == true { "  TEST" } else { "" };
    let relay = sale["relay"].as_str().map_or_else(|| "nobody heard".to_owned(), |process| format!("relay {process}"));
    let rung = sale["rung"].as_str().map(|rung| format!("  rung {rung} ({relay})")).unwrap_or_default();
    let unknown = if sale["anonymised_at"].is_string() { "  customers unknown" } else { "" };
    let books = sale["books_lag"].as_u64().map(|lag| format!("  books {lag} behind")).unwrap_or_default();
    let mut lines = format!(
        "{}{test}  {}{paused}  opens {}  closes {}  record {}{books}{rung}{unknown}",
        text("sale"),
        text("phase"),
        text("opens_at"),
        text("closes_at"),
        sale["position"],
    );
    for item in sale["counts"].as_array().into_iter().flatten() {
        lines.push_str(&format!(
            "\n    {}  {} units: {} free, {} held, {} sold, {} withdrawn",
            item["item"].as_str().unwrap_or("-"),
            item["total"],
            item["free"],
            item["held"],
            item["sold"],
            item["withdrawn"],
        ));
    }
    lines
}
