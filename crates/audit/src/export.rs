//! Writes one sale's chain into a single file that can be proven elsewhere: every batch without its encrypted private parts.
//!
//! `docs/chain-format.md` describes the file. It judges nothing but the order of the batches; judging is what `verify` is for.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use chain::batch::GENESIS_HEAD;
use chain::{Batch, BatchError};
use domain::SaleId;
use domain::ids::Hash;
use serde::Serialize;

use crate::audit::{AuditError, sales_in};
use crate::segments::walk;

/// The first bytes of an export.
pub const EXPORT_MAGIC: [u8; 8] = *b"DBEXPORT";
/// The version of the export's layout.
pub const EXPORT_VERSION: u32 = 1;
/// Bytes of the trailer: counts of batches and records, last head, SHA-256 of everything before it.
pub(crate) const TRAILER: usize = 8 + 8 + 32 + 32;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportSummary {
    /// The shop's name of the sale.
    pub sale: String,
    /// Batches in the file.
    pub batches: u64,
    /// Records in the file.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The head after the last batch, base64url.
    pub head: String,
}

/// Why there is no export. Every one is definite: the target file is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The sale cannot be found.
    #[error(transparent)]
    Sale(AuditError),
    /// There are several sales and none was named.
    #[error("name one of the sales: {}", .0.join(", "))]
    SaleNotNamed(Vec<String>),
    /// The log is damaged; an audit says more.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// A batch cannot be read.
    #[error("the log is damaged: {0}")]
    Batch(#[from] BatchError),
    /// The sale has no record yet.
    #[error("the chain of {0:?} is empty")]
    Empty(String),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the chain of `sale` to `out`, which is replaced only once all of it is written and synced.
///
/// Without a name the folder must hold exactly one sale. May run beside a server; the export then ends where the log did.
pub fn export(data: &Path, sale: Option<&str>, out: &Path) -> Result<ExportSummary, ExportError> {
    let mut sales = sales_in(data, sale).map_err(ExportError::Sale)?;
    let name = match sales.pop() {
        Some(name) if sales.is_empty() => name,
        last => {
            sales.extend(last);
            return Err(ExportError::SaleNotNamed(sales));
        }
    };
    let mut temporary = out.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = write(data, &name, &temporary).and_then(|summary| {
        fs::rename(&temporary, out).map_err(|source| ExportError::Io { path: out.to_owned(), source })?;
        Ok(summary)
    });
    if written.is_err() {
        // Nobody needs half an export; if it cannot be removed either, the first error says why.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(data: &Path, name: &str, path: &Path) -> Result<ExportSummary, ExportError> {
    let io = |source| ExportError::Io { path: path.to_owned(), source };
    let file = File::create(path).map_err(io)?;
    let mut writer = Writer {
        out: BufWriter::with_capacity(1 << 20, file),
        digest: Context::new(&SHA256),
        name,
        sale: None,
        head: GENESIS_HEAD,
        next: 0,
        batches: 0,
        bytes: 0,
    };
    let folder = data.join("sales").join(name);
    let mut failed = None;
    let damage = walk(&folder, &mut |batches| {
        for batch in batches {
            if failed.is_none() {
                failed = writer.batch(batch).map_err(|error| error.at(path)).err();
            }
        }
    })
    .map_err(|source| ExportError::Io { path: folder, source })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(damage) = damage {
        return Err(ExportError::Damaged(damage));
    }
    if writer.sale.is_none() {
        return Err(ExportError::Empty(name.to_owned()));
    }
    writer.finish().map_err(io)
}

enum WriteError {
    Io(io::Error),
    Other(ExportError),
}

impl WriteError {
    fn at(self, path: &Path) -> ExportError {
        match self {
            Self::Io(source) => ExportError::Io { path: path.to_owned(), source },
            Self::Other(error) => error,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Writer<'a> {
    out: BufWriter<File>,
    digest: Context,
    name: &'a str,
    sale: Option<SaleId>,
    head: Hash,
    next: u64,
    batches: u64,
    bytes: u64,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn batch(&mut self, batch: &Batch<'_>) -> Result<(), WriteError> {
        let header = &batch.header;
        if self.batches > 0 && (header.next(), batch.head.head) == (self.next, self.head) {
            // The last batch again: a server that starts copies its frame into the next segment.
            return Ok(());
        }
        if (header.first, batch.previous) != (self.next, self.head) {
            let line = format!("the batch at record {} does not continue the chain", header.first);
            return Err(WriteError::Other(ExportError::Damaged(line)));
        }
        if self.sale.is_none() {
            self.sale = Some(header.sale);
            self.put(&EXPORT_MAGIC)?;
            self.put(&EXPORT_VERSION.to_le_bytes())?;
            self.put(&header.sale.0)?;
            self.put(&(self.name.len() as u32).to_le_bytes())?;
            self.put(self.name.as_bytes())?;
        }
        let bytes = batch.without_private_parts().map_err(|error| WriteError::Other(error.into()))?;
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(&bytes)?;
        (self.next, self.head) = (header.next(), batch.head.head);
        self.batches += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<ExportSummary> {
        let (batches, records, head) = (self.batches, self.next, self.head);
        self.put(&0u32.to_le_bytes())?;
        self.put(&batches.to_le_bytes())?;
        self.put(&records.to_le_bytes())?;
        self.put(&head)?;
        let digest = self.digest.clone().finish();
        self.put(digest.as_ref())?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(ExportSummary {
            sale: self.name.to_owned(),
            batches,
            records,
            bytes: self.bytes,
            head: data_encoding::BASE64URL_NOPAD.encode(&head),
        })
    }
}
