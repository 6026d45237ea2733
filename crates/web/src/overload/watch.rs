//! Moves the ceiling on requests at once with what is measured, ten times a second, and tells the operator which ceiling bites.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use domain::Right;
use http::HeaderMap;
use limiter::overload::{ADJUST_MILLISECONDS, Ceiling, Controller, Priority, Seen};
use procfs::{CpuPressure, Current as _, MemoryPressure};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Overload, lock};
use crate::admin::admit;
use crate::app::App;
use crate::problem::{Problem, ProblemBody};

const ADJUST_EVERY: Duration = Duration::from_millis(ADJUST_MILLISECONDS);
/// Between two looks at what the system says about pressure.
const PRESSURE_EVERY: Duration = Duration::from_secs(1);
/// A ceiling that has left nobody out for so long bites no more.
const QUIET: Duration = Duration::from_secs(1);

/// What was seen last.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown {
    seen: Seen,
    /// Whether the system says anything about pressure.
    has_pressure: bool,
    bites: [bool; 3],
}

/// The thread that watches; it ends when this is dropped.
pub(crate) struct Watcher {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(app: &Arc<App>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let app: Weak<App> = Arc::downgrade(app);
        let watch = move || {
            let Some(mut watch) = app.upgrade().map(|app| Watch::new(&app.overload)) else { return };
            while stopped.recv_timeout(ADJUST_EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(app) = app.upgrade() else { return };
                watch.look(&app.overload, Instant::now());
            }
        };
        let thread = std::thread::Builder::new().name("overload".to_owned()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in there has ended the process.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

struct Watch {
    controller: Controller,
    pressure: Option<Pressure>,
    shown: Shown,
    biting: [Option<Biting>; 3],
    counts: [u64; 3],
}

/// A ceiling that leaves requests out.
struct Biting {
    since: Instant,
    last: Instant,
    count: u64,
}

impl Watch {
    fn new(overload: &Overload) -> Self {
        Self {
            controller: Controller::new(overload.options.bounds),
            pressure: Pressure::now(),
            shown: Shown::default(),
            biting: [const { None }; 3],
            counts: [0; 3],
        }
    }

    fn look(&mut self, overload: &Overload, now: Instant) {
        self.look_at_pressure(now);
        let seen = &mut self.shown.seen;
        [seen.queue, seen.decision] = [None; 2];
        for delays in lock(&overload.threads).iter() {
            let [queue, decision] = delays.take();
            (seen.queue, seen.decision) = (seen.queue.max(queue), seen.decision.max(decision));
        }
        seen.in_flight_peak = overload.ceilings.take_peak();
        overload.ceilings.set_in_flight_max(self.controller.adjust(seen));
        for ceiling in Ceiling::ALL {
            self.tell(overload, ceiling, now);
        }
        self.shown.bites = self.biting.each_ref().map(Option::is_some);
        *lock(&overload.seen) = self.shown;
    }

    fn look_at_pressure(&mut self, now: Instant) {
        let is_due = |before: &Pressure| now.duration_since(before.at) >= PRESSURE_EVERY;
        let Some(before) = self.pressure.take_if(|before| is_due(before)) else { return };
        self.pressure = Pressure::now();
        let seen = &mut self.shown.seen;
        [seen.cpu_pressure, seen.memory_pressure] = self.pressure.as_ref().map_or([0.0; 2], |now| now.since(&before));
        self.shown.has_pressure = self.pressure.is_some();
    }

    fn tell(&mut self, overload: &Overload, ceiling: Ceiling, now: Instant) {
        let (before, count) = (self.counts[ceiling as usize], overload.shed.count(ceiling));
        self.counts[ceiling as usize] = count;
        let biting = &mut self.biting[ceiling as usize];
        let name = ceiling.name();
        if count > before {
            if biting.is_none() {
                let (ceilings, seen) = (&overload.ceilings, &self.shown.seen);
                let (in_flight, in_flight_ceiling) = (ceilings.in_flight(), ceilings.in_flight_max());
                let (queue_milliseconds, decision_milliseconds) =
                    (milliseconds(seen.queue), milliseconds(seen.decision));
                tracing::warn!(
                    ceiling = name,
                    in_flight,
                    in_flight_ceiling,
                    queue_milliseconds,
                    decision_milliseconds,
                    "requests are left out"
                );
            }
            let biting = biting.get_or_insert(Biting { since: now, last: now, count: 0 });
            (biting.last, biting.count) = (now, biting.count + (count - before));
        } else if let Some(over) = biting.take_if(|biting| now.duration_since(biting.last) >= QUIET) {
            let seconds = over.last.duration_since(over.since).as_millis() as f64 / 1_000.0;
            tracing::info!(ceiling = name, requests = over.count, seconds, "requests are no longer left out");
        }
    }
}

/// What Linux counts in `/proc/pressure`: for how long somebody waited for a processor, and everybody for memory.
struct Pressure {
    at: Instant,
    waited_microseconds: [u64; 2],
}

impl Pressure {
    /// `None` where the system does not count; then the delays alone have to tell.
    fn now() -> Option<Self> {
        let (cpu, memory) = (CpuPressure::current().ok()?, MemoryPressure::current().ok()?);
        Some(Self { at: Instant::now(), waited_microseconds: [cpu.some.total, memory.full.total] })
    }

    /// The parts of the time since then.
    fn since(&self, before: &Self) -> [f64; 2] {
        let time = self.at.duration_since(before.at).as_micros() as f64;
        let part = |now: u64, before: u64| (now.saturating_sub(before) as f64 / time.max(1.0)).min(1.0);
        let [cpu, memory] = self.waited_microseconds;
        let [cpu_before, memory_before] = before.waited_microseconds;
        [part(cpu, cpu_before), part(memory, memory_before)]
    }
}

fn milliseconds(nanoseconds: Option<u64>) -> Option<f64> {
    nanoseconds.map(|nanoseconds| (nanoseconds / 1_000) as f64 / 1_000.0)
}

/// How much this process has to do, and which ceiling leaves requests out.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoadAnswer {
    /// Requests under way.
    in_flight: u32,
    /// The ceiling on them now; 0 is none.
    in_flight_ceiling: u32,
    /// The highest that it may be.
    in_flight_ceiling_max: u32,
    /// The ceiling on requests a second; 0 is none.
    requests_per_second_max: u32,
    /// The ceiling on passes a second; 0 is none.
    passes_per_second_max: u32,
    /// The ceilings that leave requests out now, or did within the last second: `in_flight`, `requests`, `passes`.
    biting: Vec<&'static str>,
    /// The shortest wait for a serving thread in the last tenth of a second. Null where nobody asked.
    queue_milliseconds: Option<f64>,
    /// The shortest wait for a decision. Null where nothing was decided.
    decision_milliseconds: Option<f64>,
    /// The part of the last second in which somebody on this machine waited for a processor. Null where the system does not tell.
    cpu_pressure: Option<f64>,
    /// The part of it in which everybody waited for memory.
    memory_pressure: Option<f64>,
    /// Requests left out since the start.
    left_out: Vec<LeftOut>,
    /// Addresses that get no passes and no purchases for a while because they went on although they were refused.
    addresses_blocked_automatically: usize,
}

/// Requests of a priority that were left out for a ceiling.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeftOut {
    /// For which ceiling.
    ceiling: &'static str,
    /// `purchases`, `passes` or `rest`.
    priority: &'static str,
    /// How many.
    requests: u64,
}

/// How much this process has to do, and which ceiling leaves requests out. In a cluster each gate has its own.
#[utoipa::path(
    get, path = "/admin/v1/load", tag = "operator",
    responses((status = 200, body = LoadAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn load(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<LoadAnswer>, Problem> {
    admit(&app, &headers, Right::Read)?;
    let overload = &app.overload;
    let Shown { seen, has_pressure, bites } = *lock(&overload.seen);
    let thousandths = |part: f64| has_pressure.then(|| (part * 1_000.0).round() / 1_000.0);
    let left_out = Ceiling::ALL.into_iter().flat_map(|ceiling| {
        Priority::ALL.into_iter().map(move |priority| LeftOut {
            ceiling: ceiling.name(),
            priority: priority.name(),
            requests: overload.shed.of(ceiling, priority).get(),
        })
    });
    Ok(Json(LoadAnswer {
        in_flight: overload.ceilings.in_flight(),
        in_flight_ceiling: overload.ceilings.in_flight_max(),
        in_flight_ceiling_max: overload.options.bounds.in_flight_max,
        requests_per_second_max: overload.options.requests_per_second_max,
        passes_per_second_max: overload.options.passes_per_second_max,
        biting: Ceiling::ALL.into_iter().filter(|ceiling| bites[*ceiling as usize]).map(Ceiling::name).collect(),
        queue_milliseconds: milliseconds(seen.queue),
        decision_milliseconds: milliseconds(seen.decision),
        cpu_pressure: thousandths(seen.cpu_pressure),
        memory_pressure: thousandths(seen.memory_pressure),
        left_out: left_out.filter(|left_out| left_out.requests > 0).collect(),
        addresses_blocked_automatically: app.limits.automatic_in_force(app.engine.now()),
    }))
}
