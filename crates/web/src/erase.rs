//! Erasing a customer, or all of a sale: keys and pseudonyms leave the vault. The chains stay as they are, and what was private in them stays
//! closed.

use std::sync::Arc;

use admission::{GrantStatus, Query, Request};
use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use domain::{Refusal, Right};
use engine::AnonymiseError;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::{admit, state};
use crate::app::App;
use crate::body;
use crate::customers::grants_of;
use crate::problem::{Problem, ProblemBody};
use crate::tokens::{vault_problem, with_vault};
use crate::wire::AdminSaleAnswer;

/// A customer as the shop's tokens name them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EraseBody {
    /// The tokens' `iss`.
    issuer: String,
    /// The tokens' `sub`.
    subject: String,
}

/// What erasing did.
#[derive(Serialize, ToSchema)]
pub(crate) struct EraseAnswer {
    /// False: nothing is known of such a customer. They never took a pass, or were erased before.
    erased: bool,
}

/// Erase a customer. One with an open hold is `hold_open`; one that is not known, or erased already, is answered `"erased":false`.
#[utoipa::path(
    post, path = "/admin/v1/customers/erase", tag = "owner", request_body = EraseBody,
    responses((status = 200, body = EraseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn erase(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<EraseAnswer>, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let EraseBody { issuer, subject } = body::json(body::content_type(&headers), &bytes)?;
    let mut pseudonyms = Vec::new();
    for sale in app.engine.sales() {
        let pseudonym = sale.pseudonym(&issuer, &subject);
        let grants = grants_of(&sale, pseudonym).await?;
        if grants.iter().any(|grant| grant.status == GrantStatus::Held) {
            return Err(Problem::new(Refusal::HoldOpen, format!("in the sale {}", sale.name())));
        }
        pseudonyms.push((sale.ordinal, pseudonym));
    }
    let erased = with_vault(&app, move |engine| engine.vault.erase_customer(&issuer, &subject, &pseudonyms)).await?;
    // Not whom: the log would remember.
    tracing::info!(erased, "a customer was to be erased");
    Ok(Json(EraseAnswer { erased }))
}

/// Make a settled sale's customers unknown for good. Orders, chain and proofs stay; doing it twice is doing it once.
#[utoipa::path(
    post, path = "/admin/v1/sales/{sale}/anonymise", tag = "owner", params(("sale" = String, Path)),
    responses((status = 200, body = AdminSaleAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn anonymise(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<AdminSaleAnswer>, Problem> {
    admit(&app, &headers, Right::Manage)?;
    let sale = app.named_sale(&name)?;
    let (forgetting, of) = (Arc::clone(&app), Arc::clone(&sale));
    let done = tokio::task::spawn_blocking(move || forgetting.engine.anonymise(&of)).await;
    done.map_err(|error| Problem::internal(&error))?.map_err(|error| match error {
        AnonymiseError::NotSettled => {
            Problem::new(Refusal::SalePhaseWrong, "the sale is not settled: somebody may still pay, or get money back")
        }
        AnonymiseError::Vault(error) => vault_problem(error),
    })?;
    Ok(Json(state(&app, &sale, Request::Read(Query::Sale)).await?))
}
