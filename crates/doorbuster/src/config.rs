//! The configuration: defaults compiled in, then a file, then the environment, then flags. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use domain::Stage;
use serde::{Deserialize, Serialize};

use crate::ConfigArgs;
use crate::human_check::HumanCheckSettings;
use crate::limits::LimitSettings;
use crate::overload::OverloadSettings;

/// The manual of every key.
pub(crate) const DEFAULTS: &str = include_str!("../../../config/default.toml");

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) data: DataSettings,
    pub(crate) public: PublicSettings,
    pub(crate) admin: AdminSettings,
    pub(crate) identity: IdentitySettings,
    pub(crate) pages: PagesSettings,
    pub(crate) purchases: PurchaseSettings,
    pub(crate) books: BooksSettings,
    pub(crate) retention: RetentionSettings,
    pub(crate) limits: LimitSettings,
    pub(crate) overload: OverloadSettings,
    pub(crate) human_check: HumanCheckSettings,
    pub(crate) payment: PaymentSettings,
    pub(crate) webhooks: WebhookSettings,
    pub(crate) cluster: ClusterSection,
    pub(crate) redis: RedisSection,
    pub(crate) nats: NatsSection,
    pub(crate) postgres: PostgresSection,
    pub(crate) testing: TestingSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSettings {
    pub(crate) folder: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetentionSettings {
    pub(crate) days: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicSettings {
    pub(crate) address: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) connections_max: usize,
    pub(crate) head_seconds_max: u64,
    pub(crate) body_seconds_max: u64,
    pub(crate) idle_seconds_max: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminSettings {
    pub(crate) address: SocketAddr,
    pub(crate) connections_max: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentitySettings {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) hs256_secrets: Vec<String>,
    pub(crate) jwks_file: PathBuf,
    pub(crate) jwks_url: String,
    pub(crate) jwks_refresh_seconds: u64,
    pub(crate) jwks_stale_seconds_max: u64,
    pub(crate) jwks_tls_authority: PathBuf,
    pub(crate) required_claims: Vec<String>,
    pub(crate) leeway_seconds: u64,
    pub(crate) dangerous_plain_http: bool,
    pub(crate) dangerous_guest_tokens: bool,
}

/// What customers see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PagesSettings {
    pub(crate) shop_name: String,
    pub(crate) logo: PathBuf,
    pub(crate) button_colour: String,
    pub(crate) bar_colour: String,
    pub(crate) language: String,
    pub(crate) words_folder: PathBuf,
    pub(crate) sign_in_url: String,
    pub(crate) checkout_url: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PurchaseSettings {
    pub(crate) wait_seconds: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BooksSettings {
    pub(crate) records_per_second_max: u32,
}

/// Who takes the money; see `till.rs` for how it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaymentSettings {
    pub(crate) provider: PaymentProvider,
    pub(crate) secret_key: String,
    pub(crate) callback_secrets: Vec<String>,
    pub(crate) base_url: String,
    pub(crate) dangerous_plain_http: bool,
    pub(crate) dangerous_sandbox_provider: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PaymentProvider {
    None,
    Stripe,
    Sandbox,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSettings {
    pub(crate) dangerous_webhook_targets: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestingSettings {
    pub(crate) dangerous_fault_point: String,
}

/// What only a cluster has; see `cluster.rs` for how it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSection {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) uncommitted_max: u64,
    pub(crate) gates_expected: u32,
    pub(crate) takeover_after_seconds: u64,
    pub(crate) return_after_seconds: u64,
}

/// A part that a process plays in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Serves customers.
    Gate,
    /// Brings decisions to the chain and rebuilds Redis.
    Relay,
    /// Keeps the books.
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RedisTopology {
    Single,
    Sentinel,
    Cluster,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedisSection {
    pub(crate) topology: RedisTopology,
    pub(crate) addresses: Vec<String>,
    pub(crate) sentinel_name: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) tls_authority: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsSection {
    pub(crate) addresses: Vec<String>,
    pub(crate) monitors: Vec<String>,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) replicas: usize,
    pub(crate) dangerous_unsynced: bool,
    pub(crate) dangerous_few_replicas: bool,
    pub(crate) tls_authority: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresSection {
    pub(crate) addresses: Vec<String>,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) tls_authority: PathBuf,
}

/// Secrets that are single texts: key, variable.
const PASSWORDS: [(&str, &str); 4] = [
    ("payment.secret_key", "DOORBUSTER_PAYMENT__SECRET_KEY"),
    ("redis.password", "DOORBUSTER_REDIS__PASSWORD"),
    ("nats.password", "DOORBUSTER_NATS__PASSWORD"),
    ("postgres.password", "DOORBUSTER_POSTGRES__PASSWORD"),
];
/// Lists: in the environment and after --set their parts are separated by commas.
const LISTS: [(&str, &str); 9] = [
    ("public.trusted_proxies", "DOORBUSTER_PUBLIC__TRUSTED_PROXIES"),
    (SECRETS_KEY, SECRETS_VARIABLE),
    ("identity.required_claims", "DOORBUSTER_IDENTITY__REQUIRED_CLAIMS"),
    ("payment.callback_secrets", "DOORBUSTER_PAYMENT__CALLBACK_SECRETS"),
    ("cluster.roles", "DOORBUSTER_CLUSTER__ROLES"),
    ("redis.addresses", "DOORBUSTER_REDIS__ADDRESSES"),
    ("nats.addresses", "DOORBUSTER_NATS__ADDRESSES"),
    ("nats.monitors", "DOORBUSTER_NATS__MONITORS"),
    ("postgres.addresses", "DOORBUSTER_POSTGRES__ADDRESSES"),
];
const SECRETS_KEY: &str = "identity.hs256_secrets";
const SECRETS_VARIABLE: &str = "DOORBUSTER_IDENTITY__HS256_SECRETS";

/// Every number that is configured is whole, and half a request a second must not become none without a word.
fn whole_numbers(value: &config::Value, key: &str) -> Result<(), config::ConfigError> {
    match &value.kind {
        config::ValueKind::Float(number) => {
            Err(config::ConfigError::Message(format!("{key}: {number} is no whole number")))
        }
        config::ValueKind::Table(table) => table.iter().try_for_each(|(name, value)| {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            whole_numbers(value, &key)
        }),
        _ => Ok(()),
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

impl Settings {
    pub(crate) fn load(args: &ConfigArgs) -> anyhow::Result<Self> {
        let mut builder =
            config::Config::builder().add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix("DOORBUSTER").prefix_separator("_").separator("__");
        // Secrets are text, whatever they look like; and no text of theirs may stand in a message about numbers.
        let others = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| LISTS.iter().chain(&PASSWORDS).all(|(_, variable)| key != variable))
            .collect();
        builder = builder.add_source(environment.try_parsing(true).source(Some(others)));
        for (key, variable) in LISTS {
            if let Ok(parts) = std::env::var(variable) {
                builder = builder.set_override(key, split(&parts))?;
            }
        }
        for (key, variable) in PASSWORDS {
            if let Ok(password) = std::env::var(variable) {
                builder = builder.set_override(key, password)?;
            }
        }
        for pair in &args.set {
            let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as KEY=VALUE"))?;
            builder = if LISTS.iter().any(|(list, _)| *list == key) {
                builder.set_override(key, split(value))?
            } else {
                builder.set_override(key, value)?
            };
        }
        if let Some(folder) = &args.data {
            let folder = folder.to_str().context("--data: the path must be UTF-8")?;
            builder = builder.set_override("data.folder", folder)?;
        }
        let loaded = builder.build().and_then(|built| whole_numbers(&built.cache, "").map(|()| built));
        let loaded = loaded.and_then(config::Config::try_deserialize::<Self>);
        let mut settings = loaded.context("the configuration is not valid (config/default.toml explains every key)")?;
        // A variable that is set but empty gives one empty part: it means none.
        let Self { public, identity, payment, redis, nats, postgres, .. } = &mut settings;
        let lists = [
            &mut public.trusted_proxies,
            &mut identity.hs256_secrets,
            &mut identity.required_claims,
            &mut payment.callback_secrets,
            &mut redis.addresses,
            &mut nats.addresses,
            &mut nats.monitors,
            &mut postgres.addresses,
        ];
        lists.into_iter().for_each(|list| list.retain(|part| !part.is_empty()));
        settings.check()?;
        Ok(settings)
    }

    /// Every rule over single keys and over several.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.admin.address.ip().is_loopback(),
            "admin.address: must be a loopback address such as 127.0.0.1:8081"
        );
        ensure!(self.public.connections_max >= 1, "public.connections_max: at least 1");
        ensure!(self.admin.connections_max >= 1, "admin.connections_max: at least 1");
        for (key, seconds) in [
            ("public.head_seconds_max", self.public.head_seconds_max),
            ("public.body_seconds_max", self.public.body_seconds_max),
            ("public.idle_seconds_max", self.public.idle_seconds_max),
        ] {
            ensure!((1..=3_600).contains(&seconds), "{key}: 1 to 3600 seconds");
        }
        ensure!(self.public.threads <= 256, "public.threads: 256 at most");
        ensure!((1..=60).contains(&self.purchases.wait_seconds), "purchases.wait_seconds: 1 to 60");
        if self.identity.dangerous_guest_tokens {
            let loopback = self.public.address.ip().is_loopback();
            ensure!(
                loopback,
                "identity.dangerous_guest_tokens: only with a loopback public.address, since anybody could be anybody"
            );
        }
        self.check_claims_and_keys()?;
        self.limit_options()?;
        self.overload_options()?;
        self.human_options()?;
        crate::pages::options(self)?;
        self.check_cluster()?;
        self.fault_point()?;
        Ok(())
    }

    pub(crate) fn fault_point(&self) -> anyhow::Result<Option<(Stage, u64)>> {
        let text = self.testing.dangerous_fault_point.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let parsed =
            text.split_once(':').and_then(|(stage, passage)| Some((Stage::parse(stage)?, passage.parse().ok()?)));
        parsed.map(Some).context("testing.dangerous_fault_point: write it as STAGE:COUNT, for example chained:100")
    }

    /// The same with every secret hidden, for printing.
    pub(crate) fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        let of_servers = [
            &mut shown.payment.secret_key,
            &mut shown.redis.password,
            &mut shown.nats.password,
            &mut shown.postgres.password,
        ];
        let secrets = shown.identity.hs256_secrets.iter_mut().chain(&mut shown.payment.callback_secrets);
        let secrets = secrets.chain(of_servers);
        secrets.filter(|secret| !secret.is_empty()).for_each(|secret| "(hidden)".clone_into(secret));
        shown
    }
}
