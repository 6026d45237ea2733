//! Which page a request comes from: the engine's own, a shop's that a sale has let in, or no page at all.
//!
//! A browser names the page that sends a request, and no script can make it name another. So a page that nobody has let in cannot act in
//! the name of whoever looks at it, whatever the browser sends along.

use std::sync::Arc;

use domain::Refusal;
use engine::Sale;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::app::App;
use crate::customers;
use crate::identify;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::session;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a shop's page may send, and may read of an answer.
const METHODS: &str = "GET, POST, OPTIONS";
const HEADERS: &str = "authorization, content-type, doorbuster-pass, idempotency-key, prefer";
const EXPOSED: &str = "location, retry-after, x-request-id";
/// For how long a browser may remember that it was let in, in seconds; browsers keep it for two hours at most.
const REMEMBERED_SECONDS: &str = "7200";

/// What a browser says about where a request comes from, and how its customer is named.
#[derive(Default)]
pub(crate) struct Caller<'a> {
    pub(crate) origin: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
    pub(crate) has_token: bool,
    pub(crate) cookie: Option<&'a [u8]>,
}

/// Stands for what was sent twice or is no text: no page has this origin.
const UNREADABLE: &str = "null";

impl<'a> Caller<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let text = |name| identify::once(headers, name);
        // What is there and cannot be read is not as good as absent.
        let told = |name: HeaderName| headers.contains_key(&name).then(|| text(name).unwrap_or(UNREADABLE));
        Self {
            origin: told(header::ORIGIN),
            host: text(header::HOST),
            site: told(FETCH_SITE),
            has_token: headers.contains_key(header::AUTHORIZATION),
            cookie: session::cookie(headers),
        }
    }

    /// Whether it is one of the engine's own pages. Browsers say so themselves where the connection is safe, and then it counts, whatever the
    /// host is: behind an edge it may be another, and a page of the same host without TLS is another's. Older ones name the origin only.
    fn is_own(&self) -> bool {
        let named = self.origin.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        match self.site {
            Some(site) => site == "same-origin",
            None => named.is_some_and(|named| !named.is_empty() && Some(named) == self.host),
        }
    }

    /// The origin of a shop's page that the sale has let in.
    fn shop(&self, sale: Option<&Sale>) -> Option<HeaderValue> {
        let origin = self.origin.filter(|_| !self.is_own())?;
        let is_let_in = sale?.showcase().settings.origins.iter().any(|allowed| allowed == origin);
        is_let_in.then(|| HeaderValue::from_str(origin).ok()).flatten()
    }

    /// Whether a page may act on the sale at all.
    pub(crate) fn may_act(&self, sale: &Sale) -> bool {
        self.is_own() || self.shop(Some(sale)).is_some()
    }

    /// Refuses what a page that nobody has let in wants to change, and whatever a cookie would change from elsewhere than an own page.
    /// Gives the shop's origin, for the answer.
    pub(crate) fn admit(&self, sale: Option<&Sale>) -> Result<Option<HeaderValue>, Problem> {
        if self.is_own() {
            return Ok(None);
        }
        let shop = self.shop(sale);
        let is_foreign = self.origin.is_some() && shop.is_none();
        let by_cookie = !self.has_token && self.cookie.and_then(session::token_in).is_some();
        if is_foreign || by_cookie { Err(Refusal::OriginRefused.into()) } else { Ok(shop) }
    }
}

/// Whether an answer is everybody's, and so any page's: what there is, and that there is no such thing.
pub(crate) fn is_for_all(parts: &http::request::Parts) -> bool {
    let path = parts.uri.path();
    let of_sale = path.strip_prefix("/v1/sales/").map(|rest| rest.strip_suffix("/heads").unwrap_or(rest));
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    is_read && (matches!(path, "/v1/time" | "/v1/sales") || of_sale.is_some_and(|name| !name.contains('/')))
}

/// The sale that a path is about: by its name, or by an order or purchase in it.
fn sale_of(app: &App, path: &str) -> Option<Arc<Sale>> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    match (parts.next()?, parts.next()?) {
        ("sales", name) => app.engine.sale(name),
        ("orders", order) => customers::order_at(app, order).ok().map(|(sale, _)| sale),
        ("purchases", purchase) => {
            let (ordinal, _) = app.engine.ids.parse_purchase(purchase)?;
            app.engine.sale_by_ordinal(ordinal)
        }
        _ => None,
    }
}

/// Judges a request of the public listener by where it comes from. What only reads is answered, and the browser keeps the answer from a
/// page that nobody has let in.
pub(crate) fn judge(app: &App, parts: &http::request::Parts) -> Result<Option<HeaderValue>, Problem> {
    let caller = Caller::of(&parts.headers);
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if caller.origin.is_none() && !changes {
        return Ok(None);
    }
    let sale = sale_of(app, parts.uri.path());
    if changes { caller.admit(sale.as_deref()) } else { Ok(caller.shop(sale.as_deref())) }
}

/// The same for a purchase, whose sale is named. Most come from no page at all, and cost nothing here.
pub(crate) fn of_purchase(app: &App, sale: &str, caller: &Caller<'_>) -> Result<Option<HeaderValue>, Problem> {
    if caller.origin.is_none() && caller.cookie.is_none() {
        return Ok(None);
    }
    caller.admit(app.engine.sale(sale).as_deref())
}

/// What is answered to a browser that asks whether a shop's page may send something, and to the page that has it ask ahead of time.
pub(crate) fn preflight(shop: Option<HeaderValue>) -> Result<Reply, Problem> {
    // The answer names the page, as every answer to it does.
    shop.ok_or(Refusal::OriginRefused)?;
    let mut reply = Reply::json(StatusCode::OK, &serde_json::json!({}));
    reply.headers = vec![
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS)),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED_SECONDS)),
    ];
    Ok(reply)
}

/// What lets a shop's page read an answer. Without credentials, so that no cookie of ours ever counts there.
pub(crate) fn let_in(shop: HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, shop),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED)),
        (header::VARY, HeaderValue::from_static("origin")),
    ]
}

/// What lets every page read an answer that is everybody's.
pub(crate) const LET_ALL_IN: (HeaderName, HeaderValue) =
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
