//! A hold token: what a customer holds, signed by the sale's key, so that the shop's own checkout can believe it without asking anybody.
//!
//! It is a JSON Web Signature (RFC 7515, EdDSA of RFC 8037) in its compact form. It says how things stood when it was made: before the shop
//! takes money for a hold, it asks whether it is still held, or confirms in time.

use std::sync::Arc;

use admission::{Grant, GrantStatus, Query, Request};
use axum::Json;
use axum::extract::{Path, State};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::Refusal;
use engine::{Engine, Sale};
use http::HeaderMap;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::app::App;
use crate::customers::{granted, own_order};
use crate::problem::{Problem, ProblemBody};

/// A token for the shop's checkout.
#[derive(Serialize, ToSchema)]
pub(crate) struct HoldTokenAnswer {
    /// The token: three parts in base64url, with dots between.
    hold_token: String,
}

/// What the customer holds, signed, for the shop's own checkout. It is good until the hold's pay-by time.
#[utoipa::path(
    post, path = "/v1/orders/{order}/hold-token", tag = "customers", params(("order" = String, Path)),
    responses((status = 200, body = HoldTokenAnswer), (status = "default", body = ProblemBody)), security(("token" = []))
)]
pub(crate) async fn hold_token(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<HoldTokenAnswer>, Problem> {
    let (sale, number, customer) = own_order(&app, &id, &headers).await?;
    let grant = granted(&sale, Request::Read(Query::Order { number, customer: Some(customer) })).await?;
    match grant.status {
        // Only a payment under way keeps it.
        GrantStatus::Held if app.engine.now() >= grant.pay_by.0 => Err(Refusal::HoldEnded.into()),
        GrantStatus::Held => Ok(Json(HoldTokenAnswer { hold_token: sign(&app.engine, &sale, &grant, &id) })),
        GrantStatus::Confirmed => Err(Refusal::OrderConfirmed.into()),
        GrantStatus::Released(_) => Err(Refusal::HoldEnded.into()),
    }
}

/// The token for a grant that is held.
pub(crate) fn sign(engine: &Engine, sale: &Sale, grant: &Grant, order: &str) -> String {
    let definition = sale.definition();
    let header = json!({ "alg": "EdDSA", "typ": "hold+jwt", "kid": HEXLOWER.encode(&sale.id.0) });
    let mut payload = json!({
        "sale": definition.sale,
        "order": order,
        "purchase": engine.ids.public_purchase(sale.ordinal, grant.purchase),
        "item": definition.items[usize::from(grant.item)].item,
        "quantity": grant.units.len(),
        "amount": grant.price,
        "currency": definition.currency.as_str(),
        "iat": engine.now() / 1_000,
        "exp": grant.pay_by.0 / 1_000,
    });
    if definition.test {
        payload["test"] = true.into();
    }
    let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let input = format!("{}.{}", part(&header), part(&payload));
    let signature = BASE64URL_NOPAD.encode(&sale.signer.sign_token(&input));
    format!("{input}.{signature}")
}
