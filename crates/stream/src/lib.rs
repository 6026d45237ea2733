//! The chain of a sale on JetStream: one subject for each sale, one message for each batch.
//!
//! A batch is appended at an expected place: JetStream takes it only if the subject's last message is the one that the writer knows. So
//! of several writers one is right at a time, and who is not finds out. A message is durable on a majority of servers, and synced there,
//! before it is acknowledged. Nothing here decides what may be appended.

mod log;
pub mod monitor;
mod store;

pub use log::{AppendError, Follow, Place, ReadError, StreamLog};
pub use store::{ConnectError, Login, Store, StoreOptions, choose_cryptography};
