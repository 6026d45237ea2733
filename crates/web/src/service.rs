//! Where every request enters: its body is read within bounds and time, purchases go straight to the front half, all else to the
//! router, and whatever comes back leaves with the request's id and the security headers.

use std::rc::Rc;
use std::sync::Arc;

use admission::postbox::Desk;
use axum::Router;
use bytes::Bytes;
use domain::Refusal;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::app::App;
use crate::connections::{Phase, Watch};
use crate::problem::Problem;
use crate::{body, purchase};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 64;
const CONTENT_SECURITY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What one serving thread works with.
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    pub(crate) desk: Desk,
    pub(crate) router: Router,
    pub(crate) body_bytes_max: usize,
    /// The public listener takes purchases; the admin listener does not.
    pub(crate) takes_purchases: bool,
}

/// Serves one request. `watch` is told what the connection is waiting for.
pub(crate) async fn serve(front: Rc<Front>, watch: Rc<Watch>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    watch.enter(Phase::Body);
    let (parts, body) = request.into_parts();
    let body = body::collect(body, front.body_bytes_max).await;
    watch.enter(Phase::Handling);
    let request_id = request_id(&front.app, &parts.headers);
    let answered = match body {
        Err(problem) => Err(problem),
        Ok(body) => match purchase_target(&front, &parts) {
            Some((sale, item)) => purchase::purchase(&front, sale, item, &parts.headers, &body).await,
            None => route(&front, parts, body).await,
        },
    };
    let mut response = answered.unwrap_or_else(|problem| {
        front.app.metrics.refused(problem.refusal);
        let mut response = problem.render(request_id.to_str().unwrap_or_default());
        if problem.refusal == Refusal::BodyTooLarge {
            // The rest of the body is still on its way: nothing more can be read here.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    secure(response.headers_mut(), request_id);
    watch.enter(Phase::Idle);
    response
}

/// Sale and item, when the request is `POST /v1/sales/{sale}/items/{item}/purchases`.
fn purchase_target<'a>(front: &Front, parts: &'a http::request::Parts) -> Option<(&'a str, &'a str)> {
    if !front.takes_purchases || parts.method != Method::POST {
        return None;
    }
    let path = parts.uri.path().strip_prefix("/v1/sales/")?.strip_suffix("/purchases")?;
    let (sale, item) = path.split_once("/items/")?;
    (!item.contains('/') && !sale.contains('/')).then_some((sale, item))
}

async fn route(front: &Front, parts: http::request::Parts, body: Bytes) -> Result<Response<Full<Bytes>>, Problem> {
    let request = Request::from_parts(parts, axum::body::Body::from(body));
    let response = match front.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut parts, body) = response.into_parts();
    if let Some(problem) = parts.extensions.remove::<Problem>() {
        return Err(problem);
    }
    let bytes = body.collect().await.map_err(|error| Problem::internal(&error))?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(bytes)))
}

/// The client's own request id where it is short and printable, else a new one.
fn request_id(app: &App, headers: &HeaderMap) -> HeaderValue {
    let sent = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    });
    match sent {
        Some(sent) => sent.clone(),
        None => HeaderValue::from_str(&app.next_request_id()).unwrap_or(HeaderValue::from_static("0")),
    }
}

fn secure(headers: &mut HeaderMap, request_id: HeaderValue) {
    headers.insert(REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Whatever does not say that it may be kept is somebody's own.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
