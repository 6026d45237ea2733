//! Whom a deployment sells to: claims that an access token has to carry, each a name and a value.
//!
//! It looks at claims whose signature has been verified, and at nothing below their first level.

use serde_json::{Map, Value};

/// Rules of a deployment.
pub const REQUIRED_CLAIMS_MAX: usize = 16;
/// Bytes of a rule.
const RULE_BYTES_MAX: usize = 512;
/// Claims whose text is a list separated by spaces: RFC 8693, section 4.2, and what some providers call it.
const SPACED: [&str; 2] = ["scope", "scp"];

/// One rule: `vip=true`, `scope=drop`, `level=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    name: String,
    value: String,
}

impl RequiredClaim {
    /// Reads `NAME=VALUE`; `None` if a part is missing or the whole is too long. A value may contain `=`, a name may not.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let is_fine = !name.is_empty() && !value.is_empty() && text.len() <= RULE_BYTES_MAX;
        is_fine.then(|| Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// Whether the claim is there and is the value, or is a list that contains it.
    pub fn is_met(&self, claims: &Map<String, Value>) -> bool {
        match claims.get(&self.name) {
            Some(Value::Array(values)) => values.iter().any(|value| self.equals(value)),
            Some(Value::String(text)) if SPACED.contains(&self.name.as_str()) => {
                text.split(' ').any(|part| part == self.value)
            }
            Some(value) => self.equals(value),
            None => false,
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => *text == self.value,
            Value::Bool(truth) => self.value == if *truth { "true" } else { "false" },
            Value::Number(number) => number.to_string() == self.value,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}
