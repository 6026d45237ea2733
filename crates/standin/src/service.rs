//! What the stand-in does on requests, on the customer's actions and on time: the books turned, the callbacks sent off.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::behaviour::{Behaviour, Plan};
use crate::books::{Asked, Books, Payment, Refusal, Totals};
use crate::courier::{Courier, now_seconds};
use crate::shape;

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Customers {
    /// Whoever is given a payment pays it at once.
    AtOnce,
    /// Customers are played from outside, by `pay`.
    WhenAsked,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reply(u16, Value),
    /// The connection ends without a reply.
    HangUp,
    /// The connection stays, and nothing is ever said.
    Silence,
}

/// The provider.
pub(crate) struct Service {
    secret_key: String,
    customers: Customers,
    courier: Arc<Courier>,
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    books: Books,
    plan: Plan,
    behaviours: HashMap<String, Behaviour>,
    events: u64,
}

impl Service {
    pub(crate) fn new(secret_key: String, customers: Customers, plan: Plan, courier: Arc<Courier>) -> Arc<Self> {
        let state = State { books: Books::default(), plan, behaviours: HashMap::new(), events: 0 };
        let runtime = courier.runtime().clone();
        Arc::new(Self { secret_key, customers, courier, runtime, state: Mutex::new(state) })
    }

    pub(crate) fn totals(&self) -> Totals {
        self.state().books.totals()
    }

    pub(crate) fn forget_keys(&self) {
        self.state().books.forget_keys();
    }

    pub(crate) fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.state().plan.script.extend(behaviours);
    }

    /// Answers the engine.
    pub(crate) fn serve(self: &Arc<Self>, asks: &Ask<'_>) -> Outcome {
        if asks.bearer != Some(self.secret_key.as_str()) {
            return Outcome::Reply(401, shape::error("api_key_invalid", "Invalid API Key provided."));
        }
        let steps: Vec<&str> = asks.path.split('/').skip(1).collect();
        let is_post = asks.method == Method::POST;
        match (is_post, steps.as_slice()) {
            (true, ["v1", "payment_intents"]) => self.create(asks),
            (true, ["v1", "payment_intents", reference, "cancel"]) => self.cancel(reference, asks),
            (true, ["v1", "refunds"]) => self.refund(asks),
            (false, ["v1", "payment_intents", reference]) => {
                let with_charge = wants_charge(&shape::fields(asks.query));
                let state = self.state();
                answer(state.books.payment(reference).map(|payment| state.shown(payment, with_charge)))
            }
            (false, ["v1", "refunds"]) => {
                let fields = shape::fields(asks.query);
                let reference = fields.get("payment_intent").map_or("", String::as_str);
                let state = self.state();
                Outcome::Reply(200, shape::list(state.books.refunds(reference).map(shape::refund).collect()))
            }
            _ => Outcome::Reply(404, shape::error("resource_missing", "Unrecognized request URL.")),
        }
    }

    fn create(self: &Arc<Self>, asks: &Ask<'_>) -> Outcome {
        let fields = shape::fields(asks.body);
        let text = |name: &str| fields.get(name).map_or("", String::as_str);
        let (Ok(amount), currency) = (text("amount").parse::<u64>(), text("currency").to_ascii_uppercase()) else {
            return Outcome::Reply(400, shape::error("parameter_invalid_integer", "Invalid integer: amount"));
        };
        let is_currency = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
        if amount == 0 || !is_currency || asks.key.is_empty() {
            return Outcome::Reply(400, shape::error("parameter_invalid", "amount, currency, Idempotency-Key"));
        }
        let metadata = shape::metadata(&fields);
        let live = self.secret_key.contains("_live_");
        let asked = Asked { key: asks.key.to_owned(), amount, currency, metadata, live };
        let mut state = self.state();
        let (payment, is_new) = match state.books.create(asked) {
            Ok((payment, is_new)) => (payment.clone(), is_new),
            Err(refusal) => return answer(Err(refusal)),
        };
        if !is_new {
            return Outcome::Reply(200, state.shown(&payment, false));
        }
        let behaviour = state.plan.next(asks.key);
        state.behaviours.insert(payment.reference.clone(), behaviour);
        let shown = state.shown(&payment, false);
        drop(state);
        if self.customers == Customers::AtOnce {
            self.pay(&payment.reference).expect("the payment was made just now");
        }
        match behaviour {
            Behaviour::AnswerLost => Outcome::HangUp,
            Behaviour::AnswerHangs => Outcome::Silence,
            _ => Outcome::Reply(200, shown),
        }
    }

    fn cancel(&self, reference: &str, asks: &Ask<'_>) -> Outcome {
        let mut state = self.state();
        if state.behaviour(reference) == Behaviour::SuccessBeatsCancel {
            // Refused if it was captured before, and then there is nothing to add.
            let _ = self.capture(&mut state, reference);
        }
        let cancelled = state.books.cancel(reference).cloned();
        if let Ok(payment) = &cancelled {
            self.tell(&mut state, "payment_intent.canceled", payment, 1);
        }
        answer(cancelled.map(|payment| state.shown(&payment, wants_charge(&shape::fields(asks.body)))))
    }

    fn refund(&self, asks: &Ask<'_>) -> Outcome {
        let fields = shape::fields(asks.body);
        let reference = fields.get("payment_intent").map_or("", String::as_str);
        let amount = fields.get("amount").and_then(|amount| amount.parse().ok()).unwrap_or(0);
        let mut state = self.state();
        let made = state.books.refund(asks.key, reference, amount, shape::metadata(&fields));
        let made = made.map(|(refund, is_new)| (shape::refund(refund), is_new));
        if matches!(made, Ok((_, true))) {
            let payment = state.books.payment(reference).expect("it was refunded just now").clone();
            let charge = shape::charge(&payment);
            self.tell_of(&mut state, "charge.refunded", payment.live, &charge, 1);
        }
        answer(made.map(|(refund, _)| refund))
    }

    /// The customer pays. Paying again changes nothing.
    pub(crate) fn pay(self: &Arc<Self>, reference: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        state.books.payment(reference)?;
        match state.behaviour(reference) {
            Behaviour::Held | Behaviour::SuccessBeatsCancel | Behaviour::Abandoned => {}
            Behaviour::Late(milliseconds) => {
                let (service, reference) = (Arc::clone(self), reference.to_owned());
                self.runtime.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                    // Refused if it was cancelled meanwhile, as it should be.
                    let _ = service.capture(&mut service.state(), &reference);
                });
            }
            Behaviour::Processing => {
                if let Ok(payment) = state.books.process(reference).cloned() {
                    self.tell(&mut state, "payment_intent.processing", &payment, 1);
                }
            }
            Behaviour::DeclinedThenPaid => {
                if let Ok(payment) = state.books.decline(reference).cloned() {
                    self.tell(&mut state, "payment_intent.payment_failed", &payment, 1);
                    self.capture(&mut state, reference)?;
                }
            }
            _ => drop(self.capture(&mut state, reference)),
        }
        Ok(())
    }

    /// What was held back or processed succeeds now.
    pub(crate) fn release(&self, reference: &str) -> Result<(), Refusal> {
        self.capture(&mut self.state(), reference)
    }

    /// Takes the money as the payment's behaviour has it and tells of it.
    fn capture(&self, state: &mut State, reference: &str) -> Result<(), Refusal> {
        let payment = state.books.payment(reference)?;
        let (mut amount, mut currency) = (payment.asked, payment.currency.clone());
        let behaviour = state.behaviour(reference);
        match behaviour {
            Behaviour::OtherAmount => amount += 1,
            Behaviour::OtherCurrency => (if currency == "USD" { "EUR" } else { "USD" }).clone_into(&mut currency),
            _ => {}
        }
        let payment = state.books.capture(reference, amount, &currency)?.clone();
        let copies = match behaviour {
            Behaviour::CallbackNever => 0,
            Behaviour::CallbackTwice => 2,
            _ => 1,
        };
        self.tell(state, "payment_intent.succeeded", &payment, copies);
        Ok(())
    }

    fn tell(&self, state: &mut State, kind: &str, payment: &Payment, copies: u32) {
        let shown = state.shown(payment, false);
        self.tell_of(state, kind, payment.live, &shown, copies);
    }

    fn tell_of(&self, state: &mut State, kind: &str, live: bool, object: &Value, copies: u32) {
        state.events += 1;
        let body = shape::event(state.events, kind, now_seconds(), live, object);
        for copy in 0..copies {
            self.courier.send(format!("{}.{copy}", state.events), body.clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn behaviour(&self, reference: &str) -> Behaviour {
        self.behaviours.get(reference).copied().unwrap_or(Behaviour::Plain)
    }

    /// The payment as the engine is shown it; the books keep it as it is.
    fn shown(&self, payment: &Payment, with_charge: bool) -> Value {
        let mut shown = payment.clone();
        match self.behaviour(&payment.reference) {
            Behaviour::OtherMode => shown.live = !shown.live,
            Behaviour::OtherOrder => {
                for value in shown.metadata.values_mut() {
                    *value = "or_of_another.0".to_owned();
                }
            }
            _ => {}
        }
        shape::payment(&shown, with_charge)
    }
}

/// What the stand-in reads of a request.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) bearer: Option<&'a str>,
    /// The idempotency key; empty without one.
    pub(crate) key: &'a str,
    pub(crate) body: &'a str,
}

fn wants_charge(fields: &BTreeMap<String, String>) -> bool {
    fields.get("expand[]").is_some_and(|what| what == "latest_charge")
}

fn answer(outcome: Result<Value, Refusal>) -> Outcome {
    match outcome {
        Ok(object) => Outcome::Reply(200, object),
        Err(refusal) => {
            let (status, body) = shape::refusal(refusal);
            Outcome::Reply(status, body)
        }
    }
}
