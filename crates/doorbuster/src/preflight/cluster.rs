//! The servers of a cluster before a sale: refused where they would forget what they have said, or where their clocks disagree with ours.
//!
//! The stream and the vault are opened as the engine opens them, and made where they are missing; nothing else is written anywhere.

use std::sync::Arc;

use cluster::{ClockReading, ClusterOptions, RedisTold, StoreOptions};
use domain::clock::SystemClock;
use domain::{ChainTime, Clock};
use engine::ClusterSettings;
use ledger::vault::{DeploymentKeys, PostgresOptions, PostgresVault, VaultStore as _};
use stream::monitor::Monitored;
use tokio::runtime::Builder;

use super::{Check, keeper};
use crate::cluster::REPLICAS_MIN;
use crate::config::Settings;

const REDIS_MAJOR_MIN: u32 = 7;
const APART_MILLISECONDS_MAX: u64 = 500;
const KEEP: &str = "noeviction";

/// Servers by their addresses, with what each told, or why it did not.
type Answers<T> = Vec<(String, Result<T, String>)>;

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let wanted = "settings that config/default.toml explains".to_owned();
    let refused = |found| vec![Check { name: "settings", ok: false, found, wanted: wanted.clone() }];
    let ClusterSettings { options, vault } = match settings.cluster_settings() {
        Ok(Some(settings)) => settings,
        Ok(None) => return Vec::new(),
        Err(error) => return refused(format!("{error:#}")),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refused(error.to_string()),
    };
    let system: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (vault, vault_id) = of_vault(&vault, Arc::clone(&system));
    let (redis, nats, stream) = runtime.block_on(async {
        let redis = cluster::survey(&options.redis, system.as_ref()).await;
        (redis, monitored(&options.store, system.as_ref()).await, stream(&options, vault_id).await)
    });
    let mut readings = readings_of("Redis", redis.as_deref().unwrap_or_default(), |told| Some(told.clock));
    readings.extend(readings_of("NATS", &nats, |(_, reading)| *reading));
    vec![of_redis(&redis), of_nats(&nats), stream, vault, clock(&readings)]
}

async fn monitored(options: &StoreOptions, clock: &dyn Clock) -> Answers<(Monitored, Option<ClockReading>)> {
    let mut answers = Vec::new();
    for monitor in &options.monitors {
        let before = clock.wall_milliseconds();
        let answer = stream::monitor::ask(monitor).await.map(|told| {
            let there = ChainTime::parse_rfc3339(&told.now);
            let reading =
                there.map(|ChainTime(there)| ClockReading { before, there, after: clock.wall_milliseconds() });
            (told, reading)
        });
        answers.push((monitor.clone(), answer));
    }
    answers
}

fn of_redis(answers: &Result<Answers<RedisTold>, String>) -> Check {
    let judged = match answers {
        Ok(answers) => judge(answers, faults_of_redis),
        Err(reason) => Err(reason.clone()),
    };
    let unseen = answers.iter().flatten().filter(|(_, told)| matches!(told, Ok(RedisTold { may_empty: None, .. })));
    let rights = match unseen.count() {
        0 => "the user may not empty them".to_owned(),
        unseen => format!("of {unseen} it cannot be seen whether the user may empty them"),
    };
    let good = |count| format!("{count}: {KEEP}, append-only, {rights}");
    check(
        "redis",
        judged.map(good),
        format!(
            "Redis {REDIS_MAJOR_MIN}.0 or newer with maxmemory-policy {KEEP} and appendonly yes in every server's redis.conf, and a user \
             without FLUSHALL and FLUSHDB (ACL SETUSER ... -flushall -flushdb): what Redis drops has to be rebuilt in the middle of the sale"
        ),
    )
}

fn faults_of_redis(told: &RedisTold) -> Vec<String> {
    let mut faults = Vec::new();
    let major = told.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < REDIS_MAJOR_MIN) {
        faults.push(format!("the version is {}", told.version));
    }
    if told.maxmemory_policy != KEEP {
        faults.push(format!("maxmemory-policy is {}", told.maxmemory_policy));
    }
    if !told.is_append_only {
        faults.push("appendonly is no".to_owned());
    }
    if told.may_empty == Some(true) {
        faults.push("the user may empty it".to_owned());
    }
    faults
}

fn of_nats(answers: &Answers<(Monitored, Option<ClockReading>)>) -> Check {
    let judged = if answers.is_empty() {
        Err("nats.monitors is empty, so nobody tells".to_owned())
    } else {
        judge(answers, |(told, _)| {
            let mut faults = Vec::new();
            if !told.is_recent() {
                faults.push(format!("the version is {}", told.version));
            }
            if !told.syncs_always() {
                faults.push("not every message is synced".to_owned());
            }
            faults
        })
    };
    check(
        "nats",
        judged.map(|count| format!("{count}: every message is synced")),
        "NATS 2.12.3 or newer with sync_interval: always in every server's jetstream section, and its monitoring address in nats.monitors: \
         what all servers have only in memory is gone with the power"
            .to_owned(),
    )
}

/// The stream as the engine has it: made if it is missing, refused if it is not fit, or another vault's.
async fn stream(options: &ClusterOptions, vault: Option<String>) -> Check {
    let (name, replicas) = (options.store.stream(), options.store.replicas);
    let found = match vault {
        None => Err(format!("{name}: not looked at, because only the vault tells whose it is")),
        Some(vault) => {
            // Whether the servers sync is checked above, with all of them and not only the first that does not.
            let options = StoreOptions { dangerous_unsynced: true, vault, ..options.store.clone() };
            match stream::Store::connect(&options).await {
                Err(error) => Err(error.to_string()),
                Ok(_) if replicas < REPLICAS_MIN => Err(format!("{name}: nats.replicas is {replicas}")),
                Ok(_) => Ok(format!("{name}: in files on {replicas} servers, and nothing in it is dropped")),
            }
        }
    };
    check(
        "stream",
        found,
        format!(
            "a stream on at least {REPLICAS_MIN} servers, with file storage, limits retention and no max_age; `nats stream edit` mends one \
             that is there, and one that is missing is made: the chains in it are the only copy of the sales"
        ),
    )
}

/// The vault as the engine has it, and what tells it from others.
fn of_vault(options: &PostgresOptions, clock: Arc<dyn Clock>) -> (Check, Option<String>) {
    let opened = PostgresVault::open(options, clock).and_then(|mut vault| vault.deployment_keys());
    let id = opened.as_ref().ok().map(DeploymentKeys::vault_id);
    let found = opened.map(|_| format!("{}/{}: every commit is synced", options.address, options.database));
    let check = check(
        "vault",
        found.map_err(|error| format!("{}: {error}", options.address)),
        "a PostgreSQL that answers at postgres.addresses, takes the user into the database, and has fsync and synchronous_commit on: \
         without the vault nobody can be told from anybody"
            .to_owned(),
    );
    (check, id)
}

/// By the servers' clocks: whether the kernel believes that its own is kept is nothing that a process can ask without unsafe code.
fn clock(readings: &[(String, ClockReading)]) -> Check {
    let apart = |reading: &ClockReading| reading.ahead().unsigned_abs();
    let (kept, is_kept) = match keeper() {
        Some(keeper) => (format!("kept by {keeper}"), true),
        None => ("nobody seen who keeps it".to_owned(), false),
    };
    let found = match readings.iter().max_by_key(|(_, reading)| apart(reading)) {
        None if is_kept => Ok(format!("{kept}; no server tells the time to compare with")),
        None => Err(format!("{kept}, and no server tells the time to compare with")),
        Some((server, reading)) => {
            let compared = format!("{kept}; compared with the clocks of {} servers of Redis and NATS", readings.len());
            let side = if reading.ahead() < 0 { "behind" } else { "ahead" };
            let told = format!("{compared}, {server} is {} ms {side}", apart(reading));
            match apart(reading) {
                0 => Ok(format!("{compared}, no difference seen")),
                1..=APART_MILLISECONDS_MAX => Ok(told),
                _ => Err(told),
            }
        }
    };
    check(
        "clock",
        found,
        format!(
            "clocks at most {APART_MILLISECONDS_MAX} ms apart, kept by chronyd or systemd-timesyncd on this machine and on every server: \
             Redis decides by its clock when a sale opens and when a hold ends"
        ),
    )
}

fn readings_of<T>(
    kind: &str,
    answers: &[(String, Result<T, String>)],
    reading: impl Fn(&T) -> Option<ClockReading>,
) -> Vec<(String, ClockReading)> {
    let told = answers.iter().filter_map(|(address, told)| Some((address, reading(told.as_ref().ok()?)?)));
    told.map(|(address, reading)| (format!("{kind} at {address}"), reading)).collect()
}

/// How many servers are without a fault; or what is wrong with each. One that is away forgets nothing, but is named; if all are, that is
/// wrong.
fn judge<T>(answers: &Answers<T>, faults: impl Fn(&T) -> Vec<String>) -> Result<String, String> {
    let (mut wrong, mut away, mut well) = (Vec::new(), Vec::new(), 0);
    for (address, told) in answers {
        match told.as_ref().map(&faults) {
            Ok(faults) if faults.is_empty() => well += 1,
            Ok(faults) => wrong.push(format!("{address}: {}", faults.join(", "))),
            Err(reason) => away.push(format!("{address}: {reason}")),
        }
    }
    if !wrong.is_empty() || well == 0 {
        wrong.append(&mut away);
        return Err(wrong.join("; "));
    }
    let silent = if away.is_empty() { String::new() } else { format!(" (away: {})", away.join("; ")) };
    Ok(format!("{well} of {} servers{silent}", answers.len()))
}

fn check(name: &'static str, found: Result<String, String>, wanted: String) -> Check {
    Check { name, ok: found.is_ok(), found: found.unwrap_or_else(|reason| reason), wanted }
}
