//! The figures about size: decisions in process, and what a million or ten million customers cost.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use chain::{DiskFiles, LogReader, Watermark};
use ledger::{Books, BooksService, FollowState, Pace, Service};
use serde_json::json;

use crate::checks::Checks;
use crate::client::{ClientJob, ClientReport};
use crate::deployment::{RequestsFile, SALE, Shape, prepare};
use crate::figures::median;
use crate::grow::{GrowJob, GrowReport};
use crate::http_figures::{STOCK, check_audit, client_job, measure};
use crate::process::{Job, ask};
use crate::server::{Running, ServerJob};
use crate::{Bench, answer, folder};

const MILLION: u32 = 1_000_000;
const TEN_MILLION: u32 = 10 * MILLION;
const TEN_THOUSAND: u32 = 10_000;
/// Grants that a stretch of `scale_10m_in_process` lasts.
const STRETCH: u32 = 500_000;
/// Grants of `decisions_per_second`, after as many as a tenth to warm up.
const DECISIONS: u32 = 1_000_000;
const SCALE_ROUNDS: usize = 5;
const SCALE_WINNERS: usize = 300_000;
const SCALE_MEASURE_MILLISECONDS: u64 = 2_000;
const RESTARTS: usize = 3;
/// Long enough that the holds expire while the client measures, and not before.
const STALL_HOLD_SECONDS: u64 = 20;
const STALL_MILLISECONDS: u64 = 40_000;
const STALL_RATE: f64 = 2_000.0;
const DRAIN_PATIENCE: Duration = Duration::from_secs(300);

fn shape() -> Shape {
    Shape::of(STOCK)
}

/// `decisions_per_second`: a fresh sale, real requests, a durable log, no core to stay on.
pub(crate) fn decisions(bench: &mut Bench) -> anyhow::Result<()> {
    bench.say("decisions: in process, on a log of its own");
    let data = bench.workspace.at("decisions");
    prepare(&data, &shape(), 0)?;
    let warm_up = DECISIONS / 10;
    let job =
        GrowJob { data: data.clone(), until: warm_up + DECISIONS, timed: vec![(warm_up, DECISIONS)], old_keys: false };
    let report: GrowReport = ask(&Job::Grow(job))?;
    check_audit(bench, &data, u64::from(warm_up + DECISIONS))?;
    let per_second = report.per_second.first().copied().context("nothing was timed")?;
    bench.say(&format!("decisions: {per_second:.0}/s"));
    bench.figures.set("decisions_per_second", per_second);
    Ok(())
}

/// What a million customers cost: memory, restart, verification, books.
pub(crate) fn million(bench: &mut Bench) -> anyhow::Result<()> {
    bench.say("a million customers: granting");
    let data = bench.workspace.at("million");
    let requests = prepare(&data, &shape(), 1)?;
    let job = GrowJob { data: data.clone(), until: MILLION, timed: Vec::new(), old_keys: true };
    let report: GrowReport = ask(&Job::Grow(job))?;
    let (before, after) = report.resident_bytes;
    bench.figures.note("bytes_per_customer_old_keys_answered", json!(report.old_keys));
    let bytes_each = after.saturating_sub(before) as f64 / f64::from(MILLION);
    bench.say(&format!("a million customers: {bytes_each:.0} bytes each, {} old keys answered", report.old_keys));
    let restarts = restart_seconds(bench, &data, &requests)?;
    check_audit(bench, &data, u64::from(MILLION) + 1)?;
    bench.figures.set("bytes_per_customer", bytes_each);
    bench.figures.set("restart_1m_seconds", restarts);
    if bench.figures.wanted("verify_1m_seconds") {
        verify_seconds(bench, &data)?;
    }
    if bench.figures.wanted("drain_1m_seconds") {
        drain_seconds(bench, &data)?;
    }
    Ok(())
}

/// From the start of the process to its first answer, which is an old win.
fn restart_seconds(bench: &mut Bench, data: &Path, requests: &RequestsFile) -> anyhow::Result<f64> {
    let request = requests.one(0)?;
    let job = Job::Server(ServerJob { data: data.to_owned(), core: None, checks: Checks::default() });
    let server = Running::start(&job)?;
    let (won, _) = answer::fetch(server.address, &request)?;
    ensure!(won.status == 201, "the customer was answered {}", won.status);
    server.stop()?;
    let mut seconds = Vec::new();
    for _ in 0..RESTARTS {
        let start = Instant::now();
        let server = Running::start(&job)?;
        let (again, _) = answer::fetch(server.address, &request)?;
        seconds.push(start.elapsed().as_secs_f64());
        ensure!(again.status == 200, "the winner was answered {} after the restart", again.status);
        server.stop()?;
    }
    bench.say(&format!("restart: {seconds:.2?} seconds"));
    bench.figures.note("restart_1m_rounds", json!(seconds));
    Ok(median(seconds))
}

fn verify_seconds(bench: &mut Bench, data: &Path) -> anyhow::Result<()> {
    let export = bench.workspace.at("export");
    let start = Instant::now();
    audit::export(data, None, &export)?;
    bench.figures.note_number("export_1m_seconds", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let report = audit::verify(&export, None, &[])?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(report.ok, "the export is not proven:\n{report}");
    bench.say(&format!("verify: {seconds:.2} seconds for {} records", report.records));
    bench.figures.set("verify_1m_seconds", seconds);
    Ok(())
}

fn drain_seconds(bench: &mut Bench, data: &Path) -> anyhow::Result<()> {
    let log = data.join("sales").join(SALE);
    let mut reader = LogReader::open(Arc::new(DiskFiles), &log)?;
    while reader.next_readable()?.is_some() {}
    let next = reader.next();
    let path = bench.workspace.at("drained.sqlite");
    let start = Instant::now();
    let on_drift = Box::new(|_: Service, _: &str, _: &str| ());
    let service = BooksService::start(Books::open(&path)?, Arc::new(DiskFiles), Pace::Unlimited, on_drift)?;
    service.add_sale(SALE, log, Arc::new(Watermark::new(next)));
    while service.drained(Service::Orders, SALE) < next {
        let state = service.state(Service::Orders, SALE);
        ensure!(!matches!(state, Some(FollowState::Stopped(_))), "the books stopped: {state:?}");
        ensure!(
            start.elapsed() < DRAIN_PATIENCE,
            "the books stand at {} of {next}",
            service.drained(Service::Orders, SALE)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = start.elapsed().as_secs_f64();
    service.shutdown();
    bench.say(&format!("drain: {seconds:.2} seconds for {next} records"));
    bench.figures.set("drain_1m_seconds", seconds);
    Ok(())
}

/// `longest_stall_ms`: customers come at a steady, modest rate while a million holds expire and segments roll, in real time.
pub(crate) fn stall(bench: &mut Bench) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    bench.say("stall: preparing customers, then a million holds");
    let data = bench.workspace.at("stall");
    let count = (STALL_RATE * (STALL_MILLISECONDS as f64 / 1_000.0 + 1.0)) as usize;
    let requests = prepare(&data, &Shape { hold_seconds: STALL_HOLD_SECONDS, ..Shape::of(STOCK) }, count)?;
    let job = GrowJob { data: data.clone(), until: MILLION, timed: Vec::new(), old_keys: false };
    let _: GrowReport = ask(&Job::Grow(job))?;
    let segments = segments(&data)?;
    let server = Running::start(&Job::Server(ServerJob {
        data: data.clone(),
        core: Some(server_core),
        checks: Checks::default(),
    }))?;
    let report = measure(ClientJob {
        rate: Some(STALL_RATE),
        measure_milliseconds: STALL_MILLISECONDS,
        ..client_job(&server, &requests, client_core)
    })?;
    server.stop()?;
    let sale = check_audit(bench, &data, report.counted + u64::from(MILLION))?;
    let rolled = self::segments(&data)? - segments;
    bench.say(&format!(
        "stall: {} expiries, {rolled} segments rolled, longest answer {} ms, p99 {} ms",
        sale.released, report.max_ms, report.p99_ms
    ));
    bench.figures.note("longest_stall_expiries", json!(sale.released));
    bench.figures.note("longest_stall_segments_rolled", json!(rolled));
    bench.figures.note("longest_stall_client", serde_json::to_value(&report)?);
    ensure!(sale.released >= u64::from(MILLION), "only {} holds expired while the client measured", sale.released);
    // The first roll is the server's start.
    ensure!(rolled >= 2, "no segment rolled while the client measured");
    bench.figures.set("longest_stall_ms", report.max_ms);
    Ok(())
}

fn segments(data: &Path) -> anyhow::Result<usize> {
    let names = std::fs::read_dir(data.join("sales").join(SALE))?.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_string_lossy().ends_with(".segment")).count())
}

/// `scale_10m_in_process` while ten million customers are granted; then `scale_10m_http` on what that left.
pub(crate) fn ten_million(bench: &mut Bench) -> anyhow::Result<()> {
    bench.say("ten million customers: preparing");
    let large = bench.workspace.at("large");
    let small = bench.workspace.at("small");
    let with_http = bench.figures.wanted("scale_10m_http");
    let winners = if with_http { SCALE_WINNERS * SCALE_ROUNDS } else { 0 };
    let requests = prepare(&large, &shape(), winners)?;
    let grow = |until, timed| Job::Grow(GrowJob { data: large.clone(), until, timed, old_keys: false });
    let _: GrowReport = ask(&grow(TEN_THOUSAND, Vec::new()))?;
    folder::copy(&large, &small)?;
    bench.say("ten million customers: granting");
    let timed = vec![(TEN_THOUSAND, STRETCH), (TEN_MILLION - STRETCH, STRETCH)];
    let report: GrowReport = ask(&grow(TEN_MILLION, timed))?;
    let [few, many] = report.per_second[..] else { anyhow::bail!("two stretches were to be timed") };
    bench.say(&format!("in process: {few:.0}/s at 10k, {many:.0}/s at 10M"));
    bench.figures.note_number("decisions_per_s_at_10k", few);
    bench.figures.note_number("decisions_per_s_at_10m", many);
    if with_http {
        scale_http(bench, &small, &large, &requests)?;
    } else {
        check_audit(bench, &large, u64::from(TEN_MILLION))?;
    }
    bench.figures.set("scale_10m_in_process", many / few);
    Ok(())
}

/// Wins over HTTP on both folders in turns; the small one starts anew each round, the large one goes on.
fn scale_http(bench: &mut Bench, small: &Path, large: &Path, requests: &RequestsFile) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    let mut wins = 0;
    for number in 0..SCALE_ROUNDS {
        let fresh = bench.workspace.at("small-round");
        folder::copy(small, &fresh)?;
        let few = scale_round(bench, &fresh, requests, number)?;
        check_audit(bench, &fresh, few.counted + u64::from(TEN_THOUSAND))?;
        folder::remove(&fresh);
        let many = scale_round(bench, large, requests, number)?;
        wins += many.counted;
        bench.say(&format!("wins with 10k: {:.0}/s, with 10M: {:.0}/s", few.per_second, many.per_second));
        rounds.push((few, many));
    }
    check_audit(bench, large, wins + u64::from(TEN_MILLION))?;
    let told: Vec<_> = rounds.iter().map(|(few, many)| json!({"at_10k": few, "at_10m": many})).collect();
    bench.figures.note("scale_10m_http_rounds", json!(told));
    let ratios = rounds.iter().map(|(few, many)| many.per_second / few.per_second);
    bench.figures.set("scale_10m_http", median(ratios));
    Ok(())
}

fn scale_round(bench: &Bench, data: &Path, requests: &RequestsFile, number: usize) -> anyhow::Result<ClientReport> {
    let (server_core, client_core) = bench.machine.cores()?;
    let server = Running::start(&Job::Server(ServerJob {
        data: data.to_owned(),
        core: Some(server_core),
        checks: Checks::default(),
    }))?;
    let report = measure(ClientJob {
        first: number * SCALE_WINNERS,
        count: SCALE_WINNERS,
        measure_milliseconds: SCALE_MEASURE_MILLISECONDS,
        ..client_job(&server, requests, client_core)
    })?;
    server.stop()?;
    Ok(report)
}
