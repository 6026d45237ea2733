//! The way to the one Redis server that has a sale, or a part of what gates share: found, connected to, called, and given up at the first doubt.
//!
//! All keys of it lie in one slot, so one server has them. Which one is asked anew after every failure: of the server itself, of the
//! Sentinels, or of any member of the Redis Cluster. A call that failed may have been carried out; every function may be called again.

use std::time::Duration;

use admission::redis::{CLOCK, FENCED, STALE, keys};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, Value};

use crate::options::{RedisOptions, Topology};

/// How long to wait for a connection, and for a reply: a server that takes longer is asked again, or another one.
const CONNECT_PATIENCE: Duration = Duration::from_millis(400);
const REPLY_PATIENCE: Duration = Duration::from_millis(1_000);

/// A call fails after so many addresses without an answer; the next one begins behind them.
const ADDRESSES_PER_TRY: usize = 3;

/// Why a call brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No server, no reply, or not the right server. The outcome is unknown; the call may be repeated.
    #[error("Redis does not answer: {0}")]
    Unreachable(String),
    /// Definite: the server does not take us for who we say we are, or does not let us do what we have to. Other addresses are asked all the
    /// same: one server may be configured wrongly.
    #[error("Redis refuses us (redis.user, redis.password, and the rights that docs/cluster.md names): {0}")]
    Refused(String),
    /// Definite: this server may not decide this sale, or does not know how. It has to be rebuilt.
    #[error("Redis has to be rebuilt for this sale: {0}")]
    Fenced(String),
    /// Definite: the clocks of caller and server are seconds apart.
    #[error("the clocks of this machine and of Redis are seconds apart")]
    Clock,
    /// Definite: a newer rebuild has begun.
    #[error("a newer rebuild of this sale has begun")]
    Stale,
    /// Definite: Redis has no memory left.
    #[error("Redis has no memory left")]
    Full,
}

/// The way to one slot's server.
pub(crate) struct Link {
    options: RedisOptions,
    keys: Vec<String>,
    connection: Option<MultiplexedConnection>,
    /// Where to begin asking next time, so that a dead member is not asked first for ever.
    turn: usize,
}

impl Link {
    /// To a sale.
    pub(crate) fn new(options: &RedisOptions, sale: &str) -> Self {
        Self::to(options, keys(&format!("{}/{sale}", options.name)).into())
    }

    /// To the server that has these keys, of which there is one at least.
    pub(crate) fn to(options: &RedisOptions, keys: Vec<String>) -> Self {
        Self { options: options.clone(), keys, connection: None, turn: 0 }
    }

    /// Calls a function with the keys.
    pub(crate) async fn call<T: FromRedisValue>(
        &mut self,
        function: &str,
        arguments: &[Vec<u8>],
    ) -> Result<T, LinkError> {
        let mut call = redis::cmd("FCALL");
        call.arg(function).arg(self.keys.len()).arg(&self.keys).arg(arguments);
        self.query(&call).await
    }

    /// Forgets the connection; the next call finds the server anew.
    pub(crate) fn reset(&mut self) {
        self.connection = None;
    }

    /// Whether Redis takes us in, said by the first server that says anything; one that does not answer is no refusal.
    pub(crate) async fn check_login(&mut self) -> Result<(), LinkError> {
        match self.connect().await {
            Err(error @ LinkError::Refused(_)) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Loads a library, in place of any other version of it.
    pub(crate) async fn load(&mut self, library: &str) -> Result<(), LinkError> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(library);
        self.query::<String>(&load).await.map(|_| ())
    }

    /// Takes the lock on a part of the sale's work for `milliseconds`, or keeps it; `false` while somebody else has it.
    pub(crate) async fn lock(&mut self, part: &str, holder: &str, milliseconds: u64) -> Result<bool, LinkError> {
        let key = self.lock_key(part);
        let mut take = redis::cmd("SET");
        take.arg(&key).arg(holder).arg("NX").arg("PX").arg(milliseconds);
        if self.query::<Option<String>>(&take).await?.is_some() {
            return Ok(true);
        }
        let mut keep = redis::cmd("EVAL");
        let script =
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
        keep.arg(script).arg(1).arg(&key).arg(holder).arg(milliseconds);
        Ok(self.query::<u64>(&keep).await? == 1)
    }

    /// Gives the lock back, if it is held.
    pub(crate) async fn unlock(&mut self, part: &str, holder: &str) -> Result<(), LinkError> {
        let mut free = redis::cmd("EVAL");
        let script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
        free.arg(script).arg(1).arg(self.lock_key(part)).arg(holder);
        self.query::<u64>(&free).await.map(|_| ())
    }

    fn lock_key(&self, part: &str) -> String {
        let state = &self.keys[0];
        format!("{}:lock:{part}", state.trim_end_matches(":state"))
    }

    /// The sale's packed state, or nothing; read without the fence, for a rebuild to see what is there.
    pub(crate) async fn state(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        let mut get = redis::cmd("GET");
        get.arg(&self.keys[0]);
        self.query(&get).await
    }

    pub(crate) async fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, LinkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let outcome = command.query_async::<Value>(&mut connection).await;
        match outcome.and_then(|value| Ok(redis::from_redis_value::<T>(value)?)) {
            Ok(value) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Err(error) => {
                let error = classify(&error);
                if !matches!(error, LinkError::Unreachable(_)) {
                    self.connection = Some(connection);
                }
                Err(error)
            }
        }
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, LinkError> {
        let mut said = LinkError::Unreachable("no address is configured".to_owned());
        for _ in 0..self.options.addresses.len().min(ADDRESSES_PER_TRY) {
            let address = self.options.addresses[self.turn % self.options.addresses.len()].clone();
            match self.find(&address).await {
                Ok(connection) => return Ok(connection),
                // Of several reasons, the one that somebody has to mend.
                Err(error) if matches!(said, LinkError::Refused(_)) => drop(error),
                Err(error) => said = self.explain(&error),
            }
            self.turn += 1;
        }
        Err(said)
    }

    /// What an error means that came instead of a connection; with what the driver's words leave out where TLS may be the reason.
    pub(crate) fn explain(&self, error: &RedisError) -> LinkError {
        match classify(error) {
            LinkError::Unreachable(said) if self.is_secret() => {
                LinkError::Unreachable(format!("{said}; by TLS, since redis.tls_authority is set"))
            }
            LinkError::Unreachable(said) if error.is_connection_dropped() => LinkError::Unreachable(format!(
                "{said}, before the first answer; if the server wants TLS, set redis.tls_authority"
            )),
            other => other,
        }
    }

    /// Asks the server at `address` who has the sale, and connects there.
    async fn find(&self, address: &str) -> Result<MultiplexedConnection, RedisError> {
        match &self.options.topology {
            Topology::Single => self.open(address, true).await,
            Topology::Sentinel { name } => {
                let mut sentinel = self.open(address, false).await?;
                let master = self.watched_master(&mut sentinel, name).await?;
                self.open(&master, true).await
            }
            Topology::Cluster => {
                let mut member = self.open(address, true).await?;
                let mut ask = redis::cmd("CLUSTER");
                let slot: u16 = ask.arg("KEYSLOT").arg(&self.keys[0]).query_async(&mut member).await?;
                let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut member).await?;
                let master = ranges.into_iter().find_map(|range| master_of(slot, range));
                let master = master.ok_or(RedisError::from((ErrorKind::Client, "nobody serves the slot")))?;
                if master == address { Ok(member) } else { self.open(&master, true).await }
            }
        }
    }

    /// The master that a Sentinel watches under a name.
    pub(crate) async fn watched_master(
        &self,
        sentinel: &mut MultiplexedConnection,
        name: &str,
    ) -> Result<String, RedisError> {
        let mut ask = redis::cmd("SENTINEL");
        let found = ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(sentinel).await?;
        let (host, port): (String, u16) =
            Option::ok_or(found, RedisError::from((ErrorKind::Client, "the Sentinels know no master of that name")))?;
        Ok(format!("{host}:{port}"))
    }

    /// Whether every connection is TLS.
    pub(crate) fn is_secret(&self) -> bool {
        self.options.tls_authority.is_some()
    }

    pub(crate) async fn open(&self, address: &str, as_user: bool) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(REPLY_PATIENCE));
        let client = Client::open(self.options.info(address, as_user)?)?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// The master of a range of slots, if `slot` is in it.
fn master_of(slot: u16, range: Vec<Value>) -> Option<String> {
    let mut parts = range.into_iter();
    let first: u16 = redis::from_redis_value(parts.next()?).ok()?;
    let last: u16 = redis::from_redis_value(parts.next()?).ok()?;
    let master = node_of(parts.next()?)?;
    (first..=last).contains(&slot).then_some(master)
}

/// The address of a member of a Redis Cluster, as members tell it.
pub(crate) fn node_of(member: Value) -> Option<String> {
    let Value::Array(parts) = member else { return None };
    let mut parts = parts.into_iter();
    let host: String = redis::from_redis_value(parts.next()?).ok()?;
    let port: u16 = redis::from_redis_value(parts.next()?).ok()?;
    Some(format!("{host}:{port}"))
}

/// What an error means. By the code that begins it; the words behind are for people.
fn classify(error: &RedisError) -> LinkError {
    match error.code() {
        Some(FENCED) => LinkError::Fenced("it was started, promoted or emptied".to_owned()),
        Some(CLOCK) => LinkError::Clock,
        Some(STALE) => LinkError::Stale,
        Some("OOM") => LinkError::Full,
        Some("WRONGPASS" | "NOAUTH" | "NOPERM") => LinkError::Refused(error.to_string()),
        _ if error.kind() == ErrorKind::AuthenticationFailed => LinkError::Refused(error.to_string()),
        // What a server says that does not know the function; whatever else it is, a rebuild loads the library anew.
        Some("ERR") => LinkError::Fenced(error.to_string()),
        _ => LinkError::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use services::process::{Life, free_ports};
    use services::redis::{Servers, single, tls};
    use services::tls::Authority;

    use super::*;

    /// A server with a plain port and one for TLS, and the folder that goes when it has ended.
    struct Server {
        servers: Servers,
        authority: Authority,
        tls_address: String,
        folder: PathBuf,
    }

    impl Server {
        fn start() -> Self {
            let folder = std::env::temp_dir().join(format!("doorbuster-link-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let authority = Authority::new().unwrap();
            let identity = authority.sign(&folder).unwrap();
            let port = free_ports(1).unwrap()[0];
            let servers = single(Life::Ours, &folder, &tls(&identity, port)).unwrap();
            Self { servers, authority, tls_address: format!("127.0.0.1:{port}"), folder }
        }

        async fn says(&self, address: &str, authority: Option<&Authority>) -> Result<Option<Vec<u8>>, LinkError> {
            let options = RedisOptions {
                name: "main".to_owned(),
                topology: Topology::Single,
                addresses: vec![address.to_owned()],
                user: self.servers.login.user.clone(),
                password: self.servers.login.password.clone(),
                tls_authority: authority.map(|authority| authority.pem().into_bytes()),
                uncommitted_max: 1_000,
            };
            Link::new(&options, "drop").state().await
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.servers.processes.clear();
            drop(std::fs::remove_dir_all(&self.folder));
        }
    }

    #[tokio::test]
    async fn with_an_authority_only_servers_that_it_signed_are_spoken_to() {
        let server = Server::start();
        let (tls, plain) = (server.tls_address.as_str(), server.servers.addresses[0].to_string());
        let authority = Some(&server.authority);
        assert_eq!(server.says(tls, authority).await.unwrap(), None, "nobody has written the sale");
        assert_eq!(server.says(&plain, None).await.unwrap(), None);
        let stranger = Authority::new().unwrap();
        for (address, authority, reason) in [
            (tls, Some(&stranger), "certificate"),
            (tls, None, "TLS"),
            // No way back to plain TCP: the password would travel in the clear.
            (plain.as_str(), authority, "TLS"),
        ] {
            let error = server.says(address, authority).await.unwrap_err();
            assert!(matches!(&error, LinkError::Unreachable(told) if told.contains(reason)), "{reason}: {error}");
        }
    }
}
