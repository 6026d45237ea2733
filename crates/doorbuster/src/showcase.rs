//! `doorbuster sale showcase` and `doorbuster sale picture`: what a sale's page shows, sent to the running server.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use engine::ShowcaseSettings;
use http::Method;
use pictures::{PictureError, UPLOAD_BYTES_MAX};
use serde_json::Value;

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::{Target, read};

pub(crate) fn set(sale: &str, file: Option<&Path>, to: &Target) -> anyhow::Result<ExitCode> {
    let settings = file.map(|file| read::<ShowcaseSettings>(file, "showcase")).transpose()?;
    let operator = Operator::of(&Settings::load(&to.config)?.data.folder)?;
    let path = format!("/admin/v1/sales/{sale}/showcase");
    let answer = match settings {
        Some(settings) => operator.ask(Method::PUT, &path, Some(&serde_json::to_value(settings)?))?,
        None => operator.ask(Method::GET, &path, None)?,
    };
    if to.json {
        return report::json(&answer);
    }
    let origins: Vec<_> = answer["origins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    report::say(&match origins.as_slice() {
        [] => format!("{sale}  embedded by nobody"),
        origins => format!("{sale}  embedded by {}", origins.join(", ")),
    });
    for (what, texts) in [("button", &answer["button"]), ("picture", &answer["descriptions"])] {
        for (of, text) in texts.as_object().into_iter().flatten() {
            report::say(&format!("    {what} {of}  {}", text.as_str().unwrap_or_default()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a picture; takes it away without a file.
pub(crate) fn picture(sale: &str, item: &str, file: Option<&Path>, to: &Target) -> anyhow::Result<ExitCode> {
    let bytes = file.map(|file| std::fs::read(file).with_context(|| format!("cannot read {}", file.display())));
    let bytes = bytes.transpose()?;
    if let Some(found) = bytes.as_ref().map(Vec::len).filter(|found| *found > UPLOAD_BYTES_MAX) {
        // The server would end the connection, and its answer could get lost.
        bail!("{}: {}", file.unwrap_or(Path::new("-")).display(), PictureError::TooManyBytes { found });
    }
    let operator = Operator::of(&Settings::load(&to.config)?.data.folder)?;
    let path = format!("/admin/v1/sales/{sale}/items/{item}/picture");
    let answer = match bytes {
        Some(bytes) => operator.upload(&path, bytes)?,
        None => operator.ask(Method::DELETE, &path, None)?,
    };
    if to.json {
        return report::json(&answer);
    }
    let widths = answer["picture"]["sources"].as_array().into_iter().flatten();
    let widths: Vec<_> = widths.map(|source| source["width"].to_string()).collect();
    report::say(&match widths.as_slice() {
        [] => format!("{item} has no picture."),
        widths => format!("{item} has a picture, {} pixels wide.", widths.join(", ")),
    });
    Ok(ExitCode::SUCCESS)
}
