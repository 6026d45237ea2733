//! `cargo xtask cluster up|down`: the servers of `services` and the engine's processes on them, all on this machine.

use std::path::Path;

use services::nodes::{NODES, Node, configure};
use services::process::Life;

use crate::process::{cargo, run, target};

/// Starts the servers where they are not running, and the engine's processes.
pub(crate) fn up(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/services");
    let servers = folder.join("cluster.toml");
    if !servers.exists() {
        crate::services::up(root, None)?;
    }
    run(&mut cargo(root, &["build", "--release", "--quiet"]))?;
    let program = target(root).join("release/doorbuster");
    let folder = folder.canonicalize()?.join("nodes");
    // Those of an earlier call go: they may be of another build.
    services::process::stop_all(&folder)?;
    let configuration = configure(&folder, &servers)?;
    for (name, role) in NODES {
        let node = Node::start(Life::ItsOwn, &folder, (name, role), (&program, &configuration), &[])?;
        let public = node.public.map_or_else(String::new, |address| format!(", customers at http://{address}"));
        eprintln!("cluster: {name} serves, operator at http://{}{public}", node.admin);
    }
    eprintln!(
        "cluster: all of it serves; configuration in {}\ncluster: try `cargo run --release -- demo --cluster`, end it with `cargo xtask \
         cluster down`",
        configuration.display()
    );
    Ok(())
}

/// The tests that speak HTTP and look at no file, each with a cluster of one process that has every role, on servers that all of them share.
const HTTP_SUITE: [&str; 10] = [
    "winners::",
    "refusals::",
    "operator::",
    "routes::",
    "express::",
    "handover::",
    "payments::",
    "provider::an_order_is_paid",
    "pending::who_does_not_wait",
    "streams::a_stream_",
];

/// The HTTP suite of the core, on a cluster; a part of it again with the Redis that Sentinels watch.
pub(crate) fn http_suite(root: &Path) -> anyhow::Result<()> {
    let folder = target(root).join("http-on-cluster");
    // What an interrupted run left behind.
    services::down(&folder)?;
    let cluster = services::up(Life::Ours, &folder, &services::nats::program(), &|_| {})?;
    let mut tests = cargo(root, &["test", "--quiet", "--locked", "--workspace", "--test", "system", "--"]);
    let outcome = run(tests.args(HTTP_SUITE).env("DOORBUSTER_TESTS_CLUSTER", &cluster.file));
    drop(cluster);
    services::down(&folder)?;
    outcome
}
