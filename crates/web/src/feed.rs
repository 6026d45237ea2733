//! The feed of events, for a shop that asks instead of being called.

use std::sync::Arc;

use ::webhooks::feed::EVENTS_PER_PAGE_MAX;
use ::webhooks::{Cursor, Event};
use axum::Json;
use axum::extract::{Query, State};
use domain::{Refusal, Right};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::{admit, needs_books};
use crate::app::App;
use crate::problem::{Problem, ProblemBody};

const EVENTS_PER_PAGE: usize = 100;

#[derive(Deserialize)]
pub(crate) struct FeedQuery {
    /// Empty is none, as for every list.
    after: Option<String>,
    limit: Option<usize>,
    sale: Option<String>,
}

/// Events behind a cursor.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeedAnswer {
    /// Of one sale in the order of its chain; those of several sales follow each other in no order.
    events: Vec<Event>,
    /// To be sent as `after` with the next request, now or whenever.
    next_cursor: String,
    /// Whether asking again at once makes sense.
    more: bool,
}

/// What happened, from a cursor on.
#[utoipa::path(
    get, path = "/admin/v1/feed", tag = "events",
    params(
        ("after" = Option<String>, Query, description = "`next_cursor` of the last page; everything from the beginning without one"),
        ("limit" = Option<usize>, Query, description = "Events on the page, 1 to 1,000; 100 without it"),
        ("sale" = Option<String>, Query, description = "Of this sale only")
    ),
    responses((status = 200, body = FeedAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn feed(
    State(app): State<Arc<App>>,
    Query(query): Query<FeedQuery>,
    headers: HeaderMap,
) -> Result<Json<FeedAnswer>, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let limit = query.limit.unwrap_or(EVENTS_PER_PAGE);
    if !(1..=EVENTS_PER_PAGE_MAX).contains(&limit) {
        return Err(Problem::new(Refusal::Malformed, format!("limit: 1 to {EVENTS_PER_PAGE_MAX}")));
    }
    let cursor = match query.after.as_deref() {
        None | Some("") => Cursor::default(),
        Some(text) => Cursor::parse(text)
            .ok_or_else(|| Problem::new(Refusal::Malformed, "after: send a next_cursor as it was answered"))?,
    };
    let sales = match query.sale {
        None => app.engine.sales(),
        Some(name) => vec![app.named_sale(&name)?],
    };
    let reading = Arc::clone(&app);
    let page = tokio::task::spawn_blocking(move || reading.feed.page(&reading.engine, &sales, cursor, limit));
    let page = page.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    Ok(Json(FeedAnswer { events: page.events, next_cursor: page.cursor.encode(), more: page.more }))
}
