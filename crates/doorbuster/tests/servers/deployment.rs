//! The settings of a process whose servers a test has started. Decides nothing.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use services::nats;
use services::process::free_ports;
use services::redis::Login;

/// The settings of a process of a cluster, and a folder that removes itself.
pub(crate) struct Deployment {
    pub(crate) folder: PathBuf,
    settings: Vec<String>,
    secrets: Vec<String>,
}

impl Deployment {
    /// A process whose servers are nowhere.
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("preflight-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut deployment = Self { folder, settings: Vec::new(), secrets: Vec::new() };
        let nowhere = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
        let login = || Login { user: "doorbuster".to_owned(), password: "a-password-for-nobody".to_owned() };
        for section in ["redis", "nats", "postgres"] {
            deployment.server(section, &[&nowhere], &login());
        }
        deployment.set("nats.monitors", &nowhere);
        deployment
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.push(format!("{key}={value}"));
    }

    pub(crate) fn server(&mut self, section: &str, addresses: &[impl ToString], login: &Login) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        self.set(&format!("{section}.addresses"), &addresses.join(","));
        self.set(&format!("{section}.user"), &login.user);
        self.set(&format!("{section}.password"), &login.password);
        self.secrets.push(login.password.clone());
    }

    pub(crate) fn nats(&mut self, servers: &nats::Servers) {
        self.server("nats", &servers.addresses, &servers.login);
        let monitors: Vec<String> = servers.monitors.iter().map(ToString::to_string).collect();
        self.set("nats.monitors", &monitors.join(","));
    }

    /// Everything that preflight says: the checks by their names, as JSON.
    pub(crate) fn preflight(&self) -> Vec<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbuster"));
        command.args(["preflight", "--json", "--data"]).arg(self.folder.join("data"));
        let output = command.arg("--config").arg(self.file()).output().unwrap();
        let (said, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        for secret in &self.secrets {
            assert!(!said.contains(secret) && !errors.contains(secret), "a password in {said}{errors}");
        }
        let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{errors}"));
        let checks = told["checks"].as_array().unwrap().clone();
        let ok = checks.iter().all(|check| check["ok"] == true);
        assert_eq!((told["ok"].as_bool(), output.status.success()), (Some(ok), ok));
        checks
    }

    /// The configuration: the last value of each key.
    pub(crate) fn file(&self) -> PathBuf {
        let mut keys = std::collections::BTreeMap::new();
        for setting in &self.settings {
            let (key, value) = setting.split_once('=').unwrap();
            let is_list = key.ends_with(".addresses") || key.ends_with(".monitors");
            let quoted: Vec<String> = value.split(',').map(|value| format!("{value:?}")).collect();
            keys.insert(key, if is_list { format!("[{}]", quoted.join(",")) } else { format!("{value:?}") });
        }
        let text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let file = self.folder.join("settings.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn check(&self, name: &str) -> (bool, String) {
        let checks = self.preflight();
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {checks:?}"));
        let text = |key: &str| check[key].as_str().unwrap().to_owned();
        assert!(!text("wanted").is_empty());
        (check["ok"] == true, text("found"))
    }

    pub(crate) fn refuses(&self, name: &str, reason: &str) {
        let (ok, found) = self.check(name);
        assert!(!ok && found.contains(reason), "{name}, {reason}: {ok} {found}");
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A NATS server in no cluster.
pub(crate) fn single_nats(folder: &std::path::Path, sync: &str, more: &str) -> nats::Servers {
    nats::single(services::process::Life::Ours, folder, &nats::program(), (sync, more)).unwrap()
}
