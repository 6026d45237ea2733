//! The operator's routes, on a listener of their own. Every one wants an admin token.

use std::sync::Arc;

use admission::{Answer, Command, Query as Ask, Request};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::record::PauseReason;
use domain::{PurchaseNumber, Refusal, Right, SaleDefinition, Stage, fault, limits};
use engine::{CreateError, Order, Sale};
use http::{HeaderMap, StatusCode, header};
use ledger::{Books, BooksError};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::accounts::BooksAnswer;
use crate::app::App;
use crate::customers::{cancelled, granted, order_at};
use crate::page::PageQuery;
use crate::problem::{Problem, ProblemBody};
use crate::shop::describe;
use crate::wire::{self, AdminSaleAnswer, CountsAnswer, OrdersAnswer, StockBody};
use crate::{body, identify, payments};

const ROWS_PER_PAGE: u32 = 200;

/// Believes an admin token whose role has the right. Judged before anything is looked up: whoever may not do it learns nothing.
pub(crate) fn admit(app: &App, headers: &HeaderMap, right: Right) -> Result<(), Problem> {
    let token = identify::bearer(headers)?;
    let role = app.engine.role_of(token).map_err(|error| Problem::internal(&error))?.ok_or(Refusal::TokenInvalid)?;
    if role.may(right) {
        return Ok(());
    }
    Err(Problem::new(Refusal::RoleInsufficient, format!("the token's role is {}", role.name())))
}

/// Create a sale.
#[utoipa::path(
    post, path = "/admin/v1/sales", tag = "operator", request_body = SaleDefinition,
    responses((status = 201, body = AdminSaleAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn create_sale(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let definition: SaleDefinition = body::json(body::content_type(&headers), &bytes)?;
    let sale = created(&app, &definition).await?;
    Ok((StatusCode::CREATED, Json(state(&app, &sale, Request::Read(Ask::Sale)).await?)).into_response())
}

/// Create a sale, or find it as it is: the same definition may be sent as often as you like. Another one of the same name is refused, and
/// `detail` names the first field that differs.
#[utoipa::path(
    put, path = "/admin/v1/sales/{sale}", tag = "operator", request_body = SaleDefinition, params(("sale" = String, Path)),
    responses((status = 201, body = AdminSaleAnswer), (status = 200, body = AdminSaleAnswer), (status = "default", body = ProblemBody)),
    security(("admin" = []))
)]
pub(crate) async fn apply_sale(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let definition: SaleDefinition = body::json(body::content_type(&headers), &bytes)?;
    if definition.sale != name {
        let rule = format!("sale: the path names {name:?}, the definition {:?}", definition.sale);
        return Err(Problem::new(Refusal::SaleInvalid, rule));
    }
    let (status, sale) = match created(&app, &definition).await {
        Ok(sale) => (StatusCode::CREATED, sale),
        Err(problem) if problem.refusal == Refusal::SaleExists => {
            // Nobody takes a sale away.
            let sale = app.engine.sale(&name).ok_or(Refusal::Internal)?;
            if let Some(difference) =
                sale.definition().first_difference(&app.engine.without_codes(&definition, sale.id))
            {
                return Err(Problem::new(Refusal::SaleExists, difference));
            }
            (StatusCode::OK, sale)
        }
        Err(problem) => return Err(problem),
    };
    Ok((status, Json(state(&app, &sale, Request::Read(Ask::Sale)).await?)).into_response())
}

async fn created(app: &Arc<App>, definition: &SaleDefinition) -> Result<Arc<Sale>, Problem> {
    let (creating, definition) = (Arc::clone(app), definition.clone());
    let created = tokio::task::spawn_blocking(move || creating.engine.create_sale(&definition)).await;
    created.map_err(|error| Problem::internal(&error))?.map_err(|error| match error {
        CreateError::Invalid(rule) => Problem::new(Refusal::SaleInvalid, rule),
        CreateError::TooMany => Problem::new(Refusal::SaleInvalid, error.to_string()),
        CreateError::Exists => Refusal::SaleExists.into(),
        CreateError::Start(error) if error.is_disk_full() => Refusal::StorageFull.into(),
        CreateError::Start(error) if error.may_pass() => {
            tracing::error!(%error, "it is not known whether a sale was created");
            Refusal::OutcomeUnknown.into()
        }
        CreateError::Start(error) => Problem::internal(&error),
    })
}

/// All sales.
#[utoipa::path(
    get, path = "/admin/v1/sales", tag = "operator",
    responses((status = 200, body = Vec<AdminSaleAnswer>), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn sales(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Read)?;
    let mut answers = Vec::new();
    for sale in app.engine.sales() {
        answers.push(state(&app, &sale, Request::Read(Ask::Sale)).await?);
    }
    Ok(Json(answers).into_response())
}

/// Pause, resume, close or settle a sale; in a cluster, have one process decide it in Redis's place, or let that follow from what works.
/// Doing it twice is doing it once.
#[utoipa::path(
    post, path = "/admin/v1/sales/{sale}/{action}", tag = "operator",
    params(("sale" = String, Path), ("action" = String, Path, description = "`pause`, `resume`, `close`, `settle`, `takeover` or `automatic`")),
    responses((status = 200, body = AdminSaleAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn turn_sale(
    State(app): State<Arc<App>>,
    Path((name, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<AdminSaleAnswer>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let command = match action.as_str() {
        "pause" => Command::Pause(PauseReason::Operator),
        "resume" => Command::Resume,
        "close" => Command::Close,
        "settle" => Command::Settle,
        "takeover" => return order_rung(&app, &name, Order::Takeover).await,
        "automatic" => return order_rung(&app, &name, Order::Automatic).await,
        _ => return Err(Refusal::NotFound.into()),
    };
    let sale = app.named_sale(&name)?;
    let turned = state(&app, &sale, Request::Decide(command, None)).await;
    Ok(Json(turned.map_err(|problem| match problem.refusal {
        Refusal::SalePhaseWrong => {
            let rule = "an open sale is paused, resumed and closed; a closed one is settled once no hold and no payment is open";
            Problem::new(problem.refusal, format!("it is {}: {rule}", sale.view().phase().name()))
        }
        _ => problem,
    })?))
}

async fn order_rung(app: &Arc<App>, name: &str, order: Order) -> Result<Json<AdminSaleAnswer>, Problem> {
    let sale = app.named_sale(name)?;
    if sale.ladder.as_ref().is_some_and(|ladder| ladder.led_by().is_none()) {
        let detail = "no relay works for this sale, so nobody would hear the order: start one, then order it again";
        return Err(Problem::new(Refusal::Paused, detail));
    }
    let (ordering, to) = (Arc::clone(app), Arc::clone(&sale));
    let told = tokio::task::spawn_blocking(move || ordering.engine.order_rung(&to, order)).await;
    match told.map_err(|error| Problem::internal(&error))? {
        Some(Ok(())) => Ok(Json(state(app, &sale, Request::Read(Ask::Sale)).await?)),
        Some(Err(error)) => Err(Problem::internal(&error)),
        None => {
            Err(Problem::new(Refusal::NotFound, "this process is alone: there is no Redis whose place could be taken"))
        }
    }
}

/// Add units or withdraw free ones.
#[utoipa::path(
    post, path = "/admin/v1/sales/{sale}/items/{item}/stock", tag = "operator", request_body = StockBody,
    params(("sale" = String, Path), ("item" = String, Path)),
    responses((status = 200, body = AdminSaleAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn change_stock(
    State(app): State<Arc<App>>,
    Path((name, item)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<AdminSaleAnswer>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let StockBody { change } = body::json(body::content_type(&headers), &bytes)?;
    let sale = app.named_sale(&name)?;
    let item = sale.definition().item_index(&item).ok_or(Refusal::NotFound)?;
    let changed = state(&app, &sale, Request::Decide(Command::ChangeStock { item, change }, None)).await;
    Ok(Json(changed.map_err(|problem| match problem.refusal {
        Refusal::QuantityInvalid => Problem::new(
            Refusal::QuantityInvalid,
            format!(
                "change: an item has at most {} units, and at most {} are withdrawn at once",
                limits::UNITS_PER_ITEM_MAX,
                limits::WITHDRAWN_PER_RECORD_MAX
            ),
        ),
        _ => problem,
    })?))
}

/// Sends a request that is answered with the sale's state.
pub(crate) async fn state(app: &App, sale: &Sale, request: Request) -> Result<AdminSaleAnswer, Problem> {
    let state = match sale.owner.ask(request).await {
        Some(Answer::Sale(state)) => state,
        Some(Answer::Refused { refusal, .. }) => return Err(refusal.into()),
        Some(Answer::Granted(..) | Answer::Grants(_)) => return Err(Refusal::Internal.into()),
        None => return Err(Refusal::Overloaded.into()),
    };
    let items = &sale.definition().items;
    Ok(AdminSaleAnswer {
        sale: describe(app, sale),
        pause_reason: state.paused.map(PauseReason::name),
        storage_full: state.storage_full,
        anonymised_at: sale.anonymised_at(),
        counts: items
            .iter()
            .zip(&state.counts)
            .map(|(item, counts)| CountsAnswer {
                item: item.item.clone(),
                total: counts.total(),
                free: counts.free,
                held: counts.held,
                sold: counts.sold,
                withdrawn: counts.withdrawn,
            })
            .collect(),
        rung: sale.ladder.as_ref().map(|ladder| ladder.rung().name()),
        relay: sale.ladder.as_ref().and_then(|ladder| ladder.led_by()).map(|process| format!("{process:016x}")),
        books: BooksAnswer::of(app, sale, state.next),
    })
}

/// Orders of a sale as the books have them, by number.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/orders", tag = "operator",
    params(("sale" = String, Path), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = OrdersAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn orders(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery<u64>>,
    headers: HeaderMap,
) -> Result<Json<OrdersAnswer>, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let sale = app.named_sale(&name)?;
    let after = query.cursor.map(|cursor| PurchaseNumber(u32::try_from(cursor).unwrap_or(u32::MAX)));
    let rows = read_books(&app, move |books| books.orders_of_sale(&name, after, ROWS_PER_PAGE)).await?;
    let full = rows.len() == ROWS_PER_PAGE as usize;
    let next_cursor = rows.last().filter(|_| full).map(|row| row.number.0.to_string());
    let orders = rows.iter().map(|row| {
        json!({
            "number": row.number.0,
            "order": app.engine.ids.public_order(sale.ordinal, row.number, gate::ids::shard_of(row.customer)),
            "purchase": app.engine.ids.public_purchase(sale.ordinal, row.purchase),
            "test": sale.definition().test,
            "item": sale.definition().items[usize::from(row.item)].item,
            "quantity": row.units.len(),
            "price": { "amount": row.price, "currency": row.currency },
            "status": row.status.name(),
            "release_reason": row.release_reason.map(|reason| reason.name()),
            "payment_status": row.payment_status,
            "held_at": row.held_at,
            "pay_by": row.pay_by,
            "ended_at": row.ended_at,
            "position": row.record,
        })
    });
    Ok(Json(OrdersAnswer { orders: orders.collect(), next_cursor }))
}

/// What only a process with books can tell.
pub(crate) fn needs_books(app: &App) -> Result<(), Problem> {
    let detail = "this process keeps no books: ask one whose role is worker";
    if app.engine.roles().worker { Ok(()) } else { Err(Problem::new(Refusal::NotFound, detail)) }
}

/// Reads the books where it may block.
pub(crate) async fn read_books<T: Send + 'static>(
    app: &Arc<App>,
    read: impl FnOnce(&Books) -> Result<T, BooksError> + Send + 'static,
) -> Result<T, Problem> {
    let reading = Arc::clone(app);
    let told = tokio::task::spawn_blocking(move || reading.engine.books_reader().and_then(|books| read(&books))).await;
    told.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))
}

/// The shop was paid: the order is confirmed. Late money takes free units again, or is answered `refund_due`.
#[utoipa::path(
    post, path = "/admin/v1/orders/{order}/confirm", tag = "operator", params(("order" = String, Path)), request_body = ConfirmBody,
    responses((status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn confirm(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::EndOrders)?;
    let ConfirmBody { reference } = body::json(body::content_type(&headers), &bytes)?;
    match reference {
        None => end_order(&app, &id, &headers, Stage::Confirmed, |number| Command::Confirm { number }).await,
        Some(reference) => payments::confirm_as(&app, &id, reference).await,
    }
}

/// What a confirmation may say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmBody {
    /// The shop's own name of the payment: 1 to 64 visible ASCII characters. It is kept with the order, and the payment can be refunded.
    reference: Option<String>,
}

/// The shop takes a hold back.
#[utoipa::path(
    post, path = "/admin/v1/orders/{order}/cancel", tag = "operator", params(("order" = String, Path)),
    responses((status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::EndOrders)?;
    let (sale, number) = order_at(&app, &id)?;
    let grant = cancelled(&app, &sale, number, None).await?;
    fault::reach(Stage::Released);
    Ok(Json(wire::purchase(&app.engine, &sale, &grant, None)).into_response())
}

/// Does something to an order, and answers with it as it stands.
pub(crate) async fn end_order(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    stage: Stage,
    command: impl Fn(PurchaseNumber) -> Command,
) -> Result<Response, Problem> {
    admit(app, headers, Right::EndOrders)?;
    let (sale, number) = order_at(app, id)?;
    let grant = granted(&sale, Request::Decide(command(number), None)).await?;
    fault::reach(stage);
    Ok(Json(wire::purchase(&app.engine, &sale, &grant, None)).into_response())
}

/// Records that the books could not follow, with reason and evidence.
#[utoipa::path(
    get, path = "/admin/v1/parked", tag = "operator", params(("cursor" = Option<u64>, Query)),
    responses((status = 200, description = "Parked records"), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn parked(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery<u64>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let rows = read_books(&app, move |books| books.parked(query.cursor.unwrap_or(0), ROWS_PER_PAGE)).await?;
    let full = rows.len() == ROWS_PER_PAGE as usize;
    let next_cursor = rows.last().filter(|_| full).map(|row| row.id);
    let parked: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "id": row.id, "service": row.service, "sale": row.sale, "record": row.record, "kind": row.kind,
                "reason": row.reason, "evidence": data_encoding::HEXLOWER.encode(&row.evidence), "at": row.at,
            })
        })
        .collect();
    Ok(Json(json!({ "parked": parked, "next_cursor": next_cursor })).into_response())
}

/// Counters in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operator",
    responses((status = 200, description = "OpenMetrics text"), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Read)?;
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let looking = Arc::clone(&app);
    let text = tokio::task::spawn_blocking(move || looking.metrics.render(&looking)).await;
    Ok((kind, text.map_err(|error| Problem::internal(&error))?).into_response())
}
