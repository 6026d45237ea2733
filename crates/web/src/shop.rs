//! What anybody may read: the clock, the sales, the signed heads, the state of the process.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::{ChainTime, HumanCheck, Money, SalePhase};
use engine::Sale;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::app::App;
use crate::pictures;
use crate::problem::{Problem, ProblemBody};
use crate::wire::{HeadBody, HeadsAnswer, ItemAnswer, SaleAnswer, TimeAnswer};

/// How long an edge may keep a sale's public state.
pub(crate) const PUBLIC_SECONDS: HeaderValue = HeaderValue::from_static("public, max-age=1");
const HEADS_PER_PAGE: usize = 100;

/// The server's clock.
#[utoipa::path(get, path = "/v1/time", tag = "shop", responses((status = 200, body = TimeAnswer)))]
pub(crate) async fn time(State(app): State<Arc<App>>) -> Json<TimeAnswer> {
    let now = app.engine.now();
    Json(TimeAnswer { now: ChainTime(now), unix_ms: now })
}

/// All sales, the oldest first.
#[utoipa::path(get, path = "/v1/sales", tag = "shop", responses((status = 200, body = Vec<SaleAnswer>)))]
pub(crate) async fn sales(State(app): State<Arc<App>>) -> Response {
    let sales: Vec<_> = app.engine.sales().iter().map(|sale| describe(&app, sale)).collect();
    cacheable(Json(sales))
}

/// One sale.
#[utoipa::path(
    get, path = "/v1/sales/{sale}", tag = "shop", params(("sale" = String, Path)),
    responses((status = 200, body = SaleAnswer), (status = 404, body = ProblemBody))
)]
pub(crate) async fn sale(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let sale = app.sale(&name)?;
    Ok(cacheable(Json(describe(&app, &sale))))
}

fn cacheable(body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, PUBLIC_SECONDS);
    response
}

/// A sale as anybody may see it.
pub(crate) fn describe(app: &App, sale: &Sale) -> SaleAnswer {
    let (definition, view) = (sale.definition(), sale.view());
    let phase = view.phase();
    let available = |index: usize| match phase {
        SalePhase::Planned | SalePhase::Open if view.free(index as u16) > 0 => "yes",
        SalePhase::Open if view.held(index as u16) > 0 => "may_return",
        SalePhase::Planned | SalePhase::Open | SalePhase::Closed | SalePhase::Settled => "no",
    };
    let now = app.engine.now();
    let to_opening = definition.opens_at.0.saturating_sub(now);
    SaleAnswer {
        sale: definition.sale.clone(),
        sale_id: HEXLOWER.encode(&sale.id.0),
        signing_key: BASE64URL_NOPAD.encode(&sale.signing_key),
        title: definition.title.clone(),
        external_id: definition.external_id.clone(),
        test: definition.test,
        phase,
        paused: view.is_paused(),
        human_check: HumanCheck::name_of(sale.showcase().human_check),
        passes_open_at: definition.passes_open_at,
        opens_at: definition.opens_at,
        opened_at: view.opened_at(),
        closes_at: definition.closes_at,
        hold_seconds: definition.hold_seconds,
        limit_per_customer: definition.limit_per_customer,
        items: definition
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| ItemAnswer {
                item: item.item.clone(),
                title: item.title.clone(),
                price: Money { amount: item.price, currency: definition.currency },
                limit_per_customer: item.limit_per_customer,
                sku: item.sku.clone(),
                external_id: item.external_id.clone(),
                available: available(index),
                picture: pictures::describe(sale, index),
            })
            .collect(),
        position: view.durable_position(),
        server_time: ChainTime(now),
        next_poll_ms: match phase {
            SalePhase::Planned => (to_opening / 4).clamp(1_000, 60_000),
            SalePhase::Open => 2_000,
            SalePhase::Closed | SalePhase::Settled => 60_000,
        },
    }
}

#[derive(Deserialize)]
pub(crate) struct HeadsQuery {
    from: Option<u64>,
}

/// Signed heads from a record number on; without one, the last.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/heads", tag = "shop",
    params(("sale" = String, Path), ("from" = Option<u64>, Query, description = "A record number")),
    responses((status = 200, body = HeadsAnswer), (status = 404, body = ProblemBody))
)]
pub(crate) async fn heads(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<HeadsQuery>,
) -> Result<Json<HeadsAnswer>, Problem> {
    let sale = app.sale(&name)?;
    let reading = Arc::clone(&sale);
    let heads = tokio::task::spawn_blocking(move || {
        let from = query.from.unwrap_or_else(|| reading.view().durable_position());
        reading.heads(from, HEADS_PER_PAGE)
    });
    let heads = heads.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let full = heads.len() == HEADS_PER_PAGE;
    Ok(Json(HeadsAnswer {
        sale_id: HEXLOWER.encode(&sale.id.0),
        signing_key: BASE64URL_NOPAD.encode(&sale.signing_key),
        next_from: heads.last().filter(|_| full).map(|head| head.next),
        heads: heads.iter().map(HeadBody::from).collect(),
    }))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, description = "It lives")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the process should be sent customers.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses((status = 200, description = "Ready"), (status = 503, description = "Not ready: the text says why"))
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let sales = app.engine.sales();
    let full = sales.iter().filter(|sale| sale.view().is_storage_full());
    let full: Vec<_> = full.map(|sale| sale.name().to_owned()).collect();
    // Not where nothing can be decided by anybody: another gate would know no better, and customers are told `paused` here.
    let refused = sales.iter().find_map(|sale| sale.ladder.as_ref()?.refused());
    if let Some(reason) = refused {
        (StatusCode::SERVICE_UNAVAILABLE, format!("Redis refuses this process: {reason}\n"))
    } else if full.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the disk is full for: {}\n", full.join(", ")))
    }
}
