//! Redis: a Cluster of three masters with a replica each, a master with two replicas under three Sentinels, and one alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::process::{Life, Started, command, free_ports, loopback, password};
use crate::rights;
use crate::tls::Identity;

const USER: &str = "doorbuster";
const ADMIN: &str = "admin";
/// Milliseconds after which a silent master is given up.
const NODE_TIMEOUT: u32 = 1_000;

/// A user and the password.
#[derive(Clone, Debug)]
pub struct Login {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Servers that belong together.
#[derive(Debug)]
pub struct Servers {
    /// Where they answer.
    pub addresses: Vec<SocketAddr>,
    /// The engine's user.
    pub login: Login,
    /// May do everything; for tests that break things.
    pub admin: Login,
    /// The processes, in the order of the addresses.
    pub processes: Vec<Started>,
}

impl Servers {
    fn new(addresses: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let login = |user: &str| anyhow::Ok(Login { user: user.to_owned(), password: password()? });
        Ok(Self { addresses, login: login(USER)?, admin: login(ADMIN)?, processes: Vec::new() })
    }

    /// A connection to one of them with all rights.
    pub fn connect(&self, address: SocketAddr) -> redis::RedisResult<redis::Connection> {
        connect(address, &self.admin)
    }

    fn access_list(&self) -> String {
        format!(
            "user default off\nuser {ADMIN} on >{} ~* &* +@all\nuser {USER} on >{} {}\n",
            self.admin.password,
            self.login.password,
            rights::REDIS
        )
    }

    /// Starts a server on the address in a folder of its own under `folder`, with further lines of configuration.
    fn start(&mut self, life: Life, folder: &Path, address: SocketAddr, more: &str) -> anyhow::Result<()> {
        let name = format!("redis-{}", address.port());
        let own = folder.join(&name);
        fs::create_dir_all(&own)?;
        fs::write(own.join("users.acl"), self.access_list())?;
        let settings = format!(
            "bind 127.0.0.1\nport {}\ndir {}\naclfile {}\nmasteruser {ADMIN}\nmasterauth {}\nappendonly yes\n\
             appendfsync everysec\nmaxmemory 256mb\nmaxmemory-policy noeviction\nsave \"\"\n{more}",
            address.port(),
            own.display(),
            own.join("users.acl").display(),
            self.admin.password,
        );
        fs::write(own.join("redis.conf"), settings)?;
        let started = run(life, folder, address, &self.admin)?;
        self.processes.push(started);
        Ok(())
    }

    /// Waits until the server says so in `INFO`.
    fn until_info(&mut self, number: usize, what: &str, says: &str) -> anyhow::Result<()> {
        let (address, admin) = (self.addresses[number], self.admin.clone());
        self.processes[number].until(what, || {
            let info: String = redis::cmd("INFO").query(&mut connect(address, &admin).ok()?).ok()?;
            info.contains(says).then_some(())
        })
    }
}

/// Starts a server that was set up in `folder`, for the first time or again with what it has on disk; ready when it answers.
pub fn run(life: Life, folder: &Path, address: SocketAddr, admin: &Login) -> anyhow::Result<Started> {
    let name = format!("redis-{}", address.port());
    let mut server = command(life, "redis-server");
    server.arg(folder.join(&name).join("redis.conf"));
    let mut started = Started::new(life, folder, &name, server)?;
    started.until("answering", || {
        let mut connection = connect(address, admin).ok()?;
        redis::cmd("PING").query::<String>(&mut connection).ok()
    })?;
    Ok(started)
}

fn connect(address: SocketAddr, login: &Login) -> redis::RedisResult<redis::Connection> {
    let url = format!("redis://{}:{}@{address}/", login.user, login.password);
    redis::Client::open(url)?.get_connection_with_timeout(std::time::Duration::from_secs(1))
}

/// One server that nobody replicates, with further lines of configuration, which count more than those that every server has.
pub fn single(life: Life, folder: &Path, more: &str) -> anyhow::Result<Servers> {
    let address = loopback(free_ports(1)?[0]);
    let mut servers = Servers::new(vec![address])?;
    servers.start(life, folder, address, more)?;
    Ok(servers)
}

/// The lines for a second port, which speaks TLS only.
pub fn tls(identity: &Identity, port: u16) -> String {
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    format!(
        "tls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {certificate}\ntls-auth-clients no\n"
    )
}

/// Three masters with a replica each; ready when every replica follows and every slot is served.
pub fn cluster(life: Life, folder: &Path) -> anyhow::Result<Servers> {
    const NODES: usize = 6;
    let ports = free_ports(2 * NODES)?;
    let (ports, buses) = ports.split_at(NODES);
    let mut servers = Servers::new(ports.iter().copied().map(loopback).collect())?;
    for (address, bus) in servers.addresses.clone().into_iter().zip(buses) {
        let more = format!("cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout {NODE_TIMEOUT}\n");
        servers.start(life, folder, address, &more)?;
    }
    let made = Command::new("redis-cli")
        .args(["--user", ADMIN, "--no-auth-warning", "--cluster-yes", "--cluster-replicas", "1", "--cluster", "create"])
        .args(servers.addresses.iter().map(ToString::to_string))
        .env("REDISCLI_AUTH", &servers.admin.password)
        .output()
        .context("redis-cli cannot be started")?;
    ensure!(made.status.success(), "the Redis Cluster was not made: {}", String::from_utf8_lossy(&made.stdout).trim());
    for number in 0..NODES {
        let (address, admin) = (servers.addresses[number], servers.admin.clone());
        servers.processes[number].until("a cluster that serves every slot", || {
            let mut connection = connect(address, &admin).ok()?;
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).ok()?;
            info.contains("cluster_state:ok").then_some(())
        })?;
        let role: redis::Value = redis::cmd("ROLE").query(&mut servers.connect(address)?)?;
        let is_replica = matches!(&role, redis::Value::Array(parts) if parts.first() == Some(&redis::Value::BulkString(b"slave".to_vec())));
        if is_replica {
            servers.until_info(number, "following its master", "master_link_status:up")?;
        }
    }
    Ok(servers)
}

/// A master with two replicas, and three Sentinels that watch them under the name `doorbuster`; the Sentinels' addresses.
pub fn sentinel(life: Life, folder: &Path) -> anyhow::Result<(Servers, Vec<SocketAddr>)> {
    let ports = free_ports(6)?;
    let (data, watching) = ports.split_at(3);
    let mut servers = Servers::new(data.iter().copied().map(loopback).collect())?;
    let master = servers.addresses[0];
    servers.start(life, folder, master, "")?;
    for number in 1..3 {
        let address = servers.addresses[number];
        servers.start(life, folder, address, &format!("replicaof 127.0.0.1 {}\n", master.port()))?;
        servers.until_info(number, "following its master", "master_link_status:up")?;
    }
    let sentinels: Vec<SocketAddr> = watching.iter().copied().map(loopback).collect();
    for address in &sentinels {
        let name = format!("sentinel-{}", address.port());
        let own = folder.join(&name);
        fs::create_dir_all(&own)?;
        let file = own.join("sentinel.conf");
        let settings = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nsentinel monitor doorbuster 127.0.0.1 {} 2\nsentinel auth-user doorbuster {ADMIN}\n\
             sentinel auth-pass doorbuster {}\nsentinel down-after-milliseconds doorbuster {NODE_TIMEOUT}\n\
             sentinel failover-timeout doorbuster 5000\n",
            address.port(),
            own.display(),
            master.port(),
            servers.admin.password,
        );
        fs::write(&file, settings)?;
        let mut watcher = command(life, "redis-server");
        watcher.arg(&file).arg("--sentinel");
        let mut started = Started::new(life, folder, &name, watcher)?;
        started.until("knowing both replicas", || {
            let client = redis::Client::open(format!("redis://{address}/")).ok()?;
            let replicas: Vec<redis::Value> = redis::cmd("SENTINEL")
                .arg("REPLICAS")
                .arg("doorbuster")
                .query(&mut client.get_connection().ok()?)
                .ok()?;
            (replicas.len() == 2).then_some(())
        })?;
        servers.processes.push(started);
    }
    Ok((servers, sentinels))
}
