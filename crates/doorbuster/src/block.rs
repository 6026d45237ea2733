//! `doorbuster block`: who is refused, managed at the running server.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

#[derive(Subcommand)]
pub(crate) enum BlockCommand {
    /// Refuse an address, a network or a customer, in place of the entry that they have.
    Add {
        /// An address or a network, for example 203.0.113.0/24 or 2001:db8::/32.
        address: Option<String>,
        /// Instead of an address: the customer as the shop's tokens name them (sub).
        #[arg(long, requires = "issuer", conflicts_with = "address")]
        subject: Option<String>,
        /// With --subject: the shop as its tokens name it (iss).
        #[arg(long, requires = "subject")]
        issuer: Option<String>,
        /// Why; whoever is blocked is not told.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long; without it until it is removed.
        #[arg(long, value_name = "SECONDS")]
        expires_in_seconds: Option<u64>,
        #[command(flatten)]
        to: Target,
    },
    /// List who is refused. Customers are shown by a keyed hash.
    List {
        #[command(flatten)]
        to: Target,
    },
    /// End an entry.
    Remove {
        /// The id that `block list` shows.
        id: String,
        #[command(flatten)]
        to: Target,
    },
}

pub(crate) fn run(command: BlockCommand) -> anyhow::Result<ExitCode> {
    const PATH: &str = "/admin/v1/blocks";
    let (to, method, path, body) = match command {
        BlockCommand::Add { address: None, subject: None, .. } => {
            bail!("say whom: an address or a network, or --issuer and --subject")
        }
        BlockCommand::Add { address, subject, issuer, reason, expires_in_seconds, to } => {
            let mut body = json!({ "reason": reason });
            for (field, value) in [("address", address), ("subject", subject), ("issuer", issuer)] {
                if let Some(value) = value {
                    body[field] = value.into();
                }
            }
            if let Some(seconds) = expires_in_seconds {
                body["expires_in_seconds"] = seconds.into();
            }
            (to, Method::POST, PATH.to_owned(), Some(body))
        }
        BlockCommand::List { to } => (to, Method::GET, PATH.to_owned(), None),
        BlockCommand::Remove { id, to } => (to, Method::DELETE, format!("{PATH}/{id}"), None),
    };
    let (lists, removes) = (method == Method::GET, method == Method::DELETE);
    let settings = Settings::load(&to.config)?;
    let operator = Operator::of(&settings.data.folder)?;
    let answer = operator.ask(method, &path, body.as_ref())?;
    if to.json {
        return report::json(&answer);
    }
    let code = report::entries(answer, removes, "Nobody is blocked.", describe)?;
    if lists && let Some(count @ 1..) = automatic(&operator)? {
        report::say(&format!(
            "Addresses that get no pass and buy nothing for a while, because they went on although they were refused: {count}"
        ));
    }
    Ok(code)
}

/// How many addresses the server blocks by itself.
fn automatic(operator: &Operator) -> anyhow::Result<Option<u64>> {
    Ok(operator.ask(Method::GET, "/admin/v1/load", None)?["addresses_blocked_automatically"].as_u64())
}

fn describe(block: &Value) -> String {
    let whom = match (block["address"].as_str(), block["customer"].as_str()) {
        (Some(address), _) => address.to_owned(),
        (None, customer) => format!("customer {}", customer.unwrap_or("-")),
    };
    let until = block["expires_at"].as_str().map_or_else(|| "until removed".to_owned(), |end| format!("until {end}"));
    format!(
        "{}  {whom}  {until}\n    {}  (by {})",
        report::text(&block["id"]),
        report::text(&block["reason"]),
        report::text(&block["made_by"])
    )
}
