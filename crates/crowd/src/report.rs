//! Counts what the crowd did and heard. Figures of a void run are absent; counts never are.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::bots::Bots;
use crate::fairness::{Fairness, Gains};

/// A crowd that sends later than this, at the 99th percentile, has measured itself: the run is void. In milliseconds.
const GENERATOR_LAG_MILLISECONDS_MAX: f64 = 50.0;
/// One in so many people may be given the pass after their arrival time; with more the arrivals were not the planned ones.
const LATE_PASSES_ONE_IN: u64 = 100;
/// What takes longer than an hour counts as an hour.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
/// Broken answers that are kept word for word.
const SAMPLES_MAX: usize = 10;

/// What a run did and measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CrowdReport {
    /// People who came.
    pub shoppers: u64,
    /// Purchase requests sent, repeats included.
    pub attempts: u64,
    /// Distinct purchases answered `held`, or `confirmed` or `released` where the first answer was lost.
    pub wins: u64,
    /// Refusals of purchase requests by code.
    pub refusals: BTreeMap<String, u64>,
    /// Refusals of passes by code.
    pub pass_refusals: BTreeMap<String, u64>,
    /// Refusals of payments, confirmations, cancellations and refunds by code.
    pub ending_refusals: BTreeMap<String, u64>,
    /// Orders that were paid: the shop's confirmation was acknowledged, or the customer saw it.
    pub paid: u64,
    /// Orders whose money went back: paid ones that the shop refunded, and those whose money came too late.
    pub refunded: u64,
    /// Orders whose cancellation was acknowledged.
    pub cancelled: u64,
    /// Replies that never came or were thrown away.
    pub lost: u64,
    /// Purchase requests that repeated an earlier one with its key.
    pub retried: u64,
    /// People who ended without a final answer.
    pub unanswered: u64,
    /// Wins per second between the first and the last purchase answer. Absent when void.
    pub wins_per_s: Option<f64>,
    /// Refusals per second over the same span. Absent when void.
    pub refusals_per_s: Option<f64>,
    /// From the scheduled arrival to the answer, all purchase answers. Absent when void.
    pub latency_ms: Option<Latency>,
    /// The same for wins only.
    pub held_latency_ms: Option<Latency>,
    /// From the scheduled arrival to the sending.
    pub generator_lag_ms: GeneratorLag,
    /// Failures of connections by kind.
    pub errors: BTreeMap<String, u64>,
    /// Answers that break the contract.
    pub protocol_errors: u64,
    /// Some of those answers.
    pub protocol_error_samples: Vec<String>,
    /// Why the figures are absent, where they are.
    pub void: Option<String>,
    /// Who got what; in a crowd with bots only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct GeneratorLag {
    /// The 99th percentile.
    pub p99: f64,
}

/// Where a run is, for a terminal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Since the crowd started, in milliseconds.
    pub elapsed_milliseconds: u64,
    /// People and bots who will come.
    pub shoppers: u64,
    /// Those who have their pass.
    pub passes: u64,
    /// Those who have come to buy.
    pub arrived: u64,
    /// Purchase requests without an answer yet.
    pub in_flight: u64,
    /// Distinct purchases won.
    pub wins: u64,
    /// Refusals of purchase requests by code.
    pub refusals: BTreeMap<String, u64>,
    /// Orders paid.
    pub paid: u64,
    /// Orders whose money went back.
    pub refunded: u64,
    /// Orders cancelled.
    pub cancelled: u64,
    /// Of all purchase answers so far; absent before the first.
    pub latency_ms: Option<Latency>,
}

/// The running counts.
pub(crate) struct Tally {
    pub(crate) passes: u64,
    /// People who were given their pass only after their arrival time.
    pub(crate) late_passes: u64,
    pub(crate) arrived: u64,
    pub(crate) attempts: u64,
    pub(crate) in_flight: u64,
    pub(crate) paid: u64,
    pub(crate) refunded: u64,
    pub(crate) cancelled: u64,
    pub(crate) lost: u64,
    pub(crate) retried: u64,
    pub(crate) unanswered: u64,
    pub(crate) gains: Gains,
    refusals: BTreeMap<String, u64>,
    pass_refusals: BTreeMap<String, u64>,
    ending_refusals: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    protocol_errors: u64,
    samples: Vec<String>,
    /// Every purchase ever named, with the shopper and visit whose key it belongs to; and the other way round.
    purchases: HashMap<Rc<str>, (u32, u16)>,
    purchase_of_key: HashMap<(u32, u16), Rc<str>>,
    latency: Histogram<u64>,
    held_latency: Histogram<u64>,
    lag: Histogram<u64>,
    answered_first_and_last: Option<(Instant, Instant)>,
}

impl Tally {
    pub(crate) fn new(bots: Rc<Bots>) -> Self {
        let histogram = || Histogram::new_with_bounds(1, MICROSECONDS_MAX, 3).expect("the bounds are in order");
        Self {
            passes: 0,
            late_passes: 0,
            arrived: 0,
            attempts: 0,
            in_flight: 0,
            paid: 0,
            refunded: 0,
            cancelled: 0,
            lost: 0,
            retried: 0,
            unanswered: 0,
            gains: Gains::new(bots),
            refusals: BTreeMap::new(),
            pass_refusals: BTreeMap::new(),
            ending_refusals: BTreeMap::new(),
            errors: BTreeMap::new(),
            protocol_errors: 0,
            samples: Vec::new(),
            purchases: HashMap::new(),
            purchase_of_key: HashMap::new(),
            latency: histogram(),
            held_latency: histogram(),
            lag: histogram(),
            answered_first_and_last: None,
        }
    }

    /// A request left `late` after its scheduled time.
    pub(crate) fn lagged(&mut self, late: Duration) {
        self.lag.saturating_record(microseconds(late));
    }

    /// A purchase request that was scheduled at `scheduled` has its answer.
    pub(crate) fn answered(&mut self, scheduled: Instant, won: bool) {
        let now = Instant::now();
        let latency = microseconds(now.saturating_duration_since(scheduled));
        self.latency.saturating_record(latency);
        if won {
            self.held_latency.saturating_record(latency);
        }
        let first = self.answered_first_and_last.map_or(now, |(first, _)| first);
        self.answered_first_and_last = Some((first, now));
    }

    /// An answer named `purchase` for the key of that visit. Two keys of one purchase, or two purchases of one key, break
    /// INV-5. Says whether it is the first answer that names it.
    pub(crate) fn won(&mut self, purchase: &str, shopper: u32, visit: u16) -> bool {
        let key = (shopper, visit);
        let purchase: Rc<str> = purchase.into();
        let is_new = !self.purchases.contains_key(&purchase);
        let owner = *self.purchases.entry(Rc::clone(&purchase)).or_insert(key);
        let first = Rc::clone(self.purchase_of_key.entry(key).or_insert_with(|| Rc::clone(&purchase)));
        if owner != key || first != purchase {
            self.protocol_error(format!(
                "INV-5: key {key:?} was given {purchase}, of {owner:?}, and before it {first}"
            ));
        }
        is_new
    }

    pub(crate) fn refused(&mut self, code: &str) {
        count(&mut self.refusals, code);
    }

    pub(crate) fn pass_refused(&mut self, code: &str) {
        count(&mut self.pass_refusals, code);
    }

    pub(crate) fn ending_refused(&mut self, code: &str) {
        count(&mut self.ending_refusals, code);
    }

    pub(crate) fn failed(&mut self, kind: &str) {
        count(&mut self.errors, kind);
    }

    pub(crate) fn protocol_error(&mut self, text: String) {
        self.protocol_errors += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(text);
        }
    }

    pub(crate) fn progress(&self, shoppers: u32, elapsed: Duration) -> Progress {
        Progress {
            elapsed_milliseconds: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            shoppers: u64::from(shoppers),
            passes: self.passes,
            arrived: self.arrived,
            in_flight: self.in_flight,
            wins: self.purchases.len() as u64,
            refusals: self.refusals.clone(),
            paid: self.paid,
            refunded: self.refunded,
            cancelled: self.cancelled,
            latency_ms: latency(&self.latency),
        }
    }

    fn void(&self, accounts: u32, lag_p99: f64) -> Option<String> {
        if lag_p99 > GENERATOR_LAG_MILLISECONDS_MAX {
            return Some(format!(
                "requests left {lag_p99} ms late at p99, more than {GENERATOR_LAG_MILLISECONDS_MAX} ms"
            ));
        }
        let late = self.late_passes;
        (late * LATE_PASSES_ONE_IN > u64::from(accounts))
            .then(|| format!("{late} of {accounts} people were given their pass after their arrival time"))
    }

    pub(crate) fn report(self, shoppers: u32, accounts: u32) -> CrowdReport {
        let lag_p99 = milliseconds(self.lag.value_at_quantile(0.99));
        let void = self.void(accounts, lag_p99);
        let sound = void.is_none();
        let seconds = self.answered_first_and_last.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        let per_second = |count: u64| (sound && seconds > 0.0).then(|| round(precise(count) / seconds));
        let wins = self.purchases.len() as u64;
        CrowdReport {
            shoppers: u64::from(shoppers),
            attempts: self.attempts,
            wins,
            wins_per_s: per_second(wins),
            refusals_per_s: per_second(self.refusals.values().sum()),
            latency_ms: latency(&self.latency).filter(|_| sound),
            held_latency_ms: latency(&self.held_latency).filter(|_| sound),
            generator_lag_ms: GeneratorLag { p99: lag_p99 },
            refusals: self.refusals,
            pass_refusals: self.pass_refusals,
            ending_refusals: self.ending_refusals,
            paid: self.paid,
            refunded: self.refunded,
            cancelled: self.cancelled,
            lost: self.lost,
            retried: self.retried,
            unanswered: self.unanswered,
            errors: self.errors,
            protocol_errors: self.protocol_errors,
            protocol_error_samples: self.samples,
            void,
            fairness: self.gains.report(),
        }
    }
}

pub(crate) fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

fn latency(histogram: &Histogram<u64>) -> Option<Latency> {
    (!histogram.is_empty()).then(|| Latency {
        p50: milliseconds(histogram.value_at_quantile(0.5)),
        p99: milliseconds(histogram.value_at_quantile(0.99)),
        max: milliseconds(histogram.max()),
    })
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(microseconds: u64) -> f64 {
    round(precise(microseconds) / 1_000.0)
}

/// Two decimals: more would pretend.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run stay far below 2^52")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tally;
    use crate::bots::Bots;
    use crate::options::CrowdOptions;

    fn tally() -> Tally {
        Tally::new(std::rc::Rc::new(Bots::of(&CrowdOptions::default())))
    }

    #[test]
    fn a_late_generator_voids_the_figures_and_keeps_the_counts() {
        let mut tally = tally();
        tally.attempts = 1;
        tally.answered(tokio::time::Instant::now(), true);
        tally.won("pu_a", 1, 1);
        tally.lagged(Duration::from_millis(51));
        let report = tally.report(1, 1);
        assert!(report.void.is_some());
        assert!(report.latency_ms.is_none() && report.wins_per_s.is_none() && report.refusals_per_s.is_none());
        assert_eq!((report.attempts, report.wins), (1, 1));
    }

    #[test]
    fn two_keys_of_one_purchase_and_two_purchases_of_one_key_are_protocol_errors() {
        let mut tally = tally();
        tally.won("pu_a", 1, 1);
        tally.won("pu_a", 1, 1);
        assert_eq!(tally.protocol_errors, 0);
        tally.won("pu_a", 2, 1);
        assert_eq!(tally.protocol_errors, 1);
        tally.won("pu_b", 1, 1);
        assert_eq!(tally.protocol_errors, 2);
    }
}
