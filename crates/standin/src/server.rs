//! The stand-in as it runs: a thread with a runtime of its own, the listener that the engine talks to, and one for whoever directs.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::behaviour::{Behaviour, Plan};
use crate::books::{Refusal, Totals};
use crate::courier::{CallbackTarget, Courier};
use crate::direct;
use crate::service::{Ask, Customers, Outcome, Service};
use crate::shape;

const BODY_BYTES_MAX: usize = 64 * 1024;

/// How a stand-in starts. It has no `Debug` form because it carries secrets.
#[derive(Clone)]
pub struct StandInOptions {
    /// Where the engine reaches it; loopback, port 0 for any that is free.
    pub address: SocketAddr,
    /// Where it is directed from over HTTP; loopback, port 0 for any that is free.
    pub direction: SocketAddr,
    /// The key that the engine has to show; with `_live_` in it, its money says that it is real.
    pub secret_key: String,
    /// What callbacks are signed with.
    pub callback_secret: String,
    /// Where callbacks go; they wait as long as there is no target.
    pub callback: Option<CallbackTarget>,
    /// Callbacks stay in the post for up to so long, so that they overtake each other.
    pub callback_delay_milliseconds_max: u64,
    /// Who pays.
    pub customers: Customers,
    /// What payments do.
    pub plan: Plan,
}

impl StandInOptions {
    /// Play money, everything plain, on any free ports.
    pub fn new(secret_key: &str, callback_secret: &str) -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            address: any,
            direction: any,
            secret_key: secret_key.to_owned(),
            callback_secret: callback_secret.to_owned(),
            callback: None,
            callback_delay_milliseconds_max: 0,
            customers: Customers::AtOnce,
            plan: Plan::default(),
        }
    }
}

/// Whether the provider is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// It is.
    None,
    /// It answers everything with 503 and does nothing.
    Unavailable,
    /// Nobody listens; open connections end.
    Refused,
}

/// A running stand-in. It ends when it is dropped, and its books with it.
pub struct StandIn {
    address: SocketAddr,
    direction: SocketAddr,
    director: Arc<Director>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Everything that can be done to a stand-in from outside.
pub(crate) struct Director {
    pub(crate) service: Arc<Service>,
    courier: Arc<Courier>,
    outages: mpsc::Sender<(Outage, SyncSender<()>)>,
    is_unavailable: AtomicBool,
    hanging: AtomicUsize,
    /// One change at a time.
    turning: Mutex<()>,
}

impl Director {
    /// Returns when the listener is as it shall be. Blocks for a moment.
    fn outage(&self, outage: Outage) {
        let _turn = self.turning.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.is_unavailable.store(outage == Outage::Unavailable, Ordering::SeqCst);
        self.courier.is_out.store(outage != Outage::None, Ordering::SeqCst);
        let (done, turned) = std::sync::mpsc::sync_channel(1);
        if self.outages.try_send((outage, done)).is_ok() {
            // An error means that the stand-in is ending, and then it is out for good.
            let _ = turned.recv();
        }
    }

    pub(crate) fn start_outage(self: &Arc<Self>, outage: Outage) -> tokio::task::JoinHandle<()> {
        let director = Arc::clone(self);
        tokio::task::spawn_blocking(move || director.outage(outage))
    }
}

impl StandIn {
    /// Starts one; it answers when this returns.
    pub fn start(options: StandInOptions) -> io::Result<Self> {
        if !options.address.ip().is_loopback() || !options.direction.ip().is_loopback() {
            return Err(io::Error::other("a stand-in listens on loopback only: whoever reaches it can pay everything"));
        }
        let bound = [std::net::TcpListener::bind(options.address)?, std::net::TcpListener::bind(options.direction)?];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let courier = Courier::new(
            &options.callback_secret,
            options.callback_delay_milliseconds_max,
            options.plan.seed,
            runtime.handle().clone(),
        );
        if let Some(target) = options.callback {
            courier.aim(target);
        }
        let service = Service::new(options.secret_key, options.customers, options.plan, Arc::clone(&courier));
        let [listener, direction] = adopted(&runtime, bound)?;
        let addresses = (listener.local_addr()?, direction.local_addr()?);
        let (outages, changes) = mpsc::channel(1);
        let director = Arc::new(Director {
            service,
            courier,
            outages,
            is_unavailable: AtomicBool::new(false),
            hanging: AtomicUsize::new(0),
            turning: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let running = Arc::clone(&director);
        let thread = std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = listen(listener, &running, changes) => {}
                    () = direct::listen(direction, &running) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { address: addresses.0, direction: addresses.1, director, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the engine reaches it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is directed from over HTTP.
    pub fn direction(&self) -> SocketAddr {
        self.direction
    }

    /// Sends callbacks there from now on, also those that wait.
    pub fn aim(&self, target: CallbackTarget) {
        self.director.courier.aim(target);
    }

    /// The next payments behave like this.
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.director.service.script(behaviours);
    }

    /// The customer pays, with the payment's reference or the client secret.
    pub fn pay(&self, reference: &str) -> Result<(), Refusal> {
        self.director.service.pay(reference_of(reference))
    }

    /// What was held back or processed succeeds now.
    pub fn release(&self, reference: &str) -> Result<(), Refusal> {
        self.director.service.release(reference_of(reference))
    }

    /// Begins or ends an outage; it has when this returns.
    pub fn outage(&self, outage: Outage) {
        self.director.outage(outage);
    }

    /// A day passes: the idempotency keys of all calls so far are forgotten, so repeating one is a new call.
    pub fn forget_keys(&self) {
        self.director.service.forget_keys();
    }

    /// Everything in the books.
    pub fn books(&self) -> Totals {
        self.director.service.totals()
    }

    /// Calls that will never be answered and whose callers still wait.
    pub fn hanging(&self) -> usize {
        self.director.hanging.load(Ordering::SeqCst)
    }

    /// Callbacks that nobody has accepted yet.
    pub fn callbacks_waiting(&self) -> usize {
        self.director.courier.waiting()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Listeners of that runtime. They were bound without it, because whoever starts a stand-in may be in a runtime already.
fn adopted(runtime: &Runtime, bound: [std::net::TcpListener; 2]) -> io::Result<[TcpListener; 2]> {
    let _entered = runtime.enter();
    let adopt = |listener: std::net::TcpListener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    let [first, second] = bound;
    Ok([adopt(first)?, adopt(second)?])
}

/// The customer has the secret and not the reference, but one begins with the other.
pub(crate) fn reference_of(text: &str) -> &str {
    text.split_once("_secret_").map_or(text, |(reference, _)| reference)
}

async fn listen(
    listener: TcpListener,
    director: &Arc<Director>,
    mut changes: mpsc::Receiver<(Outage, SyncSender<()>)>,
) {
    let address = listener.local_addr().expect("a bound listener has an address");
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some((outage, done)) = changes.recv() => {
                if outage == Outage::Refused {
                    listener = None;
                    connections.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(bind_again(address).await);
                }
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Some((stream, _)) = accept(listener.as_ref()) => {
                connections.spawn(converse(stream, Arc::clone(director)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Never ready without a listener.
async fn accept(listener: Option<&TcpListener>) -> Option<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await.ok(),
        None => std::future::pending().await,
    }
}

async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            // Somebody else was quicker for a moment.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, director: Arc<Director>) {
    // Without it every answer would wait for an acknowledgement that the other side delays.
    let _ = stream.set_nodelay(true);
    let answering = service_fn(move |request| answer(Arc::clone(&director), request));
    // Who hangs up in the middle is the other side's business, or our own behaviour.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answering).await;
}

/// The connection ends instead of an answer.
#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HungUp {}

async fn answer(director: Arc<Director>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, HungUp> {
    let (parts, body) = request.into_parts();
    let Some(body) = text(body).await else { return Ok(reply(413, &json!({}))) };
    if director.is_unavailable.load(Ordering::SeqCst) {
        return Ok(reply(503, &shape::error("api_error", "The provider is not available.")));
    }
    let named = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let asks = Ask {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        bearer: named(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer ")),
        key: named("idempotency-key").unwrap_or_default(),
        body: &body,
    };
    match director.service.serve(&asks) {
        Outcome::Reply(status, body) => Ok(reply(status, &body)),
        Outcome::HangUp => Err(HungUp),
        Outcome::Silence => {
            let _hanging = Hanging::begin(&director.hanging);
            std::future::pending::<Result<_, Infallible>>().await.map_err(|never| match never {})
        }
    }
}

/// Counts a call as long as its caller waits.
struct Hanging<'a>(&'a AtomicUsize);

impl<'a> Hanging<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) async fn text(body: Incoming) -> Option<String> {
    let bytes = Limited::new(body, BODY_BYTES_MAX).collect().await.ok()?.to_bytes();
    String::from_utf8(bytes.into()).ok()
}

pub(crate) fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
