//! What a callback tells: its body, once its signature is believed, read into facts.
//!
//! Events come in any order, any number of times, hours late or never. So none of them is more than a fact at its own time, and
//! whoever takes one in must be able to take it in twice.

use serde::Deserialize;
use serde_json::Value;

use crate::fact::{Fact, RefundFact};
use crate::secret::Secret;
use crate::signature::{SignatureError, verify};
use crate::wire::{PaymentIntent, Unreadable, charge_fact, read, refund_fact};

/// A believed callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The provider's own name of the event; the same in every delivery of it.
    pub id: String,
    /// When it happened, by the provider's clock, in Unix seconds.
    pub created_seconds: u64,
    /// What it tells.
    pub told: Told,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something about a payment; whose, says its key. Payments of other systems on the same account come here too, without one.
    Payment(Fact),
    /// Something about a refund.
    Refund {
        /// The refund.
        fact: RefundFact,
        /// Real money. A refund does not carry it itself.
        live: bool,
    },
    /// Nothing that matters here. Acknowledge it, else it comes again for days.
    Nothing,
}

/// Why a callback was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not believed; answer 400.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Believed but not understood; answer 500, so that it comes again, and tell the operator.
    #[error("a genuine callback was not taken in; the provider will send it again: {0}")]
    Unreadable(#[from] Unreadable),
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    created: u64,
    livemode: bool,
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
}

impl Event {
    /// Believes and reads a callback. `header` is the value of [`crate::signature::SIGNATURE_HEADER`], empty without one;
    /// `now_seconds` is Unix time.
    pub fn receive(secrets: &[Secret], header: &str, body: &[u8], now_seconds: u64) -> Result<Self, EventError> {
        verify(secrets, header, body, now_seconds)?;
        let object: Value =
            serde_json::from_slice(body).map_err(|error| Unreadable::new("event", error.to_string()))?;
        let Envelope { id, created, livemode, kind, data } = read("event", object)?;
        let told = match kind.as_str() {
            // A declined payment is open: the customer may try again with the same one.
            "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.canceled"
            | "payment_intent.processing" => Told::Payment(read::<PaymentIntent>("payment", data.object)?.fact()?),
            "charge.refunded" => charge_fact(data.object)?.map_or(Told::Nothing, Told::Payment),
            "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
                Told::Refund { fact: refund_fact(data.object)?, live: livemode }
            }
            _ => Told::Nothing,
        };
        Ok(Self { id, created_seconds: created, told })
    }
}

#[cfg(test)]
mod tests {
    use domain::{Currency, Money};
    use serde_json::{Value, json};

    use super::{Event, EventError, Told};
    use crate::fact::{Fact, FactState, RefundFact, RefundState, Waiting};
    use crate::key::AttemptKey;
    use crate::secret::Secret;
    use crate::signature::{SignatureError, sign};

    const NOW: u64 = 1_795_371_632;
    const MONEY: Money = Money { amount: 1_500, currency: Currency(*b"EUR") };

    fn told(kind: &str, object: Value) -> Result<Told, EventError> {
        let body = json!({"id": "evt_1", "object": "event", "created": NOW - 7, "livemode": true, "type": kind,
            "data": {"object": object}})
        .to_string();
        let secret = Secret::new("whsec_1");
        let event =
            Event::receive(std::slice::from_ref(&secret), &sign(&secret, body.as_bytes(), NOW), body.as_bytes(), NOW)?;
        assert_eq!((event.id.as_str(), event.created_seconds), ("evt_1", NOW - 7));
        Ok(event.told)
    }

    fn intent(status: &str) -> Value {
        json!({"id": "pi_1", "object": "payment_intent", "amount": 1_500, "amount_received": 1_500, "currency": "eur",
            "livemode": true, "status": status, "metadata": {"doorbuster_attempt": "or_1.0", "mine": "x"},
            "latest_charge": "ch_1", "last_payment_error": null, "client_secret": "pi_1_secret_2"})
    }

    fn fact(state: FactState) -> Fact {
        let key = AttemptKey::new("or_1", 0);
        Fact { reference: "pi_1".to_owned(), key, money: MONEY, live: true, state, refunded: 0 }
    }

    fn with(mut object: Value, name: &str, value: Value) -> Value {
        object[name] = value;
        object
    }

    #[test]
    fn events_about_payments_are_read() {
        let declined = with(intent("requires_payment_method"), "last_payment_error", json!({"code": "card_declined"}));
        let table = [
            ("payment_intent.succeeded", intent("succeeded"), FactState::Succeeded),
            ("payment_intent.payment_failed", declined, FactState::Open(Waiting::Declined)),
            ("payment_intent.processing", intent("processing"), FactState::Open(Waiting::Provider)),
            ("payment_intent.canceled", intent("canceled"), FactState::Cancelled),
        ];
        for (kind, object, state) in table {
            assert_eq!(told(kind, object), Ok(Told::Payment(fact(state))), "{kind}");
        }
    }

    #[test]
    fn what_was_captured_counts_and_not_what_was_asked_for() {
        let Ok(Told::Payment(fact)) =
            told("payment_intent.succeeded", with(intent("succeeded"), "amount_received", json!(1_499)))
        else {
            panic!("a payment was told");
        };
        assert_eq!(fact.money.amount, 1_499);
    }

    #[test]
    fn a_payment_of_another_system_has_no_key() {
        for metadata in
            [json!({}), json!([]), json!({"order": "or_1.0"}), json!({"doorbuster_attempt": "or_1"}), Value::Null]
        {
            let read = told("payment_intent.succeeded", with(intent("succeeded"), "metadata", metadata.clone()));
            let expected = Fact { key: None, ..fact(FactState::Succeeded) };
            assert_eq!(read, Ok(Told::Payment(expected)), "{metadata}");
        }
    }

    #[test]
    fn events_about_refunds_are_read() {
        let charge = json!({"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "amount": 1_500, "amount_captured": 1_500,
            "amount_refunded": 600, "currency": "eur", "livemode": true, "metadata": {"doorbuster_attempt": "or_1.0"}});
        let partly = Fact { refunded: 600, ..fact(FactState::Succeeded) };
        assert_eq!(told("charge.refunded", charge.clone()), Ok(Told::Payment(partly)));
        assert_eq!(told("charge.refunded", with(charge, "payment_intent", Value::Null)), Ok(Told::Nothing));
        let refund = json!({"id": "re_1", "object": "refund", "amount": 1_500, "currency": "eur", "status": "pending",
            "payment_intent": "pi_1", "metadata": {"doorbuster_refund": "or_1.0.refund.0"}});
        for (status, state) in
            [("pending", RefundState::Pending), ("succeeded", RefundState::Succeeded), ("failed", RefundState::Failed)]
        {
            let key = AttemptKey::new("or_1", 0).map(|key| key.refund(0));
            let fact =
                RefundFact { reference: "re_1".to_owned(), payment: Some("pi_1".to_owned()), key, money: MONEY, state };
            let read = told("refund.updated", with(refund.clone(), "status", json!(status)));
            assert_eq!(read, Ok(Told::Refund { fact, live: true }), "{status}");
        }
    }

    #[test]
    fn events_that_do_not_matter_are_acknowledged() {
        for kind in ["payment_intent.created", "customer.created", "", "payment_intent.amount_capturable_updated"] {
            assert_eq!(told(kind, json!({"anything": [1]})), Ok(Told::Nothing), "{kind}");
        }
    }

    #[test]
    fn a_genuine_event_that_is_not_understood_is_an_error() {
        let objects = [
            json!(null),
            with(intent("succeeded"), "amount", json!(-1)),
            with(intent("succeeded"), "currency", json!("euro")),
            intent("a_new_status"),
        ];
        for object in objects {
            let read = told("payment_intent.succeeded", object.clone());
            assert!(matches!(read, Err(EventError::Unreadable(_))), "{object}: {read:?}");
        }
    }

    #[test]
    fn nothing_is_read_before_the_signature_is_believed() {
        let received = Event::receive(&[Secret::new("whsec_1")], "", b"no json", NOW);
        assert_eq!(received, Err(EventError::Signature(SignatureError::Malformed)));
    }
}
