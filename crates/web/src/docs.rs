//! The pages under `/docs`: the reference of the interface and what each refusal means. Plain HTML with one style sheet: no script, nothing
//! inline, nothing from elsewhere.
//!
//! They are made of what is compiled in, once, and are the same for everybody.

mod reference;
mod refusals;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::Refusal;
use http::{HeaderValue, header};
use pulldown_cmark::{Event, Parser, html};

use crate::app::App;
use crate::problem::Problem;

/// The style and an empty icon, without which a browser would ask for one. There is no form to be sent and no script to be run.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");
const STYLE: &str = include_str!("docs/style.css");

static REFERENCE: LazyLock<String> = LazyLock::new(|| reference::page(&crate::openapi()));
static REFUSALS: LazyLock<String> = LazyLock::new(refusals::list);
static PAGES: LazyLock<HashMap<&'static str, String>> =
    LazyLock::new(|| refusals::all().map(|refusal| (refusal.code(), refusals::page(refusal))).collect());

/// For both listeners: the `type` of a problem is an address at whoever answered.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/docs", get(|| async { page(&REFERENCE) }))
        .route("/docs/errors", get(|| async { page(&REFUSALS) }))
        .route("/docs/errors/{code}", get(refusal))
        .route("/docs/style.css", get(|| async { answer(STYLE, "text/css; charset=utf-8") }))
}

async fn refusal(Path(code): Path<String>) -> Result<Response, Problem> {
    PAGES.get(code.as_str()).map(|text| page(text)).ok_or_else(|| Refusal::NotFound.into())
}

fn page(text: &'static str) -> Response {
    answer(text, "text/html; charset=utf-8")
}

fn answer(text: &'static str, content_type: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, KEPT),
    ];
    (headers, text).into_response()
}

/// A whole page.
fn framed(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title} - Doorbuster</title><link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/docs/style.css\"></head>\
         <body><header><nav aria-label=\"Documents\"><a href=\"/docs\">Interface</a> <a href=\"/docs/errors\">Refusals</a> \
         <a href=\"/openapi.json\">OpenAPI</a></nav></header><main>{body}</main></body></html>"
    )
}

/// Markdown as HTML; what is HTML in it stays text.
fn markdown(text: &str) -> String {
    let parser = Parser::new(text).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        event => event,
    });
    let mut out = String::with_capacity(text.len() * 2);
    html::push_html(&mut out, parser);
    out
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_texts_is_never_markup() {
        let page = markdown("a `<b>` & <script>alert(1)</script>\n\n<div onclick=x>\n\n| no | table |");
        assert!(page.contains("<code>&lt;b&gt;</code> &amp; &lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert!(!page.contains("<div") && !page.contains("<script"), "{page}");
        assert_eq!(escaped("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }

    #[test]
    fn no_page_has_a_style_a_script_or_an_address_of_elsewhere() {
        for page in [REFERENCE.as_str(), REFUSALS.as_str()].into_iter().chain(PAGES.values().map(String::as_str)) {
            for foreign in
                ["<script", "<style", " style=", " onclick", "src=", "@import", "href=\"http", "href=\"//", "url("]
            {
                assert!(!page.contains(foreign), "{foreign}: {page}");
            }
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
