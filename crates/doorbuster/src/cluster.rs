//! From the configuration to a process's part in a cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{ClusterOptions, Login, RedisOptions, Roles, StoreOptions, Topology};
use engine::ClusterSettings;
use ledger::vault::PostgresOptions;
use limiter::GATES_MAX;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::{RedisTopology, Role, Settings};

/// Fewer cannot lose a machine and go on.
pub(crate) const REPLICAS_MIN: usize = 3;

/// The certificates of the file that a key names, if it names one: readable, and of use as an authority.
fn authority(key: &str, file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let named = || format!("{key}: {}", file.display());
    let text = std::fs::read(file).with_context(named)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate.map_err(anyhow::Error::from).and_then(|certificate| Ok(roots.add(certificate)?));
        added.context("not a certificate that could be an authority").with_context(named)?;
    }
    ensure!(!roots.is_empty(), "{}: no certificate in PEM form is in it", named());
    Ok(Some(text))
}

impl Settings {
    /// Whether this process belongs to a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        !self.nats.addresses.is_empty()
    }

    pub(crate) fn check_cluster(&self) -> anyhow::Result<()> {
        if !self.is_cluster() {
            return Ok(());
        }
        ensure!(!self.cluster.roles.is_empty(), "cluster.roles: at least one of gate, relay and worker");
        ensure!(
            domain::sale::name_is_valid(&self.cluster.name),
            "cluster.name: 1 to 40 lower-case letters, digits and dashes, beginning with a letter or digit"
        );
        ensure!(!self.redis.addresses.is_empty(), "redis.addresses: at least one, where nats.addresses are set");
        ensure!(
            !self.postgres.addresses.is_empty(),
            "postgres.addresses: where the vault is, since nats.addresses are set"
        );
        let named = self.redis.topology != RedisTopology::Sentinel || !self.redis.sentinel_name.is_empty();
        ensure!(named, "redis.sentinel_name: under which name the Sentinels watch the master");
        ensure!((1..=GATES_MAX).contains(&self.cluster.gates_expected), "cluster.gates_expected: 1 to {GATES_MAX}");
        ensure!(self.cluster.uncommitted_max >= 1_000, "cluster.uncommitted_max: at least 1000");
        for (key, seconds) in [
            ("cluster.takeover_after_seconds", self.cluster.takeover_after_seconds),
            ("cluster.return_after_seconds", self.cluster.return_after_seconds),
        ] {
            ensure!((2..=3_600).contains(&seconds), "{key}: 2 to 3600 seconds");
        }
        ensure!((1..=5).contains(&self.nats.replicas), "nats.replicas: 1 to 5");
        ensure!(
            self.nats.replicas >= REPLICAS_MIN || self.nats.dangerous_few_replicas,
            "nats.replicas: at least {REPLICAS_MIN}, so that the loss of one machine loses nothing; to try things out with fewer, set \
             nats.dangerous_few_replicas=true"
        );
        ensure!(
            !self.nats.monitors.is_empty() || self.nats.dangerous_unsynced,
            "nats.monitors: where the servers' monitoring answers, to see that they sync every message; to start without, set \
             nats.dangerous_unsynced=true"
        );
        Ok(())
    }

    /// What the engine needs to join the cluster; `None` for a process that is alone.
    pub(crate) fn cluster_settings(&self) -> anyhow::Result<Option<ClusterSettings>> {
        if !self.is_cluster() {
            return Ok(None);
        }
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("the system has no randomness")?;
        let process = u64::from_le_bytes(random);
        let has = |role| self.cluster.roles.contains(&role);
        let options = ClusterOptions {
            redis: RedisOptions {
                name: self.cluster.name.clone(),
                topology: match self.redis.topology {
                    RedisTopology::Single => Topology::Single,
                    RedisTopology::Sentinel => Topology::Sentinel { name: self.redis.sentinel_name.clone() },
                    RedisTopology::Cluster => Topology::Cluster,
                },
                addresses: self.redis.addresses.clone(),
                user: self.redis.user.clone(),
                password: self.redis.password.clone(),
                tls_authority: authority("redis.tls_authority", &self.redis.tls_authority)?,
                uncommitted_max: self.cluster.uncommitted_max,
            },
            store: StoreOptions {
                servers: self.nats.addresses.clone(),
                login: Login { user: self.nats.user.clone(), password: self.nats.password.clone() },
                tls_authority: authority("nats.tls_authority", &self.nats.tls_authority)?
                    .map(|_| self.nats.tls_authority.clone()),
                name: self.cluster.name.clone(),
                // Known once the vault is open.
                vault: String::new(),
                replicas: self.nats.replicas,
                monitors: self.nats.monitors.clone(),
                dangerous_unsynced: self.nats.dangerous_unsynced,
                jitter_seed: process,
            },
            roles: Roles { gate: has(Role::Gate), relay: has(Role::Relay), worker: has(Role::Worker) },
            shared_patience: Duration::from_millis(self.limits.shared_wait_milliseconds),
            gates_expected: self.cluster.gates_expected,
            takeover_after: Duration::from_secs(self.cluster.takeover_after_seconds),
            return_after: Duration::from_secs(self.cluster.return_after_seconds),
            process,
        };
        let vault = PostgresOptions {
            address: self.postgres.addresses[0].clone(),
            database: self.postgres.database.clone(),
            cluster: self.cluster.name.clone(),
            user: self.postgres.user.clone(),
            password: self.postgres.password.clone(),
            tls_authority: authority("postgres.tls_authority", &self.postgres.tls_authority)?,
        };
        Ok(Some(ClusterSettings { options, vault }))
    }

    /// Whether this process serves customers.
    pub(crate) fn is_gate(&self) -> bool {
        !self.is_cluster() || self.cluster.roles.contains(&Role::Gate)
    }
}
