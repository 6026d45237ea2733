//! Money for an order, as the shop reports and orders it by its own hand.

use std::sync::Arc;

use admission::Command;
use axum::extract::{Path, State};
use axum::response::Response;
use domain::{PaymentFact, Refusal, Right, Stage};
use http::HeaderMap;

use crate::admin::{admit, end_order};
use crate::app::App;
use crate::problem::{Problem, ProblemBody};
use crate::wire;

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
    end_order(&app, &id, &headers, Stage::Confirmed, |number| Command::OrderRefund { number }).await
}
