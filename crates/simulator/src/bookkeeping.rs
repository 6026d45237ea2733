//! The books in memory: they follow at their own pace, lose their last transactions in a crash, or are deleted.

use std::path::Path;
use std::sync::Arc;

use chain::{Files, LogReader};
use ledger::{Books, Service, step};

use crate::plan::Weather;

/// The sale's name.
pub(crate) const SALE: &str = "drop";

/// The books, their reader, and an earlier state to fall back to.
pub(crate) struct Bookkeeping {
    books: Option<Books>,
    readers: [Option<LogReader>; Service::ALL.len()],
    earlier: Option<Vec<u8>>,
    /// A service that reads nothing for now.
    pub(crate) stopped: Option<Service>,
}

impl Bookkeeping {
    pub(crate) fn new() -> Self {
        Self { books: None, readers: [const { None }; Service::ALL.len()], earlier: None, stopped: None }
    }

    /// Lets one of the services apply some of what is durable.
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
        // By a number that is drawn already, so that the seeds of earlier versions still lead to the same storms.
        let service = Service::ALL[records as usize % Service::ALL.len()];
        if self.stopped == Some(service) {
            return Ok(());
        }
        match self.apply(service, files, folder, durable, records) {
            Ok(()) => Ok(()),
            Err(_) if may_fail => Ok(()),
            Err(problem) => Err(format!("the books: {problem}")),
        }
    }

    /// Lets every service apply everything that is durable.
    pub(crate) fn drain(&mut self, files: &Arc<dyn Files>, folder: &Path, durable: u64) -> Result<&mut Books, String> {
        for service in Service::ALL {
            self.apply(service, files, folder, durable, u64::MAX)?;
            let (next, _) = self.books()?.offset(service, SALE).map_err(|error| error.to_string())?;
            if next != durable {
                let name = service.name();
                return Err(format!("the {name} service stops at record {next}, the chain goes on to {durable}"));
            }
        }
        self.books()
    }

    fn books(&mut self) -> Result<&mut Books, String> {
        if self.books.is_none() {
            self.books = Some(Books::in_memory().map_err(|error| error.to_string())?);
        }
        Ok(self.books.as_mut().expect("they were just made"))
    }

    fn apply(
        &mut self,
        service: Service,
        files: &Arc<dyn Files>,
        folder: &Path,
        durable: u64,
        records: u64,
    ) -> Result<(), String> {
        let mut reader = match self.readers[service as usize].take() {
            Some(reader) => reader,
            None => LogReader::open(Arc::clone(files), folder).map_err(|error| error.to_string())?,
        };
        let applied =
            step(self.books()?, service, &mut reader, SALE, durable, records).map_err(|error| error.to_string())?;
        self.readers[service as usize] = Some(reader);
        if applied.parked > 0 || applied.drift.is_some() {
            let name = service.name();
            return Err(format!("{name}: {} records parked, drift: {:?}", applied.parked, applied.drift));
        }
        Ok(())
    }

    /// The process ends, and what was not synced of the books may be gone.
    pub(crate) fn crash(&mut self, random: &mut fastrand::Rng, weather: &Weather) -> Result<(), String> {
        self.readers.fill_with(|| None);
        if random.u32(0..1_000) < weather.books_lost {
            let earlier = self.earlier.take().filter(|_| random.u8(0..3) > 0);
            let restored = earlier.map(|bytes| Books::restore(&bytes)).transpose();
            self.books = restored.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
