//! Against a real Redis: the function with a clock that the test sets, and gates that ask it together.

use std::collections::HashSet;
use std::path::PathBuf;

use domain::clock::SystemClock;
use fastrand::Rng;
use limiter::{Limiter, Verdict};
use services::process::Life;
use services::redis::{Servers, run, single};

use super::*;
use crate::news::{News, follow};
use crate::options::{Roles, Topology};

/// What the library asks the server for, and what a test asks instead.
const CLOCK_OF_THE_SERVER: &str = "return time[1] * 1000000 + time[2]";
const CLOCK_OF_THE_TEST: &str = "return tonumber(redis.call('GET', 'doorbuster:clock')) or time[1] * 1000000 + time[2]";
/// How long a key is kept, which goes by the server's own clock: long after it, so that only the text's arithmetic counts.
const EXPIRY: &str = "'PX', math.ceil(ahead / 1000)";
const EXPIRY_OF_THE_TEST: &str = "'PX', 3600000 + math.ceil(ahead / 1000)";
const START: u64 = 1_790_000_000_000;

struct Server {
    servers: Servers,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("doorbuster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let servers = single(Life::Ours, &folder, "").unwrap();
        Self { servers, folder }
    }

    fn options(&self) -> RedisOptions {
        RedisOptions {
            name: "main".to_owned(),
            topology: Topology::Single,
            addresses: vec![self.servers.addresses[0].to_string()],
            user: self.servers.login.user.clone(),
            password: self.servers.login.password.clone(),
            tls_authority: None,
            uncommitted_max: 1_000,
        }
    }

    /// A gate with connections of its own.
    fn gate(&self, process: u64) -> Arc<Shared> {
        let options = ClusterOptions {
            redis: self.options(),
            store: stream::StoreOptions {
                servers: Vec::new(),
                login: stream::Login { user: String::new(), password: String::new() },
                tls_authority: None,
                name: "main".to_owned(),
                vault: String::new(),
                replicas: 1,
                monitors: Vec::new(),
                dangerous_unsynced: false,
                jitter_seed: process,
            },
            roles: Roles { gate: true, relay: false, worker: false },
            shared_patience: Duration::from_millis(400),
            gates_expected: 5,
            takeover_after: Duration::ZERO,
            return_after: Duration::ZERO,
            process,
        };
        Shared::start(&options, &Handle::current())
    }

    fn restart(&mut self) {
        let address = self.servers.addresses[0];
        self.servers.processes[0] = run(Life::Ours, &self.folder, address, &self.servers.admin).unwrap();
    }

    fn connection(&self) -> redis::Connection {
        self.servers.connect(self.servers.addresses[0]).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.servers.processes.clear();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn asked(per_second: u32, burst: u32, extra_max: u32) -> Asked {
    Asked { per_second, burst, extra_max }
}

/// A key of each part.
fn hashes() -> impl Iterator<Item = u64> {
    (0..PARTS as u64).map(|part| part << (u64::BITS - PART_BITS) | 7)
}

#[test]
fn the_function_gives_permits_as_the_limiter_does() {
    let server = Server::start("shared-model");
    let mut connection = server.connection();
    assert!(FUNCTIONS.contains(CLOCK_OF_THE_SERVER) && FUNCTIONS.contains(EXPIRY));
    let functions = FUNCTIONS.replace(CLOCK_OF_THE_SERVER, CLOCK_OF_THE_TEST).replace(EXPIRY, EXPIRY_OF_THE_TEST);
    redis::cmd("FUNCTION").arg("LOAD").arg(functions).query::<()>(&mut connection).unwrap();
    for seed in 0..40 {
        let mut random = Rng::with_seed(seed);
        // Rates whose interval is a whole number of microseconds, and so the same in both.
        let rate = *random.choice(&[1, 2, 5, 8, 10, 50, 125, 200, 1_000, 10_000]).unwrap();
        let burst = *random.choice(&[1, 2, 7, 50, 5_000]).unwrap();
        let limiter = Limiter::new(1 << 16, rate, burst);
        let mut now = START;
        for _ in 0..150 {
            now += random.u64(0..3) * random.u64(0..2_000_u64.div_ceil(u64::from(rate)) + 2);
            redis::cmd("SET").arg("doorbuster:clock").arg(now * 1_000).query::<()>(&mut connection).unwrap();
            let (many, extra) = (random.usize(1..4), random.u32(0..3));
            let mut call = redis::cmd("FCALL");
            call.arg(FUNCTION).arg(1).arg(format!("doorbuster:{seed}"));
            call.arg(&Operation::Take(asked(rate, burst, extra)).fields(many)[..]);
            let (permits, wait): (u64, u64) = call.query(&mut connection).unwrap();
            for _ in 0..permits {
                assert_eq!(limiter.check(7, now), Ok(()), "seed {seed}: {permits} permits");
            }
            if permits < many as u64 {
                assert_eq!(limiter.check(7, now), Err(wait), "seed {seed}");
            }
            assert!(permits <= many as u64 + u64::from(extra));
        }
    }
    // Whoever has asked for much and has room gets as many more as may be, in rounds; a newcomer gets one.
    let take = |key: &str, connection: &mut redis::Connection| -> (u64, u64) {
        let fields = Operation::Take(asked(1, 1_000, 20)).fields(1);
        redis::cmd("FCALL").arg(FUNCTION).arg(1).arg(key).arg(&fields[..]).query(connection).unwrap()
    };
    let mut lots: Vec<_> = (0..200).map(|_| take("doorbuster:busy", &mut connection).0).collect();
    assert_eq!((lots[0], lots.iter().max(), lots.iter().sum()), (1, Some(&21), 1_000));
    lots.retain(|lot| *lot > 0);
    assert!(lots.len() < 120, "{} calls for a thousand", lots.len());
    let bytes: u64 = redis::cmd("MEMORY").arg("USAGE").arg("doorbuster:busy").query(&mut connection).unwrap();
    assert!(bytes <= 160, "{bytes} bytes a key");
    let expires: i64 = redis::cmd("PTTL").arg("doorbuster:busy").query(&mut connection).unwrap();
    // All of its burst is used, at one a second.
    assert!((3_600_000 + 900_000..=3_600_000 + 1_000_000).contains(&expires), "{expires}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_gates_give_one_limit_and_spend_and_count_once() {
    let server = Server::start("shared-gates");
    let gates = [server.gate(1), server.gate(2)];
    until("gates that know each other", || gates.iter().all(|gate| gate.gate_count() == 2)).await;
    until("parts that are well", || gates.iter().all(|gate| gate.well_hundredths() == 100)).await;
    // A thousand at once from each, of one key in each part: the burst, and what the time between brings at one a second.
    let start = std::time::Instant::now();
    for hash in hashes() {
        let asks = gates.iter().cycle().take(200).map(|gate| gate.take("test", hash, asked(1, 50, 0)));
        let lots = futures_util::future::join_all(asks).await;
        let granted = lots.iter().filter(|lot| lot.is_some_and(|lot| lot.is_granted)).count();
        assert!((50..=51 + start.elapsed().as_secs() as usize).contains(&granted), "{granted}");
        let refused = lots.iter().flatten().filter(|lot| !lot.is_granted);
        assert!(refused.clone().count() > 0 && refused.clone().all(|lot| (1..=1_000).contains(&lot.wait_milliseconds)));
    }
    let counts = gates[0].counts();
    assert_eq!((counts.asked, counts.without), (1_600, 0));
    assert!(counts.permits + counts.refused == 1_600, "{counts:?}");
    for hash in hashes() {
        let within = Duration::from_secs(10);
        let spends = gates.iter().cycle().take(20).map(|gate| gate.spend("ticket", hash, within));
        let spent = futures_util::future::join_all(spends).await;
        assert_eq!(spent.iter().filter(|first| **first == Some(true)).count(), 1);
        assert!(spent.iter().all(Option::is_some));
        assert_eq!(gates[0].spend("another", hash, within).await, Some(true), "kinds are told apart");
        gates[1].restore("ticket", hash).await;
        assert_eq!(gates[0].spend("ticket", hash, within).await, Some(true), "it was spent in vain");
        let counted = futures_util::future::join_all(
            gates.iter().cycle().take(20).map(|gate| gate.count("failures", hash, 1, within)),
        )
        .await;
        let counted: HashSet<_> = counted.into_iter().flatten().collect();
        assert_eq!(counted, (1..=20).collect());
        assert_eq!(gates[1].count("failures", hash, 0, within).await, Some(20), "only looked");
    }
    // A figure, not a bar: everybody new, so that each is a key of its own.
    let (start, count) = (std::time::Instant::now(), 20_000_u64);
    for first in (0..count).step_by(2_000) {
        let hash = |number: u64| (first + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let asks = (0..2_000).map(|number| gates[0].take("crowd", hash(number), asked(5, 50, 0)));
        let lots = futures_util::future::join_all(asks).await;
        assert!(lots.iter().flatten().all(|lot| lot.is_granted));
    }
    eprintln!("{:.0} permits a second of one gate", count as f64 / start.elapsed().as_secs_f64());
    let mut connection = server.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg("doorbuster:*").query(&mut connection).unwrap();
    for key in keys {
        let expires: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        assert!(expires != -1, "{key} never expires");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gate_goes_on_alone_while_redis_is_away_and_asks_again_when_it_is_back() {
    let mut server = Server::start("shared-away");
    let (gate, other) = (server.gate(1), server.gate(2));
    assert_eq!(gate.gates(7), Gates { count: 5, can_ask: false }, "nobody has said how many there are");
    until("two gates", || gate.gate_count() == 2 && gate.well_hundredths() == 100).await;
    for hash in hashes() {
        assert!(gate.take("test", hash, asked(1, 1, 0)).await.is_some_and(|lot| lot.is_granted));
    }
    // A server that stands still is noticed by those who wait, once in each part.
    server.servers.processes[0].signal(rustix::process::Signal::STOP).unwrap();
    let start = std::time::Instant::now();
    let takes = futures_util::future::join_all(hashes().map(|hash| gate.take("test", hash, asked(1, 1, 0)))).await;
    assert!(takes.iter().all(Option::is_none) && start.elapsed() < Duration::from_secs(2));
    for hash in hashes() {
        until("a part that is given up", || !gate.gates(hash).can_ask).await;
        assert_eq!(gate.spend("ticket", hash, Duration::from_secs(1)).await, None);
    }
    assert_eq!(gate.gates(7), Gates { count: 2, can_ask: false }, "the last count is kept");
    assert!(gate.counts().without >= PARTS as u64);
    server.servers.processes[0].kill().unwrap();
    server.restart();
    for hash in hashes() {
        // Who has not asked meanwhile notices at the first time that the connection is broken.
        for gate in [&gate, &other] {
            while gate.spend("anything", hash, Duration::from_secs(1)).await.is_none() {
                until("a part that is well", || gate.gates(hash).can_ask).await;
            }
        }
        assert!(gate.take("anew", hash, asked(1, 1, 0)).await.is_some_and(|lot| lot.is_granted));
        assert!(other.take("anew", hash, asked(1, 1, 0)).await.is_some_and(|lot| !lot.is_granted));
    }
    // Somebody empties it, the library too: it is loaded again.
    let mut connection = server.connection();
    redis::cmd("FLUSHALL").query::<()>(&mut connection).unwrap();
    redis::cmd("FUNCTION").arg("FLUSH").query::<()>(&mut connection).unwrap();
    until("permits again", || gate.well_hundredths() == 100).await;
    assert!(gate.take("anew", 7, asked(1, 1, 0)).await.is_some_and(|lot| lot.is_granted), "once more after a flush");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_one_process_tells_all_hear_and_latecomers_hear_what_still_counts() {
    let server = Server::start("shared-news");
    let gate = server.gate(1);
    until("a part that is well", || gate.gates(0).can_ask).await;
    let listen = || {
        let (listener, news) = std::sync::mpsc::sync_channel(16);
        tokio::spawn(follow(server.options(), Arc::new(SystemClock::new()), listener));
        news
    };
    let early = listen();
    let hear = |news: &std::sync::mpsc::Receiver<News>| news.try_recv().ok();
    let blocked = News::AddressBlocked { hash: 42, milliseconds: 60_000 };
    let soon = std::time::Instant::now();
    for told in [News::Blocks, blocked, News::AddressBlocked { hash: 1, milliseconds: 1 }] {
        gate.tell_news(told);
    }
    let mut heard = Vec::new();
    until("the news", || {
        heard.extend(hear(&early));
        heard.len() >= 2
    })
    .await;
    assert!(soon.elapsed() < Duration::from_secs(2));
    assert_eq!(heard[0], News::Blocks);
    let News::AddressBlocked { hash: 42, milliseconds: 58_000..=60_000 } = heard[1] else { panic!("{heard:?}") };
    let late = listen();
    let mut heard = Vec::new();
    until("the news again", || {
        heard.extend(hear(&late));
        heard.len() >= 2
    })
    .await;
    assert!(matches!(heard[1], News::AddressBlocked { hash: 42, .. }));
}

/// A limit of two gates, with everything between a request and Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_limit_of_two_gates_is_one_limit_and_few_of_the_refused_are_asked_for() {
    let server = Server::start("shared-limit");
    let gates = [server.gate(1), server.gate(2)];
    until("gates that know each other", || gates.iter().all(|gate| gate.gate_count() == 2)).await;
    until("parts that are well", || gates.iter().all(|gate| gate.well_hundredths() == 100)).await;
    let sides = gates.map(|gate| (gate, limiter::SharedLimiter::new(1 << 16, 100, 400)));
    let start = std::time::Instant::now();
    let ask = async |side: &(Arc<Shared>, limiter::SharedLimiter)| {
        let (gate, limiter) = side;
        let (mut admitted, mut judged) = (0_u64, 0_u64);
        while start.elapsed() < Duration::from_millis(1_500) {
            let now = START + start.elapsed().as_millis() as u64;
            let at = gate.gates(7);
            judged += 1;
            admitted += u64::from(match limiter.check(7, now, at) {
                Verdict::Admitted => true,
                Verdict::Refused(_) => {
                    tokio::task::yield_now().await;
                    false
                }
                Verdict::Ask(question) => match gate.take("test", 7, question).await {
                    Some(lot) => limiter.heard(7, now, at, lot).is_ok(),
                    None => limiter.alone(7, now, at).is_ok(),
                },
            });
        }
        (admitted, judged)
    };
    let asks = sides.iter().cycle().take(40).map(ask);
    let outcomes = futures_util::future::join_all(asks).await;
    let (admitted, judged) = outcomes.into_iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let limit = 400.0 + 100.0 * start.elapsed().as_secs_f64();
    assert!(admitted as f64 <= limit * 1.05 && admitted as f64 >= limit * 0.9, "{admitted} of {limit}");
    let asked: u64 = sides.iter().map(|(gate, _)| gate.counts().asked).sum();
    assert!(asked < judged / 10, "{asked} of {judged}");
}
