//! The log on disk: one folder per sale, one writer, any number of readers.
//!
//! ```text
//! LOCK               flocked by the writer
//! 00000001.segment   frames, zeros behind them; sealed by the header of the next segment
//! 00000002.segment
//! spare              zeros, to become the next segment
//! ```
//!
//! A batch is one frame, written and synced before `append` returns, so at most one frame is not durable at any time. A frame is
//! *named* when something behind it says that it is durable: a later frame, or the seal in the next segment's header. On open only
//! the last frame may be missing or torn, and only when nothing names it; any other damage refuses to start. Every open goes on in
//! a new segment: what the old one holds behind its seal, a torn frame say, is never written over and never read again.

mod cursor;
mod error;
mod log;
mod open;
mod reader;
mod recovery;
mod segment;
mod spare;
mod watermark;

pub use error::{AppendError, OpenError, ReadError};
pub use log::Log;
pub use reader::LogReader;
pub use spare::{SpareReady, SpareTask};
pub use watermark::Watermark;
