//! The measurements of `doorbuster bench`: every figure with its method, on this machine, or null with the reason.
//!
//! Servers and clients are processes of their own, started from this very executable and pinned to a core each. What is measured is
//! what `serve` runs; nothing here takes a short cut through the engine. A run whose audit is not clean has no figure.

mod answer;
mod bare;
mod checks;
mod classic;
mod client;
mod cluster;
mod deployment;
mod figures;
mod folder;
mod function;
mod grow;
mod http_figures;
mod long_figures;
mod machine;
mod overload_figures;
mod postgres;
mod process;
mod server;

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

pub use crate::cluster::{ClusterBenchOptions, run_cluster};
use crate::figures::Figures;
use crate::folder::Workspace;
use crate::machine::Machine;

/// What to measure.
pub struct BenchOptions {
    /// The caller prints the returned object; else a table is printed here.
    pub json: bool,
    /// Also the figures over one and ten million customers, which take long.
    pub full: bool,
    /// Only these figures; empty is all.
    pub only: Vec<String>,
    /// The folder under which the bench's own data lies, on a block device; what the bench puts there it removes.
    pub data: PathBuf,
}

/// What every measurement works with.
struct Bench {
    figures: Figures,
    workspace: Workspace,
    machine: Machine,
    progress: fn(&str),
}

impl Bench {
    fn say(&self, text: &str) {
        (self.progress)(text);
    }

    /// Runs one measurement; its error makes void what it has not set.
    fn measure(&mut self, keys: &[&'static str], measurement: fn(&mut Self) -> anyhow::Result<()>) {
        if !self.figures.any_wanted(keys) {
            return;
        }
        let outcome = measurement(self);
        if let Err(error) = &outcome {
            self.say(&format!("{}: {error:#}", keys.join(", ")));
        }
        for key in keys {
            let reason = outcome.as_ref().err().map_or("not measured".to_owned(), |error| format!("{error:#}"));
            self.figures.void_unless_set(key, &reason);
        }
        self.workspace.clear();
    }
}

/// Measures, and gives one object with every figure once: a number, or null with its reason under `reasons`. Says now and then
/// through `progress` what is going on. Fails only where nothing can be measured at all: a wrong name, a folder that is not on a disk.
pub fn run(options: BenchOptions, progress: fn(&str)) -> anyhow::Result<serde_json::Value> {
    let figures = Figures::new(options.full, &options.only)?;
    let workspace = Workspace::create(&options.data)?;
    let machine = Machine::look(workspace.path())?;
    progress(&format!("measuring on {machine}"));
    let mut bench = Bench { figures, workspace, machine, progress };
    bench.figures.note("machine", serde_json::to_value(&bench.machine)?);
    bench.measure(&["refusals_vs_bare"], http_figures::refusals);
    bench.measure(&["refusals_all_checks_vs_bare"], http_figures::refusals_all_checks);
    bench.measure(&["overload_useful"], overload_figures::limited);
    bench.measure(&["overload_useful_cpu_bound", "overload_recovery_ms"], overload_figures::cpu_bound);
    bench.measure(&["wins_vs_bare", "wins_vs_postgres", "held_p99_ms"], http_figures::wins);
    bench.measure(&["decisions_per_second"], long_figures::decisions);
    bench.measure(
        &["bytes_per_customer", "restart_1m_seconds", "verify_1m_seconds", "drain_1m_seconds"],
        long_figures::million,
    );
    bench.measure(&["longest_stall_ms"], long_figures::stall);
    bench.measure(&["scale_10m_in_process", "scale_10m_http"], long_figures::ten_million);
    let Bench { figures, .. } = bench;
    if !options.json {
        std::io::stdout().write_all(figures.table().as_bytes())?;
    }
    Ok(json!(figures.into_object()))
}

/// A process of the bench: `args` is what [`run`] put on its command line. Ends when its work is done or its parent has gone.
pub fn child(args: &[String]) -> anyhow::Result<()> {
    process::child(args)
}
