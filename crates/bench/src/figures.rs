//! The figures with their names, bars and reasons. It knows what is wanted and what was found, not how anything is measured.

use std::fmt::Write as _;

use anyhow::bail;
use serde_json::{Map, Value, json};

/// One figure of the bench.
struct Figure {
    key: &'static str,
    /// What it should reach first; the comparison is the reader's.
    bar: f64,
    more_is_better: bool,
    only_full: bool,
    meaning: &'static str,
}

const fn figure(key: &'static str, bar: f64, more_is_better: bool, only_full: bool, meaning: &'static str) -> Figure {
    Figure { key, bar, more_is_better, only_full, meaning }
}

const FIGURES: [Figure; 16] = [
    figure("refusals_vs_bare", 0.85, true, false, "sold out, pass checked, against a bare server"),
    figure("refusals_all_checks_vs_bare", 0.8, true, false, "the same with limits, block list and ceilings"),
    figure("overload_useful", 0.95, true, false, "durable wins of a ceiling of 5,000/s, at 25,000/s"),
    figure("overload_useful_cpu_bound", 0.7, true, false, "answers at twice what a core can do, against that"),
    figure("overload_recovery_ms", 2_000.0, false, false, "from half load on until nobody is left out or late"),
    figure("wins_vs_bare", 0.6, true, false, "durable wins, books at 5,000/s, against a bare server"),
    figure("wins_vs_postgres", 25.0, true, false, "durable wins against guarded update + order insert"),
    figure("decisions_per_second", 300_000.0, true, false, "in process, durable, batches of 1,000"),
    figure("held_p99_ms", 20.0, false, false, "at half of the wins' rate, open loop"),
    figure("scale_10m_http", 0.92, true, true, "wins with 10M customers against 10k"),
    figure("scale_10m_in_process", 0.5, true, true, "decisions with 10M customers against 10k"),
    figure("bytes_per_customer", 128.0, false, true, "resident, with a grant and its key, over 1M"),
    figure("restart_1m_seconds", 1.5, false, true, "process start to first answer, 1M grants, warm cache"),
    figure("verify_1m_seconds", 2.0, false, true, "proof of an export of 1M grants"),
    figure("drain_1m_seconds", 60.0, false, true, "1M grants into the books, unlimited"),
    figure("longest_stall_ms", 50.0, false, true, "longest answer through segment rolls and 1M expiries"),
];

/// What was found so far.
pub(crate) struct Figures {
    full: bool,
    only: Vec<String>,
    values: Map<String, Value>,
    reasons: Map<String, Value>,
    notes: Map<String, Value>,
    audits_clean: bool,
}

impl Figures {
    /// Nothing found yet; refuses names that are no figure.
    pub(crate) fn new(full: bool, only: &[String]) -> anyhow::Result<Self> {
        if let Some(unknown) = only.iter().find(|name| !FIGURES.iter().any(|figure| figure.key == name.as_str())) {
            let known: Vec<_> = FIGURES.iter().map(|figure| figure.key).collect();
            bail!("{unknown:?} is no figure; there are: {}", known.join(", "));
        }
        let mut figures = Self {
            full,
            only: only.to_vec(),
            values: Map::new(),
            reasons: Map::new(),
            notes: Map::new(),
            audits_clean: true,
        };
        for figure in &FIGURES {
            if figure.only_full && !full {
                figures.void(figure.key, "only with --full");
            } else if !figures.wanted(figure.key) {
                figures.void(figure.key, "not asked for");
            }
        }
        Ok(figures)
    }

    /// Whether that figure is to be measured.
    pub(crate) fn wanted(&self, key: &str) -> bool {
        let asked = self.only.is_empty() || self.only.iter().any(|name| name == key);
        asked && FIGURES.iter().any(|figure| figure.key == key && (self.full || !figure.only_full))
    }

    pub(crate) fn any_wanted(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.wanted(key))
    }

    /// A figure that was asked for; one that was not stays null.
    pub(crate) fn set(&mut self, key: &'static str, value: f64) {
        if self.wanted(key) {
            self.values.insert(key.to_owned(), json!(shortened(value)));
        }
    }

    /// A figure that has no value, and why.
    pub(crate) fn void(&mut self, key: &'static str, reason: &str) {
        self.values.insert(key.to_owned(), Value::Null);
        self.reasons.insert(key.to_owned(), json!(reason));
    }

    pub(crate) fn void_unless_set(&mut self, key: &'static str, reason: &str) {
        if !self.values.contains_key(key) {
            self.void(key, reason);
        }
    }

    /// Something beside the figures: absolute rates, rounds, the machine.
    pub(crate) fn note(&mut self, key: &'static str, value: Value) {
        self.notes.insert(key.to_owned(), value);
    }

    /// A plain number beside the figures.
    pub(crate) fn note_number(&mut self, key: &'static str, value: f64) {
        self.note(key, json!(shortened(value)));
    }

    /// An audit found something: the figures that rest on it are void already.
    pub(crate) fn audit_failed(&mut self) {
        self.audits_clean = false;
    }

    /// Everything as one object.
    pub(crate) fn into_object(self) -> Map<String, Value> {
        let mut object = self.values;
        object.insert("reasons".to_owned(), Value::Object(self.reasons));
        object.insert("audits_clean".to_owned(), json!(self.audits_clean));
        object.extend(self.notes);
        object
    }

    /// The figures for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<28} {:>12} {:>12}  \n", "figure", "measured", "bar");
        for figure in &FIGURES {
            let measured = match self.values.get(figure.key) {
                Some(Value::Number(number)) => number.to_string(),
                _ => "-".to_owned(),
            };
            let reason = self.reasons.get(figure.key).and_then(Value::as_str);
            let sign = if figure.more_is_better { ">=" } else { "<=" };
            let bar = format!("{sign} {}", figure.bar);
            let told =
                reason.map_or_else(|| figure.meaning.to_owned(), |reason| format!("{} ({reason})", figure.meaning));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:<28} {measured:>12} {bar:>12}  {told}", figure.key);
        }
        for (key, value) in self.notes.iter().filter(|(_, value)| value.is_number()) {
            let _ = writeln!(text, "{key:<40} {value}");
        }
        for key in ["machine", "fdatasync_ms"] {
            if let Some(value) = self.notes.get(key) {
                let _ = writeln!(text, "{key:<22} {value}");
            }
        }
        let _ = writeln!(text, "audits {}", if self.audits_clean { "clean" } else { "FAILED" });
        text
    }
}

/// Four digits are more than a shared machine can repeat.
fn shortened(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    if digits <= 0 {
        return value.round();
    }
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// The middle value.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, median, shortened};

    #[test]
    fn a_figure_that_was_not_asked_for_is_null_with_a_reason() {
        let mut figures = Figures::new(false, &["held_p99_ms".to_owned()]).unwrap();
        figures.set("held_p99_ms", 2.34567);
        figures.set("wins_vs_bare", 1.0);
        let object = figures.into_object();
        assert_eq!(object["held_p99_ms"], 2.346);
        assert!(object["wins_vs_bare"].is_null() && object["scale_10m_http"].is_null());
        assert_eq!(object["reasons"]["scale_10m_http"], "only with --full");
        assert!(Figures::new(true, &["speed".to_owned()]).is_err());
    }

    #[test]
    fn a_median_is_the_middle_and_four_digits_are_kept() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert_eq!(shortened(123_456.7), 123_457.0);
        assert_eq!(shortened(0.012_345_6), 0.01235);
    }
}
