//! One order for the shop's own systems: as it stands, whose it is, and what was sent along. The only route that tells who a customer is.

use std::sync::Arc;

use admission::{Query, Request};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::Right;
use engine::{Buyer, BuyerError};
use http::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::admin::admit;
use crate::app::App;
use crate::customers::{granted, order_at};
use crate::problem::{Problem, ProblemBody};
use crate::tokens::vault_problem;
use crate::wire::{self, PurchaseAnswer};

/// An order, to be handed over.
#[derive(Serialize, ToSchema)]
pub(crate) struct HandoverAnswer<'a> {
    /// As the customer sees it.
    #[serde(flatten)]
    order: PurchaseAnswer<'a>,
    /// Whose it is. Null: the customer has been erased.
    customer: Option<CustomerBody>,
    /// The names of its payments, at the provider or in the shop; those that have none yet are left out.
    references: Vec<String>,
    /// What was sent along with the purchase. Null: nothing, or the customer has been erased.
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
}

/// A customer as the shop's tokens name them.
#[derive(Serialize, ToSchema)]
pub(crate) struct CustomerBody {
    /// The tokens' `iss`.
    issuer: String,
    /// The tokens' `sub`.
    subject: String,
}

/// An order with its customer and the attributes of its purchase, for the checkout and whoever packs it.
#[utoipa::path(
    get, path = "/admin/v1/orders/{order}", tag = "operator", params(("order" = String, Path)),
    responses((status = 200, body = HandoverAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn order(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // Whoever only looks needs no names.
    admit(&app, &headers, Right::EndOrders)?;
    let (sale, number) = order_at(&app, &id)?;
    let grant = granted(&sale, Request::Read(Query::Order { number, customer: None })).await?;
    let (reading, of, asked) = (Arc::clone(&app), Arc::clone(&sale), grant.clone());
    let buyer = tokio::task::spawn_blocking(move || reading.engine.buyer(&of, &asked)).await;
    let buyer = buyer.map_err(|error| Problem::internal(&error))?.map_err(|error| match error {
        BuyerError::Vault(error) => vault_problem(error),
        error => Problem::internal(&error),
    })?;
    let (customer, attributes) = match buyer {
        Some(Buyer { issuer, subject, attributes }) => (Some(CustomerBody { issuer, subject }), attributes),
        None => (None, None),
    };
    let attributes = attributes.map(RawValue::from_string).transpose().map_err(|error| Problem::internal(&error))?;
    let order = wire::purchase(&app.engine, &sale, &grant, None);
    let named = grant.references.iter().filter(|reference| !reference.is_empty());
    let references = named.map(|reference| String::from_utf8_lossy(reference).into_owned()).collect();
    Ok(Json(HandoverAnswer { order, customer, references, attributes }).into_response())
}
