//! What an attempt and a refund are called at the provider. Equal names mean the same call, on every process, for ever.
//!
//! An order's public id is unpredictable and made under the deployment's own key, so two deployments at one provider do not meet.

use std::fmt;

use crate::limits::ORDER_BYTES_MAX;

/// One attempt to be paid for one order. An order has attempts 0, 1, 2 and so on; at most one is open at a time.
///
/// Its text form, the order's id, a dot and the number (`or_Lw_edfAxTQBU-CxUOE4iEA.0`), is both the idempotency key of its creation
/// and what the provider keeps with the payment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptKey {
    order: String,
    attempt: u8,
}

impl AttemptKey {
    /// The attempt of that number for the order with that public id; `None` if the id is empty, longer than 64 bytes or has
    /// characters other than letters, digits, `_` and `-`.
    pub fn new(order: &str, attempt: u8) -> Option<Self> {
        let is_plain = order.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let fits = !order.is_empty() && order.len() <= ORDER_BYTES_MAX;
        (is_plain && fits).then(|| Self { order: order.to_owned(), attempt })
    }

    /// Reads the text form; `None` for anything that [`Self::to_string`] does not write.
    pub fn parse(text: &str) -> Option<Self> {
        let (order, attempt) = text.split_once('.')?;
        Self::new(order, number(attempt)?)
    }

    /// The order's public id.
    pub fn order(&self) -> &str {
        &self.order
    }

    /// The attempt's number, from 0.
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// The refund of that number, from 0, of what this attempt brought in.
    pub fn refund(&self, number: u8) -> RefundKey {
        RefundKey { attempt: self.clone(), number }
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.order, self.attempt)
    }
}

/// One refund of one attempt; text form `or_Lw_edfAxTQBU-CxUOE4iEA.0.refund.0`, again idempotency key and kept name in one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefundKey {
    /// Whose money goes back.
    pub attempt: AttemptKey,
    /// Which refund of that attempt, from 0.
    pub number: u8,
}

impl RefundKey {
    /// Reads the text form; `None` for anything that [`Self::to_string`] does not write.
    pub fn parse(text: &str) -> Option<Self> {
        let (attempt, refund) = text.split_once(".refund.")?;
        Some(Self { attempt: AttemptKey::parse(attempt)?, number: number(refund)? })
    }
}

impl fmt::Display for RefundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.refund.{}", self.attempt, self.number)
    }
}

/// A number with one spelling: no sign, no leading zero.
fn number(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{AttemptKey, RefundKey};

    const ORDER: &str = "or_Lw_edfAxTQBU-CxUOE4iEA";

    #[test]
    fn keys_come_back_from_their_text() {
        for attempt in [0, 1, 9, 10, 255] {
            let key = AttemptKey::new(ORDER, attempt).unwrap();
            assert_eq!(key.to_string(), format!("{ORDER}.{attempt}"));
            assert_eq!(AttemptKey::parse(&key.to_string()), Some(key.clone()));
            let refund = key.refund(3);
            assert_eq!(refund.to_string(), format!("{ORDER}.{attempt}.refund.3"));
            assert_eq!(RefundKey::parse(&refund.to_string()), Some(refund.clone()));
            assert_eq!(AttemptKey::parse(&refund.to_string()), None, "a refund is no attempt");
            assert_eq!(RefundKey::parse(&key.to_string()), None, "an attempt is no refund");
        }
    }

    #[test]
    fn a_text_of_another_form_is_no_key() {
        let long = format!("{}.0", "o".repeat(65));
        let others = [
            "",
            ".",
            "or_x",
            "or_x.",
            ".0",
            "or_x.256",
            "or_x.-1",
            "or_x.+1",
            "or_x.01",
            "or_x. 1",
            "or x.1",
            long.as_str(),
        ];
        for text in others.into_iter().chain(["or_x.1\r\n", "or_ä.1", "or_x.1.2", "or_x.1.refund.", "or_x.1.refund.00"])
        {
            assert_eq!(AttemptKey::parse(text), None, "{text:?}");
            assert_eq!(RefundKey::parse(text), None, "{text:?}");
        }
    }
}
