//! Carries callbacks to the engine: signed when they leave, in any order, again and again until one is accepted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::behaviour::draw;

/// Deliveries under way at the same time.
const DELIVERIES_MAX: usize = 32;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where callbacks go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackTarget {
    /// The engine's listener; loopback only.
    pub address: SocketAddr,
    /// Path, with its slash.
    pub path: String,
}

pub(crate) struct Courier {
    secret: hmac::Key,
    delay_milliseconds_max: u64,
    seed: u64,
    target: Mutex<Option<CallbackTarget>>,
    waiting: AtomicUsize,
    /// A provider that is down sends nothing either.
    pub(crate) is_out: AtomicBool,
    permits: Semaphore,
    runtime: Handle,
}

impl Courier {
    pub(crate) fn new(secret: &str, delay_milliseconds_max: u64, seed: u64, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            delay_milliseconds_max,
            seed,
            target: Mutex::default(),
            waiting: AtomicUsize::new(0),
            is_out: AtomicBool::new(false),
            permits: Semaphore::new(DELIVERIES_MAX),
            runtime,
        })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn aim(&self, target: CallbackTarget) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Callbacks that nobody has accepted yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Takes a callback; `name` settles how long it stays in the post.
    pub(crate) fn send(self: &Arc<Self>, name: String, body: String) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let courier = Arc::clone(self);
        self.runtime.spawn(async move {
            let delay = draw(courier.seed, &name, courier.delay_milliseconds_max + 1);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let mut pause = FIRST_PAUSE;
            while !courier.is_delivered(&body).await {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            courier.waiting.fetch_sub(1, Ordering::SeqCst);
        });
    }

    async fn is_delivered(&self, body: &str) -> bool {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(target) = target.filter(|_| !self.is_out.load(Ordering::SeqCst)) else { return false };
        let _permit = self.permits.acquire().await.expect("the courier never closes its semaphore");
        matches!(tokio::time::timeout(ANSWER_WITHIN, self.post(&target, body)).await, Ok(Ok(200..=299)))
    }

    /// Gives the status of the answer.
    async fn post(&self, target: &CallbackTarget, body: &str) -> anyhow::Result<u16> {
        let stream = TcpStream::connect(target.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // How the connection ended is known from the answer.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(target.path.as_str())
            .header("host", target.address.to_string())
            .header("content-type", "application/json")
            .header("stripe-signature", self.signature(body, now_seconds()))
            .body(Full::new(Bytes::from(body.to_owned())))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok(status)
    }

    /// The header's value, made here a second time so that both sides cannot be wrong alike.
    fn signature(&self, body: &str, at_seconds: u64) -> String {
        let tag = hmac::sign(&self.secret, format!("{at_seconds}.{body}").as_bytes());
        format!("t={at_seconds},v1={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
    }
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
