//! Reading bodies: bounded, JSON only, unknown fields refused.

use bytes::{Bytes, BytesMut};
use domain::Refusal;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Collects a body of at most `bytes_max` bytes.
pub(crate) async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::BodyTooLarge.into());
    }
    let mut collected: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Refusal::Malformed, "the body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        collected = Some(match collected {
            None => data,
            Some(before) => {
                let mut joined = BytesMut::from(before);
                joined.extend_from_slice(&data);
                joined.freeze()
            }
        });
        if collected.as_ref().is_some_and(|bytes| bytes.len() > bytes_max) {
            return Err(Refusal::BodyTooLarge.into());
        }
    }
    Ok(collected.unwrap_or_default())
}

/// Reads a JSON body. An empty one reads as `{}`, so that a route whose fields all have defaults needs no body.
pub(crate) fn json<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, Problem> {
    let bytes = if body.is_empty() { b"{}" } else { body };
    if !body.is_empty() && !content_type.is_some_and(is_json) {
        return Err(Refusal::MediaTypeUnsupported.into());
    }
    // A list in the fields' order would read as well, and nobody means that.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(Refusal::Malformed, "body: send a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::new(Refusal::Malformed, format!("body: {error}")))
}

/// The content type of a request.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

fn is_json(value: &str) -> bool {
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
