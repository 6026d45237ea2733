//! Money for an order: by a provider, and as the shop reports and orders it by its own hand.

use std::sync::Arc;

use admission::{Command, GrantStatus, Query, Request};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{Money, PaymentFact, Refusal, Right, Stage, fault, limits};
use http::{HeaderMap, StatusCode};
use payment::signature::SIGNATURE_HEADER;
use payment::{EventError, PayWith};
use serde::{Deserialize, Serialize};
use serde_json::json;
use till::{Payment, TillError};
use utoipa::ToSchema;

use crate::admin::{admit, end_order};
use crate::app::App;
use crate::customers::{granted, order_at, own_order};
use crate::problem::{Problem, ProblemBody};
use crate::{body, identify, wire};

const RETURN_URL_BYTES_MAX: usize = 2_048;

/// Go to pay an order. The hold is kept while that is under way; going again goes on with the payment that is open.
#[utoipa::path(
    post, path = "/v1/orders/{order}/payments", tag = "customers", params(("order" = String, Path)), request_body = PayBody,
    responses((status = 201, body = PayAnswer), (status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn pay(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let Some(till) = &app.till else {
        identify::identity(&app.engine, &headers)?;
        let detail = "this deployment has no payment provider: the shop takes the money itself";
        return Err(Problem::new(Refusal::NotFound, detail));
    };
    let (sale, number, customer) = own_order(&app, &id, &headers).await?;
    let look = || Request::Read(Query::Order { number, customer: Some(customer) });
    granted(&sale, look()).await?;
    let PayBody { return_url } = body::json(body::content_type(&headers), &bytes)?;
    check_return_url(&return_url)?;
    let begun = till.begin(&sale, number, customer, &return_url).await.map_err(problem)?;
    fault::reach(Stage::PaymentOpen);
    let Some(payment) = begun else {
        let grant = granted(&sale, look()).await?;
        return Ok(Json(wire::purchase(&app.engine, &sale, &grant, None)).into_response());
    };
    let (pay_url, client_secret) = match payment.created.pay_with {
        PayWith::Url(url) => (Some(url), None),
        PayWith::ClientSecret(secret) => (None, Some(secret.expose().to_owned())),
    };
    let Payment { attempt, money, .. } = payment;
    let answer = PayAnswer { order: id, attempt, price: money, pay_url, client_secret };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Judged before anything is begun: a provider that refuses it would leave the attempt open.
fn check_return_url(url: &str) -> Result<(), Problem> {
    let is_plain =
        url.len() <= RETURN_URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_path = url.starts_with('/') && !url.starts_with("//");
    let is_address = (url.starts_with("https://") || url.starts_with("http://"))
        && url.parse::<http::Uri>().is_ok_and(|url| {
            url.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
        });
    if is_plain && (is_path || is_address) {
        return Ok(());
    }
    let detail =
        "return_url: an address that begins with https:// or http://, without a user, or a path that begins with /";
    Err(Problem::new(Refusal::Malformed, detail))
}

/// Where to send the customer back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayBody {
    /// An address of the shop, or a path of this listener.
    #[schema(example = "https://shop.example/thanks")]
    return_url: String,
}

/// A payment that the customer can go on with: on a page of the provider, or on the shop's own page with its script.
#[derive(Serialize, ToSchema)]
pub(crate) struct PayAnswer {
    /// The order.
    order: String,
    /// The attempt's number within it.
    attempt: u8,
    /// What is to be paid.
    price: Money,
    /// Where to send the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pay_url: Option<String>,
    /// For the provider's script on the shop's page; it is this customer's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

/// What a provider says. It is answered once the chain has it; any other answer makes the provider say it again.
#[utoipa::path(
    post, path = "/v1/payments/callbacks/{provider}", tag = "payments", params(("provider" = String, Path)),
    request_body(content = String, description = "The provider's signed event", content_type = "application/json"),
    responses((status = 200, description = "The chain has it"), (status = "default", body = ProblemBody))
)]
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let till = app.till.as_ref().filter(|till| till.provider().name() == provider).ok_or(Refusal::NotFound)?;
    let signature = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    till.receive(signature, &body).await.map_err(problem)?;
    Ok(Json(json!({ "received": true })).into_response())
}

/// What the asker hears of a failure at the till.
pub(crate) fn problem(error: TillError) -> Problem {
    match error {
        TillError::Refused(refusal) => refusal.into(),
        TillError::Callback(EventError::Signature(error)) => Problem::new(Refusal::Malformed, error.to_string()),
        TillError::Callback(error) => Problem::internal(&error),
        TillError::Provider(error) => {
            tracing::error!(%error, "the payment provider did not do what was asked");
            Problem::new(
                Refusal::Overloaded,
                "the payment provider does not answer as it should; try again in a moment",
            )
        }
    }
}

/// The customer goes to pay at the shop's own provider: the hold is kept while that is under way. An attempt that is open is the one to go
/// on with; it is the last of `payments` in the answer.
#[utoipa::path(
    post, path = "/admin/v1/orders/{order}/payments", tag = "operator", params(("order" = String, Path)),
    responses((status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn begin_payment(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    end_order(&app, &id, &headers, Stage::PaymentOpen, |number| Command::BeginPayment { number, customer: None }).await
}

/// Confirms an order as paid under the shop's own name of the payment: an attempt that is begun, named and paid. Each step may be repeated, so
/// the whole may.
pub(crate) async fn confirm_as(app: &App, id: &str, reference: String) -> Result<Response, Problem> {
    let name = reference.as_bytes();
    if name.is_empty() || !chain::codec::is_reference(name) {
        let detail = format!("reference: 1 to {} visible ASCII characters", limits::PAYMENT_REFERENCE_BYTES_MAX);
        return Err(Problem::new(Refusal::Malformed, detail));
    }
    if app.till.is_some() {
        let detail = "reference: payments of this deployment have their provider's names; confirm without one";
        return Err(Problem::new(Refusal::Malformed, detail));
    }
    let (sale, number) = order_at(app, id)?;
    let decide = |command| granted(&sale, Request::Decide(command, None));
    let grant = granted(&sale, Request::Read(Query::Order { number, customer: None })).await?;
    let grant = match grant.status {
        GrantStatus::Confirmed if grant.references.iter().any(|known| known == name) => grant,
        GrantStatus::Confirmed => {
            return Err(Problem::new(Refusal::OrderConfirmed, "it was paid without this reference"));
        }
        // Money that is late has no attempt to be named.
        GrantStatus::Released(_) => decide(Command::Confirm { number }).await?,
        GrantStatus::Held => {
            let begun = decide(Command::BeginPayment { number, customer: None }).await?;
            let attempt = begun.attempts.len().checked_sub(1).and_then(|last| u8::try_from(last).ok());
            let attempt = attempt.ok_or(Refusal::Internal)?;
            let named = decide(Command::NamePayment { number, attempt, reference: name.to_vec() }).await?;
            if named.references.get(usize::from(attempt)).is_none_or(|known| known != name) {
                return Err(Problem::new(Refusal::PaymentOpen, "the payment under way has another reference"));
            }
            decide(Command::ReportPayment { number, attempt, fact: PaymentFact::Paid }).await?
        }
    };
    fault::reach(Stage::Confirmed);
    Ok(Json(wire::purchase(&app.engine, &sale, &grant, None)).into_response())
}

/// What became of an attempt: `paid`, `ended` without money, or `refunded`. Money confirms the order, takes free units again, or becomes
/// `refund_due`; the answer says which. The same report again changes nothing.
#[utoipa::path(
    post, path = "/admin/v1/orders/{order}/payments/{attempt}/{fact}", tag = "operator",
    params(("order" = String, Path), ("attempt" = u8, Path), ("fact" = String, Path, description = "`paid`, `ended` or `refunded`")),
    responses((status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn report_payment(
    State(app): State<Arc<App>>,
    Path((id, attempt, fact)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&app, &headers, Right::EndOrders)?;
    let Ok(attempt) = attempt.parse() else { return Err(Refusal::NotFound.into()) };
    let report = |fact| move |number| Command::ReportPayment { number, attempt, fact };
    match fact.as_str() {
        "paid" => end_order(&app, &id, &headers, Stage::Confirmed, report(PaymentFact::Paid)).await,
        "ended" => end_order(&app, &id, &headers, Stage::Released, report(PaymentFact::Ended)).await,
        "refunded" => {
            end_order(&app, &id, &headers, Stage::Confirmed, |number| Command::NoteRefund { number, attempt }).await
        }
        _ => Err(Refusal::NotFound.into()),
    }
}

/// The shop gives a paid order's money back. Its units stay sold; whoever wants to sell them again adds stock.
#[utoipa::path(
    post, path = "/admin/v1/orders/{order}/refund", tag = "operator", params(("order" = String, Path)),
    responses((status = 200, body = wire::PurchaseAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn refund(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ordered = end_order(&app, &id, &headers, Stage::Confirmed, |number| Command::OrderRefund { number }).await;
    ordered.map_err(|problem| match problem.refusal {
        Refusal::SalePhaseWrong => Problem::new(
            problem.refusal,
            "the sale is settled: give the money back where it was paid, and note it in your own books",
        ),
        _ => problem,
    })
}
