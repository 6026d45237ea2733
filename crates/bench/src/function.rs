//! The purchase function on Redis alone: one purchase a call, nothing behind it. What a gate's rate is compared with.

use std::time::{Duration, Instant};

use admission::redis::{DECIDE, FUNCTIONS, REBUILD, Rebuild, add_command, clock_argument, keys};
use admission::{Command, Core, Guards, PurchaseRequest, Wish};
use anyhow::{Context as _, ensure};
use chain::PrivatePart;
use cluster::{ClusterOptions, RedisOptions};
use domain::clock::SystemClock;
use domain::record::Created;
use domain::{ChainTime, Clock as _, Pseudonym, PurchaseId, Record, SaleOrdinal};
use redis::aio::MultiplexedConnection;

use crate::deployment::{Shape, definition};
use crate::http_figures::{MEASURE_MILLISECONDS, STOCK, WARM_UP_MILLISECONDS};

const CONNECTIONS: usize = 64;
/// Nobody brings these decisions to a chain.
const UNCOMMITTED_MAX: u64 = 100_000_000;

/// Purchases a second that the function decides, each in a call of its own, over 64 connections.
pub(crate) fn per_second(options: &ClusterOptions, sale: &str) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let keys = keys(&format!("{}/{sale}", options.store.name));
        let mut first = master(&options.redis, &keys).await?;
        load(&mut first, &keys, sale).await?;
        let mut connections = vec![first];
        while connections.len() < CONNECTIONS {
            connections.push(master(&options.redis, &keys).await?);
        }
        let begins_at = Instant::now() + Duration::from_millis(WARM_UP_MILLISECONDS);
        let ends_at = begins_at + Duration::from_millis(MEASURE_MILLISECONDS);
        let local = tokio::task::LocalSet::new();
        let counted = local.run_until(async {
            let buyers: Vec<_> = connections
                .into_iter()
                .enumerate()
                .map(|(number, connection)| {
                    tokio::task::spawn_local(buy(connection, keys.clone(), number, (begins_at, ends_at)))
                })
                .collect();
            let mut counted = 0;
            for buyer in buyers {
                counted += buyer.await??;
            }
            anyhow::Ok(counted)
        });
        let counted = counted.await?;
        // So that the next sale finds memory.
        unlink(options, sale).await?;
        Ok(counted as f64 / (MEASURE_MILLISECONDS as f64 / 1_000.0))
    })
}

/// Removes what the sales of a bench have in Redis.
pub(crate) fn remove(options: &ClusterOptions, sales: &[&str]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for sale in sales {
            unlink(options, sale).await?;
        }
        Ok(())
    })
}

async fn unlink(options: &ClusterOptions, sale: &str) -> anyhow::Result<()> {
    let keys = keys(&format!("{}/{sale}", options.store.name));
    let mut connection = master(&options.redis, &keys).await?;
    redis::cmd("UNLINK").arg(&keys).query_async::<u64>(&mut connection).await?;
    Ok(())
}

/// A connection to the server that has the keys.
async fn master(options: &RedisOptions, keys: &[String; 8]) -> anyhow::Result<MultiplexedConnection> {
    for address in &options.addresses {
        let client = redis::Client::open(options.info(address, true)?)?;
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { continue };
        let role: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        let known: redis::RedisResult<u64> = redis::cmd("EXISTS").arg(&keys[0]).query_async(&mut connection).await;
        if known.is_ok() && role.contains("role:master") {
            return Ok(connection);
        }
    }
    anyhow::bail!("no Redis server has the sale")
}

/// A sale that has just been created and opened.
async fn load(connection: &mut MultiplexedConnection, keys: &[String; 8], sale: &str) -> anyhow::Result<()> {
    let now = SystemClock::new().wall_milliseconds();
    let definition = definition(&Shape::of(STOCK), now);
    let created = Created {
        ordinal: SaleOrdinal(1),
        slot_commitment: [0; 32],
        pseudonym_commitment: [0; 32],
        signing_key: [0; 32],
        definition: serde_json::to_vec(&domain::SaleDefinition { sale: sale.to_owned(), ..definition.clone() })?,
    };
    let mut core = Core::new(definition, Guards::ON);
    core.advance(ChainTime(now));
    core.emit(Record::Created(Box::new(created)), &mut Vec::new());
    core.emit(Record::Epoch(1), &mut Vec::new());
    let mut functions = redis::cmd("FUNCTION");
    functions.arg("LOAD").arg("REPLACE").arg(FUNCTIONS);
    functions.query_async::<String>(connection).await.context("the library cannot be loaded")?;
    let rebuild = Rebuild { core: &core, uncommitted_max: UNCOMMITTED_MAX, touched: None };
    for step in rebuild.steps() {
        let mut call = redis::cmd("FCALL");
        call.arg(REBUILD).arg(keys.len()).arg(keys).arg(step);
        call.query_async::<u64>(connection).await?;
    }
    Ok(())
}

async fn buy(
    mut connection: MultiplexedConnection,
    keys: [String; 8],
    number: usize,
    (begins_at, ends_at): (Instant, Instant),
) -> anyhow::Result<u64> {
    let clock = SystemClock::new();
    let (mut counted, mut sent) = (0, 0_u64);
    loop {
        sent += 1;
        let now = ChainTime(clock.wall_milliseconds());
        let mut arguments = vec![clock_argument(now)];
        let part = PrivatePart { commitment: [1; 32], sealed: vec![2; 64] };
        add_command(&mut arguments, &Command::Purchase(request(number, sent, now)), Some(&part));
        let mut call = redis::cmd("FCALL");
        call.arg(DECIDE).arg(keys.len()).arg(&keys).arg(&arguments);
        let reply: Vec<redis::Value> = call.query_async(&mut connection).await?;
        let decided = format!("{:?}", reply.get(1));
        ensure!(decided.contains("changed") || decided.contains("[99, 104"), "a purchase was not granted: {decided}");
        let now = Instant::now();
        if now >= ends_at {
            return Ok(counted);
        }
        counted += u64::from(now >= begins_at);
    }
}

fn request(number: usize, sent: u64, now: ChainTime) -> PurchaseRequest {
    let mut customer = [0; 16];
    customer[..8].copy_from_slice(&(number as u64).to_le_bytes());
    customer[8..].copy_from_slice(&sent.to_le_bytes());
    let mut purchase = [0; 12];
    purchase.copy_from_slice(&customer[4..]);
    PurchaseRequest {
        wish: Wish {
            customer: Pseudonym(customer),
            item: 0,
            quantity: 1,
            coupon: 0,
            pass: sent,
            pass_expires_at: now.plus(3_600_000),
            slot_offset: 0,
        },
        purchase: PurchaseId(purchase),
        key_hash: customer,
        body_hash: customer,
    }
}
