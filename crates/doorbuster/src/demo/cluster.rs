//! The demo on a cluster that runs already: its gates, its workers and its shop are read from the folder of nodes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::stage::{Bookkeeper, Stage};
use crate::ConfigArgs;
use crate::config::{PaymentProvider, Settings};
use crate::data_client::{Endpoints, Operator};

/// Finds everything in `nodes`, which `cargo xtask cluster up` filled.
pub(super) fn find(nodes: &Path) -> anyhow::Result<Stage> {
    let configuration = nodes.join("engine.toml");
    let start = "start a cluster on this machine with `cargo xtask cluster up`";
    ensure!(configuration.exists(), "{} does not exist; {start}", configuration.display());
    let settings = Settings::load(&ConfigArgs { config: Some(configuration), set: Vec::new(), data: None })?;
    let (mut public, mut admin, mut bookkeepers, mut token) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut folders: Vec<_> = fs::read_dir(nodes)?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    for data in folders {
        let Some(endpoints) = Endpoints::read(&data) else { continue };
        // All nodes share one vault, so the token that one of them wrote opens all.
        token = token.or_else(|| fs::read_to_string(data.join("admin-token")).ok());
        match endpoints.public {
            Some(address) => {
                public.push(address);
                admin.push(endpoints.admin);
            }
            None if data.file_name().is_some_and(|name| name.to_string_lossy().starts_with("worker")) => {
                bookkeepers.push((data, endpoints));
            }
            None => {}
        }
    }
    let token = token.with_context(|| format!("{} has no admin token; {start}", nodes.display()))?.trim().to_owned();
    ensure!(!public.is_empty() && !bookkeepers.is_empty(), "{} has no gate or no worker; {start}", nodes.display());
    let operator = |endpoints| Operator { endpoints, token: token.clone() };
    Ok(Stage {
        data: nodes.to_owned(),
        server: None,
        operator: operator(Endpoints { public: Some(public[0]), admin: admin[0] }),
        bookkeepers: bookkeepers
            .into_iter()
            .map(|(data, endpoints)| Bookkeeper { data, operator: operator(endpoints) })
            .collect(),
        sale: String::new(),
        public,
        admin,
        identity: settings.identity,
        has_sandbox: settings.payment.provider == PaymentProvider::Sandbox,
    })
}
