//! `doorbuster serve`: the one wiring of a serving process.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::clock::SystemClock;
use domain::{Clock, fault};
use engine::{Engine, EngineOptions};
use ledger::Pace;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use web::server::Routes;
use web::{App, AppOptions, Listener, ListenerOptions};
use webhooks::{WebhookOptions, Webhooks};

use crate::config::Settings;
use crate::data_client::Endpoints;
use crate::pages;
use crate::till::{self, Tending};

pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    if settings.is_gate() {
        settings.check_identity()?;
    }
    // Before anything is touched: a file of it may be missing.
    let site = pages::site(settings)?;
    start_logging();
    die_on_panic();
    raise_file_limit();
    if let Some((stage, passage)) = settings.fault_point()? {
        tracing::warn!(stage = stage.name(), passage, "a fault point is armed: this process will kill itself");
        fault::arm(stage, passage);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let engine = Engine::start(
        &settings.data.folder,
        EngineOptions {
            cluster: settings.cluster_settings()?,
            identity: settings.identity_config()?,
            keyring: settings.keyring_options()?,
            books_pace: pace(settings.books.records_per_second_max),
            clock,
            on_fatal: Arc::new(|reason| {
                tracing::error!(reason, "stopping at once: what is on disk decides at the next start");
                // Nothing may be answered after a failed sync, so nothing gets the time to.
                std::process::exit(70);
            }),
        },
    )?;
    let engine = Arc::new(engine);
    let webhooks = start_webhooks(settings, &engine)?;
    let till = till::open(settings, &engine)?;
    let keeps_books = engine.roles().worker;
    let options = AppOptions {
        purchase_wait_seconds: settings.purchases.wait_seconds,
        limits: settings.limit_options()?,
        overload: settings.overload_options()?,
        human: settings.human_options()?,
    };
    let app = App::new(engine, webhooks, till.clone(), site, options);
    // Before anybody can be answered: a stop from here on is an orderly one.
    let stop = StopSignals::listen()?;
    let public =
        if settings.is_gate() { Some(Listener::start(&app, Routes::Public, &public_options(settings))?) } else { None };
    let admin = Listener::start(&app, Routes::Admin, &admin_options(settings))?;
    let endpoints = Endpoints { public: public.as_ref().map(Listener::address), admin: admin.address() };
    endpoints.write(&settings.data.folder)?;
    announce(settings, &app, &endpoints);
    let tending = till.as_ref().filter(|_| keeps_books).map(Tending::start).transpose()?;
    let looking = settings.is_cluster().then(|| look_for_sales(&app)).transpose()?;
    let hearing = heed_news(&app)?;
    let days = settings.retention.days;
    let forgetting = (keeps_books && days > 0).then(|| keep_retention(&app, days)).transpose()?;
    stop.wait();
    tracing::info!("stopping: answers under way leave first");
    drop((looking, hearing, forgetting, tending));
    if let Some(public) = public {
        public.stop();
    }
    admin.stop();
    app.stop_webhooks();
    app.engine().stop();
    Ok(ExitCode::SUCCESS)
}

/// In a process that keeps books; only there are events told.
fn start_webhooks(settings: &Settings, engine: &Arc<Engine>) -> anyhow::Result<Option<Webhooks>> {
    if !engine.roles().worker {
        return Ok(None);
    }
    let options =
        WebhookOptions { loopback_allowed: settings.webhooks.dangerous_webhook_targets, ..WebhookOptions::default() };
    Ok(Some(Webhooks::start(Arc::clone(engine), options)?))
}

fn announce(settings: &Settings, app: &App, endpoints: &Endpoints) {
    let folder = settings.data.folder.display().to_string();
    let public = endpoints.public.map_or_else(|| "none".to_owned(), |address| address.to_string());
    let (admin, sales) = (endpoints.admin, app.engine().sales().len());
    if settings.is_cluster() {
        let (roles, process) = (&settings.cluster.roles, app.engine().process().unwrap_or_default());
        let process = format_args!("{process:016x}");
        tracing::info!(public, %admin, data = folder, sales, ?roles, %process, "serving as part of a cluster");
    } else {
        tracing::info!(public, %admin, data = folder, sales, "serving");
    }
}

/// Between two looks for sales that other processes of the cluster have created.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So long a stop may have to wait for whoever listens.
const LISTEN_FOR: Duration = Duration::from_millis(200);
/// Between two looks for sales whose customers are to become unknown.
const RETENTION_EVERY: Duration = Duration::from_secs(3_600);

fn look_for_sales(app: &Arc<App>) -> std::io::Result<Repeated> {
    let app = Arc::clone(app);
    let mut quiet = cluster::Quiet::default();
    Repeated::start("sales", LOOK_EVERY, move || match app.engine().look_for_sales() {
        Ok(()) => quiet.is_over(),
        Err(error) if quiet.is_due(&error) => tracing::warn!(%error, "new sales cannot be looked for now"),
        Err(_) => {}
    })
}

/// What other processes tell is heeded in a thread of its own, since that may wait for the vault.
fn heed_news(app: &Arc<App>) -> std::io::Result<Option<Repeated>> {
    let Some(news) = app.engine().listen() else { return Ok(None) };
    let app = Arc::clone(app);
    let heed = move || {
        for told in news.recv_timeout(LISTEN_FOR).into_iter().chain(news.try_iter()) {
            if let Err(error) = app.heed(told) {
                tracing::warn!(%error, "the block list cannot be read now");
            }
        }
    };
    Repeated::start("news", Duration::ZERO, heed).map(Some)
}

fn keep_retention(app: &Arc<App>, days: u64) -> std::io::Result<Repeated> {
    let app = Arc::clone(app);
    Repeated::start("retention", RETENTION_EVERY, move || app.engine().anonymise_due(days))
}

/// A thread that does something now and then, until this is dropped.
struct Repeated {
    stop: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Repeated {
    fn start(name: &str, every: Duration, mut work: impl FnMut() + Send + 'static) -> std::io::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::sync_channel(1);
        let repeat = move || {
            work();
            while stopped.recv_timeout(every) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                work();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(repeat)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has ended the process.
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

pub(crate) fn pace(records_per_second_max: u32) -> Pace {
    if records_per_second_max == 0 { Pace::Unlimited } else { Pace::PerSecond(records_per_second_max) }
}

fn public_options(settings: &Settings) -> ListenerOptions {
    let public = &settings.public;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    ListenerOptions {
        address: public.address,
        threads: if public.threads == 0 { cores } else { public.threads },
        connections_max: public.connections_max,
        head: Duration::from_secs(public.head_seconds_max),
        body: Duration::from_secs(public.body_seconds_max),
        idle: Duration::from_secs(public.idle_seconds_max),
    }
}

fn admin_options(settings: &Settings) -> ListenerOptions {
    ListenerOptions {
        address: settings.admin.address,
        threads: 1,
        connections_max: settings.admin.connections_max,
        ..public_options(settings)
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    output.with_ansi(colours).with_target(false).init();
}

/// An owner that panicked could neither answer nor be trusted: the process ends, and the next start replays the chain.
fn die_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Each connection is a file: take what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// SIGTERM and SIGINT, caught from the moment that this exists.
struct StopSignals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    fn wait(self) {
        let Self { runtime, mut terminate, mut interrupt } = self;
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        });
    }
}
