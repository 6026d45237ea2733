//! The chain of a sale: its bytes, its hashes and its place on disk.
//!
//! A batch is appended at the chain's next position and is durable when `append` returns; a reader starts at any record number.
//! This crate knows records as bytes and values. It decides nothing: what may be appended is admission's business.

pub mod batch;
mod chain_log;
pub mod codec;
pub mod digest;
pub mod disk;
pub mod files;
pub mod frame;
pub mod head;

pub use batch::{Batch, BatchBuilder, BatchError, BatchHeader, EncodedBatch, PrivatePart};
pub use chain_log::ChainLog;
pub use disk::{AppendError, Log, LogReader, OpenError, ReadError, SpareReady, SpareTask, Watermark};
pub use files::{CopyFiles, DiskFiles, Files};
pub use head::{HeadSigner, SignedHead};
