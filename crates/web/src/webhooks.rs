//! The operator's routes for webhooks: who is called, and how that goes. Each process with books has its own.

use std::sync::Arc;

use ::webhooks::{EndpointState, EventKind, NewEndpoint, WebhookError, Webhooks};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{ChainTime, Refusal, Right};
use http::{HeaderMap, StatusCode};
use ledger::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::admin::{admit, needs_books};
use crate::app::App;
use crate::body;
use crate::problem::{Problem, ProblemBody};

/// Who is to be called, and about what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookBody {
    /// Where to: https, a host of the internet, port 443 unless another is given.
    #[schema(example = "https://shop.example/doorbuster")]
    url: String,
    /// Names of sales, existing ones or not; all without it.
    #[serde(default)]
    sales: Vec<String>,
    /// Kinds of events; all without it.
    #[serde(default)]
    events: Vec<EventKind>,
}

/// What to tell again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayBody {
    /// Everything from this chain time on; what is parked without it.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<ChainTime>,
}

/// A webhook as it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookAnswer {
    /// Its id.
    id: String,
    /// Where it is called.
    url: String,
    /// Names of sales; empty is all.
    sales: Vec<String>,
    /// Kinds of events; empty is all.
    events: Vec<EventKind>,
    /// Why it is not called; null while it is.
    paused: Option<String>,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    created_at: ChainTime,
    /// Nothing older than this is told.
    #[schema(value_type = String, format = DateTime)]
    since: ChainTime,
    /// Until when the former secret signs too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    former_secret_until: Option<ChainTime>,
    /// How far it has been told, per sale.
    places: Vec<PlaceBody>,
    /// Records of all its sales that it has not been told of.
    lag: u64,
    /// Status of the last call; null when there was no answer, or no call.
    last_status: Option<u16>,
    /// Why the last call failed; null when it did not.
    last_error: Option<String>,
    /// When the last call ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_at: Option<ChainTime>,
    /// Events that wait to be called for again, or behind one of their order that does.
    waiting: u64,
    /// Events that were given up; `replay` takes them up.
    parked: u64,
    /// Why the last of those was.
    parked_reason: Option<String>,
    /// What calls are signed with; told here once.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// How far a sale has been told.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlaceBody {
    /// Name of the sale.
    sale: String,
    /// The first record that was not told. What waits or is parked stands before it.
    position: u64,
    /// Records behind the books.
    lag: u64,
}

impl WebhookAnswer {
    fn of(state: EndpointState, secret: Option<String>) -> Self {
        let places = state.places.into_iter().map(|(sale, position, lag)| PlaceBody { sale, position, lag });
        let places: Vec<_> = places.collect();
        let (last_status, last_error, last_at) = state.last;
        Self {
            id: state.id,
            url: state.url,
            sales: state.sales,
            events: state.events,
            paused: state.paused,
            created_at: state.created_at,
            since: state.since,
            former_secret_until: state.former_secret_until,
            lag: places.iter().map(|place| place.lag).sum(),
            places,
            last_status,
            last_error,
            last_at,
            waiting: state.waiting,
            parked: state.parked,
            parked_reason: state.parked_reason,
            secret,
        }
    }
}

/// Have events delivered to a URL, from now on. The answer has the secret that calls are signed with; nobody is told it again.
#[utoipa::path(
    post, path = "/admin/v1/webhooks", tag = "events", request_body = WebhookBody,
    responses((status = 201, body = WebhookAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn add(State(app): State<Arc<App>>, headers: HeaderMap, bytes: Bytes) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Manage)?;
    needs_books(&app)?;
    let WebhookBody { url, sales, events } = body::json(body::content_type(&headers), &bytes)?;
    let (state, secret) = with(&app, move |webhooks| webhooks.add(NewEndpoint { url, sales, events })).await?;
    Ok((StatusCode::CREATED, Json(WebhookAnswer::of(state, Some(secret)))).into_response())
}

/// The webhooks of this process.
#[utoipa::path(
    get, path = "/admin/v1/webhooks", tag = "events",
    responses((status = 200, body = Vec<WebhookAnswer>), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Vec<WebhookAnswer>>, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let states = with(&app, Webhooks::list).await?;
    Ok(Json(states.into_iter().map(|state| WebhookAnswer::of(state, None)).collect()))
}

/// Draw a new secret (the one before signs too for a day), tell events again, pause or resume.
#[utoipa::path(
    post, path = "/admin/v1/webhooks/{webhook}/{action}", tag = "events", request_body = Option<ReplayBody>,
    params(("webhook" = String, Path), ("action" = String, Path, description = "`rotate`, `replay`, `pause` or `resume`")),
    responses((status = 200, body = WebhookAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn turn(
    State(app): State<Arc<App>>,
    Path((id, action)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<WebhookAnswer>, Problem> {
    admit(&app, &headers, Right::Manage)?;
    needs_books(&app)?;
    let (state, secret) = match action.as_str() {
        "rotate" => {
            let (state, secret) = with(&app, move |webhooks| webhooks.rotate(&id)).await?;
            (state, Some(secret))
        }
        "replay" => {
            let ReplayBody { since } = body::json(body::content_type(&headers), &bytes)?;
            (with(&app, move |webhooks| webhooks.replay(&id, since)).await?, None)
        }
        "pause" => (with(&app, move |webhooks| webhooks.pause(&id)).await?, None),
        "resume" => (with(&app, move |webhooks| webhooks.resume(&id)).await?, None),
        _ => return Err(Refusal::NotFound.into()),
    };
    Ok(Json(WebhookAnswer::of(state, secret)))
}

/// Forget a webhook and what waits for it.
#[utoipa::path(
    delete, path = "/admin/v1/webhooks/{webhook}", tag = "events", params(("webhook" = String, Path)),
    responses((status = 200, description = "Its id"), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Manage)?;
    needs_books(&app)?;
    let removed = id.clone();
    with(&app, move |webhooks| webhooks.remove(&removed)).await?;
    Ok(Json(json!({ "id": id })).into_response())
}

/// Has the service do something, on a thread that may wait.
async fn with<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Webhooks) -> Result<T, WebhookError> + Send + 'static,
) -> Result<T, Problem> {
    let app = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || app.webhooks.as_ref().map_or(Err(WebhookError::Unknown), work));
    done.await.map_err(|error| Problem::internal(&error))?.map_err(|error| match error {
        WebhookError::Target(_) | WebhookError::Invalid(_) => Problem::new(Refusal::Malformed, error.to_string()),
        WebhookError::Unknown => Problem::new(Refusal::NotFound, "this process has no such webhook"),
        WebhookError::Store(StoreError::Full) => Refusal::StorageFull.into(),
        WebhookError::Store(_) | WebhookError::Randomness => Problem::internal(&error),
    })
}
