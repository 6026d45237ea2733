//! Any bytes as a callback: nothing is believed that the provider did not sign, and what it signed is read as it stands there or not at all.
//! See `fuzzing`.

use fuzzing::check;
use payment::signature::sign;
use payment::{Event, EventError, Secret, Told};
use serde_json::{Value, json};

const NOW: u64 = 1_795_371_632;

fn event(kind: &str, object: &Value) -> String {
    let data = json!({ "object": object });
    json!({ "id": "evt_1", "object": "event", "created": NOW - 7, "livemode": true, "type": kind, "data": data })
        .to_string()
}

fn events() -> [String; 3] {
    let payment = json!({
        "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 1_500, "amount_received": 1_500, "currency": "eur",
        "created": NOW - 60, "livemode": true, "metadata": { "doorbuster_attempt": "pa_1" }, "latest_charge": "ch_1",
    });
    let refund = json!({
        "id": "re_1", "object": "refund", "amount": 1_500, "currency": "eur", "status": "succeeded", "payment_intent": "pi_1",
        "metadata": {},
    });
    [
        event("payment_intent.succeeded", &payment),
        event("refund.updated", &refund),
        event("customer.created", &json!({})),
    ]
}

#[test]
fn any_bytes_as_a_callback_are_not_believed_unless_they_were_signed() {
    let (ours, other) = (Secret::new("whsec_1"), Secret::new("whsec_2"));
    let bodies = events();
    let with = |header: String, body: &str| format!("{header}\n{body}").into_bytes();
    let good = with(sign(&ours, bodies[0].as_bytes(), NOW - 5), &bodies[0]);
    let late = with(sign(&ours, bodies[1].as_bytes(), NOW - 3_600), &bodies[1]);
    let forged = with(sign(&other, bodies[0].as_bytes(), NOW - 5), &bodies[0]);
    check("callback", &[&good, &late, &forged], |bytes| {
        let (header, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
        let (header, body) = (std::str::from_utf8(header).unwrap_or_default(), body.get(1..).unwrap_or_default());
        if !matches!(Event::receive(std::slice::from_ref(&ours), header, body, NOW), Err(EventError::Signature(_))) {
            assert_eq!(body, bodies[0].as_bytes(), "a body is believed that nobody signed lately");
        }
    });
    let (header, body) = (sign(&ours, bodies[0].as_bytes(), NOW - 5), bodies[0].as_bytes());
    assert!(!matches!(Event::receive(&[ours], &header, body, NOW), Err(EventError::Signature(_))));
}

#[test]
fn any_bytes_that_the_provider_signed_are_read_as_they_stand_there_or_not_at_all() {
    let secret = Secret::new("whsec_1");
    let bodies = events();
    let seeds: Vec<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
    check("event", &seeds, |body| {
        let header = sign(&secret, body, NOW);
        let Ok(event) = Event::receive(std::slice::from_ref(&secret), &header, body, NOW) else { return };
        let said: Value = serde_json::from_slice(body).expect("what was read is JSON");
        assert_eq!(Some(event.id.as_str()), said["id"].as_str());
        assert_eq!(Some(event.created_seconds), said["created"].as_u64());
        if let Told::Refund { live, .. } = event.told {
            assert_eq!(Some(live), said["livemode"].as_bool());
        }
    });
}
