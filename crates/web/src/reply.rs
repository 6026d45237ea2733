//! An answer on its way out, before it is settled how it leaves: as the express lane's bytes or as hyper's response. Both ways send
//! the same headers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

/// Names a request in the server's log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every answer says to browsers.
const SECURITY: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];
/// Yields where an answer says itself how long it may be kept; what does not is somebody's own.
const KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// Adds the request's id and the security headers.
pub(crate) fn secure(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(request_id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, request_id);
    }
    harden(headers);
}

/// Adds the security headers.
pub(crate) fn harden(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        // A page says itself what it needs.
        headers.entry(name).or_insert(value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(KEPT);
}

/// A small answer in one piece.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    /// Beyond those that every answer has.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// An answer of JSON.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let mut bytes = Vec::with_capacity(1_024);
        serde_json::to_writer(&mut bytes, body).expect("answers have no map with odd keys");
        Self { status, content_type: "application/json", headers: Vec::new(), body: bytes }
    }

    /// As hyper sends it; the caller adds what every answer has.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.into()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response.headers_mut().extend(self.headers);
        response
    }

    /// The whole answer as it travels, with the request's id and the time in the form of HTTP, where it answers one request only.
    pub(crate) fn write(&self, stamp: Option<(&str, &str)>, out: &mut Vec<u8>) {
        out.extend(b"HTTP/1.1 ");
        out.extend(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend(self.status.canonical_reason().unwrap_or_default().as_bytes());
        write_header(header::CONTENT_TYPE.as_str(), self.content_type.as_bytes(), out);
        for (name, value) in &self.headers {
            write_header(name.as_str(), value.as_bytes(), out);
        }
        if let Some((request_id, date)) = stamp {
            write_header(REQUEST_ID.as_str(), request_id.as_bytes(), out);
            write_header(header::DATE.as_str(), date.as_bytes(), out);
        }
        for (name, value) in &SECURITY {
            write_header(name.as_str(), value.as_bytes(), out);
        }
        write_header(header::CACHE_CONTROL.as_str(), KEPT.as_bytes(), out);
        write_header(header::CONTENT_LENGTH.as_str(), itoa::Buffer::new().format(self.body.len()).as_bytes(), out);
        out.extend(b"\r\n\r\n");
        out.extend(&self.body);
    }
}

/// Ends the line before and begins its own.
fn write_header(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend(b"\r\n");
    out.extend(name.as_bytes());
    out.extend(b": ");
    out.extend(value);
}
