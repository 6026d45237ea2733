//! Refusals on the wire: RFC 9457 problems with a stable `code`.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use domain::{ChainTime, Refusal};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::reply::Reply;

/// A refusal on its way out. It becomes a body in `service`, where the request id is known.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) refusal: Refusal,
    pub(crate) detail: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) retry_at: Option<ChainTime>,
    /// Where the refusal itself does not say it.
    pub(crate) retry_after_seconds: Option<u64>,
    /// With `method_not_allowed`: the methods that the path takes.
    pub(crate) allow: Option<HeaderValue>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None, position: None, retry_at: None, retry_after_seconds: None, allow: None }
    }
}

impl Problem {
    pub(crate) fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::from(refusal) }
    }

    /// Logs what failed inside; the client learns only that it did.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed inside");
        Refusal::Internal.into()
    }

    fn body<'a>(&'a self, request_id: &'a str) -> ProblemBody<'a> {
        ProblemBody {
            r#type: format!("/docs/errors/{}", self.refusal.code()),
            title: self.refusal.title(),
            status: self.refusal.status(),
            code: self.refusal.code(),
            detail: self.detail.as_deref(),
            position: self.position,
            retry_at: self.retry_at,
            request_id,
        }
    }

    /// The same bytes as [`Problem::body`] gives where there is no detail. A request id has no character that JSON would escape.
    fn render_from_front(&self, request_id: &str) -> Vec<u8> {
        let front = FRONTS.iter().find(|(refusal, _)| *refusal == self.refusal);
        let mut bytes = Vec::with_capacity(512);
        bytes.extend(front.map_or(&[][..], |(_, front)| front));
        if let Some(position) = self.position {
            bytes.extend(br#","position":"#);
            bytes.extend(position.to_string().as_bytes());
        }
        if let Some(retry_at) = self.retry_at {
            bytes.extend(br#","retry_at":""#);
            bytes.extend(retry_at.rfc3339().as_bytes());
            bytes.push(b'"');
        }
        if !request_id.is_empty() {
            bytes.extend(br#","request_id":""#);
            bytes.extend(request_id.as_bytes());
            bytes.push(b'"');
        }
        bytes.push(b'}');
        bytes
    }

    pub(crate) fn reply(&self, request_id: &str) -> Reply {
        let body = match self.detail {
            None => self.render_from_front(request_id),
            Some(_) => serde_json::to_vec(&self.body(request_id)).expect("a problem has no map with odd keys"),
        };
        let mut headers = Vec::new();
        let known = self.refusal.retry_after_seconds().map(u64::from);
        if let Some(seconds) = self.retry_after_seconds.or(known) {
            headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if self.refusal.status() == 401 {
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        headers.extend(self.allow.clone().map(|methods| (header::ALLOW, methods)));
        let status = StatusCode::from_u16(self.refusal.status()).expect("refusals have valid statuses");
        Reply { status, content_type: "application/problem+json", headers, body }
    }
}

/// What is the same in every problem of a refusal, ready to be sent: most answers of a sale are refusals.
static FRONTS: LazyLock<Vec<(Refusal, Vec<u8>)>> = LazyLock::new(|| {
    let front = |refusal: Refusal| {
        let mut bytes =
            serde_json::to_vec(&Problem::from(refusal).body("")).expect("a problem has no map with odd keys");
        bytes.truncate(bytes.len() - EMPTY_END.len());
        (refusal, bytes)
    };
    Refusal::ALL.into_iter().chain([Refusal::Internal]).map(front).collect()
});
/// How a problem's body ends while nothing of it is a request's own.
const EMPTY_END: &str = "}";

/// The body of every refusal.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ProblemBody<'a> {
    /// Page that explains the code.
    r#type: String,
    /// What happened and what to do.
    title: &'a str,
    /// HTTP status.
    status: u16,
    /// Stable code.
    code: &'a str,
    /// What exactly was wrong with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Chain position that the refusal rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// From when another try makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<ChainTime>,
    /// Names this request in the server's log. Absent where the request was left out before anything of it was looked at.
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_without_detail_is_the_same_whichever_way_it_is_written() {
        for refusal in Refusal::ALL.into_iter().chain([Refusal::Internal]) {
            for position in [None, Some(0), Some(u64::MAX)] {
                for retry_at in [None, Some(ChainTime(1_700_000_000_123))] {
                    let problem = Problem { position, retry_at, ..refusal.into() };
                    for request_id in ["3f-1a", ""] {
                        let whole = serde_json::to_vec(&problem.body(request_id)).unwrap();
                        assert_eq!(problem.render_from_front(request_id), whole, "{refusal:?}");
                    }
                }
            }
        }
    }
}
