//! Faults under a crowd: after each, every promise holds in every worker's books.

use rustix::process::Signal;
use system_tests::cluster::{Cluster, NODES};
use system_tests::{Request, until};

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
    let killed_at = std::time::Instant::now();
    cluster.servers.nats.processes[leader].kill().unwrap();
    let electing = {
        let monitors: Vec<_> = cluster.servers.nats.monitors.clone();
        std::thread::spawn(move || {
            let elected = |leader: usize| {
                services::nats::leader_of(&monitors, "doorbuster_main").is_some_and(|now| now != leader)
            };
            while !elected(leader) && killed_at.elapsed().as_secs() < 20 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            eprintln!("NATS has chosen another leader after {:.2} s", killed_at.elapsed().as_secs_f64());
        })
    };
    report(&cluster, &rush, "the stream's leader is killed");
    electing.join().unwrap();
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

/// One process after the other, in order, while people buy; nobody is told that it does not go on.
#[test]
fn rolling_restart() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "rolling");
    for (name, _) in NODES {
        cluster.stop_node(name);
        cluster.start_node(name);
    }
    report(&cluster, &rush, "every process has been started again");
    let report = rush.end(&mut cluster);
    assert_eq!(report.unanswered, 0);
}

/// Ten seconds here, a minute in the long run; memory grows no more with the second than with the first half.
#[test]
fn nats_away_60_s_memory_bounded() {
    const GROWTH_KIB_MAX: u64 = 96 << 10;
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "nats-away");
    rush.until_uncommitted(&cluster);
    let nodes = ["gate-1", "gate-2", "relay-1", "relay-2"];
    let memory = |cluster: &Cluster| nodes.map(|name| resident_kib(cluster.node(name).process.id()));
    let before = memory(&cluster);
    for process in &cluster.servers.nats.processes {
        process.signal(Signal::STOP).unwrap();
    }
    let seconds = if std::env::var_os("DOORBUSTER_SOAK").is_some() { 60 } else { 10 };
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    let after = memory(&cluster);
    for process in &cluster.servers.nats.processes {
        process.signal(Signal::CONT).unwrap();
    }
    eprintln!("NATS away for {seconds} s: {before:?} KiB before, {after:?} KiB after");
    for (before, after) in before.iter().zip(after) {
        assert!(after < before + GROWTH_KIB_MAX, "{before} KiB became {after} KiB");
    }
    report(&cluster, &rush, "NATS is back");
    rush.end(&mut cluster);
}

#[test]
fn the_leader_gets_an_old_store_back() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "old-store");
    let leader = cluster.stream_leader();
    cluster.servers.nats.processes[leader].kill().unwrap();
    cluster.keep_nats_store(leader);
    cluster.start_nats(leader);
    rush.until_uncommitted(&cluster);
    let leader_now = cluster.stream_leader();
    cluster.servers.nats.processes[leader].kill().unwrap();
    cluster.restore_nats_store(leader);
    cluster.start_nats(leader);
    report(&cluster, &rush, &format!("an old store on nats-{leader} (now leading: nats-{leader_now})"));
    rush.end(&mut cluster);
}

/// Worse than any deployment promises: all servers lose what they acknowledged. The copies of the chain have it.
#[test]
fn every_server_gets_an_old_store_back_and_nothing_is_lost() {
    let mut cluster = Cluster::lock();
    let rush = Rush::begin(&mut cluster, "all-old");
    for number in 0..3 {
        cluster.servers.nats.processes[number].kill().unwrap();
        cluster.keep_nats_store(number);
    }
    (0..3).for_each(|number| cluster.start_nats(number));
    let (gate, _) = cluster.gate("gate-1");
    let position = || gate.ask(&Request::get("/v1/sales/all-old")).json()["position"].as_u64().unwrap();
    let before = position();
    until("sales after the copy was taken", || position() > before + 100);
    for number in 0..3 {
        cluster.servers.nats.processes[number].kill().unwrap();
        cluster.restore_nats_store(number);
    }
    (0..3).for_each(|number| cluster.start_nats(number));
    report(&cluster, &rush, "old stores on all NATS servers");
    rush.end(&mut cluster);
    let said = ["relay-1", "relay-2"].map(|name| cluster.log(name));
    assert!(said.iter().any(|log| log.contains("they are put back")), "somebody says so");
}

/// Kibibytes of a process that are in memory.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Watches for some seconds, and says how long nothing was sold.
fn report(cluster: &Cluster, rush: &Rush, what: &str) {
    eprintln!("{what}: {:.2} s without sales at the longest", rush.seconds_without_sales(cluster));
}
