//! Single ways that are cut: the process behind one hears nothing from its server, while everybody else does.

use system_tests::cluster::{Cluster, master_of};
use system_tests::proxy::Proxy;
use system_tests::until;

use crate::crowd::Rush;

/// The settings of a process that reaches the servers of `cluster` through these ways only.
fn through(redis: Option<&Proxy>, nats: &[Proxy]) -> Vec<String> {
    let mut settings = Vec::new();
    if let Some(redis) = redis {
        settings.extend(["redis.topology=single".to_owned(), format!("redis.addresses={}", redis.address)]);
    }
    if !nats.is_empty() {
        let addresses: Vec<_> = nats.iter().map(|way| way.address.to_string()).collect();
        settings.push(format!("nats.addresses={}", addresses.join(",")));
    }
    settings
}

fn to_redis(cluster: &Cluster, sale: &str) -> Proxy {
    Proxy::to(cluster.servers.redis.addresses[master_of(cluster, sale)])
}

fn to_nats(cluster: &Cluster) -> Vec<Proxy> {
    cluster.servers.nats.addresses.iter().map(|address| Proxy::to(*address)).collect()
}

/// Starts `node` anew behind the ways, lets the crowd come, and cuts them for some seconds.
fn cut(cluster: &mut Cluster, rush: Rush, node: &'static str, ways: &[&Proxy], settings: Vec<String>) {
    cluster.stop_node(node);
    cluster.start_node_with(node, settings);
    rush.until_uncommitted(cluster);
    ways.iter().for_each(|way| way.cut(true));
    eprintln!("{node} is cut off: {:.2} s without sales at the longest", rush.seconds_without_sales(cluster));
    ways.iter().for_each(|way| way.cut(false));
    rush.end(cluster);
    cluster.stop_node(node);
    cluster.start_node(node);
}

#[test]
fn the_relay_is_cut_off_from_nats() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "relay-nats");
    let relay = cluster.relay_of("relay-nats");
    let other = if relay == "relay-1" { "relay-2" } else { "relay-1" };
    // The other one stops, so that the one behind the ways has the lock.
    cluster.stop_node(other);
    let ways = to_nats(&cluster);
    let settings = through(None, &ways);
    cluster.stop_node(relay);
    cluster.start_node_with(relay, settings);
    until("the lock", || cluster.relay_of("relay-nats") == relay);
    cluster.start_node(other);
    rush.until_uncommitted(&cluster);
    ways.iter().for_each(|way| way.cut(true));
    eprintln!(
        "the relay is cut off from NATS: {:.2} s without sales at the longest",
        rush.seconds_without_sales(&cluster)
    );
    assert_eq!(cluster.relay_of("relay-nats"), other, "another one goes on");
    ways.iter().for_each(|way| way.cut(false));
    rush.end(&mut cluster);
    cluster.stop_node(relay);
    cluster.start_node(relay);
}

#[test]
#[ignore = "cargo xtask soak runs it"]
fn the_relay_is_cut_off_from_redis() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "relay-redis");
    let relay = cluster.relay_of("relay-redis");
    let way = to_redis(&cluster, "relay-redis");
    let settings = through(Some(&way), &[]);
    cut(&mut cluster, rush, relay, &[&way], settings);
}

#[test]
#[ignore = "cargo xtask soak runs it"]
fn a_gate_is_cut_off_from_redis() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "gate-redis");
    let way = to_redis(&cluster, "gate-redis");
    let settings = through(Some(&way), &[]);
    cut(&mut cluster, rush, "gate-2", &[&way], settings);
}

#[test]
#[ignore = "cargo xtask soak runs it"]
fn a_gate_is_cut_off_from_nats() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "gate-nats");
    let ways = to_nats(&cluster);
    let settings = through(None, &ways);
    cut(&mut cluster, rush, "gate-2", &ways.iter().collect::<Vec<_>>(), settings);
}
