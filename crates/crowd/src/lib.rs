//! A crowd of shoppers for a sale on this machine: open loop, seeded, and suspicious of every answer it gets.
//!
//! It speaks HTTP only and knows nothing of the engine's insides. It refuses to aim at any address but loopback.
//! In the order in which a shopper meets them: `schedule` says when they come and how they behave, `person` walks one of
//! them from pass to purchase, `asking` repeats one click until it is answered, `paying` ends what was won, by one `call` after the
//! other, `client` lends connections, `answer` reads and judges replies, `notes` writes down what was sent and heard, `report` counts,
//! `run` drives it all.

mod answer;
mod asking;
mod call;
mod client;
pub mod http;
pub mod notes;
mod options;
mod paying;
mod person;
mod report;
mod run;
mod sale;
mod schedule;

pub use notes::NotesWriter;
pub use options::{Checkout, CrowdError, CrowdOptions};
pub use report::{CrowdReport, GeneratorLag, Latency, Progress};
pub use run::run;
