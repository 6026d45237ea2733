//! What a customer may do besides buying: take a pass, see what is theirs, give a hold back.

use std::sync::Arc;

use admission::{Answer, Command, Grant, Query as Ask, Request};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, Refusal, SalePhase, Stage, fault};
use engine::Sale;
use gate::identity::Identity;
use gate::pass::{Pass, token_hash};
use http::{HeaderMap, StatusCode};
use ledger::NewCustomer;
use serde::Deserialize;

use crate::app::App;
use crate::human::{self, PassBody};
use crate::limits::{self, Kind};
use crate::page::PageQuery;
use crate::problem::{Problem, ProblemBody};
use crate::purchase::{unchained, undecided};
use crate::wire::{self, MineAnswer, OrdersAnswer, PassAnswer, PendingAnswer, PurchaseAnswer};
use crate::{body, identify, payments};

const ORDERS_PER_PAGE: usize = 50;

/// Take a pass; the first one of a sale with a human check with the answer to a challenge. Asking again gives another pass with the same
/// slot.
#[utoipa::path(
    post, path = "/v1/sales/{sale}/passes", tag = "customers", params(("sale" = String, Path)), request_body = PassBody,
    responses((status = 201, body = PassAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn take_pass(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<PassAnswer>), Problem> {
    let sale = app.sale(&name)?;
    let identity = limits::identity(&app, &headers, Kind::Passes).await?;
    let body: PassBody = body::json(body::content_type(&headers), &bytes)?;
    let pass = issue_pass(&app, &sale, &identity, &headers, &body).await?;
    Ok((StatusCode::CREATED, Json(pass)))
}

/// Whether there are passes of the sale now, and some for this customer; gives what time it is.
pub(crate) fn may_take_pass(app: &App, sale: &Sale, identity: &Identity) -> Result<ChainTime, Problem> {
    limits::of_passenger(app, identity)?;
    let (definition, view) = (sale.definition(), sale.view());
    let now = ChainTime(app.engine.now());
    if !identity.is_eligible {
        return Err(Refusal::NotEligible.into());
    }
    if now < definition.passes_open_at {
        return Err(Problem { retry_at: Some(definition.passes_open_at), ..Refusal::NotOpen.into() });
    }
    if view.phase() > SalePhase::Open {
        return Err(Refusal::Closed.into());
    }
    Ok(now)
}

async fn issue_pass(
    app: &App,
    sale: &Sale,
    identity: &Identity,
    headers: &HeaderMap,
    body: &PassBody,
) -> Result<PassAnswer, Problem> {
    let now = may_take_pass(app, sale, identity)?;
    // Not before: tokens that nobody signed would use up what is there for customers.
    app.overload.take_pass(&app.engine)?;
    let (definition, view) = (sale.definition(), sale.view());
    let customer = identify::pseudonym(sale, identity);
    // The vault first: a pass that is out stands for a customer who can be found.
    let new = NewCustomer {
        sale: sale.ordinal,
        pseudonym: customer,
        issuer: identity.issuer.clone(),
        subject: identity.subject.clone(),
    };
    let customer_key = match sale.showcase().human_check {
        None => app.engine.vault.ensure_customer(new).await.map_err(human::of_vault)?,
        Some(_) => human::admitted(app, sale, new, &limits::known_as(&app.engine, identity), body).await?,
    };
    let mut number = [0; 8];
    aws_lc_rs::rand::fill(&mut number).map_err(|error| Problem::internal(&error))?;
    let pass = Pass {
        sale: sale.ordinal,
        customer,
        // The core compares integers below 2^53 only.
        number: u64::from_le_bytes(number) & domain::limits::INTEGER_MAX,
        slot_offset: sale.slot_offset(customer),
        expires_at: now.plus(definition.pass_seconds * 1_000),
        token_hash: token_hash(identify::token(headers)?),
        identity_hash: app.engine.identity_key.identity_hash(sale.id, &identity.issuer, &identity.subject),
        token_expires_at_milliseconds: identity.expires_at_milliseconds,
    };
    let key = sale.customer_sale_key(&customer_key);
    let opening = view.opened_at().unwrap_or(definition.opens_at);
    Ok(PassAnswer {
        pass: app.engine.passes.now().seal(&pass, &key),
        slot_offset_ms: pass.slot_offset,
        slot: opening.plus(u64::from(pass.slot_offset)),
        opens_at: definition.opens_at,
        expires_at: pass.expires_at,
    })
}

/// Everything of the customer in a sale: for a phone that lost everything.
#[utoipa::path(
    get, path = "/v1/sales/{sale}/mine", tag = "customers", params(("sale" = String, Path)),
    responses((status = 200, body = MineAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn mine(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sale = app.sale(&name)?;
    let identity = limits::identity(&app, &headers, Kind::Status).await?;
    let grants = grants_of(&sale, identify::pseudonym(&sale, &identity)).await?;
    let pass = match issue_pass(&app, &sale, &identity, &headers, &PassBody::default()).await {
        Ok(pass) => Some(pass),
        Err(problem)
            if matches!(
                problem.refusal,
                Refusal::NotEligible
                    | Refusal::NotOpen
                    | Refusal::Closed
                    | Refusal::StorageFull
                    | Refusal::Overloaded
                    | Refusal::Blocked
                    | Refusal::ChallengeRequired
            ) =>
        {
            None
        }
        Err(problem) => return Err(problem),
    };
    let purchases = grants.iter().map(|grant| wire::purchase(&app.engine, &sale, grant, None)).collect();
    Ok(Json(MineAnswer { pass, purchases }).into_response())
}

pub(crate) async fn grants_of(sale: &Sale, customer: Pseudonym) -> Result<Vec<Grant>, Problem> {
    match sale.owner.ask(Request::Read(Ask::Mine { customer })).await {
        Some(Answer::Grants(grants)) => Ok(grants),
        Some(_) => Err(Refusal::Internal.into()),
        None => Err(Refusal::Overloaded.into()),
    }
}

/// The sale of an order and its number there, by its public id.
pub(crate) fn order_at(app: &App, id: &str) -> Result<(Arc<Sale>, PurchaseNumber), Refusal> {
    let (ordinal, number, _) = app.engine.ids.parse_order(id).ok_or(Refusal::NotFound)?;
    Ok((app.engine.sale_by_ordinal(ordinal).ok_or(Refusal::NotFound)?, number))
}

/// The same for a customer, and who they are in that sale. Whether the order is theirs is for its owner to say.
pub(crate) async fn own_order(
    app: &App,
    id: &str,
    headers: &HeaderMap,
) -> Result<(Arc<Sale>, PurchaseNumber, Pseudonym), Problem> {
    let identity = limits::identity(app, headers, Kind::Status).await?;
    let (sale, number) = order_at(app, id)?;
    let customer = identify::pseudonym(&sale, &identity);
    Ok((sale, number, customer))
}

/// What an owner said about one grant; a receipt is read back from the chain.
pub(crate) async fn granted(sale: &Arc<Sale>, request: Request) -> Result<Grant, Problem> {
    sale.grant(request).await.map_err(|(refusal, retry_at)| Problem { retry_at, ..refusal.into() })
}

pub(crate) async fn with_receipt(app: &App, sale: &Arc<Sale>, grant: &Grant) -> Result<Response, Problem> {
    let (reading, position) = (Arc::clone(sale), grant.record);
    let _permit = app.chain_reads.acquire().await.map_err(|error| Problem::internal(&error))?;
    let record = tokio::task::spawn_blocking(move || reading.chained_record(position));
    let record = record.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    let mut body: PurchaseAnswer<'_> = wire::purchase(&app.engine, sale, grant, None);
    body.receipt = record.map(|at| wire::receipt(sale, position, &at.record_hash, &at.head));
    Ok(Json(body).into_response())
}

#[derive(Deserialize)]
pub(crate) struct PurchaseQuery {
    pub(crate) pending: Option<String>,
}

/// A purchase as it stands.
#[utoipa::path(
    get, path = "/v1/purchases/{purchase}", tag = "customers",
    params(("purchase" = String, Path), ("pending" = Option<String>, Query, description = "From the `pending` answer's location")),
    responses((status = 200, body = PurchaseAnswer), (status = 202, body = wire::PendingAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn purchase_status(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<PurchaseQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (sale, purchase, customer) = own_purchase(&app, &id, &headers).await?;
    match standing(&app, &sale, customer, purchase, query.pending.as_deref()).await? {
        Standing::Granted(grant) => with_receipt(&app, &sale, &grant).await,
        Standing::Pending(pending) => Ok((StatusCode::ACCEPTED, Json(pending)).into_response()),
    }
}

/// The sale of a purchase, the purchase there, and who asks. Whether it is theirs is for its owner to say.
pub(crate) async fn own_purchase(
    app: &App,
    id: &str,
    headers: &HeaderMap,
) -> Result<(Arc<Sale>, PurchaseId, Pseudonym), Problem> {
    let identity = limits::identity(app, headers, Kind::Status).await?;
    let (ordinal, purchase) = app.engine.ids.parse_purchase(id).ok_or(Refusal::NotFound)?;
    let sale = app.engine.sale_by_ordinal(ordinal).ok_or(Refusal::NotFound)?;
    let customer = identify::pseudonym(&sale, &identity);
    Ok((sale, purchase, customer))
}

/// How a purchase stands that was not refused.
pub(crate) enum Standing {
    Granted(Grant),
    Pending(PendingAnswer),
}

/// How a purchase stands; `pending` is the ticket of a purchase that was answered so.
pub(crate) async fn standing(
    app: &App,
    sale: &Arc<Sale>,
    customer: Pseudonym,
    purchase: PurchaseId,
    pending: Option<&str>,
) -> Result<Standing, Problem> {
    match granted(sale, Request::Read(Ask::Purchase { customer, purchase })).await {
        Ok(grant) => Ok(Standing::Granted(grant)),
        Err(problem) if matches!(problem.refusal, Refusal::NotFound | Refusal::OutcomeUnknown) => {
            let stands = if problem.refusal == Refusal::NotFound { unchained } else { undecided };
            stands(app, sale, customer, purchase, pending).map(Standing::Pending)
        }
        Err(problem) => Err(problem),
    }
}

/// The customer's own orders over all sales, newest sale first.
#[utoipa::path(
    get, path = "/v1/orders", tag = "customers", params(("cursor" = Option<String>, Query)),
    responses((status = 200, body = OrdersAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn orders(
    State(app): State<Arc<App>>,
    Query(query): Query<PageQuery<String>>,
    headers: HeaderMap,
) -> Result<Json<OrdersAnswer>, Problem> {
    let identity = limits::identity(&app, &headers, Kind::Status).await?;
    let cursor = match query.cursor.as_deref() {
        None => None,
        Some(order) => Some(app.engine.ids.parse_order(order).ok_or(Refusal::NotFound)?),
    };
    let mut orders = Vec::new();
    let mut next_cursor = None;
    for sale in app.engine.sales().iter().rev() {
        if cursor.is_some_and(|(ordinal, _, _)| sale.ordinal > ordinal) {
            continue;
        }
        for grant in grants_of(sale, identify::pseudonym(sale, &identity)).await? {
            let seen = cursor.is_some_and(|(ordinal, number, _)| sale.ordinal == ordinal && grant.number >= number);
            if seen || next_cursor.is_some() {
                continue;
            }
            let body = wire::purchase(&app.engine, sale, &grant, None);
            let last = orders.len() + 1 == ORDERS_PER_PAGE;
            next_cursor = last.then(|| body.order.clone());
            orders.push(serde_json::to_value(body).map_err(|error| Problem::internal(&error))?);
        }
    }
    Ok(Json(OrdersAnswer { orders, next_cursor }))
}

/// One order.
#[utoipa::path(
    get, path = "/v1/orders/{order}", tag = "customers", params(("order" = String, Path)),
    responses((status = 200, body = PurchaseAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn order(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (sale, number, customer) = own_order(&app, &id, &headers).await?;
    let grant = granted(&sale, Request::Read(Ask::Order { number, customer: Some(customer) })).await?;
    with_receipt(&app, &sale, &grant).await
}

/// Gives a hold back; a payment that is under way is ended at the provider first, and if it was faster, the order is paid.
pub(crate) async fn cancelled(
    app: &App,
    sale: &Arc<Sale>,
    number: PurchaseNumber,
    customer: Option<Pseudonym>,
) -> Result<Grant, Problem> {
    let cancel = || Request::Decide(Command::Cancel { number, customer }, None);
    match (granted(sale, cancel()).await, &app.till) {
        (Err(Problem { refusal: Refusal::PaymentOpen, .. }), Some(till)) => {
            till.end_attempt(sale, number).await.map_err(payments::problem)?;
            granted(sale, cancel()).await
        }
        (told, _) => told,
    }
}

/// Give a hold back. Doing it twice is doing it once.
#[utoipa::path(
    post, path = "/v1/orders/{order}/cancel", tag = "customers", params(("order" = String, Path)),
    responses((status = 200, body = PurchaseAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (sale, number, customer) = own_order(&app, &id, &headers).await?;
    let grant = cancelled(&app, &sale, number, Some(customer)).await?;
    fault::reach(Stage::Released);
    Ok(Json(wire::purchase(&app.engine, &sale, &grant, None)).into_response())
}
