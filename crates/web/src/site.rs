//! The pages over HTTP: what anybody may see comes with its state in it, what is somebody's own comes empty and asks for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use domain::{ChainTime, Refusal, SalePhase};
use engine::Sale;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use pages::{Asset, Availability, Encoded, ItemView, Language, PictureView, SaleView};
use serde::Deserialize;

use crate::app::App;
use crate::identify;
use crate::origin::{Caller, LET_ALL_IN};
use crate::problem::Problem;
use crate::shop::{PUBLIC_SECONDS, describe};
use crate::wire::SaleAnswer;

/// A page serves everybody who asks within this time: at the opening it is made a few times a second, not once for each.
const KEPT_MILLISECONDS: u64 = 500;
/// How old a page may be when it arrives: kept here, then for a second by an edge, and the seconds of both may not be of one clock.
const AGE_MAX_MILLISECONDS: u64 = KEPT_MILLISECONDS + 1_000 + 500;
/// Pages that are kept; sales times languages.
const PAGES_MAX: usize = 1_024;

pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const FIVE_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
const OWN: HeaderValue = HeaderValue::from_static("no-store");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: (HeaderName, HeaderValue) =
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
/// Nothing inline, nothing from elsewhere, no text that becomes a script. The empty picture stands for an icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors ";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(sales))
        .route("/sales/{sale}", get(sale))
        .route("/orders/{order}", get(order))
        .route("/mine", get(mine))
        .route("/assets/{file}", get(asset))
        .route("/button.js", get(button))
        .route("/human.js", get(human_check))
        .route("/button/words", get(button_words))
        .route("/button/access", get(button_access))
        .route("/check/words", get(check_words))
}

/// Pages that were made a moment ago.
#[derive(Default)]
pub(crate) struct PageCache(Mutex<HashMap<String, (u64, Encoded)>>);

impl PageCache {
    /// The page of that name, made now unless one is fresh enough.
    fn get(&self, name: String, now: u64, make: impl FnOnce() -> String) -> Encoded {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_at, page)) = lock().get(&name)
            && now.saturating_sub(*made_at) < KEPT_MILLISECONDS
        {
            return page.clone();
        }
        // Not under the lock: two who make the same page are quicker than one who waits.
        let page = Encoded::page(&make());
        let mut kept = lock();
        if kept.len() >= PAGES_MAX {
            kept.clear();
        }
        kept.insert(name, (now, page.clone()));
        page
    }
}

/// What an address of a page may say. Of what it says twice the first counts, and the rest is nobody's: a page is shown whatever a link was
/// put together of.
#[derive(Default, Deserialize)]
#[serde(from = "Vec<(String, String)>")]
pub(crate) struct PageQuery {
    lang: Option<String>,
    sale: Option<String>,
}

impl From<Vec<(String, String)>> for PageQuery {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "lang" => query.lang.get_or_insert(value),
                "sale" => query.sale.get_or_insert(value),
                _ => continue,
            };
        }
        query
    }
}

/// One request for a page.
struct Asked<'a> {
    app: &'a App,
    language: &'a Language,
    asked: Option<&'a str>,
    accept_encoding: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(app: &'a App, query: &'a PageQuery, headers: &'a HeaderMap) -> Self {
        let asked = query.lang.as_deref();
        Self {
            app,
            language: app.site.language(asked, identify::once(headers, header::ACCEPT_LANGUAGE)),
            asked,
            accept_encoding: identify::once(headers, header::ACCEPT_ENCODING),
        }
    }

    fn made(&self, of: &str, make: impl FnOnce() -> String) -> Encoded {
        let name = format!("{of} {} {}", self.language.tag, self.asked.is_some());
        self.app.pages.get(name, self.app.engine.now(), make)
    }

    /// A page that is the same for everybody for a moment.
    fn shared(&self, of: &str, framed_by: &[String], make: impl FnOnce() -> String) -> Response {
        self.html(StatusCode::OK, &self.made(of, make), PUBLIC_SECONDS, framed_by)
    }

    /// A page on which a script shows what is somebody's own.
    fn own(&self, of: &str, make: impl FnOnce() -> String) -> Response {
        self.html(StatusCode::OK, &self.made(of, make), OWN, &[])
    }

    fn missing(&self) -> Response {
        let page = self.made("/missing", || self.app.site.missing_page(self.language, self.asked));
        self.html(StatusCode::NOT_FOUND, &page, OWN, &[])
    }

    fn html(&self, status: StatusCode, page: &Encoded, kept: HeaderValue, framed_by: &[String]) -> Response {
        let frames = if framed_by.is_empty() { "'none'".to_owned() } else { framed_by.join(" ") };
        let policy = HeaderValue::from_str(&format!("{POLICY}{frames}"));
        let mut response = encoded(page, self.accept_encoding);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HTML);
        headers.insert(header::CACHE_CONTROL, kept);
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding, accept-language"));
        headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
        if let Ok(policy) = policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

fn encoded(page: &Encoded, accept_encoding: Option<&str>) -> Response {
    let (bytes, encoding): (Bytes, _) = page.pick(accept_encoding);
    let mut response = bytes.into_response();
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

async fn sales(State(app): State<Arc<App>>, Query(query): Query<PageQuery>, headers: HeaderMap) -> Response {
    let asked = Asked::of(&app, &query, &headers);
    asked.shared("/", &[], || {
        let mut views: Vec<_> = app.engine.sales().iter().map(|sale| view(&app, sale, asked.language)).collect();
        // What can be bought comes first, then what comes next, and what is over last, the latest of each first.
        views.sort_by_key(|sale| (sale.has_closed, !sale.has_opened, std::cmp::Reverse(sale.opens_at)));
        app.site.sales_page(asked.language, asked.asked, &views)
    })
}

async fn sale(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    headers: HeaderMap,
) -> Response {
    let asked = Asked::of(&app, &query, &headers);
    let Some(sale) = app.engine.sale(&name) else { return asked.missing() };
    asked.shared(&name, &sale.showcase().settings.origins, || {
        app.site.sale_page(asked.language, asked.asked, &view(&app, &sale, asked.language))
    })
}

async fn order(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
    headers: HeaderMap,
) -> Response {
    let asked = Asked::of(&app, &query, &headers);
    // Whose it is, the script hears; that it cannot be anybody's can be said at once.
    if app.engine.ids.parse_order(&id).is_none() {
        return asked.missing();
    }
    asked.own("/orders", || app.site.order_page(asked.language, asked.asked))
}

async fn mine(State(app): State<Arc<App>>, Query(query): Query<PageQuery>, headers: HeaderMap) -> Response {
    let asked = Asked::of(&app, &query, &headers);
    asked.own("/mine", || app.site.mine_page(asked.language, asked.asked))
}

/// Nothing is there: a page for whoever looks with a browser, the refusal for everybody else.
pub(crate) async fn nothing(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if is_for_a_page(&uri, &headers) {
        Asked::of(&app, &query, &headers).missing()
    } else {
        Problem::from(Refusal::NotFound).into_response()
    }
}

/// Whether it is a browser that is to show what is answered.
pub(crate) fn is_for_a_page(uri: &Uri, headers: &HeaderMap) -> bool {
    let accepted = identify::once(headers, header::ACCEPT).unwrap_or_default();
    !uri.path().starts_with("/v1/") && accepted.contains("text/html")
}

async fn asset(State(app): State<Arc<App>>, Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let asset = app.site.asset(&format!("/assets/{file}")).ok_or(Refusal::NotFound)?;
    let mut response = encoded(&asset.encoded, identify::once(&headers, header::ACCEPT_ENCODING));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, FOR_EVER);
    Ok(response)
}

/// The buy button under a name that does not change, for a shop's page.
async fn button(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    for_shops(app.site.button(), &headers)
}

/// The human check, which the button loads when it is asked for one.
async fn human_check(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    for_shops(app.site.human_check(), &headers)
}

fn for_shops(asset: &Asset, headers: &HeaderMap) -> Response {
    // Its path has its hash.
    let tag = format!("\"{}\"", asset.path);
    let mut response = if identify::once(headers, header::IF_NONE_MATCH).is_some_and(|known| known == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        encoded(&asset.encoded, identify::once(headers, header::ACCEPT_ENCODING))
    };
    let to = response.headers_mut();
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    to.insert(header::CACHE_CONTROL, FIVE_MINUTES);
    to.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    to.extend([LET_ALL_IN, RESOURCE_POLICY]);
    response
}

/// What the buy button says, in the language that its page asks for.
async fn button_words(State(app): State<Arc<App>>, Query(query): Query<PageQuery>, headers: HeaderMap) -> Response {
    let accepted = identify::once(&headers, header::ACCEPT_LANGUAGE);
    let language = app.site.language(query.lang.as_deref(), accepted);
    let sale = query.sale.and_then(|name| app.engine.sale(&name));
    let name = format!("/button/words {} {}", language.tag, sale.as_ref().map_or("", |sale| sale.name()));
    let words = app.pages.get(name, app.engine.now(), || {
        app.site.button_words(language, sale.and_then(|sale| button_text(&sale, language)).as_deref())
    });
    let mut response = encoded(&words, identify::once(&headers, header::ACCEPT_ENCODING));
    let to = response.headers_mut();
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    to.insert(header::CACHE_CONTROL, FIVE_MINUTES);
    to.insert(header::VARY, HeaderValue::from_static("accept-encoding, accept-language"));
    to.extend([LET_ALL_IN]);
    response
}

/// What the human check says, in the language of its page.
async fn check_words(State(app): State<Arc<App>>, Query(query): Query<PageQuery>, headers: HeaderMap) -> Response {
    let language = app.site.language(query.lang.as_deref(), identify::once(&headers, header::ACCEPT_LANGUAGE));
    let name = format!("/check/words {}", language.tag);
    let words = app.pages.get(name, app.engine.now(), || app.site.check_words(language));
    let mut response = encoded(&words, identify::once(&headers, header::ACCEPT_ENCODING));
    let to = response.headers_mut();
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    to.insert(header::CACHE_CONTROL, FIVE_MINUTES);
    to.insert(header::VARY, HeaderValue::from_static("accept-encoding, accept-language"));
    response
}

/// Whether the page that asks may act on the sale. A browser tells its script nothing of that, and a button that does not work is not told
/// from a network that does not.
async fn button_access(State(app): State<Arc<App>>, Query(query): Query<PageQuery>, headers: HeaderMap) -> Response {
    let sale = query.sale.and_then(|name| app.engine.sale(&name));
    let is_let_in = sale.is_some_and(|sale| Caller::of(&headers).may_act(&sale));
    ([LET_ALL_IN], Json(serde_json::json!({ "let_in": is_let_in }))).into_response()
}

/// The sale's own text for the button in that language.
fn button_text(sale: &Sale, language: &Language) -> Option<String> {
    sale.showcase().settings.button.get(&language.tag).cloned()
}

/// A sale as its page shows it: what the API tells, and the pictures.
fn view(app: &App, sale: &Sale, language: &Language) -> SaleView {
    let answer = describe(app, sale);
    let items = answer.items.iter().map(|item| ItemView {
        name: item.item.clone(),
        title: item.title.clone(),
        price: item.price,
        limit: item.limit_per_customer.min(answer.limit_per_customer),
        available: match item.available {
            "yes" => Availability::Yes,
            "may_return" => Availability::MayReturn,
            _ => Availability::No,
        },
        picture: item.picture.as_ref().map(|picture| PictureView {
            width: picture.width,
            height: picture.height,
            sources: picture.sources.iter().map(|at| (at.width, at.webp.clone(), at.jpeg.clone())).collect(),
            description: picture.description.clone().unwrap_or_default(),
        }),
    });
    SaleView { items: items.collect(), button: button_text(sale, language), ..without_items(&answer) }
}

fn without_items(answer: &SaleAnswer) -> SaleView {
    let raw = serde_json::value::to_raw_value(answer).expect("an answer has no map with odd keys");
    let ChainTime(now) = answer.server_time;
    SaleView {
        name: answer.sale.clone(),
        title: answer.title.clone(),
        test: answer.test,
        opens_at: answer.opens_at,
        closes_at: answer.closes_at,
        has_opened: answer.phase >= SalePhase::Open,
        has_closed: answer.phase >= SalePhase::Closed,
        is_paused: answer.paused,
        button: None,
        items: Vec::new(),
        made_at: ChainTime(now),
        age_max_milliseconds: AGE_MAX_MILLISECONDS,
        answer: raw,
    }
}
