//! A stand-in with an adapter that talks to it, and an inbox for its callbacks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use domain::{Currency, Money};
use http::{HeaderMap, StatusCode};
use payment::signature::SIGNATURE_HEADER;
use payment::{AttemptKey, Event, Secret, Stripe, StripeOptions};
use standin::{Behaviour, CallbackTarget, StandIn, StandInOptions};

pub(crate) const SECRET_KEY: &str = "sk_test_4f";
pub(crate) const CALLBACK_SECRET: &str = "whsec_4f";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn euros(amount: u64) -> Money {
    Money { amount, currency: Currency(*b"EUR") }
}

pub(crate) fn attempt(number: u8) -> AttemptKey {
    AttemptKey::new("or_Lw_edfAxTQBU-CxUOE4iEA", number).unwrap()
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn standin(script: impl IntoIterator<Item = Behaviour>) -> StandIn {
    let standin = StandIn::start(StandInOptions::new(SECRET_KEY, CALLBACK_SECRET)).unwrap();
    standin.script(script);
    standin
}

/// Patient enough for a busy machine; tests of time-outs make their own.
pub(crate) fn options(address: SocketAddr) -> StripeOptions {
    let mut options = StripeOptions::new(Secret::new(SECRET_KEY), vec![Secret::new(CALLBACK_SECRET)]);
    options.client.base_url = format!("http://{address}");
    options.client.time_max = PATIENCE;
    options.client.dangerous_plain_http = true;
    options
}

pub(crate) fn adapter(standin: &StandIn) -> Stripe {
    Stripe::new(options(standin.address())).unwrap()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "not seen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Serves a router on every connection until the test ends.
pub(crate) fn serve(listener: tokio::net::TcpListener, router: Router) {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let stream = hyper_util::rt::TokioIo::new(stream);
                drop(hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await);
            });
        }
    });
}

/// What an engine does with callbacks: believe, read, keep, acknowledge.
#[derive(Clone, Default)]
pub(crate) struct Inbox {
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    /// So many deliveries are turned away first.
    pub(crate) failures: Arc<Mutex<u32>>,
}

impl Inbox {
    /// Listens; gives where.
    pub(crate) async fn open(&self) -> CallbackTarget {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/callbacks", post(take)).with_state(self.clone());
        serve(listener, router);
        CallbackTarget { address, path: "/callbacks".to_owned() }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.lock().unwrap().len()
    }
}

async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: String) -> StatusCode {
    let mut failures = inbox.failures.lock().unwrap();
    if *failures > 0 {
        *failures -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let header = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match Event::receive(&[Secret::new(CALLBACK_SECRET)], header, body.as_bytes(), now_seconds()) {
        Ok(event) => {
            inbox.events.lock().unwrap().push(event);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}
