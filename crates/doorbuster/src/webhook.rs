//! `doorbuster webhook`: who is told what happens in the sales, managed at the running server.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

#[derive(Subcommand)]
pub(crate) enum WebhookCommand {
    /// Have events delivered to a URL, from now on. Prints the secret that calls are signed with; nothing shows it again.
    Add {
        /// Where to: https, and a host of the internet.
        url: String,
        /// Of this sale only; may be given several times.
        #[arg(long = "sale", value_name = "SALE")]
        sales: Vec<String>,
        /// Of this kind only, for example confirmed; may be given several times.
        #[arg(long = "event", value_name = "KIND")]
        events: Vec<String>,
        #[command(flatten)]
        to: Target,
    },
    /// List the webhooks of this server: how far each is, and how the last call went.
    List {
        #[command(flatten)]
        to: Target,
    },
    /// Draw a new secret and print it; the one before signs too for a day.
    Rotate(Turn),
    /// Tell events again: from a time on, or those that were given up.
    Replay {
        /// The webhook's id.
        webhook: String,
        /// From this chain time on, RFC 3339; without it, what is parked.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        #[command(flatten)]
        to: Target,
    },
    /// Call no more for now; what happens meanwhile is told later.
    Pause(Turn),
    /// Call again.
    Resume(Turn),
    /// Forget a webhook and what waits for it.
    Remove(Turn),
}

#[derive(Args)]
pub(crate) struct Turn {
    /// The webhook's id.
    webhook: String,
    #[command(flatten)]
    to: Target,
}

pub(crate) fn run(command: WebhookCommand) -> anyhow::Result<ExitCode> {
    let path = "/admin/v1/webhooks";
    let turned = |Turn { webhook, to }, action: &str| (to, Method::POST, format!("{path}/{webhook}/{action}"), None);
    let (to, method, path, body) = match command {
        WebhookCommand::Add { url, sales, events, to } => {
            let body = json!({ "url": url, "sales": sales, "events": events });
            (to, Method::POST, path.to_owned(), Some(body))
        }
        WebhookCommand::List { to } => (to, Method::GET, path.to_owned(), None),
        WebhookCommand::Rotate(turn) => turned(turn, "rotate"),
        WebhookCommand::Replay { webhook, since, to } => {
            let body = since.map_or_else(|| json!({}), |since| json!({ "since": since }));
            (to, Method::POST, format!("{path}/{webhook}/replay"), Some(body))
        }
        WebhookCommand::Pause(turn) => turned(turn, "pause"),
        WebhookCommand::Resume(turn) => turned(turn, "resume"),
        WebhookCommand::Remove(Turn { webhook, to }) => (to, Method::DELETE, format!("{path}/{webhook}"), None),
    };
    let removes = method == Method::DELETE;
    let settings = Settings::load(&to.config)?;
    let answer = Operator::of(&settings.data.folder)?.ask(method, &path, body.as_ref())?;
    if to.json {
        return report::json(&answer);
    }
    report::entries(answer, removes, "There are no webhooks yet. Add one with: doorbuster webhook add URL", describe)
}

fn describe(webhook: &Value) -> String {
    let paused = webhook["paused"].as_str().map(|reason| format!("  paused ({reason})")).unwrap_or_default();
    let last = match (webhook["last_status"].as_u64(), webhook["last_error"].as_str()) {
        (_, Some(error)) => format!("last call failed: {error}"),
        (Some(status), None) => format!("last call {status}"),
        (None, None) => "not called yet".to_owned(),
    };
    let mut lines = format!(
        "{}  {}{paused}\n    {} records behind, {} events wait, {} parked; {last}",
        report::text(&webhook["id"]),
        report::text(&webhook["url"]),
        webhook["lag"],
        webhook["waiting"],
        webhook["parked"],
    );
    if let Some(reason) = webhook["parked_reason"].as_str() {
        lines.push_str(&format!("\n    parked, the last because: {reason}"));
    }
    for (key, what) in [("sales", "only the sales"), ("events", "only the events")] {
        let names: Vec<_> = webhook[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !names.is_empty() {
            lines.push_str(&format!("\n    {what} {}", names.join(", ")));
        }
    }
    if let Some(secret) = webhook["secret"].as_str() {
        lines.push_str(&format!("\n    secret {secret}"));
    }
    lines
}
