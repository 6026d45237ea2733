//! The operator's routes for the block list.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{ChainTime, Refusal, Right, limits};
use engine::{BlockError, BlockTarget, Engine};
use http::{HeaderMap, StatusCode};
use ledger::{AdminToken, KeptBlock};
use limiter::Prefix;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::admit;
use crate::app::App;
use crate::problem::{Problem, ProblemBody};
use crate::tokens::with_vault;
use crate::{body, identify};

/// Somebody to be blocked: either `address`, or `issuer` and `subject`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockBody {
    /// An address or a network: `203.0.113.7`, `203.0.113.0/24`, `2001:db8::/32`.
    address: Option<String>,
    /// The customer's tokens' `iss`.
    issuer: Option<String>,
    /// The customer's tokens' `sub`.
    subject: Option<String>,
    /// Why; 1 to 200 characters. Whoever is blocked is not told.
    reason: String,
    /// For how long, a year at most; without it until it is removed.
    #[schema(minimum = 1, maximum = 31_622_400)]
    expires_in_seconds: Option<u64>,
}

/// An entry of the block list.
#[derive(Serialize, ToSchema)]
pub(crate) struct BlockAnswer {
    /// Names it for removing.
    id: String,
    /// The addresses, if it is about some.
    address: Option<String>,
    /// A keyed hash of the customer, if it is about one.
    customer: Option<String>,
    /// Why.
    reason: String,
    /// The id of the admin token that made it.
    made_by: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: ChainTime,
    /// When it ends; null: when it is removed.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<ChainTime>,
}

impl From<KeptBlock> for BlockAnswer {
    fn from(block: KeptBlock) -> Self {
        let is_address = matches!(BlockTarget::of(&block), Some(BlockTarget::Addresses(_)));
        let (address, customer) = if is_address { (Some(block.target), None) } else { (None, Some(block.target)) };
        Self {
            id: block.id,
            address,
            customer,
            reason: block.reason,
            made_by: block.made_by,
            created_at: ChainTime(block.created_at),
            expires_at: block.expires_at.map(ChainTime),
        }
    }
}

/// Who is blocked, the oldest first. Automatic blocks are not here: gates make them, and they are short.
#[utoipa::path(
    get, path = "/admin/v1/blocks", tag = "operator",
    responses((status = 200, body = Vec<BlockAnswer>), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let blocks = with_vault(&app, Engine::block_list).await?;
    Ok(Json(blocks.into_iter().map(BlockAnswer::from).collect::<Vec<_>>()).into_response())
}

/// Block an address, a network or a customer, in place of the entry that they have. In a cluster the other processes know it at once, without Redis within a second.
#[utoipa::path(
    post, path = "/admin/v1/blocks", tag = "operator", request_body = BlockBody,
    responses((status = 201, body = BlockAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn add(State(app): State<Arc<App>>, headers: HeaderMap, bytes: Bytes) -> Result<Response, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let made_by = AdminToken::id_of(identify::bearer(&headers)?);
    let asked: BlockBody = body::json(body::content_type(&headers), &bytes)?;
    let target = target(&app, &asked)?;
    let BlockBody { reason, expires_in_seconds, .. } = asked;
    if reason.trim().is_empty()
        || reason.chars().count() > limits::TITLE_CHARACTERS_MAX
        || reason.chars().any(char::is_control)
    {
        let rule = format!("reason: use 1 to {} characters without control characters", limits::TITLE_CHARACTERS_MAX);
        return Err(Problem::new(Refusal::Malformed, rule));
    }
    if expires_in_seconds.is_some_and(|seconds| !(1..=limits::SECONDS_MAX).contains(&seconds)) {
        return Err(Problem::new(Refusal::Malformed, "expires_in_seconds: 1 to a year"));
    }
    let expires_at = expires_in_seconds.map(|seconds| app.engine.now() + seconds * 1_000);
    let added = with_vault(&app, move |engine| match engine.add_block(&target, &reason, &made_by, expires_at) {
        Ok(block) => Ok(Ok(block)),
        Err(full @ BlockError::Full) => Ok(Err(Problem::new(Refusal::Malformed, full.to_string()))),
        Err(BlockError::Vault(error)) => Err(error),
    });
    let block = added.await??;
    // Not whom: the log would remember.
    tracing::info!(id = block.id, kind = block.kind, made_by = block.made_by, "an entry of the block list was made");
    Ok((StatusCode::CREATED, Json(BlockAnswer::from(block))).into_response())
}

fn target(app: &App, asked: &BlockBody) -> Result<BlockTarget, Problem> {
    match (&asked.address, &asked.issuer, &asked.subject) {
        (Some(address), None, None) => {
            let wrong = |error| Problem::new(Refusal::Malformed, format!("address: {error}"));
            let prefix: Prefix = address.parse().map_err(wrong)?;
            if prefix.is_too_wide() {
                let detail = "address: that is a large part of everybody; a /8 of IPv4 and a /16 of IPv6 are the widest. To keep all out, pause the sale";
                return Err(Problem::new(Refusal::Malformed, detail));
            }
            Ok(BlockTarget::Addresses(prefix))
        }
        (None, Some(issuer), Some(subject)) if issuer.is_empty() || subject.is_empty() => {
            Err(Problem::new(Refusal::Malformed, "issuer and subject: as the customer's tokens have them, never empty"))
        }
        (None, Some(issuer), Some(subject)) => Ok(BlockTarget::Customer(app.engine.customer_hash(issuer, subject))),
        _ => Err(Problem::new(Refusal::Malformed, "give either address, or issuer and subject")),
    }
}

/// End an entry of the block list. In a cluster the other processes know it at once, without Redis within a second.
#[utoipa::path(
    delete, path = "/admin/v1/blocks/{block}", tag = "operator", params(("block" = String, Path)),
    responses((status = 200, body = BlockAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<BlockAnswer>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let removed = with_vault(&app, move |engine| engine.remove_block(&id)).await?;
    let gone =
        || Problem::new(Refusal::NotFound, "the block list has no such entry; it may have ended or been removed");
    let removed = removed.ok_or_else(gone)?;
    tracing::info!(id = removed.id, kind = removed.kind, "an entry of the block list was removed");
    Ok(Json(removed.into()))
}
