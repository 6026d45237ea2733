//! The spare segment: prepared beside the writer, taken when the current segment is full.
//!
//! A file called `spare` is complete and durable, since it gets that name only after its last byte was synced.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{File, Files};

/// Bytes written between two syncs while a segment is filled, so that the writer's own sync never waits behind much more.
const STEP_BYTES: u64 = 1 << 20;
/// A complete spare.
pub(super) const SPARE_FILE: &str = "spare";
/// A spare in the making.
pub(super) const SPARE_UNFINISHED_FILE: &str = "spare.unfinished";

/// The order to prepare a spare segment. Run it anywhere, then hand the result to [`super::Log::spare_finished`].
#[derive(Debug)]
pub struct SpareTask {
    pub(super) folder: PathBuf,
    pub(super) length: u64,
}

/// A spare segment that lies ready.
#[derive(Debug)]
pub struct SpareReady {
    pub(super) length: u64,
}

impl SpareTask {
    /// Fills the spare with zeros, syncing after each MiB. On an error nothing is left behind but, at worst, a file that the
    /// next attempt replaces. Must end before the log is opened again.
    pub fn run(&self, files: &dyn Files) -> io::Result<SpareReady> {
        let unfinished = self.folder.join(SPARE_UNFINISHED_FILE);
        create_filled(files, &unfinished, self.length)?;
        files.rename(&unfinished, &self.folder.join(SPARE_FILE))?;
        files.sync_folder(&self.folder)?;
        Ok(SpareReady { length: self.length })
    }
}

/// Creates a file of `length` zeros and syncs it. Written, not just reserved: a write into blocks that hold data already changes
/// no metadata, which makes each later sync about a third cheaper. On an error the file is removed again.
pub(super) fn create_filled(files: &dyn Files, path: &Path, length: u64) -> io::Result<Box<dyn File>> {
    let file = files.create(path)?;
    match fill(file.as_ref(), length) {
        Ok(()) => Ok(file),
        Err(error) => {
            // The space matters more than the reason why it could not be given back; the next attempt replaces the file anyway.
            let _ = files.remove(path);
            Err(error)
        }
    }
}

fn fill(file: &dyn File, length: u64) -> io::Result<()> {
    let zeros = vec![0; STEP_BYTES.min(length) as usize];
    let mut offset = 0;
    while offset < length {
        let step = STEP_BYTES.min(length - offset);
        file.write_at(&zeros[..step as usize], offset)?;
        file.sync_data()?;
        offset += step;
    }
    Ok(())
}
