//! What is left out while more is asked than can be answered: ceilings on requests at once and requests a second, and how the first of them
//! follows what is measured.
//!
//! A ceiling on requests at once bounds how long anybody waits, whatever a request costs. Nobody can know the right one beforehand, so it
//! follows the delay that it is to bound: with n requests before mine, each of which takes as long as it takes, a delay that is twice as
//! long as it may be asks for half of n. The delay is judged as in CoDel (RFC 8289): by the shortest one of an interval, since a burst that
//! is worked off is no overload and a queue that never empties is one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The lowest ceiling on requests at once.
pub const IN_FLIGHT_MIN: u32 = 64;
/// Between two adjustments of it.
pub const ADJUST_MILLISECONDS: u64 = 100;

/// How much of all time everybody may stand still for want of memory.
const MEMORY_PRESSURE_MAX: f64 = 0.2;
/// From this part of all time on, somebody waiting for a processor, the ceiling is raised with care unless there is hardly any delay.
const CPU_PRESSURE_HIGH: f64 = 0.9;
/// Intervals in a row that have to be over, so that one hiccup of the machine is none.
const OVER_IN_A_ROW: u32 = 2;
/// Requests a second come in bursts of this part of a second's.
const BURSTS_PER_SECOND: u32 = 10;
/// For how far ahead whoever has to come again is given a time.
const BOOKED_AHEAD: u64 = 10 * SECOND;
const SECOND: u64 = 1_000_000_000;

/// What a request is to whoever has to leave some out, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Whoever proves that something is theirs. Never left out.
    Proven,
    /// Buying.
    Purchases,
    /// What has to be done before one can buy.
    Passes,
    /// How things stand, lists and pages.
    Rest,
}

impl Priority {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Proven, Self::Purchases, Self::Passes, Self::Rest];

    /// For metrics and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Purchases => "purchases",
            Self::Passes => "passes",
            Self::Rest => "rest",
        }
    }

    /// Up to how many quarters of a ceiling everything together may have reached for such a request to be let in.
    fn quarters(self) -> u64 {
        match self {
            Self::Proven | Self::Purchases => 4,
            Self::Passes => 3,
            Self::Rest => 2,
        }
    }

    /// Whether such requests may fill a quarter of the ceiling at most by themselves: they wait for other things than purchases do, and
    /// however long these take, nobody's purchase is pushed out.
    fn is_confined(self) -> bool {
        self >= Self::Passes
    }
}

/// Why a request is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// So many are under way at once that another would wait too long.
    InFlight,
    /// As many a second as may be.
    Requests,
    /// As many passes a second as may be.
    Passes,
}

impl Ceiling {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InFlight, Self::Requests, Self::Passes];

    /// For metrics and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Requests => "requests",
            Self::Passes => "passes",
        }
    }
}

/// The ceilings themselves, shared by all threads. Nothing here waits or locks.
pub struct Ceilings {
    in_flight: AtomicU32,
    of_priority: [AtomicU32; 4],
    peak: AtomicU32,
    in_flight_max: AtomicU32,
    requests: Option<Pace>,
    passes: Option<Pace>,
}

impl Ceilings {
    /// Lets that many in at once, until it is told otherwise, and so many a second; 0 is no ceiling.
    pub fn new(in_flight_max: u32, requests_per_second_max: u32, passes_per_second_max: u32) -> Self {
        let pace = |per_second: u32| (per_second > 0).then(|| Pace::new(per_second));
        Self {
            in_flight: AtomicU32::new(0),
            of_priority: Default::default(),
            peak: AtomicU32::new(0),
            in_flight_max: AtomicU32::new(in_flight_max),
            requests: pace(requests_per_second_max),
            passes: pace(passes_per_second_max),
        }
    }

    /// Whether time has to be told to [`Ceilings::enter`].
    pub fn needs_time(&self) -> bool {
        self.requests.is_some()
    }

    /// Lets a request in or says which ceiling it is left out for. `now` is in nanoseconds since any start. Who is in has to
    /// [`Ceilings::leave`].
    pub fn enter(&self, priority: Priority, now: u64) -> Result<(), Ceiling> {
        let ceiling = u64::from(self.in_flight_max.load(Ordering::Relaxed));
        let own = &self.of_priority[priority as usize];
        let within = |count: u32, quarters: u64| u64::from(count) * 4 < ceiling * quarters;
        let count = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let has_room =
            within(count, priority.quarters()) && (!priority.is_confined() || within(own.load(Ordering::Relaxed), 1));
        if priority != Priority::Proven && ceiling > 0 && !has_room {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Ceiling::InFlight);
        }
        if let Some(pace) = &self.requests
            && !pace.take(priority, now)
        {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Ceiling::Requests);
        }
        own.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Requests that were let in are over, so many of each priority.
    pub fn leave(&self, counts: [u32; 4]) {
        let all: u32 = counts.iter().sum();
        let before = self.in_flight.fetch_sub(all, Ordering::Relaxed);
        self.peak.fetch_max(before, Ordering::Relaxed);
        for (own, count) in self.of_priority.iter().zip(counts) {
            own.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Lets somebody take a pass, or says after how many nanoseconds they should come again: everybody who is turned away gets another
    /// time, as many of them a second as passes can be taken in one.
    pub fn take_pass(&self, now: u64) -> Result<(), u64> {
        match &self.passes {
            Some(pace) if !pace.take(Priority::Purchases, now) => Err(pace.book(now)),
            _ => Ok(()),
        }
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The ceiling on them; 0 is none.
    pub fn in_flight_max(&self) -> u32 {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    /// Sets that ceiling.
    pub fn set_in_flight_max(&self, max: u32) {
        self.in_flight_max.store(max, Ordering::Relaxed);
    }

    /// The most that were under way since this was asked last.
    pub fn take_peak(&self) -> u32 {
        self.peak.swap(0, Ordering::Relaxed).max(self.in_flight())
    }
}

/// So many a second, all together: the rule of [`crate::Limiter`] for one key, in nanoseconds.
struct Pace {
    interval: u64,
    tolerance: u64,
    arrival: AtomicU64,
    booked: AtomicU64,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        let interval = (SECOND / u64::from(per_second.max(1))).max(1);
        let burst = u64::from((per_second / BURSTS_PER_SECOND).max(1));
        Self { interval, tolerance: (burst - 1) * interval, arrival: AtomicU64::new(0), booked: AtomicU64::new(0) }
    }

    /// Proven callers are let in whatever it says; what they take is missing for the others for a second at most.
    fn take(&self, priority: Priority, now: u64) -> bool {
        let tolerance = match priority {
            Priority::Proven => SECOND,
            _ => self.tolerance * priority.quarters() / 4,
        };
        let taken = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival| {
            let arrival = arrival.max(now);
            (arrival - now <= tolerance).then_some(arrival + self.interval)
        });
        taken.is_ok() || priority == Priority::Proven
    }

    /// After how long to come again.
    fn book(&self, now: u64) -> u64 {
        let next = |booked: u64| {
            let next = booked.max(now) + self.interval;
            // Beyond the last time the first one is given again: the times are spread over ten seconds, however many they are for.
            if next - now > BOOKED_AHEAD { now + self.interval } else { next }
        };
        let before = self.booked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |booked| Some(next(booked)));
        next(before.unwrap_or_else(|booked| booked)) - now
    }
}

/// The shortest delays that one thread has seen since they were taken last, in nanoseconds.
pub struct Delays {
    queue: AtomicU64,
    decision: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl Default for Delays {
    fn default() -> Self {
        Self { queue: AtomicU64::new(NONE), decision: AtomicU64::new(NONE) }
    }
}

impl Delays {
    /// So long something that was ready waited for its thread.
    pub fn note_queue(&self, nanoseconds: u64) {
        self.queue.fetch_min(nanoseconds, Ordering::Relaxed);
    }

    /// So long a decision took.
    pub fn note_decision(&self, nanoseconds: u64) {
        self.decision.fetch_min(nanoseconds, Ordering::Relaxed);
    }

    /// Both, where any was seen.
    pub fn take(&self) -> [Option<u64>; 2] {
        [&self.queue, &self.decision]
            .map(|shortest| Some(shortest.swap(NONE, Ordering::Relaxed)).filter(|at| *at != NONE))
    }
}

/// What was seen in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The shortest wait for a thread, of the thread where it was longest, in nanoseconds.
    pub queue: Option<u64>,
    /// The shortest wait for a decision, likewise.
    pub decision: Option<u64>,
    /// The most requests that were under way.
    pub in_flight_peak: u32,
    /// The part of the time in which somebody on this machine waited for a processor, 0 to 1.
    pub cpu_pressure: f64,
    /// The part of the time in which everybody on this machine waited for memory, 0 to 1.
    pub memory_pressure: f64,
}

/// How long may be waited, and how many may be in at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For a thread, in milliseconds.
    pub queue_milliseconds: u64,
    /// For a decision, in milliseconds.
    pub decision_milliseconds: u64,
    /// The highest ceiling on requests at once; 0 for none at all.
    pub in_flight_max: u32,
}

/// Moves the ceiling on requests at once.
pub struct Controller {
    bounds: Bounds,
    ceiling: f64,
    over: u32,
}

impl Controller {
    /// Begins with the highest.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ceiling: f64::from(bounds.in_flight_max), over: 0 }
    }

    /// The ceiling after an interval in which that was seen.
    pub fn adjust(&mut self, seen: &Seen) -> u32 {
        if self.bounds.in_flight_max == 0 {
            return 0;
        }
        let of = |waited: Option<u64>, milliseconds: u64| {
            waited.map(|waited| waited as f64 / (milliseconds.max(1) as f64 * 1e6))
        };
        let delays =
            [of(seen.queue, self.bounds.queue_milliseconds), of(seen.decision, self.bounds.decision_milliseconds)];
        let delay = delays.into_iter().flatten().reduce(f64::max);
        let load = delay.unwrap_or(0.0).max(seen.memory_pressure / MEMORY_PRESSURE_MAX);
        if load > 1.0 {
            self.over += 1;
            if self.over >= OVER_IN_A_ROW {
                // A ceiling that nobody has reached says nothing about what is under way.
                self.ceiling = self.ceiling.min(f64::from(seen.in_flight_peak)) * (1.0 / load).clamp(0.1, 0.95);
            }
        } else if delay.is_some() || seen.in_flight_peak == 0 {
            self.over = 0;
            let calm = if seen.cpu_pressure > CPU_PRESSURE_HIGH { 0.1 } else { 0.5 };
            let is_doubtful = load > calm;
            self.ceiling = if is_doubtful { self.ceiling * 1.02 + 1.0 } else { self.ceiling * 1.3 + 16.0 };
        }
        let max = f64::from(self.bounds.in_flight_max);
        self.ceiling = self.ceiling.clamp(f64::from(IN_FLIGHT_MIN).min(max), max);
        self.ceiling as u32
    }
}

#[cfg(test)]
mod tests;
