//! What can go wrong with a log, each error saying whether anything was written.

use std::io;
use std::path::{Path, PathBuf};

use domain::SaleId;

/// Why a log did not open. Nothing that was durable has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, writes this log.
    #[error("the log in {} is in use by another process; stop that one first", .0.display())]
    Locked(PathBuf),
    /// There is no log in the folder.
    #[error("there is no log in {}", .0.display())]
    Missing(PathBuf),
    /// There is a log in the folder already.
    #[error("there is a log in {} already", .0.display())]
    Exists(PathBuf),
    /// Written by a newer version; this one must not touch it.
    #[error("{} at offset {offset}: {what}; run the version that wrote it, or a newer one", .file.display())]
    Format {
        /// The segment file.
        file: PathBuf,
        /// Bytes from its start.
        offset: u64,
        /// Which format was met.
        what: String,
    },
    /// Bytes that were durable have changed. Never repaired by cutting, since answers may rest on them.
    #[error(
        "{} is damaged at offset {offset}: {what}; nothing was changed: copy the folder away, check the disk, and restore this file from a backup",
        .file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Bytes from its start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log belongs to another sale.
    #[error("the log in {} belongs to sale {found}, not to sale {expected}", .folder.display())]
    OtherSale {
        /// The folder.
        folder: PathBuf,
        /// Whose log was asked for.
        expected: SaleId,
        /// Whose it is.
        found: SaleId,
    },
    /// The log is whole but its reader refused a batch.
    #[error("the batch at record {first} in {} cannot be replayed: {reason}", .file.display())]
    Replay {
        /// The segment file.
        file: PathBuf,
        /// The batch's first record.
        first: u64,
        /// What the reader said.
        reason: String,
    },
    /// A file operation failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what: what.into() }
    }

    /// For `map_err`: the operation on `path` failed.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Definite: nothing was written. No segment has room and no new one could be made; the log can be used on, and this batch tried again.
    #[error("the log has no room and cannot grow: {0}")]
    Full(#[source] io::Error),
    /// Unknown: the write or its sync failed, so the batch may or may not be there after a restart. The log is stopped.
    #[error("the log cannot tell whether its last write is durable: {0}")]
    Unknown(#[source] io::Error),
    /// Definite: nothing was written, since an earlier write failed and the log is stopped until it is opened again.
    #[error("the log has stopped after a failed write")]
    Stopped,
}

/// Why a reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no log in the folder.
    #[error("there is no log in {}", .0.display())]
    Missing(PathBuf),
    /// Bytes that must be readable are not.
    #[error("{} is damaged at offset {offset}: {what}", .file.display())]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Bytes from its start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file operation failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ReadError {
    pub(super) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what: what.into() }
    }

    /// For `map_err`: the operation on `path` failed.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
