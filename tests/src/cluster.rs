//! A whole cluster for tests: the real servers, two gates, two relays and two workers, broken on purpose and healed again.
//!
//! One for all tests of a program, since it takes seconds to start; each test has its own sale in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use domain::SaleDefinition;
use rustix::process::Signal;
use serde_json::Value;
use services::nodes::{Node, configure};
use services::process::Life;

use crate::binary::{self, Ended};
use crate::folder::Folder;
use crate::promises::audit_is_clean;
use crate::server::{Reach, WITHOUT_LIMITS, ended};
use crate::waiting::{TIME_MAX, eventually, until, within};
use crate::wire::Request;
use crate::{AUDIENCE, ISSUER, SECRET};

/// Name and role of every process of the engine.
pub const NODES: [(&str, &str); 6] = [
    ("gate-1", "gate"),
    ("gate-2", "gate"),
    ("relay-1", "relay"),
    ("relay-2", "relay"),
    ("worker-1", "worker"),
    ("worker-2", "worker"),
];
const SETTINGS: [&str; 2] = ["cluster.takeover_after_seconds=4", "cluster.return_after_seconds=3"];

/// Names of nodes, and settings for them.
type Given = (Vec<&'static str>, Vec<String>);
type Work = Box<dyn FnOnce() + Send>;

/// Servers die with the thread that started them, so one thread that outlives every test starts them all.
fn on_keeper<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    static KEEPER: OnceLock<SyncSender<Work>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Work>(1);
        std::thread::spawn(move || receiver.into_iter().for_each(|work| work()));
        sender
    });
    let (done, outcome) = sync_channel(1);
    let work = Box::new(move || drop(done.send(work())));
    keeper.send(work).expect("the keeper lives as long as the program");
    outcome.recv().expect("the keeper's work does not panic")
}

/// The cluster.
pub struct Cluster {
    /// The servers.
    pub servers: services::Cluster,
    folder: Folder,
    configuration: PathBuf,
    nodes: BTreeMap<&'static str, Node>,
    /// Where each gate was reached last: it comes back to the same place, as behind a name.
    places: BTreeMap<&'static str, (SocketAddr, SocketAddr)>,
    /// What these nodes are told besides, until a test that wants something else.
    given: Given,
    /// One for each reach that was asked for.
    notes: usize,
}

impl Cluster {
    /// The cluster of this program, whole, and this test's alone until it is dropped.
    pub fn lock() -> MutexGuard<'static, Self> {
        Self::lock_with(&[], Vec::new())
    }

    /// The same where these nodes have these settings, which they keep for a next test that wants the same.
    pub fn lock_with(names: &[&'static str], settings: Vec<String>) -> MutexGuard<'static, Self> {
        static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| Mutex::new(Self::start()));
        let mut cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (names.to_vec(), settings);
        if cluster.given != wanted {
            cluster.give_to(wanted);
        }
        cluster.heal();
        cluster
    }

    fn start() -> Self {
        let folder = Folder::new();
        let nats = services::nats::program();
        assert!(nats.exists(), "{} is missing: `cargo xtask ci` installs it", nats.display());
        let servers = folder.join("servers");
        let servers = on_keeper(move || services::up(Life::Ours, &servers, &nats, &|_| {})).expect("the servers start");
        let configuration = configure(&folder.join("nodes"), &servers.file).expect("the folder is writable");
        Self {
            servers,
            folder,
            configuration,
            nodes: BTreeMap::new(),
            places: BTreeMap::new(),
            given: Given::default(),
            notes: 0,
        }
    }

    /// Has every node begin anew with these settings, which it keeps until the next test.
    pub fn give(&mut self, settings: Vec<String>) {
        self.give_to((NODES.map(|(name, _)| name).to_vec(), settings));
    }

    /// Has those begin anew who get settings, and those who had some.
    fn give_to(&mut self, given: Given) {
        let before = std::mem::replace(&mut self.given, given);
        for name in before.0.iter().chain(&self.given.0.clone()) {
            if self.nodes.contains_key(name) {
                self.kill_node(name);
            }
        }
        self.heal();
    }

    /// Starts whatever does not run, servers too, and lets run what was frozen.
    pub fn heal(&mut self) {
        self.heal_servers();
        for node in self.nodes.values() {
            node.process.signal(Signal::CONT).expect("a process can be let run");
        }
        for (name, _) in NODES {
            if !self.nodes.get_mut(name).is_some_and(|node| node.process.is_running()) {
                self.start_node(name);
            }
        }
    }

    fn heal_servers(&mut self) {
        for number in 0..self.servers.redis.processes.len() {
            let process = &mut self.servers.redis.processes[number];
            if process.is_running() {
                process.signal(Signal::CONT).expect("a process can be let run");
            } else {
                self.start_redis(number);
            }
        }
        for number in 0..self.servers.nats.processes.len() {
            let process = &mut self.servers.nats.processes[number];
            if process.is_running() {
                process.signal(Signal::CONT).expect("a process can be let run");
            } else {
                self.start_nats(number);
            }
        }
        for number in 0..self.servers.nats.processes.len() {
            self.servers.nats.until_ready(number).expect("NATS is well again");
        }
        for number in 0..self.servers.redis.processes.len() {
            let address = self.servers.redis.addresses[number];
            until("a Redis Cluster that is whole", || {
                let Ok(mut connection) = self.servers.redis.connect(address) else { return false };
                let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).unwrap_or_default();
                let state: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).unwrap_or_default();
                let followed = info.contains("role:master") && info.contains("connected_slaves:1");
                state.contains("cluster_state:ok") && (followed || info.contains("master_link_status:up"))
            });
        }
    }

    /// Starts a Redis server again.
    pub fn start_redis(&mut self, number: usize) {
        let (folder, redis) = (self.folder.join("servers").join("redis"), &self.servers.redis);
        let (address, admin) = (redis.addresses[number], redis.admin.clone());
        let started = on_keeper(move || services::redis::run(Life::Ours, &folder, address, &admin));
        self.servers.redis.processes[number] = started.expect("Redis starts again");
    }

    /// The replica of a Redis master.
    pub fn replica_of(&self, master: usize) -> usize {
        let redis = &self.servers.redis;
        let port = format!("master_port:{}", redis.addresses[master].port());
        eventually("the master's replica", || {
            redis.addresses.iter().position(|address| {
                let info = redis
                    .connect(*address)
                    .and_then(|mut connection| redis::cmd("INFO").arg("replication").query::<String>(&mut connection));
                info.is_ok_and(|info| info.lines().any(|line| line.trim() == port))
            })
        })
    }

    /// Cuts the replica of a master off for good: the master no longer takes its password.
    pub fn cut_replica_off(&self, master: usize) {
        let redis = &self.servers.redis;
        let mut connection = redis.connect(redis.addresses[master]).expect("the master answers");
        // Only for connections to come; this one stays. The file of users is read again when the server starts again.
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(&redis.admin.user).arg("resetpass").arg(">cut-off");
        command.query::<()>(&mut connection).expect("the password can be changed");
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("REPLICA").query::<u64>(&mut connection).expect("a client can be cut off");
        until("a master without a replica", || {
            let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).unwrap_or_default();
            info.contains("connected_slaves:0")
        });
    }

    /// Starts a NATS server again.
    pub fn start_nats(&mut self, number: usize) {
        let folder = self.folder.join("servers").join("nats");
        let program = services::nats::program();
        let started = on_keeper(move || services::nats::run(Life::Ours, &folder, number, &program));
        self.servers.nats.processes[number] = started.expect("NATS starts again");
    }

    /// Copies the store of a NATS server that does not run.
    pub fn keep_nats_store(&self, number: usize) {
        let folder = self.folder.join("servers").join("nats");
        copy(&folder.join(format!("nats-{number}")), &folder.join(format!("kept-{number}")));
    }

    /// Puts the copy in the place of what the server, which does not run, has now.
    pub fn restore_nats_store(&self, number: usize) {
        let folder = self.folder.join("servers").join("nats");
        copy(&folder.join(format!("kept-{number}")), &folder.join(format!("nats-{number}")));
    }

    /// The number of the NATS server that leads the chains' stream.
    pub fn stream_leader(&self) -> usize {
        eventually("a leader of the stream", || {
            services::nats::leader_of(&self.servers.nats.monitors, "doorbuster_main")
        })
    }

    /// The relay that works for a sale: the one that holds its lock.
    pub fn relay_of(&self, sale: &str) -> &'static str {
        let redis = &self.servers.redis;
        let key = format!("doorbuster:{{main/{sale}}}:lock:relay");
        let holder: String = eventually("a relay with the lock", || {
            let mut connection = redis.connect(redis.addresses[master_of(self, sale)]).ok()?;
            redis::cmd("GET").arg(&key).query(&mut connection).ok()
        });
        let of = |name: &&str| self.log(name).contains(&holder);
        ["relay-1", "relay-2"].into_iter().find(of).expect("a relay says under which name it holds locks")
    }

    /// Sends a signal to a node.
    pub fn signal_node(&self, name: &str, signal: Signal) {
        self.nodes[name].process.signal(signal).expect("a process can be told");
        if signal == Signal::STOP {
            until("a process that stands still", || self.nodes[name].process.is_frozen());
        }
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, name: &'static str) {
        self.start_node_with(name, Vec::new());
    }

    /// The same with settings of its own.
    pub fn start_node_with(&mut self, name: &'static str, mut more: Vec<String>) {
        if let Some((public, admin)) = self.places.get(name) {
            more.extend([format!("public.address={public}"), format!("admin.address={admin}")]);
        }
        if self.given.0.contains(&name) {
            more.extend(self.given.1.iter().cloned());
        }
        let role = NODES.iter().find(|(of, _)| *of == name).expect("a node's name").1;
        let (nodes, configuration) = (self.folder.join("nodes"), self.configuration.clone());
        let node = on_keeper(move || {
            let engine = (binary::path(), configuration.as_path());
            let shop = [
                format!("identity.issuer={ISSUER}"),
                format!("identity.audience={AUDIENCE}"),
                format!("identity.hs256_secrets={SECRET}"),
            ];
            let settings =
                SETTINGS.into_iter().chain(WITHOUT_LIMITS).chain(shop.iter().chain(&more).map(String::as_str));
            let settings: Vec<_> = settings.collect();
            Node::start(Life::Ours, &nodes, (name, role), engine, &settings)
        });
        let node = node.unwrap_or_else(|error| panic!("{name} does not start: {error:#}"));
        if let Some(public) = node.public {
            self.places.insert(name, (public, node.admin));
        }
        self.nodes.insert(name, node);
    }

    /// Has a relay of its own data start with these settings, which has to be refused, and gives the words of the refusal.
    pub fn refused(&self, data: &str, settings: &[&str]) -> Ended {
        let shared = ["cluster.roles=relay", "admin.address=127.0.0.1:0"];
        let settings = shared.iter().chain(settings).flat_map(|setting| ["--set", setting]);
        let mut command = binary::command();
        command.args(["serve", "--with-parent", "--config"]).arg(&self.configuration);
        command.arg("--data").arg(self.path(data)).args(settings);
        ended(command)
    }

    /// A database of its own in the cluster's PostgreSQL.
    pub fn create_database(&self, name: &str) {
        create_database(&self.servers.file, name);
    }

    /// A node that runs.
    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// kill -9.
    pub fn kill_node(&mut self, name: &str) {
        self.nodes.remove(name).expect("the node runs").process.kill().expect("a process can be killed");
    }

    /// An orderly end.
    pub fn stop_node(&mut self, name: &str) {
        self.nodes.remove(name).expect("the node runs").process.end().expect("a node ends");
    }

    /// What a node has said.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join("nodes").join(format!("{name}.log"))).unwrap_or_default()
    }

    /// The operator's token.
    pub fn token(&self) -> String {
        let nodes = self.folder.join("nodes");
        let mut tokens =
            NODES.iter().filter_map(|(name, _)| std::fs::read_to_string(nodes.join(name).join("admin-token")).ok());
        tokens.next_back().expect("one of the nodes wrote the token").trim().to_owned()
    }

    /// A gate as its clients meet it, with notes of its own.
    pub fn gate(&mut self, name: &str) -> (Arc<Reach>, PathBuf) {
        self.notes += 1;
        let notes = self.folder.join(&format!("notes-{}.jsonl", self.notes));
        let node = &self.nodes[name];
        let public = node.public.expect("a gate serves customers");
        (Reach::of(public, node.admin, &self.token(), &notes), notes)
    }

    /// The addresses of both gates.
    pub fn gates(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let gates = || ["gate-1", "gate-2"].iter().filter_map(|name| self.nodes.get(name));
        (gates().filter_map(|node| node.public).collect(), gates().map(|node| node.admin).collect())
    }

    /// Where notes and other files of a test may go.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A sale as a node's operator sees it, if the node knows it.
    pub fn sale_at(&self, node: &str, sale: &str) -> Option<Value> {
        let request = Request::get("/admin/v1/sales").bearer(&self.token());
        let sales = request.try_send(self.nodes.get(node)?.admin).ok()?.json();
        sales.as_array()?.iter().find(|known| known["sale"] == sale).cloned()
    }

    /// Creates a sale, and waits until both gates know it and somebody decides it.
    pub fn create(&mut self, definition: &SaleDefinition) {
        let (reach, _) = self.gate("gate-1");
        reach.create(definition);
        self.until_decided(&definition.sale);
    }

    /// Waits until every node of this cluster knows the sale and somebody decides it.
    pub fn until_decided(&self, sale: &str) {
        for name in self.nodes.keys() {
            let mut seen = None;
            let is_decided = || {
                seen = self.sale_at(name, sale);
                seen.as_ref().is_some_and(|sale| sale["rung"] == "full" || sale["rung"] == "takeover")
            };
            let found = within(TIME_MAX, is_decided);
            assert!(found, "{name} sees no sale {sale} that is decided, but {seen:?}; it said: {}", self.log(name));
        }
    }

    /// Closes the sale once no hold is open, waits for every worker's books, and checks every promise in each.
    pub fn judge(&mut self, sale: &str, notes: &[&Path]) {
        self.heal();
        until("the holds' end", || {
            let held = |item: &Value| item["held"] == 0;
            self.sale_at("gate-1", sale)
                .is_some_and(|sale| sale["counts"].as_array().is_some_and(|items| items.iter().all(held)))
        });
        let (reach, _) = self.gate("gate-1");
        eventually("the sale's end", || {
            let closed = reach.try_operate(Request::post(&format!("/admin/v1/sales/{sale}/close"))).ok()?;
            (closed.status == 200).then_some(())
        });
        for worker in ["worker-1", "worker-2"] {
            until("the books", || {
                self.sale_at(worker, sale).is_some_and(|sale| sale["phase"] == "closed" && sale["books_lag"] == 0)
            });
            for notes in notes {
                let data = &self.nodes[worker].data;
                let report = audit::audit(data, Some(sale), Some(notes), &mut |_| {}).expect("the audit runs");
                let lines = report.promises.values().chain(report.proof.values());
                assert!(lines.clone().all(|line| line.violations == 0), "{worker}: {report}");
            }
        }
    }

    /// The audit of everything that a worker has ever had.
    pub fn judge_all(&self, worker: &str) {
        audit_is_clean(&self.nodes[worker].data, None);
    }
}

/// Names the configuration of servers that are up; the tests of a single process are then tests of a cluster of one process that has
/// every role.
const SERVERS: &str = "DOORBUSTER_TESTS_CLUSTER";

/// What a server of a test is told besides, so that it belongs to a cluster of its own on those servers.
pub(crate) fn arguments_for(data: &Path) -> Vec<String> {
    let Some(servers) = std::env::var_os(SERVERS).map(PathBuf::from) else { return Vec::new() };
    let own = data.parent().and_then(Path::file_name).expect("a test's data lies in its folder").to_string_lossy();
    let name = format!("test-{own}");
    // A server that starts again has its database already.
    create_database(&servers, &name);
    let servers = servers.display();
    [
        "--config",
        &servers.to_string(),
        "--set",
        &format!("cluster.name={name}"),
        "--set",
        &format!("postgres.database={name}"),
        // It is the only gate, and the machine may be busy: what it shares with nobody is counted to the last request.
        "--set",
        "cluster.gates_expected=1",
        "--set",
        "limits.shared_wait_milliseconds=900",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A database in the PostgreSQL of these servers, unless it is there.
fn create_database(servers: &Path, name: &str) {
    let postgres = servers.parent().expect("a file lies in a folder").join("postgres");
    let text = std::fs::read_to_string(servers).expect("the servers' configuration can be read");
    let (_, address) = text.split_once("[postgres]\naddresses = [\"").expect("PostgreSQL is in it");
    let port = address.split('"').next().and_then(|address| address.rsplit(':').next()).expect("it has a port");
    let create = format!("CREATE DATABASE \"{name}\" OWNER doorbuster");
    let psql = std::process::Command::new("psql")
        .arg("-h")
        .arg(postgres)
        .args(["-p", port, "-U", "postgres", "-d", "postgres", "-qc", &create])
        .output();
    psql.expect("psql is installed");
}

/// The Redis server that has a sale.
pub fn master_of(cluster: &Cluster, sale: &str) -> usize {
    let redis = &cluster.servers.redis;
    let key = format!("doorbuster:{{main/{sale}}}:state");
    eventually("the sale's master", || {
        redis.addresses.iter().position(|address| {
            let Ok(mut connection) = redis.connect(*address) else { return false };
            // A replica, or another master, would send us elsewhere.
            let asked = redis::cmd("EXISTS").arg(&key).query::<u64>(&mut connection);
            asked.is_ok() && is_master(&mut connection)
        })
    })
}

/// Makes `to` what `from` is.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} can be copied", from.display());
}

fn is_master(connection: &mut redis::Connection) -> bool {
    let info: String = redis::cmd("INFO").arg("replication").query(connection).unwrap_or_default();
    info.contains("role:master")
}
