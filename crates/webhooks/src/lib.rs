//! Tells the shop's systems what happened in a sale: events that follow from the chain alone, for whoever asks (the feed) and to whoever
//! wants to be called (webhooks in the form of the Standard Webhooks specification).
//!
//! An event is told once the books have its record, so nothing is told that could still be lost. This crate decides nothing about a sale
//! and writes nothing but its own file, webhooks.sqlite; that file may be lost, and the events keep their ids.

mod caller;
mod delivery;
pub mod event;
pub mod feed;
mod pace;
mod reading;
mod service;
pub mod signature;
mod store;
pub mod target;

pub use caller::CallTimes;
pub use event::{Event, EventKind};
pub use feed::{Cursor, Feed, Page};
pub use pace::Pace;
pub use reading::EventError;
pub use service::{EndpointState, NewEndpoint, StartError, WebhookError, WebhookOptions, Webhooks};
