//! The connection to NATS and the stream that holds every sale's chain, refused unless it keeps what it acknowledges.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectErrorKind, ConnectOptions};

use crate::monitor;

/// Older servers accepted rival appends at one place.
pub(crate) const VERSION_MIN: (i64, i64, i64) = (2, 12, 3);
/// Under which key of its metadata a stream says whose it is.
const VAULT: &str = "doorbuster_vault";
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request to JetStream may take before its outcome counts as unknown.
const REQUEST_PATIENCE: Duration = Duration::from_millis(750);
/// Between two tries to reach a server again: half of it to all of it, so that not everybody comes at once.
const RECONNECT_MILLISECONDS_MAX: u64 = 500;

/// Whom the servers know us as.
#[derive(Clone)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, secret)", self.user)
    }
}

/// Where the chains are kept, and what that place must be.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The servers, `host:port`.
    pub servers: Vec<String>,
    /// Who connects.
    pub login: Login,
    /// A PEM file with the authority that signed the servers' certificates; with it every connection is TLS, or there is none. It is read
    /// for each connection. The monitors are asked in the clear: what they tell is no secret.
    pub tls_authority: Option<PathBuf>,
    /// Name of the cluster: several may use the same servers. Its stream is created when it is not there.
    pub name: String,
    /// Tells the vault that has the keys of the chains from others. The stream belongs to the vault that it was created with.
    pub vault: String,
    /// On how many servers each message is kept.
    pub replicas: usize,
    /// Where each server's monitoring answers, `host:port`.
    pub monitors: Vec<String>,
    /// Go on although servers do not sync every message, or do not tell.
    pub dangerous_unsynced: bool,
    /// Spreads the reconnects of processes; each should have another.
    pub jitter_seed: u64,
}

/// Why the chains cannot be used. Definite: nothing was written, except perhaps an empty stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answers.
    #[error("no NATS server answers: {0}")]
    Unreachable(String),
    /// A server answers, and does not know the user by that password.
    #[error(
        "NATS refuses the user {user:?}; nats.user and nats.password have to be those of a user in the servers' configuration"
    )]
    Refused {
        /// The user's name.
        user: String,
    },
    /// The server is too old to be safe.
    #[error("NATS {0} is too old: before 2.12.3 two writers can both be told that their batch stands at one place")]
    Version(String),
    /// The stream cannot be had.
    #[error("the stream {stream} cannot be had: {reason}")]
    Stream {
        /// Its name.
        stream: String,
        /// What the servers said.
        reason: String,
    },
    /// A server does not sync every message, or does not tell whether it does.
    #[error(
        "{monitor}: {reason}; set sync_interval: always in the servers' jetstream section, since what all of them lose at once is gone"
    )]
    Unsynced {
        /// Which server, by its monitoring address.
        monitor: String,
        /// What it says.
        reason: String,
    },
    /// The chains in it were begun with the keys of another vault.
    #[error(
        "the stream {stream} belongs to another vault (it was created for vault {found}, ours is {ours}); set cluster.name to a name of \
         its own, or point postgres.addresses and postgres.database at the vault that belongs to it"
    )]
    OtherVault {
        /// Its name.
        stream: String,
        /// The vault that it was created for.
        found: String,
        /// Our vault.
        ours: String,
    },
    /// The stream would lose what it acknowledged.
    #[error("the stream {stream} does not keep what it acknowledges: {rule}")]
    Unsafe {
        /// Its name.
        stream: String,
        /// What has to be changed.
        rule: String,
    },
}

impl StoreOptions {
    /// Name of the stream.
    pub fn stream(&self) -> String {
        format!("doorbuster_{}", self.name)
    }

    /// The subjects of all its chains.
    fn subjects(&self) -> String {
        format!("log.{}.>", self.name)
    }
}

/// The stream of all chains.
#[derive(Clone)]
pub struct Store {
    name: Arc<str>,
    client: Client,
    pub(crate) context: Context,
    pub(crate) stream: Stream<()>,
}

/// Chooses whose cryptography the TLS connections of this process use, unless that has been chosen. Without a choice the drivers that build
/// their own connections would panic as soon as two are compiled in.
pub fn choose_cryptography() {
    // It fails where somebody was faster, who has then chosen.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

impl Store {
    /// Connects, creates the stream where it is missing, and checks that it is fit to hold chains.
    pub async fn connect(options: &StoreOptions) -> Result<Self, ConnectError> {
        let client = open(options).await?;
        let (major, minor, patch) = VERSION_MIN;
        if !client.is_server_compatible(major, minor, patch) {
            return Err(ConnectError::Version(client.server_info().version));
        }
        if !options.dangerous_unsynced {
            check_sync(&options.monitors).await?;
        }
        let context = jetstream::ContextBuilder::new().timeout(REQUEST_PATIENCE).ack_timeout(REQUEST_PATIENCE);
        let context = context.build(client.clone());
        let failed = |error: &dyn std::fmt::Display| ConnectError::Stream {
            stream: options.stream(),
            reason: error.to_string(),
        };
        let mut stream = context.get_or_create_stream(config(options)).await.map_err(|error| failed(&error))?;
        let info = stream.info().await.map_err(|error| failed(&error))?;
        check(options, &info.config)?;
        let name = options.stream();
        let stream = context.get_stream_no_info(name).await.map_err(|error| failed(&error))?;
        Ok(Self { name: options.name.as_str().into(), client, context, stream })
    }

    /// The subject of a sale's chain.
    pub fn subject(&self, sale: &str) -> String {
        format!("log.{}.{sale}", self.name)
    }

    /// A subject of what is said beside the chain, and kept by nobody.
    pub fn beside(&self, what: &str, sale: &str) -> String {
        format!("doorbuster.{}.{what}.{sale}", self.name)
    }

    /// The connection, for whoever else speaks through it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

async fn open(options: &StoreOptions) -> Result<Client, ConnectError> {
    choose_cryptography();
    let Login { user, password } = options.login.clone();
    let random = Mutex::new(fastrand::Rng::with_seed(options.jitter_seed));
    let connect = ConnectOptions::with_user_and_password(user, password)
        .name("doorbuster")
        .connection_timeout(CONNECT_PATIENCE)
        .request_timeout(Some(REQUEST_PATIENCE))
        .ping_interval(Duration::from_secs(1))
        .reconnect_delay_callback(move |_| {
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            Duration::from_millis(random.u64(RECONNECT_MILLISECONDS_MAX / 2..RECONNECT_MILLISECONDS_MAX))
        });
    let connect = match &options.tls_authority {
        Some(authority) => connect.add_root_certificates(authority.clone()).require_tls(true),
        None => connect,
    };
    connect.connect(options.servers.clone()).await.map_err(|error| match error.kind() {
        ConnectErrorKind::AuthorizationViolation => ConnectError::Refused { user: options.login.user.clone() },
        _ => ConnectError::Unreachable(explain(options, &error)),
    })
}

/// The driver's words, with what they leave out where TLS may be the reason.
fn explain(options: &StoreOptions, error: &async_nats::ConnectError) -> String {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let is_encrypted = source.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>());
    match &options.tls_authority {
        Some(authority) => format!("{error}; by TLS, with nats.tls_authority {}", authority.display()),
        // A server that wants TLS gets it from the driver, with the authorities of this system.
        None if is_encrypted => format!("{error}; the server wants TLS, and nats.tls_authority is not set"),
        None => error.to_string(),
    }
}

fn config(options: &StoreOptions) -> Config {
    Config {
        name: options.stream(),
        subjects: vec![options.subjects()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: options.replicas,
        // A stream that is full refuses the new; the old stays.
        discard: DiscardPolicy::New,
        max_message_size: i32::try_from(domain::limits::BATCH_BYTES_MAX).unwrap_or(i32::MAX),
        deny_delete: true,
        deny_purge: true,
        metadata: HashMap::from([(VAULT.to_owned(), options.vault.clone())]),
        ..Config::default()
    }
}

async fn check_sync(monitors: &[String]) -> Result<(), ConnectError> {
    let unsynced = |monitor: &str, reason: String| ConnectError::Unsynced { monitor: monitor.to_owned(), reason };
    let mut told = 0;
    for monitor in monitors {
        match monitor::ask(monitor).await {
            Ok(server) if server.syncs_always() => told += 1,
            Ok(server) => return Err(unsynced(monitor, format!("{} does not sync every message", server.server_name))),
            // A server that is away does no harm now, and is asked by whoever starts next.
            Err(reason) => {
                tracing::warn!(monitor, reason, "a NATS server does not tell whether it syncs every message")
            }
        }
    }
    match monitors.first() {
        Some(monitor) if told == 0 => {
            Err(unsynced(monitor, "no server tells whether it syncs every message".to_owned()))
        }
        None => Err(unsynced("nats.monitors", "no monitoring address is configured".to_owned())),
        Some(_) => Ok(()),
    }
}

/// What a stream must be whoever made it.
fn check(options: &StoreOptions, config: &Config) -> Result<(), ConnectError> {
    // One that somebody has made by hand says nothing of a vault; then each sale's own id is what tells.
    if let Some(found) = config.metadata.get(VAULT).filter(|found| **found != options.vault) {
        let (stream, found, ours) = (options.stream(), found.clone(), options.vault.clone());
        return Err(ConnectError::OtherVault { stream, found, ours });
    }
    let must = |holds: bool, rule: &str| {
        if holds { Ok(()) } else { Err(ConnectError::Unsafe { stream: options.stream(), rule: rule.to_owned() }) }
    };
    must(config.storage == StorageType::File, "storage must be file")?;
    must(config.retention == RetentionPolicy::Limits, "retention must be limits")?;
    must(config.max_age.is_zero(), "max_age must be unset")?;
    must(config.discard == DiscardPolicy::New, "discard must be new")?;
    must(config.max_messages_per_subject <= 0, "max_msgs_per_subject must be unset")?;
    must(config.num_replicas >= options.replicas, &format!("it must have {} replicas", options.replicas))?;
    must(!config.allow_rollup, "allow_rollup_hdrs must be off")?;
    must(!config.no_ack, "no_ack must be off")?;
    let subjects = options.subjects();
    must(config.subjects.contains(&subjects), &format!("its subjects must include {subjects}"))
}
