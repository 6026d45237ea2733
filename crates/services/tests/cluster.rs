//! The servers of a cluster: started for real, used with the engine's rights, ended without a trace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use services::process::Life;
use services::redis::Login;

fn redis_says(address: SocketAddr, login: &Login, words: &[&str]) -> Result<redis::Value, String> {
    let url = format!("redis://{}:{}@{address}/", login.user, login.password);
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut connection).map_err(|error| error.to_string())
}

/// What a NATS server says to a message on that subject by that user.
fn nats_says(address: SocketAddr, login: &Login, subject: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let connect = format!(
        "CONNECT {{\"verbose\":false,\"user\":\"{}\",\"pass\":\"{}\"}}\r\nPUB {subject} 0\r\n\r\nPING\r\n",
        login.user, login.password
    );
    stream.write_all(connect.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("-ERR") || line.starts_with("PONG")).unwrap_or_default()
}

/// Processes that work in the folder.
fn processes_in(folder: &Path) -> usize {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    numbers.filter(|path| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))).count()
}

#[test]
fn servers_are_ready_when_up_returns_and_gone_when_down_does() {
    let folder = std::env::temp_dir().join(format!("doorbuster-services-{}", std::process::id()));
    // Whatever happens below, nothing is left running.
    struct Down<'a>(&'a Path);
    impl Drop for Down<'_> {
        fn drop(&mut self) {
            drop(services::down(self.0));
            drop(std::fs::remove_dir_all(self.0));
        }
    }
    let _down = Down(&folder);
    let cluster = services::up(Life::ItsOwn, &folder, &services::nats::program(), &|_| ()).unwrap();
    let files = [cluster.file.clone(), cluster.file.with_file_name("cluster-sentinel.toml")];
    let written = files.map(|file| std::fs::read_to_string(file).unwrap()).concat();
    for address in cluster.redis.addresses.iter().chain(&cluster.sentinel.1).chain(&cluster.nats.addresses) {
        assert!(written.contains(&address.to_string()), "{address} in {written}");
    }
    assert!(services::up(Life::ItsOwn, &folder, &services::nats::program(), &|_| ()).is_err(), "they are up already");

    // The engine's user works with its own keys and can neither see others nor empty anything.
    let (first, login) = (cluster.redis.addresses[0], &cluster.redis.login);
    let keys = redis_says(first, login, &["CLUSTER", "SLOTS"]);
    assert!(keys.is_ok(), "{keys:?}");
    for forbidden in
        [&["FLUSHALL"][..], &["FLUSHDB"], &["CONFIG", "GET", "*"], &["GET", "others"], &["FUNCTION", "FLUSH"]]
    {
        let said = redis_says(first, login, forbidden);
        assert!(
            said.as_ref().is_err_and(|error| error.contains("NOPERM") || error.contains("permission")),
            "{forbidden:?}: {said:?}"
        );
    }
    let master = cluster.sentinel.0.addresses[0];
    let login = &cluster.sentinel.0.login;
    redis_says(master, login, &["SET", "doorbuster:{a}:state", "1"]).unwrap();
    redis_says(
        master,
        login,
        &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() return 1 end)"],
    )
    .unwrap();

    // The engine's user may ask JetStream for a lot, and not for losing a stream.
    let nats = &cluster.nats;
    assert_eq!(nats_says(nats.addresses[1], &nats.login, "$JS.API.STREAM.INFO.sales"), "PONG");
    for subject in ["$JS.API.STREAM.PURGE.sales", "$JS.API.STREAM.DELETE.sales", "others.subject"] {
        let said = nats_says(nats.addresses[1], &nats.login, subject);
        assert!(said.contains("Permissions Violation"), "{subject}: {said}");
    }
    let stranger = Login { password: "wrong".to_owned(), ..nats.login.clone() };
    assert!(nats_says(nats.addresses[0], &stranger, "log.x").contains("Authorization Violation"));

    assert!(processes_in(&folder.canonicalize().unwrap()) > 15);
    let known = folder.canonicalize().unwrap();
    assert_eq!(services::down(&folder).unwrap(), 16);
    assert_eq!(processes_in(&known), 0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left in the folder");
}

#[test]
fn a_server_of_ours_ends_with_us_and_one_that_cannot_start_says_why() {
    let folder = std::env::temp_dir().join(format!("doorbuster-process-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("600");
    let sleeping = services::process::Started::new(Life::Ours, &folder, "sleeper", sleeper).unwrap();
    let number = sleeping.id();
    drop(sleeping);
    assert!(!Path::new(&format!("/proc/{number}")).exists());
    let mut failing = Command::new("sh");
    failing.args(["-c", "echo no such luck; exit 3"]);
    let mut failed = services::process::Started::new(Life::Ours, &folder, "failing", failing).unwrap();
    let error = failed.until("being ready", || None::<()>).unwrap_err().to_string();
    assert!(error.contains("no such luck") && error.contains("being ready"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}
