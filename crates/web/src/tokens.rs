//! The owner's routes: admin tokens are made, listed and revoked. A token is told once, to whoever made it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{ChainTime, Refusal, Right, Role, limits};
use engine::Engine;
use http::{HeaderMap, StatusCode};
use ledger::vault::{AdminToken, VaultError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::admit;
use crate::app::App;
use crate::body;
use crate::problem::{Problem, ProblemBody};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    /// What it is for; 1 to 200 characters.
    label: String,
    /// What it may do.
    role: Role,
    /// How long it is believed; a year at most.
    #[serde(default = "thirty_days")]
    #[schema(minimum = 1, maximum = 31_622_400, default = 2_592_000)]
    expires_in_seconds: u64,
}

fn thirty_days() -> u64 {
    30 * DAY_SECONDS
}

/// A token, without the token.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    /// Names it for revoking; it cannot be used as a token.
    id: String,
    /// What it is for.
    label: String,
    /// What it may do.
    role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: ChainTime,
    /// From when on it is not believed; null: always believed.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<ChainTime>,
}

impl From<&AdminToken> for TokenAnswer {
    fn from(token: &AdminToken) -> Self {
        Self {
            id: token.id(),
            label: token.label.clone(),
            role: token.role,
            created_at: ChainTime(token.created_at),
            expires_at: token.expires_at.map(ChainTime),
        }
    }
}

/// A token that has just been made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewTokenAnswer {
    /// The token. Nobody can read it again.
    token: String,
    /// The rest.
    #[serde(flatten)]
    kept: TokenAnswer,
}

/// Make an admin token. The answer is the only place where it can be seen.
#[utoipa::path(
    post, path = "/admin/v1/tokens", tag = "owner", request_body = TokenBody,
    responses((status = 201, body = NewTokenAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn create(State(app): State<Arc<App>>, headers: HeaderMap, bytes: Bytes) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let TokenBody { label, role, expires_in_seconds } = body::json(body::content_type(&headers), &bytes)?;
    let characters = label.chars().count();
    if label.trim().is_empty() || characters > limits::TITLE_CHARACTERS_MAX || label.chars().any(char::is_control) {
        let rule = format!("label: use 1 to {} characters without control characters", limits::TITLE_CHARACTERS_MAX);
        return Err(Problem::new(Refusal::Malformed, rule));
    }
    if !(1..=limits::SECONDS_MAX).contains(&expires_in_seconds) {
        return Err(Problem::new(Refusal::Malformed, "expires_in_seconds: 1 to a year"));
    }
    let expires_at = app.engine.now() + expires_in_seconds * 1_000;
    let made = with_vault(&app, move |engine| engine.create_admin_token(&label, role, expires_at)).await?;
    tracing::info!(id = made.kept.id(), label = made.kept.label, role = role.name(), "an admin token was made");
    let answer = NewTokenAnswer { kept: TokenAnswer::from(&made.kept), token: made.token };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// All admin tokens, the oldest first, without the tokens. Expired ones are forgotten when the next is made.
#[utoipa::path(
    get, path = "/admin/v1/tokens", tag = "owner",
    responses((status = 200, body = Vec<TokenAnswer>), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let tokens = with_vault(&app, Engine::admin_tokens).await?;
    Ok(Json(tokens.iter().map(TokenAnswer::from).collect::<Vec<_>>()).into_response())
}

/// Revoke an admin token. In a cluster the other processes refuse it within a second.
#[utoipa::path(
    delete, path = "/admin/v1/tokens/{id}", tag = "owner", params(("id" = String, Path)),
    responses((status = 200, body = TokenAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<TokenAnswer>, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let revoked = with_vault(&app, move |engine| engine.revoke_admin_token(&id)).await?;
    tracing::info!(id = revoked.id(), label = revoked.label, "an admin token was revoked");
    Ok(Json(TokenAnswer::from(&revoked)))
}

/// Does `work` where it may block: the vault syncs, and in a cluster it is elsewhere.
pub(crate) async fn with_vault<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Engine) -> Result<T, VaultError> + Send + 'static,
) -> Result<T, Problem> {
    let working = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&working.engine)).await;
    done.map_err(|error| Problem::internal(&error))?.map_err(vault_problem)
}

/// What the asker hears of a failure of the vault.
pub(crate) fn vault_problem(error: VaultError) -> Problem {
    match error {
        VaultError::TokenUnknown => Refusal::NotFound.into(),
        VaultError::LastOwner => Refusal::LastOwner.into(),
        VaultError::Store(ledger::StoreError::Full) => Refusal::StorageFull.into(),
        VaultError::Store(error) if error.may_pass() => {
            tracing::error!(%error, "it is not known what the vault did");
            Refusal::OutcomeUnknown.into()
        }
        error => Problem::internal(&error),
    }
}
