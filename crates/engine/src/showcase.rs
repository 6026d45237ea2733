//! What a sale's page shows beside its definition, who may embed it, and which human check it has. The vault keeps it; here it is judged and remembered.
//!
//! Nothing of it takes part in a decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::digest;
use bytes::Bytes;
use domain::{HumanCheck, SaleDefinition, SaleOrdinal};
use ledger::vault::{KeptShowcases, PictureFile, VaultError};
use pictures::{Format, Variant};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::sale::Sale;

/// Origins that may embed one sale.
pub const ORIGINS_MAX: usize = 16;
/// Languages of a button's text.
pub const LANGUAGES_MAX: usize = 32;
/// Characters of a button's text.
pub const BUTTON_CHARACTERS_MAX: usize = 40;
/// Characters of what says what a picture shows.
pub const DESCRIPTION_CHARACTERS_MAX: usize = 300;
/// Bytes of pictures that are kept in memory; all of a large sale's.
const REMEMBERED_BYTES_MAX: usize = 32 << 20;

/// What the operator says about a sale's page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShowcaseSettings {
    /// Who may call the API from a page and frame the sale's page: `https://shop.example`, as browsers write an origin. 16 at most; `http` for
    /// this machine only.
    pub origins: Vec<String>,
    /// The button's text by language (`en`, `de`), 1 to 40 characters.
    pub button: BTreeMap<String, String>,
    /// By item: what its picture shows, for those who cannot see it; 1 to 300 characters.
    pub descriptions: BTreeMap<String, String>,
}

/// What a sale's page shows beside its definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Showcase {
    /// What the operator said.
    pub settings: ShowcaseSettings,
    /// One place for each item of the definition, in its order.
    pub pictures: Vec<Option<Picture>>,
    /// What it asks of a customer before the first pass.
    pub human_check: Option<HumanCheck>,
}

/// A picture beside an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// 32 hexadecimal digits that follow from its files, so that a name never means two pictures.
    pub id: String,
    /// Pixels of the largest file.
    pub width: u32,
    /// Pixels of the largest file.
    pub height: u32,
    /// The widths that there are, ascending; each in every [`Format`].
    pub widths: Vec<u32>,
}

/// Why a showcase was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ShowcaseError {
    /// Definite: the settings break a rule; the text names the field and what would be right.
    #[error("{0}")]
    Invalid(String),
    /// As the vault says.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl ShowcaseSettings {
    /// Whether they can be meant for that sale; the text names the field.
    pub fn validate(&self, definition: &SaleDefinition) -> Result<(), String> {
        if self.origins.len() > ORIGINS_MAX {
            return Err(format!("origins: {ORIGINS_MAX} at most"));
        }
        for (index, origin) in self.origins.iter().enumerate() {
            judge_origin(origin).map_err(|rule| format!("origins[{index}]: {rule}"))?;
            if self.origins[..index].contains(origin) {
                return Err(format!("origins[{index}]: it stands twice"));
            }
        }
        if self.button.len() > LANGUAGES_MAX {
            return Err(format!("button: {LANGUAGES_MAX} languages at most"));
        }
        for (language, text) in &self.button {
            if !is_language(language) {
                return Err(format!("button: {language:?} is no language tag; write it like en or de-CH"));
            }
            judge_text(text, BUTTON_CHARACTERS_MAX).map_err(|rule| format!("button.{language}: {rule}"))?;
        }
        for (item, text) in &self.descriptions {
            if definition.item_index(item).is_none() {
                return Err(format!("descriptions: the sale has no item {item:?}"));
            }
            judge_text(text, DESCRIPTION_CHARACTERS_MAX).map_err(|rule| format!("descriptions.{item}: {rule}"))?;
        }
        Ok(())
    }
}

/// An origin goes into headers as it is, so it is compared with the one form that browsers send, and has no letter that could end a value there.
fn judge_origin(origin: &str) -> Result<(), String> {
    let form = "write scheme://host[:port] as a browser does: lower case, no path, no port that the scheme implies";
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:/[]".contains(&byte);
    let read = url::Url::parse(origin).ok().filter(|_| origin.bytes().all(is_plain));
    let read = read.filter(|url| url.origin().ascii_serialization() == origin);
    let Some(url) = read else { return Err(format!("{origin:?} is no origin; {form}")) };
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        _ => Err(format!("{origin:?} is not safe; only https is, and http for this machine (localhost, 127.0.0.1)")),
    }
}

fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let first = parts
        .next()
        .is_some_and(|part| (2..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_lowercase()));
    first
        && tag.len() <= 35
        && parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn judge_text(text: &str, characters_max: usize) -> Result<(), String> {
    if text.trim().is_empty() || text.chars().count() > characters_max || text.chars().any(char::is_control) {
        return Err(format!("1 to {characters_max} characters on one line"));
    }
    Ok(())
}

impl Showcase {
    fn of(kept: &KeptShowcases, sale: SaleOrdinal, definition: &SaleDefinition) -> Self {
        let settings = kept.settings.get(&sale).map(|json| serde_json::from_str(json));
        let settings = settings.transpose().unwrap_or_else(|error| {
            tracing::error!(sale = definition.sale, %error, "the vault's settings of the showcase cannot be read; none are used");
            None
        });
        let picture = |item: usize| {
            let kept = kept.pictures.get(&(sale, u16::try_from(item).ok()?))?;
            let &(width, height) = kept.sizes.last()?;
            let widths = kept.sizes.iter().map(|size| size.0).collect();
            Some(Picture { id: kept.id.clone(), width, height, widths })
        };
        // A check that this program does not know is not dropped: the strongest one stands for it.
        let check = |name: &String| HumanCheck::parse(name).unwrap_or(HumanCheck::Answer);
        Self {
            settings: settings.unwrap_or_default(),
            pictures: (0..definition.items.len()).map(picture).collect(),
            human_check: kept.human_checks.get(&sale).map(check),
        }
    }
}

/// What this process knows of the vault's showcases.
#[derive(Default)]
pub(crate) struct Showcases {
    kept: RwLock<KeptShowcases>,
    remembered: Mutex<Remembered>,
}

impl Showcases {
    /// What a sale's page shows, as last read.
    pub(crate) fn of(&self, sale: SaleOrdinal, definition: &SaleDefinition) -> Arc<Showcase> {
        Arc::new(Showcase::of(&self.kept(), sale, definition))
    }

    fn kept(&self) -> RwLockReadGuard<'_, KeptShowcases> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pictures that were asked for lately.
#[derive(Default)]
struct Remembered {
    files: HashMap<(String, u32, Format), Bytes>,
    bytes: usize,
}

impl Remembered {
    fn put(&mut self, key: (String, u32, Format), file: Bytes) {
        if self.bytes + file.len() > REMEMBERED_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += file.len();
        if let Some(before) = self.files.insert(key, file) {
            self.bytes -= before.len();
        }
    }
}

impl Engine {
    /// Replaces what the operator said about a sale's page. Durable when it returns; other processes of a cluster know it within a second.
    /// Blocks.
    pub fn set_showcase(&self, sale: &Sale, settings: &ShowcaseSettings) -> Result<(), ShowcaseError> {
        settings.validate(sale.definition()).map_err(ShowcaseError::Invalid)?;
        let json = serde_json::to_string(settings).map_err(|error| ShowcaseError::Invalid(error.to_string()))?;
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        self.vault.with(|vault| vault.set_showcase(sale.ordinal, &json))?;
        Ok(self.read_showcases_anew()?)
    }

    /// From now on customers need this check before their first pass of the sale. Durable when it returns; other processes of a cluster
    /// know it within a second. Blocks.
    pub fn set_human_check(&self, sale: &Sale, check: Option<HumanCheck>) -> Result<(), VaultError> {
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        self.vault.with(|vault| vault.set_human_check(sale.ordinal, check.map(HumanCheck::name)))?;
        self.read_showcases_anew()
    }

    /// Shows a picture beside the item of that index, in place of the one it had; the variants are by ascending width, at least one. Durable when it
    /// returns; other processes of a cluster know it within a second. Blocks.
    pub fn set_picture(&self, sale: &Sale, item: u16, variants: &[Variant]) -> Result<(), VaultError> {
        let file = |variant: &Variant, format: Format| PictureFile {
            width: variant.width,
            height: variant.height,
            format: format.extension().to_owned(),
            bytes: variant.file(format).to_vec(),
        };
        let files = variants.iter().flat_map(|variant| Format::ALL.map(|format| file(variant, format)));
        self.keep_picture(sale, item, &picture_id(variants), &files.collect::<Vec<_>>())
    }

    /// Takes the picture of the item of that index away; twice is once. Blocks.
    pub fn remove_picture(&self, sale: &Sale, item: u16) -> Result<(), VaultError> {
        self.keep_picture(sale, item, "", &[])
    }

    fn keep_picture(&self, sale: &Sale, item: u16, id: &str, files: &[PictureFile]) -> Result<(), VaultError> {
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        self.vault.with(|vault| vault.set_picture(sale.ordinal, item, id, files))?;
        self.read_showcases_anew()
    }

    /// Whether a picture of that id is shown anywhere in that width.
    pub fn has_picture(&self, id: &str, width: u32) -> bool {
        let kept = self.showcases.kept();
        kept.pictures.values().any(|picture| picture.id == id && picture.sizes.iter().any(|size| size.0 == width))
    }

    /// A file of a picture, if it is remembered and still shown. Never waits for the vault.
    pub fn remembered_picture(&self, id: &str, width: u32, format: Format) -> Option<Bytes> {
        let found = self.showcases.remembered().files.get(&(id.to_owned(), width, format)).cloned();
        found.filter(|_| self.has_picture(id, width))
    }

    /// A file of a picture; `None` where it is shown nowhere. Blocks while the vault is read, if it is not remembered.
    pub fn picture_bytes(&self, id: &str, width: u32, format: Format) -> Result<Option<Bytes>, VaultError> {
        // The vault is not troubled with names that somebody made up.
        if !self.has_picture(id, width) {
            return Ok(None);
        }
        if let Some(file) = self.remembered_picture(id, width, format) {
            return Ok(Some(file));
        }
        let file = self.vault.with(|vault| vault.picture(id, width, format.extension()))?.map(Bytes::from);
        if let Some(file) = &file {
            self.showcases.remembered().put((id.to_owned(), width, format), file.clone());
        }
        Ok(file)
    }

    /// Reads the showcases if another process has changed one since. The caller holds `creating`.
    pub(crate) fn notice_showcases(&self) -> Result<(), VaultError> {
        let changes = self.vault.with(|vault| vault.showcase_changes())?;
        if self.showcases.kept().changes == changes {
            return Ok(());
        }
        self.read_showcases_anew()
    }

    /// Takes the showcases as they stand in the vault. The caller holds `creating`, or nobody else knows the engine yet.
    pub(crate) fn read_showcases_anew(&self) -> Result<(), VaultError> {
        let kept = self.vault.with(|vault| vault.showcases())?;
        *self.showcases.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
        for sale in self.sales() {
            sale.show(self.showcases.of(sale.ordinal, sale.definition()));
        }
        Ok(())
    }
}

fn picture_id(variants: &[Variant]) -> String {
    let mut hashed = digest::Context::new(&digest::SHA256);
    for variant in variants {
        hashed.update(&variant.width.to_le_bytes());
        hashed.update(&variant.height.to_le_bytes());
        for format in Format::ALL {
            hashed.update(&(variant.file(format).len() as u64).to_le_bytes());
            hashed.update(variant.file(format));
        }
    }
    data_encoding::HEXLOWER.encode(&hashed.finish().as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_only_as_a_browser_writes_it() {
        let good = [
            "https://shop.example",
            "https://shop.example:8443",
            "https://a-b.shop.example",
            "https://xn--bcher-kva.example",
            "https://192.0.2.1",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://shop.localhost:1",
        ];
        for origin in good {
            assert_eq!(judge_origin(origin), Ok(()), "{origin}");
        }
        let bad = [
            "",
            "*",
            "null",
            "shop.example",
            "https://",
            "https://*.shop.example",
            "https://Shop.example",
            "https://shop.example/",
            "https://shop.example/path",
            "https://shop.example?a",
            "https://shop.example:443",
            "https://user@shop.example",
            "https://shop.example ",
            "https://a;script-src",
            "https://a,b",
            "https://a'b",
            "https://shop.example\n",
            "http://shop.example",
            "http://localhost.shop.example",
            "http://10.0.0.1",
            "ftp://localhost",
            "file:///etc",
            "data:text/html",
            "https://bücher.example",
        ];
        for origin in bad {
            assert!(judge_origin(origin).is_err(), "{origin:?}");
        }
    }

    #[test]
    fn texts_and_languages_have_their_bounds() {
        for (tag, expected) in [
            ("en", true),
            ("de-CH", true),
            ("zh-Hant-TW", true),
            ("", false),
            ("e", false),
            ("EN", false),
            ("en-", false),
            ("en_US", false),
        ] {
            assert_eq!(is_language(tag), expected, "{tag:?}");
        }
        let forty = "ä".repeat(40);
        for (text, expected) in [
            ("Buy", true),
            (&forty, true),
            (&format!("{forty}x"), false),
            ("", false),
            (" ", false),
            ("a\nb", false),
            ("a\u{0}", false),
        ] {
            assert_eq!(judge_text(text, 40).is_ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest_stays() {
        let mut remembered = Remembered::default();
        let key = |number: u32| (String::new(), number, Format::Webp);
        for number in 0..100 {
            remembered.put(key(number % 70), Bytes::from(vec![0; 1 << 20]));
            let bytes: usize = remembered.files.values().map(Bytes::len).sum();
            assert!(bytes == remembered.bytes && bytes <= REMEMBERED_BYTES_MAX);
            assert!(remembered.files.contains_key(&key(number % 70)));
        }
    }
}
