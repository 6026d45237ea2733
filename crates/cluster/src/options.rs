//! Where the servers of a cluster are, and who we are there.

use std::time::Duration;

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, TlsCertificates,
};
use serde::{Deserialize, Serialize};
use stream::StoreOptions;

/// How the server of a sale is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// There is one server.
    Single,
    /// Sentinels know the master.
    Sentinel {
        /// The name under which they watch it.
        name: String,
    },
    /// A Redis Cluster: any member knows who has a slot.
    Cluster,
}

/// Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// Name of the cluster: several may use the same servers.
    pub name: String,
    /// How the addresses are to be read.
    pub topology: Topology,
    /// `host:port` of the server, of the Sentinels, or of some members.
    pub addresses: Vec<String>,
    /// Our user there.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The authority that signed the certificates of the servers and Sentinels, in PEM form; with it every connection is TLS, or there is
    /// none.
    pub tls_authority: Option<Vec<u8>>,
    /// Records that Redis may have decided without the chain having them; beyond it new grants are refused.
    pub uncommitted_max: u64,
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisOptions({:?} at {:?} as {}, secret)", self.topology, self.addresses, self.user)
    }
}

impl RedisOptions {
    /// How to connect to one address, as our user or (a Sentinel) as nobody.
    pub fn info(&self, address: &str, as_user: bool) -> Result<ConnectionInfo, RedisError> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
        let port = port
            .parse()
            .map_err(|_| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no port in an address")))?;
        let host = host.to_owned();
        let address = match self.tls_authority {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let login = RedisConnectionInfo::default();
        let login = if as_user { login.set_username(&self.user).set_password(&self.password) } else { login };
        let info = address.into_connection_info()?.set_redis_settings(login);
        let Some(authority) = self.tls_authority.clone() else { return Ok(info) };
        stream::choose_cryptography();
        // Only the driver can put the authority where it belongs.
        let client = Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(authority) })?;
        Ok(client.get_connection_info().clone())
    }
}

/// What this process does for the sales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Serves customers.
    pub gate: bool,
    /// Brings to the chain what Redis decided, and rebuilds Redis.
    pub relay: bool,
    /// Keeps the books.
    pub worker: bool,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Who decides.
    pub redis: RedisOptions,
    /// Where the chains are.
    pub store: StoreOptions,
    /// What this process does.
    pub roles: Roles,
    /// How long a request waits for what gates share in Redis until it is judged without.
    pub shared_patience: Duration,
    /// Gates among which limits are divided until it is known how many there are.
    pub gates_expected: u32,
    /// How long Redis may be away until a relay decides in its place.
    pub takeover_after: Duration,
    /// How long Redis must be well again until it decides again.
    pub return_after: Duration,
    /// Tells this process from others in locks; another one for each.
    pub process: u64,
}
