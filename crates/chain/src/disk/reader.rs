//! Readers of a log: by files only, without a lock, in the writer's process or another. They follow a writer that appends, goes on
//! in new segments or was started again, and they never change a file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::SaleId;

use super::ReadError;
use super::cursor::Cursor;
use super::segment::{SealError, read_seal, segment_path};
use crate::batch::Batch;
use crate::files::Files;
use crate::frame::{FrameHeader, FrameKind, Seal};

/// Bytes of a segment between two entries of the index that random reads build up.
const INDEX_STEP_BYTES: u64 = 256 * 1024;

/// Reads the batches of a log in order, or one by record number.
pub struct LogReader {
    files: Arc<dyn Files>,
    folder: PathBuf,
    /// The first frames of all segments met so far; segment n is at n - 1.
    seals: Vec<(FrameHeader, Seal)>,
    cursor: Cursor,
    /// Number of the first record that has not been given out or passed by a seek.
    next: u64,
    /// Per segment: some of its frames in order, for random reads.
    index: BTreeMap<u32, Vec<IndexEntry>>,
}

#[derive(Clone, Copy)]
struct IndexEntry {
    /// Number of the first record in or behind the frame.
    next: u64,
    offset: u64,
    frame_number: u64,
}

enum Step {
    /// A batch was read.
    Batch(Vec<u8>),
    /// A batch stands there but goes beyond what may be read.
    Beyond,
    /// The cursor moved without a batch.
    Passed,
    /// Nothing is readable there, and no segment follows.
    End,
}

impl LogReader {
    /// A reader at record 0.
    pub fn open(files: Arc<dyn Files>, folder: &Path) -> Result<Self, ReadError> {
        let seal = seal_of(files.as_ref(), folder, 1)?.ok_or_else(|| ReadError::Missing(folder.to_owned()))?;
        let cursor = Cursor::open(files.as_ref(), folder, &seal.0)?;
        Ok(Self { files, folder: folder.to_owned(), seals: vec![seal], cursor, next: 0, index: BTreeMap::new() })
    }

    /// Whose log.
    pub fn sale(&self) -> SaleId {
        self.seals[0].1.sale
    }

    /// Number of the first record of the batch that is read next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Moves to the batch that contains `record`; to the log's end when it does not reach so far.
    pub fn seek(&mut self, record: u64) -> Result<(), ReadError> {
        let mut cursor = self.cursor_near(record)?;
        self.advance(&mut cursor, record)?;
        self.next = cursor.next;
        self.cursor = cursor;
        Ok(())
    }

    /// The bytes of the next batch, if all of it is below `durable_next`, the writer's watermark; `None` when there is none.
    pub fn next_batch(&mut self, durable_next: u64) -> Result<Option<Vec<u8>>, ReadError> {
        while self.next < durable_next {
            match self.step(durable_next)? {
                Step::Batch(bytes) => return Ok(Some(bytes)),
                Step::Beyond => return Ok(None),
                Step::Passed => {}
                // What is durable was written, and its segment named, before the watermark rose: no race explains this.
                Step::End => {
                    return Err(self
                        .cursor
                        .damaged(format!("record {} should be here but is not readable", self.next)));
                }
            }
        }
        Ok(None)
    }

    /// The bytes of the next batch that is whole, whether or not it is known to be durable, up to the log's last: for an auditor
    /// without a watermark. Damage before the last frame is an error here too, by the rule that the writer opens by.
    pub fn next_readable(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let mut traced = false;
        loop {
            match self.step(u64::MAX)? {
                Step::Batch(bytes) => return Ok(Some(bytes)),
                Step::Passed => traced = false,
                Step::Beyond => return Ok(None),
                // A frame behind this place is damage, unless a writer put both there while we looked.
                Step::End if traced => {
                    return Err(self.cursor.damaged("a later frame shows that a frame here was durable"));
                }
                Step::End => match self.cursor.is_traced()? {
                    true => traced = true,
                    false => return Ok(None),
                },
            }
        }
    }

    /// The bytes of the batch with that record; `None` when the log does not reach it. Does not move the reader. The first read in
    /// a segment looks through it (milliseconds), later ones look through 256 KiB.
    pub fn batch_containing(&mut self, record: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let mut cursor = self.cursor_near(record)?;
        self.advance(&mut cursor, record)?;
        match cursor.frame()? {
            Some(frame) => Ok(Some(cursor.payload(&frame).to_vec())),
            None if (cursor.segment as usize) < self.seals.len() => {
                Err(cursor.damaged("the next segment says that a frame here was durable"))
            }
            None => Ok(None),
        }
    }

    fn step(&mut self, below: u64) -> Result<Step, ReadError> {
        let Some(frame) = self.cursor.frame()? else { return self.follow() };
        match frame.kind {
            FrameKind::Segment => Err(self.cursor.damaged("a seal stands inside the segment")),
            FrameKind::Empty => {
                self.cursor.pass(&frame);
                Ok(Step::Passed)
            }
            FrameKind::Batch if frame.next > below => Ok(Step::Beyond),
            FrameKind::Batch => {
                let payload = self.cursor.payload(&frame);
                let batch = Batch::parse(payload).map_err(|error| self.cursor.damaged(error.to_string()))?;
                let (first, next) = (batch.header.first, batch.header.next());
                // A tail that was read before the writer was started again and copied it.
                if next <= self.next {
                    self.cursor.pass(&frame);
                    return Ok(Step::Passed);
                }
                if first != self.next || next != frame.next {
                    return Err(self
                        .cursor
                        .damaged(format!("the batch begins at record {first}, not at {}", self.next)));
                }
                let bytes = payload.to_vec();
                self.cursor.pass(&frame);
                self.next = next;
                Ok(Step::Batch(bytes))
            }
        }
    }

    /// Nothing is readable at the cursor: goes on in the next segment if the current one is sealed here or before.
    fn follow(&mut self) -> Result<Step, ReadError> {
        let number = self.cursor.segment + 1;
        let Some((header, seal)) = self.seal(number)? else { return Ok(Step::End) };
        if seal.end > self.cursor.offset {
            // It was written and sealed after we looked; else a second look finds the same and the caller gives up.
            return match self.cursor.frame()? {
                Some(_) => Ok(Step::Passed),
                None => Err(self.cursor.damaged("the next segment says that a frame here was durable")),
            };
        }
        self.cursor = Cursor::open(self.files.as_ref(), &self.folder, &header)?;
        Ok(Step::Passed)
    }

    /// A cursor at or before the batch with that record, as near as the index knows.
    fn cursor_near(&mut self, record: u64) -> Result<Cursor, ReadError> {
        while self.seal(self.seals.len() as u32 + 1)?.is_some() {}
        // A segment's first record is no smaller than that of the one before it; several may begin at the same, the last has it.
        let number = self.seals.partition_point(|(_, seal)| seal.first <= record).max(1);
        let mut cursor = Cursor::open(self.files.as_ref(), &self.folder, &self.seals[number - 1].0)?;
        let entries = self.index.get(&cursor.segment).map_or(&[][..], |entries| entries);
        if let Some(entry) = entries[..entries.partition_point(|entry| entry.next <= record)].last() {
            (cursor.next, cursor.offset, cursor.frame_number) = (entry.next, entry.offset, entry.frame_number);
        }
        Ok(cursor)
    }

    /// Passes the frames of the cursor's segment that end before or with `record`, adding to the index.
    fn advance(&mut self, cursor: &mut Cursor, record: u64) -> Result<(), ReadError> {
        let entries = self.index.entry(cursor.segment).or_default();
        while let Some(frame) = cursor.frame()? {
            if frame.kind == FrameKind::Batch && frame.next > record {
                break;
            }
            cursor.pass(&frame);
            if entries.last().map_or(0, |entry| entry.offset) + INDEX_STEP_BYTES <= cursor.offset {
                entries.push(IndexEntry {
                    next: cursor.next,
                    offset: cursor.offset,
                    frame_number: cursor.frame_number,
                });
            }
        }
        Ok(())
    }

    /// The first frame of that segment, at most one behind the last one known; `None` while there is no such segment.
    fn seal(&mut self, number: u32) -> Result<Option<(FrameHeader, Seal)>, ReadError> {
        if let Some(seal) = self.seals.get(number as usize - 1) {
            return Ok(Some(*seal));
        }
        let seal = seal_of(self.files.as_ref(), &self.folder, number)?;
        self.seals.extend(seal);
        Ok(seal)
    }
}

fn seal_of(files: &dyn Files, folder: &Path, number: u32) -> Result<Option<(FrameHeader, Seal)>, ReadError> {
    let path = segment_path(folder, number);
    match read_seal(files, folder, number) {
        Ok(found) => Ok(Some(found)),
        Err(SealError::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(SealError::Io(error)) => Err(ReadError::io(&path)(error)),
        Err(error @ (SealError::Version(_) | SealError::Damaged(_))) => {
            Err(ReadError::damaged(&path, 0, error.to_string()))
        }
    }
}
