//! The harness of the system tests: the real binary in a folder of its own, clients that note what they send, and the promises.
//!
//! It starts processes and speaks HTTP, and knows nothing of the engine's insides. A [`Server`] that is dropped by a test that
//! has not failed is stopped and audited, with the clients' notes, and every sale's export is verified: each test is also a test of
//! every promise.

mod binary;
pub mod browser;
pub mod cluster;
mod customer;
mod folder;
pub mod human;
pub mod paying;
mod promises;
pub mod proxy;
mod sales;
mod server;
mod stream;
mod waiting;
mod wire;

pub use binary::{Ended, doorbuster, doorbuster_in};
pub use customer::{Customer, sign_with, token_of};
pub use folder::Folder;
pub use promises::{audit_is_clean, audit_is_complete, verify_sale};
pub use sales::{SMALL_PICTURE, item, now_milliseconds, open_sale, sale_of};
pub use server::{Reach, Server};
pub use stream::{Event, Events};
pub use waiting::{TIME_MAX, eventually, eventually_within, until, within};
pub use wire::{Connection, Reply, Request};

/// The shop that the servers of the tests belong to.
pub const ISSUER: &str = "https://shop.test";
/// The audience of its tokens.
pub const AUDIENCE: &str = "doorbuster-tests";
/// The secret that it signs them with.
pub const SECRET: &str = "a-secret-of-the-tests-longer-than-32-bytes";
