//! Opening a log: what is on disk is checked in full, and then made durable before anyone relies on it.
//!
//! Nothing is changed before every check has passed. Then the log goes on in a new segment that seals the old one before its last
//! frame, the only one that may not be durable, and carries a copy of the batch in it. So it does not matter what the disk kept of
//! that frame, or whether a failed sync left it in memory only.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use domain::SaleId;

use super::OpenError;
use super::log::{Log, Position};
use super::recovery::{Recovered, recover};
use super::segment::{
    SEGMENT_BYTES_IN_HASTE, SEGMENT_BYTES_MIN, UNFINISHED_FILE, encode_seal, segment_number, segment_path,
};
use super::spare::{SPARE_FILE, SPARE_UNFINISHED_FILE, create_filled};
use crate::batch::Batch;
use crate::files::{File, Files, FolderLock};
use crate::frame::{BLOCK, FrameHeader, FrameKind, Seal, encode_frame};

/// See [`Log::create`].
pub(super) fn create(files: Arc<dyn Files>, folder: &Path, sale: SaleId) -> Result<Log, OpenError> {
    files.create_folder(folder).map_err(OpenError::io(folder))?;
    let lock = lock(files.as_ref(), folder)?;
    let names = files.list(folder).map_err(OpenError::io(folder))?;
    if names.iter().any(|name| segment_number(name).is_some()) {
        return Err(OpenError::Exists(folder.to_owned()));
    }
    let start = Position::start();
    let recovered = Recovered { sale, at: start, seal_at: start, tail: None, longer_than_sealed: Vec::new() };
    go_on(files, folder, lock, &names, recovered)
}

/// See [`Log::open`].
pub(super) fn open(
    files: Arc<dyn Files>,
    folder: &Path,
    expect: Option<SaleId>,
    replay: &mut dyn FnMut(&Batch<'_>) -> Result<(), String>,
) -> Result<Log, OpenError> {
    let lock = lock(files.as_ref(), folder)?;
    let names = files.list(folder).map_err(OpenError::io(folder))?;
    let recovered = recover(files.as_ref(), folder, &names, expect, replay)?;
    go_on(files, folder, lock, &names, recovered)
}

fn lock(files: &dyn Files, folder: &Path) -> Result<FolderLock, OpenError> {
    files.lock(folder).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => OpenError::Locked(folder.to_owned()),
        ErrorKind::NotFound => OpenError::Missing(folder.to_owned()),
        _ => OpenError::io(folder)(error),
    })
}

/// Begins the segment in which the log goes on. From here on files are changed.
fn go_on(
    files: Arc<dyn Files>,
    folder: &Path,
    lock: FolderLock,
    names: &[String],
    recovered: Recovered,
) -> Result<Log, OpenError> {
    let (content, at) = first_frames(&recovered);
    // The reserve of a spare's size is enough for any tail, so the two cases of a small and a large tail need no third size.
    let length = if content.len() as u64 <= SEGMENT_BYTES_MIN / 2 { SEGMENT_BYTES_MIN } else { SEGMENT_BYTES_IN_HASTE };
    let mut spare_length = find_spare(files.as_ref(), folder, names)?;
    let path = folder.join(UNFINISHED_FILE);
    let made = match create_filled(files.as_ref(), &path, length) {
        Ok(file) => (file, length),
        Err(error) => match spare_length.take() {
            // The disk is full: what the spare is kept for.
            Some(length) => (take_spare(files.as_ref(), folder, &path).map_err(OpenError::io(&path))?, length),
            None => return Err(OpenError::io(&path)(error)),
        },
    };
    let begun = made.0.write_at(&content, 0).and_then(|()| made.0.sync_data());
    begun.map_err(OpenError::io(&path))?;
    let segment = segment_path(folder, at.segment);
    files.rename(&path, &segment).map_err(OpenError::io(&segment))?;
    files.sync_folder(folder).map_err(OpenError::io(folder))?;
    // The new seal is durable: what the old segments hold behind theirs is never read again.
    for (number, end) in recovered.longer_than_sealed {
        let path = segment_path(folder, number);
        let cut = files.open(&path, true).and_then(|file| file.truncate(end));
        if let Err(error) = cut {
            tracing::warn!(file = %path.display(), %error, "the unused end of a segment could not be given back");
        }
    }
    Ok(Log::at_position(files, folder, lock, recovered.sale, made, at, spare_length))
}

/// The frames that the new segment begins with, and where the log stands behind them: the seal, and the tail with an empty frame
/// that names it, for all of them are synced before the segment has its name.
fn first_frames(recovered: &Recovered) -> (Vec<u8>, Position) {
    let before = &recovered.seal_at;
    let seal = Seal {
        sale: recovered.sale,
        predecessor: before.segment,
        end: before.offset,
        first: before.next,
        head: before.head,
    };
    let mut at = Position { segment: before.segment + 1, offset: BLOCK as u64, ..recovered.at };
    let mut content = Vec::new();
    encode_seal(&seal, before.frame, &mut content);
    at.frame = before.frame;
    if let Some(tail) = &recovered.tail {
        for (kind, payload) in [(FrameKind::Batch, &tail[..]), (FrameKind::Empty, &[][..])] {
            let header = FrameHeader {
                kind,
                segment: at.segment,
                partition: 0,
                offset: at.offset,
                next: at.next,
                number: at.frame,
                durable_through: at.frame,
                payload: payload.len() as u32,
            };
            let mut frame = Vec::new();
            encode_frame(&header, payload, &mut frame);
            content.extend(&frame);
            at.offset += frame.len() as u64;
            at.frame += 1;
        }
    }
    (content, at)
}

/// The length of the spare that an earlier run left. A spare in the making is removed.
fn find_spare(files: &dyn Files, folder: &Path, names: &[String]) -> Result<Option<u64>, OpenError> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let unfinished = folder.join(SPARE_UNFINISHED_FILE);
    if has(SPARE_UNFINISHED_FILE) {
        files.remove(&unfinished).map_err(OpenError::io(&unfinished))?;
    }
    let spare = folder.join(SPARE_FILE);
    if !has(SPARE_FILE) {
        return Ok(None);
    }
    let length = files.open(&spare, false).and_then(|file| file.length()).map_err(OpenError::io(&spare))?;
    Ok((length >= SEGMENT_BYTES_IN_HASTE).then_some(length))
}

/// Turns the spare into the segment in the making. Its new name is durable before anything but a seal is written into it, so a
/// file called `spare` never holds more than a seal, which the next use writes over.
fn take_spare(files: &dyn Files, folder: &Path, to: &Path) -> std::io::Result<Box<dyn File>> {
    files.rename(&folder.join(SPARE_FILE), to)?;
    files.sync_folder(folder)?;
    files.open(to, true)
}
