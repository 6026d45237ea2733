//! Payments, refunds, events and refusals in the provider's shape, and forms and references read from it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::books::{Payment, Refund, Refusal, State};

/// A payment; `with_charge` gives the charge in full instead of its name.
pub(crate) fn payment(payment: &Payment, with_charge: bool) -> Value {
    let status = match payment.state {
        State::Waiting | State::Declined => "requires_payment_method",
        State::Processing => "processing",
        State::Succeeded => "succeeded",
        State::Cancelled => "canceled",
    };
    let declined = json!({"type": "card_error", "code": "card_declined", "message": "Your card was declined."});
    let charge_of = match (payment.state, with_charge) {
        (State::Succeeded, true) => charge(payment),
        (State::Succeeded, false) => json!(charge_name(payment)),
        _ => Value::Null,
    };
    json!({
        "id": payment.reference,
        "object": "payment_intent",
        "amount": payment.asked,
        "amount_received": payment.captured,
        "currency": payment.currency.to_ascii_lowercase(),
        "livemode": payment.live,
        "metadata": payment.metadata,
        "status": status,
        "latest_charge": charge_of,
        "last_payment_error": if payment.state == State::Declined { declined } else { Value::Null },
        "client_secret": format!("{}_secret_{}", payment.reference, payment.key.len()),
    })
}

/// The money that moved for a payment.
pub(crate) fn charge(payment: &Payment) -> Value {
    json!({
        "id": charge_name(payment),
        "object": "charge",
        "payment_intent": payment.reference,
        "amount": payment.captured,
        "amount_captured": payment.captured,
        "amount_refunded": payment.refunded,
        "refunded": payment.refunded == payment.captured,
        "currency": payment.currency.to_ascii_lowercase(),
        "livemode": payment.live,
        "metadata": payment.metadata,
    })
}

fn charge_name(payment: &Payment) -> String {
    payment.reference.replacen("pi_", "ch_", 1)
}

pub(crate) fn refund(refund: &Refund) -> Value {
    json!({
        "id": refund.reference,
        "object": "refund",
        "payment_intent": refund.payment,
        "amount": refund.amount,
        "currency": refund.currency.to_ascii_lowercase(),
        "metadata": refund.metadata,
        "status": "succeeded",
    })
}

pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({"object": "list", "has_more": false, "data": items})
}

/// An event's body.
pub(crate) fn event(number: u64, kind: &str, created_seconds: u64, live: bool, object: &Value) -> String {
    json!({
        "id": format!("evt_{number:08}"),
        "object": "event",
        "created": created_seconds,
        "livemode": live,
        "type": kind,
        "data": {"object": object},
    })
    .to_string()
}

/// Status and body of a refusal.
pub(crate) fn refusal(refusal: Refusal) -> (u16, Value) {
    let (status, code, message) = match refusal {
        Refusal::Missing => (404, "resource_missing", "No such object."),
        Refusal::KeyReused => (400, "idempotency_error", "Keys for idempotent requests can only be used once."),
        Refusal::State => (400, "payment_intent_unexpected_state", "The payment's status does not allow this."),
        Refusal::TooMuch => (400, "charge_already_refunded", "More than what is left of the charge."),
    };
    (status, error(code, message))
}

pub(crate) fn error(code: &str, message: &str) -> Value {
    json!({"error": {"type": "invalid_request_error", "code": code, "message": message}})
}

/// The fields of a form or a query, unescaped.
pub(crate) fn fields(line: &str) -> BTreeMap<String, String> {
    let pairs = line.split('&').filter_map(|field| field.split_once('='));
    pairs.map(|(name, value)| (unescaped(name), unescaped(value))).collect()
}

/// The fields `metadata[name]` by their names.
pub(crate) fn metadata(fields: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let inner = |name: &str| Some(name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned());
    fields.iter().filter_map(|(name, value)| Some((inner(name)?, value.clone()))).collect()
}

fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk::<2>().filter(|_| *first == b'%');
        let byte = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{fields, metadata};

    #[test]
    fn forms_are_read_with_their_metadata() {
        let read = fields("amount=1500&metadata%5Ba%5D=x%26y+z&empty=&broken%=%4");
        assert_eq!(read["amount"], "1500");
        assert_eq!((read["empty"].as_str(), read["broken%"].as_str()), ("", "%4"));
        assert_eq!(metadata(&read).into_iter().collect::<Vec<_>>(), [("a".to_owned(), "x&y z".to_owned())]);
    }
}
