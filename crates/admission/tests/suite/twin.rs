//! The core and its twin on Redis, asked the same things at the same times: every verdict and every record is the same, and in the end
//! the whole state. A real Redis, started and ended by the test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use admission::core::Verdict;
use admission::redis::{
    CLOCK, DECIDE, Decided, FENCED, FUNCTIONS, Image, Kept, OUTBOX, REBUILD, Rebuild, STALE, STANDING, TICK,
    add_command, add_credit, clock_argument, outbox_arguments, tick_arguments,
};
use admission::{Command, Core, Guards, Request, redis as twin};
use chain::PrivatePart;
use domain::record::{Created, PauseReason, Record};
use domain::{ChainTime, PaymentFact, PurchaseNumber, SaleDefinition, SaleOrdinal};
use fastrand::Rng;

use crate::counter::{OPENS_AT, coupon, customer, definition, parked, request, wish};

const SEEDS: u64 = 60;
const STEPS: usize = 400;
const SECRET: [u8; 32] = [6; 32];
const EXPIRIES_MAX: usize = 3;
const UNCOMMITTED_MAX: u64 = 1_000_000;

/// Where the library reads the server's clock. These tests choose times, so it believes its caller there.
const CLOCK_OF_THE_SERVER: &str = "local time = redis.call('TIME')";

type Replies = (u64, Vec<(String, u64, u64, u64)>);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A Redis of this test's own on a local socket, gone with the test.
struct Redis {
    server: Child,
    folder: PathBuf,
    connection: redis::Connection,
}

impl Redis {
    fn start() -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("doorbuster-twin-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("redis.sock");
        let server = Process::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian: apt-get install redis-server) is started through setpriv");
        let client = redis::Client::open(format!("unix://{}", socket.display())).unwrap();
        let start = std::time::Instant::now();
        let connection = loop {
            match client.get_connection() {
                Ok(connection) => break connection,
                Err(error) if start.elapsed().as_secs() > 20 => panic!("Redis does not answer: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut redis = Self { server, folder, connection };
        redis.load(&FUNCTIONS.replace(CLOCK_OF_THE_SERVER, "if true then return callers end"));
        redis
    }

    fn load(&mut self, functions: &str) {
        let loaded: String =
            redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(functions).query(&mut self.connection).unwrap();
        assert_eq!(loaded, "doorbuster");
    }

    fn call<T: redis::FromRedisValue>(&mut self, function: &str, keys: &[String], arguments: &[Vec<u8>]) -> T {
        redis::cmd("FCALL")
            .arg(function)
            .arg(keys.len())
            .arg(keys)
            .arg(arguments)
            .query(&mut self.connection)
            .unwrap_or_else(|error| panic!("{function}: {error}"))
    }

    /// Runs a rebuild's steps, up to and without the last `left_out`.
    fn rebuild(&mut self, keys: &[String], rebuild: &Rebuild<'_>, left_out: usize) -> redis::RedisResult<()> {
        let steps: Vec<_> = rebuild.steps().collect();
        steps[..steps.len() - left_out].iter().try_for_each(|step| {
            redis::cmd("FCALL").arg(REBUILD).arg(keys.len()).arg(keys).arg(step).query(&mut self.connection)
        })
    }

    /// Epoch, number of the first entry, number of the next record, entries.
    fn outbox(&mut self, keys: &[String], records_max: usize, committed: u64) -> (u64, u64, u64, Vec<Vec<u8>>) {
        self.call(OUTBOX, keys, &outbox_arguments(records_max, committed))
    }

    /// The server's clock.
    fn milliseconds(&mut self) -> u64 {
        let (seconds, microseconds): (u64, u64) = redis::cmd("TIME").query(&mut self.connection).unwrap();
        seconds * 1_000 + microseconds / 1_000
    }

    fn hash(&mut self, key: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        redis::cmd("HGETALL").arg(key).query(&mut self.connection).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn sale(random: &mut Rng) -> SaleDefinition {
    let mut definition = definition(random.u32(0..6));
    definition.opens_at = ChainTime(OPENS_AT + 1_000);
    definition.closes_at = ChainTime(OPENS_AT + random.u64(20_000..200_000));
    definition.items[1].stock = random.u32(0..6);
    definition.items[0].limit_per_customer = random.u32(1..5);
    definition.limit_per_customer = random.u32(1..6);
    definition.grants_per_pass_max = random.u32(1..4);
    definition.grants_per_customer_max = random.u32(1..8);
    definition.hold_seconds = random.u64(1..20);
    definition.spread_milliseconds = 5_000;
    definition.settle_after_seconds = 10;
    definition.unpaid_releases_max = random.u32(1..6);
    definition.hold_extension_seconds = random.u64(0..20);
    definition.coupons = (7..9).map(|hash| coupon(hash, random.u8(1..=100), random.u32(1..3))).collect();
    definition
}

fn command(random: &mut Rng, clock: u64) -> Command {
    let number = PurchaseNumber(random.u32(0..14));
    match random.u32(0..33) {
        24.. => payment(random, number),
        0..13 => {
            let mut wish = wish(random.u32(0..4), random.u32(1..4));
            wish.item = random.u16(0..2);
            wish.pass = random.u64(0..3) + (random.u64(0..2) << 40);
            wish.slot_offset = random.u32(0..3) * 1_500;
            wish.pass_expires_at = match random.u32(0..6) {
                0 => ChainTime(clock + random.u64(0..2)),
                _ => ChainTime(OPENS_AT + 30_000 * (random.u64(0..4) + 1)),
            };
            wish.coupon = if random.u32(0..4) == 0 { random.u64(7..10) } else { 0 };
            Command::Purchase(request(wish, random.u32(0..6)))
        }
        13..16 => Command::Cancel { number, customer: random.bool().then(|| customer(random.u32(0..4))) },
        16..20 => Command::Confirm { number },
        20 => Command::Pause(if random.bool() { PauseReason::Operator } else { PauseReason::Drift }),
        21 => Command::Resume,
        22 => {
            let change = if random.u32(0..8) == 0 { i64::MAX } else { random.i64(-3..4) };
            Command::ChangeStock { item: random.u16(0..3), change }
        }
        _ => match random.u32(0..6) {
            0 => Command::Close,
            1..3 => Command::Settle,
            _ => Command::Resume,
        },
    }
}

fn payment(random: &mut Rng, number: PurchaseNumber) -> Command {
    let attempt = random.u8(0..3);
    let fact = if random.bool() { PaymentFact::Paid } else { PaymentFact::Ended };
    match random.u32(0..10) {
        0..4 => Command::BeginPayment { number, customer: random.bool().then(|| customer(random.u32(0..4))) },
        4..7 => Command::ReportPayment { number, attempt, fact },
        7 if random.bool() => Command::NamePayment { number, attempt, reference: vec![b'p'; random.usize(1..65)] },
        7 => Command::OrderRefund { number },
        8 => Command::NoteRefund { number, attempt },
        _ => Command::ParkPayment { number, parked: Box::new(parked(random.u64(0..20), random.u8(1..5))) },
    }
}

fn part(random: &mut Rng) -> Option<PrivatePart> {
    let part = PrivatePart { commitment: [random.u8(..); 32], sealed: vec![random.u8(..); random.usize(28..60)] };
    random.bool().then_some(part)
}

fn decide(redis: &mut Redis, keys: &[String; 8], arguments: &[Vec<u8>]) -> redis::RedisResult<Replies> {
    let mut call = redis::cmd("FCALL");
    let reply: Vec<redis::Value> = call.arg(DECIDE).arg(8).arg(keys).arg(arguments).query(&mut redis.connection)?;
    let mut reply = reply.into_iter();
    let epoch = redis::from_redis_value(reply.next().unwrap())?;
    let replies = reply.map(redis::from_redis_value).collect::<Result<_, _>>()?;
    Ok((epoch, replies))
}

/// One sale decided twice.
struct Pair<'a> {
    redis: &'a mut Redis,
    keys: [String; 8],
    core: Core,
    records: Vec<Record>,
    /// Of the outbox's entries, so many were compared.
    compared: usize,
}

impl Pair<'_> {
    /// Some commands in one call.
    fn decide(&mut self, clock: ChainTime, commands: &[(Command, Option<PrivatePart>)]) {
        self.core.advance(clock);
        self.core.turn_window(&mut self.records);
        let mut arguments = vec![clock_argument(clock)];
        let asked: Vec<_> =
            commands.iter().map(|(command, part)| Request::Decide(command.clone(), part.clone())).collect();
        let (mut expected, mut parts) = (Vec::new(), vec![None; self.records.len()]);
        for (command, private) in commands {
            add_command(&mut arguments, command, private.as_ref());
            let before = self.records.len();
            let verdict = self.core.decide(command, &mut self.records);
            expected.push((verdict, self.core.state().next));
            let held = self.records.len() > before && matches!(self.records.last(), Some(Record::Held(_)));
            parts.resize(self.records.len(), None);
            if held {
                parts[before].clone_from(private);
            }
        }
        let read_back = twin::requests(&arguments).unwrap();
        for (read, asked) in read_back.iter().zip(&asked) {
            let bounded = matches!(asked, Request::Decide(Command::ChangeStock { change: i64::MAX, .. }, _));
            let without_part = matches!(read, Request::Decide(_, None));
            assert!(bounded || without_part || format!("{read:?}") == format!("{asked:?}"), "{read:?} {asked:?}");
        }
        assert_eq!(read_back.len(), asked.len());
        assert_eq!(self.twin_decides(&arguments), expected, "{commands:?}");
        self.compare_records(&parts);
    }

    fn twin_decides(&mut self, arguments: &[Vec<u8>]) -> Vec<(Verdict, u64)> {
        let (epoch, replies): Replies = decide(self.redis, &self.keys, arguments).unwrap();
        assert_eq!(epoch, 1);
        let verdict = |(what, number, retry_at, next): (String, u64, u64, u64)| {
            (twin::verdict(&what, number, retry_at).unwrap_or_else(|| panic!("{what} {number}")), next)
        };
        replies.into_iter().map(verdict).collect()
    }

    fn credit(&mut self, clock: ChainTime, milliseconds: u64) {
        self.core.advance(clock);
        self.core.turn_window(&mut self.records);
        self.core.emit(Record::ClockCredit(milliseconds), &mut self.records);
        let mut arguments = vec![clock_argument(clock)];
        add_credit(&mut arguments, milliseconds);
        assert_eq!(self.twin_decides(&arguments)[0].0, Verdict::Sale);
        self.compare_records(&[]);
    }

    fn tick(&mut self, clock: ChainTime) {
        self.core.advance(clock);
        self.core.turn_window(&mut self.records);
        self.core.expire(EXPIRIES_MAX, &mut self.records);
        self.core.finish(SECRET, &mut self.records);
        let _: u64 = self.redis.call(TICK, &self.keys, &tick_arguments(clock, EXPIRIES_MAX, &SECRET, false));
        self.compare_records(&[]);
    }

    /// What was decided since the last look, byte for byte, each record with its private part.
    fn compare_records(&mut self, parts: &[Option<PrivatePart>]) {
        let entries: Vec<Vec<u8>> = redis::cmd("LRANGE")
            .arg(&self.keys[6])
            .arg(self.compared)
            .arg(-1)
            .query(&mut self.redis.connection)
            .unwrap();
        let expected = self.records.split_off(0);
        assert_eq!(entries.len(), expected.len(), "{expected:?}");
        for (index, (entry, record)) in entries.iter().zip(&expected).enumerate() {
            let decided = Decided::parse(entry).unwrap();
            let mut public = Vec::new();
            chain::codec::encode(record, &mut public);
            assert_eq!((decided.time, decided.kind), (self.core.now(), record.kind() as u8), "{record:?}");
            assert_eq!(decided.public, public, "{record:?}");
            let part = parts.get(index).and_then(Option::as_ref);
            let part = part.map_or(Vec::new(), |part| [&part.commitment[..], &part.sealed].concat());
            assert_eq!(decided.private, part, "{record:?}");
        }
        self.compared += entries.len();
    }

    fn compare_state(&mut self) {
        // Everything counts as chained, so that only the decisions are compared.
        let next = self.core.state().next;
        let committed = self.redis.outbox(&self.keys, 0, next).1;
        assert_eq!(committed, next);
        let standing: (u64, u64, u64, Vec<Vec<u8>>) = self.redis.call(STANDING, &self.keys, &[]);
        assert_eq!(standing, twin::standing(&self.core));
        let image = Image::of(&self.core, UNCOMMITTED_MAX);
        let state: Vec<u8> = redis::cmd("GET").arg(&self.keys[0]).query(&mut self.redis.connection).unwrap();
        assert_eq!(state, image.state);
        let core = &self.core;
        assert_eq!(Kept::parse(&state), Some(Kept { epoch: core.epoch(), next: core.next(), committed: core.next() }));
        for (key, fields) in self.keys[1..].iter().zip(image.hashes) {
            let expected: BTreeMap<_, _> = fields.into_iter().collect();
            assert_eq!(self.redis.hash(key), expected, "{key}");
        }
    }
}

/// A core that has just been created, and the same sale on Redis.
fn create<'a>(definition: &SaleDefinition, redis: &'a mut Redis, name: &str, uncommitted_max: u64) -> Pair<'a> {
    definition.validate().unwrap();
    let mut core = Core::new(definition.clone(), Guards::ON);
    core.advance(ChainTime(OPENS_AT));
    let created = Created {
        ordinal: SaleOrdinal(1),
        slot_commitment: [0; 32],
        pseudonym_commitment: [0; 32],
        signing_key: [0; 32],
        definition: serde_json::to_vec(definition).unwrap(),
    };
    core.emit(Record::Created(Box::new(created)), &mut Vec::new());
    core.emit(Record::Epoch(1), &mut Vec::new());
    let keys = twin::keys(name);
    redis.rebuild(&keys, &Rebuild { core: &core, uncommitted_max, touched: None }, 0).unwrap();
    Pair { redis, keys, core, records: Vec::new(), compared: 0 }
}

fn run(seed: u64, redis: &mut Redis) {
    let mut random = Rng::with_seed(seed);
    let definition = sale(&mut random);
    let mut pair = create(&definition, redis, &format!("drop-{seed}"), UNCOMMITTED_MAX);
    let mut clock = OPENS_AT;
    for _ in 0..STEPS {
        clock = clock.saturating_add_signed(match random.u32(0..10) {
            0 => random.i64(-3_000..0),
            1 => random.i64(0..9_000),
            _ => random.i64(0..300),
        });
        // Deadlines, to the millisecond and one beside it.
        if let Some(event) = pair.core.next_event_at().filter(|event| event.0 > clock && random.u32(0..6) == 0) {
            clock = event.0 - random.u64(0..2);
        }
        match random.u32(0..10) {
            0..2 => pair.tick(ChainTime(clock)),
            2 if random.u32(0..4) == 0 => pair.credit(ChainTime(clock), random.u64(1..5_000)),
            _ => {
                let commands: Vec<_> =
                    (0..random.usize(1..5)).map(|_| (command(&mut random, clock), part(&mut random))).collect();
                pair.decide(ChainTime(clock), &commands);
            }
        }
    }
    pair.compare_state();
}

/// Fails the whole test with its seed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the twins differ with seed {}", self.0);
        }
    }
}

#[test]
fn the_core_and_its_twin_on_redis_decide_alike() {
    let mut redis = Redis::start();
    for seed in 0..SEEDS {
        let _seed = Seed(seed);
        run(seed, &mut redis);
    }
}

fn ask(redis: &mut Redis, keys: &[String; 8], who: u32) -> redis::RedisResult<(Verdict, u64)> {
    let mut arguments = vec![clock_argument(ChainTime(OPENS_AT))];
    add_command(&mut arguments, &Command::Purchase(request(wish(who, 1), 1)), None);
    let (what, number, retry_at, next) = decide(redis, keys, &arguments)?.1.remove(0);
    Ok((twin::verdict(&what, number, retry_at).unwrap(), next))
}

#[test]
fn a_server_that_was_not_admitted_decides_nothing() {
    let mut redis = Redis::start();
    let pair = create(&definition(5), &mut redis, "drop", UNCOMMITTED_MAX);
    let keys = pair.keys.clone();
    assert!(matches!(ask(&mut redis, &keys, 1).unwrap().0, Verdict::Changed(_)));
    let before = redis.hash(&keys[3]);
    // The data of another process: copied, restored or replicated.
    redis::cmd("SET").arg(&keys[7]).arg("0".repeat(40)).query::<()>(&mut redis.connection).unwrap();
    let refused = ask(&mut redis, &keys, 2).unwrap_err();
    assert_eq!(refused.code(), Some(FENCED), "{refused}");
    assert_eq!(redis.hash(&keys[3]), before, "nothing was decided");
    // Admitted by nobody at all.
    redis::cmd("DEL").arg(&keys[7]).query::<()>(&mut redis.connection).unwrap();
    assert_eq!(ask(&mut redis, &keys, 1).unwrap_err().code(), Some(FENCED));
    // Emptied.
    redis::cmd("FLUSHALL").query::<()>(&mut redis.connection).unwrap();
    assert_eq!(ask(&mut redis, &keys, 1).unwrap_err().code(), Some(FENCED));
}

#[test]
fn clocks_that_are_seconds_apart_decide_nothing() {
    let mut redis = Redis::start();
    let pair = create(&definition(5), &mut redis, "drop", UNCOMMITTED_MAX);
    let keys = pair.keys.clone();
    redis.load(FUNCTIONS);
    // The test's clock is far from the server's.
    assert_eq!(ask(&mut redis, &keys, 1).unwrap_err().code(), Some(CLOCK));
    let mut arguments = vec![clock_argument(ChainTime(redis.milliseconds()))];
    add_command(&mut arguments, &Command::Resume, None);
    assert_eq!(decide(&mut redis, &keys, &arguments).unwrap().1[0].0, "sale");
    assert_eq!(redis.outbox(&keys, 10, 0).3.len(), 1, "it opened");
}

#[test]
fn rebuilds_do_not_mix() {
    let mut redis = Redis::start();
    let mut pair = create(&definition(5), &mut redis, "drop", UNCOMMITTED_MAX);
    let keys = pair.keys.clone();
    let older = Rebuild { core: &pair.core, uncommitted_max: UNCOMMITTED_MAX, touched: None };
    assert_eq!(pair.redis.rebuild(&keys, &older, 0).unwrap_err().code(), Some(STALE), "the epoch has been used");
    pair.core.emit(Record::Epoch(2), &mut Vec::new());
    let second = Rebuild { core: &pair.core, uncommitted_max: UNCOMMITTED_MAX, touched: None };
    pair.redis.rebuild(&keys, &second, 1).unwrap();
    assert_eq!(ask(pair.redis, &keys, 1).unwrap_err().code(), Some(FENCED), "not before the last step");
    let last = second.steps().last().unwrap();
    pair.core.emit(Record::Epoch(3), &mut Vec::new());
    let third = Rebuild { core: &pair.core, uncommitted_max: UNCOMMITTED_MAX, touched: None };
    pair.redis.rebuild(&keys, &third, 1).unwrap();
    let late = redis::cmd("FCALL").arg(REBUILD).arg(8).arg(&keys).arg(last).query::<()>(&mut pair.redis.connection);
    assert_eq!(late.unwrap_err().code(), Some(STALE), "what an older rebuild still sends is refused");
    let last = third.steps().last().unwrap();
    redis::cmd("FCALL").arg(REBUILD).arg(8).arg(&keys).arg(last).query::<()>(&mut pair.redis.connection).unwrap();
    assert!(matches!(ask(pair.redis, &keys, 1).unwrap().0, Verdict::Changed(_)));
}

#[test]
fn a_repair_gives_the_same_state_as_a_full_rebuild() {
    let mut redis = Redis::start();
    for seed in 0..20 {
        let _seed = Seed(seed);
        let mut random = Rng::with_seed(seed);
        let definition = sale(&mut random);
        let mut pair = create(&definition, &mut redis, &format!("repair-{seed}"), UNCOMMITTED_MAX);
        let clock = ChainTime(OPENS_AT + 10_000);
        for _ in 0..60 {
            pair.decide(clock, &[(command(&mut random, clock.0), None)]);
        }
        let seen = pair.core.next();
        // What the chain has and this server never heard of.
        let mut missed = Vec::new();
        for _ in 0..30 {
            pair.core.decide(&command(&mut random, clock.0), &mut missed);
        }
        pair.core.emit(Record::Epoch(2), &mut missed);
        let touched = missed.iter().filter_map(Record::grant).collect();
        let repair =
            |next| Rebuild { core: &pair.core, uncommitted_max: UNCOMMITTED_MAX, touched: Some((&touched, next)) };
        let moved = pair.redis.rebuild(&pair.keys, &repair(seen + 1), 0).unwrap_err();
        assert_eq!(moved.code(), Some(STALE), "it stands elsewhere than was seen");
        pair.redis.rebuild(&pair.keys, &repair(seen), 0).unwrap();
        pair.compare_state();
    }
}

#[test]
fn redis_runs_no_further_ahead_of_the_chain_than_it_may_and_winners_are_answered_meanwhile() {
    let mut redis = Redis::start();
    let pair = create(&definition(50), &mut redis, "drop", 4);
    let keys = pair.keys.clone();
    let ask = |redis: &mut Redis, who: u32| ask(redis, &keys, who).unwrap();
    // Two records stand in the chain; the opening and three grants are one too few to be refused, the fourth grant is not.
    for who in 0..3 {
        assert!(matches!(ask(&mut redis, who).0, Verdict::Changed(_)));
    }
    let (refused, next) = ask(&mut redis, 3);
    assert_eq!((refused, next), (Verdict::Refused(domain::Refusal::Overloaded, None), 6));
    assert_eq!(ask(&mut redis, 2).0, Verdict::Unchanged(PurchaseNumber(2)), "a winner asks again");
    // The chain has come to record 4.
    let (epoch, first, next, entries) = redis.outbox(&keys, 1, 4);
    assert_eq!((epoch, first, next, entries.len()), (1, 4, 6, 1));
    assert_eq!(redis.outbox(&keys, 10, 0).3.len(), 2, "records 4 and 5");
    assert!(matches!(ask(&mut redis, 3).0, Verdict::Changed(_)));
    // An older note changes nothing, and one beyond the last record is no licence.
    assert_eq!(redis.outbox(&keys, 0, 3).1, 4);
    assert_eq!(redis.outbox(&keys, 0, 100).1, 7);
}
