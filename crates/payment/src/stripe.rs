//! A provider of Stripe's shape: payment intents and refunds, forms out and JSON in.
//!
//! Every call may be repeated: creations carry an idempotency key, cancelling twice is cancelling once, and a refund is looked for
//! under its name before it is asked for. The secret key leaves in one header.

use std::time::Duration;

use bytes::Bytes;
use domain::Money;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, ClientError, ClientOptions, OptionsError, Reply};
use crate::event::{Event, EventError};
use crate::fact::{Fact, RefundFact};
use crate::form;
use crate::key::{AttemptKey, RefundKey};
use crate::limits::REFUNDS_LISTED_MAX;
use crate::provider::{Created, PayWith, ProviderError};
use crate::secret::Secret;
use crate::wire::{ATTEMPT_METADATA, PaymentIntent, REFUND_METADATA, Unreadable, read, refund_fact};

/// The version of the interface that this adapter was written against; without it the account's own would count.
const VERSION: HeaderValue = HeaderValue::from_static("2024-06-20");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
/// Makes an answer say how much was given back.
const WITH_CHARGE: (&str, &str) = ("expand[]", "latest_charge");
const PAYMENTS: &str = "/v1/payment_intents";
const REFUNDS: &str = "/v1/refunds";

/// How the provider is reached and who we are there.
#[derive(Clone, Debug)]
pub struct StripeOptions {
    /// Where it answers.
    pub client: ClientOptions,
    /// The secret key, `sk_test_..`, `sk_live_..`, or a restricted one (`rk_`) that may write payment intents and refunds. It also
    /// says whether real money is taken.
    pub secret_key: Secret,
    /// The secrets of the callback endpoint; two while one is being replaced.
    pub callback_secrets: Vec<Secret>,
}

impl StripeOptions {
    /// The real provider, with everything else as usual: 10 seconds, 64 connections, the system's authorities.
    pub fn new(secret_key: Secret, callback_secrets: Vec<Secret>) -> Self {
        let client = ClientOptions {
            base_url: "https://api.stripe.com".to_owned(),
            time_max: Duration::from_secs(10),
            connections_max: 64,
            authority: None,
            dangerous_plain_http: false,
        };
        Self { client, secret_key, callback_secrets }
    }
}

/// The adapter.
pub struct Stripe {
    client: Client,
    authorization: HeaderValue,
    secret_key: Secret,
    callback_secrets: Vec<Secret>,
    is_live: bool,
}

impl Stripe {
    /// Checks the options; sends nothing.
    pub fn new(options: StripeOptions) -> Result<Self, OptionsError> {
        let key = options.secret_key.expose();
        let mode = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_")).ok_or(OptionsError::Key)?;
        let is_live = mode.starts_with("live_");
        let is_plain = key.bytes().all(|byte| byte.is_ascii_graphic());
        if !(is_live || mode.starts_with("test_")) || !is_plain {
            return Err(OptionsError::Key);
        }
        if options.callback_secrets.is_empty()
            || options.callback_secrets.iter().any(|secret| secret.expose().is_empty())
        {
            return Err(OptionsError::CallbackSecret);
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| OptionsError::Key)?;
        authorization.set_sensitive(true);
        Ok(Self {
            client: Client::new(&options.client)?,
            authorization,
            secret_key: options.secret_key,
            callback_secrets: options.callback_secrets,
            is_live,
        })
    }

    /// Whether it takes real money.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Makes the attempt's payment, or finds the one that an earlier call with the same key and money has made.
    ///
    /// The customer comes back to where the shop's page tells the provider's script; a payment knows no address of its own.
    pub async fn create(&self, key: &AttemptKey, money: Money) -> Result<Created, ProviderError> {
        let name = key.to_string();
        let (amount, currency) = (money.amount.to_string(), money.currency.as_str().to_ascii_lowercase());
        let metadata = format!("metadata[{ATTEMPT_METADATA}]");
        let fields = [
            ("amount", amount.as_str()),
            ("currency", &currency),
            ("automatic_payment_methods[enabled]", "true"),
            (&metadata, &name),
        ];
        let answer = self.post(PAYMENTS, &fields, Some(&name)).await?;
        let payment: PaymentIntent = read("payment", answer).map_err(unknown)?;
        let secret = payment.client_secret.filter(|_| is_reference(&payment.id));
        let secret = secret.ok_or_else(|| unknown(Unreadable::new("payment", "no usable id, or no client_secret")))?;
        Ok(Created { reference: payment.id, pay_with: PayWith::ClientSecret(Secret::new(secret)) })
    }

    /// Asks the provider to end a payment, and gives what became of it: one that succeeded first stays succeeded, and one that is
    /// being processed stays open.
    pub async fn cancel(&self, reference: &str) -> Result<Fact, ProviderError> {
        let path = format!("{}/cancel", payment_path(reference)?);
        match self.post(&path, &[WITH_CHARGE], None).await {
            Ok(answer) => payment_fact(answer),
            Err(ProviderError::Refused { code, .. }) if code == "payment_intent_unexpected_state" => {
                self.fetch(reference).await
            }
            Err(error) => Err(error),
        }
    }

    /// Asks what became of a payment.
    pub async fn fetch(&self, reference: &str) -> Result<Fact, ProviderError> {
        let path = format!("{}?{}", payment_path(reference)?, form::encode([WITH_CHARGE]));
        payment_fact(self.get(&path).await?)
    }

    /// Gives money of a payment back, once under that key for ever: the provider forgets idempotency keys after a day, but it keeps
    /// the refunds, so they are looked through first.
    pub async fn refund(&self, reference: &str, money: Money, key: &RefundKey) -> Result<RefundFact, ProviderError> {
        payment_path(reference)?;
        let limit = REFUNDS_LISTED_MAX.to_string();
        let query = form::encode([("payment_intent", reference), ("limit", &limit)]);
        let list: List = read("list", self.get(&format!("{REFUNDS}?{query}")).await?).map_err(unknown)?;
        for object in list.data {
            let fact = refund_fact(object).map_err(unknown)?;
            if fact.key.as_ref() == Some(key) {
                return Ok(fact);
            }
        }
        let (name, amount) = (key.to_string(), money.amount.to_string());
        let metadata = format!("metadata[{REFUND_METADATA}]");
        let fields = [("payment_intent", reference), ("amount", &amount), (&metadata, &name)];
        refund_fact(self.post(REFUNDS, &fields, Some(&name)).await?).map_err(unknown)
    }

    /// Believes and reads a callback; see [`Event::receive`].
    pub fn receive(&self, header: &str, body: &[u8], now_seconds: u64) -> Result<Event, EventError> {
        Event::receive(&self.callback_secrets, header, body, now_seconds)
    }

    async fn get(&self, path: &str) -> Result<Value, ProviderError> {
        self.send(Request::builder().method(Method::GET).uri(path), String::new()).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)], key: Option<&str>) -> Result<Value, ProviderError> {
        let mut request = Request::builder().method(Method::POST).uri(path).header(header::CONTENT_TYPE, FORM);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request, form::encode(fields.iter().copied())).await
    }

    async fn send(&self, request: http::request::Builder, body: String) -> Result<Value, ProviderError> {
        let request = request
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header("stripe-version", VERSION)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ProviderError::NotReached(error.to_string()))?;
        match self.client.exchange(request).await {
            Ok(reply) => self.answer(&reply),
            Err(ClientError::NotSent(reason)) => Err(ProviderError::NotReached(reason)),
            Err(ClientError::Lost(reason)) => Err(ProviderError::Unknown(reason)),
        }
    }

    fn answer(&self, reply: &Reply) -> Result<Value, ProviderError> {
        let Reply { status, body } = reply;
        match status {
            200..=299 => {
                serde_json::from_slice(body).map_err(|error| unknown(Unreadable::new("answer", error.to_string())))
            }
            // The words are left out: they quote the key.
            401 | 403 => Err(ProviderError::NotReached(format!(
                "the secret key was turned away ({status}); check payment.secret_key and what it may do"
            ))),
            429 => Err(ProviderError::NotReached("too many calls at once (429)".to_owned())),
            // The same call is being worked on, begun by somebody else.
            409 => Err(ProviderError::Unknown("the same call is under way (409)".to_owned())),
            300..=499 => Err(self.refusal(*status, body)),
            _ => Err(ProviderError::Unknown(format!("the provider failed ({status})"))),
        }
    }

    fn refusal(&self, status: u16, body: &[u8]) -> ProviderError {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        let code = error["code"].as_str().or_else(|| error["type"].as_str()).unwrap_or("none");
        let words = error["message"].as_str().unwrap_or("it gave no reason");
        let quotes_key = [code, words].iter().any(|text| text.contains(self.secret_key.expose()));
        if quotes_key {
            ProviderError::refused(status, "none", "(left out)")
        } else {
            ProviderError::refused(status, code, words)
        }
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Value>,
}

fn payment_fact(answer: Value) -> Result<Fact, ProviderError> {
    read::<PaymentIntent>("payment", answer).and_then(|payment| payment.fact()).map_err(unknown)
}

/// An answer that we cannot read says nothing about what was done.
fn unknown(error: Unreadable) -> ProviderError {
    ProviderError::Unknown(error.to_string())
}

/// A reference stands in paths and is kept for ever, so it has to be plain.
fn is_reference(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_plain && (1..=255).contains(&text.len())
}

fn payment_path(reference: &str) -> Result<String, ProviderError> {
    if is_reference(reference) {
        Ok(format!("{PAYMENTS}/{reference}"))
    } else {
        Err(ProviderError::refused(0, "none", "nothing was sent: that is not a payment's reference"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Stripe, StripeOptions};
    use crate::client::OptionsError;
    use crate::secret::Secret;

    fn made(key: &str, callback_secret: &str) -> Result<bool, OptionsError> {
        let mut options = StripeOptions::new(Secret::new(key), vec![Secret::new(callback_secret)]);
        "http://127.0.0.1:1".clone_into(&mut options.client.base_url);
        options.client.dangerous_plain_http = true;
        Stripe::new(options).map(|stripe| stripe.is_live())
    }

    #[test]
    fn the_key_says_whether_money_is_real() {
        let table = [
            ("sk_test_1", Ok(false)),
            ("rk_test_1", Ok(false)),
            ("sk_live_1", Ok(true)),
            ("rk_live_1", Ok(true)),
            ("pk_live_1", Err(OptionsError::Key)),
            ("whsec_1", Err(OptionsError::Key)),
            ("sk_1", Err(OptionsError::Key)),
            ("", Err(OptionsError::Key)),
            ("sk_test_1\r\nx: y", Err(OptionsError::Key)),
        ];
        for (key, expected) in table {
            assert_eq!(made(key, "whsec_1"), expected, "{key:?}");
        }
        assert_eq!(made("sk_test_1", ""), Err(OptionsError::CallbackSecret));
    }

    #[test]
    fn options_do_not_print_their_secrets() {
        let options = StripeOptions::new(Secret::new("sk_test_hidden"), vec![Secret::new("whsec_hidden")]);
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
