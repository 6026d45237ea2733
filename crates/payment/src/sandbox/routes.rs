//! The sandbox over HTTP: the page of a payment and its buttons. Every button ends where a provider would send the browser.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};

use super::page::{content_security_policy, render, render_message};
use super::{PAGES, Press, Sandbox};
use crate::form::plain_field;
use crate::limits::SANDBOX_DELAY_SECONDS_MAX;

impl Sandbox {
    /// `GET /sandbox/payments/{reference}` and the buttons under it, for the public listener.
    ///
    /// The pages bring a `Content-Security-Policy` of their own, which has to stand.
    pub fn routes<S: Clone + Send + Sync + 'static>(self: &Arc<Self>) -> Router<S> {
        Router::new()
            .route(&format!("{PAGES}/{{reference}}"), get(page))
            .route(&format!("{PAGES}/{{reference}}/{{button}}"), post(press))
            .with_state(Arc::clone(self))
    }
}

async fn page(State(sandbox): State<Arc<Sandbox>>, Path(reference): Path<String>) -> Response {
    let now = sandbox.now();
    let shown = sandbox.store().payment(&reference).map(|payment| render(payment, &page_path(&reference), now));
    match shown {
        Some(page) => html(StatusCode::OK, page),
        None => unknown(),
    }
}

async fn press(
    State(sandbox): State<Arc<Sandbox>>,
    Path((reference, button)): Path<(String, String)>,
    form: String,
) -> Response {
    let press = match button.as_str() {
        "pay" => Press::Pay,
        "decline" => Press::Decline,
        "twice" => Press::PayTwice,
        "never" => Press::Never,
        "later" => match plain_field(&form, "seconds").and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) if seconds <= SANDBOX_DELAY_SECONDS_MAX => Press::PayAfter(seconds),
            _ => {
                let message = format!("Give a whole number of seconds from 0 to {SANDBOX_DELAY_SECONDS_MAX}.");
                return html(StatusCode::BAD_REQUEST, render_message(&message));
            }
        },
        _ => return unknown(),
    };
    match sandbox.press(&reference, press) {
        Ok(Some(return_url)) => see_other(&return_url),
        Ok(None) => unknown(),
        Err(error) => html(StatusCode::INTERNAL_SERVER_ERROR, render_message(&format!("Nothing was done: {error}"))),
    }
}

/// Where a payment's page is, from the listener's root.
pub(crate) fn page_path(reference: &str) -> String {
    format!("{PAGES}/{reference}")
}

fn unknown() -> Response {
    html(StatusCode::NOT_FOUND, render_message("There is no such payment."))
}

fn see_other(target: &str) -> Response {
    match HeaderValue::from_str(target) {
        Ok(target) => (StatusCode::SEE_OTHER, [(header::LOCATION, target)]).into_response(),
        Err(_) => html(StatusCode::OK, render_message("Done. The shop's address cannot be followed.")),
    }
}

fn html(status: StatusCode, page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, content_security_policy()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (status, headers, page).into_response()
}
