//! The owner's route for pass keys: a new one is made while sales run. No key is ever shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::Right;
use engine::Engine;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::admit;
use crate::app::App;
use crate::problem::{Problem, ProblemBody};
use crate::tokens::with_vault;

/// A pass key that has just been made.
#[derive(Serialize, ToSchema)]
pub(crate) struct PassKeyAnswer {
    /// Its number; the keys before it open their passes until those expire.
    key: u8,
}

/// Make passes with a new key from now on. Passes that are out stay good. In a cluster every process makes them with the new key within some
/// seconds. Sent twice, it makes two keys; there are 255 at most.
#[utoipa::path(
    post, path = "/admin/v1/pass-keys/rotate", tag = "owner",
    responses((status = 200, body = PassKeyAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn rotate(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<PassKeyAnswer>, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let key = with_vault(&app, Engine::rotate_pass_key).await?;
    tracing::info!(key, "the pass key was rotated");
    Ok(Json(PassKeyAnswer { key }))
}
