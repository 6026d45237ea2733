//! The pace of the books: so many records a second, in even slices. It only computes waits; it never waits itself.

use std::time::{Duration, Instant};

/// The length of a slice: what may be taken at once, so that nothing stalls for long and nothing bursts.
const SLICE: Duration = Duration::from_millis(50);
/// Records in one transaction at most.
const STEP_RECORDS_MAX: u64 = 5_000;

/// How fast the books follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the disk allows.
    Unlimited,
    /// At most so many records a second over all sales; 0 counts as 1.
    PerSecond(u32),
}

impl Default for Pace {
    fn default() -> Self {
        Self::PerSecond(5_000)
    }
}

/// Keeps a pace. A batch is never split, so a slice may be overdrawn; the overdraft is waited off.
pub(super) struct Meter {
    pace: Pace,
    /// When the overdraft is paid; never further back than one slice, so that idle time is not saved up.
    free_at: Instant,
}

impl Meter {
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, free_at: now }
    }

    /// How long to wait before the next step; zero when it may go now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.free_at.saturating_duration_since(now)
    }

    /// Records to aim at in one step.
    pub(super) fn records(&self) -> u64 {
        match self.pace {
            Pace::Unlimited => STEP_RECORDS_MAX,
            Pace::PerSecond(rate) => (u64::from(rate) * SLICE.as_millis() as u64 / 1_000).clamp(1, STEP_RECORDS_MAX),
        }
    }

    /// Notes that a step has taken so many records.
    pub(super) fn took(&mut self, records: u64, now: Instant) {
        if let Pace::PerSecond(rate) = self.pace {
            let cost = Duration::from_nanos(records.saturating_mul(1_000_000_000) / u64::from(rate.max(1)));
            let earliest = now.checked_sub(SLICE).unwrap_or(now);
            self.free_at = self.free_at.max(earliest) + cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_meter_neither_bursts_nor_starves() {
        let start = Instant::now();
        let mut meter = Meter::new(Pace::PerSecond(5_000), start);
        let mut now = start + Duration::from_secs(60);
        let begun = now;
        let mut taken = 0;
        while now < begun + Duration::from_secs(2) {
            assert!(meter.wait(now) <= Duration::from_millis(200), "one overdrawn batch waits 200 ms at most");
            now += meter.wait(now);
            let batch = 1_000;
            meter.took(batch, now);
            taken += batch;
        }
        assert!((9_000..=12_000).contains(&taken), "{taken} records in two seconds after a minute's rest");
    }

    #[test]
    fn an_unlimited_meter_never_waits() {
        let now = Instant::now();
        let mut meter = Meter::new(Pace::Unlimited, now);
        meter.took(1_000_000, now);
        assert_eq!(meter.wait(now), Duration::ZERO);
    }
}
