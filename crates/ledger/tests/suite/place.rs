//! Places where a vault can be: a file, or a PostgreSQL server of its own, which can be killed and started again. Decides nothing.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::support::{Folder, wait_until};
use domain::clock::SystemClock;
use domain::{Pseudonym, SaleOrdinal};
use ledger::{NewCustomer, PostgresOptions, PostgresVault, Vault, VaultError, VaultStore};
use rustix::process::Signal;
use services::process::{Life, Started};
use services::redis::Login;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One customer, by numbers.
pub(crate) fn customer(sale: u32, number: u32) -> NewCustomer {
    let mut pseudonym = [sale as u8; 16];
    pseudonym[..4].copy_from_slice(&number.to_be_bytes());
    NewCustomer {
        sale: SaleOrdinal(sale),
        pseudonym: Pseudonym(pseudonym),
        issuer: "https://shop.example".to_owned(),
        subject: format!("shopper-{number}"),
    }
}

/// Where a vault can be opened again and again.
pub(crate) trait Place {
    /// Opens it, or creates it.
    fn try_open(&self) -> Result<Box<dyn VaultStore>, VaultError>;

    /// Runs a statement on the vault's tables, past the vault.
    fn execute(&self, statement: &str);

    /// A path in a folder of the place's own.
    fn path(&self, name: &str) -> PathBuf;

    fn open(&self) -> Box<dyn VaultStore> {
        self.try_open().unwrap()
    }
}

/// A folder with the file.
pub(crate) struct InFile(Folder);

impl InFile {
    pub(crate) fn new() -> Self {
        Self(Folder::new("vault"))
    }
}

impl Place for InFile {
    fn try_open(&self) -> Result<Box<dyn VaultStore>, VaultError> {
        Ok(Box::new(Vault::open(&self.path("vault.sqlite"), Arc::new(SystemClock::new()))?))
    }

    fn execute(&self, statement: &str) {
        let connection = rusqlite::Connection::open(self.path("vault.sqlite")).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

/// A running server with an empty database.
pub(crate) struct InPostgres {
    // Dropped in this order: the server lives in the folder.
    server: Option<Started>,
    folder: Folder,
    pub(crate) address: SocketAddr,
    login: Login,
    superuser: String,
}

impl InPostgres {
    pub(crate) fn new() -> Self {
        let folder = Folder::new("pg");
        let (server, address, login) = services::postgres::with_database(Life::Ours, &folder.path("server")).unwrap();
        Self { server: Some(server.process), folder, address, login, superuser: server.user }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions {
            address: self.address.to_string(),
            database: "doorbuster".to_owned(),
            cluster: "main".to_owned(),
            user: self.login.user.clone(),
            password: self.login.password.clone(),
            tls_authority: None,
        }
    }

    pub(crate) fn open_with(options: &PostgresOptions) -> Result<PostgresVault, VaultError> {
        PostgresVault::open(options, Arc::new(SystemClock::new()))
    }

    /// A session of the superuser in the vault's database.
    pub(crate) fn superuser(&self) -> Superuser {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path("server")).port(self.address.port());
        config.user(&self.superuser).dbname("doorbuster");
        let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
        runtime.spawn(async move { drop(connection.await) });
        Superuser { runtime, client }
    }

    /// Kills the server without a warning, and gives what starts it again.
    pub(crate) fn kill(&mut self) -> Stopped {
        let mut server = self.server.take().unwrap();
        let line = std::fs::read(format!("/proc/{}/cmdline", server.id())).unwrap();
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect();
        server.signal(Signal::KILL).unwrap();
        // It has ended already and is only taken off the list of processes.
        server.end().unwrap();
        let address = self.address;
        wait_until("nobody listens", || std::net::TcpStream::connect(address).is_err());
        Stopped(words)
    }

    /// Starts what was killed; it recovers from its log.
    pub(crate) fn start_again(&mut self, stopped: &Stopped) {
        let folder = self.folder.path("server");
        let owner = std::fs::metadata(&folder).unwrap();
        let options = self.options();
        self.server = (0..100).find_map(|_| {
            let mut command = Command::new("setpriv");
            if rustix::process::geteuid().is_root() {
                let (user, group) = (owner.uid().to_string(), owner.gid().to_string());
                command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
            }
            command.args(["--pdeathsig", "KILL"]).args(&stopped.0);
            let mut started = Started::new(Life::Ours, &folder, "postgres", command).unwrap();
            // It ends at once while a process of the killed one still has to notice that it is alone.
            let ready = started.until("answering", || Self::open_with(&options).ok().map(drop));
            ready.is_ok().then_some(started)
        });
        assert!(self.server.is_some(), "the server does not start again");
    }
}

/// The command line of a server that was killed.
pub(crate) struct Stopped(Vec<String>);

impl Place for InPostgres {
    fn try_open(&self) -> Result<Box<dyn VaultStore>, VaultError> {
        Ok(Box::new(Self::open_with(&self.options())?))
    }

    fn execute(&self, statement: &str) {
        self.superuser().execute(&format!("SET search_path = vault; {statement}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }
}

/// Whom the server lets do everything.
pub(crate) struct Superuser {
    runtime: Runtime,
    client: Client,
}

impl Superuser {
    pub(crate) fn execute(&self, statements: &str) {
        self.runtime.block_on(self.client.batch_execute(statements)).unwrap();
    }

    /// The only value of the answer, as text.
    pub(crate) fn ask(&self, query: &str) -> String {
        let answer = self.runtime.block_on(self.client.simple_query(query)).unwrap();
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        });
        row.unwrap_or_default()
    }
}
