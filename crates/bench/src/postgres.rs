//! PostgreSQL as it would take the same orders: Debian's server in a private folder, on its own defaults, asked over a local socket.
//!
//! One round trip per order: a prepared statement that takes a unit where there is one and inserts the order.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::NoTls;

use crate::Bench;
use crate::http_figures::{MEASURE_MILLISECONDS, WARM_UP_MILLISECONDS};
use crate::process::{Job, ask, pin};

const BINARIES: &str = "/usr/lib/postgresql";
/// The path of a local socket has at most 107 bytes; the file's own name takes some.
const SOCKET_FOLDER_BYTES_MAX: usize = 85;
const CONNECTIONS: [usize; 5] = [4, 8, 16, 32, 64];
const START_PATIENCE: Duration = Duration::from_secs(30);

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
    let server = Server::start(&bench.workspace.at("postgres"), server_core)?;
    let mut rounds = Vec::new();
    for connections in CONNECTIONS {
        let job = PostgresJob {
            socket_folder: server.folder.clone(),
            user: server.user.name.clone(),
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

/// Whom the server runs as: PostgreSQL refuses root.
struct User {
    name: String,
    /// User and group to change to; `None` where this process is unprivileged itself.
    change_to: Option<(u32, u32)>,
}

impl User {
    fn find() -> anyhow::Result<Self> {
        let accounts = fs::read_to_string("/etc/passwd")?;
        let account = |wanted: &dyn Fn(&[&str]) -> bool| {
            let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
            fields.into_iter().find(|fields| fields.len() > 3 && wanted(fields))
        };
        let own = geteuid();
        if !own.is_root() {
            let found = account(&|fields| fields[2] == own.as_raw().to_string());
            return Ok(Self { name: found.context("this user has no name")?[0].to_owned(), change_to: None });
        }
        let found = account(&|fields| fields[0] == "postgres").or_else(|| account(&|fields| fields[0] == "nobody"));
        let fields = found.context("there is no unprivileged user to run PostgreSQL as")?;
        Ok(Self { name: fields[0].to_owned(), change_to: Some((fields[2].parse()?, fields[3].parse()?)) })
    }

    /// A command that runs as this user and dies with this process.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let Some((user, group)) = self.change_to {
            command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    }
}

struct Server {
    user: User,
    folder: PathBuf,
    child: Child,
}

impl Server {
    fn start(folder: &Path, core: usize) -> anyhow::Result<Self> {
        ensure!(
            folder.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX,
            "the data folder's path is too long for a local socket"
        );
        let binaries = binaries()?;
        let user = User::find()?;
        fs::create_dir_all(folder)?;
        if let Some((user, group)) = user.change_to {
            chown(folder, Some(user), Some(group))?;
            open_way(folder)?;
        }
        let database = folder.join("database");
        let made = user
            .command(&binaries.join("initdb"))
            .args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions", "-D"])
            .arg(&database)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .context("setpriv or initdb cannot be started")?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let log = fs::File::create(folder.join("log"))?;
        let child = user
            .command(&binaries.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=on", "-c", "synchronous_commit=on", "-k"])
            .arg(folder)
            .arg("-D")
            .arg(&database)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self { user, folder: folder.to_owned(), child };
        server.wait_until_ready()?;
        // Its sessions are started from this process, so they stay on the core too, as the engine's threads do.
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(server.pid(), &set)?;
        Ok(server)
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("PostgreSQL ended ({status}): {}", log.trim());
            }
            match runtime.block_on(connect(&self.folder, &self.user.name)) {
                Ok(client) => return Ok(runtime.block_on(client.batch_execute(TABLES))?),
                Err(error) if start.elapsed() > START_PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An interrupt ends its sessions and then itself.
        let asked = self.pid().is_some_and(|pid| kill_process(pid, Signal::INT).is_ok());
        let start = Instant::now();
        while asked && start.elapsed() < Duration::from_secs(10) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The newest installed server's programs.
fn binaries() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir(BINARIES).into_iter().flatten().flatten();
    let number =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| number(path));
    Ok(newest.context("no PostgreSQL server is installed (Debian: apt-get install postgresql)")?.join("bin"))
}

/// The server's user must be able to walk to its folder through those that the bench made itself.
fn open_way(folder: &Path) -> anyhow::Result<()> {
    let run = folder.parent().context("the data folder has a parent")?;
    Ok(fs::set_permissions(run, fs::Permissions::from_mode(0o711))?)
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
