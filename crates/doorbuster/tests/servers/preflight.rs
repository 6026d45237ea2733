//! Preflight against real servers: what is fit passes, what would forget is refused with a reason, and no password is shown.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use services::process::{Life, free_ports};
use services::redis::Login;
use services::tls::Authority;
use services::{nats, postgres, redis};

use crate::deployment::{Deployment, single_nats};

/// How long a server waits that forgets what it has acknowledged.
const UNSYNCED: &str = "2m";

#[test]
fn servers_that_keep_everything_are_fit_and_by_tls_too() {
    let mut deployment = Deployment::new("fit");
    let authority = Authority::new().unwrap();
    let identity = authority.sign(&deployment.path("identity")).unwrap();
    let file = authority.write(deployment.folder.join("authority.pem")).unwrap();
    let port = free_ports(1).unwrap()[0];
    let redis = redis::single(Life::Ours, &deployment.path("redis"), &redis::tls(&identity, port)).unwrap();
    let nats = nats::cluster(Life::Ours, &deployment.path("nats"), &nats::program()).unwrap();
    let (_postgres, address, login) =
        postgres::with_identity(Life::Ours, &deployment.path("pg"), Some(&identity)).unwrap();
    deployment.server("redis", &[format!("127.0.0.1:{port}")], &redis.login);
    deployment.nats(&nats);
    deployment.server("postgres", &[address], &login);
    for section in ["redis", "postgres"] {
        deployment.set(&format!("{section}.tls_authority"), file.to_str().unwrap());
    }
    let checks = deployment.preflight();
    for name in ["redis", "nats", "stream", "vault", "clock"] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["ok"], true, "{check}");
    }
    for name in ["data folder", "file system", "fdatasync", "open files", "identity"] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name} is checked in a cluster too");
    }
    deployment.set("redis.tls_authority", "");
    deployment.refuses("redis", "TLS");
    let stranger = Authority::new().unwrap().write(deployment.folder.join("stranger.pem")).unwrap();
    deployment.set("postgres.tls_authority", stranger.to_str().unwrap());
    deployment.refuses("vault", "certificate");
    // Whose a stream is, the vault tells.
    deployment.refuses("stream", "only the vault tells");
    deployment.set("postgres.tls_authority", file.to_str().unwrap());

    let alone = single_nats(&deployment.path("alone"), nats::SYNCED, &nats::tls(&identity));
    deployment.nats(&alone);
    deployment.refuses("stream", "nats.tls_authority is not set");
    deployment.set("nats.tls_authority", stranger.to_str().unwrap());
    deployment.refuses("stream", "certificate");
    deployment.set("nats.tls_authority", file.to_str().unwrap());
    deployment.set("nats.replicas", "1");
    deployment.set("nats.dangerous_few_replicas", "true");
    deployment.refuses("stream", "doorbuster_main: nats.replicas is 1");
}

#[test]
fn an_authority_that_is_missing_or_no_authority_is_named_with_its_key() {
    let mut deployment = Deployment::new("authority");
    let empty = deployment.folder.join("empty.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let broken = deployment.folder.join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for file in [deployment.folder.join("missing.pem"), empty, broken] {
        for section in ["redis", "nats", "postgres"] {
            let key = format!("{section}.tls_authority");
            deployment.set(&key, file.to_str().unwrap());
            deployment.refuses("settings", &format!("{key}: {}", file.display()));
            deployment.set(&key, "");
        }
    }
}

#[test]
fn a_redis_that_forgets_or_may_be_emptied_is_refused() {
    let mut deployment = Deployment::new("redis");
    deployment.refuses("redis", "does not answer");
    deployment.refuses("clock", "no server tells the time");
    for (number, (more, reason)) in
        [("maxmemory-policy allkeys-lru\n", "maxmemory-policy is allkeys-lru"), ("appendonly no\n", "appendonly is no")]
            .into_iter()
            .enumerate()
    {
        let folder = deployment.path(&format!("redis-{number}"));
        let redis = redis::single(Life::Ours, &folder, more).unwrap();
        deployment.server("redis", &redis.addresses, &redis.login);
        deployment.refuses("redis", &format!("{}: {reason}", redis.addresses[0]));
    }
    let redis = redis::single(Life::Ours, &deployment.path("redis"), "").unwrap();
    deployment.server("redis", &redis.addresses, &redis.login);
    assert!(deployment.check("redis").0);
    let away = format!("127.0.0.1:{}", free_ports(1).unwrap()[0]);
    deployment.server("redis", &[away.clone(), redis.addresses[0].to_string()], &redis.login);
    let (ok, found) = deployment.check("redis");
    assert!(ok && found.contains("1 of 2 servers") && found.contains(&away), "{found}");
    deployment.server("redis", &redis.addresses, &redis.admin);
    deployment.refuses("redis", "the user may empty it");
}

#[test]
fn every_server_behind_sentinels_and_of_a_redis_cluster_is_asked() {
    let mut deployment = Deployment::new("many");
    let (watched, sentinels) = redis::sentinel(Life::Ours, &deployment.path("sentinel")).unwrap();
    deployment.server("redis", &sentinels, &watched.login);
    deployment.set("redis.topology", "sentinel");
    deployment.set("redis.sentinel_name", "doorbuster");
    let (ok, found) = deployment.check("redis");
    assert!(ok && found.contains("3 of 3 servers"), "{found}");
    let mut replica = watched.connect(watched.addresses[2]).unwrap();
    set(&mut replica, "maxmemory-policy", "volatile-lru");
    deployment.refuses("redis", &format!("{}: maxmemory-policy is volatile-lru", watched.addresses[2]));
    deployment.set("redis.sentinel_name", "another");
    deployment.refuses("redis", "no master of that name");

    let cluster = redis::cluster(Life::Ours, &deployment.path("cluster")).unwrap();
    deployment.server("redis", &cluster.addresses[..1], &cluster.login);
    deployment.set("redis.topology", "cluster");
    // Members hear of each other's replicas by and by.
    let known = (0..100).find(|_| deployment.check("redis").1.contains("6 of 6 servers"));
    assert!(known.is_some(), "{:?}", deployment.check("redis"));
    set(&mut cluster.connect(cluster.addresses[5]).unwrap(), "appendonly", "no");
    deployment.refuses("redis", &format!("{}: appendonly is no", cluster.addresses[5]));
}

fn set(server: &mut ::redis::Connection, key: &str, value: &str) {
    let mut command = ::redis::cmd("CONFIG");
    command.arg("SET").arg(key).arg(value).query::<()>(server).unwrap();
}

#[test]
fn a_nats_that_does_not_sync_and_a_stream_that_loses_messages_are_refused() {
    let mut deployment = Deployment::new("nats");
    let (_postgres, address, login) = postgres::with_database(Life::Ours, &deployment.path("pg")).unwrap();
    deployment.server("postgres", &[address], &login);
    deployment.set("nats.dangerous_few_replicas", "true");
    deployment.set("nats.replicas", "1");
    deployment.refuses("nats", "refused");
    deployment.refuses("stream", "no NATS server answers");
    let unsynced = single_nats(&deployment.path("unsynced"), UNSYNCED, "");
    deployment.nats(&unsynced);
    deployment.refuses("nats", "not every message is synced");
    // It is made at once, and stands on a single server.
    deployment.refuses("stream", "nats.replicas is 1");
    deployment.set("nats.replicas", "3");
    deployment.refuses("stream", "doorbuster_main");

    let synced = single_nats(&deployment.path("synced"), nats::SYNCED, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = synced.admin.clone();
        let client = ConnectOptions::with_user_and_password(admin.user, admin.password);
        let client = client.connect(synced.addresses[0].to_string()).await.unwrap();
        let forgetful = Config {
            name: "doorbuster_main".to_owned(),
            subjects: vec!["log.main.>".to_owned()],
            max_age: std::time::Duration::from_secs(3_600),
            discard: DiscardPolicy::New,
            ..Config::default()
        };
        async_nats::jetstream::new(client).create_stream(forgetful).await.unwrap();
    });
    deployment.nats(&synced);
    deployment.set("nats.replicas", "1");
    assert!(deployment.check("nats").0);
    deployment.refuses("stream", "max_age must be unset");
    deployment.set("nats.password", "not-the-password");
    deployment.refuses("stream", "nats.password");
}

#[test]
fn a_vault_that_lets_nobody_in_is_refused() {
    let mut deployment = Deployment::new("vault");
    deployment.refuses("vault", "does not answer");
    let (_postgres, address, login) = postgres::with_database(Life::Ours, &deployment.path("pg")).unwrap();
    deployment.server("postgres", &[address], &login);
    assert!(deployment.check("vault").0);
    deployment.server("postgres", &[address], &Login { password: "not-the-password".to_owned(), ..login });
    deployment.refuses("vault", "password authentication failed");
    deployment.refuses("vault", "postgres.password");
}

/// Answers as the monitoring of a server would that does all that is wanted, and whose clock is wrong.
#[test]
fn a_server_with_another_time_is_refused() {
    let mut deployment = Deployment::new("clock");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    deployment.set("nats.monitors", &listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let (mut client, mut asked) = (client, [0; 1_024]);
            let now = if number == 0 { "2001-01-01T00:00:00Z" } else { "2101-01-01T00:00:00.123456789Z" };
            let told = format!(
                r#"{{"version":"2.15.1","server_name":"n","now":"{now}","jetstream":{{"config":{{"sync_always":true}}}}}}"#
            );
            let _ = client.read(&mut asked);
            let _ = client.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{told}").as_bytes());
        }
    });
    deployment.refuses("clock", "ms behind");
    deployment.refuses("clock", "ms ahead");
    let old = TcpListener::bind("127.0.0.1:0").unwrap();
    deployment.set("nats.monitors", &old.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for mut client in old.incoming().flatten() {
            let told = r#"{"version":"2.11.9","server_name":"n","now":"2101-01-01T00:00:00Z","jetstream":{"config":{"sync_always":true}}}"#;
            let _ = client.read(&mut [0; 1_024]);
            let _ = client.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{told}").as_bytes());
        }
    });
    deployment.refuses("nats", "the version is 2.11.9");
}
