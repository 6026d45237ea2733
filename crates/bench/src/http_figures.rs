//! The figures over HTTP: engine and bare server in turns, five rounds, on the same core, asked by the same client on another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use crate::bare::BareJob;
use crate::checks::{Checks, block_others};
use crate::client::{ClientJob, ClientReport};
use crate::deployment::{RequestsFile, Shape, prepare};
use crate::figures::median;
use crate::process::{Job, ask};
use crate::server::{Running, ServerJob};
use crate::{Bench, answer, folder, machine, postgres};

const ROUNDS: usize = 5;
pub(crate) const CONNECTIONS: usize = 512;
/// In an open loop a request that is due must find a free connection, also while the server stands still for a moment.
const OPEN_CONNECTIONS: usize = 4_096;
pub(crate) const WARM_UP_MILLISECONDS: u64 = 500;
pub(crate) const MEASURE_MILLISECONDS: u64 = 3_000;
/// A client that works more than this part of the time may be what is measured.
pub(crate) const CLIENT_BUSY_MAX: f64 = 0.9;
/// A schedule that is later than this is no schedule.
pub(crate) const LAG_MILLISECONDS_MAX: f64 = 50.0;
pub(crate) const STRANGERS: usize = 20_000;
/// Addresses from which they come where limits count them.
const SOURCES: u8 = 64;
/// More customers than can win in a round.
const WINNERS: usize = 420_000;
pub(crate) const STOCK: u32 = 50_000_000;

pub(crate) const HELD: u16 = 201;
pub(crate) const REFUSED: u16 = 409;

/// One round: both servers one after the other.
struct Round {
    engine: ClientReport,
    bare: ClientReport,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.engine.per_second / self.bare.per_second
    }
}

/// What is told of a measurement of refusals.
struct RefusalNotes {
    what: &'static str,
    ratio: &'static str,
    rounds: &'static str,
    per_second: [&'static str; 2],
    microseconds: [&'static str; 2],
    lost: &'static str,
}

/// `refusals_vs_bare`: one unit, sold; strangers with valid passes ask for it.
pub(crate) fn refusals(bench: &mut Bench) -> anyhow::Result<()> {
    let notes = RefusalNotes {
        what: "refusals",
        ratio: "refusals_vs_bare",
        rounds: "refusals_rounds",
        per_second: ["refusals_per_s", "refusals_bare_per_s"],
        microseconds: ["refusals_server_microseconds", "refusals_bare_microseconds"],
        lost: "refusals_server_core_lost",
    };
    refuse(bench, &notes, Checks::default(), 1)
}

/// `refusals_all_checks_vs_bare`: the same with limits for everybody, who come from many addresses, and a block list of others.
pub(crate) fn refusals_all_checks(bench: &mut Bench) -> anyhow::Result<()> {
    let notes = RefusalNotes {
        what: "refusals-all-checks",
        ratio: "refusals_all_checks_vs_bare",
        rounds: "refusals_all_checks_rounds",
        per_second: ["refusals_all_checks_per_s", "refusals_all_checks_bare_per_s"],
        microseconds: ["refusals_all_checks_server_microseconds", "refusals_all_checks_bare_microseconds"],
        lost: "refusals_all_checks_server_core_lost",
    };
    refuse(bench, &notes, Checks { has_limits: true, ..Checks::default() }, SOURCES)
}

fn refuse(bench: &mut Bench, notes: &RefusalNotes, checks: Checks, sources: u8) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    note_syncs(bench)?;
    bench.say(&format!("{}: preparing strangers", notes.what));
    let data = bench.workspace.at(notes.what);
    let requests = prepare(&data, &Shape::of(1), STRANGERS + 1)?;
    if checks.has_limits {
        block_others(&data)?;
    }
    let engine = Running::start(&Job::Server(ServerJob { data: data.clone(), core: Some(server_core), checks }))?;
    let (won, _) = answer::fetch(engine.address, &requests.one(0)?)?;
    ensure!(won.status == HELD, "the first customer was answered {}", won.status);
    let bare = start_bare(bench, &engine, &requests.one(1)?, REFUSED)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let job = |server: &Running| ClientJob { sources, ..strangers(server, &requests, client_core) };
        let round = Round { engine: measure(job(&engine))?, bare: measure(job(&bare))? };
        say_round(bench, notes.what, number, &round);
        rounds.push(round);
    }
    engine.stop()?;
    bare.stop()?;
    check_audit(bench, &data, 1)?;
    note_rounds(bench, notes.rounds, &rounds);
    bench.figures.note_number(notes.per_second[0], median(rounds.iter().map(|round| round.engine.per_second)));
    bench.figures.note_number(notes.per_second[1], median(rounds.iter().map(|round| round.bare.per_second)));
    note_microseconds(bench, notes.microseconds, &rounds);
    note_disturbance(bench, notes.lost, &rounds);
    set_ratio(bench, notes.ratio, &rounds);
    Ok(())
}

/// A closed loop of all but the first customer, who are refused.
pub(crate) fn strangers(server: &Running, requests: &RequestsFile, core: usize) -> ClientJob {
    let count = requests.count - 1;
    ClientJob { first: 1, count, again: true, status: REFUSED, ..client_job(server, requests, core) }
}

/// `wins_vs_bare`, and what needs its rate: `wins_vs_postgres` and `held_p99_ms`.
pub(crate) fn wins(bench: &mut Bench) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    note_syncs(bench)?;
    bench.say("wins: preparing customers with their passes");
    let fresh = bench.workspace.at("wins");
    let requests = prepare(&fresh, &Shape::of(STOCK), WINNERS + 1)?;
    let mut bare = None;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let data = bench.workspace.at("wins-round");
        folder::copy(&fresh, &data)?;
        let engine = Running::start(&Job::Server(ServerJob {
            data: data.clone(),
            core: Some(server_core),
            checks: Checks::default(),
        }))?;
        let bare = match &mut bare {
            Some(bare) => bare,
            none => none.insert(start_bare(bench, &engine, &requests.one(WINNERS)?, HELD)?),
        };
        let job = |server: &Running| ClientJob { count: WINNERS, ..client_job(server, &requests, client_core) };
        let of_engine = measure(job(&engine))?;
        engine.stop()?;
        check_audit(bench, &data, of_engine.counted)?;
        folder::remove(&data);
        let round = Round { engine: of_engine, bare: measure(job(bare))? };
        say_round(bench, "wins", number, &round);
        rounds.push(round);
    }
    drop(bare);
    let wins_per_second = median(rounds.iter().map(|round| round.engine.per_second));
    note_rounds(bench, "wins_rounds", &rounds);
    bench.figures.note_number("wins_per_s", wins_per_second);
    bench.figures.note_number("wins_bare_per_s", median(rounds.iter().map(|round| round.bare.per_second)));
    note_microseconds(bench, ["wins_server_microseconds", "wins_bare_microseconds"], &rounds);
    bench.figures.note("wins_books_pace_per_s", json!(5_000));
    note_disturbance(bench, "wins_server_core_lost", &rounds);
    set_ratio(bench, "wins_vs_bare", &rounds);
    if bench.figures.wanted("held_p99_ms")
        && let Err(error) = half_load(bench, &fresh, &requests, wins_per_second / 2.0)
    {
        bench.figures.void("held_p99_ms", &format!("{error:#}"));
    }
    bench.workspace.clear();
    if bench.figures.wanted("wins_vs_postgres") {
        match postgres::orders_per_second(bench) {
            Ok(per_second) => bench.figures.set("wins_vs_postgres", wins_per_second / per_second),
            Err(error) => bench.figures.void("wins_vs_postgres", &format!("{error:#}")),
        }
    }
    Ok(())
}

/// `held_p99_ms`: an open loop at `rate`, time counted from the schedule.
fn half_load(bench: &mut Bench, fresh: &Path, requests: &RequestsFile, rate: f64) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    let data = bench.workspace.at("wins-half");
    folder::copy(fresh, &data)?;
    let engine = Running::start(&Job::Server(ServerJob {
        data: data.clone(),
        core: Some(server_core),
        checks: Checks::default(),
    }))?;
    let report = measure(ClientJob {
        count: WINNERS,
        rate: Some(rate),
        connections: OPEN_CONNECTIONS,
        ..client_job(&engine, requests, client_core)
    })?;
    engine.stop()?;
    check_audit(bench, &data, report.counted)?;
    bench.say(&format!(
        "held at {rate:.0}/s: p50 {} ms, p99 {} ms, max {} ms",
        report.p50_ms, report.p99_ms, report.max_ms
    ));
    bench.figures.note("held_at_half_load", serde_json::to_value(&report)?);
    ensure!(report.lag_p99_ms <= LAG_MILLISECONDS_MAX, "the client was {} ms late at p99", report.lag_p99_ms);
    bench.figures.set("held_p99_ms", report.p99_ms);
    Ok(())
}

/// A closed loop of the usual length, for answers of 201.
pub(crate) fn client_job(server: &Running, requests: &RequestsFile, core: usize) -> ClientJob {
    closed_loop((server.address, server.helper.id()), requests, Some(core))
}

/// The same for a server that listens there and is that process.
pub(crate) fn closed_loop(
    (address, server): (SocketAddr, u32),
    requests: &RequestsFile,
    core: Option<usize>,
) -> ClientJob {
    ClientJob {
        address,
        server,
        requests: requests.clone(),
        first: 0,
        count: requests.count,
        again: false,
        connections: CONNECTIONS,
        warm_up_milliseconds: WARM_UP_MILLISECONDS,
        measure_milliseconds: MEASURE_MILLISECONDS,
        rate: None,
        warm_up_rate: None,
        sources: 1,
        status: HELD,
        core,
    }
}

/// Runs a client; any answer but the one expected makes the run worthless.
pub(crate) fn measure(job: ClientJob) -> anyhow::Result<ClientReport> {
    let report = run(job)?;
    if let Some((status, count)) = report.others.first_key_value() {
        bail!("{count} requests were answered {status}");
    }
    Ok(report)
}

/// Runs a client.
pub(crate) fn run(job: ClientJob) -> anyhow::Result<ClientReport> {
    ask(&Job::Client(job))
}

/// Asks the engine once, and starts a bare server that always answers those bytes.
fn start_bare(bench: &Bench, engine: &Running, request: &[u8], status: u16) -> anyhow::Result<Running> {
    let (server_core, _) = bench.machine.cores()?;
    let (answered, bytes) = answer::fetch(engine.address, request)?;
    ensure!(answered.status == status, "a sample was answered {} instead of {status}", answered.status);
    let path: PathBuf = bench.workspace.at(&format!("answer-{status}"));
    std::fs::write(&path, bytes)?;
    Running::start(&Job::Bare(BareJob { answer: path, core: Some(server_core) }))
}

/// Audits a folder that nobody serves any more: not one contradiction, and an order for every win that a client counted.
pub(crate) fn check_audit(bench: &mut Bench, data: &Path, wins: u64) -> anyhow::Result<audit::SaleReport> {
    let outcome = audited(data, wins);
    if outcome.is_err() {
        bench.figures.audit_failed();
    }
    outcome.context("the audit of this run is not clean")
}

fn audited(data: &Path, wins: u64) -> anyhow::Result<audit::SaleReport> {
    let mut report = audit::audit(data, None, None, &mut |_| ())?;
    nothing_contradicts(&report)?;
    let sale = report.sales.pop().context("there is no sale")?;
    ensure!(sale.orders >= wins, "{wins} wins were answered, the chain has {} orders", sale.orders);
    Ok(sale)
}

/// What has nothing to check here (answers without notes, say) does not count against a run; a contradiction does.
pub(crate) fn nothing_contradicts(report: &audit::AuditReport) -> anyhow::Result<()> {
    for (name, promise) in report.promises.iter().chain(&report.proof) {
        ensure!(promise.violations == 0, "{name}: {}", promise.evidence.join("; "));
    }
    Ok(())
}

fn set_ratio(bench: &mut Bench, key: &'static str, rounds: &[Round]) {
    let busiest =
        rounds.iter().flat_map(|round| [round.engine.client_busy, round.bare.client_busy]).fold(0.0, f64::max);
    if busiest >= CLIENT_BUSY_MAX {
        let reason = format!("the client was {:.0} % busy; it may be what was measured", busiest * 100.0);
        bench.figures.void(key, &reason);
    } else {
        bench.figures.set(key, median(rounds.iter().map(Round::ratio)));
    }
}

/// How much of the server's core went to other work on this machine, told by the bare server, which never waits. A ratio between
/// rounds that lost a good part of it says little; the microseconds beside it say more then.
fn note_disturbance(bench: &mut Bench, key: &'static str, rounds: &[Round]) {
    bench.figures.note_number(key, median(rounds.iter().map(|round| (1.0 - round.bare.server_busy).max(0.0))));
}

/// CPU that either server spent on a request.
fn note_microseconds(bench: &mut Bench, [engine, bare]: [&'static str; 2], rounds: &[Round]) {
    bench.figures.note_number(engine, median(rounds.iter().map(|round| round.engine.server_microseconds)));
    bench.figures.note_number(bare, median(rounds.iter().map(|round| round.bare.server_microseconds)));
}

fn note_rounds(bench: &mut Bench, key: &'static str, rounds: &[Round]) {
    let rounds: Vec<_> = rounds.iter().map(|round| json!({"engine": round.engine, "bare": round.bare})).collect();
    bench.figures.note(key, json!(rounds));
}

fn say_round(bench: &Bench, what: &str, number: usize, round: &Round) {
    let told = |report: &ClientReport| {
        format!(
            "{:.0}/s ({:.2} us of server CPU each, server {:.0} %, client {:.0} % busy, p99 {:.1} ms)",
            report.per_second,
            report.server_microseconds,
            report.server_busy * 100.0,
            report.client_busy * 100.0,
            report.p99_ms
        )
    };
    bench.say(&format!(
        "{what} {number}/{ROUNDS}: engine {}, bare {}, ratio {:.3}",
        told(&round.engine),
        told(&round.bare),
        round.ratio()
    ));
}

pub(crate) fn note_syncs(bench: &mut Bench) -> anyhow::Result<()> {
    let (p50, p99) = machine::sync_milliseconds(bench.workspace.path())?;
    bench.figures.note("fdatasync_ms", json!({"p50": p50, "p99": p99}));
    Ok(())
}
