//! The writer of a log: one frame at a time, durable before anyone is told. It never reads what it wrote and never writes a block
//! twice.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::ids::Hash;
use domain::{ChainTime, SaleId, limits};

use super::segment::{SEGMENT_BYTES_IN_HASTE, SEGMENT_BYTES_MAX, UNFINISHED_FILE, encode_seal, segment_path};
use super::spare::{SPARE_FILE, create_filled};
use super::{AppendError, OpenError, SpareReady, SpareTask, Watermark, open};
use crate::batch::{Batch, EncodedBatch, GENESIS_HEAD};
use crate::chain_log::ChainLog;
use crate::files::{File, Files, FolderLock};
use crate::frame::{BLOCK, FrameHeader, FrameKind, Seal, encode_frame, frame_length};
use crate::head::SignedHead;

/// Where a log stands: behind which frame, record and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the current segment.
    pub(super) segment: u32,
    /// Bytes from its start to the next frame.
    pub(super) offset: u64,
    /// Number of the next frame.
    pub(super) frame: u64,
    /// Number of the next record.
    pub(super) next: u64,
    /// The chain's head before that record.
    pub(super) head: Hash,
    /// Epoch of the last batch.
    pub(super) epoch: u64,
    /// Chain time of the last batch.
    pub(super) time: ChainTime,
    /// The last batch's signed head.
    pub(super) signed: Option<SignedHead>,
}

impl Position {
    /// Before the first segment.
    pub(super) fn start() -> Self {
        Self {
            segment: 0,
            offset: 0,
            frame: 0,
            next: 0,
            head: GENESIS_HEAD,
            epoch: 0,
            time: ChainTime(0),
            signed: None,
        }
    }
}

enum Spare {
    Missing,
    InTheMaking,
    Ready { length: u64 },
}

/// The one writer of a sale's log. Everything is synchronous; one thread owns it. Other processes are kept out by a lock on the
/// folder for as long as it lives.
pub struct Log {
    files: Arc<dyn Files>,
    folder: PathBuf,
    _lock: FolderLock,
    sale: SaleId,
    file: Box<dyn File>,
    segment_length: u64,
    at: Position,
    /// The last frame is a batch, and nothing behind it says that it is durable.
    tail_is_unnamed: bool,
    /// A write or a sync failed. What is on disk is unknown, so nothing may be written behind it.
    stopped: bool,
    spare: Spare,
    watermark: Arc<Watermark>,
    /// The frame being written; kept for its allocation.
    frame: Vec<u8>,
}

impl Log {
    /// Creates an empty log for `sale` in `folder`, which is created too. A crash on the way leaves a folder without a log, in
    /// which `create` works again.
    pub fn create(files: Arc<dyn Files>, folder: &Path, sale: SaleId) -> Result<Self, OpenError> {
        open::create(files, folder, sale)
    }

    /// Opens the log and gives every batch in order to `replay`, checked in full: frames, order, head against head, and the hash of
    /// every record. The hashes are checked beside the replay, so what `replay` built counts only when `open` returns `Ok`.
    /// `expect` refuses the log of another sale. When it returns, everything that was replayed is durable.
    pub fn open(
        files: Arc<dyn Files>,
        folder: &Path,
        expect: Option<SaleId>,
        replay: &mut dyn FnMut(&Batch<'_>) -> Result<(), String>,
    ) -> Result<Self, OpenError> {
        open::open(files, folder, expect, replay)
    }

    /// A log that stands at `at` in the open segment `file` of `segment_length` bytes, everything before it durable and named.
    pub(super) fn at_position(
        files: Arc<dyn Files>,
        folder: &Path,
        lock: FolderLock,
        sale: SaleId,
        (file, segment_length): (Box<dyn File>, u64),
        at: Position,
        spare_length: Option<u64>,
    ) -> Self {
        Self {
            files,
            folder: folder.to_owned(),
            _lock: lock,
            sale,
            file,
            segment_length,
            at,
            tail_is_unnamed: false,
            stopped: false,
            spare: spare_length.map_or(Spare::Missing, |length| Spare::Ready { length }),
            watermark: Arc::new(Watermark::new(at.next)),
            frame: Vec::new(),
        }
    }

    /// Appends a batch; it is durable, and the watermark raised, when this returns `Ok`. After [`AppendError::Full`] the log stands
    /// as before; after [`AppendError::Unknown`] it is stopped and only opening it again tells what became of the batch.
    ///
    /// # Panics
    /// When the batch does not continue this log or is larger than [`limits::BATCH_BYTES_MAX`]: the caller has lost its place.
    pub fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        let header = &batch.header;
        assert_eq!((header.sale, header.partition), (self.sale, 0), "a batch belongs to its log's sale");
        assert_eq!(header.first, self.at.next, "record numbers are gapless");
        assert_eq!(batch.previous, self.at.head, "a batch extends the log's head");
        assert!(header.epoch >= self.at.epoch && header.time >= self.at.time, "epoch and time do not go back");
        assert!(batch.bytes.len() <= limits::BATCH_BYTES_MAX, "a batch outgrew its bound");
        // An empty frame must still fit behind the batch, so that settling the tail never needs a new segment.
        if self.at.offset + (frame_length(batch.bytes.len()) + BLOCK) as u64 > self.segment_length {
            self.roll()?;
        }
        self.write_frame(FrameKind::Batch, header.next(), &batch.bytes)?;
        self.tail_is_unnamed = true;
        self.at.next = header.next();
        self.at.head = batch.head.head;
        self.at.epoch = header.epoch;
        self.at.time = header.time;
        self.at.signed = Some(batch.head);
        self.watermark.publish(self.at.next);
        Ok(())
    }

    /// Call after 10 ms without an append: names the last batch as durable, unless something names it already, so that later
    /// damage to it is noticed rather than taken for a torn write.
    pub fn settle_tail(&mut self) -> Result<(), AppendError> {
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        if self.tail_is_unnamed {
            self.write_frame(FrameKind::Empty, self.at.next, &[])?;
            self.tail_is_unnamed = false;
        }
        Ok(())
    }

    /// The spare segment to prepare, if none is ready or in the making. The first call is the caller's to time: planned sales
    /// should not take disk space before their passes open.
    pub fn spare_wanted(&mut self) -> Option<SpareTask> {
        match self.spare {
            Spare::InTheMaking | Spare::Ready { .. } => None,
            Spare::Missing => {
                self.spare = Spare::InTheMaking;
                let length = (self.segment_length * 2).clamp(SEGMENT_BYTES_IN_HASTE, SEGMENT_BYTES_MAX);
                Some(SpareTask { folder: self.folder.clone(), length })
            }
        }
    }

    /// Takes the outcome of the [`SpareTask`]. After an error `spare_wanted` asks again.
    pub fn spare_finished(&mut self, outcome: io::Result<SpareReady>) {
        self.spare = match outcome {
            Ok(ready) => Spare::Ready { length: ready.length },
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "no spare segment could be made");
                Spare::Missing
            }
        };
    }

    /// Whether a spare segment lies ready. Without one purchases must pause, so that payments and releases keep the room that is left.
    pub fn has_spare(&self) -> bool {
        matches!(self.spare, Spare::Ready { .. })
    }

    /// Whose log.
    pub fn sale(&self) -> SaleId {
        self.sale
    }

    /// The chain's head: what the next batch extends.
    pub fn head(&self) -> Hash {
        self.at.head
    }

    /// Number of the next record.
    pub fn next(&self) -> u64 {
        self.at.next
    }

    /// Epoch of the last batch, 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.at.epoch
    }

    /// Chain time of the last batch, 0 before the first.
    pub fn time(&self) -> ChainTime {
        self.at.time
    }

    /// The signed head of the last batch.
    pub fn last_signed_head(&self) -> Option<SignedHead> {
        self.at.signed
    }

    /// The durable end, raised by every append; readers wait on it.
    pub fn watermark(&self) -> Arc<Watermark> {
        self.watermark.clone()
    }

    /// Writes one frame behind the last and syncs it.
    fn write_frame(&mut self, kind: FrameKind, next: u64, payload: &[u8]) -> Result<(), AppendError> {
        let header = FrameHeader {
            kind,
            segment: self.at.segment,
            partition: 0,
            offset: self.at.offset,
            next,
            number: self.at.frame,
            // Every earlier frame was synced before this one is written.
            durable_through: self.at.frame,
            payload: payload.len() as u32,
        };
        encode_frame(&header, payload, &mut self.frame);
        assert!(self.at.offset + self.frame.len() as u64 <= self.segment_length, "a frame lies inside its segment");
        let outcome = self.file.write_at(&self.frame, self.at.offset).and_then(|()| self.file.sync_data());
        self.stop_on_error(outcome)?;
        self.at.offset += self.frame.len() as u64;
        self.at.frame += 1;
        Ok(())
    }

    /// Goes on in a new segment, whose first frame seals the current one.
    fn roll(&mut self) -> Result<(), AppendError> {
        let (made, file, length) = self.next_segment_file().map_err(AppendError::Full)?;
        let seal = Seal {
            sale: self.sale,
            predecessor: self.at.segment,
            end: self.at.offset,
            first: self.at.next,
            head: self.at.head,
        };
        encode_seal(&seal, self.at.frame, &mut self.frame);
        let outcome = self.begin_segment(&made, file.as_ref());
        self.stop_on_error(outcome)?;
        self.file = file;
        self.segment_length = length;
        self.at.segment += 1;
        self.at.offset = BLOCK as u64;
        self.tail_is_unnamed = false;
        Ok(())
    }

    /// A file of zeros for the next segment: the spare, else one made on the spot. Nothing of the log has changed when it fails.
    fn next_segment_file(&mut self) -> io::Result<(PathBuf, Box<dyn File>, u64)> {
        if let Spare::Ready { length } = self.spare {
            let path = self.folder.join(SPARE_FILE);
            let file = self.files.open(&path, true)?;
            self.spare = Spare::Missing;
            return Ok((path, file, length));
        }
        let path = self.folder.join(UNFINISHED_FILE);
        let file = create_filled(self.files.as_ref(), &path, SEGMENT_BYTES_IN_HASTE)?;
        Ok((path, file, SEGMENT_BYTES_IN_HASTE))
    }

    /// The seal must be durable before the file has a segment's name, and the name before the first batch is written behind it.
    fn begin_segment(&self, made: &Path, file: &dyn File) -> io::Result<()> {
        file.write_at(&self.frame, 0)?;
        file.sync_data()?;
        self.files.rename(made, &segment_path(&self.folder, self.at.segment + 1))?;
        self.files.sync_folder(&self.folder)
    }

    fn stop_on_error(&mut self, outcome: io::Result<()>) -> Result<(), AppendError> {
        outcome.map_err(|error| {
            self.stopped = true;
            AppendError::Unknown(error)
        })
    }
}

impl ChainLog for Log {
    fn sale(&self) -> SaleId {
        self.sale()
    }

    fn next(&self) -> u64 {
        self.next()
    }

    fn head(&self) -> Hash {
        self.head()
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        self.append(batch)
    }

    fn watermark(&self) -> Arc<Watermark> {
        self.watermark()
    }
}
