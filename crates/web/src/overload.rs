//! Who is left out while more is asked than can be answered. It is looked at before anything else of a request, and its answer was made
//! when the process started.
//!
//! The ceilings are in `limiter`; `watch` moves them, and tells the operator which one bites.

pub(crate) mod watch;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{ChainTime, Refusal};
use engine::Engine;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;
use limiter::Limiter;
use limiter::overload::{Bounds, Ceiling, Ceilings, Delays, Priority};

use crate::app::App;
use crate::identify;
use crate::limits::{PROVEN_BURST, PROVEN_PER_SECOND};
use crate::metrics::ShedCounters;
use crate::origin::LET_ALL_IN;
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::purchase::{self, Head};
use crate::reply::{self, Reply};
use crate::site::{self, HTML};

/// For those who prove something while others are left out; each has a word.
const PROVEN_BYTES_MAX: usize = 4 << 20;
/// After how many seconds whoever is left out is to come again, in turns, so that they do not all come back together.
const RETRY_AFTER_SECONDS: [u64; 4] = [1, 2, 3, 4];

/// Nothing but the style. Any page may frame it, as a shop's frames that of its sale: there is nothing on it that could be pressed.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'";

/// From where on requests are left out.
#[derive(Clone, Copy, Debug)]
pub struct OverloadOptions {
    /// How long may be waited, and how many may be under way at once.
    pub bounds: Bounds,
    /// Requests a second; 0 is no ceiling.
    pub requests_per_second_max: u32,
    /// Passes a second, all sales together; 0 is no ceiling.
    pub passes_per_second_max: u32,
}

impl Default for OverloadOptions {
    /// No ceiling at all.
    fn default() -> Self {
        let bounds = Bounds { queue_milliseconds: 50, decision_milliseconds: 500, in_flight_max: 0 };
        Self { bounds, requests_per_second_max: 0, passes_per_second_max: 0 }
    }
}

/// What all serving threads share.
pub(crate) struct Overload {
    options: OverloadOptions,
    pub(crate) ceilings: Ceilings,
    threads: Mutex<Vec<Arc<Delays>>>,
    /// Of callers who prove something.
    proven: Limiter,
    start: Instant,
    answers: [Shed; RETRY_AFTER_SECONDS.len()],
    next_answer: AtomicUsize,
    shed: ShedCounters,
    seen: Mutex<watch::Shown>,
}

impl Overload {
    pub(crate) fn new(options: OverloadOptions, shed: ShedCounters, page: &str) -> Self {
        let OverloadOptions { bounds, requests_per_second_max, passes_per_second_max } = options;
        Self {
            options,
            ceilings: Ceilings::new(bounds.in_flight_max, requests_per_second_max, passes_per_second_max),
            threads: Mutex::default(),
            proven: Limiter::new(PROVEN_BYTES_MAX, PROVEN_PER_SECOND, PROVEN_BURST),
            start: Instant::now(),
            answers: RETRY_AFTER_SECONDS.map(|seconds| Shed::new(seconds, page)),
            next_answer: AtomicUsize::new(0),
            shed,
            seen: Mutex::default(),
        }
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether whoever proves something, known under that hash, has not done so more often than everybody may.
    fn is_proven(&self, proof: Option<u64>) -> bool {
        proof.is_some_and(|hash| self.proven.check(hash, self.now() / 1_000_000).is_ok())
    }

    fn leave_out(&self, ceiling: Ceiling, priority: Priority) -> &Shed {
        self.shed.of(ceiling, priority).inc();
        let turn = self.next_answer.fetch_add(1, Ordering::Relaxed);
        &self.answers[turn % self.answers.len()]
    }

    /// The right to take a pass, for a customer who may have one; asked before the vault is.
    pub(crate) fn take_pass(&self, engine: &Engine) -> Result<(), Problem> {
        self.ceilings.take_pass(self.now()).map_err(|wait| {
            self.shed.of(Ceiling::Passes, Priority::Passes).inc();
            let milliseconds = wait.div_ceil(1_000_000);
            Problem {
                retry_at: Some(ChainTime(engine.now() + milliseconds)),
                retry_after_seconds: Some(milliseconds.div_ceil(1_000)),
                ..Refusal::Overloaded.into()
            }
        })
    }
}

/// The whole answer to somebody who is left out. It has neither a request id nor a date: it was made before there was a request.
pub(crate) struct Shed {
    /// As the express lane sends it.
    pub(crate) bytes: Bytes,
    problem: (HeaderMap, Bytes),
    /// For whoever asked for a page.
    page: (HeaderMap, Bytes),
}

impl Shed {
    fn new(retry_after_seconds: u64, page: &str) -> Self {
        let problem = Problem { retry_after_seconds: Some(retry_after_seconds), ..Problem::from(Refusal::Overloaded) };
        let mut reply: Reply = problem.reply("");
        // It says nothing about anybody, so every page may read it, also the shop's that nobody had the time to look up.
        let exposed = (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from(header::RETRY_AFTER));
        reply.headers.extend([LET_ALL_IN, exposed]);
        let mut bytes = Vec::new();
        reply.write(None, &mut bytes);
        let (mut parts, _) = reply.clone().into_response().into_parts();
        reply::harden(&mut parts.headers);
        let mut of_page = parts.headers.clone();
        of_page.insert(header::CONTENT_TYPE, HTML);
        of_page.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
        // A browser comes again by itself.
        of_page.insert(header::REFRESH, HeaderValue::from(retry_after_seconds));
        let page = Bytes::copy_from_slice(page.as_bytes());
        Self { bytes: bytes.into(), problem: (parts.headers, reply.body.into()), page: (of_page, page) }
    }

    /// The same for hyper.
    pub(crate) fn response(&self, parts: &Parts) -> Response<Outgoing> {
        let (headers, body) = if site::is_for_a_page(&parts.uri, &parts.headers) { &self.page } else { &self.problem };
        let mut response = Response::new(Outgoing::Whole(Full::new(body.clone())));
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        *response.headers_mut() = headers.clone();
        response
    }
}

/// One serving thread's requests. Requests count until the turn is over in which they were answered: a thread that finds a thousand of them
/// ready has a thousand under way, although it works on one at a time.
pub(crate) struct Turn {
    app: Arc<App>,
    delays: Arc<Delays>,
    begun: Cell<Option<Instant>>,
    finished: Cell<[u32; 4]>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    /// [`Turn::keep`] must run on the same thread for any request to be over.
    pub(crate) fn new(app: &Arc<App>) -> Rc<Self> {
        let delays = Arc::new(Delays::default());
        lock(&app.overload.threads).push(Arc::clone(&delays));
        Rc::new(Self {
            app: Arc::clone(app),
            delays,
            begun: Cell::new(None),
            finished: Cell::default(),
            waker: RefCell::default(),
        })
    }

    /// Lets a request in, or gives the answer for somebody who is left out. `prove` is asked only then: under which hash who asks is known,
    /// if they prove something.
    pub(crate) fn enter(
        self: &Rc<Self>,
        priority: Priority,
        prove: impl FnOnce() -> Option<u64>,
    ) -> Result<Place, &Shed> {
        self.begin();
        let overload = &self.app.overload;
        let now = if overload.ceilings.needs_time() { overload.now() } else { 0 };
        let place = |priority| Place { turn: Rc::clone(self), priority };
        let Err(ceiling) = overload.ceilings.enter(priority, now) else { return Ok(place(priority)) };
        if overload.is_proven(prove()) && overload.ceilings.enter(Priority::Proven, now).is_ok() {
            return Ok(place(Priority::Proven));
        }
        self.app.metrics.refused(Refusal::Overloaded);
        Err(overload.leave_out(ceiling, priority))
    }

    /// A decision took so long.
    pub(crate) fn decided(&self, took: Duration) {
        self.delays.note_decision(nanoseconds(took));
    }

    fn begin(&self) {
        if self.begun.get().is_none() {
            self.begun.set(Some(Instant::now()));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends turns, for ever. What a thread has to do stands in one line, and whoever joins it waits for all who were there before: so does
    /// this task, which joins it with the first request of a turn and therefore measures how long the line is.
    pub(crate) async fn keep(self: Rc<Self>) {
        loop {
            let begun = poll_fn(|context| match self.begun.take() {
                Some(begun) => Poll::Ready(begun),
                None => {
                    *self.waker.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                }
            })
            .await;
            self.delays.note_queue(nanoseconds(begun.elapsed()));
            self.app.overload.ceilings.leave(self.finished.take());
        }
    }
}

/// A request's place among those under way, until this is dropped.
pub(crate) struct Place {
    turn: Rc<Turn>,
    priority: Priority,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut finished = self.turn.finished.get();
        finished[self.priority as usize] += 1;
        self.turn.finished.set(finished);
        self.turn.begin();
    }
}

/// What a request of the public listener is; `None` for what is answered in any case.
pub(crate) fn priority_of(path: &str) -> Option<Priority> {
    let Some(rest) = path.strip_prefix("/v1/") else {
        return match path {
            "/healthz" | "/readyz" => None,
            // A page that was let in is of no use without them.
            _ if path.starts_with("/assets/") => Some(Priority::Passes),
            _ => Some(Priority::Rest),
        };
    };
    let mut parts = rest.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("payments"), Some("callbacks"), _) => None,
        (Some("sales"), _, Some("items")) => Some(Priority::Purchases),
        (Some("sales"), _, Some("passes" | "challenges")) | (Some("session"), _, _) => Some(Priority::Passes),
        _ => Some(Priority::Rest),
    }
}

/// Who asks about an order or a purchase: whoever knows its id, which nobody can make but we.
pub(crate) fn proof_of_path(app: &App, path: &str) -> Option<u64> {
    let (what, id) = path.strip_prefix("/v1/")?.split_once('/')?;
    let id = id.split('/').next()?;
    let is_ours = match what {
        "orders" => app.engine.ids.parse_order(id).is_some(),
        "purchases" => app.engine.ids.parse_purchase(id).is_some(),
        _ => false,
    };
    is_ours.then(|| app.limits.addresses.hash(id.as_bytes()))
}

/// Who buys again in a sale in which they may hold something, so perhaps what they were granted already: whoever has their pass. With
/// another token than it was taken with, a renewed one say, they count apart, so that a pass that was stolen takes nothing from its owner.
pub(crate) fn proof_of_purchase(app: &App, sale: &str, head: &Head<'_>) -> Option<u64> {
    let sale = app.engine.sale(sale)?;
    let pass = app.engine.passes.now().open(head.pass?).ok()?.pass;
    if pass.sale != sale.ordinal || !sale.view().may_hold(pass.customer) {
        return None;
    }
    let is_known = identify::token_in(head).is_ok_and(|token| pass.matches_token(token));
    let mut key = [0; 17];
    key[..16].copy_from_slice(&pass.customer.0);
    key[16] = u8::from(is_known);
    Some(app.limits.addresses.hash(&key))
}

/// The same for a request of general form.
pub(crate) fn proof_of(app: &App, path: &str, headers: &HeaderMap) -> Option<u64> {
    match purchase::target(path) {
        Some((sale, _)) => proof_of_purchase(app, sale, &Head::of(headers)),
        None => proof_of_path(app, path),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is behind these locks is whole after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_priority_and_what_has_to_be_answered_has_none() {
        let table = [
            ("/v1/sales/drop/items/boot/purchases", Some(Priority::Purchases)),
            ("/v1/sales/drop/passes", Some(Priority::Passes)),
            ("/v1/session", Some(Priority::Passes)),
            ("/v1/sales/drop/mine", Some(Priority::Rest)),
            ("/v1/sales/drop", Some(Priority::Rest)),
            ("/v1/sales", Some(Priority::Rest)),
            ("/v1/time", Some(Priority::Rest)),
            ("/v1/orders", Some(Priority::Rest)),
            ("/v1/orders/or_1/payments", Some(Priority::Rest)),
            ("/v1/purchases/pu_1/events", Some(Priority::Rest)),
            ("/sales/drop", Some(Priority::Rest)),
            ("/assets/page.js", Some(Priority::Passes)),
            ("/", Some(Priority::Rest)),
            ("/v1/payments/callbacks/stripe", None),
            ("/healthz", None),
            ("/readyz", None),
        ];
        for (path, priority) in table {
            assert_eq!(priority_of(path), priority, "{path}");
        }
    }

    #[test]
    fn the_answer_is_a_whole_problem_and_the_same_either_way() {
        for seconds in RETRY_AFTER_SECONDS {
            let shed = Shed::new(seconds, "<p>Very many people are here.");
            let text = std::str::from_utf8(&shed.bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            let (headers, of_hyper) = &shed.problem;
            assert_eq!(body.as_bytes(), of_hyper);
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&problem["code"], &problem["status"]), (&"overloaded".into(), &503.into()));
            assert_eq!(problem.get("request_id"), None);
            let mut lines: Vec<_> = head.lines().skip(1).map(str::to_owned).collect();
            lines.retain(|line| !line.starts_with("content-length: "));
            let mut headers: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            headers.sort();
            assert_eq!(lines, headers);
            assert!(lines.contains(&format!("retry-after: {seconds}")), "{lines:?}");
            let (headers, page) = &shed.page;
            assert_eq!(
                (&headers[header::CONTENT_TYPE], &headers[header::REFRESH]),
                (&HTML, &HeaderValue::from(seconds))
            );
            assert_eq!(page, "<p>Very many people are here.");
        }
    }
}
