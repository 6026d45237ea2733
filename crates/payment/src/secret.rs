//! A text that proves who we are. It leaves in the one header that it is for, and in no message, log or dump.

use std::fmt;

/// A secret text. It has no form for people.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the header, the MAC or the customer's browser that it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("sk_test_1");
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(secret.expose(), "sk_test_1");
    }
}
