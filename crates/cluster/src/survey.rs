//! What the Redis servers of a cluster say of themselves, for whoever checks them before a sale. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use domain::Clock;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Value};

use crate::link::{Link, node_of};
use crate::options::{RedisOptions, Topology};

/// Whether our user may empty the server. The server itself says so to a script, where it would not let us ask for our rights.
const MAY_EMPTY: &str = "return redis.acl_check_cmd('FLUSHALL') or redis.acl_check_cmd('FLUSHDB')";

/// A look at another machine's clock, all in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Our clock before we asked.
    pub before: u64,
    /// The other's when it answered.
    pub there: u64,
    /// Our clock when the answer was here.
    pub after: u64,
}

impl ClockReading {
    /// By how much the other's clock is ahead of ours, at least; negative if it is behind.
    pub fn ahead(&self) -> i64 {
        let there = i128::from(self.there);
        let (before, after) = (i128::from(self.before.min(self.after)), i128::from(self.after.max(self.before)));
        let ahead = if there > after { there - after } else { (there - before).min(0) };
        i64::try_from(ahead).unwrap_or(if ahead > 0 { i64::MAX } else { i64::MIN })
    }
}

/// What one server told.
#[derive(Clone, Debug)]
pub struct RedisTold {
    /// Its version.
    pub version: String,
    /// What it does when its memory is full.
    pub maxmemory_policy: String,
    /// Whether it writes what it does to a file, and finds it there when it starts again.
    pub is_append_only: bool,
    /// Whether our user may empty it; `None` if that cannot be found out.
    pub may_empty: Option<bool>,
    /// Its clock.
    pub clock: ClockReading,
}

/// Asks every server that the addresses lead to: masters and replicas alike, each by its address, with the reason where one does not
/// answer. An error if the addresses lead nowhere.
pub async fn survey(
    options: &RedisOptions,
    clock: &dyn Clock,
) -> Result<Vec<(String, Result<RedisTold, String>)>, String> {
    let link = Link::new(options, "survey");
    let mut told = Vec::new();
    for address in servers(&link, options).await? {
        let answer = ask(&link, &address, clock).await;
        told.push((address, answer.map_err(|error| link.explain(&error).to_string())));
    }
    Ok(told)
}

/// The servers themselves, as all of the addresses together know them.
async fn servers(link: &Link, options: &RedisOptions) -> Result<BTreeSet<String>, String> {
    let mut servers = BTreeSet::new();
    let mut said = "no address is configured".to_owned();
    for address in &options.addresses {
        let known = match &options.topology {
            Topology::Single => Ok(BTreeSet::from([address.clone()])),
            Topology::Sentinel { name } => watched(link, address, name).await,
            Topology::Cluster => members(link, address).await,
        };
        match known {
            Ok(known) => servers.extend(known),
            Err(error) => {
                said = format!("{address}: {}", link.explain(&error));
                // A member is one of the servers; asked again, it says for itself what is the matter.
                servers.extend((options.topology == Topology::Cluster).then(|| address.clone()));
            }
        }
    }
    if servers.is_empty() { Err(said) } else { Ok(servers) }
}

/// Master and replicas that a Sentinel watches under a name.
async fn watched(link: &Link, sentinel: &str, name: &str) -> Result<BTreeSet<String>, RedisError> {
    let mut sentinel = link.open(sentinel, false).await?;
    let mut servers = BTreeSet::from([link.watched_master(&mut sentinel, name).await?]);
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("REPLICAS").arg(name);
    let replicas: Vec<BTreeMap<String, String>> = ask.query_async(&mut sentinel).await?;
    servers.extend(replicas.iter().filter_map(|of| Some(format!("{}:{}", of.get("ip")?, of.get("port")?))));
    Ok(servers)
}

/// Everybody in a Redis Cluster. `CLUSTER SLOTS` would leave out a replica that is dead or still being filled.
async fn members(link: &Link, member: &str) -> Result<BTreeSet<String>, RedisError> {
    let mut member = link.open(member, true).await?;
    let shards: Vec<BTreeMap<String, Value>> = redis::cmd("CLUSTER").arg("SHARDS").query_async(&mut member).await?;
    let mut servers = BTreeSet::new();
    for nodes in shards.into_iter().filter_map(|mut shard| shard.remove("nodes")) {
        let nodes: Vec<BTreeMap<String, Value>> = redis::from_redis_value(nodes)?;
        servers.extend(nodes.into_iter().filter_map(|node| member_of(node, link.is_secret())));
    }
    if servers.is_empty() {
        return Err(RedisError::from((ErrorKind::Client, "nobody is in the Redis Cluster")));
    }
    Ok(servers)
}

/// The address of a member as `CLUSTER SHARDS` tells it; it may have a port for each kind of connection.
fn member_of(mut node: BTreeMap<String, Value>, is_secret: bool) -> Option<String> {
    let port = node.remove(if is_secret { "tls-port" } else { "port" })?;
    node_of(Value::Array(vec![node.remove("endpoint")?, port]))
}

async fn ask(link: &Link, address: &str, clock: &dyn Clock) -> Result<RedisTold, RedisError> {
    let mut server = link.open(address, true).await?;
    let info: String = redis::cmd("INFO").query_async(&mut server).await?;
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or("unknown").trim().to_owned()
    };
    let before = clock.wall_milliseconds();
    let (seconds, microseconds): (u64, u64) = redis::cmd("TIME").query_async(&mut server).await?;
    let clock =
        ClockReading { before, there: seconds * 1_000 + microseconds / 1_000, after: clock.wall_milliseconds() };
    Ok(RedisTold {
        version: field("redis_version"),
        maxmemory_policy: field("maxmemory_policy"),
        is_append_only: field("aof_enabled") == "1",
        may_empty: may_empty(&mut server).await,
        clock,
    })
}

async fn may_empty(server: &mut MultiplexedConnection) -> Option<bool> {
    let mut check = redis::cmd("EVAL");
    check.arg(MAY_EMPTY).arg(0);
    check.query_async(server).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_apart_by_what_the_way_there_and_back_cannot_explain() {
        let ahead = |before, there, after| ClockReading { before, there, after }.ahead();
        assert_eq!(ahead(1_000, 1_050, 1_100), 0);
        assert_eq!(ahead(1_000, 1_000, 1_000), 0);
        assert_eq!(ahead(1_000, 1_600, 1_100), 500);
        assert_eq!(ahead(1_000, 400, 1_100), -600);
        assert_eq!(ahead(1_100, 1_050, 1_000), 0, "our own clock was set back in between");
        assert_eq!(ahead(0, u64::MAX, 0), i64::MAX);
    }
}
