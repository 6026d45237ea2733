//! The pages as functions of what they show.

use std::path::{Path, PathBuf};

use askama::Template;
use domain::{ChainTime, Money};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::encoded::Asset;
use crate::theme::Theme;
use crate::words::{Language, Words, WordsError};

/// The most units that a customer can choose at once on a page; an API client may ask for more.
const QUANTITY_MAX: u32 = 10;

/// How a deployment's pages look and where they lead.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// The shop's name; may be empty.
    pub shop_name: String,
    /// The file with its logo.
    pub logo: Option<PathBuf>,
    /// Its colours.
    pub theme: Theme,
    /// Where its words are.
    pub words_folder: Option<PathBuf>,
    /// The language of whoever wants none that there is.
    pub language: String,
    /// Where customers sign in; `{page}` stands for the path that they come from. Empty: the shop sends them here by itself.
    pub sign_in_url: String,
    /// The shop's checkout, for a shop that takes the money itself. Empty: it hears of its orders otherwise.
    pub checkout_url: String,
    /// Whether anybody may come in under any name.
    pub guests: bool,
    /// Whether a provider takes the money.
    pub has_provider: bool,
}

/// English, in no shop's colours.
impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            shop_name: String::new(),
            logo: None,
            theme: Theme::default(),
            words_folder: None,
            language: "en".to_owned(),
            sign_in_url: String::new(),
            checkout_url: String::new(),
            guests: false,
            has_provider: false,
        }
    }
}

/// Bytes of a logo: it is loaded with every page.
const LOGO_BYTES_MAX: u64 = 32 * 1024;

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The words.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// The logo.
    #[error("pages.logo: {path}: {reason}", path = path.display())]
    Logo {
        /// Its file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
}

/// Everything that pages are made with.
#[derive(Debug)]
pub struct Site {
    options: SiteOptions,
    words: Words,
    script: Asset,
    style: Asset,
    button: Asset,
    human: Asset,
    logo: Option<Asset>,
}

/// Whether something of an item can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Something is free.
    Yes,
    /// Nothing is, but holds may still end.
    MayReturn,
    /// Nothing is, and nothing comes back.
    No,
}

/// A sale as a page shows it.
#[derive(Clone, Debug)]
pub struct SaleView {
    /// The shop's name of it.
    pub name: String,
    /// What customers read.
    pub title: String,
    /// Whether it is a rehearsal.
    pub test: bool,
    /// When it opens.
    pub opens_at: ChainTime,
    /// When it closes.
    pub closes_at: ChainTime,
    /// Whether holds are granted, or were.
    pub has_opened: bool,
    /// Whether it has closed.
    pub has_closed: bool,
    /// Whether purchases are paused.
    pub is_paused: bool,
    /// The button's text in the language of the page, where the sale has one of its own.
    pub button: Option<String>,
    /// What is sold.
    pub items: Vec<ItemView>,
    /// When this was so.
    pub made_at: ChainTime,
    /// For how many milliseconds somebody on the way may keep the page.
    pub age_max_milliseconds: u64,
    /// The sale as the API tells it.
    pub answer: Box<RawValue>,
}

/// An item as a page shows it.
#[derive(Clone, Debug)]
pub struct ItemView {
    /// The shop's name of it.
    pub name: String,
    /// What customers read.
    pub title: String,
    /// The price of one.
    pub price: Money,
    /// The most that one customer may have, of this item and in the sale.
    pub limit: u32,
    /// Whether it can be had.
    pub available: Availability,
    /// Its picture.
    pub picture: Option<PictureView>,
}

/// A picture in its sizes.
#[derive(Clone, Debug)]
pub struct PictureView {
    /// Width of the largest.
    pub width: u32,
    /// Height of the largest.
    pub height: u32,
    /// Width, path as WebP, path as JPEG; ascending.
    pub sources: Vec<(u32, String, String)>,
    /// What it shows.
    pub description: String,
}

impl Site {
    /// Reads the shop's words and makes the style in its colours.
    pub fn new(options: SiteOptions) -> Result<Self, SiteError> {
        let words = Words::load(options.words_folder.as_deref(), &options.language)?;
        let style = Asset::style(options.theme.style().as_deref());
        let logo = options.logo.as_deref().map(read_logo).transpose()?;
        Ok(Self {
            options,
            words,
            style,
            script: Asset::script(),
            button: Asset::button(),
            human: Asset::human(),
            logo,
        })
    }

    /// The file of that path, if pages load one there.
    pub fn asset(&self, path: &str) -> Option<&Asset> {
        let mut assets = [&self.script, &self.style, &self.button].into_iter().chain(&self.logo);
        assets.find(|asset| asset.path == path)
    }

    /// The buy button's script.
    pub fn button(&self) -> &Asset {
        &self.button
    }

    /// The script of the human check.
    pub fn human_check(&self) -> &Asset {
        &self.human
    }

    /// The language for a request.
    pub fn language(&self, asked: Option<&str>, accept_language: Option<&str>) -> &Language {
        self.words.choose(asked, accept_language)
    }

    /// The words of the human check: a JSON object.
    pub fn check_words(&self, language: &Language) -> String {
        serde_json::json!(language.check()).to_string()
    }

    /// The words of the buy button: a JSON object with `language`, `direction` and `words`.
    pub fn button_words(&self, language: &Language, button: Option<&str>) -> String {
        let mut words = language.spoken().clone();
        let states = language.check().iter().filter(|(word, _)| word.starts_with("state_"));
        words.extend(states.map(|(word, text)| (word.clone(), text.clone())));
        words.insert("button".to_owned(), button.unwrap_or(language.page("button")).to_owned());
        let told = serde_json::json!({ "language": language.tag, "direction": language.direction, "words": words });
        told.to_string()
    }

    /// The list of sales.
    pub fn sales_page(&self, language: &Language, asked: Option<&str>, sales: &[SaleView]) -> String {
        let sales = sales.iter().map(SaleCard::from).collect();
        let frame = self.frame(language, asked, "/");
        rendered(SalesPage { given: self.given(language, None), frame, sales })
    }

    /// One sale.
    pub fn sale_page(&self, language: &Language, asked: Option<&str>, sale: &SaleView) -> String {
        let items = sale.items.iter().map(|item| ItemCard::new(language, sale, item)).collect();
        let button = sale.button.as_deref().unwrap_or(language.page("button"));
        let frame = self.frame(language, asked, &format!("/sales/{}", sale.name));
        let card = SaleCard { items, ..SaleCard::from(sale) };
        rendered(SalePage { given: self.given(language, Some(sale)), frame, sale: card, button })
    }

    /// Any order; which one it is and what there is to it, its customer's script finds out.
    pub fn order_page(&self, language: &Language, asked: Option<&str>) -> String {
        rendered(OrderPage { given: self.given(language, None), frame: self.frame(language, asked, "/mine") })
    }

    /// A customer's own orders.
    pub fn mine_page(&self, language: &Language, asked: Option<&str>) -> String {
        rendered(MinePage { given: self.given(language, None), frame: self.frame(language, asked, "/mine") })
    }

    /// That there is nothing.
    pub fn missing_page(&self, language: &Language, asked: Option<&str>) -> String {
        rendered(MissingPage { given: self.given(language, None), frame: self.frame(language, asked, "/") })
    }

    /// That somebody was left out, in every language, since it is made before anybody asks. It can be read without its style.
    pub fn busy_page(&self) -> String {
        let languages = self.words.all().collect();
        rendered(BusyPage { languages, shop_name: &self.options.shop_name, style: &self.style.path })
    }

    fn frame<'a>(&'a self, language: &'a Language, asked: Option<&str>, path: &str) -> Frame<'a> {
        let options = &self.options;
        Frame {
            language,
            languages: self.words.names().collect(),
            shop_name: &options.shop_name,
            logo: self.logo.as_ref().map(|logo| logo.path.as_str()),
            style: &self.style.path,
            script: &self.script.path,
            guests: options.guests,
            sign_in_url: options.sign_in_url.replace("{page}", &path.replace('/', "%2F")),
            pays: options.has_provider || !options.checkout_url.is_empty(),
            // Whoever chose a language keeps it from page to page.
            query: asked.map(|_| format!("?lang={}", language.tag)).unwrap_or_default(),
        }
    }

    fn given(&self, language: &Language, sale: Option<&SaleView>) -> String {
        let given = Given {
            words: language.spoken(),
            checkout_url: (!self.options.has_provider).then_some(self.options.checkout_url.as_str()),
            sale: sale.map(|sale| &*sale.answer),
            made_at: sale.map(|sale| sale.made_at.0),
            age_max_ms: sale.map(|sale| sale.age_max_milliseconds),
        };
        let text = serde_json::to_string(&given).expect("what is given has no map with odd keys");
        // Nothing in it can end the element that it stands in.
        text.replace('<', "\\u003c")
    }
}

fn read_logo(path: &Path) -> Result<Asset, SiteError> {
    let failed = |reason: String| SiteError::Logo { path: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if length > LOGO_BYTES_MAX {
        return Err(failed(format!("it has {length} bytes; {LOGO_BYTES_MAX} are allowed, since every page loads it")));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    Asset::logo(&ending, bytes).ok_or_else(|| failed("give a PNG, JPEG, WebP or SVG file".to_owned()))
}

fn rendered(page: impl Template) -> String {
    page.render().expect("a page writes to memory only")
}

/// What a page's script is told with the page.
#[derive(Serialize)]
struct Given<'a> {
    words: &'a std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkout_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sale: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_max_ms: Option<u64>,
}

/// What all pages have.
struct Frame<'a> {
    language: &'a Language,
    languages: Vec<(&'a str, &'a str)>,
    shop_name: &'a str,
    logo: Option<&'a str>,
    style: &'a str,
    script: &'a str,
    guests: bool,
    sign_in_url: String,
    pays: bool,
    query: String,
}

#[derive(Template)]
#[template(path = "sales.html")]
struct SalesPage<'a> {
    frame: Frame<'a>,
    given: String,
    sales: Vec<SaleCard<'a>>,
}

#[derive(Template)]
#[template(path = "sale.html")]
struct SalePage<'a> {
    frame: Frame<'a>,
    given: String,
    sale: SaleCard<'a>,
    button: &'a str,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage<'a> {
    frame: Frame<'a>,
    given: String,
}

#[derive(Template)]
#[template(path = "mine.html")]
struct MinePage<'a> {
    frame: Frame<'a>,
    given: String,
}

#[derive(Template)]
#[template(path = "missing.html")]
struct MissingPage<'a> {
    frame: Frame<'a>,
    given: String,
}

#[derive(Template)]
#[template(path = "busy.html")]
struct BusyPage<'a> {
    languages: Vec<&'a Language>,
    shop_name: &'a str,
    style: &'a str,
}

/// A sale, ready to be written. Times stand in UTC until a script says them in the reader's own zone.
struct SaleCard<'a> {
    name: &'a str,
    title: &'a str,
    test: bool,
    /// The word for the next thing that happens.
    when: &'static str,
    /// When that is, for programs and for people; `None` for a sale that was closed before its time.
    at: Option<(String, String)>,
    /// The word for what the list says aloud.
    tag: Option<&'static str>,
    /// The first picture that there is.
    thumbnail: Option<PictureCard<'a>>,
    made_at: String,
    made_at_plain: String,
    items: Vec<ItemCard<'a>>,
}

impl<'a> From<&'a SaleView> for SaleCard<'a> {
    fn from(sale: &'a SaleView) -> Self {
        let (when, at) = match (sale.has_opened, sale.has_closed) {
            (_, true) => ("closed_on", sale.closes_at),
            (true, false) => ("closes", sale.closes_at),
            (false, false) => ("opens", sale.opens_at),
        };
        Self {
            name: &sale.name,
            title: &sale.title,
            test: sale.test,
            when,
            at: (!sale.has_closed || sale.closes_at <= sale.made_at).then(|| (at.rfc3339(), plain_time(at))),
            tag: tag(sale),
            thumbnail: sale.items.iter().find_map(|item| item.picture.as_ref()).map(PictureCard::from),
            made_at: sale.made_at.rfc3339(),
            made_at_plain: plain_time(sale.made_at),
            items: Vec::new(),
        }
    }
}

/// What one wants to know of a sale before one goes there.
fn tag(sale: &SaleView) -> Option<&'static str> {
    let is_gone = sale.items.iter().all(|item| item.available == Availability::No);
    match (sale.has_opened, sale.has_closed, sale.is_paused) {
        (_, true, _) => None,
        (true, false, _) if is_gone => Some("sold_out"),
        (_, false, true) => Some("paused"),
        (true, false, false) => Some("open_now"),
        (false, false, false) => None,
    }
}

struct ItemCard<'a> {
    name: &'a str,
    title: &'a str,
    price: Money,
    price_plain: String,
    quantity_max: u32,
    state: &'static str,
    says: &'a str,
    picture: Option<PictureCard<'a>>,
}

impl<'a> ItemCard<'a> {
    fn new(language: &'a Language, sale: &SaleView, item: &'a ItemView) -> Self {
        // What the script says to somebody who is not signed in.
        let (state, says) = match (sale.has_opened, sale.has_closed, item.available) {
            (_, true, _) => ("closed", "state_closed"),
            _ if sale.is_paused => ("paused", "state_paused"),
            (false, _, _) => ("not_yet", "state_not_yet"),
            (true, _, Availability::Yes) => ("signed_out", "state_signed_out"),
            (true, _, Availability::MayReturn) => ("may_return", "state_may_return"),
            (true, _, Availability::No) => ("gone", "state_gone"),
        };
        Self {
            name: &item.name,
            title: &item.title,
            price: item.price,
            price_plain: item.price.plain(),
            quantity_max: item.limit.min(QUANTITY_MAX),
            state,
            says: language.said(says),
            picture: item.picture.as_ref().map(PictureCard::from),
        }
    }
}

struct PictureCard<'a> {
    width: u32,
    height: u32,
    description: &'a str,
    source: &'a str,
    webp: String,
    jpeg: String,
    /// Without the largest one, which would not be seen on a phone and would be paid for.
    small_webp: String,
    small_jpeg: String,
}

/// Widths up to here are for phones.
const PHONE_WIDTH_MAX: u32 = 640;

impl<'a> From<&'a PictureView> for PictureCard<'a> {
    fn from(picture: &'a PictureView) -> Self {
        let set = |width_max: u32, path: fn(&(u32, String, String)) -> &str| {
            let fitting = picture.sources.iter().filter(|(width, _, _)| *width <= width_max);
            let entries: Vec<_> = fitting.map(|source| format!("{} {}w", path(source), source.0)).collect();
            entries.join(", ")
        };
        Self {
            width: picture.width,
            height: picture.height,
            description: &picture.description,
            source: picture.sources.first().map_or("", |(_, _, jpeg)| jpeg),
            webp: set(u32::MAX, |source| &source.1),
            jpeg: set(u32::MAX, |source| &source.2),
            small_webp: set(PHONE_WIDTH_MAX, |source| &source.1),
            small_jpeg: set(PHONE_WIDTH_MAX, |source| &source.2),
        }
    }
}

/// `2026-11-26 18:00:00 UTC`.
fn plain_time(time: ChainTime) -> String {
    let text = time.rfc3339();
    let (date, clock) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", clock.get(..8).unwrap_or(clock))
}
