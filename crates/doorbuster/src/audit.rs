//! `doorbuster audit`, `log export` and `verify`: the proofs, for people and as JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::ConfigArgs;
use crate::config::Settings;
use crate::report;

#[derive(Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// One sale only; default: all of them.
    #[arg(long)]
    sale: Option<String>,
    /// Clients' notes (docs/notes-format.md): also checks what customers were told.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(crate) enum LogCommand {
    /// Write a sale's chain, without anything private, to a file that `verify` proves offline.
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// Which sale; may be left out when there is only one.
        #[arg(long)]
        sale: Option<String>,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// An export.
    file: PathBuf,
    /// The sale's public key (base64url), as the shop published it; default: the one in the export, which then proves itself only.
    // One key in 64 begins with a hyphen.
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,
    /// A receipt to check: the JSON of a purchase's answer. May be given several times.
    #[arg(long, value_name = "FILE")]
    receipt: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(&args.config)?;
    let mut progress = |line: &str| report::progress(line);
    let outcome = audit::audit(&settings.data.folder, args.sale.as_deref(), args.notes.as_deref(), &mut progress)?;
    if args.json {
        report::json(&outcome)?;
    } else {
        report::say(&outcome.to_string());
    }
    Ok(code(outcome.ok))
}

pub(crate) fn export(command: &LogCommand) -> anyhow::Result<ExitCode> {
    let LogCommand::Export { config, sale, out, json } = command;
    let settings = Settings::load(config)?;
    let summary = audit::export(&settings.data.folder, sale.as_deref(), out)?;
    if *json {
        return report::json(&summary);
    }
    report::say(&format!(
        "{}: {} records in {} batches, {} bytes, head {}\nProve it with: doorbuster verify {}",
        summary.sale,
        summary.records,
        summary.batches,
        summary.bytes,
        summary.head,
        out.display(),
    ));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let key = args.key.as_deref().map(read_key).transpose()?;
    let outcome = audit::verify(&args.file, key, &args.receipt)?;
    if args.json {
        report::json(&outcome)?;
    } else {
        report::say(&outcome.to_string());
    }
    Ok(code(outcome.ok))
}

fn read_key(text: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    key.context("--key: give the 43 characters of the sale's signing_key as GET /v1/sales/{sale} shows it")
}

fn code(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::report;

    #[test]
    fn a_file_that_is_missing_is_named_once() {
        let error = audit::verify(Path::new("nowhere/drop.chain"), None, &[]).unwrap_err();
        let words = report::words(&error.into());
        for once in ["nowhere/drop.chain", "No such file"] {
            assert_eq!(words.matches(once).count(), 1, "{words}");
        }
    }
}
