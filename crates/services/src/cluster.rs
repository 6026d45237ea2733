//! All servers of a cluster on this machine, and the file that says where they are.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::process::{Life, stop_all};
use crate::redis::Login;
use crate::{nats, postgres, redis};

/// Each part's servers lie in a folder of this name; the engine's own processes are ended before what they need.
const PARTS: [&str; 5] = ["nodes", "redis", "sentinel", "nats", "postgres"];
/// Where everything is; readable by its owner only, because of the passwords.
const FILE: &str = "cluster.toml";
/// The same with the Redis that Sentinels watch in place of the Redis Cluster.
const SENTINEL_FILE: &str = "cluster-sentinel.toml";

/// Everything that was started.
#[derive(Debug)]
pub struct Cluster {
    /// The Redis Cluster.
    pub redis: redis::Servers,
    /// A replicated Redis without Cluster, and its Sentinels.
    pub sentinel: (redis::Servers, Vec<SocketAddr>),
    /// NATS.
    pub nats: nats::Servers,
    /// PostgreSQL: server, port, the engine's user.
    pub postgres: (postgres::Server, SocketAddr, Login),
    /// The file that says where they are.
    pub file: PathBuf,
}

/// Starts every server in folders under `folder` and writes `cluster.toml` there; ready when it returns. `nats` is the NATS program.
pub fn up(life: Life, folder: &Path, nats: &Path, say: &dyn Fn(&str)) -> anyhow::Result<Cluster> {
    fs::create_dir_all(folder)?;
    // A server's working folder is how it is known again, so links must not stand in the way.
    let folder = folder.canonicalize()?;
    let file = folder.join(FILE);
    ensure!(!file.exists(), "{} exists: the servers are up; take them down first", file.display());
    let [_, of_redis, of_sentinel, of_nats, of_postgres] = PARTS.map(|part| folder.join(part));
    for part in [&of_redis, &of_sentinel, &of_nats, &of_postgres] {
        fs::create_dir_all(part)?;
    }
    let started = (|| {
        say("redis cluster: three masters, three replicas");
        let redis = redis::cluster(life, &of_redis).context("redis")?;
        say("redis sentinel: a master, two replicas, three sentinels");
        let sentinel = redis::sentinel(life, &of_sentinel).context("sentinel")?;
        say("nats: three servers with JetStream, every message synced");
        let nats = nats::cluster(life, &of_nats, nats).context("nats")?;
        say("postgresql: one server");
        let postgres = postgres::with_database(life, &of_postgres).context("postgresql")?;
        anyhow::Ok(Cluster { redis, sentinel, nats, postgres, file: file.clone() })
    })();
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => {
            // What was started must not stay behind; the first error is what matters.
            drop(down(&folder));
            return Err(error);
        }
    };
    let of_cluster = ("topology = \"cluster\"\n", &cluster.redis.addresses[..], &cluster.redis.login);
    let of_sentinel = (
        "topology = \"sentinel\"\nsentinel_name = \"doorbuster\"\n",
        &cluster.sentinel.1[..],
        &cluster.sentinel.0.login,
    );
    write_private(&folder.join(SENTINEL_FILE), &describe(&cluster, of_sentinel))?;
    write_private(&file, &describe(&cluster, of_cluster))?;
    Ok(cluster)
}

/// Ends every server under `folder` and removes what they wrote; gives how many were running.
pub fn down(folder: &Path) -> anyhow::Result<usize> {
    let Ok(folder) = folder.canonicalize() else { return Ok(0) };
    let mut ended = 0;
    for part in PARTS.map(|part| folder.join(part)) {
        ended += stop_all(&part)?;
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
    }
    for file in [FILE, SENTINEL_FILE].map(|file| folder.join(file)) {
        if file.exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(ended)
}

pub(crate) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

fn describe(cluster: &Cluster, redis: (&str, &[SocketAddr], &Login)) -> String {
    let mut text = String::from(
        "# Where the servers of a cluster on this machine are. Passwords included: keep it to yourself.\n",
    );
    let list = |addresses: &[SocketAddr]| {
        addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ")
    };
    let mut part = |name: &str, more: &str, addresses: &[SocketAddr], login: &Login| {
        let Login { user, password } = login;
        let addresses = list(addresses);
        write!(text, "\n[{name}]\naddresses = [{addresses}]\n{more}user = \"{user}\"\npassword = \"{password}\"\n")
    };
    let (more, addresses, login) = redis;
    let monitors = format!("monitors = [{}]\n", list(&cluster.nats.monitors));
    let written = part("redis", more, addresses, login)
        .and_then(|()| part("nats", &monitors, &cluster.nats.addresses, &cluster.nats.login))
        .and_then(|()| part("postgres", "database = \"doorbuster\"\n", &[cluster.postgres.1], &cluster.postgres.2));
    written.expect("a String takes any text");
    text
}
