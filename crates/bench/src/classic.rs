//! The way of the article, and of most shops: a lock in Redis, a look at the stock, a decrement, a message for the queue. Kept to be
//! measured, and to show what is gone when a process dies between two of its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream;
use cluster::{ClusterOptions, Login};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::process::{Helper, Job};

const STOCK: u64 = 50_000_000;
const BUYERS: usize = 64;
const SECONDS: u64 = 3;
/// How often a process of buyers dies, each time after so many sales, between the decrement and the message.
const DEATHS: u64 = 10;
const SALES_BEFORE_DEATH: u64 = 100;
/// The lock ends by itself after so long, which is what a dead buyer costs everybody.
const LOCK_MILLISECONDS: u64 = 1_000;
const RETRY: Duration = Duration::from_micros(500);

/// What a process of buyers needs.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ClassicJob {
    redis: (String, String, String),
    nats: (Vec<String>, String, String),
    tag: String,
    /// After so many sales the process dies between two steps.
    dies_after: Option<u64>,
}

/// The rate of the classic way, and the units that it lost to some kills.
pub(crate) fn measure(options: &ClusterOptions, progress: fn(&str)) -> anyhow::Result<Map<String, Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tag = format!("doorbuster:{{{}/classic}}", options.store.name);
    let (address, mut redis) = runtime.block_on(server_of(options, &tag))?;
    let job = ClassicJob {
        redis: (address, options.redis.user.clone(), options.redis.password.clone()),
        nats: (options.store.servers.clone(), options.store.login.user.clone(), options.store.login.password.clone()),
        tag: tag.clone(),
        dies_after: None,
    };
    runtime.block_on(async {
        redis::cmd("SET").arg(format!("{tag}:stock")).arg(STOCK).query_async::<()>(&mut redis).await
    })?;
    let stream = runtime.block_on(stream(&job))?;
    let helper = Helper::start(&Job::Classic(job.clone()))?;
    std::thread::sleep(Duration::from_secs(1));
    let sold = || runtime.block_on(taken(redis.clone(), &tag));
    let (start, before) = (Instant::now(), sold()?);
    std::thread::sleep(Duration::from_secs(SECONDS));
    let per_second = (sold()? - before) as f64 / start.elapsed().as_secs_f64();
    progress(&format!("classic: {per_second:.0} sold a second"));
    drop(helper);
    let start = Instant::now();
    for _ in 0..DEATHS {
        let dying = Helper::start(&Job::Classic(ClassicJob { dies_after: Some(SALES_BEFORE_DEATH), ..job.clone() }))?;
        // It dies by itself; that is no error here.
        drop(dying.finish());
    }
    let seconds = start.elapsed().as_secs_f64();
    // Whatever was sent has arrived by then.
    std::thread::sleep(Duration::from_secs(1));
    let (sold, queued) = (sold()?, runtime.block_on(messages(stream))?);
    let lost = sold.saturating_sub(queued);
    progress(&format!(
        "classic: after {DEATHS} deaths in {seconds:.0} s {sold} units are gone from the stock, {queued} orders are in the queue"
    ));
    Ok([
        ("classic_per_s".to_owned(), json!(per_second)),
        ("classic_deaths".to_owned(), json!(DEATHS)),
        ("classic_units_sold".to_owned(), json!(sold)),
        ("classic_orders_queued".to_owned(), json!(queued)),
        ("classic_units_lost".to_owned(), json!(lost)),
    ]
    .into_iter()
    .collect())
}

async fn taken(mut redis: MultiplexedConnection, tag: &str) -> anyhow::Result<u64> {
    let left: u64 = redis::cmd("GET").arg(format!("{tag}:stock")).query_async(&mut redis).await?;
    Ok(STOCK - left)
}

async fn server_of(options: &ClusterOptions, tag: &str) -> anyhow::Result<(String, MultiplexedConnection)> {
    for address in &options.redis.addresses {
        let client = redis::Client::open(options.redis.info(address, true)?)?;
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { continue };
        let set: redis::RedisResult<String> =
            redis::cmd("SET").arg(format!("{tag}:stock")).arg(0).query_async(&mut connection).await;
        if set.is_ok() {
            return Ok((address.clone(), connection));
        }
    }
    anyhow::bail!("no Redis server takes the stock")
}

async fn context(job: &ClassicJob) -> anyhow::Result<jetstream::Context> {
    let (servers, user, password) = job.nats.clone();
    let Login { user, password } = Login { user, password };
    let client = async_nats::ConnectOptions::with_user_and_password(user, password).connect(servers).await?;
    Ok(jetstream::new(client))
}

fn subject(job: &ClassicJob) -> String {
    let name: String = job.tag.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("doorbuster.classic.{name}")
}

async fn stream(job: &ClassicJob) -> anyhow::Result<jetstream::stream::Stream> {
    let subject = subject(job);
    let config = jetstream::stream::Config {
        name: subject.replace('.', "_"),
        subjects: vec![subject],
        num_replicas: 3,
        ..jetstream::stream::Config::default()
    };
    context(job).await?.get_or_create_stream(config).await.context("the classic way has no queue")
}

async fn messages(mut stream: jetstream::stream::Stream) -> anyhow::Result<u64> {
    Ok(stream.info().await?.state.messages)
}

/// The process of the buyers: sells until it is killed.
pub(crate) fn buyers(job: &ClassicJob) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let context = context(job).await?;
        let (address, user, password) = &job.redis;
        let client = redis::Client::open(format!("redis://{user}:{password}@{address}/"))?;
        let sold = Arc::new(AtomicU64::new(0));
        let mut buyers = tokio::task::JoinSet::new();
        for _ in 0..BUYERS {
            let connection = client.get_multiplexed_async_connection().await?;
            let random = fastrand::Rng::with_seed(buyers.len() as u64 ^ u64::from(std::process::id()) << 32);
            buyers.spawn(buy(connection, context.clone(), job.clone(), Arc::clone(&sold), random));
        }
        while let Some(buyer) = buyers.join_next().await {
            buyer??;
        }
        Ok(())
    })
}

async fn buy(
    mut redis: MultiplexedConnection,
    context: jetstream::Context,
    job: ClassicJob,
    sold: Arc<AtomicU64>,
    mut random: fastrand::Rng,
) -> anyhow::Result<()> {
    let (lock, stock) = (format!("{}:lock", job.tag), format!("{}:stock", job.tag));
    loop {
        let own = random.u64(..);
        let mut take = redis::cmd("SET");
        take.arg(&lock).arg(own).arg("NX").arg("PX").arg(LOCK_MILLISECONDS);
        while take.query_async::<Option<String>>(&mut redis).await?.is_none() {
            tokio::time::sleep(RETRY).await;
        }
        let left: u64 = redis::cmd("GET").arg(&stock).query_async(&mut redis).await?;
        ensure!(left > 0, "the classic way is sold out");
        redis::cmd("DECR").arg(&stock).query_async::<u64>(&mut redis).await?;
        // Here the unit is gone, and nobody else knows.
        if job.dies_after.is_some_and(|sales| sold.fetch_add(1, Ordering::Relaxed) + 1 >= sales) {
            std::process::abort();
        }
        context.publish(subject(&job), "order".into()).await?.await?;
        let free = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
        redis::cmd("EVAL").arg(free).arg(1).arg(&lock).arg(own).query_async::<u64>(&mut redis).await?;
    }
}
