//! The figures of overload: an open loop that offers more than is taken, and what of the answers is useful meanwhile and afterwards.

use anyhow::ensure;
use serde_json::json;

use crate::Bench;
use crate::checks::Checks;
use crate::client::{ClientJob, ClientReport};
use crate::deployment::{Shape, prepare};
use crate::figures::median;
use crate::http_figures::{
    CLIENT_BUSY_MAX, HELD, LAG_MILLISECONDS_MAX, STOCK, STRANGERS, check_audit, client_job, measure, run, strangers,
};
use crate::process::Job;
use crate::server::{Running, ServerJob};

/// Each takes seconds, and they differ little.
const ROUNDS: usize = 3;
/// The ceiling, and what is offered, in requests a second.
const CEILING: u32 = 5_000;
const OFFERED: f64 = 25_000.0;
const MEASURED_MILLISECONDS: u64 = 2_000;
/// Requests under way at once, at most: as many as come while one of them waits as long as it may, and as long again.
const OPEN_CONNECTIONS: usize = 8_192;
/// So few that nobody waits for long, and enough for a core that never waits.
const CLOSED_CONNECTIONS: usize = 128;
/// Whoever is left out is answered so.
const OVERLOADED: u16 = 503;
/// Until the ceiling has found its place.
const SETTLING_MILLISECONDS: u64 = 1_000;
/// How long twice as much is offered before half as much is, where it is the recovery that is measured.
const FLOOD_MILLISECONDS: u64 = 2_500;

/// `overload_useful`: wins of a server that takes 5,000 requests a second and is offered 25,000.
pub(crate) fn limited(bench: &mut Bench) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    bench.say("overload: preparing customers with their passes");
    let data = bench.workspace.at("overload");
    // Nobody comes twice: whoever has won would prove it, and is never left out.
    let each = (OFFERED * 1.1) as usize * (MEASURED_MILLISECONDS as usize + 500) / 1_000;
    let requests = prepare(&data, &Shape::of(STOCK), each * ROUNDS)?;
    let checks = Checks { requests_per_second_max: CEILING, ..Checks::of_serve() };
    let engine = Running::start(&Job::Server(ServerJob { data: data.clone(), core: Some(server_core), checks }))?;
    let mut reports = Vec::new();
    for number in 0..ROUNDS {
        let report = run(ClientJob {
            first: number * each,
            count: each,
            rate: Some(OFFERED),
            connections: OPEN_CONNECTIONS,
            measure_milliseconds: MEASURED_MILLISECONDS,
            ..client_job(&engine, &requests, client_core)
        })?;
        check(bench, "overload", &report, HELD)?;
        reports.push(report);
    }
    engine.stop()?;
    check_audit(bench, &data, reports.iter().map(|report| report.counted).sum())?;
    bench.figures.note("overload_useful_rounds", json!(reports));
    let useful = reports.iter().map(|report| report.per_second / f64::from(CEILING));
    bench.figures.set("overload_useful", median(useful));
    Ok(())
}

/// `overload_useful_cpu_bound` and `overload_recovery_ms`: everybody's token has to be verified, and twice as many come as one core can
/// serve. Without such work the loop could not be open: no client on one core offers twice what a server on one core can answer.
pub(crate) fn cpu_bound(bench: &mut Bench) -> anyhow::Result<()> {
    let (server_core, client_core) = bench.machine.cores()?;
    bench.say("overload by work: preparing strangers with renewed tokens");
    let data = bench.workspace.at("overload-cpu");
    let shape = Shape { has_renewed_tokens: true, ..Shape::of(1) };
    let requests = prepare(&data, &shape, STRANGERS + 1)?;
    let job = ServerJob { data: data.clone(), core: Some(server_core), checks: Checks::of_serve() };
    let engine = Running::start(&Job::Server(job))?;
    let (won, _) = crate::answer::fetch(engine.address, &requests.one(0)?)?;
    ensure!(won.status == HELD, "the first customer was answered {}", won.status);
    let usual = strangers(&engine, &requests, client_core);
    let usual = ClientJob { measure_milliseconds: MEASURED_MILLISECONDS, ..usual };
    let open = ClientJob { connections: OPEN_CONNECTIONS, ..usual.clone() };
    let (mut ratios, mut recoveries, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let capacity = measure(ClientJob { connections: CLOSED_CONNECTIONS, ..usual.clone() })?;
        let (per_second, busy) = (capacity.per_second, capacity.server_busy * 100.0);
        bench.say(&format!("capacity: {per_second:.0}/s of a server that had {busy:.0} % of its core"));
        let twice = Some(2.0 * per_second);
        let flood = run(ClientJob { rate: twice, warm_up_milliseconds: SETTLING_MILLISECONDS, ..open.clone() })?;
        check(bench, "overload by work", &flood, usual.status)?;
        let after = run(ClientJob {
            rate: Some(0.5 * per_second),
            warm_up_rate: twice,
            warm_up_milliseconds: FLOOD_MILLISECONDS,
            ..open.clone()
        })?;
        check(bench, "half load afterwards", &after, usual.status)?;
        ratios.push(flood.per_second / per_second);
        recoveries.push(after.troubled_ms);
        rounds.push(json!({"capacity": capacity, "flood": flood, "after": after}));
    }
    engine.stop()?;
    check_audit(bench, &data, 1)?;
    bench.figures.note("overload_cpu_bound_rounds", json!(rounds));
    bench.figures.set("overload_useful_cpu_bound", median(ratios));
    bench.figures.set("overload_recovery_ms", median(recoveries));
    Ok(())
}

/// Whether the load was what it should have been, and nobody heard anything but yes, no, or that it is too much.
fn check(bench: &Bench, what: &str, report: &ClientReport, useful: u16) -> anyhow::Result<()> {
    bench.say(&format!(
        "{what}: {:.0}/s answered {useful}, {} left out in all, p99 {:.1} ms, server {:.0} %, client {:.0} % busy and {:.1} ms late, {:.0} ms to the last trouble",
        report.per_second,
        report.others.get(&OVERLOADED).unwrap_or(&0),
        report.p99_ms,
        report.server_busy * 100.0,
        report.client_busy * 100.0,
        report.lag_p99_ms,
        report.troubled_ms
    ));
    let other = report.others.iter().find(|(status, _)| **status != OVERLOADED);
    ensure!(other.is_none(), "requests were answered {other:?}");
    ensure!(report.lag_p99_ms <= LAG_MILLISECONDS_MAX, "the client was {} ms late at p99", report.lag_p99_ms);
    ensure!(report.client_busy < CLIENT_BUSY_MAX, "the client was {:.0} % busy", report.client_busy * 100.0);
    Ok(())
}
