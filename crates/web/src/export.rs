//! A sale's orders for the shop's own systems, as CSV or JSON: read from the books page by page and sent as they are read, so that the length
//! of a sale takes no memory.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use domain::{ChainTime, Right};
use engine::Sale;
use http::{HeaderMap, HeaderValue, header};
use ledger::BooksError;
use ledger::books::OrderRow;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::admin::{admit, needs_books};
use crate::app::App;
use crate::outgoing::{Page, Pages};
use crate::problem::{Problem, ProblemBody};

/// Orders that are read and sent together; about 250 bytes each.
const ROWS_PER_PAGE: u32 = 1_000;
/// Pages that wait for a slow reader.
const PAGES_AHEAD: usize = 2;

/// The columns of the CSV, which are the names in the JSON.
const COLUMNS: [&str; 18] = [
    "order",
    "number",
    "sale",
    "sale_external_id",
    "test",
    "item",
    "sku",
    "item_external_id",
    "quantity",
    "price",
    "currency",
    "status",
    "release_reason",
    "payment_status",
    "held_at",
    "pay_by",
    "ended_at",
    "position",
];

/// One order.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OrderLine<'a> {
    /// Id of the order.
    order: String,
    /// Its running number in the sale.
    number: u32,
    /// Name of the sale.
    sale: &'a str,
    /// The sale's name in the shop's own systems.
    sale_external_id: Option<&'a str>,
    /// Whether the sale is a rehearsal.
    test: bool,
    /// Name of the item.
    item: &'a str,
    /// The shop's stock keeping unit.
    sku: Option<&'a str>,
    /// The item's name in the shop's own systems.
    item_external_id: Option<&'a str>,
    /// Units.
    quantity: usize,
    /// Minor units of the currency, for all units together.
    price: u64,
    /// ISO 4217 code.
    currency: &'a str,
    /// `held`, `confirmed` or `released`.
    status: &'static str,
    /// Why it was released.
    release_reason: Option<&'static str>,
    /// What became of its money, as far as attempts to pay tell: `paid`, `refund_due` or `refunded`. Units of a refunded order stay sold.
    payment_status: Option<&'static str>,
    /// When it was granted.
    #[schema(value_type = String, format = DateTime)]
    held_at: ChainTime,
    /// Until when it can be paid.
    #[schema(value_type = String, format = DateTime)]
    pay_by: ChainTime,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<ChainTime>,
    /// Number of its record in the chain.
    position: u64,
}

impl<'a> OrderLine<'a> {
    fn of(app: &App, sale: &'a Sale, row: &'a OrderRow) -> Self {
        let definition = sale.definition();
        let item = &definition.items[usize::from(row.item)];
        Self {
            order: app.engine.ids.public_order(sale.ordinal, row.number, gate::ids::shard_of(row.customer)),
            number: row.number.0,
            sale: &definition.sale,
            sale_external_id: definition.external_id.as_deref(),
            test: definition.test,
            item: &item.item,
            sku: item.sku.as_deref(),
            item_external_id: item.external_id.as_deref(),
            quantity: row.units.len(),
            price: row.price,
            currency: row.currency.as_str(),
            status: row.status.name(),
            release_reason: row.release_reason.map(|reason| reason.name()),
            payment_status: row.payment_status,
            held_at: row.held_at,
            pay_by: row.pay_by,
            ended_at: row.ended_at,
            position: row.record,
        }
    }

    /// In the order of [`COLUMNS`].
    fn cells(&self) -> [String; COLUMNS.len()] {
        let or_nothing = |text: Option<&str>| text.unwrap_or_default().to_owned();
        [
            self.order.clone(),
            self.number.to_string(),
            self.sale.to_owned(),
            or_nothing(self.sale_external_id),
            self.test.to_string(),
            self.item.to_owned(),
            or_nothing(self.sku),
            or_nothing(self.item_external_id),
            self.quantity.to_string(),
            self.price.to_string(),
            self.currency.to_owned(),
            self.status.to_owned(),
            or_nothing(self.release_reason),
            or_nothing(self.payment_status),
            self.held_at.rfc3339(),
            self.pay_by.rfc3339(),
            self.ended_at.map(ChainTime::rfc3339).unwrap_or_default(),
            self.position.to_string(),
        ]
    }
}

/// In which form orders leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
}

impl Form {
    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Json => "application/json",
        })
    }

    fn begin(self, out: &mut String) {
        match self {
            Self::Csv => write_cells(&COLUMNS, out),
            Self::Json => out.push('['),
        }
    }

    fn write(self, line: &OrderLine<'_>, is_first: bool, out: &mut String) {
        match self {
            Self::Csv => write_cells(&line.cells(), out),
            Self::Json => {
                let text = serde_json::to_string(line).expect("an order has no map with odd keys");
                // A line each, for whoever reads it with a tool for lines.
                let _ = write!(out, "{}\n{text}", if is_first { "" } else { "," });
            }
        }
    }

    fn end(self, out: &mut String) {
        match self {
            Self::Csv => {}
            Self::Json => out.push_str("\n]\n"),
        }
    }
}

/// A line of RFC 4180.
fn write_cells(cells: &[impl AsRef<str>], out: &mut String) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_cell(cell.as_ref(), out);
    }
    out.push_str("\r\n");
}

/// A spreadsheet takes text that begins like a formula for one, and would run what somebody wrote into a name: an apostrophe before it says
/// that it is text.
fn write_cell(text: &str, out: &mut String) {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !is_formula && !text.contains(['"', ',', '\n', '\r']) {
        return out.push_str(text);
    }
    out.push('"');
    if is_formula {
        out.push('\'');
    }
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

/// All orders of a sale as the books have them, by number, as CSV with a line of names first. Text that a spreadsheet would take for a
/// formula has an apostrophe before it.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/orders.csv", tag = "operator", params(("sale" = String, Path)),
    responses((status = 200, description = "The orders", content_type = "text/csv"), (status = "default", body = ProblemBody)),
    security(("admin" = []))
)]
pub(crate) async fn orders_csv(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    export(&app, &name, &headers, Form::Csv)
}

/// All orders of a sale as the books have them, by number, as one JSON array.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/orders.json", tag = "operator", params(("sale" = String, Path)),
    responses((status = 200, body = Vec<OrderLine>), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn orders_json(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    export(&app, &name, &headers, Form::Json)
}

fn export(app: &Arc<App>, name: &str, headers: &HeaderMap, form: Form) -> Result<Response, Problem> {
    admit(app, headers, Right::Read)?;
    needs_books(app)?;
    let sale = app.named_sale(name)?;
    let (pages, sent) = mpsc::channel(PAGES_AHEAD);
    let reading = Arc::clone(app);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send_orders(&reading, &sale, form, &pages) {
            tracing::error!(sale = sale.name(), %error, "an export broke off");
            // The reader sees that this was not the end. One that has gone away needs no word.
            let _ = pages.blocking_send(Err(std::io::Error::other("the books cannot be read")));
        }
    });
    let mut response = Pages::response(sent);
    response.headers_mut().insert(header::CONTENT_TYPE, form.content_type());
    Ok(response)
}

/// Each page is one short read, so that the books' writer waits for nobody.
fn send_orders(app: &App, sale: &Sale, form: Form, pages: &mpsc::Sender<Page>) -> Result<(), BooksError> {
    let books = app.engine.books_reader()?;
    let (mut after, mut text) = (None, String::new());
    form.begin(&mut text);
    loop {
        let rows = books.orders_of_sale(sale.name(), after, ROWS_PER_PAGE)?;
        for (index, row) in rows.iter().enumerate() {
            form.write(&OrderLine::of(app, sale, row), after.is_none() && index == 0, &mut text);
        }
        after = rows.last().map(|row| row.number);
        let is_last = rows.len() < ROWS_PER_PAGE as usize;
        if is_last {
            form.end(&mut text);
        }
        let has_reader = pages.blocking_send(Ok(Bytes::from(std::mem::take(&mut text)))).is_ok();
        if is_last || !has_reader {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> OrderLine<'static> {
        OrderLine {
            order: "or_x".to_owned(),
            number: 7,
            sale: "drop",
            sale_external_id: Some("=cmd|' /C calc'!A0"),
            test: true,
            item: "boot",
            sku: Some("a \"b\", c"),
            item_external_id: None,
            quantity: 2,
            price: 9_800,
            currency: "EUR",
            status: "released",
            release_reason: Some("expired"),
            payment_status: Some("refunded"),
            held_at: ChainTime(0),
            pay_by: ChainTime(1),
            ended_at: None,
            position: 3,
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_never_formulas() {
        for (text, cell) in [
            ("", ""),
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("+49", "\"'+49\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("=\"x\"", "\"'=\"\"x\"\"\""),
            ("\t=1", "\"'\t=1\""),
            ("1=1", "1=1"),
        ] {
            let mut out = String::new();
            write_cell(text, &mut out);
            assert_eq!(out, cell, "{text:?}");
        }
    }

    #[test]
    fn both_forms_have_the_same_columns() {
        let json = serde_json::to_value(line()).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = COLUMNS.to_vec();
        names.sort_unstable();
        columns.sort_unstable();
        assert_eq!(names, columns);
        for (name, cell) in COLUMNS.iter().zip(line().cells()) {
            let value = json[name].as_str().map_or_else(|| json[name].to_string(), str::to_owned);
            assert_eq!(cell, if json[name].is_null() { String::new() } else { value }, "{name}");
        }
    }

    #[test]
    fn an_export_is_whole_with_no_order_one_and_many() {
        for count in 0..3 {
            let written = |form: Form| {
                let mut out = String::new();
                form.begin(&mut out);
                (0..count).for_each(|number| form.write(&line(), number == 0, &mut out));
                form.end(&mut out);
                out
            };
            let json: serde_json::Value = serde_json::from_str(&written(Form::Json)).unwrap();
            assert_eq!(json.as_array().unwrap().len(), count);
            let csv = written(Form::Csv);
            assert_eq!(csv.matches("\r\n").count(), count + 1);
            assert!(csv.starts_with("order,number,sale,"), "{csv}");
        }
    }
}
