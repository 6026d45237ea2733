//! One deployment in one process: its data folder, its keys, its sales with their owners, its vault and its books.
//!
//! This is the one wiring of the embedded engine. It decides nothing and speaks no HTTP; `web` serves it, `bench` measures it.

mod data;
mod engine;
mod sale;

pub use data::{DataError, DataFolder};
pub use engine::{CreateError, Engine, EngineOptions, OnFatal, StartError};
pub use sale::{ChainReadError, ChainedRecord, Sale};
