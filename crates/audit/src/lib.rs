//! The outside reader: proves the promises from the log's bytes, the books' rows and the clients' notes.
//!
//! It shares the parsers of frames, batches and records with the writer and nothing else: the rules that a sale has to keep are
//! written here a second time, on purpose, so that a mistake in the engine is not repeated by its judge. It only reads, takes no
//! lock and may run beside a server that is writing.

mod audit;
mod books;
mod export;
mod model;
mod notes;
mod prove;
mod receipts;
mod replay;
mod report;
mod segments;
mod services;
mod tally;
mod verify;

pub use audit::{AuditError, audit};
pub use export::{EXPORT_MAGIC, EXPORT_VERSION, ExportError, ExportSummary, export};
pub use report::{AuditReport, PromiseReport, SaleReport, Status, VerifyReport};
pub use verify::{VerifyError, verify};
