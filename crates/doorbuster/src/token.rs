//! `doorbuster token`: the owner's commands for admin tokens, sent to the running server.

use std::process::ExitCode;

use clap::Subcommand;
use domain::Role;
use http::Method;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once.
    Create {
        /// What it is for.
        #[arg(long, value_name = "TEXT")]
        label: String,
        /// What it may do: viewer, operator, cashier or owner.
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Role,
        /// How long it is believed: 30 days without this, a year at most.
        #[arg(long, value_name = "SECONDS")]
        expires_in_seconds: Option<u64>,
        #[command(flatten)]
        to: Target,
    },
    /// List all tokens by id; never the tokens themselves.
    List {
        #[command(flatten)]
        to: Target,
    },
    /// End a token.
    Revoke {
        /// The id that `token list` shows.
        id: String,
        #[command(flatten)]
        to: Target,
    },
}

fn role(name: &str) -> Result<Role, String> {
    Role::parse(name).ok_or_else(|| {
        let names = Role::ALL.map(Role::name);
        format!("the roles are {}", names.join(", "))
    })
}

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    const PATH: &str = "/admin/v1/tokens";
    let (to, method, path, body) = match command {
        TokenCommand::Create { label, role, expires_in_seconds, to } => {
            let mut body = json!({ "label": label, "role": role });
            if let Some(seconds) = expires_in_seconds {
                body["expires_in_seconds"] = seconds.into();
            }
            (to, Method::POST, PATH.to_owned(), Some(body))
        }
        TokenCommand::List { to } => (to, Method::GET, PATH.to_owned(), None),
        TokenCommand::Revoke { id, to } => (to, Method::DELETE, format!("{PATH}/{id}"), None),
    };
    let settings = Settings::load(&to.config)?;
    let revokes = method == Method::DELETE;
    let answer = Operator::of(&settings.data.folder)?.ask(method, &path, body.as_ref())?;
    if to.json {
        return report::json(&answer);
    }
    if let Some(token) = answer["token"].as_str() {
        report::progress(&describe(&answer));
        report::progress("The token is kept nowhere, so store it now:");
        report::say(token);
    } else if revokes {
        report::say(&format!("revoked: {}", describe(&answer)));
    } else {
        for token in answer.as_array().into_iter().flatten() {
            report::say(&describe(token));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(token: &Value) -> String {
    let text = |key: &str| token[key].as_str().unwrap_or("never").to_owned();
    let (id, role, created_at, expires_at) = (text("id"), text("role"), text("created_at"), text("expires_at"));
    format!("{id}  {role}  made {created_at}  expires {expires_at}  {}", text("label"))
}
