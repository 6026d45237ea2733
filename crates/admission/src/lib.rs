//! Admission: who gets a unit. One owner per sale decides, chains and answers.
//!
//! `core` is pure: integers and fixed bytes in, records and verdicts out; no clock, no randomness, no input or output.
//! `owner` puts a batch of decisions on the chain before anyone hears of them. `thread` gives an owner its thread.
//! `replica` follows a chain that others write. `view` is what every gate may know without asking the owner.

pub mod command;
pub mod core;
mod fold;
mod grants;
pub mod holders;
pub mod owner;
mod payments;
pub mod postbox;
pub mod redis;
mod replay;
mod replica;
mod shards;
mod stock;
pub mod thread;
mod time;
mod verdict;
pub mod view;

pub use command::{Answer, Command, Grant, GrantStatus, PurchaseRequest, Query, Request, SaleState, Wish};
pub use core::{Contradiction, Core, Guards};
pub use owner::{Owner, OwnerError, OwnerOptions, Receipt};
pub use postbox::{Postbox, Reply};
pub use replica::{Replaying, Replica, Standing, Wanted};
pub use thread::{OwnerHandle, Requests, SubmitError};
pub use view::SaleView;
