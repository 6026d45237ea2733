//! Proves an export offline: needs the file, and nothing of the engine that wrote it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use chain::{Batch, BatchError};
use data_encoding::BASE64URL_NOPAD;
use domain::ids::Hash;
use domain::{Promise, SaleId};

use crate::export::{EXPORT_MAGIC, EXPORT_VERSION, TRAILER};
use crate::receipts::Receipt;
use crate::replay::{Replay, Replayed, Watch};
use crate::report::VerifyReport;
use crate::tally::Claim;

/// The promises that a chain shows without books and without clients.
const SHOWN: [Claim; 6] = [
    Claim::Promise(Promise::Conservation),
    Claim::Promise(Promise::SingleHolder),
    Claim::Promise(Promise::Limit),
    Claim::Promise(Promise::Idempotent),
    Claim::Promise(Promise::Window),
    Claim::Promise(Promise::HonestRefusal),
];

/// Why a file proves nothing at all. Every one is definite.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not an export, or not all of one.
    #[error("this is not a whole export: {0}")]
    NotAnExport(&'static str),
    /// Written by a version with another layout.
    #[error("export format {0} is not known to this version (it knows {EXPORT_VERSION})")]
    Version(u32),
    /// The bytes are not those that were written.
    #[error("the file was changed after it was written: its SHA-256 is not the one at its end")]
    Digest,
    /// A batch cannot be read.
    #[error("batch {number}: {source}")]
    Batch {
        /// Which one, from 0.
        number: u64,
        /// Why.
        source: BatchError,
    },
    /// The first record is not a readable `created`.
    #[error("the chain has no beginning: {0}")]
    NoBeginning(String),
    /// The chain is signed by another key than the one given.
    #[error("the chain is signed by the key {stated}, not by the one given")]
    KeyForeign {
        /// The key that `created` names, base64url.
        stated: String,
    },
    /// A receipt cannot be read.
    #[error("receipt {}: {reason}", .path.display())]
    Receipt {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Proves an export: its bytes, the chain of hashes, every signature, the promises that a chain can show, the slots once their
/// secret is revealed, and `receipts` (JSON files with a receipt or a whole answer).
///
/// `key` is the public key that the sale is known by; without it the key in the chain's first record is taken, which proves only
/// that the chain agrees with itself.
pub fn verify(file: &Path, key: Option<[u8; 32]>, receipts: &[PathBuf]) -> Result<VerifyReport, VerifyError> {
    let bytes = fs::read(file).map_err(|source| VerifyError::Io { path: file.to_owned(), source })?;
    let export = Export::parse(&bytes)?;
    let receipts = receipts
        .iter()
        .map(|path| Receipt::read(path).map_err(|reason| VerifyError::Receipt { path: path.clone(), reason }))
        .collect::<Result<Vec<_>, _>>()?;
    let mut replay = Replay::new(Watch {
        records: receipts.iter().map(|receipt| receipt.position).collect(),
        heads: receipts.iter().map(|receipt| receipt.head.next).collect(),
        ..Watch::default()
    });
    let whole = thread::scope(|scope| {
        let digest = scope.spawn(|| export.digest_holds());
        replay.feed(&export.batches);
        digest.join().expect("hashing does not panic")
    });
    if !whole {
        return Err(VerifyError::Digest);
    }
    conclude(&export, replay.finish(), key, &receipts)
}

fn conclude(
    export: &Export<'_>,
    mut replayed: Replayed,
    key: Option<Hash>,
    receipts: &[Receipt],
) -> Result<VerifyReport, VerifyError> {
    let mut tally = std::mem::take(&mut replayed.tally);
    let Some(model) = replayed.model.take() else {
        let evidence = tally.lines(&[Claim::Chain], &[]).remove("chain").map(|line| line.evidence.join("; "));
        return Err(VerifyError::NoBeginning(evidence.unwrap_or_default()));
    };
    let own = model.signing_key();
    if key.is_some_and(|key| key != own) {
        return Err(VerifyError::KeyForeign { stated: BASE64URL_NOPAD.encode(&own) });
    }
    let end = replayed.end;
    let stated = (export.sale, export.batches.len() as u64, export.records, export.head);
    let found = (replayed.sale.unwrap_or(export.sale), end.batches, end.next, end.head);
    tally.check(Claim::Chain, stated == found && export.name == model.definition.sale, || {
        "the file's header and trailer do not describe the chain between them".to_owned()
    });
    for receipt in receipts {
        receipt.check(&replayed, &model.definition, &own, &mut tally);
    }
    tally.add_same(model.tally);
    let claims = Promise::ALL.map(Claim::Promise);
    let mut proof = vec![Claim::Chain, Claim::Heads, Claim::Slots];
    proof.extend((!receipts.is_empty()).then_some(Claim::Receipts));
    Ok(VerifyReport {
        ok: tally.is_clean(),
        sale: export.name.to_owned(),
        sale_id: export.sale.to_string(),
        key: BASE64URL_NOPAD.encode(&own),
        batches: end.batches,
        records: end.next,
        head: BASE64URL_NOPAD.encode(&end.head),
        promises: tally.lines(&claims, &SHOWN),
        proof: tally.lines(&proof, &[Claim::Chain, Claim::Heads]),
    })
}

/// An export in memory, parsed but not yet believed.
struct Export<'a> {
    sale: SaleId,
    name: &'a str,
    batches: Vec<Batch<'a>>,
    records: u64,
    head: Hash,
    covered: &'a [u8],
    digest: &'a [u8],
}

impl<'a> Export<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, VerifyError> {
        let mut rest = bytes;
        if take::<8>(&mut rest)? != EXPORT_MAGIC {
            return Err(VerifyError::NotAnExport("it begins with other bytes"));
        }
        let version = u32::from_le_bytes(take(&mut rest)?);
        if version != EXPORT_VERSION {
            return Err(VerifyError::Version(version));
        }
        let sale = SaleId(take(&mut rest)?);
        let name = u32::from_le_bytes(take(&mut rest)?) as usize;
        let name = std::str::from_utf8(take_slice(&mut rest, name)?)
            .map_err(|_| VerifyError::NotAnExport("the sale's name is not text"))?;
        let mut batches = Vec::new();
        loop {
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            if length == 0 {
                break;
            }
            let number = batches.len() as u64;
            let batch = Batch::parse(take_slice(&mut rest, length)?);
            batches.push(batch.map_err(|source| VerifyError::Batch { number, source })?);
        }
        if rest.len() != TRAILER {
            return Err(VerifyError::NotAnExport("it has a trailer of the wrong length"));
        }
        let stated = u64::from_le_bytes(take(&mut rest)?);
        let records = u64::from_le_bytes(take(&mut rest)?);
        let head = take(&mut rest)?;
        if stated != batches.len() as u64 {
            return Err(VerifyError::NotAnExport("its trailer counts other batches"));
        }
        Ok(Self { sale, name, batches, records, head, covered: &bytes[..bytes.len() - rest.len()], digest: rest })
    }

    fn digest_holds(&self) -> bool {
        chain::batch::hash(&[self.covered]) == self.digest
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], VerifyError> {
    let (field, after) = rest.split_first_chunk().ok_or(VerifyError::NotAnExport("it ends too soon"))?;
    *rest = after;
    Ok(*field)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], VerifyError> {
    let (field, after) = rest.split_at_checked(length).ok_or(VerifyError::NotAnExport("it ends too soon"))?;
    *rest = after;
    Ok(field)
}
