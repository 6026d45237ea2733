//! Counters for the operator. Refusals are counted by code, purchases by stage.

use domain::{Promise, Refusal, SalePhase, Stage};
use engine::Engine;
use ledger::{FollowState, Service};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
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
struct PromiseLabel {
    promise: &'static str,
}

pub(crate) struct Metrics {
    registry: Registry,
    refusals: Vec<(Refusal, Counter)>,
    stages: Vec<Counter>,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) connections_timed_out: Counter,
    free: Family<ItemLabel, Gauge>,
    position: Family<SaleLabel, Gauge>,
    books_lag: Family<SaleLabel, Gauge>,
    services_lag: Family<ServiceLabel, Gauge>,
    paused: Family<SaleLabel, Gauge>,
    rung: Family<SaleLabel, Gauge>,
    broken: Family<PromiseLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("doorbuster");
        let refusals = Family::<CodeLabel, Counter>::default();
        registry.register("refusals", "Requests refused, by code", refusals.clone());
        let stages = Family::<StageLabel, Counter>::default();
        registry.register("purchases", "Purchase requests that reached a stage of the front half", stages.clone());
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
            free: Family::default(),
            position: Family::default(),
            books_lag: Family::default(),
            services_lag: Family::default(),
            paused: Family::default(),
            rung: Family::default(),
            broken: Family::default(),
            registry: Registry::default(),
        };
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("connections_refused", "Connections beyond the ceiling", metrics.connections_refused.clone());
        let timed_out = "Connections closed because a header, a body or the next request did not come in time";
        registry.register("connections_timed_out", timed_out, metrics.connections_timed_out.clone());
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
        Self { registry, ..metrics }
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        if let Some((_, counter)) = self.refusals.iter().find(|(of, _)| *of == refusal) {
            counter.inc();
        }
    }

    pub(crate) fn reached(&self, stage: Stage) {
        self.stages[stage as usize].inc();
    }

    /// The exposition in the OpenMetrics text format.
    pub(crate) fn render(&self, engine: &Engine) -> String {
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
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
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
