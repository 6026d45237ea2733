//! What a person sees of the demo: progress while it runs, and a short report.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crowd::{CrowdReport, Progress};
use serde_json::Value;

use super::fairness;
use super::stage::Stage;
use crate::report::progress;

/// Progress on stderr: one line that is written over on a terminal, a line every two seconds elsewhere.
pub(super) struct Screen {
    terminal: bool,
    last: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: None }
    }

    pub(super) fn show(&mut self, seen: &Progress) {
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(2));
        if !self.terminal && !due {
            return;
        }
        self.last = Some(Instant::now());
        let refused: u64 = seen.refusals.values().sum();
        let latency =
            seen.latency_ms.map_or(String::new(), |ms| format!("  p50 {:.1} ms  p99 {:.1} ms", ms.p50, ms.p99));
        let line = if seen.arrived == 0 {
            format!("{:>5.1} s  {} of {} passes are taken", seconds(seen), seen.passes, seen.shoppers)
        } else {
            format!(
                "{:>5.1} s  {} of {} came  {} won  {} times refused  {} paid  {} refunded  {} gave back{latency}",
                seconds(seen),
                seen.arrived,
                seen.shoppers,
                seen.wins,
                refused,
                seen.paid,
                seen.refunded,
                seen.cancelled,
            )
        };
        if self.terminal {
            // Cut at the edge: a line that wraps could not be written over. A terminal that is gone needs no progress.
            let _ = write!(std::io::stderr(), "\r\x1b[2K\x1b[?7l{line}\x1b[?7h");
        } else {
            progress(&line);
        }
    }

    pub(super) fn end(&self) {
        if self.terminal {
            progress("");
        }
    }
}

fn seconds(seen: &Progress) -> f64 {
    seen.elapsed_milliseconds as f64 / 1_000.0
}

/// The short report for people.
pub(super) fn describe(crowd: &CrowdReport, outcome: &Value, audit: &audit::AuditReport, stock: u32) -> String {
    let (refunded, late) = (outcome["refunded"].as_u64().unwrap_or(0), outcome["refunded_late"].as_u64().unwrap_or(0));
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let came = match &crowd.fairness {
        Some(fairness) => {
            format!("{} people and {} accounts of bots", fairness.people.accounts, fairness.bots.accounts)
        }
        None => format!("{} people", crowd.shoppers),
    };
    line(format!("\n{came} came for {stock} units and asked {} times.", crowd.attempts));
    line(format!(
        "{} purchases were granted: {} paid, {} released (given back or not paid in time; most were sold again).",
        crowd.wins, outcome["paid"], outcome["released"]
    ));
    line(format!(
        "{refunded} of them were refunded: {} by the shop, {late} because the money came after the hold had ended.",
        refunded - late
    ));
    line(format!(
        "{} of the paid orders used a coupon. {} points were posted, and refunds took {} of them back.",
        outcome["coupons_used"], outcome["points_posted"], outcome["points_taken_back"]
    ));
    line(format!(
        "{} replies were lost on the way; everyone asked again with the same key and got the same answer ({} still wait).",
        crowd.lost, crowd.unanswered
    ));
    line("Refused:".to_owned());
    for (code, count) in &crowd.refusals {
        line(format!("    {count:>9}  {code}"));
    }
    if let Some(fairness) = &crowd.fairness {
        line(fairness::describe(fairness, outcome));
    }
    match (&crowd.void, &crowd.latency_ms) {
        (None, Some(ms)) => {
            line(format!(
                "Answers, from the scheduled arrival: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms.",
                ms.p50, ms.p99, ms.max
            ));
        }
        (reason, _) => {
            let reason = reason.as_deref().unwrap_or("nobody was answered");
            line(format!("No speed is reported: {reason}. Server and crowd share this machine; try fewer --shoppers."));
        }
    }
    if crowd.protocol_errors > 0 {
        line(format!(
            "{} answers broke the contract, for example: {:?}",
            crowd.protocol_errors, crowd.protocol_error_samples
        ));
    }
    line("\nThe audit, from the chain's bytes, the books and what the shoppers noted:".to_owned());
    line(audit.to_string().trim_end().to_owned());
    text
}

/// Where the pages are, and what this deployment lets one do there.
pub(super) fn open_in_browser(stage: &Stage, is_over: bool) -> String {
    let address = stage.public();
    let crowds = if is_over { "see how the crowd's sale ended" } else { "watch the crowd's sale sell out" };
    let rest = match (stage.identity.dangerous_guest_tokens, stage.has_sandbox) {
        (true, true) => format!("buy something, pay in the sandbox, {crowds}."),
        (true, false) => format!("buy something (paying is the shop's own business here), {crowds}."),
        (false, _) => format!("{crowds}. To buy there takes a token of its shop."),
    };
    format!("Open http://{address}/ in a browser: {rest}")
}

/// What to try while the server stays up.
pub(super) fn invite(public: std::net::SocketAddr, data: &std::path::Path, sale: &str) -> String {
    let data = data.display();
    format!(
        "The server stays up until Ctrl-C. Try too:\n    \
         curl http://{public}/v1/sales/{sale}\n    \
         curl -X POST -H 'Authorization: Bearer guest_me' http://{public}/v1/sales/{sale}/passes\n    \
         doorbuster audit --data {data} --notes {data}/notes.jsonl\n    \
         doorbuster log export --data {data} --sale {sale} --out sale.chain && doorbuster verify sale.chain"
    )
}
