//! What an owner needs of the place where its chain is kept: a log on its own disk, or a stream that several machines keep.

use std::sync::Arc;

use domain::SaleId;
use domain::ids::Hash;

use crate::batch::EncodedBatch;
use crate::disk::{AppendError, Watermark};

/// The end of a chain, and the one way to go on.
pub trait ChainLog: Send {
    /// Whose chain.
    fn sale(&self) -> SaleId;
    /// Number of the next record.
    fn next(&self) -> u64;
    /// The head that the next batch extends.
    fn head(&self) -> Hash;
    /// Appends a batch; it is durable, and the watermark raised, when this returns `Ok`. After [`AppendError::Full`] nothing was
    /// written; after any other error the batch may be durable, and nothing may be appended here any more.
    fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError>;
    /// How far the chain is durable.
    fn watermark(&self) -> Arc<Watermark>;
}
