//! A provider inside the process, for trying out: payments in a file, a page to play the customer on, and callbacks that arrive over
//! HTTP, signed, like anybody's. Loopback only: whoever reaches the page can pay everything.

mod page;
mod routes;
mod store;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use domain::{Clock, Money};
use futures_util::StreamExt as _;
use http::{Request, header};
use http_body_util::Full;
use tokio::sync::Notify;

use crate::client::{Client, ClientOptions, OptionsError, Reply};
use crate::event::{Event, EventError};
use crate::fact::{Fact, RefundFact};
use crate::key::{AttemptKey, RefundKey};
use crate::provider::{Created, PayWith, ProviderError};
use crate::secret::Secret;
use crate::signature::{SIGNATURE_HEADER, sign};
use crate::wire::{PaymentIntent, read, refund_fact};

use self::routes::page_path;
use self::store::{Entry, State, Store};

/// Under which path of the public listener the pages are.
pub(crate) const PAGES: &str = "/sandbox/payments";
/// After this time a callback that was not accepted is sent again.
const SEND_AGAIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Callbacks under way at once. Each waits for the chain's disk, so one after the other would be slower than a crowd pays.
const CALLBACKS_MAX: usize = 32;

/// How a sandbox is opened.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where it keeps its payments, in the data folder.
    pub file: PathBuf,
    /// The engine's public listener: the pages are there, and callbacks go there. Loopback only.
    pub public: SocketAddr,
    /// Path of the engine's route for callbacks.
    pub callback_path: String,
}

/// Why a sandbox is not opened. Definite.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Strangers could pay with nothing.
    #[error("{0} is no loopback address: with dangerous_sandbox_provider everybody who reaches it pays without money")]
    NotLoopback(SocketAddr),
    /// The file.
    #[error("the sandbox's payments in {0} cannot be used: {1}")]
    File(PathBuf, io::Error),
    /// The path of the callbacks.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No random bytes for the secret of the callbacks.
    #[error("the system gives no random bytes")]
    Randomness,
}

/// What the customer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// Pays.
    Pay,
    /// Is declined, and may try again.
    Decline,
    /// Pays with something that takes so many seconds; it is processed and cannot be cancelled meanwhile.
    PayAfter(u64),
    /// Pays, and the callback is sent twice.
    PayTwice,
    /// Goes away.
    Never,
}

/// The provider.
pub struct Sandbox {
    store: Mutex<Store>,
    clock: Arc<dyn Clock>,
    client: Client,
    public: SocketAddr,
    callback_path: String,
    callback_secrets: [Secret; 1],
    changed: Notify,
}

impl Sandbox {
    /// Opens the file, or creates it. [`Self::run`] has to run beside it.
    pub fn open(options: SandboxOptions, clock: Arc<dyn Clock>) -> Result<Arc<Self>, SandboxError> {
        if !options.public.ip().is_loopback() {
            return Err(SandboxError::NotLoopback(options.public));
        }
        let client = Client::new(&ClientOptions {
            base_url: format!("http://{}", options.public),
            time_max: ANSWER_WITHIN,
            connections_max: CALLBACKS_MAX,
            authority: None,
            dangerous_plain_http: true,
        })?;
        let store = Store::open(&options.file).map_err(|error| SandboxError::File(options.file, error))?;
        // Callbacks are signed when they are sent, so the secret need not outlive the process.
        let secret = random().ok_or(SandboxError::Randomness)?;
        Ok(Arc::new(Self {
            store: Mutex::new(store),
            clock,
            client,
            public: options.public,
            callback_path: options.callback_path,
            callback_secrets: [Secret::new(secret)],
            changed: Notify::new(),
        }))
    }

    /// Makes the attempt's payment, or finds the one of that key. The customer is sent back to `return_url`, an address of http or
    /// https or a path of this listener.
    pub fn create(&self, key: &AttemptKey, money: Money, return_url: &str) -> Result<Created, ProviderError> {
        let is_followed = ["https://", "http://", "/"].iter().any(|start| return_url.starts_with(start));
        if !is_followed {
            return Err(ProviderError::refused(
                400,
                "url_invalid",
                "return_url: an address of http or https, or a path",
            ));
        }
        let (name, currency) = (key.to_string(), money.currency.as_str().to_owned());
        let mut store = self.store();
        let reference = match store.payment_of_key(&name) {
            Some(known) if (known.amount, &known.currency) == (money.amount, &currency) => known.reference.clone(),
            Some(_) => {
                return Err(ProviderError::refused(400, "idempotency_error", "the key was used for other money"));
            }
            None => {
                let token = random().ok_or_else(|| ProviderError::NotReached("no random bytes".to_owned()))?;
                let reference = format!("sb_{token}");
                let (amount, return_url) = (money.amount, return_url.to_owned());
                let entry = Entry::Created { reference: reference.clone(), key: name, amount, currency, return_url };
                store.record(entry).map_err(unwritten)?;
                reference
            }
        };
        let pay_with = PayWith::Url(format!("http://{}{}", self.public, page_path(&reference)));
        Ok(Created { reference, pay_with })
    }

    /// Ends a payment if it is open, and gives what became of it.
    pub fn cancel(&self, reference: &str) -> Result<Fact, ProviderError> {
        let mut store = self.store();
        if store.payment(reference).is_some_and(|payment| payment.state.is_open()) {
            let entry = Entry::Cancelled { reference: reference.to_owned(), at: self.now() };
            store.record(entry).map_err(unwritten)?;
            self.changed.notify_one();
        }
        fact(&store, reference)
    }

    /// What became of a payment.
    pub fn fetch(&self, reference: &str) -> Result<Fact, ProviderError> {
        fact(&self.store(), reference)
    }

    /// Gives money of a payment back, once under that key.
    pub fn refund(&self, reference: &str, money: Money, key: &RefundKey) -> Result<RefundFact, ProviderError> {
        let name = key.to_string();
        let mut store = self.store();
        if store.refund(&name).is_none() {
            let payment = store.payment(reference).ok_or_else(missing)?;
            let is_paid = payment.state == State::Paid && payment.currency == money.currency.as_str();
            if !is_paid || money.amount == 0 || money.amount > payment.amount - payment.refunded {
                return Err(ProviderError::refused(400, "charge_already_refunded", "more than is left of the payment"));
            }
            let refund = format!("re_{name}");
            let (reference, amount, at) = (reference.to_owned(), money.amount, self.now());
            let entry = Entry::Refunded { refund, reference, key: name.clone(), amount, at };
            store.record(entry).map_err(unwritten)?;
            self.changed.notify_one();
        }
        let refund = store.refund(&name).ok_or_else(missing)?;
        refund_fact(refund).map_err(|error| ProviderError::Unknown(error.to_string()))
    }

    /// Believes and reads a callback; see [`Event::receive`].
    pub fn receive(&self, header: &str, body: &[u8], now_seconds: u64) -> Result<Event, EventError> {
        Event::receive(&self.callback_secrets, header, body, now_seconds)
    }

    /// What the customer does on the page. Gives where the browser goes next; `None` for an unknown payment. On a payment that is
    /// not open any more nothing happens, and the page tells why.
    pub fn press(&self, reference: &str, press: Press) -> io::Result<Option<String>> {
        let at = self.now();
        let mut store = self.store();
        let Some(payment) = store.payment(reference) else { return Ok(None) };
        let (page, return_url) = (page_path(reference), payment.return_url.clone());
        if !payment.state.is_open() {
            return Ok(Some(page));
        }
        let reference = reference.to_owned();
        let (entry, next) = match press {
            Press::Pay => (Entry::Paid { reference, at, callbacks: 1 }, return_url),
            Press::PayTwice => (Entry::Paid { reference, at, callbacks: 2 }, return_url),
            // A declined customer stays at the provider and may try again.
            Press::Decline => (Entry::Declined { reference, at }, page),
            Press::PayAfter(seconds) => {
                let due = at.saturating_add(seconds.saturating_mul(1_000));
                (Entry::Processing { reference, at, due }, return_url)
            }
            Press::Never => return Ok(Some(return_url)),
        };
        store.record(entry)?;
        self.changed.notify_one();
        Ok(Some(next))
    }

    /// Pays what is due and sends callbacks, again and again until they are accepted. Never ends; what it did not manage before the
    /// process ends, it does after the next start.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next_due = self.pay_what_is_due();
            let all_accepted = self.send_callbacks().await;
            let until_due = next_due.map(|due| Duration::from_millis(due.saturating_sub(self.now())));
            let pause = if all_accepted { until_due } else { Some(SEND_AGAIN.min(until_due.unwrap_or(SEND_AGAIN))) };
            let pause = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Gives when the next one is due.
    fn pay_what_is_due(&self) -> Option<u64> {
        let at = self.now();
        let mut store = self.store();
        let (due, next) = store.due(at);
        for reference in due {
            if let Err(error) = store.record(Entry::Paid { reference, at, callbacks: 1 }) {
                tracing::warn!(%error, "a sandbox payment that is due cannot be written; it is tried again");
                return Some(at.saturating_add(1_000));
            }
        }
        next
    }

    /// Whether none waits any more.
    async fn send_callbacks(&self) -> bool {
        let waiting = self.store().undelivered();
        let sent = futures_util::stream::iter(waiting).map(|(delivery, body)| async move {
            self.is_accepted(&body).await && self.store().record(Entry::Delivered { delivery }).is_ok()
        });
        sent.buffer_unordered(CALLBACKS_MAX).fold(true, |all, accepted| async move { all && accepted }).await
    }

    async fn is_accepted(&self, body: &str) -> bool {
        let signature = sign(&self.callback_secrets[0], body.as_bytes(), self.now() / 1_000);
        let request = Request::post(self.callback_path.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature)
            .body(Full::new(Bytes::from(body.to_owned())));
        let Ok(request) = request else { return false };
        matches!(self.client.exchange(request).await, Ok(Reply { status: 200..=299, .. }))
    }

    fn now(&self) -> u64 {
        self.clock.wall_milliseconds()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fact(store: &Store, reference: &str) -> Result<Fact, ProviderError> {
    let payment = store.payment(reference).ok_or_else(missing)?;
    let fact = read::<PaymentIntent>("payment", payment.shown()).and_then(|payment| payment.fact());
    fact.map_err(|error| ProviderError::Unknown(error.to_string()))
}

fn missing() -> ProviderError {
    ProviderError::refused(404, "resource_missing", "the sandbox has no such payment")
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped over results")]
fn unwritten(error: io::Error) -> ProviderError {
    ProviderError::NotReached(format!("the sandbox's file cannot be written: {error}"))
}

/// 32 hexadecimal digits that nobody guesses.
fn random() -> Option<String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    Some(HEXLOWER.encode(&bytes))
}
