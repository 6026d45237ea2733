//! Reading a log back in full and applying the tail rule. It changes nothing on disk.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use domain::SaleId;

use super::OpenError;
use super::log::Position;
use super::segment::{SEGMENT_BYTES_MIN, SealError, find_trace, read_seal, segment_number, segment_path};
use crate::batch::{Batch, BatchError};
use crate::files::Files;
use crate::frame::{BLOCK, FRAME_HEADER, FrameError, FrameHeader, FrameKind, Seal, parse_frame};

/// Below this many bytes of batches a second thread costs more than it saves.
const VERIFY_ALONE_BYTES: usize = 256 * 1024;

/// What stands in a log.
pub(super) struct Recovered {
    pub(super) sale: SaleId,
    /// Where the log ends, its tail included.
    pub(super) at: Position,
    /// Where the last segment is to be sealed: before its last frame, the only one that may not be durable.
    pub(super) seal_at: Position,
    /// The batch in that frame; `None` when the frame is an empty one, which nobody needs again, or there is none.
    pub(super) tail: Option<Vec<u8>>,
    /// Segments whose files are longer than what is sealed, or will be once the last is sealed: number and end.
    pub(super) longer_than_sealed: Vec<(u32, u64)>,
}

/// Reads all segments in order and replays their batches.
pub(super) fn recover(
    files: &dyn Files,
    folder: &Path,
    names: &[String],
    expect: Option<SaleId>,
    replay: &mut dyn FnMut(&Batch<'_>) -> Result<(), String>,
) -> Result<Recovered, OpenError> {
    let seals = read_seals(files, folder, names)?;
    let sale = seals[0].1.sale;
    if let Some(expected) = expect.filter(|expected| *expected != sale) {
        return Err(OpenError::OtherSale { folder: folder.to_owned(), expected, found: sale });
    }
    let mut walk = Walk::new(sale);
    let mut longer_than_sealed = Vec::new();
    let mut bytes = Vec::new();
    for (index, (header, seal)) in seals.iter().enumerate() {
        walk.enter(segment_path(folder, index as u32 + 1), header, seal)?;
        let sealed_end = seals.get(index + 1).map(|(_, next)| next.end);
        let length = read_segment(files, &walk.file, sealed_end, &mut bytes)?;
        let batches = walk.frames(&bytes, sealed_end)?;
        verify_and_replay(&walk.file, &bytes, &batches, replay)?;
        let end = sealed_end.unwrap_or(walk.seal_at.offset);
        if length > end {
            longer_than_sealed.push((walk.at.segment, end));
        }
    }
    let Walk { at, seal_at, tail, .. } = walk;
    // `bytes` is the last segment still, and a tail lies nowhere else.
    let tail = tail.map(|range| bytes[range].to_vec());
    Ok(Recovered { sale, at, seal_at, tail, longer_than_sealed })
}

/// The first frames of all segments, which must be numbered from 1 without a gap.
fn read_seals(files: &dyn Files, folder: &Path, names: &[String]) -> Result<Vec<(FrameHeader, Seal)>, OpenError> {
    let last = names.iter().filter_map(|name| segment_number(name)).max();
    let last = last.ok_or_else(|| OpenError::Missing(folder.to_owned()))?;
    let mut seals: Vec<(FrameHeader, Seal)> = Vec::new();
    for number in 1..=last {
        let path = segment_path(folder, number);
        let (header, seal) = read_seal(files, folder, number).map_err(|error| match error {
            SealError::Io(error) if error.kind() == ErrorKind::NotFound => {
                OpenError::damaged(&path, 0, format!("the file is missing, but the log goes on to segment {last}"))
            }
            SealError::Io(error) => OpenError::io(&path)(error),
            SealError::Version(_) => OpenError::Format { file: path.clone(), offset: 0, what: error.to_string() },
            SealError::Damaged(what) => OpenError::damaged(&path, 0, format!("its first frame is unusable: {what}")),
        })?;
        if seals.first().is_some_and(|(_, first)| first.sale != seal.sale) {
            return Err(OpenError::damaged(&path, 0, format!("it belongs to sale {}", seal.sale)));
        }
        seals.push((header, seal));
    }
    Ok(seals)
}

/// Reads a segment up to its sealed end, or all of it when it is the last; gives the file's length.
fn read_segment(
    files: &dyn Files,
    path: &Path,
    sealed_end: Option<u64>,
    bytes: &mut Vec<u8>,
) -> Result<u64, OpenError> {
    let file = files.open(path, false).map_err(OpenError::io(path))?;
    let length = file.length().map_err(OpenError::io(path))?;
    if let Some(end) = sealed_end.filter(|end| *end > length) {
        return Err(OpenError::damaged(path, length, format!("the file ends here, but its seal says {end}")));
    }
    // Segments are made whole and cut only after they are sealed.
    if sealed_end.is_none() && (length < SEGMENT_BYTES_MIN || !length.is_power_of_two()) {
        return Err(OpenError::damaged(path, length, "the file was cut short, or the segment after it is missing"));
    }
    bytes.resize(sealed_end.unwrap_or(length) as usize, 0);
    let read = file.read_at(bytes, 0).map_err(OpenError::io(path))?;
    if read < bytes.len() {
        return Err(OpenError::damaged(path, read as u64, "the file ended while it was read"));
    }
    Ok(length)
}

/// Checks the hashes of all records of a segment while its batches are replayed.
fn verify_and_replay(
    file: &Path,
    bytes: &[u8],
    batches: &[Range<usize>],
    replay: &mut dyn FnMut(&Batch<'_>) -> Result<(), String>,
) -> Result<(), OpenError> {
    let verify = || -> Result<(), OpenError> {
        for range in batches {
            let verified = Batch::parse(&bytes[range.clone()]).and_then(|batch| batch.verify());
            verified.map_err(|error| OpenError::damaged(file, frame_offset(range), error.to_string()))?;
        }
        Ok(())
    };
    let mut replay_all = || -> Result<(), OpenError> {
        for range in batches {
            let batch = Batch::parse(&bytes[range.clone()])
                .map_err(|error| OpenError::damaged(file, frame_offset(range), error.to_string()))?;
            let first = batch.header.first;
            replay(&batch).map_err(|reason| OpenError::Replay { file: file.to_owned(), first, reason })?;
        }
        Ok(())
    };
    if batches.iter().map(ExactSizeIterator::len).sum::<usize>() < VERIFY_ALONE_BYTES {
        return verify().and_then(|()| replay_all());
    }
    std::thread::scope(|scope| {
        let verifier = scope.spawn(verify);
        let replayed = replay_all();
        let verified = verifier.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A wrong hash explains a failed replay, not the other way round.
        verified.and(replayed)
    })
}

/// Where the frame begins whose payload that is.
fn frame_offset(payload: &Range<usize>) -> u64 {
    (payload.start / BLOCK * BLOCK) as u64
}

/// The way through the frames of all segments.
struct Walk {
    sale: SaleId,
    file: PathBuf,
    at: Position,
    /// Before the segment's last frame so far. Whatever it is, a batch or an empty frame, its sync may have failed.
    seal_at: Position,
    /// Where the batch in that frame lies, if it is one.
    tail: Option<Range<usize>>,
}

impl Walk {
    fn new(sale: SaleId) -> Self {
        let start = Position::start();
        Self { sale, file: PathBuf::new(), at: start, seal_at: start, tail: None }
    }

    fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::damaged(&self.file, self.at.offset, what)
    }

    /// Goes on in the segment that begins with `seal`, which must continue where the walk stands.
    fn enter(&mut self, file: PathBuf, header: &FrameHeader, seal: &Seal) -> Result<(), OpenError> {
        self.file = file;
        let continues = (seal.end, seal.first, seal.head) == (self.at.offset, self.at.next, self.at.head)
            && (header.next, header.number, header.durable_through) == (self.at.next, self.at.frame, self.at.frame);
        self.at.segment += 1;
        self.at.offset = 0;
        if !continues {
            return Err(self.damaged("its seal does not match the end of the segment before it"));
        }
        self.at.offset = BLOCK as u64;
        // The seal says that everything before it is durable, and is so itself.
        self.seal_at = self.at;
        self.tail = None;
        Ok(())
    }

    /// Goes through the frames of the current segment and gives where the batches lie.
    fn frames(&mut self, bytes: &[u8], sealed_end: Option<u64>) -> Result<Vec<Range<usize>>, OpenError> {
        let mut batches = Vec::new();
        while (self.at.offset as usize) < bytes.len() {
            let offset = self.at.offset as usize;
            let (header, payload, length) = match parse_frame(&bytes[offset..], self.at.segment, self.at.offset) {
                Ok(frame) => frame,
                Err(FrameError::Version(version)) => {
                    return Err(self.format(FrameError::Version(version).to_string()));
                }
                Err(error) if sealed_end.is_some() => {
                    return Err(self.damaged(format!("{error}, and the next segment says that it was durable")));
                }
                Err(error) => {
                    self.may_end_here(&bytes[offset..], error)?;
                    break;
                }
            };
            self.check_frame(&header)?;
            self.seal_at = self.at;
            match header.kind {
                FrameKind::Segment => return Err(self.damaged("a seal stands inside the segment")),
                FrameKind::Empty => self.tail = None,
                FrameKind::Batch => {
                    let range = offset + FRAME_HEADER..offset + FRAME_HEADER + payload.len();
                    batches.push(range.clone());
                    self.tail = Some(range);
                    self.batch(&header, payload)?;
                }
            }
            self.at.offset += length as u64;
            self.at.frame += 1;
        }
        Ok(batches)
    }

    /// The tail rule: the log may end where nothing is readable only if nothing says that a frame was durable there.
    fn may_end_here(&self, rest: &[u8], error: FrameError) -> Result<(), OpenError> {
        match find_trace(rest, self.at.offset, self.at.segment, self.at.frame) {
            None => Ok(()),
            Some(trace) => Err(self.damaged(format!(
                "{error}, but the frame at offset {trace} shows that a frame here was durable, so it is no torn last write"
            ))),
        }
    }

    fn check_frame(&self, header: &FrameHeader) -> Result<(), OpenError> {
        if header.partition != 0 {
            return Err(self.damaged(format!("the frame belongs to partition {}", header.partition)));
        }
        if (header.number, header.durable_through) != (self.at.frame, self.at.frame) {
            return Err(self.damaged(format!("frame {} stands where frame {} belongs", header.number, self.at.frame)));
        }
        if header.kind == FrameKind::Empty && header.next != self.at.next {
            return Err(self.damaged(format!("an empty frame states record {}, not {}", header.next, self.at.next)));
        }
        Ok(())
    }

    /// Checks that the batch continues the chain, and moves behind its records.
    fn batch(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), OpenError> {
        let batch = Batch::parse(payload).map_err(|error| match error {
            BatchError::Version(_) => self.format(error.to_string()),
            other => self.damaged(other.to_string()),
        })?;
        let own = &batch.header;
        if own.sale != self.sale || own.partition != 0 {
            return Err(self.damaged(format!("the batch belongs to sale {}, partition {}", own.sale, own.partition)));
        }
        if own.first != self.at.next || own.next() != header.next {
            return Err(self.damaged(format!("the batch begins at record {}, not at {}", own.first, self.at.next)));
        }
        if batch.previous != self.at.head {
            return Err(self.damaged("the batch does not extend the head of the one before it"));
        }
        if own.time < self.at.time || own.epoch < self.at.epoch {
            return Err(self.damaged("the batch's time or epoch goes back"));
        }
        self.at.next = own.next();
        self.at.head = batch.head.head;
        self.at.epoch = own.epoch;
        self.at.time = own.time;
        self.at.signed = Some(batch.head);
        Ok(())
    }

    fn format(&self, what: String) -> OpenError {
        OpenError::Format { file: self.file.clone(), offset: self.at.offset, what }
    }
}
