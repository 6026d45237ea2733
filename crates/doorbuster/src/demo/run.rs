//! The course of the demo.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use crowd::CrowdReport;
use http::Method;
use ledger::Books;
use serde_json::{Value, json};

use super::DemoArgs;
use super::fairness;
use super::screen::{Screen, describe, invite, open_in_browser};
use super::stage::{Stage, run_crowd, set_up};
use super::tour;
use crate::data_client::Operator;
use crate::report::{progress, say};

/// The longest that open holds may take to end, and the books to follow.
const END_TIME_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let mut stage = set_up(args)?;
    let servers = match &stage.server {
        Some(_) => "a server process".to_owned(),
        None => format!("{} gates, {} workers", stage.public.len(), stage.bookkeepers.len()),
    };
    progress(&format!(
        "A sale of {} units opens for {} people: {servers}, a crowd process, real HTTP between them.",
        args.stock(),
        args.shoppers
    ));
    if let Some(bots) = args.bots {
        progress(&format!("{bots} bots come too. Slots are spread over {} s.", args.spread()));
    }
    let mut options = stage.crowd_options(args);
    let number = stage.number()?;
    // Whoever ends it at once has nobody to show around.
    let picture_takes = if args.exit { None } else { Some(tour::make(&stage, number)?) };
    stage.create_sale(args, &mut options, number, picture_takes.unwrap_or_default())?;
    if picture_takes.is_some() {
        tour::show_boot(&stage)?;
        progress(&open_in_browser(&stage, false));
    }
    progress(&format!("Data in {}, sale {:?}, seed {}.", stage.data.display(), stage.sale, args.seed));
    let mut screen = Screen::new();
    let crowd = run_crowd(&options, |seen| screen.show(seen))?;
    screen.end();
    progress("The crowd has gone; the last holds end, the books catch up, the auditor reads.");
    let closed = end_sale(&stage)?;
    let audit = audit_all(&stage, &options.notes)?;
    let mut outcome = outcome(&stage, &crowd, &closed, &audit)?;
    if let Some(fairness) = &crowd.fairness {
        fairness::add(&mut outcome, args, &crowd, fairness);
    }
    if args.json {
        say(&outcome.to_string());
    } else {
        say(&describe(&crowd, &outcome, &audit, args.stock()));
    }
    // A bot that got what nobody may have is a defect, whatever the audit can see of it.
    let is_clean = audit.ok && (args.bots.is_none() || crowd.protocol_errors == 0);
    let code = if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let opening = open_in_browser(&stage, true);
    let public = stage.public();
    let Some(mut server) = stage.server.take() else {
        if !args.exit {
            progress(&opening);
        }
        return Ok(code);
    };
    if args.exit {
        server.end()?;
        if args.data.is_none() && is_clean {
            std::fs::remove_dir_all(&stage.data)?;
        }
        return Ok(code);
    }
    progress(&format!("{opening}\n{}", invite(public, &stage.data, &stage.sale)));
    // Ctrl-C reaches the server too; it ends in order, and then so do we.
    ignore_interrupt(|| server.wait())?;
    Ok(code)
}

/// The audit of everybody's books; the first that is not clean, else the first.
fn audit_all(stage: &Stage, notes: &std::path::Path) -> anyhow::Result<audit::AuditReport> {
    let mut audits = Vec::new();
    for bookkeeper in &stage.bookkeepers {
        audits.push(audit::audit(&bookkeeper.data, Some(&stage.sale), Some(notes), &mut |_| {})?);
    }
    let place = audits.iter().position(|audit| !audit.ok).unwrap_or(0);
    Ok(audits.swap_remove(place))
}

/// Waits for every hold to end and for all money to have its place, closes the sale (which reveals the slot secret), and waits for the
/// books.
fn end_sale(stage: &Stage) -> anyhow::Result<Value> {
    wait_for(stage, &stage.operator, "an open hold", |sale| {
        sale["counts"].as_array().into_iter().flatten().all(|item| item["held"] == 0)
    })?;
    let bookkeeper = &stage.bookkeepers[0];
    let books = Books::open_reader(&bookkeeper.data.join("books.sqlite"))?;
    wait_for(stage, &bookkeeper.operator, "money that is under way", |sale| {
        are_drained(sale) && books.money(&stage.sale).is_ok_and(|money| money.unsettled == 0)
    })?;
    stage.operator.ask(Method::POST, &format!("/admin/v1/sales/{}/close", stage.sale), None)?;
    let mut closed = Value::Null;
    for bookkeeper in &stage.bookkeepers {
        let done = |sale: &Value| sale["phase"] == "closed" && are_drained(sale);
        closed = wait_for(stage, &bookkeeper.operator, "the books", done)?;
    }
    Ok(closed)
}

/// Every service of the books has read the chain to its end.
fn are_drained(sale: &Value) -> bool {
    sale["services"].as_object().is_some_and(|services| services.values().all(|lag| *lag == 0))
}

fn wait_for(stage: &Stage, operator: &Operator, what: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let until = Instant::now() + END_TIME_MAX;
    loop {
        let sales = operator.ask(Method::GET, "/admin/v1/sales", None)?;
        let sale = sales.as_array().into_iter().flatten().find(|sale| sale["sale"] == stage.sale.as_str());
        match sale {
            Some(sale) if done(sale) => return Ok(sale.clone()),
            _ if Instant::now() > until => bail!("still waiting for {what} after {} s", END_TIME_MAX.as_secs()),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn outcome(stage: &Stage, crowd: &CrowdReport, closed: &Value, audit: &audit::AuditReport) -> anyhow::Result<Value> {
    let books = Books::open_reader(&stage.bookkeepers[0].data.join("books.sqlite"))?;
    let (orders, money) = (books.counts(&stage.sale)?, books.money(&stage.sale)?);
    let benefits = books.benefits(&stage.sale)?;
    let promises: serde_json::Map<String, Value> = audit
        .promises
        .iter()
        .map(|(id, promise)| {
            let status =
                json!({ "checked": promise.checked, "violations": promise.violations, "status": promise.status });
            (id.clone(), status)
        })
        .collect();
    Ok(json!({
        "shoppers": crowd.shoppers,
        "attempts": crowd.attempts,
        "wins": crowd.wins,
        "refusals": crowd.refusals,
        "orders": orders.orders,
        "paid": orders.paid,
        "released": orders.released,
        // Of both: paid orders that the shop refunded, and released ones whose money came too late.
        "refunded": money.refunded + money.refunded_late,
        "refunded_late": money.refunded_late,
        "coupons_used": benefits.coupons_used,
        "points_posted": benefits.points_posted,
        "points_taken_back": benefits.points_taken_back,
        "wins_per_s": crowd.wins_per_s,
        "refusals_per_s": crowd.refusals_per_s,
        "latency_ms": crowd.latency_ms,
        "lost_replies": crowd.lost,
        "unanswered": crowd.unanswered,
        "void": crowd.void,
        "records": closed["position"],
        "audit": { "ok": audit.ok, "promises": promises },
    }))
}

/// Runs `work` while Ctrl-C is left to the child process.
fn ignore_interrupt(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _listening = runtime.spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    work()
}
