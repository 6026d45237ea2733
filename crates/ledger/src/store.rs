//! How SQLite files are opened, checked and versioned, and why a store cannot be used. It knows no table of theirs.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Versions before this one can lose a committed write when the write-ahead log is reset (sqlite.org/wal.html, "WAL reset bug").
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// How long a statement waits for another connection's lock.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Why a store cannot be used. Nothing has been written where it says so; `Failed`, `Full` and `Unreachable` at a commit leave the
/// outcome unknown, and every write of this crate is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The linked SQLite has a known fault. Definite.
    #[error("the linked SQLite {0} can lose committed data; 3.51.3 or later is needed")]
    SqliteOutdated(String),
    /// The database server may lose what it has committed. Definite, nothing written.
    #[error("the server can lose committed data: {0}")]
    NotDurable(String),
    /// The store belongs to a newer version of the program. Definite, nothing written.
    #[error("written by a newer version (schema {found}; this version knows up to {known}); nothing was changed")]
    Newer {
        /// The file's schema version.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// The file is not a database, or the store's content contradicts itself. Definite.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The file, its folder or the database cannot be opened or written. Definite.
    #[error("cannot be opened or written: {0}")]
    Unwritable(String),
    /// No space is left. Nothing of the transaction is kept.
    #[error("no space is left on the disk")]
    Full,
    /// Somebody else holds the file, or went before too many times. Definite for this attempt.
    #[error("held by another process")]
    Busy,
    /// The database server cannot be reached, ended the work or took too long; unknown when it happens at a commit.
    #[error("the database server does not answer: {0}")]
    Unreachable(String),
    /// Anything else, as the database tells it; unknown when it happens at a commit.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody repairing the store.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full | Self::Busy | Self::Unreachable(_) | Self::Failed(_) | Self::Unwritable(_) => true,
            Self::SqliteOutdated(_) | Self::NotDurable(_) | Self::Newer { .. } | Self::Damaged(_) => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Unwritable(error.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..) => Self::Damaged(error.to_string()),
                other => Self::Failed(other.to_string()),
            },
        }
    }
}

/// What a store must look like.
pub struct Schema {
    /// The newest version that this program knows; stands in `PRAGMA user_version`.
    pub version: i64,
    /// The statements that make an empty or an older file that version.
    pub sql: &'static str,
    /// `NORMAL` or `FULL`, for `PRAGMA synchronous`.
    pub synchronous: &'static str,
    /// Pages of 4 KiB in the write-ahead log before they are moved into the file; scattered writes gain from many.
    pub checkpoint_pages: u32,
}

/// Opens or creates the file for writing.
pub fn open(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    check_version(&connection, schema)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unwritable(format!("the file system allows no write-ahead log (mode {mode})")));
    }
    prepare(connection, schema)
}

/// Opens an existing file for reading only.
pub(crate) fn open_reader(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    check_version(&connection, schema)?;
    connection.busy_timeout(BUSY_WAIT)?;
    Ok(connection)
}

/// A store that lives in memory, for the simulator; from the bytes of an earlier one where given.
pub(crate) fn open_in_memory(schema: &Schema, bytes: Option<&[u8]>) -> Result<Connection, StoreError> {
    let mut connection = Connection::open_in_memory()?;
    if let Some(bytes) = bytes {
        connection.deserialize_read_exact("main", bytes, bytes.len(), false)?;
    }
    check_version(&connection, schema)?;
    prepare(connection, schema)
}

/// Refuses an outdated SQLite and a newer file before anything is written.
fn check_version(connection: &Connection, schema: &Schema) -> Result<i64, StoreError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(StoreError::SqliteOutdated(rusqlite::version().to_owned()));
    }
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > schema.version {
        return Err(StoreError::Newer { found, known: schema.version });
    }
    Ok(found)
}

fn prepare(mut connection: Connection, schema: &Schema) -> Result<Connection, StoreError> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "synchronous", schema.synchronous)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", schema.checkpoint_pages)?;
    // Kibibytes when negative: enough for the right edge of every sale's rows.
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if check_version(&transaction, schema)? < schema.version {
        transaction.execute_batch(schema.sql)?;
        transaction.pragma_update(None, "user_version", schema.version)?;
    }
    transaction.commit()?;
    Ok(connection)
}
