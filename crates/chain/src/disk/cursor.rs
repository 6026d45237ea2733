//! A place in one segment file, read ahead of in chunks that grow while a reader is behind and stay small while it follows a writer.

use std::ops::Range;
use std::path::{Path, PathBuf};

use domain::limits;

use super::ReadError;
use super::segment::{find_trace, segment_path};
use crate::files::{File, Files};
use crate::frame::{self, BLOCK, FRAME_HEADER, FrameHeader, FrameKind};

const CHUNK_BYTES_MIN: usize = 64 * 1024;
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A frame that the cursor stands at.
pub(super) struct FoundFrame {
    pub(super) kind: FrameKind,
    /// Number of the first record behind it.
    pub(super) next: u64,
    payload: Range<usize>,
    number: u64,
    length: usize,
}

pub(super) struct Cursor {
    path: PathBuf,
    file: Box<dyn File>,
    pub(super) segment: u32,
    /// Bytes from the segment's start to the frame that is read next.
    pub(super) offset: u64,
    /// Number of the first record behind the frame before it.
    pub(super) next: u64,
    /// Number of the frame that is read next.
    pub(super) frame_number: u64,
    /// Bytes of the file from `buffer_offset`.
    buffer: Vec<u8>,
    buffer_offset: u64,
    chunk: usize,
}

impl Cursor {
    /// At the first frame behind the seal of a segment.
    pub(super) fn open(files: &dyn Files, folder: &Path, seal: &FrameHeader) -> Result<Self, ReadError> {
        let path = segment_path(folder, seal.segment);
        let file = files.open(&path, false).map_err(ReadError::io(&path))?;
        Ok(Self {
            path,
            file,
            segment: seal.segment,
            offset: BLOCK as u64,
            next: seal.next,
            frame_number: seal.number,
            buffer: Vec::new(),
            buffer_offset: 0,
            chunk: CHUNK_BYTES_MIN,
        })
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> ReadError {
        ReadError::damaged(&self.path, self.offset, what)
    }

    /// The frame at the cursor; `None` when none is whole there, which a fresh look at the file has confirmed.
    pub(super) fn frame(&mut self) -> Result<Option<FoundFrame>, ReadError> {
        if let Some(frame) = self.parse() {
            return Ok(Some(frame));
        }
        self.chunk = if self.is_behind() { (self.chunk * 2).min(CHUNK_BYTES_MAX) } else { CHUNK_BYTES_MIN };
        self.fill(self.chunk)?;
        if let Some(frame) = self.parse() {
            return Ok(Some(frame));
        }
        let Some(claim) = frame::claim(&self.buffer) else { return Ok(None) };
        if claim.length <= self.buffer.len() || claim.length > frame::frame_length(limits::BATCH_BYTES_MAX) {
            return Ok(None);
        }
        self.chunk = CHUNK_BYTES_MAX;
        self.fill(claim.length.max(CHUNK_BYTES_MAX))?;
        Ok(self.parse())
    }

    /// The frame's payload. The frame must be the one that the last call of `frame` gave.
    pub(super) fn payload(&self, frame: &FoundFrame) -> &[u8] {
        &self.buffer[frame.payload.clone()]
    }

    /// Moves behind the frame.
    pub(super) fn pass(&mut self, frame: &FoundFrame) {
        self.offset += frame.length as u64;
        self.next = frame.next;
        self.frame_number = frame.number + 1;
    }

    /// Whether something behind the cursor shows that a frame was durable at it; see [`find_trace`].
    pub(super) fn is_traced(&mut self) -> Result<bool, ReadError> {
        let length = self.file.length().map_err(ReadError::io(&self.path))?;
        let mut rest = vec![0; length.saturating_sub(self.offset) as usize];
        let read = self.file.read_at(&mut rest, self.offset).map_err(ReadError::io(&self.path))?;
        Ok(find_trace(&rest[..read], self.offset, self.segment, self.frame_number).is_some())
    }

    /// Whether the file had more than the buffer took: all of it was used, or a frame begins at its end.
    fn is_behind(&self) -> bool {
        let start = self.offset.saturating_sub(self.buffer_offset) as usize;
        start > 0 && (start == self.buffer.len() || self.buffer.get(start..).and_then(frame::claim).is_some())
    }

    fn parse(&self) -> Option<FoundFrame> {
        let start = usize::try_from(self.offset.checked_sub(self.buffer_offset)?).ok()?;
        let bytes = self.buffer.get(start..)?;
        let (header, payload, length) = frame::parse_frame(bytes, self.segment, self.offset).ok()?;
        let payload = start + FRAME_HEADER..start + FRAME_HEADER + payload.len();
        Some(FoundFrame { kind: header.kind, next: header.next, payload, number: header.number, length })
    }

    /// Reads `length` bytes from the cursor on, fewer at the file's end.
    fn fill(&mut self, length: usize) -> Result<(), ReadError> {
        self.buffer.resize(length, 0);
        let read = self.file.read_at(&mut self.buffer, self.offset).map_err(ReadError::io(&self.path))?;
        self.buffer.truncate(read);
        self.buffer_offset = self.offset;
        Ok(())
    }
}
