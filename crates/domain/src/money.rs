//! Money: an integer of minor units with a currency, never a float.

use serde::{Deserialize, Serialize};

/// An ISO 4217 code, three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(pub [u8; 3]);

impl Currency {
    /// Reads three capital letters; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl std::fmt::Debug for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an ISO 4217 code such as EUR")))
    }
}

/// An amount in minor units (cents) of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Money {
    /// Minor units, for example cents.
    pub amount: u64,
    /// ISO 4217 code.
    #[schema(value_type = String, example = "EUR")]
    pub currency: Currency,
}

impl Money {
    /// As anybody reads it: `15.00 EUR`, with the places that ISO 4217 gives the currency. A page says it better, by the reader's locale.
    pub fn plain(&self) -> String {
        let currency = self.currency.as_str();
        let places: usize = match currency {
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
            | "XAF" | "XOF" | "XPF" => 0,
            "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
            _ => 2,
        };
        match 10_u64.pow(places as u32) {
            1 => format!("{} {currency}", self.amount),
            units => format!("{}.{:0places$} {currency}", self.amount / units, self.amount % units),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_with_the_places_of_its_currency() {
        let table = [
            (1_500, "EUR", "15.00 EUR"),
            (5, "EUR", "0.05 EUR"),
            (1_500, "JPY", "1500 JPY"),
            (1_500, "KWD", "1.500 KWD"),
            (0, "USD", "0.00 USD"),
        ];
        for (amount, currency, written) in table {
            let currency = Currency::parse(currency).unwrap();
            assert_eq!(Money { amount, currency }.plain(), written);
        }
    }
}
