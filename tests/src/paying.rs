//! Paying at the stand-in, and holding its books against ours: payment by payment, and in all, to the cent.
//!
//! Our side is read from outside: what customers are told of their orders, and what a process's books have on disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use standin::{CallbackTarget, StandIn, StandInOptions, Totals};

use crate::customer::Customer;
use crate::sales::now_milliseconds;
use crate::wire::{Reply, Request};

const SECRET_KEY: &str = "sk_test_of_the_tests";
const CALLBACK_SECRET: &str = "whsec_of_the_tests";

/// A stand-in that servers with [`provider_settings`] talk to.
pub fn provider_options() -> StandInOptions {
    StandInOptions::new(SECRET_KEY, CALLBACK_SECRET)
}

/// What a server is told, so that its customers pay there.
pub fn provider_settings(standin: &StandIn) -> [String; 5] {
    [
        "payment.provider=stripe".to_owned(),
        format!("payment.secret_key={SECRET_KEY}"),
        format!("payment.callback_secrets={CALLBACK_SECRET}"),
        format!("payment.base_url=http://{}", standin.address()),
        "payment.dangerous_plain_http=true".to_owned(),
    ]
}

/// What a server is told, so that its customers pay on the sandbox's page. That has to know its port before there is one.
pub fn sandbox_settings() -> [String; 3] {
    let port = services::process::free_ports(1).expect("there is a free port")[0];
    [
        "payment.provider=sandbox".to_owned(),
        "payment.dangerous_sandbox_provider=true".to_owned(),
        format!("public.address=127.0.0.1:{port}"),
    ]
}

/// A callback that the provider might send: money for a payment of this name, which carries the attempt's.
pub fn told_of(payment: &str, attempt: &str, amount: u64) -> Request {
    let now = now_milliseconds() / 1_000;
    let object = json!({
        "id": payment, "object": "payment_intent", "amount": amount, "amount_received": amount, "currency": "eur", "livemode": false,
        "status": "succeeded", "metadata": { "doorbuster_attempt": attempt }, "client_secret": "none",
    });
    let event = json!({
        "id": format!("evt_{payment}"), "object": "event", "created": now, "livemode": false,
        "type": "payment_intent.succeeded", "data": { "object": object },
    });
    let body = event.to_string();
    let signature = payment::signature::sign(&payment::Secret::new(CALLBACK_SECRET), body.as_bytes(), now);
    Request::post("/v1/payments/callbacks/stripe").header(payment::signature::SIGNATURE_HEADER, &signature).json(&event)
}

/// Callbacks go to this listener from now on.
pub fn aim(standin: &StandIn, public: SocketAddr) {
    standin.aim(CallbackTarget { address: public, path: "/v1/payments/callbacks/stripe".to_owned() });
}

/// The customer goes to pay.
pub fn pay(customer: &Customer, order: &str) -> Reply {
    customer.asks(pay_request(order))
}

/// The request of a customer who goes to pay, without a token.
pub fn pay_request(order: &str) -> Request {
    let request = Request::post(&format!("/v1/orders/{order}/payments"));
    request.json(&json!({ "return_url": "https://shop.test/thanks" }))
}

/// Where each attempt to pay an order stands, as its customer is told.
pub fn statuses(order: &Value) -> Vec<String> {
    let payments = order["payments"].as_array().cloned().unwrap_or_default();
    payments.iter().map(|payment| payment["status"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What the books of one process have of a sale's money.
#[derive(Debug)]
pub struct MoneyBooks {
    /// How many attempts and minor units, by status and currency.
    pub sums: BTreeMap<(String, String), (u64, u64)>,
    /// Amount and currency of each report that was not believed, by the provider's reference.
    pub parked: BTreeMap<String, (u64, String)>,
    /// Attempts of orders without such a report that are open or have to go back.
    pub under_way: u64,
}

impl MoneyBooks {
    /// Reads them, beside the process that keeps them.
    pub fn read(data: &Path, sale: &str) -> Self {
        let books = rusqlite::Connection::open(data.join("books.sqlite")).expect("the books can be read");
        let sums = "SELECT status, currency, count(*), sum(amount) FROM payments WHERE sale = ?1 GROUP BY 1, 2";
        let parked = "SELECT reference, amount, currency FROM payments_parked WHERE sale = ?1";
        let under_way = "SELECT count(*) FROM payments WHERE sale = ?1 AND status IN ('open', 'refund_due') \
                         AND number NOT IN (SELECT number FROM payments_parked WHERE sale = ?1)";
        let rows = "the tables are there";
        let mut sums = books.prepare(sums).expect(rows);
        let mut parked = books.prepare(parked).expect(rows);
        let sums = sums.query_map([sale], |row| Ok(((row.get(0)?, row.get(1)?), (whole(row, 2)?, whole(row, 3)?))));
        let parked = parked.query_map([sale], |row| Ok((row.get(0)?, (whole(row, 1)?, row.get(2)?))));
        Self {
            sums: sums.and_then(Iterator::collect).expect(rows),
            parked: parked.and_then(Iterator::collect).expect(rows),
            under_way: books.query_row(under_way, [sale], |row| whole(row, 0)).expect(rows),
        }
    }

    /// Minor units by currency of the attempts with one of these statuses.
    fn money(&self, statuses: &[&str]) -> BTreeMap<String, u64> {
        let mut money = BTreeMap::new();
        for ((status, currency), (_, amount)) in &self.sums {
            if statuses.contains(&status.as_str()) {
                *money.entry(currency.clone()).or_default() += amount;
            }
        }
        money
    }
}

/// A number that is never negative.
fn whole(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

/// Both sides have the same payments, and of each and of all the same money, once nothing is under way any more. `told` are the orders
/// as their customers see them. Gives how many payments ended in which way.
pub fn compare(provider: &Totals, told: &BTreeMap<String, Value>, books: &MoneyBooks) -> BTreeMap<String, u32> {
    let mut ended: BTreeMap<String, u32> = BTreeMap::new();
    let (mut captured, mut refunded) = (BTreeMap::new(), BTreeMap::new());
    for payment in &provider.payments {
        let (order, attempt) = payment.key.split_once('.').expect("a payment has our name");
        let Some(order) = told.get(order) else { panic!("a payment for {order}, which nobody has") };
        let mut status = statuses(order)[attempt.parse::<usize>().expect("attempts have numbers")].clone();
        let price = &order["price"];
        let is_price = (payment.captured, payment.currency.as_str())
            == (price["amount"].as_u64().unwrap_or_default(), price["currency"].as_str().unwrap_or_default());
        match status.as_str() {
            "paid" => {
                assert!(is_price && payment.refunded == 0 && order["status"] == "confirmed", "{payment:?}, {order}")
            }
            "refunded" => assert!(is_price && payment.refunded == payment.captured, "{payment:?}, {order}"),
            "ended" => assert_eq!(payment.captured, 0, "{payment:?}, {order}"),
            // Somebody has to look: its money has no place here.
            _ => assert!(books.parked.contains_key(&payment.reference), "{payment:?}, {order}"),
        }
        if books.parked.contains_key(&payment.reference) {
            status = "parked".to_owned();
        } else if payment.captured > 0 {
            *captured.entry(payment.currency.clone()).or_default() += payment.captured;
        }
        if payment.refunded > 0 {
            *refunded.entry(payment.currency.clone()).or_default() += payment.refunded;
        }
        let order = order["status"].as_str().unwrap_or_default();
        *ended.entry(format!("payment {status}, order {order}")).or_default() += 1;
    }
    assert_eq!(provider.refunds_refused, 0, "nothing is asked back twice");
    let attempts: u64 = books.sums.values().map(|(attempts, _)| attempts).sum();
    assert_eq!(attempts, provider.payments.len() as u64, "attempts to pay, and payments");
    assert_eq!(books.money(&["paid", "refunded"]), captured, "what was taken and believed");
    assert_eq!(books.money(&["refunded"]), refunded, "what went back");
    ended
}
