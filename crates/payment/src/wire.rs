//! Payments, charges and refunds as a provider of Stripe's shape writes them in JSON, read into our own words.
//!
//! Fields that are not needed are not read. A state that is not known is an error, not a guess.

use domain::{Currency, Money};
use serde::Deserialize;
use serde_json::Value;

use crate::fact::{Fact, FactState, RefundFact, RefundState, Waiting};
use crate::key::{AttemptKey, RefundKey};

/// Under which name the provider keeps an attempt's key with a payment.
pub(crate) const ATTEMPT_METADATA: &str = "doorbuster_attempt";
/// Under which name the provider keeps a refund's key with a refund.
pub(crate) const REFUND_METADATA: &str = "doorbuster_refund";

/// A text that is no object of that kind. What it is called is said, what is in it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} that this version can read: {reason}")]
pub struct Unreadable {
    kind: &'static str,
    reason: String,
}

impl Unreadable {
    pub(crate) fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// A payment in full. `latest_charge` is an object where it was asked for, else an id.
#[derive(Deserialize)]
pub(crate) struct PaymentIntent {
    pub(crate) id: String,
    amount: u64,
    #[serde(default)]
    amount_received: u64,
    currency: String,
    livemode: bool,
    status: String,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    latest_charge: Value,
    #[serde(default)]
    last_payment_error: Value,
    #[serde(default)]
    pub(crate) client_secret: Option<String>,
}

#[derive(Deserialize)]
struct Charge {
    payment_intent: Option<String>,
    amount_captured: u64,
    amount_refunded: u64,
    currency: String,
    livemode: bool,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct Refund {
    id: String,
    amount: u64,
    currency: String,
    status: String,
    #[serde(default)]
    payment_intent: Option<String>,
    #[serde(default)]
    metadata: Value,
}

/// Reads an object. The error may quote a value that has the wrong type; none of the fields that are read is secret but one, a text.
pub(crate) fn read<T: serde::de::DeserializeOwned>(kind: &'static str, object: Value) -> Result<T, Unreadable> {
    serde_json::from_value(object).map_err(|error| Unreadable::new(kind, error.to_string()))
}

impl PaymentIntent {
    pub(crate) fn fact(&self) -> Result<Fact, Unreadable> {
        let declined = !self.last_payment_error.is_null();
        let state = match self.status.as_str() {
            "succeeded" => FactState::Succeeded,
            "canceled" => FactState::Cancelled,
            "processing" | "requires_capture" => FactState::Open(Waiting::Provider),
            "requires_payment_method" if declined => FactState::Open(Waiting::Declined),
            "requires_payment_method" | "requires_confirmation" | "requires_action" => {
                FactState::Open(Waiting::Customer)
            }
            other => return Err(Unreadable::new("payment", format!("status {}", crate::provider::shortened(other)))),
        };
        let amount = if state == FactState::Succeeded { self.amount_received } else { self.amount };
        Ok(Fact {
            reference: self.id.clone(),
            key: kept(&self.metadata, ATTEMPT_METADATA).and_then(AttemptKey::parse),
            money: Money { amount, currency: currency("payment", &self.currency)? },
            live: self.livemode,
            state,
            refunded: self.latest_charge["amount_refunded"].as_u64().unwrap_or(0),
        })
    }
}

/// What a charge, the provider's word for money that moved, says of its payment; `None` for one without a payment.
pub(crate) fn charge_fact(object: Value) -> Result<Option<Fact>, Unreadable> {
    let charge: Charge = read("charge", object)?;
    let Some(reference) = charge.payment_intent else { return Ok(None) };
    Ok(Some(Fact {
        reference,
        // The provider copies it from the payment when the charge is made.
        key: kept(&charge.metadata, ATTEMPT_METADATA).and_then(AttemptKey::parse),
        money: Money { amount: charge.amount_captured, currency: currency("charge", &charge.currency)? },
        live: charge.livemode,
        state: FactState::Succeeded,
        refunded: charge.amount_refunded,
    }))
}

pub(crate) fn refund_fact(object: Value) -> Result<RefundFact, Unreadable> {
    let refund: Refund = read("refund", object)?;
    let state = match refund.status.as_str() {
        "succeeded" => RefundState::Succeeded,
        "pending" | "requires_action" => RefundState::Pending,
        "failed" | "canceled" => RefundState::Failed,
        other => return Err(Unreadable::new("refund", format!("status {}", crate::provider::shortened(other)))),
    };
    Ok(RefundFact {
        key: kept(&refund.metadata, REFUND_METADATA).and_then(RefundKey::parse),
        money: Money { amount: refund.amount, currency: currency("refund", &refund.currency)? },
        reference: refund.id,
        payment: refund.payment_intent,
        state,
    })
}

fn kept<'a>(metadata: &'a Value, name: &str) -> Option<&'a str> {
    metadata.get(name)?.as_str()
}

fn currency(kind: &'static str, text: &str) -> Result<Currency, Unreadable> {
    Currency::parse(&text.to_ascii_uppercase()).ok_or_else(|| Unreadable::new(kind, "its currency is no ISO 4217 code"))
}
