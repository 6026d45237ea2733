//! A stand-in for a payment provider: its own exact books in memory, and an HTTP server on loopback that speaks the provider's shape.
//!
//! It shares no code with the engine's side, not even the signature, so that the two do not err alike. What a payment does is told
//! by a script or drawn from a seed. It never leaves this machine and never meets money.

mod behaviour;
mod books;
mod courier;
mod direct;
mod server;
mod service;
mod shape;

pub use behaviour::{Behaviour, Plan};
pub use books::{Payment, Refund, Refusal, State, Totals};
pub use courier::CallbackTarget;
pub use server::{Outage, StandIn, StandInOptions};
pub use service::Customers;
