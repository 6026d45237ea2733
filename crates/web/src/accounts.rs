//! What the services of the books know beside orders: how far each has read, and the payments of a sale.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use domain::{ChainTime, Money, PurchaseNumber, Right};
use engine::Sale;
use http::HeaderMap;
use ledger::Service;
use ledger::books::{ParkedPaymentRow, PaymentRow};
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::{admit, needs_books, read_books};
use crate::app::App;
use crate::page::PageQuery;
use crate::problem::{Problem, ProblemBody};

const ROWS_PER_PAGE: u32 = 200;

/// How far the books of this process have read a sale; all null where it keeps none.
#[derive(Serialize, ToSchema)]
pub struct BooksAnswer {
    /// The first record that the order service has not applied.
    pub books_next: Option<u64>,
    /// Records that the order service has not applied.
    pub books_lag: Option<u64>,
    /// Records that each service has not applied: `orders`, `payment`, `coupon`, `points` and `product`.
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    pub services: Option<BTreeMap<&'static str, u64>>,
}

impl BooksAnswer {
    /// Measured against `next`, the first record that the chain does not have.
    pub(crate) fn of(app: &App, sale: &Sale, next: u64) -> Self {
        if !app.engine.roles().worker {
            return Self { books_next: None, books_lag: None, services: None };
        }
        let drained = |service| app.engine.books.drained(service, sale.name());
        let lag = |service| next.saturating_sub(drained(service));
        Self {
            books_next: Some(drained(Service::Orders)),
            books_lag: Some(lag(Service::Orders)),
            services: Some(Service::ALL.map(|service| (service.name(), lag(service))).into()),
        }
    }
}

/// A page of payments.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaymentsAnswer {
    /// Attempts to pay, by the number of the order and their own.
    pub payments: Vec<PaymentLine>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One attempt to pay an order.
#[derive(Serialize, ToSchema)]
pub(crate) struct PaymentLine {
    /// Id of the order.
    pub order: String,
    /// The order's running number in the sale.
    pub number: u32,
    /// The attempt, from 0.
    pub attempt: u8,
    /// `open`, `ended`, `paid`, `refund_due` or `refunded`.
    pub status: String,
    /// The order's price.
    pub price: Money,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub begun_at: ChainTime,
    /// When it changed last.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: ChainTime,
    /// Number of the record in the chain that changed it last.
    pub position: u64,
}

impl PaymentLine {
    fn of(app: &App, sale: &Sale, row: &PaymentRow) -> Self {
        Self {
            order: app.engine.ids.public_order(sale.ordinal, row.number, gate::ids::shard_of(row.customer)),
            number: row.number.0,
            attempt: row.attempt,
            status: row.status.clone(),
            price: Money { amount: row.amount, currency: row.currency },
            begun_at: row.begun_at,
            changed_at: row.changed_at,
            position: row.record,
        }
    }
}

/// Attempts to pay orders of a sale, as the payment service has them, by the number of the order.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/payments", tag = "operator",
    params(("sale" = String, Path), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = PaymentsAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn payments(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery<u64>>,
    headers: HeaderMap,
) -> Result<Json<PaymentsAnswer>, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let sale = app.named_sale(&name)?;
    // A cursor is the number of the order and the attempt in its last eight bits.
    let after = query.cursor.map(|cursor| {
        let number = u32::try_from(cursor >> 8).unwrap_or(u32::MAX);
        (PurchaseNumber(number), (cursor & 0xff) as u8)
    });
    let rows = read_books(&app, move |books| books.payments_of_sale(&name, after, ROWS_PER_PAGE)).await?;
    let full = rows.len() == ROWS_PER_PAGE as usize;
    let cursor_of = |row: &PaymentRow| u64::from(row.number.0) << 8 | u64::from(row.attempt);
    Ok(Json(PaymentsAnswer {
        payments: rows.iter().map(|row| PaymentLine::of(&app, &sale, row)).collect(),
        next_cursor: rows.last().filter(|_| full).map(|row| cursor_of(row).to_string()),
    }))
}

/// A page of reports that nobody believed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ParkedPaymentsAnswer {
    /// Reports in the order in which they came.
    pub parked: Vec<ParkedPaymentLine>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A provider's report on an order that does not fit it. Nothing was sold or given back on the strength of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct ParkedPaymentLine {
    /// Id of the order.
    pub order: String,
    /// The order's running number in the sale.
    pub number: u32,
    /// `wrong_mode`, `wrong_order`, `wrong_currency`, `wrong_amount` or `already_refunded`.
    pub reason: String,
    /// Minor units, as the provider says.
    pub amount: u64,
    /// The currency that the provider says.
    pub currency: String,
    /// The provider's name of the payment.
    pub reference: String,
    /// When it was parked.
    #[schema(value_type = String, format = DateTime)]
    pub at: ChainTime,
    /// Number of its record in the chain.
    pub position: u64,
}

impl ParkedPaymentLine {
    fn of(app: &App, sale: &Sale, row: ParkedPaymentRow) -> Self {
        Self {
            order: app.engine.ids.public_order(sale.ordinal, row.number, gate::ids::shard_of(row.customer)),
            number: row.number.0,
            reason: row.reason,
            amount: row.amount,
            currency: row.currency,
            reference: row.reference,
            at: row.at,
            position: row.record,
        }
    }
}

/// What a provider reported about orders of a sale and nobody believed, in the order in which it came. Somebody has to look.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/payments/parked", tag = "operator",
    params(("sale" = String, Path), ("cursor" = Option<u64>, Query)),
    responses((status = 200, body = ParkedPaymentsAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn payments_parked(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery<u64>>,
    headers: HeaderMap,
) -> Result<Json<ParkedPaymentsAnswer>, Problem> {
    admit(&app, &headers, Right::Read)?;
    needs_books(&app)?;
    let sale = app.named_sale(&name)?;
    let rows = read_books(&app, move |books| books.payments_parked(&name, query.cursor, ROWS_PER_PAGE)).await?;
    let full = rows.len() == ROWS_PER_PAGE as usize;
    let next_cursor = rows.last().filter(|_| full).map(|row| row.record.to_string());
    let parked = rows.into_iter().map(|row| ParkedPaymentLine::of(&app, &sale, row)).collect();
    Ok(Json(ParkedPaymentsAnswer { parked, next_cursor }))
}
