//! Faults under a crowd: after each, every promise holds in every worker's books.

use rustix::process::Signal;
use system_tests::cluster::Cluster;

use crate::crowd::Rush;

#[test]
fn a_sale_without_faults() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "calm");
    let report = rush.end(&mut cluster);
    assert_eq!(report.unanswered, 0);
}

#[test]
fn a_gate_is_killed() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "gate-killed");
    rush.until_uncommitted(&cluster);
    cluster.kill_node("gate-2");
    report(&rush, "a gate is killed");
    rush.end(&mut cluster);
}

#[test]
fn the_relay_and_a_worker_are_killed() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "relay-killed");
    for name in ["relay-1", "relay-2"] {
        rush.until_uncommitted(&cluster);
        cluster.kill_node(name);
        report(&rush, "a relay is killed");
        cluster.start_node(name);
    }
    cluster.kill_node("worker-1");
    rush.end(&mut cluster);
}

#[test]
fn redis_is_emptied() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "emptied");
    let master = rush.until_uncommitted(&cluster);
    let redis = &cluster.servers.redis;
    let mut connection = redis.connect(redis.addresses[master]).unwrap();
    redis::cmd("FLUSHALL").query::<()>(&mut connection).unwrap();
    report(&rush, "FLUSHALL");
    rush.end(&mut cluster);
}

#[test]
fn the_master_is_killed_and_a_replica_is_promoted() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "promoted");
    let master = rush.until_uncommitted(&cluster);
    cluster.servers.redis.processes[master].signal(Signal::KILL).unwrap();
    report(&rush, "a Redis master is killed");
    rush.end(&mut cluster);
}

fn report(rush: &Rush, what: &str) {
    eprintln!("{what}: {:.2} s without sales", rush.seconds_without_sales());
}
