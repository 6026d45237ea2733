//! What gates share: one limit for all of them, what is used once, and who is blocked; and what is left of it while Redis is away.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::cluster::Cluster;
use system_tests::{Connection, Customer, Events, Reach, Reply, Request, eventually, open_sale, until};

const ADDRESS: (f64, f64) = (20.0, 100.0);
const CUSTOMER: (f64, f64) = (10.0, 60.0);
/// So long each limit is tried.
const TRIED: Duration = Duration::from_secs(2);
/// Between two requests on a connection.
const PAUSE: Duration = Duration::from_millis(15);
const HAMMERING_BURST: usize = 1_500;
const BLOCK_SECONDS: u64 = 60;

/// The cluster, with gates that have limits, know of each other, and can ask Redis.
fn limited() -> MutexGuard<'static, Cluster> {
    let mut settings = vec![
        "limits.loopback=true".to_owned(),
        // The machine may be busy; how long Redis may take is another test's.
        "limits.shared_wait_milliseconds=900".to_owned(),
        "limits.hammering_per_second=1".to_owned(),
        format!("limits.hammering_burst={HAMMERING_BURST}"),
        format!("limits.automatic_block_seconds={BLOCK_SECONDS}"),
    ];
    for (by, (rate, burst)) in [("address", ADDRESS), ("customer", CUSTOMER)] {
        for kind in ["passes", "purchases", "status"] {
            settings.push(format!("limits.{by}_{kind}_per_second={rate}"));
            settings.push(format!("limits.{by}_{kind}_burst={burst}"));
        }
    }
    let mut cluster = Cluster::lock_with(&["gate-1", "gate-2"], settings);
    until_shared(&mut cluster);
    cluster
}

fn until_shared(cluster: &mut Cluster) {
    for name in ["gate-1", "gate-2"] {
        let gate = cluster.gate(name).0;
        until("gates that share their limits", || {
            gate.gauge("doorbuster_shared_gates") == 2 && gate.gauge("doorbuster_shared_reachable_percent") == 100
        });
    }
}

/// An address of this machine that nobody has asked from.
fn address() -> IpAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    IpAddr::V4(Ipv4Addr::new(127, 7, 7, TAKEN.fetch_add(1, Ordering::Relaxed) + 1))
}

/// How many of these requests a limit admits, and how long that took: over and over for a while, each time from the next of the addresses
/// in a connection of its own.
fn admitted(gates: &[&Reach], addresses: &[IpAddr], request: &Request) -> (f64, f64) {
    let start = Instant::now();
    let admitted = std::thread::scope(|scope| {
        let ask = |(place, gate): (usize, &&Reach)| {
            let (from, to) = (addresses[place % addresses.len()], gate.public());
            move || {
                let mut connection = Connection::open_from(from, to).unwrap();
                let mut admitted = 0;
                while start.elapsed() < TRIED {
                    let reply = connection.ask(request).unwrap();
                    assert!(reply.status < 500, "{}", String::from_utf8_lossy(&reply.body));
                    admitted += u32::from(reply.status != 429);
                    std::thread::sleep(PAUSE);
                }
                admitted
            }
        };
        let threads: Vec<_> = gates.iter().cycle().take(6).enumerate().map(|of| scope.spawn(ask(of))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
    });
    (f64::from(admitted), start.elapsed().as_secs_f64())
}

/// Nobody is admitted more often than the limit and a twentieth, and not much less often.
#[track_caller]
fn is_limit((admitted, seconds): (f64, f64), (rate, burst): (f64, f64), what: &str) {
    let limit = burst + rate * seconds;
    eprintln!("{what}: {admitted} in {seconds:.2} s, limit {limit:.1}");
    assert!(admitted <= limit * 1.05, "{what}: {admitted} in {seconds} s, limit {limit}");
    assert!(admitted >= limit * 0.8, "{what}: only {admitted} in {seconds} s, limit {limit}");
}

/// A request of each kind, without anybody's token: judged by its address and then refused.
fn of_nobody() -> [(&'static str, Request); 3] {
    [
        ("passes", Request::post("/v1/sales/shared/passes")),
        ("purchases", Request::post("/v1/sales/shared/items/boot/purchases")),
        ("status", Request::get("/v1/orders")),
    ]
}

fn tell(customer: &Customer) -> [(&'static str, Request); 3] {
    [
        ("passes", Request::post("/v1/sales/shared/passes").bearer(&customer.token)),
        ("purchases", customer.attempt("boot", "key", 1).request().clone()),
        ("status", Request::get("/v1/orders").bearer(&customer.token)),
    ]
}

#[test]
fn two_gates_and_one_address_or_customer_are_one_limit_of_every_kind() {
    let mut cluster = limited();
    cluster.create(&open_sale("shared", 10));
    let (gates, notes) = (["gate-1", "gate-2"].map(|name| cluster.gate(name).0), cluster.gate("gate-1"));
    let both = [&*gates[0], &*gates[1]];
    let anna = notes.0.customer("anna", "shared");
    // Noted: what follows asks for the same purchase again.
    anna.buy("boot", "key").is(201, "held");
    std::thread::scope(|scope| {
        for (kind, request) in of_nobody() {
            scope.spawn(move || {
                is_limit(admitted(&both, &[address()], &request), ADDRESS, &format!("{kind} of an address"));
            });
        }
    });
    std::thread::scope(|scope| {
        for (kind, request) in tell(&anna) {
            scope.spawn(move || {
                let addresses = [(); 6].map(|()| address());
                is_limit(admitted(&both, &addresses, &request), CUSTOMER, &format!("{kind} of a customer"));
            });
        }
    });
    for gate in both {
        assert!(gate.gauge("doorbuster_shared_asked_total") > 0 && gate.gauge("doorbuster_shared_permits_total") > 0);
    }
    let order =
        eventually("her order", || Some(anna.buy("boot", "key")).filter(|reply| reply.status == 200)).text("order");
    eventually("its end", || Some(anna.cancel(&order)).filter(|reply| reply.status == 200));
    notes.0.flush_notes();
    cluster.judge("shared", &[&notes.1]);
}

#[test]
fn a_crowd_that_asks_for_what_is_gone_is_no_matter_for_redis() {
    let mut cluster = limited();
    cluster.create(&open_sale("gone", 1));
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "gone");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let ben = gate.customer("ben", "gone");
    until("the gate to know that it is gone", || ben.buy("boot", "key").code() == "sold_out");
    let asked = || gate.gauge("doorbuster_shared_asked_total");
    let before = asked();
    // As many as one customer may, each from an address that is new.
    for number in 0..40 {
        let request = ben.attempt("boot", &format!("key-{number}"), 1).request().clone();
        let mut connection = Connection::open_from(address(), gate.public()).unwrap();
        connection.ask(&request).unwrap().is(409, "sold_out");
    }
    // Now and then a gate lets somebody through to see whether something has come back.
    let more = asked() - before;
    assert!(more <= 10, "{more} of 40 were asked about");
    anna.cancel(&order).is(200, "released");
    gate.flush_notes();
    cluster.judge("gone", &[&notes]);
}

#[test]
fn a_stream_ticket_that_one_gate_has_seen_is_used_at_all() {
    let mut cluster = limited();
    cluster.create(&open_sale("tickets", 9));
    let ((here, notes), (there, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let anna = here.customer("tessa", "tickets");
    let bought = anna.buy("boot", "key").is(201, "held");
    for (first, second) in [(&here, &there), (&there, &here)] {
        let location = anna.take_ticket(&bought.text("purchase")).is(201, "").text("location");
        let mut stream = Events::open(first.public(), &location);
        assert_eq!(stream.next_event().unwrap().data["status"], "held");
        for gate in [second, first] {
            gate.ask(&Request::get(&location)).is(403, "ticket_invalid");
        }
    }
    anna.cancel(&bought.text("order")).is(200, "released");
    here.flush_notes();
    cluster.judge("tickets", &[&notes]);
}

/// The list is looked at twice a second anyway; being told is quicker.
#[test]
fn a_block_is_told_to_every_gate_at_once_and_one_gates_own_block_holds_at_all() {
    let mut cluster = limited();
    let ((one, _), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let worker = cluster.node("worker-1").admin;
    let token = cluster.token();
    let [(_, passes), _, (_, status)] = &of_nobody();
    let asks = |gate: &Reach, from: IpAddr, request: &Request| -> Reply {
        Connection::open_from(from, gate.public()).and_then(|mut connection| connection.ask(request)).unwrap()
    };
    let times = [(); 8].map(|()| {
        let address = address();
        asks(&one, address, status).is(401, "token_invalid");
        let body = json!({ "address": address.to_string(), "reason": "a test", "expires_in_seconds": 60 });
        Request::post("/admin/v1/blocks").bearer(&token).json(&body).send(worker).is(201, "");
        let start = Instant::now();
        for gate in [&one, &other] {
            until("a block", || asks(gate, address, status).code() == "blocked");
        }
        start.elapsed()
    });
    assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
    let at_once = times.iter().filter(|time| **time < Duration::from_millis(150)).count();
    assert!(at_once >= 6, "{times:?}");

    // Whoever hammers at one gate hears the same at the other, which has not been asked.
    let abuser = address();
    let mut connection = Connection::open_from(abuser, one.public()).unwrap();
    let wait = |reply: &Reply| reply.header("retry-after").map_or(0, |seconds| seconds.parse::<u64>().unwrap());
    let mut asked = 0;
    while wait(&connection.ask(passes).unwrap()) < BLOCK_SECONDS / 2 {
        asked += 1;
        assert!(asked < 3 * HAMMERING_BURST, "nobody blocks it");
    }
    until("the block at the other gate", || {
        let reply = asks(&other, abuser, passes);
        reply.code() == "rate_limited" && wait(&reply) > BLOCK_SECONDS / 2
    });
    assert_eq!(other.gauge("doorbuster_automatic_blocks_total"), 0);
    assert_eq!(other.gauge("doorbuster_automatic_blocks_in_force"), 1);
}

#[test]
fn without_redis_each_gate_has_its_part_and_with_it_again_all_have_one() {
    let mut cluster = limited();
    cluster.create(&open_sale("away", 10));
    let (gate, notes) = cluster.gate("gate-1");
    let other = cluster.gate("gate-2").0;
    let (anna, request) = (gate.customer("alice", "away"), &of_nobody()[2].1);
    for process in &mut cluster.servers.redis.processes {
        process.kill().unwrap();
    }
    // Each part of the keys is given up by whoever asks first.
    let half = (ADDRESS.0 / 2.0, ADDRESS.1 / 2.0);
    std::thread::scope(|scope| {
        for gate in [&gate, &other] {
            scope.spawn(move || is_limit(admitted(&[gate], &[address()], request), half, "one gate without Redis"));
        }
        scope.spawn(|| is_limit(admitted(&[&gate, &other], &[address()], request), ADDRESS, "two gates without Redis"));
    });
    assert!(gate.gauge("doorbuster_shared_without_redis_total") > 0);
    assert_eq!(gate.gauge("doorbuster_shared_gates"), 2);
    let bought = eventually("a purchase that a relay decides", || {
        Some(anna.buy("boot", "key")).filter(|reply| matches!(reply.status, 200 | 201))
    });
    cluster.heal();
    until_shared(&mut cluster);
    std::thread::scope(|scope| {
        scope.spawn(|| is_limit(admitted(&[&gate], &[address()], request), ADDRESS, "one gate, with Redis again"));
        scope.spawn(|| {
            is_limit(admitted(&[&gate, &other], &[address()], request), ADDRESS, "two gates, with Redis again")
        });
    });
    eventually("the end", || Some(anna.cancel(&bought.text("order"))).filter(|reply| reply.status == 200));
    gate.flush_notes();
    cluster.judge("away", &[&notes]);
}
