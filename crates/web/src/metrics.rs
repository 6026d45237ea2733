//! Counters for the operator. Refusals are counted by code, purchases by stage.

use std::sync::atomic::Ordering;

use domain::{HumanCheck, Promise, Refusal, SalePhase, Stage};
use engine::{Engine, Shared, SharedCounts};
use ledger::{FollowState, Service};
use limiter::overload::{Ceiling, Priority};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::app::App;
use crate::limits::{By, Kind};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    by: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabel {
    check: &'static str,
    outcome: &'static str,
}

/// What became of a challenge.
#[derive(Clone, Copy)]
pub(crate) enum CheckOutcome {
    Given,
    Passed,
    Wrong,
    TooFast,
    Used,
    Expired,
    NotBelieved,
}

impl CheckOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Passed => "passed",
            Self::Wrong => "wrong",
            Self::TooFast => "too_fast",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::NotBelieved => "not_believed",
        }
    }
}

impl LimitLabel {
    fn of(by: By, kind: Kind) -> Self {
        Self { by: by.name(), kind: kind.name() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabel {
    ceiling: &'static str,
    priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SaleLabel {
    sale: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ItemLabel {
    sale: String,
    item: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    sale: String,
    service: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PaymentLabel {
    sale: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabel {
    webhook: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PromiseLabel {
    promise: &'static str,
}

/// What gates of a cluster share; all zero in a process that is alone.
#[derive(Default)]
struct SharedMetrics {
    asked: Counter,
    permits: Counter,
    refused: Counter,
    without: Counter,
    gates: Gauge,
    reachable: Gauge,
}

impl SharedMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("shared_asked", "Requests for which Redis was asked about a limit", self.asked.clone());
        registry.register("shared_permits", "Permits that Redis gave", self.permits.clone());
        registry.register("shared_refused", "Requests that Redis refused", self.refused.clone());
        let without = "Requests that a gate judged by its own part of a limit, because Redis was away or slow";
        registry.register("shared_without_redis", without, self.without.clone());
        registry.register("shared_gates", "Gates that keep the limits together", self.gates.clone());
        let reachable = "Hundredths of what gates share that Redis can be asked about now";
        registry.register("shared_reachable_percent", reachable, self.reachable.clone());
    }

    fn look_at(&self, shared: &Shared) {
        let SharedCounts { asked, permits, refused, without } = shared.counts();
        let counters =
            [(&self.asked, asked), (&self.permits, permits), (&self.refused, refused), (&self.without, without)];
        for (counter, count) in counters {
            counter.inner().store(count, Ordering::Relaxed);
        }
        self.gates.set(shared.gate_count().into());
        self.reachable.set(shared.well_hundredths().cast_signed());
    }
}

/// Requests that were left out, by ceiling, then by priority.
#[derive(Clone, Default)]
pub(crate) struct ShedCounters([[Counter; 4]; 3]);

impl ShedCounters {
    pub(crate) fn of(&self, ceiling: Ceiling, priority: Priority) -> &Counter {
        &self.0[ceiling as usize][priority as usize]
    }

    /// All that a ceiling left out.
    pub(crate) fn count(&self, ceiling: Ceiling) -> u64 {
        self.0[ceiling as usize].iter().map(Counter::get).sum()
    }
}

pub(crate) struct Metrics {
    registry: Registry,
    refusals: Vec<(Refusal, Counter)>,
    stages: Vec<Counter>,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) connections_timed_out: Counter,
    pub(crate) streams: Gauge,
    /// By what a limit counts, then by its kind.
    pub(crate) limited: [[Counter; 3]; 2],
    pub(crate) automatic_blocks: Counter,
    pub(crate) shed: ShedCounters,
    in_flight: Gauge,
    in_flight_ceiling: Gauge,
    human_checks: Family<CheckLabel, Counter>,
    limit_entries: Family<LimitLabel, Gauge>,
    automatic_in_force: Gauge,
    shared: SharedMetrics,
    free: Family<ItemLabel, Gauge>,
    position: Family<SaleLabel, Gauge>,
    books_lag: Family<SaleLabel, Gauge>,
    services_lag: Family<ServiceLabel, Gauge>,
    paused: Family<SaleLabel, Gauge>,
    rung: Family<SaleLabel, Gauge>,
    broken: Family<PromiseLabel, Gauge>,
    payments: Family<PaymentLabel, Gauge>,
    provider_failures: Counter,
    webhook_waiting: Family<WebhookLabel, Gauge>,
    webhook_parked: Family<WebhookLabel, Gauge>,
    webhook_paused: Family<WebhookLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("doorbuster");
        let refusals = Family::<CodeLabel, Counter>::default();
        registry.register("refusals", "Requests refused, by code", refusals.clone());
        let stages = Family::<StageLabel, Counter>::default();
        registry.register("purchases", "Purchase requests that reached a stage of the front half", stages.clone());
        let limited = Family::<LimitLabel, Counter>::default();
        registry.register("limited", "Requests refused by a limit, by what it counts", limited.clone());
        let metrics = Self {
            refusals: Refusal::ALL
                .into_iter()
                .chain([Refusal::Internal])
                .map(|refusal| (refusal, refusals.get_or_create_owned(&CodeLabel { code: refusal.code() })))
                .collect(),
            stages: Stage::ALL
                .into_iter()
                .take_while(|stage| *stage <= Stage::Answered)
                .map(|stage| stages.get_or_create_owned(&StageLabel { stage: stage.name() }))
                .collect(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            connections_timed_out: Counter::default(),
            streams: Gauge::default(),
            limited: By::ALL.map(|by| Kind::ALL.map(|kind| limited.get_or_create_owned(&LimitLabel::of(by, kind)))),
            automatic_blocks: Counter::default(),
            shed: register_shed(&mut registry),
            in_flight: Gauge::default(),
            in_flight_ceiling: Gauge::default(),
            human_checks: Family::default(),
            limit_entries: Family::default(),
            automatic_in_force: Gauge::default(),
            shared: SharedMetrics::default(),
            free: Family::default(),
            position: Family::default(),
            books_lag: Family::default(),
            services_lag: Family::default(),
            paused: Family::default(),
            rung: Family::default(),
            broken: Family::default(),
            payments: Family::default(),
            provider_failures: Counter::default(),
            webhook_waiting: Family::default(),
            webhook_parked: Family::default(),
            webhook_paused: Family::default(),
            registry: Registry::default(),
        };
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("connections_refused", "Connections beyond the ceiling", metrics.connections_refused.clone());
        let timed_out = "Connections closed because a header, a body or the next request did not come in time";
        registry.register("connections_timed_out", timed_out, metrics.connections_timed_out.clone());
        registry.register("streams", "Open streams of events", metrics.streams.clone());
        metrics.register_limits(&mut registry);
        metrics.shared.register(&mut registry);
        registry.register("units_free", "Free units of an item", metrics.free.clone());
        registry.register("chain_position", "Last durable record of a sale", metrics.position.clone());
        let of_orders = "Records that the order service has not applied";
        registry.register("books_lag", of_orders, metrics.books_lag.clone());
        let of_services = "Records that a service of the books has not applied";
        registry.register("books_service_lag", of_services, metrics.services_lag.clone());
        registry.register("sale_paused", "1 while purchases are paused", metrics.paused.clone());
        let rung = "Rung of the ladder on which a cluster serves a sale: 0 full, 1 takeover, 2 paused";
        registry.register("sale_rung", rung, metrics.rung.clone());
        let broken = "1 when a projection contradicts a promise; the auditor tells more";
        registry.register("promise_broken", broken, metrics.broken.clone());
        metrics.register_outside(&mut registry);
        Self { registry, ..metrics }
    }

    /// What is about the provider of payments and about those who are told of events.
    fn register_outside(&self, registry: &mut Registry) {
        let payments = "Attempts to pay by status; parked are reports that nobody believed";
        registry.register("payments", payments, self.payments.clone());
        let failures = "Calls to the payment provider that did not do what was asked";
        registry.register("provider_failures", failures, self.provider_failures.clone());
        registry.register("webhook_waiting", "Events that a webhook has not been told", self.webhook_waiting.clone());
        let parked = "Events that a webhook could not be told";
        registry.register("webhook_parked", parked, self.webhook_parked.clone());
        registry.register("webhook_paused", "1 while a webhook is not called", self.webhook_paused.clone());
    }

    fn register_limits(&self, registry: &mut Registry) {
        let checks = "Challenges of human checks, by what became of them";
        registry.register("human_checks", checks, self.human_checks.clone());
        registry.register(
            "limit_entries",
            "Addresses or customers that a limit counts now",
            self.limit_entries.clone(),
        );
        let blocks = "Blocks of addresses that went on although they were refused";
        registry.register("automatic_blocks", blocks, self.automatic_blocks.clone());
        let in_force = "Addresses that are blocked now because they went on";
        registry.register("automatic_blocks_in_force", in_force, self.automatic_in_force.clone());
        registry.register("in_flight", "Requests under way on the public listener", self.in_flight.clone());
        let ceiling = "How many of them there may be now; it moves with the delay. 0 is no ceiling";
        registry.register("in_flight_ceiling", ceiling, self.in_flight_ceiling.clone());
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        if let Some((_, counter)) = self.refusals.iter().find(|(of, _)| *of == refusal) {
            counter.inc();
        }
    }

    /// Counts what became of a challenge; which check it was of is not known of one that is not believed.
    pub(crate) fn count_check(&self, check: Option<HumanCheck>, outcome: CheckOutcome) {
        let label = CheckLabel { check: check.map_or("unknown", HumanCheck::name), outcome: outcome.name() };
        self.human_checks.get_or_create(&label).inc();
    }

    pub(crate) fn reached(&self, stage: Stage) {
        self.stages[stage as usize].inc();
    }

    /// The exposition in the OpenMetrics text format. Blocks: the books and the webhooks are asked.
    pub(crate) fn render(&self, app: &App) -> String {
        self.look_at_sales(&app.engine);
        self.look_at_payments(app);
        self.look_at_webhooks(app);
        self.look_at_limits(app);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }

    /// Whoever asks for metrics gets the rest, where the books cannot be read.
    fn look_at_payments(&self, app: &App) {
        if let Some(till) = &app.till {
            self.provider_failures.inner().store(till.failures(), Ordering::Relaxed);
        }
        if app.engine.roles().worker {
            let counts = app.engine.books_reader().and_then(|books| books.payment_counts());
            for (sale, status, count) in counts.unwrap_or_default() {
                self.payments.get_or_create(&PaymentLabel { sale, status }).set(count.cast_signed());
            }
        }
    }

    fn look_at_limits(&self, app: &App) {
        let ceilings = &app.overload.ceilings;
        self.in_flight.set(i64::from(ceilings.in_flight()));
        self.in_flight_ceiling.set(i64::from(ceilings.in_flight_max()));
        let now = app.engine.now();
        for (by, kind) in of_limits() {
            let label = LimitLabel::of(by, kind);
            let entries = i64::try_from(app.limits.in_use(by, kind, now)).unwrap_or(i64::MAX);
            self.limit_entries.get_or_create(&label).set(entries);
        }
        self.automatic_in_force.set(i64::try_from(app.limits.automatic_in_force(now)).unwrap_or(i64::MAX));
        if let Some(shared) = app.engine.shared() {
            self.shared.look_at(shared);
        }
    }

    fn look_at_webhooks(&self, app: &App) {
        let Some(webhooks) = &app.webhooks else { return };
        let Ok(states) = webhooks.list() else { return };
        // One that was removed is no longer told of.
        for family in [&self.webhook_waiting, &self.webhook_parked, &self.webhook_paused] {
            family.clear();
        }
        for state in states {
            let label = WebhookLabel { webhook: state.id };
            self.webhook_waiting.get_or_create(&label).set(state.waiting.cast_signed());
            self.webhook_parked.get_or_create(&label).set(state.parked.cast_signed());
            self.webhook_paused.get_or_create(&label).set(i64::from(state.paused.is_some()));
        }
    }

    fn look_at_sales(&self, engine: &Engine) {
        let mut stopped = Vec::new();
        for sale in engine.sales() {
            let label = SaleLabel { sale: sale.name().to_owned() };
            let next = sale.view().watermark().next();
            self.position.get_or_create(&label).set(next.saturating_sub(1).cast_signed());
            if engine.roles().worker {
                for service in Service::ALL {
                    let lag = next.saturating_sub(engine.books.drained(service, sale.name())).cast_signed();
                    let of_service = ServiceLabel { sale: sale.name().to_owned(), service: service.name() };
                    self.services_lag.get_or_create(&of_service).set(lag);
                    if service == Service::Orders {
                        self.books_lag.get_or_create(&label).set(lag);
                    }
                }
            }
            self.paused.get_or_create(&label).set(i64::from(sale.view().is_paused()));
            if let Some(ladder) = &sale.ladder {
                self.rung.get_or_create(&label).set(ladder.rung() as i64);
            }
            for (index, item) in sale.definition().items.iter().enumerate() {
                let label = ItemLabel { sale: sale.name().to_owned(), item: item.item.clone() };
                self.free.get_or_create(&label).set(sale.view().free(index as u16).cast_signed());
            }
            if sale.view().phase() < SalePhase::Settled {
                let has_stopped = |service: &Service| {
                    let state = engine.books.state(*service, sale.name());
                    matches!(state, Some(FollowState::Stopped(_)))
                };
                stopped.extend(Service::ALL.into_iter().filter(has_stopped).map(promise_of));
            }
        }
        for promise in Service::ALL.map(promise_of) {
            let is_broken = i64::from(stopped.contains(&promise));
            self.broken.get_or_create(&PromiseLabel { promise: promise.id() }).set(is_broken);
        }
    }
}

/// Only what can be left out for a ceiling is listed.
fn register_shed(registry: &mut Registry) -> ShedCounters {
    let shed = Family::<ShedLabel, Counter>::default();
    registry.register("left_out", "Requests left out, by the ceiling that they met and by priority", shed.clone());
    let mut counters = ShedCounters::default();
    for ceiling in Ceiling::ALL {
        for priority in Priority::ALL.into_iter().skip(1) {
            let label = ShedLabel { ceiling: ceiling.name(), priority: priority.name() };
            if ceiling != Ceiling::Passes || priority == Priority::Passes {
                counters.0[ceiling as usize][priority as usize] = shed.get_or_create_owned(&label);
            }
        }
    }
    counters
}

fn of_limits() -> impl Iterator<Item = (By, Kind)> {
    By::ALL.into_iter().flat_map(|by| Kind::ALL.map(|kind| (by, kind)))
}

/// What cannot be vouched for while a service stands still.
fn promise_of(service: Service) -> Promise {
    match service {
        Service::Orders => Promise::DurableAnswer,
        Service::Payment => Promise::Money,
        Service::Coupon | Service::Points => Promise::Benefits,
        Service::Product => Promise::Conservation,
    }
}
