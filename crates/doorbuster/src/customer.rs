//! `doorbuster customer`: what the shop owes its customers, sent to the running server.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

#[derive(Subcommand)]
pub(crate) enum CustomerCommand {
    /// Delete a customer's key and pseudonyms for good. The chains stay whole; nobody can read any more what was private in them.
    Erase {
        /// The customer as the shop's tokens name them (sub).
        #[arg(long)]
        subject: String,
        /// The shop as its tokens name it (iss).
        #[arg(long)]
        issuer: String,
        #[command(flatten)]
        to: Target,
    },
}

pub(crate) fn run(command: CustomerCommand) -> anyhow::Result<ExitCode> {
    let CustomerCommand::Erase { subject, issuer, to } = command;
    let settings = Settings::load(&to.config)?;
    let body = json!({ "issuer": issuer, "subject": subject });
    let answer = Operator::of(&settings.data.folder)?.ask(Method::POST, "/admin/v1/customers/erase", Some(&body))?;
    if to.json {
        return report::json(&answer);
    }
    report::say(if answer["erased"] == true {
        "The customer is erased. Backups of the vault still have the key: let them expire."
    } else {
        "Nothing is known of this customer: no pass was ever taken under this issuer and subject, or they were erased before."
    });
    Ok(ExitCode::SUCCESS)
}
