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
    report(&cluster, &rush, "a gate is killed");
    rush.end(&mut cluster);
}

#[test]
fn the_relay_and_a_worker_are_killed() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "relay-killed");
    rush.until_uncommitted(&cluster);
    let relay = cluster.relay_of(&rush.sale);
    cluster.kill_node(relay);
    report(&cluster, &rush, "the relay is killed");
    cluster.start_node(relay);
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
    report(&cluster, &rush, "FLUSHALL");
    rush.end(&mut cluster);
}

#[test]
fn the_master_is_killed_and_a_replica_is_promoted() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "promoted");
    let master = rush.until_uncommitted(&cluster);
    cluster.servers.redis.processes[master].signal(Signal::KILL).unwrap();
    report(&cluster, &rush, "a Redis master is killed");
    rush.end(&mut cluster);
}

#[test]
fn a_redis_master_stands_still_for_ten_seconds() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "frozen");
    let master = rush.until_uncommitted(&cluster);
    cluster.servers.redis.processes[master].signal(Signal::STOP).unwrap();
    report(&cluster, &rush, "a Redis master stands still");
    std::thread::sleep(std::time::Duration::from_secs(3));
    cluster.servers.redis.processes[master].signal(Signal::CONT).unwrap();
    rush.end(&mut cluster);
}

#[test]
fn the_streams_leader_is_killed() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "leader-killed");
    rush.until_uncommitted(&cluster);
    let leader = cluster.stream_leader();
    cluster.servers.nats.processes[leader].kill().unwrap();
    report(&cluster, &rush, "the stream's leader is killed");
    cluster.start_nats(leader);
    rush.end(&mut cluster);
}

#[test]
fn every_nats_server_is_killed() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "nats-killed");
    rush.until_uncommitted(&cluster);
    for process in &mut cluster.servers.nats.processes {
        process.kill().unwrap();
    }
    for number in 0..3 {
        cluster.start_nats(number);
    }
    report(&cluster, &rush, "every NATS server is killed and started again");
    rush.end(&mut cluster);
}

/// Watches for some seconds, and says how long nothing was sold.
fn report(cluster: &Cluster, rush: &Rush, what: &str) {
    eprintln!("{what}: {:.2} s without sales at the longest", rush.seconds_without_sales(cluster));
}
