//! The books in memory: they follow at their own pace, lose their last transactions in a crash, or are deleted.

use std::path::Path;
use std::sync::Arc;

use chain::{Files, LogReader};
use ledger::{Books, step};

use crate::plan::Weather;

/// The sale's name.
pub(crate) const SALE: &str = "drop";

/// The books, their reader, and an earlier state to fall back to.
pub(crate) struct Bookkeeping {
    books: Option<Books>,
    reader: Option<LogReader>,
    earlier: Option<Vec<u8>>,
}

impl Bookkeeping {
    pub(crate) fn new() -> Self {
        Self { books: None, reader: None, earlier: None }
    }

    /// Applies some of what is durable.
    pub(crate) fn follow(
        &mut self,
        random: &mut fastrand::Rng,
        files: &Arc<dyn Files>,
        folder: &Path,
        durable: u64,
        may_fail: bool,
    ) -> Result<(), String> {
        if random.u8(0..8) == 0
            && let Some(books) = &mut self.books
        {
            self.earlier = Some(books.snapshot().map_err(|error| error.to_string())?);
        }
        let records = random.u64(1..200);
        match self.apply(files, folder, durable, records) {
            Ok(()) => Ok(()),
            Err(_) if may_fail => Ok(()),
            Err(problem) => Err(format!("the books: {problem}")),
        }
    }

    /// Applies everything that is durable.
    pub(crate) fn drain(&mut self, files: &Arc<dyn Files>, folder: &Path, durable: u64) -> Result<&mut Books, String> {
        self.apply(files, folder, durable, u64::MAX)?;
        let (next, _) = self.books()?.offset(SALE).map_err(|error| error.to_string())?;
        if next != durable {
            return Err(format!("the books stop at record {next}, the chain goes on to {durable}"));
        }
        self.books()
    }

    fn books(&mut self) -> Result<&mut Books, String> {
        if self.books.is_none() {
            self.books = Some(Books::in_memory().map_err(|error| error.to_string())?);
        }
        Ok(self.books.as_mut().expect("they were just made"))
    }

    fn apply(&mut self, files: &Arc<dyn Files>, folder: &Path, durable: u64, records: u64) -> Result<(), String> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => LogReader::open(Arc::clone(files), folder).map_err(|error| error.to_string())?,
        };
        let applied = step(self.books()?, &mut reader, SALE, durable, records).map_err(|error| error.to_string())?;
        self.reader = Some(reader);
        if applied.parked > 0 || applied.drift.is_some() {
            return Err(format!("{} records parked, drift: {:?}", applied.parked, applied.drift));
        }
        Ok(())
    }

    /// The process ends, and what was not synced of the books may be gone.
    pub(crate) fn crash(&mut self, random: &mut fastrand::Rng, weather: &Weather) -> Result<(), String> {
        self.reader = None;
        if random.u32(0..1_000) < weather.books_lost {
            let earlier = self.earlier.take().filter(|_| random.u8(0..3) > 0);
            let restored = earlier.map(|bytes| Books::restore(&bytes)).transpose();
            self.books = restored.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
