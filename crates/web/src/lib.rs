//! HTTP and nothing else: what arrives on the wire, in which order it is judged, and what leaves.
//!
//! `service` is where every request enters, and `overload` is asked first; `purchase` is the front half of a purchase from top to bottom; `router` shows all other
//! routes on one screen. No rule of a sale is decided here.

mod accounts;
mod address;
mod admin;
mod app;
mod asking;
mod blocks;
mod body;
mod challenges;
mod connections;
mod customers;
mod docs;
mod erase;
mod export;
mod express;
mod feed;
mod handover;
mod hold_token;
mod human;
mod identify;
mod limits;
mod made;
mod metrics;
mod origin;
mod outgoing;
mod overload;
mod page;
mod pass_keys;
mod payments;
mod pending;
mod pictures;
mod problem;
pub mod purchase;
mod reply;
mod router;
pub mod server;
mod service;
mod session;
mod shop;
mod site;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod tokens;
mod webhooks;
pub mod wire;

pub use app::{App, AppOptions};
pub use human::HumanOptions;
pub use limits::{LimitOptions, Rate};
pub use overload::OverloadOptions;
pub use router::openapi;
pub use server::{ListenError, Listener, ListenerOptions};
