//! Refusals on the wire: RFC 9457 problems with a stable `code`.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{ChainTime, Refusal};
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

/// A refusal on its way out. It becomes a body in `service`, where the request id is known.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) refusal: Refusal,
    pub(crate) detail: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) retry_at: Option<ChainTime>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None, position: None, retry_at: None }
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

    pub(crate) fn render(&self, request_id: &str) -> http::Response<Full<Bytes>> {
        let body = ProblemBody {
            r#type: format!("/docs/errors/{}", self.refusal.code()),
            title: self.refusal.title(),
            status: self.refusal.status(),
            code: self.refusal.code(),
            detail: self.detail.as_deref(),
            position: self.position,
            retry_at: self.retry_at,
            request_id,
        };
        let mut bytes = Vec::with_capacity(512);
        serde_json::to_writer(&mut bytes, &body).expect("a problem has no map with odd keys");
        let mut response = http::Response::new(Full::new(bytes.into()));
        *response.status_mut() = StatusCode::from_u16(self.refusal.status()).expect("refusals have valid statuses");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.refusal.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.refusal.status() == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

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
    /// Names this request in the server's log.
    request_id: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}
