//! Everything towards a payment provider: attempts, facts and what they are worth, the adapters, and callbacks.
//!
//! Nothing here knows a sale, a hold or the chain. What a provider says is returned as a [`Fact`] and weighed by [`judge`]; what
//! follows from it is decided and recorded elsewhere.

pub mod fact;
pub mod judge;
pub mod key;
pub mod limits;
pub mod provider;
pub mod secret;

pub use fact::{Fact, FactState, RefundFact, RefundState, Waiting};
pub use judge::{Expected, Judged, Parked, judge};
pub use key::{AttemptKey, RefundKey};
pub use provider::{Created, PayWith, ProviderError};
pub use secret::Secret;
