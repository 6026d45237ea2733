//! Segment files: their names and sizes, the seal at their start, and the search that tells a torn last write from damage.

use std::path::{Path, PathBuf};

use domain::limits;

use crate::files::Files;
use crate::frame::{self, BLOCK, FrameError, FrameHeader, FrameKind, Seal};

/// Bytes of a log's first segment and of the one that every open begins.
pub(super) const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Bytes of a segment that has to be made while a batch waits for it; the smallest that holds any batch.
pub(super) const SEGMENT_BYTES_IN_HASTE: u64 = 2 << 20;
/// Segments double up to this.
pub(super) const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A segment in the making while its log waits; it gets its number when it is complete.
pub(super) const UNFINISHED_FILE: &str = "segment.unfinished";

// Seal, the largest batch with its frame header rounded up, and the empty frame that names it.
const _: () = assert!((limits::BATCH_BYTES_MAX + 4 * BLOCK) as u64 <= SEGMENT_BYTES_IN_HASTE);

const SUFFIX: &str = ".segment";

/// Where the segment of that number lies.
pub(super) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}{SUFFIX}"))
}

/// The number in a segment's file name, from 1; `None` for the name of anything else.
pub(super) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = digits.parse().ok()?;
    (digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(number)
        .filter(|number| *number > 0)
}

/// Why a segment's first frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Version(FrameError),
    #[error("{0}")]
    Damaged(String),
}

/// Reads the first frame of a segment. Its seal is durable before the segment has its name, so it must be whole.
pub(super) fn read_seal(files: &dyn Files, folder: &Path, number: u32) -> Result<(FrameHeader, Seal), SealError> {
    let file = files.open(&segment_path(folder, number), false)?;
    let mut block = [0; BLOCK];
    let length = file.read_at(&mut block, 0)?;
    let (header, payload, _) = frame::parse_frame(&block[..length], number, 0).map_err(|error| match error {
        FrameError::Version(_) => SealError::Version(error),
        other => SealError::Damaged(other.to_string()),
    })?;
    let seal = Seal::parse(payload).filter(|_| header.kind == FrameKind::Segment && header.partition == 0);
    let seal = seal.ok_or_else(|| SealError::Damaged("it does not begin with a seal".to_owned()))?;
    if seal.predecessor != number - 1 {
        return Err(SealError::Damaged(format!("it continues segment {}", seal.predecessor)));
    }
    Ok((header, seal))
}

/// Encodes the first frame of a segment into `out`. `frame` is the number of the frame that follows.
pub(super) fn encode_seal(seal: &Seal, frame: u64, out: &mut Vec<u8>) {
    let header = FrameHeader {
        kind: FrameKind::Segment,
        segment: seal.predecessor + 1,
        partition: 0,
        offset: 0,
        next: seal.first,
        number: frame,
        durable_through: frame,
        payload: Seal::LENGTH as u32,
    };
    frame::encode_frame(&header, &seal.encode(), out);
}

/// Looks through `bytes`, which lie at `start` of `segment`, for a trace that the frame `number` was durable at `start`, where none
/// is readable now; gives the trace's offset.
///
/// A write that power loss tore leaves blocks of its own frame and nothing else, for the blocks behind it were zeros. So a whole
/// frame anywhere here, even one that belongs elsewhere, and even a damaged one that states this place and a later number, proves
/// that `number` was not the last.
pub(super) fn find_trace(bytes: &[u8], start: u64, segment: u32, number: u64) -> Option<u64> {
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let Some(claim) = frame::claim(block) else { continue };
        let at = index * BLOCK;
        let offset = start + at as u64;
        let is_later = claim.segment == segment && claim.offset == offset && claim.durable_through > number;
        let is_whole = match frame::parse_frame(&bytes[at..], segment, offset) {
            Ok(_) | Err(FrameError::Misplaced { .. } | FrameError::Version(_)) => true,
            Err(FrameError::Blank | FrameError::Damaged) => false,
        };
        if is_later || is_whole {
            return Some(offset);
        }
    }
    None
}
