//! Other people's servers, started privately on loopback ports: for tests, the bench, and a cluster on one machine. And a shop's end of
//! webhooks and its keys for access tokens, for tests.
//!
//! Nothing here is part of the engine; `nodes` starts its processes as it starts the servers. Every server gets a folder of its own, free ports, random passwords and users that may do no
//! more than the engine needs. `up` returns when all of them are ready.

mod cluster;
#[cfg(feature = "keys")]
pub mod keys;
pub mod nats;
pub mod nodes;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod redis;
mod rights;
pub mod tls;

pub use cluster::{Cluster, down, up};
