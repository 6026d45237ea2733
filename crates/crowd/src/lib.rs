//! A crowd of shoppers for a sale on this machine: open loop, seeded, and suspicious of every answer it gets.
//!
//! It speaks HTTP only and knows nothing of the engine's insides. It refuses to aim at any address but loopback.
//! In the order in which a shopper meets them: `schedule` says when they come and how they behave, `person` walks one of
//! them from pass to purchase, `asking` repeats one click until it is answered, `paying` ends what was won, by one `call` after the
//! other, `bots` are those who are no people, `network` is what lies between everybody and the server, `client` lends connections, `answer` reads and judges replies, `notes` writes down what was sent and heard, `report` counts,
//! `fairness` says who got what, `run` drives it all.

mod answer;
mod asking;
mod bots;
mod call;
mod client;
pub mod fairness;
pub mod http;
mod network;
pub mod notes;
mod options;
mod paying;
mod person;
mod report;
mod run;
mod sale;
mod schedule;
mod solving;

pub use bots::Kind as BotKind;
pub use notes::NotesWriter;
pub use options::{BotOptions, Checkout, CrowdError, CrowdOptions};
pub use report::{CrowdReport, GeneratorLag, Latency, Progress};
pub use run::run;
pub use solving::Solving;
