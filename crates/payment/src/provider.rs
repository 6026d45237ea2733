//! What is asked of a provider, and how a question can fail.

use std::sync::Arc;

use domain::Money;

use crate::event::{Event, EventError};
use crate::fact::{Fact, RefundFact};
use crate::key::{AttemptKey, RefundKey};
use crate::limits::WORDS_BYTES_MAX;
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::stripe::Stripe;

/// Whoever takes the money.
pub enum Provider {
    /// A provider of Stripe's shape.
    Stripe(Box<Stripe>),
    /// The one inside the process, without money.
    Sandbox(Arc<Sandbox>),
}

impl Provider {
    /// Its name in the path of its callbacks and in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stripe(_) => "stripe",
            Self::Sandbox(_) => "sandbox",
        }
    }

    /// Whether it takes real money.
    pub fn is_live(&self) -> bool {
        match self {
            Self::Stripe(stripe) => stripe.is_live(),
            Self::Sandbox(_) => false,
        }
    }

    /// Makes the attempt's payment, or finds the one that an earlier call with the same key and money has made.
    ///
    /// `return_url` is where the customer's browser goes afterwards. Where the customer pays on the shop's own page, that page knows
    /// it and the provider does not need it.
    pub async fn create(&self, key: &AttemptKey, money: Money, return_url: &str) -> Result<Created, ProviderError> {
        match self {
            Self::Stripe(stripe) => stripe.create(key, money).await,
            Self::Sandbox(sandbox) => sandbox.create(key, money, return_url),
        }
    }

    /// Asks for the end of a payment and gives what became of it, which may be anything: success may have been quicker, and what a
    /// bank is working on stays open. Repeating it is harmless.
    pub async fn cancel(&self, reference: &str) -> Result<Fact, ProviderError> {
        match self {
            Self::Stripe(stripe) => stripe.cancel(reference).await,
            Self::Sandbox(sandbox) => sandbox.cancel(reference),
        }
    }

    /// Asks what became of a payment.
    pub async fn fetch(&self, reference: &str) -> Result<Fact, ProviderError> {
        match self {
            Self::Stripe(stripe) => stripe.fetch(reference).await,
            Self::Sandbox(sandbox) => sandbox.fetch(reference),
        }
    }

    /// Gives money of a payment back, once under that key for ever. A refund that was tried and failed stays so under its key;
    /// another try needs the next number.
    pub async fn refund(&self, reference: &str, money: Money, key: &RefundKey) -> Result<RefundFact, ProviderError> {
        match self {
            Self::Stripe(stripe) => stripe.refund(reference, money, key).await,
            Self::Sandbox(sandbox) => sandbox.refund(reference, money, key),
        }
    }

    /// Believes and reads a callback. `header` is the value of [`crate::signature::SIGNATURE_HEADER`], empty without one.
    pub fn receive(&self, header: &str, body: &[u8], now_seconds: u64) -> Result<Event, EventError> {
        match self {
            Self::Stripe(stripe) => stripe.receive(header, body, now_seconds),
            Self::Sandbox(sandbox) => sandbox.receive(header, body, now_seconds),
        }
    }
}

/// A payment that the provider has made for an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The provider's own name of it.
    pub reference: String,
    /// What the customer needs for paying. As long as nobody was given it, nobody can pay.
    pub pay_with: PayWith,
}

/// How the customer pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayWith {
    /// On this page.
    Url(String),
    /// On the shop's own page, with the provider's script and this secret. It goes to this customer's browser and nowhere else.
    ClientSecret(Secret),
}

/// Why there is no answer. Whatever it says, repeating the same call with the same key is never a second payment or refund; whether
/// it can help stands in [`Self::may_repeat`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Definite: the provider has understood and will not do it, now or later.
    #[error("the provider refused ({status} {code}): {words}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's own code of the reason, or `none`.
        code: String,
        /// The provider's own words, shortened.
        words: String,
    },
    /// Definite: nothing was done, because nothing arrived or the provider turned it away unread. Repeat it after a while.
    #[error("the provider was not reached, nothing was done there: {0}")]
    NotReached(String),
    /// Unknown: it may have been done. Repeat it with the same key, or ask what became of it.
    #[error("the provider may or may not have done it: {0}")]
    Unknown(String),
}

impl ProviderError {
    /// Whether the call certainly had no effect.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NotReached(_) => true,
            Self::Unknown(_) => false,
        }
    }

    /// Whether the same call may end differently later.
    pub fn may_repeat(&self) -> bool {
        match self {
            Self::Refused { .. } => false,
            Self::NotReached(_) | Self::Unknown(_) => true,
        }
    }

    pub(crate) fn refused(status: u16, code: &str, words: &str) -> Self {
        Self::Refused { status, code: shortened(code), words: shortened(words) }
    }
}

/// A stranger's words on one line, within bounds.
pub(crate) fn shortened(words: &str) -> String {
    let mut short = String::new();
    for character in words.chars().map(|character| if character.is_control() { ' ' } else { character }) {
        if short.len() + character.len_utf8() > WORDS_BYTES_MAX {
            break;
        }
        short.push(character);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::{ProviderError, shortened};

    #[test]
    fn errors_say_whether_something_happened_and_whether_to_repeat() {
        let table = [
            (ProviderError::refused(400, "resource_missing", "no such payment"), true, false),
            (ProviderError::NotReached("no connection".to_owned()), true, true),
            (ProviderError::Unknown("no answer in time".to_owned()), false, true),
        ];
        for (error, is_definite, may_repeat) in table {
            assert_eq!((error.is_definite(), error.may_repeat()), (is_definite, may_repeat), "{error}");
        }
    }

    #[test]
    fn a_strangers_words_stay_on_one_line_and_within_bounds() {
        assert_eq!(shortened("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shortened(&"ä".repeat(500)).len(), 200);
    }
}
