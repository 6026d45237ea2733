//! What the log's tests share: folders that clean up after themselves, batches, and a log opened with everything it replayed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chain::{BatchBuilder, BatchHeader, DiskFiles, EncodedBatch, HeadSigner, Log, OpenError, PrivatePart};
use domain::ids::Hash;
use domain::{ChainTime, Record, SaleId};

pub(crate) const SALE: SaleId = SaleId([7; 16]);

/// A folder of its own for one test, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("doorbuster-chain-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn segment(&self, number: u32) -> PathBuf {
        self.0.join(format!("{number:08}.segment"))
    }

    pub(crate) fn bytes(&self) -> u64 {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    /// Copies all files but the lock to another folder, as a crash would leave them.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        std::fs::create_dir_all(&copy.0).unwrap();
        for entry in std::fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
        }
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a replayed batch is known by: first record and head.
pub(crate) type Seen = Vec<(u64, Hash)>;

pub(crate) fn create(folder: &Path) -> Log {
    Log::create(Arc::new(DiskFiles), folder, SALE).unwrap()
}

pub(crate) fn try_open(folder: &Path) -> Result<(Log, Seen), OpenError> {
    let mut seen = Vec::new();
    let log = Log::open(Arc::new(DiskFiles), folder, Some(SALE), &mut |batch| {
        seen.push((batch.header.first, batch.head.head));
        Ok(())
    })?;
    Ok((log, seen))
}

pub(crate) fn open(folder: &Path) -> (Log, Seen) {
    try_open(folder).unwrap()
}

/// The next batch of a log: `count` records with `private_bytes` of ciphertext each.
pub(crate) fn batch(log: &Log, count: u32, private_bytes: usize) -> EncodedBatch {
    let header = BatchHeader {
        sale: SALE,
        partition: 0,
        epoch: log.epoch().max(1),
        time: ChainTime(log.time().0 + 1),
        first: log.next(),
        count,
    };
    let mut builder = BatchBuilder::new(header, log.head());
    let private = PrivatePart { commitment: [3; 32], sealed: vec![0xA5; private_bytes] };
    for number in 0..u64::from(count) {
        builder.push(&Record::ClockCredit(log.next() + number), (private_bytes > 0).then_some(&private));
    }
    builder.finish(&HeadSigner::from_seed(&[9; 32]))
}

/// Appends a batch and notes it.
pub(crate) fn append(log: &mut Log, count: u32, private_bytes: usize, seen: &mut Seen) {
    let batch = batch(log, count, private_bytes);
    log.append(&batch).unwrap();
    seen.push((batch.header.first, batch.head.head));
}

/// Prepares the spare that the log wants.
pub(crate) fn make_spare(log: &mut Log) {
    let task = log.spare_wanted().expect("a log without a spare wants one");
    let outcome = task.run(&DiskFiles);
    log.spare_finished(outcome);
    assert!(log.has_spare());
}
