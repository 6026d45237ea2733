//! The session of a browser: the shop's token in a cookie that no script can read, so that a page needs to carry it once only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use domain::Refusal;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::identify;
use crate::limits::{self, Kind};
use crate::problem::{Problem, ProblemBody};

/// The prefix makes browsers insist on TLS (or this machine), the whole site and no other host.
const COOKIE: &str = "__Host-doorbuster";
/// Browsers keep about 4 KB of name, value and attributes.
const TOKEN_BYTES_MAX: usize = 3_800;
/// For a token that does not expire.
const SECONDS_MAX: u64 = 12 * 60 * 60;

/// The cookies of a request, as they came: other parts of the shop's site may have set some, in whatever bytes. Sent twice is absent.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::COOKIE).iter();
    let first = values.next()?.as_bytes();
    if values.next().is_some() { None } else { Some(first) }
}

/// The access token in a cookie header. Two of the name are none: one of them may be somebody else's.
pub(crate) fn token_in(cookies: &[u8]) -> Option<&str> {
    let pairs = cookies.split(|byte| *byte == b';');
    let mut tokens = pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")));
    let token = tokens.next().filter(|token| !token.is_empty() && token.is_ascii())?;
    if tokens.next().is_some() { None } else { std::str::from_utf8(token).ok() }
}

/// Who came in.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionAnswer {
    /// Tells the customers of one browser apart, and says nothing else about them.
    customer: String,
}

/// Put the access token of `Authorization` into a cookie, for the engine's own pages.
#[utoipa::path(
    post, path = "/v1/session", tag = "customers",
    responses((status = 200, body = SessionAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn begin(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let identity = limits::identity(&app, &headers, Kind::Passes).await?;
    let token = identify::token(&headers)?;
    let is_plain = token.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b',' | b';' | b'\\'));
    if !is_plain || token.len() > TOKEN_BYTES_MAX {
        let detail = format!("a token for a cookie has at most {TOKEN_BYTES_MAX} plain characters");
        return Err(Problem::new(Refusal::Malformed, detail));
    }
    let rest = identity.expires_at_milliseconds.map(|end| end.saturating_sub(app.engine.now()) / 1_000);
    let seconds = rest.unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    let hash = app.engine.customer_hash(&identity.issuer, &identity.subject);
    let answer = Json(SessionAnswer { customer: HEXLOWER.encode(&hash[..8]) });
    with_cookie(answer.into_response(), token, seconds)
}

/// Forget the token.
#[utoipa::path(delete, path = "/v1/session", tag = "customers", responses((status = 204, description = "Forgotten")))]
pub(crate) async fn end() -> Result<Response, Problem> {
    with_cookie(StatusCode::NO_CONTENT.into_response(), "", 0)
}

fn with_cookie(mut response: Response, token: &str, seconds: u64) -> Result<Response, Problem> {
    let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&cookie).map_err(|error| Problem::internal(&error))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::token_in;

    #[test]
    fn the_token_is_found_among_cookies() {
        let table = [
            ("__Host-doorbuster=a.b.c", Some("a.b.c")),
            ("other=1; __Host-doorbuster=a.b-c_d; more=2", Some("a.b-c_d")),
            ("__Host-doorbuster=a=b", Some("a=b")),
            ("caf\u{e9}=\u{1f45f}; __Host-doorbuster=a.b.c", Some("a.b.c")),
            ("__Host-doorbuster=a.b.c; x=\u{e9}", Some("a.b.c")),
            ("__Host-doorbuster=a.\u{e9}.c", None),
            ("__Host-doorbuster=a; __Host-doorbuster=b", None),
            ("__Host-doorbuster=; __Host-doorbuster=b", None),
            ("__host-doorbuster=a", None),
            ("=__Host-doorbuster=a", None),
            ("__Host-doorbuster", None),
            ("__Host-doorbuster=", None),
            ("__Host-doorbusterx=1", None),
            ("x__Host-doorbuster=1", None),
            ("", None),
            (";;=;", None),
        ];
        for (cookies, token) in table {
            assert_eq!(token_in(cookies.as_bytes()), token, "{cookies}");
        }
    }
}
