//! Single ways that are cut: the process behind one hears nothing from its server, while everybody else does.

use system_tests::cluster::{Cluster, NODES, master_of};
use system_tests::proxy::Proxy;

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

/// Has `node` behind the ways, lets the crowd come, and cuts them while it is there.
fn cut(cluster: &mut Cluster, sale: &str, node: &'static str, ways: &[&Proxy], settings: Vec<String>) {
    // Of two relays the one behind the ways is to have the lock, so the other one comes later.
    let other = NODES.iter().map(|(name, _)| *name).find(|name| name.starts_with("relay") && *name != node);
    let other = other.filter(|_| node.starts_with("relay"));
    cluster.stop_node(node);
    cluster.start_node_with(node, settings);
    other.into_iter().for_each(|other| cluster.stop_node(other));
    let rush = Rush::begin(cluster, sale);
    other.into_iter().for_each(|other| cluster.start_node(other));
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
    let ways = to_nats(&cluster);
    cut(&mut cluster, "relay-nats", "relay-1", &ways.iter().collect::<Vec<_>>(), through(None, &ways));
}

#[test]
fn the_relay_is_cut_off_from_redis() {
    let mut cluster = Cluster::lock();
    let way = to_redis(&cluster, "relay-redis");
    cut(&mut cluster, "relay-redis", "relay-1", &[&way], through(Some(&way), &[]));
}

#[test]
fn a_gate_is_cut_off_from_redis() {
    let mut cluster = Cluster::lock();
    let way = to_redis(&cluster, "gate-redis");
    cut(&mut cluster, "gate-redis", "gate-2", &[&way], through(Some(&way), &[]));
}

#[test]
fn a_gate_is_cut_off_from_nats() {
    let mut cluster = Cluster::lock();
    let ways = to_nats(&cluster);
    cut(&mut cluster, "gate-nats", "gate-2", &ways.iter().collect::<Vec<_>>(), through(None, &ways));
}
