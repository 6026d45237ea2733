//! The service: the endpoints and their tasks, and what an operator may do with them. Every change of an endpoint ends its task first and
//! begins it again from the file, so that there is one truth about it. Methods block.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::BASE32_DNSSEC;
use domain::{ChainTime, milliseconds, sale};
use engine::Engine;
use ledger::{Service, StoreError};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::caller::{CallTimes, Caller};
use crate::delivery::{CALLS_MAX, Delivery, Ends, Shared};
use crate::event::EventKind;
use crate::pace::Pace;
use crate::reading::Readers;
use crate::signature::Secret;
use crate::store::{Endpoint, Store};
use crate::target::{Target, TargetError};

/// Endpoints of one process.
const ENDPOINTS_MAX: usize = 16;
/// How long a former secret still signs.
const ROTATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two looks at how far the books are.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Reads and look-ups of all endpoints: one look-up each, and one read per call.
const BLOCKING_THREADS_MAX: usize = ENDPOINTS_MAX * (CALLS_MAX + 2);

/// How the service behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebhookOptions {
    /// Call this machine too, without TLS where the URL says so.
    pub loopback_allowed: bool,
    /// When failed calls are repeated.
    pub pace: Pace,
    /// How long a call may take.
    pub times: CallTimes,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file.
    #[error(
        "webhooks.sqlite: {0} (where it cannot be repaired it may be deleted: the endpoints are then added again, and `replay` tells them \
         what they missed, under the same ids)"
    )]
    Store(#[from] StoreError),
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS for webhooks: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a change was not made. Definite, unless the file says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The request contradicts a rule; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// There is no such endpoint in this process.
    #[error("this process has no such webhook")]
    Unknown,
    /// The file.
    #[error("webhooks.sqlite: {0}")]
    Store(#[from] StoreError),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
}

/// What is wanted of a new endpoint.
#[derive(Clone, Debug, Default)]
pub struct NewEndpoint {
    /// Where to call.
    pub url: String,
    /// Names of sales, existing or not; empty is all.
    pub sales: Vec<String>,
    /// Kinds of events; empty is all.
    pub events: Vec<EventKind>,
}

/// An endpoint as it stands.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// Its id.
    pub id: String,
    /// Where it is called.
    pub url: String,
    /// Names of sales; empty is all.
    pub sales: Vec<String>,
    /// Kinds of events; empty is all.
    pub events: Vec<EventKind>,
    /// Why it is not called; `None` while it is.
    pub paused: Option<String>,
    /// When it was added.
    pub created_at: ChainTime,
    /// Nothing older than this chain time is told.
    pub since: ChainTime,
    /// Until when a former secret signs too.
    pub former_secret_until: Option<ChainTime>,
    /// Per sale: the first record that was not told, and how many records the books are ahead of it.
    pub places: Vec<(String, u64, u64)>,
    /// The last call's status, error and time.
    pub last: (Option<u16>, Option<String>, Option<ChainTime>),
    /// Events that wait to be called for again.
    pub waiting: u64,
    /// Events that were given up.
    pub parked: u64,
    /// Why the last of those was.
    pub parked_reason: Option<String>,
}

/// The running service.
pub struct Webhooks {
    shared: Arc<Shared>,
    options: WebhookOptions,
    tls: Arc<ClientConfig>,
    ends: watch::Receiver<Ends>,
    /// The tasks of the endpoints that are called. Held while an endpoint changes.
    tasks: Mutex<HashMap<String, JoinHandle<()>>>,
    /// `None` once it was stopped.
    runtime: Mutex<Option<Runtime>>,
}

impl Webhooks {
    /// Opens the file and begins to call. Blocks.
    pub fn start(engine: Arc<Engine>, options: WebhookOptions) -> Result<Self, StartError> {
        let store = Mutex::new(Store::open(&engine.data().webhooks())?);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("webhooks")
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared { engine, store, readers: Readers::default(), pace: options.pace });
        let (tell, ends) = watch::channel(ends_of(&shared.engine));
        let looking = Arc::clone(&shared);
        runtime.spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !tell.is_closed() {
                look.tick().await;
                let found = ends_of(&looking.engine);
                tell.send_if_modified(|ends| {
                    let moved = ends.len() != found.len() || ends.iter().zip(&found).any(|(a, b)| a.1 != b.1);
                    if moved {
                        *ends = found;
                    }
                    moved
                });
            }
        });
        let service = Self {
            shared,
            options,
            tls: tls_config()?,
            ends,
            tasks: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
        };
        let endpoints = service.shared.store().endpoints()?;
        for endpoint in endpoints.into_iter().filter(|endpoint| endpoint.paused.is_none()) {
            service.run(&mut lock(&service.tasks), endpoint)?;
        }
        Ok(service)
    }

    /// Adds an endpoint, which is told what happens from now on. Gives its secret, which nobody is told again.
    pub fn add(&self, new: NewEndpoint) -> Result<(EndpointState, String), WebhookError> {
        if let Some(name) = new.sales.iter().find(|name| !sale::name_is_valid(name)) {
            return Err(WebhookError::Invalid(format!("sales: {name:?} is not the name of a sale")));
        }
        let target = Target::parse(&new.url, self.options.loopback_allowed)?;
        match target.look_up() {
            // It may be set up later; until then its calls fail and are repeated.
            Ok(_) | Err(TargetError::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut id = [0; 10];
        rand::fill(&mut id).map_err(|_| WebhookError::Randomness)?;
        let id = format!("wh_{}", BASE32_DNSSEC.encode(&id));
        let now = self.shared.engine.now();
        let endpoint = Endpoint {
            id: id.clone(),
            url: target.url().to_string(),
            sales: new.sales,
            events: new.events,
            secret: Secret::draw().map_err(|_| WebhookError::Randomness)?,
            former_secret: None,
            former_until: 0,
            since: ChainTime(now),
            paused: None,
            created_at: now,
            last: Default::default(),
        };
        let secret = endpoint.secret.text();
        let mut tasks = lock(&self.tasks);
        {
            let mut store = self.shared.store();
            if store.endpoints()?.len() >= ENDPOINTS_MAX {
                let rule = format!("a process has at most {ENDPOINTS_MAX} webhooks; remove one first");
                return Err(WebhookError::Invalid(rule));
            }
            store.insert(&endpoint)?;
        }
        self.run(&mut tasks, endpoint)?;
        drop(tasks);
        Ok((self.state(&id)?, secret))
    }

    /// All endpoints of this process, the oldest first.
    pub fn list(&self) -> Result<Vec<EndpointState>, WebhookError> {
        let endpoints = self.shared.store().endpoints()?;
        endpoints.into_iter().map(|endpoint| self.describe(endpoint)).collect()
    }

    /// One endpoint.
    pub fn state(&self, id: &str) -> Result<EndpointState, WebhookError> {
        let endpoint = self.shared.store().endpoint(id)?.ok_or(WebhookError::Unknown)?;
        self.describe(endpoint)
    }

    /// Draws a new secret and gives it; the one before signs too for a day.
    pub fn rotate(&self, id: &str) -> Result<(EndpointState, String), WebhookError> {
        let secret = Secret::draw().map_err(|_| WebhookError::Randomness)?;
        let until = self.shared.engine.now() + milliseconds(ROTATION);
        self.change(id, |store| store.rotate(id, &secret, until))?;
        Ok((self.state(id)?, secret.text()))
    }

    /// Tells everything from a chain time on again, or without one what is parked.
    pub fn replay(&self, id: &str, since: Option<ChainTime>) -> Result<EndpointState, WebhookError> {
        let now = self.shared.engine.now();
        if since.is_some_and(|since| since.0 > now) {
            let rule = "since: a time that is over; with one to come, nothing would be told until then";
            return Err(WebhookError::Invalid(rule.to_owned()));
        }
        self.change(id, |store| match since {
            Some(since) => store.tell_again(id, since),
            None => store.revive_parked(id, now),
        })?;
        self.state(id)
    }

    /// Calls no more until `resume`; what happens meanwhile is told then.
    pub fn pause(&self, id: &str) -> Result<EndpointState, WebhookError> {
        self.change(id, |store| store.pause(id, Some("operator")))?;
        self.state(id)
    }

    /// Calls again, at once for what waits.
    pub fn resume(&self, id: &str) -> Result<EndpointState, WebhookError> {
        let now = self.shared.engine.now();
        self.change(id, |store| store.pause(id, None).and_then(|()| store.make_due(id, now)))?;
        self.state(id)
    }

    /// Forgets an endpoint and what waits for it.
    pub fn remove(&self, id: &str) -> Result<(), WebhookError> {
        self.change(id, |store| store.remove(id))
    }

    /// Ends all calls; what was not noted is delivered again at the next start.
    pub fn stop(&self) {
        lock(&self.tasks).clear();
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Store) -> Result<(), StoreError>) -> Result<(), WebhookError> {
        let mut tasks = lock(&self.tasks);
        if self.shared.store().endpoint(id)?.is_none() {
            return Err(WebhookError::Unknown);
        }
        if let Some(task) = tasks.remove(id) {
            task.abort();
            if let Some(runtime) = &*lock(&self.runtime) {
                // It may be writing just now; from here on it writes no more.
                drop(runtime.block_on(task));
            }
        }
        let changed = change(&mut self.shared.store());
        // Whatever became of the change, the file says how to go on.
        let endpoint = self.shared.store().endpoint(id)?;
        if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.paused.is_none()) {
            self.run(&mut tasks, endpoint)?;
        }
        Ok(changed?)
    }

    fn run(&self, tasks: &mut HashMap<String, JoinHandle<()>>, endpoint: Endpoint) -> Result<(), StoreError> {
        let id = endpoint.id.clone();
        let target = match Target::parse(&endpoint.url, self.options.loopback_allowed) {
            Ok(target) => target,
            Err(error) => {
                tracing::error!(endpoint = id, %error, "this webhook is not called, since its URL no longer may be");
                return Ok(());
            }
        };
        let caller = Caller::new(target, Arc::clone(&self.tls), self.options.times);
        let random = fastrand::Rng::new();
        let delivery = Delivery::new(Arc::clone(&self.shared), endpoint, caller, self.ends.clone(), random)?;
        if let Some(runtime) = &*lock(&self.runtime) {
            tasks.insert(id, runtime.spawn(delivery.run()));
        }
        Ok(())
    }

    fn describe(&self, endpoint: Endpoint) -> Result<EndpointState, WebhookError> {
        let store = self.shared.store();
        let (waiting, parked, parked_reason) = store.undelivered(&endpoint.id)?;
        let told: BTreeMap<_, _> = store.places(&endpoint.id)?;
        drop(store);
        let ends = self.ends.borrow();
        let places = ends.iter().filter(|(sale, _)| endpoint.wants(sale.name())).map(|(sale, end)| {
            let next = told.get(sale.name()).copied().unwrap_or_default();
            (sale.name().to_owned(), next, end.saturating_sub(next))
        });
        let places = places.collect();
        let former = endpoint.former_secret.is_some() && endpoint.former_until > self.shared.engine.now();
        Ok(EndpointState {
            id: endpoint.id,
            url: endpoint.url,
            sales: endpoint.sales,
            events: endpoint.events,
            paused: endpoint.paused,
            created_at: ChainTime(endpoint.created_at),
            since: endpoint.since,
            former_secret_until: former.then_some(ChainTime(endpoint.former_until)),
            places,
            last: (endpoint.last.status, endpoint.last.error, endpoint.last.at.map(ChainTime)),
            waiting,
            parked,
            parked_reason,
        })
    }
}

fn ends_of(engine: &Engine) -> Ends {
    let end = |sale: Arc<engine::Sale>| {
        let end = engine.books.drained(Service::Orders, sale.name());
        (sale, end)
    };
    engine.sales().into_iter().map(end).collect()
}

/// Trusts whom the system trusts. A system without authorities calls nobody over TLS, and every call says so.
fn tls_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(
            "the system has no certificate authorities (package ca-certificates): no webhook can be called over TLS"
        );
    }
    client_config(roots)
}

pub(crate) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The state behind these locks is whole after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
