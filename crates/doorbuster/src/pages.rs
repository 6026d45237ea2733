//! What customers see, as the configuration says it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pages::{Colour, Site, SiteOptions, Theme};

use crate::config::{PaymentProvider, Settings};

/// The pages' maker; refuses what nobody could read.
pub(crate) fn site(settings: &Settings) -> anyhow::Result<Site> {
    Ok(Site::new(options(settings)?)?)
}

/// How pages look and where they lead; refuses what no browser could follow.
pub(crate) fn options(settings: &Settings) -> anyhow::Result<SiteOptions> {
    let pages = &settings.pages;
    let options = SiteOptions {
        shop_name: pages.shop_name.trim().to_owned(),
        logo: given(&pages.logo),
        theme: Theme {
            button: colour("pages.button_colour", &pages.button_colour)?,
            bar: colour("pages.bar_colour", &pages.bar_colour)?,
        },
        words_folder: given(&pages.words_folder),
        language: pages.language.clone(),
        sign_in_url: link("pages.sign_in_url", &pages.sign_in_url)?,
        checkout_url: link("pages.checkout_url", &pages.checkout_url)?,
        guests: settings.identity.dangerous_guest_tokens,
        has_provider: settings.payment.provider != PaymentProvider::None,
    };
    if options.logo.is_some() && options.shop_name.is_empty() {
        bail!("pages.shop_name: a logo needs the shop's name too, for those who cannot see it");
    }
    Ok(options)
}

fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn colour(key: &str, text: &str) -> anyhow::Result<Option<Colour>> {
    if text.is_empty() {
        return Ok(None);
    }
    let colour = Colour::parse(text).with_context(|| format!("{key}: write #rrggbb, as in #1d4ed8"))?;
    Ok(Some(colour))
}

/// A link that a page leads to; never one that would run as a script, and plain HTTP on this machine only.
fn link(key: &str, text: &str) -> anyhow::Result<String> {
    let is_local = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|local| text.starts_with(local));
    let is_plain = text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'<' | b'>'));
    if text.is_empty() || (is_plain && (text.starts_with("https://") || is_local)) {
        Ok(text.to_owned())
    } else {
        bail!("{key}: write an address that begins with https:// (http:// for this machine only)")
    }
}

/// Every word that customers read, in English, as a file that a shop can change.
pub(crate) fn words() -> &'static str {
    pages::ENGLISH_WORDS
}
