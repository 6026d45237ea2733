//! Everything towards a payment provider: attempts, facts and what they are worth, the adapters, and callbacks.
//!
//! Nothing here knows a sale, a hold or the chain. What a provider says is returned as a [`Fact`] and weighed by [`judge`]; what
//! follows from it is decided and recorded elsewhere.

mod client;
pub mod event;
pub mod fact;
mod form;
pub mod judge;
pub mod key;
pub mod limits;
pub mod provider;
pub mod sandbox;
pub mod secret;
pub mod signature;
pub mod stripe;
mod wire;

pub use client::{ClientOptions, OptionsError};
pub use event::{Event, EventError, Told};
pub use fact::{Fact, FactState, RefundFact, RefundState, Waiting};
pub use judge::{Expected, Judged, judge};
pub use key::{AttemptKey, RefundKey};
pub use provider::{Created, PayWith, Provider, ProviderError};
pub use sandbox::{Press, Sandbox, SandboxError, SandboxOptions};
pub use secret::Secret;
pub use signature::SignatureError;
pub use stripe::{Stripe, StripeOptions};
pub use wire::Unreadable;
