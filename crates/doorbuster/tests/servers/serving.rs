//! Serving: on servers that are reached by TLS only a sale begins, which takes all three of them; with a wrong password it does not.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use services::nodes::Node;
use services::process::{Life, free_ports};
use services::tls::Authority;
use services::{nats, postgres, redis};

use crate::deployment::{Deployment, single_nats};

const PROGRAM: &str = env!("CARGO_BIN_EXE_doorbuster");
const SALE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sale.toml");
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_sale_is_decided_by_servers_that_speak_tls_only() {
    let mut deployment = Deployment::new("serving");
    let authority = Authority::new().unwrap();
    let identity = authority.sign(&deployment.path("identity")).unwrap();
    let file = authority.write(deployment.folder.join("authority.pem")).unwrap();
    let port = free_ports(1).unwrap()[0];
    let redis = redis::single(Life::Ours, &deployment.path("redis"), &redis::tls(&identity, port)).unwrap();
    let nats = single_nats(&deployment.path("nats"), nats::SYNCED, &nats::tls(&identity));
    let (_postgres, address, login) =
        postgres::with_identity(Life::Ours, &deployment.path("pg"), Some(&identity)).unwrap();
    deployment.server("redis", &[format!("127.0.0.1:{port}")], &redis.login);
    deployment.nats(&nats);
    deployment.server("postgres", &[address], &login);
    for section in ["redis", "nats", "postgres"] {
        deployment.set(&format!("{section}.tls_authority"), file.to_str().unwrap());
    }
    deployment.set("nats.replicas", "1");
    deployment.set("nats.dangerous_few_replicas", "true");
    deployment.set("identity.dangerous_guest_tokens", "true");

    let (folder, configuration) = (deployment.path("nodes"), deployment.file());
    let engine = (std::path::Path::new(PROGRAM), configuration.as_path());
    // The first one gets the admin token.
    let gate = Node::start(Life::Ours, &folder, ("gate", "gate"), engine, &[]).unwrap();
    let _relay = Node::start(Life::Ours, &folder, ("relay", "relay"), engine, &[]).unwrap();
    let sale = |words: &[&str]| {
        let output = Command::new(PROGRAM).arg("sale").args(words).arg("--data").arg(&gate.data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    sale(&["create", SALE]);
    let start = Instant::now();
    let is_decided = |sales: &Value| sales[0]["rung"] == "full";
    while !is_decided(&serde_json::from_slice(&sale(&["list", "--json"])).unwrap()) {
        assert!(start.elapsed() < PATIENCE, "nobody decides the sale");
    }
}

#[test]
fn a_wrong_password_is_told_once_and_by_its_key() {
    let mut deployment = Deployment::new("passwords");
    let nats = single_nats(&deployment.path("nats"), nats::SYNCED, "");
    let (_postgres, address, login) = postgres::with_database(Life::Ours, &deployment.path("pg")).unwrap();
    deployment.nats(&nats);
    deployment.server("postgres", &[address], &login);
    for (key, value) in [("nats.replicas", "1"), ("nats.dangerous_few_replicas", "true")] {
        deployment.set(key, value);
    }
    deployment.set("identity.dangerous_guest_tokens", "true");
    for (section, said) in [("nats", "NATS refuses the user"), ("postgres", "password authentication failed")] {
        let wrong = format!("{section}.password=not-the-password");
        let mut serve = Command::new(PROGRAM);
        serve.args(["serve", "--set", &wrong, "--config"]).arg(deployment.file());
        let output = serve.arg("--data").arg(deployment.folder.join(format!("of-{section}"))).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        for once in [said, &format!("{section}.password")] {
            assert_eq!(told.matches(once).count(), 1, "{once} in {told}");
        }
        assert!(!told.contains("not-the-password"), "{told}");
    }
}
