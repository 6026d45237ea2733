//! PostgreSQL as it would take the same orders: Debian's server in a private folder, on its own defaults, asked over a local socket.
//!
//! One round trip per order: a prepared statement that takes a unit where there is one and inserts the order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use serde_json::json;
use services::postgres::{self, Server};
use services::process::Life;
use tokio_postgres::NoTls;

use crate::Bench;
use crate::http_figures::{MEASURE_MILLISECONDS, WARM_UP_MILLISECONDS};
use crate::process::{Job, ask, pin};

const CONNECTIONS: [usize; 5] = [4, 8, 16, 32, 64];

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, stock bigint NOT NULL, price bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, item int NOT NULL, price bigint NOT NULL,
        customer text NOT NULL, key text NOT NULL, made_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO item VALUES (1, 1000000000, 4900) ON CONFLICT DO NOTHING;";

const PURCHASE: &str = "
    WITH taken AS (UPDATE item SET stock = stock - 1 WHERE id = 1 AND stock >= 1 RETURNING id, price)
    INSERT INTO orders (item, price, customer, key) SELECT id, price, $1, $2 FROM taken";

/// How to load the server.
#[derive(Serialize, Deserialize)]
pub(crate) struct PostgresJob {
    socket_folder: PathBuf,
    user: String,
    connections: usize,
    core: usize,
}

/// Orders a second of the best number of connections; everything is stopped and removed afterwards.
pub(crate) fn orders_per_second(bench: &mut Bench) -> anyhow::Result<f64> {
    let (server_core, client_core) = bench.machine.cores()?;
    bench.say("postgres: starting a server of its own");
    let server = start(&bench.workspace.at("postgres"), server_core)?;
    let mut rounds = Vec::new();
    for connections in CONNECTIONS {
        let job = PostgresJob {
            socket_folder: server.folder.clone(),
            user: server.user.clone(),
            connections,
            core: client_core,
        };
        let per_second: f64 = ask(&Job::Postgres(job))?;
        bench.say(&format!("postgres: {connections} connections: {per_second:.0} orders/s"));
        rounds.push((connections, per_second));
    }
    let best = rounds.iter().map(|(_, per_second)| *per_second).fold(0.0, f64::max);
    ensure!(best > 0.0, "PostgreSQL took no order");
    bench.figures.note("postgres_rounds", json!(rounds));
    bench.figures.note_number("postgres_per_s", best);
    Ok(best)
}

/// A server on its own defaults, kept on one core: its sessions are started from the pinned process, as the engine's threads are.
fn start(folder: &Path, core: usize) -> anyhow::Result<Server> {
    let server = postgres::start(Life::Ours, folder, None)?;
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(Pid::from_raw(server.process.id().cast_signed()), &set)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = connect(&server.folder, &server.user).await?;
        anyhow::Ok(client.batch_execute(TABLES).await?)
    })?;
    Ok(server)
}

async fn connect(socket_folder: &Path, user: &str) -> anyhow::Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket_folder).user(user).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    // Its error reaches whoever uses the client.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// The client's process: gives orders a second.
pub(crate) fn client(job: &PostgresJob) -> anyhow::Result<f64> {
    pin(Some(job.core))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..job.connections {
            clients.push(connect(&job.socket_folder, &job.user).await?);
        }
        let begins_at = Instant::now() + Duration::from_millis(WARM_UP_MILLISECONDS);
        let ends_at = begins_at + Duration::from_millis(MEASURE_MILLISECONDS);
        let sessions: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| tokio::spawn(session(client, number, begins_at, ends_at)))
            .collect();
        let mut orders = 0;
        for session in sessions {
            orders += session.await??;
        }
        Ok(orders as f64 / (MEASURE_MILLISECONDS as f64 / 1_000.0))
    })
}

async fn session(
    client: tokio_postgres::Client,
    number: usize,
    begins_at: Instant,
    ends_at: Instant,
) -> anyhow::Result<u64> {
    let purchase = client.prepare(PURCHASE).await?;
    let (mut orders, mut sent) = (0, 0_u64);
    loop {
        sent += 1;
        let customer = format!("shopper-{number}-{sent}");
        let taken = client.execute(&purchase, &[&customer, &format!("key-{customer}")]).await?;
        ensure!(taken == 1, "an order was not taken");
        let now = Instant::now();
        if now >= ends_at {
            return Ok(orders);
        }
        orders += u64::from(now >= begins_at);
    }
}
