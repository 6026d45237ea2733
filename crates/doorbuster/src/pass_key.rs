//! `doorbuster pass-key`: the owner's command for the keys that passes are made with, sent to the running server.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

#[derive(Subcommand)]
pub(crate) enum PassKeyCommand {
    /// Make passes with a new key from now on; passes that are out stay good until they expire.
    Rotate {
        #[command(flatten)]
        to: Target,
    },
}

pub(crate) fn run(command: PassKeyCommand) -> anyhow::Result<ExitCode> {
    let PassKeyCommand::Rotate { to } = command;
    let settings = Settings::load(&to.config)?;
    let answer = Operator::of(&settings.data.folder)?.ask(Method::POST, "/admin/v1/pass-keys/rotate", None)?;
    if to.json {
        return report::json(&answer);
    }
    report::say(&format!(
        "Passes are made with key {} from now on, in a cluster within seconds. Those that are out stay good.",
        answer["key"]
    ));
    Ok(ExitCode::SUCCESS)
}
