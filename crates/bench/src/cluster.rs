//! The figures of a cluster: a gate, a relay and a worker as processes of `serve`, on servers that are there already, against the function
//! on Redis alone, against the embedded engine, and against the way that most shops go.
//!
//! Nothing is pinned: a dozen processes share this machine's cores, so rates say little and ratios say what they say of this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use engine::{ClusterSettings, Engine};
use ledger::Pace;
use serde_json::{Map, Value, json};
use services::nodes::Node;
use services::process::Life;

use crate::checks::Checks;
use crate::client::{ClientJob, ClientReport};
use crate::deployment::{AUDIENCE, ISSUER, RequestsFile, SECRET, Shape, engine_options, prepare, prepare_in};
use crate::figures::median;
use crate::folder::Workspace;
use crate::http_figures::{STOCK, closed_loop, measure, nothing_contradicts};
use crate::machine::Machine;
use crate::process::Job;
use crate::server::{Running, ServerJob};
use crate::{classic, function};

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 256;
const OPEN_CONNECTIONS: usize = 2_048;
const SOLD_OUT: &str = "sold-out";
const WINS: &str = "wins";
/// More than can win in all rounds.
const WINNERS: usize = 200_000;
/// So many that nobody comes more often than one may.
const STRANGERS: usize = 50_000;
/// Of the wins' requests, so many are for the open loop.
const WINNERS_OPEN: usize = 40_000;

/// What to measure, and where.
pub struct ClusterBenchOptions {
    /// The cluster's servers; its name must be one that nobody else uses.
    pub settings: ClusterSettings,
    /// The file that says where the servers are, for the processes of `serve`.
    pub configuration: PathBuf,
    /// The folder under which the bench's own data lies.
    pub data: PathBuf,
}

struct ClusterBench {
    settings: ClusterSettings,
    workspace: Workspace,
    nodes: Vec<Node>,
    progress: fn(&str),
    found: Map<String, Value>,
}

/// Measures, and gives one object with every figure once.
pub fn run_cluster(options: ClusterBenchOptions, progress: fn(&str)) -> anyhow::Result<Value> {
    let ClusterBenchOptions { settings, configuration, data } = options;
    let workspace = Workspace::create(&data)?;
    let machine = Machine::look(workspace.path())?;
    progress(&format!("measuring a cluster on {machine}; nothing is pinned"));
    let mut bench = ClusterBench { settings, workspace, nodes: Vec::new(), progress, found: Map::new() };
    bench.found.insert("machine".to_owned(), serde_json::to_value(&machine)?);
    bench.found.insert("replicas".to_owned(), json!(bench.settings.options.store.replicas));
    bench.found.insert("every_message_synced".to_owned(), json!(!bench.settings.options.store.dangerous_unsynced));
    let name = bench.settings.options.store.name.clone();
    for role in ["gate", "relay", "worker"] {
        progress(&format!("starting the {role}"));
        bench.nodes.push(start(bench.workspace.path(), role, &configuration, &name)?);
    }
    let (wins, strangers) = bench.prepare()?;
    bench.held(&wins)?;
    bench.refusals(&strangers)?;
    let audited = bench.audit();
    bench.found.insert("audits_clean".to_owned(), json!(audited.is_ok()));
    if let Err(error) = audited {
        progress(&format!("the audit is not clean, so there are no figures: {error:#}"));
        for key in ["cluster_held_vs_function", "cluster_held_p99_ms", "cluster_refusals_vs_embedded"] {
            bench.found.insert(key.to_owned(), Value::Null);
        }
    }
    bench.nodes.clear();
    function::remove(&bench.settings.options, &[WINS, SOLD_OUT])?;
    progress("the classic way: lock, look, decrement, publish");
    bench.found.extend(classic::measure(&bench.settings.options, progress)?);
    Ok(Value::Object(bench.found))
}

fn start(folder: &Path, role: &str, configuration: &Path, name: &str) -> anyhow::Result<Node> {
    let program = std::env::current_exe()?;
    let secret = String::from_utf8_lossy(SECRET);
    let settings = [
        format!("cluster.name={name}"),
        format!("identity.issuer={ISSUER}"),
        format!("identity.audience={AUDIENCE}"),
        format!("identity.hs256_secrets={secret}"),
        "public.threads=1".to_owned(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let folder = folder.canonicalize()?;
    let configuration = configuration.canonicalize()?;
    Node::start(Life::Ours, &folder, (role, role), (&program, &configuration), &settings)
}

impl ClusterBench {
    fn say(&self, text: &str) {
        (self.progress)(text);
    }

    /// Both sales with their customers, made by a process that takes no part afterwards.
    fn prepare(&self) -> anyhow::Result<(RequestsFile, RequestsFile)> {
        self.say("preparing customers with their passes");
        let mut settings = self.settings.clone();
        settings.options.roles = cluster::Roles::default();
        let options = engine::EngineOptions { cluster: Some(settings), ..engine_options(Pace::Unlimited) };
        let engine = Engine::start(&self.workspace.at("preparing"), options)?;
        let at = |name: &str| self.workspace.at(&format!("{name}.requests"));
        let shape = Shape::of;
        let wins = prepare_in(&engine, WINS, at(WINS), &shape(STOCK), WINNERS)?;
        let strangers = prepare_in(&engine, SOLD_OUT, at(SOLD_OUT), &shape(1), STRANGERS + 1)?;
        engine.stop();
        // The gate learns of new sales twice a second.
        std::thread::sleep(std::time::Duration::from_secs(2));
        Ok((wins, strangers))
    }

    fn gate(&self) -> anyhow::Result<(std::net::SocketAddr, u32)> {
        let gate = &self.nodes[0];
        Ok((gate.public.context("the gate serves no customers")?, gate.process.id()))
    }

    fn job(&self, requests: &RequestsFile) -> anyhow::Result<ClientJob> {
        Ok(ClientJob { connections: CONNECTIONS, ..closed_loop(self.gate()?, requests, None) })
    }

    /// `cluster_held_vs_function` and `cluster_held_p99_ms`.
    fn held(&mut self, requests: &RequestsFile) -> anyhow::Result<()> {
        let each = (WINNERS - WINNERS_OPEN) / ROUNDS;
        let (mut rounds, mut ratios, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..ROUNDS {
            let held: ClientReport = measure(ClientJob { first: number * each, count: each, ..self.job(requests)? })?;
            let function = function::per_second(&self.settings.options, &format!("function-{number}"))?;
            self.say(&format!(
                "held {}/{ROUNDS}: {:.0}/s through the gate (p99 {:.1} ms), {function:.0}/s by the function alone, ratio {:.3}",
                number + 1,
                held.per_second,
                held.p99_ms,
                held.per_second / function
            ));
            ratios.push(held.per_second / function);
            rates.push(held.per_second);
            rounds.push(json!({ "held": held, "function_per_s": function }));
        }
        let rate = median(rates);
        self.found.insert("cluster_held_vs_function".to_owned(), json!(median(ratios)));
        self.found.insert("cluster_held_per_s".to_owned(), json!(rate));
        self.found.insert("cluster_held_rounds".to_owned(), json!(rounds));
        let half = measure(ClientJob {
            first: ROUNDS * each,
            count: WINNERS_OPEN,
            rate: Some(rate / 2.0),
            connections: OPEN_CONNECTIONS,
            ..self.job(requests)?
        })?;
        self.say(&format!("held at {:.0}/s: p50 {} ms, p99 {} ms", rate / 2.0, half.p50_ms, half.p99_ms));
        self.found.insert("cluster_held_p99_ms".to_owned(), json!(half.p99_ms));
        self.found.insert("cluster_held_at_half_load".to_owned(), serde_json::to_value(&half)?);
        Ok(())
    }

    /// `cluster_refusals_vs_embedded`: sold-out refusals of the gate against those of an embedded engine, in turns.
    fn refusals(&mut self, requests: &RequestsFile) -> anyhow::Result<()> {
        let data = self.workspace.at("embedded");
        let alone = prepare(&data, &Shape::of(1), STRANGERS + 1)?;
        let embedded = Running::start(&Job::Server(ServerJob { data, core: None, checks: Checks::default() }))?;
        let (gate, _) = self.gate()?;
        for (address, requests) in [(gate, requests), (embedded.address, &alone)] {
            let (won, _) = crate::answer::fetch(address, &requests.one(0)?)?;
            ensure!(won.status == 201, "the only unit was answered {}", won.status);
        }
        let (mut rounds, mut ratios) = (Vec::new(), Vec::new());
        for number in 1..=ROUNDS {
            let strangers = |job: ClientJob| ClientJob { first: 1, count: STRANGERS, again: true, status: 409, ..job };
            let of_gate: ClientReport = measure(strangers(self.job(requests)?))?;
            let of_embedded: ClientReport = measure(strangers(ClientJob {
                address: embedded.address,
                server: embedded.helper.id(),
                ..self.job(&alone)?
            }))?;
            self.say(&format!(
                "sold out {number}/{ROUNDS}: {:.0}/s by the gate, {:.0}/s by the embedded engine ({:.2} and {:.2} us of CPU each)",
                of_gate.per_second, of_embedded.per_second, of_gate.server_microseconds, of_embedded.server_microseconds
            ));
            ratios.push(of_gate.per_second / of_embedded.per_second);
            rounds.push(json!({ "cluster": of_gate, "embedded": of_embedded }));
        }
        embedded.stop()?;
        self.found.insert("cluster_refusals_vs_embedded".to_owned(), json!(median(ratios)));
        self.found.insert("cluster_refusals_rounds".to_owned(), json!(rounds));
        Ok(())
    }

    /// The worker's books against its copy of the chain.
    fn audit(&self) -> anyhow::Result<()> {
        let worker = &self.nodes[2];
        for sale in [WINS, SOLD_OUT] {
            nothing_contradicts(&audit::audit(&worker.data, Some(sale), None, &mut |_| ())?)?;
        }
        Ok(())
    }
}
