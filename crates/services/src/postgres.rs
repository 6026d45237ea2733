//! PostgreSQL as Debian packages it: a server in a private folder, run by an unprivileged user, on a local socket and, where wanted, on a
//! loopback port with a password.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use rustix::process::geteuid;

use crate::process::{Life, Started, free_ports, loopback, password};
use crate::redis::Login;
use crate::tls::Identity;

const BINARIES: &str = "/usr/lib/postgresql";
/// The path of a local socket has at most 107 bytes; the file's own name takes some.
const SOCKET_FOLDER_BYTES_MAX: usize = 85;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where its local socket is; whoever may open it may do everything.
    pub folder: PathBuf,
    /// The system's user that it runs as, and its own superuser.
    pub user: String,
    /// The process.
    pub process: Started,
}

/// Starts a server that listens on a local socket in `folder`, and on `address` too if there is one.
pub fn start(life: Life, folder: &Path, address: Option<SocketAddr>) -> anyhow::Result<Server> {
    start_with(life, folder, address, None)
}

fn start_with(
    life: Life,
    folder: &Path,
    address: Option<SocketAddr>,
    identity: Option<&Identity>,
) -> anyhow::Result<Server> {
    ensure!(folder.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX, "the folder's path is too long for a local socket");
    let binaries = binaries()?;
    let user = User::find()?;
    fs::create_dir_all(folder)?;
    if let Some((user, group)) = user.change_to {
        chown(folder, Some(user), Some(group))?;
        open_way(folder)?;
    }
    let database = folder.join("database");
    let made = user
        .command(life, &binaries.join("initdb"))
        .args([
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
        ])
        .arg("-D")
        .arg(&database)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("setpriv or initdb cannot be started")?;
    ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
    let mut server = user.command(life, &binaries.join("postgres"));
    server.args(["-c", "fsync=on", "-c", "synchronous_commit=on", "-k"]).arg(folder).arg("-D").arg(&database);
    match address {
        Some(address) => {
            server.args(["-c", &format!("listen_addresses={}", address.ip()), "-p", &address.port().to_string()])
        }
        None => server.args(["-c", "listen_addresses="]),
    };
    if let Some(identity) = identity {
        server.args(tls(&user, &database, identity)?);
    }
    let mut process = Started::new(life, folder, "postgres", server)?;
    let port = address.map_or(5_432, |address| address.port()).to_string();
    process.until("answering", || {
        let ready =
            Command::new(binaries.join("pg_isready")).arg("-q").arg("-h").arg(folder).args(["-p", &port]).status();
        ready.is_ok_and(|status| status.success()).then_some(())
    })?;
    Ok(Server { folder: folder.to_owned(), user: user.name, process })
}

/// A server on a loopback port with a database of the engine's own; its user may do nothing outside of it.
pub fn with_database(life: Life, folder: &Path) -> anyhow::Result<(Server, SocketAddr, Login)> {
    with_identity(life, folder, None)
}

/// The same; with an identity, the port takes only who speaks TLS.
pub fn with_identity(
    life: Life,
    folder: &Path,
    identity: Option<&Identity>,
) -> anyhow::Result<(Server, SocketAddr, Login)> {
    let address = loopback(free_ports(1)?[0]);
    let server = start_with(life, folder, Some(address), identity)?;
    let login = Login { user: "doorbuster".to_owned(), password: password()? };
    for statement in [
        format!("CREATE ROLE {} LOGIN PASSWORD '{}'", login.user, login.password),
        format!("CREATE DATABASE doorbuster OWNER {}", login.user),
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC".to_owned(),
    ] {
        let said = Command::new(binaries()?.join("psql"))
            .arg("-h")
            .arg(folder)
            .args(["-p", &address.port().to_string(), "-U", &server.user, "-d", "postgres", "-qc", &statement])
            .output()?;
        ensure!(said.status.success(), "PostgreSQL refused: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok((server, address, login))
}

/// Lets in from the network only who speaks TLS; the arguments that the server needs for it.
fn tls(user: &User, database: &Path, identity: &Identity) -> anyhow::Result<Vec<String>> {
    let rules = database.join("pg_hba.conf");
    let text = fs::read_to_string(&rules)?;
    fs::write(&rules, text.replace("\nhost ", "\nhostssl "))?;
    let [certificate, key] = ["server.crt", "server.key"].map(|name| database.join(name));
    for (from, to) in [(&identity.certificate, &certificate), (&identity.key, &key)] {
        // A key of anybody else's is refused.
        fs::copy(from, to)?;
        if let Some((user, group)) = user.change_to {
            chown(to, Some(user), Some(group))?;
        }
    }
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    Ok(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect())
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

    fn command(&self, life: Life, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let Some((user, group)) = self.change_to {
            command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
        }
        if life == Life::Ours {
            command.args(["--pdeathsig", "KILL"]);
        }
        command.arg(program);
        command
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
    match newest {
        Some(newest) => Ok(newest.join("bin")),
        None => bail!("no PostgreSQL server is installed (Debian: apt-get install postgresql)"),
    }
}

/// The server's user must be able to walk to its folder through the one that was made for it.
fn open_way(folder: &Path) -> anyhow::Result<()> {
    let above = folder.parent().context("the server's folder has a parent")?;
    Ok(fs::set_permissions(above, fs::Permissions::from_mode(0o711))?)
}
