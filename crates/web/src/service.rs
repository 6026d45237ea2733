//! Where every request enters: its body is read within bounds and time, purchases go straight to the front half, all else to the
//! router, and whatever comes back leaves with the request's id and the security headers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use admission::postbox::Desk;
use axum::Router;
use bytes::Bytes;
use domain::Refusal;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use limiter::overload::Priority;
use tower::ServiceExt as _;

use crate::address::Peer;
use crate::app::App;
use crate::connections::{Phase, Watch};
use crate::express::Buffers;
use crate::made::Made;
use crate::outgoing::{IsPaged, Outgoing};
use crate::overload::{self, Shed, Turn};
use crate::problem::Problem;
use crate::purchase::Head;
use crate::reply::{REQUEST_ID, Reply, secure};
use crate::{body, limits, origin, pictures, purchase};

/// Of an answer to somebody whose body is still on its way: nothing can be read behind it.
const LAST_ANSWER: (HeaderName, HeaderValue) = (header::CONNECTION, HeaderValue::from_static("close"));

/// What one serving thread works with.
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    pub(crate) desk: Desk,
    pub(crate) router: Router,
    pub(crate) body_bytes_max: usize,
    /// The public listener takes purchases; the admin listener does not.
    pub(crate) takes_purchases: bool,
    /// Whom it serves now.
    pub(crate) turn: Rc<Turn>,
    /// For the express lane.
    pub(crate) buffers: RefCell<Buffers>,
    /// For the answers of a batch.
    pub(crate) made: RefCell<Made>,
}

impl Front {
    /// Counts a refusal and makes its answer.
    pub(crate) fn refuse(&self, problem: &Problem, request_id: &str) -> Reply {
        self.app.metrics.refused(problem.refusal);
        problem.reply(request_id)
    }
}

/// Serves one request. `watch` is told what the connection is waiting for.
pub(crate) async fn serve(
    front: Rc<Front>,
    watch: Rc<Watch>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Outgoing> {
    watch.enter(Phase::Body);
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let priority = priority_of(&front, &parts);
    let prove = || overload::proof_of(&front.app, path, &parts.headers);
    let enter = || priority.map(|priority| front.turn.enter(priority, prove)).transpose();
    let left_out = |shed: &Shed| {
        watch.enter(Phase::Idle);
        shed.response(&parts)
    };
    let place = match enter() {
        Ok(place) => place,
        Err(shed) => {
            let mut response = left_out(shed);
            if at_once(&mut pin!(body::collect(body, body_bytes_max(&front, &parts)))).await.is_pending() {
                response.headers_mut().extend([LAST_ANSWER]);
            }
            return response;
        }
    };
    // Whoever may not ask is told so at once, whatever they mean to send.
    let admitted = admit(&front, &peer, &parts).await;
    let collected = body::collect(body, body_bytes_max(&front, &parts));
    let (body, _place) = match receive(collected, admitted.is_ok(), place, enter).await {
        Ok(received) => received,
        Err(shed) => return left_out(shed),
    };
    let is_unread = matches!(body, None | Some(Err(Problem { refusal: Refusal::BodyTooLarge, .. })));
    let body = body.unwrap_or(Ok(Bytes::new()));
    watch.enter(Phase::Handling);
    let request_id = front.app.request_id(parts.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()));
    let judged = if front.takes_purchases { origin::judge(&front.app, &parts) } else { Ok(None) };
    let shop = judged.as_ref().ok().cloned().flatten();
    let is_for_all = front.takes_purchases && origin::is_for_all(&parts);
    let answered = match admitted.and(judged).and(body) {
        Err(problem) => Err(problem),
        Ok(_) if asks_first(&front, &parts) => origin::preflight(shop.clone()).map(whole),
        Ok(body) => match purchase_target(&front, &parts) {
            Some((sale, item)) => {
                let head = Head::of(&parts.headers);
                let reply = purchase::purchase(&front, sale, item, &head, &body).await;
                reply.map(whole)
            }
            None => route(&front, &watch, parts, body).await,
        },
    };
    let mut response =
        answered.unwrap_or_else(|problem| front.refuse(&problem, &request_id).into_response().map(Outgoing::Whole));
    if is_unread {
        response.headers_mut().extend([LAST_ANSWER]);
    }
    if is_for_all {
        // The same for every page, so that an edge may keep it.
        response.headers_mut().extend([origin::LET_ALL_IN]);
    } else {
        response.headers_mut().extend(shop.into_iter().flat_map(origin::let_in));
    }
    secure(response.headers_mut(), &request_id);
    if matches!(response.body(), Outgoing::Whole(_)) {
        watch.enter(Phase::Idle);
    }
    response
}

/// What is left out before what. A browser that asks whether its page may ask costs no more than leaving it out would, and could not tell
/// its page that it was.
fn priority_of(front: &Front, parts: &Parts) -> Option<Priority> {
    let is_counted = front.takes_purchases && !asks_first(front, parts);
    is_counted.then(|| overload::priority_of(parts.uri.path())).flatten()
}

/// A body, if it is wanted or has come already, and the place of its request. A place is for what is being done: while a body comes slowly
/// somebody else has it.
async fn receive<P, S>(
    body: impl Future<Output = Result<Bytes, Problem>>,
    is_wanted: bool,
    place: P,
    enter: impl Fn() -> Result<P, S>,
) -> Result<(Option<Result<Bytes, Problem>>, P), S> {
    let mut body = pin!(body);
    match at_once(&mut body).await {
        Poll::Ready(body) => Ok((Some(body), place)),
        Poll::Pending if !is_wanted => Ok((None, place)),
        Poll::Pending => {
            drop(place);
            let body = body.await;
            Ok((Some(body), enter()?))
        }
    }
}

/// What is there without waiting.
async fn at_once<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Judges by address; the operator has no limits.
async fn admit(front: &Front, peer: &Peer, parts: &Parts) -> Result<(), Problem> {
    if !front.takes_purchases {
        return Ok(());
    }
    let client = front.app.limits.addresses.of_headers(peer, &parts.headers);
    limits::judge(&front.app, &client, parts).await
}

fn whole(reply: Reply) -> Response<Outgoing> {
    reply.into_response().map(Outgoing::Whole)
}

/// Whether a browser asks if a page may send something.
fn asks_first(front: &Front, parts: &Parts) -> bool {
    front.takes_purchases && parts.method == Method::OPTIONS && parts.headers.contains_key(header::ORIGIN)
}

/// What the request's body may have.
fn body_bytes_max(front: &Front, parts: &Parts) -> usize {
    let path = parts.uri.path();
    let larger = match front.takes_purchases {
        true => path.starts_with("/v1/payments/callbacks/").then_some(payment::limits::CALLBACK_BYTES_MAX),
        false => pictures::upload_bytes_max(&parts.method, path),
    };
    larger.unwrap_or(front.body_bytes_max)
}

/// Sale and item, when the request is a purchase.
fn purchase_target<'a>(front: &Front, parts: &'a http::request::Parts) -> Option<(&'a str, &'a str)> {
    let asks = front.takes_purchases && parts.method == Method::POST;
    purchase::target(parts.uri.path()).filter(|_| asks)
}

async fn route(front: &Front, watch: &Rc<Watch>, parts: Parts, body: Bytes) -> Result<Response<Outgoing>, Problem> {
    let request = Request::from_parts(parts, axum::body::Body::from(body));
    let response = match front.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut parts, body) = response.into_parts();
    if let Some(problem) = parts.extensions.remove::<Problem>() {
        return Err(Problem { allow: parts.headers.remove(header::ALLOW), ..problem });
    }
    if let Some(paged) = parts.extensions.remove::<IsPaged>() {
        return Ok(Response::from_parts(parts, Outgoing::paged(body, paged, watch)));
    }
    let bytes = body.collect().await.map_err(|error| Problem::internal(&error))?.to_bytes();
    Ok(Response::from_parts(parts, Outgoing::Whole(Full::new(bytes))))
}
