//! The engine's own processes beside their servers: two gates, a relay and two workers, each in a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::process::{Life, Started, command, password};

/// The nodes of a local cluster: name and role.
pub const NODES: [(&str, &str); 5] =
    [("gate-1", "gate"), ("gate-2", "gate"), ("relay", "relay"), ("worker-1", "worker"), ("worker-2", "worker")];
/// The configuration of all of them: where the servers are, and a shop that signs its tokens with a secret made up here.
pub const FILE: &str = "engine.toml";
const ISSUER: &str = "https://shop.example";
const AUDIENCE: &str = "doorbuster-demo";

/// One running node.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub process: Started,
    /// Its data folder.
    pub data: PathBuf,
    /// Where customers reach it, if it is a gate.
    pub public: Option<SocketAddr>,
    /// Where the operator reaches it.
    pub admin: SocketAddr,
}

/// Writes the nodes' configuration into `folder`: `servers` and the shop.
pub fn configure(folder: &Path, servers: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let servers = fs::read_to_string(servers).with_context(|| format!("{} cannot be read", servers.display()))?;
    let file = folder.join(FILE);
    let text = format!(
        "{servers}\n[identity]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\nhs256_secrets = [\"{}\"]\n\
         dangerous_guest_tokens = true\n",
        password()? + &password()?
    );
    crate::cluster::write_private(&file, &text)?;
    Ok(file)
}

impl Node {
    /// Starts a node in `folder/name` and waits until it serves. `program` is the engine, `more` are further settings.
    pub fn start(
        life: Life,
        folder: &Path,
        (name, role): (&str, &str),
        (program, configuration): (&Path, &Path),
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let data = folder.join(name);
        let endpoints = data.join("endpoints.json");
        // A first start has none.
        let _ = fs::remove_file(&endpoints);
        let mut engine = command(life, program);
        engine.args(["serve", "--role", role, "--config"]).arg(configuration).arg("--data").arg(&data);
        for setting in ["public.address=127.0.0.1:0", "admin.address=127.0.0.1:0"].iter().chain(more) {
            engine.args(["--set", setting]);
        }
        let mut process = Started::new(life, folder, name, engine)?;
        let (public, admin) = process.until("serving", || {
            let written: Value = serde_json::from_slice(&fs::read(&endpoints).ok()?).ok()?;
            let address = |name: &str| written[name].as_str()?.parse().ok();
            Some((address("public"), address("admin")?))
        })?;
        Ok(Self { process, data, public, admin })
    }
}
