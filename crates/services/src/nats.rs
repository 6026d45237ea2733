//! Three NATS servers with JetStream, replicating and syncing every acknowledged message; or one alone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Life, Started, command, free_ports, loopback, password};
use crate::redis::Login;
use crate::rights;
use crate::tls::Identity;

/// How long a server waits with syncing that acknowledges nothing which is not on disk.
pub const SYNCED: &str = "always";

/// Where the repository's own commands put the server for tests and local clusters.
pub fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    target.join("nats/bin/nats-server")
}

/// Servers of one cluster.
#[derive(Debug)]
pub struct Servers {
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    /// Where each tells how it is, by HTTP.
    pub monitors: Vec<SocketAddr>,
    /// The engine's user: it cannot delete or purge a stream.
    pub login: Login,
    /// May do everything; for tests that break things.
    pub admin: Login,
    /// The processes, in the order of the addresses.
    pub processes: Vec<Started>,
}

/// Starts three of `program`; ready when they have chosen a leader.
pub fn cluster(life: Life, folder: &Path, program: &Path) -> anyhow::Result<Servers> {
    const NODES: usize = 3;
    let ports = free_ports(3 * NODES)?;
    let addresses = |from: usize| ports[from..from + NODES].iter().copied().map(loopback).collect::<Vec<_>>();
    let (clients, routes, monitors) = (addresses(0), addresses(NODES), addresses(2 * NODES));
    let mut servers = Servers::new(clients, monitors)?;
    let list = routes.iter().map(|route| format!("nats-route://{route}")).collect::<Vec<_>>().join(", ");
    for (number, route) in routes.iter().enumerate() {
        let of_cluster = format!("cluster {{ name: doorbuster, listen: \"{route}\", routes: [{list}] }}\n");
        servers.start((life, folder, program), number, (SYNCED, &of_cluster))?;
    }
    for number in 0..NODES {
        servers.until_ready(number)?;
    }
    Ok(servers)
}

/// Starts one of `program` that is in no cluster; `sync` is how long it may wait with syncing, and `more` are further lines of
/// configuration.
pub fn single(life: Life, folder: &Path, program: &Path, (sync, more): (&str, &str)) -> anyhow::Result<Servers> {
    let ports = free_ports(2)?;
    let mut servers = Servers::new(vec![loopback(ports[0])], vec![loopback(ports[1])])?;
    servers.start((life, folder, program), 0, (sync, more))?;
    servers.until_ready(0)?;
    Ok(servers)
}

/// The lines with which a server speaks TLS only.
pub fn tls(identity: &Identity) -> String {
    format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n", identity.certificate.display(), identity.key.display())
}

/// Starts a server that was set up in `folder`, for the first time or again with what it has on disk; it may not be ready yet.
pub fn run(life: Life, folder: &Path, number: usize, program: &Path) -> anyhow::Result<Started> {
    let name = format!("nats-{number}");
    let mut server = command(life, program);
    server.arg("-c").arg(folder.join(format!("{name}.conf")));
    Started::new(life, folder, &name, server)
}

impl Servers {
    fn new(addresses: Vec<SocketAddr>, monitors: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let login = |user: &str| anyhow::Ok(Login { user: user.to_owned(), password: password()? });
        Ok(Self { addresses, monitors, login: login("doorbuster")?, admin: login("admin")?, processes: Vec::new() })
    }

    fn start(
        &mut self,
        (life, folder, program): (Life, &Path, &Path),
        number: usize,
        (sync, more): (&str, &str),
    ) -> anyhow::Result<()> {
        let name = format!("nats-{number}");
        fs::create_dir_all(folder.join(&name))?;
        let text = settings(self, number, &folder.join(&name), sync) + more;
        fs::write(folder.join(format!("{name}.conf")), text)?;
        self.processes.push(run(life, folder, number, program)?);
        Ok(())
    }

    /// Waits until a server works and knows who leads.
    pub fn until_ready(&mut self, number: usize) -> anyhow::Result<()> {
        let monitor = self.monitors[number];
        let process = &mut self.processes[number];
        process.until("being ready", || {
            get(monitor, "/healthz?js-enabled-only=true").filter(|told| told.contains("\"ok\""))
        })?;
        if self.addresses.len() > 1 {
            process.until("a leader", || get(monitor, "/jsz").filter(|told| has_leader(told)))?;
        }
        Ok(())
    }
}

fn settings(servers: &Servers, number: usize, store: &Path, sync: &str) -> String {
    format!(
        r#"server_name: doorbuster-{number}
listen: "{client}"
http: "{monitor}"
max_payload: 2MB
jetstream {{ store_dir: "{store}", sync_interval: {sync}, max_memory_store: 64MB, max_file_store: 4GB }}
authorization {{
  users: [
    {{ user: "{admin}", password: "{admin_password}" }}
    {{ user: "{user}", password: "{user_password}", {rights} }}
  ]
}}
"#,
        client = servers.addresses[number],
        monitor = servers.monitors[number],
        store = store.display(),
        admin = servers.admin.user,
        admin_password = servers.admin.password,
        user = servers.login.user,
        user_password = servers.login.password,
        rights = rights::NATS,
    )
}

/// The number of the server that leads a stream, as those tell that answer.
pub fn leader_of(monitors: &[SocketAddr], stream: &str) -> Option<usize> {
    let name = format!("\"name\":\"{stream}\"");
    monitors.iter().find_map(|monitor| {
        let told = get(*monitor, "/jsz?streams=true&accounts=true")?;
        let plain: String = told.split_whitespace().collect();
        let (_, stream) = plain.split_once(&name)?;
        let (_, leader) = stream.split_once("\"leader\":\"doorbuster-")?;
        leader.split('"').next()?.parse().ok()
    })
}

/// Whether the servers' own group, which places streams, has chosen a leader and knows all three.
fn has_leader(told: &str) -> bool {
    let meta = told.split("\"meta_cluster\"").nth(1).unwrap_or_default();
    let plain: String = meta.split_whitespace().collect();
    plain.contains("\"leader\":\"doorbuster-") && plain.contains("\"cluster_size\":3")
}

/// The body of a small page.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
