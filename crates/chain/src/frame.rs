//! Frames: how batches lie in a segment file. The only part of the log that the auditor shares with the writer.
//!
//! Every frame starts at a multiple of 4 KiB, fills whole 4 KiB blocks and carries one checksum over all of them. Its header says
//! where it belongs, so a block written to the wrong place is noticed, and which frames were durable when it was written, so
//! damage to an older frame can be told from a torn last write.

use domain::SaleId;
use domain::ids::Hash;
use xxhash_rust::xxh3::Xxh3Default;

/// Frames start and end at multiples of this.
pub const BLOCK: usize = 4096;
/// Bytes of a frame's header.
pub const FRAME_HEADER: usize = 64;
/// Version of the storage layout (not of the batches inside).
pub const STORAGE_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"DBFR";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first frame of a segment: a [`Seal`] of the segment before it.
    Segment = 1,
    /// One batch.
    Batch = 2,
    /// Nothing; it names the frames before it as durable.
    Empty = 3,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub kind: FrameKind,
    /// Number of its segment, from 1.
    pub segment: u32,
    /// Part of the sale, 0.
    pub partition: u32,
    /// Bytes from the segment's start to this frame.
    pub offset: u64,
    /// Number of the first record after this frame.
    pub next: u64,
    /// Running number of the frame in the log, from 0; a frame copied to a new segment keeps its number, segment frames have none
    /// of their own and state that of the frame that follows.
    pub number: u64,
    /// All frames with a smaller number than this were durable when the frame was written. Equals `number` as long as at most
    /// one frame is unsynced.
    pub durable_through: u64,
    /// Bytes of payload.
    pub payload: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The block is all zeros: nothing has been written there.
    #[error("nothing has been written here")]
    Blank,
    /// The checksum, the magic or a length is wrong.
    #[error("the frame is damaged")]
    Damaged,
    /// The frame is whole but belongs to another place.
    #[error("the frame belongs to segment {segment} at offset {offset}")]
    Misplaced {
        /// Where it says that it belongs.
        segment: u32,
        /// Where it says that it belongs.
        offset: u64,
    },
    /// Written by a version with another layout.
    #[error("storage format {0} is not known to this version (it knows {STORAGE_VERSION})")]
    Version(u16),
}

/// Bytes that a frame with `payload` bytes takes on disk.
pub fn frame_length(payload: usize) -> usize {
    (FRAME_HEADER + payload).div_ceil(BLOCK) * BLOCK
}

/// Writes the frame into `out`, which is cleared first and ends up a whole number of blocks long.
pub fn encode_frame(header: &FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
    assert_eq!(header.payload as usize, payload.len(), "a frame states its payload's length");
    out.clear();
    out.resize(frame_length(payload.len()), 0);
    out[0..4].copy_from_slice(&MAGIC);
    out[4..6].copy_from_slice(&STORAGE_VERSION.to_le_bytes());
    out[6] = header.kind as u8;
    out[8..12].copy_from_slice(&header.segment.to_le_bytes());
    out[12..16].copy_from_slice(&header.partition.to_le_bytes());
    out[16..24].copy_from_slice(&header.offset.to_le_bytes());
    out[24..32].copy_from_slice(&header.next.to_le_bytes());
    out[32..40].copy_from_slice(&header.number.to_le_bytes());
    out[40..48].copy_from_slice(&header.durable_through.to_le_bytes());
    out[48..52].copy_from_slice(&header.payload.to_le_bytes());
    out[FRAME_HEADER..FRAME_HEADER + payload.len()].copy_from_slice(payload);
    let checksum = checksum(out);
    out[56..64].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads the frame at the start of `bytes`, which lie at `offset` of `segment`; gives its header, its payload and its length on disk.
pub fn parse_frame(bytes: &[u8], segment: u32, offset: u64) -> Result<(FrameHeader, &[u8], usize), FrameError> {
    let block = bytes.get(..BLOCK).ok_or(FrameError::Damaged)?;
    if block.iter().all(|byte| *byte == 0) {
        return Err(FrameError::Blank);
    }
    if block[0..4] != MAGIC {
        return Err(FrameError::Damaged);
    }
    let payload = u32::from_le_bytes(field(block, 48));
    let length = frame_length(payload as usize);
    let whole = bytes.get(..length).ok_or(FrameError::Damaged)?;
    if u64::from_le_bytes(field(block, 56)) != checksum(whole) {
        return Err(FrameError::Damaged);
    }
    let version = u16::from_le_bytes(field(block, 4));
    if version != STORAGE_VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = match block[6] {
        1 => FrameKind::Segment,
        2 => FrameKind::Batch,
        3 => FrameKind::Empty,
        _ => return Err(FrameError::Damaged),
    };
    let header = FrameHeader {
        kind,
        segment: u32::from_le_bytes(field(block, 8)),
        partition: u32::from_le_bytes(field(block, 12)),
        offset: u64::from_le_bytes(field(block, 16)),
        next: u64::from_le_bytes(field(block, 24)),
        number: u64::from_le_bytes(field(block, 32)),
        durable_through: u64::from_le_bytes(field(block, 40)),
        payload,
    };
    if (header.segment, header.offset) != (segment, offset) {
        return Err(FrameError::Misplaced { segment: header.segment, offset: header.offset });
    }
    Ok((header, &whole[FRAME_HEADER..FRAME_HEADER + payload as usize], length))
}

/// What a block states as the start of a frame, its checksum unseen: enough to look for frames, never enough to trust one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) durable_through: u64,
    /// Bytes of the whole frame.
    pub(crate) length: usize,
}

/// Reads what a block states; `None` when it does not begin like a frame.
pub(crate) fn claim(block: &[u8]) -> Option<Claim> {
    if block.len() < FRAME_HEADER || block[0..4] != MAGIC {
        return None;
    }
    Some(Claim {
        segment: u32::from_le_bytes(field(block, 8)),
        offset: u64::from_le_bytes(field(block, 16)),
        durable_through: u64::from_le_bytes(field(block, 40)),
        length: frame_length(u32::from_le_bytes(field(block, 48)) as usize),
    })
}

/// The payload of a segment's first frame: what the segment continues. Bytes of the predecessor beyond `end` are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Whose log.
    pub sale: SaleId,
    /// Number of the segment before this one; 0 for the first.
    pub predecessor: u32,
    /// Where the predecessor ends, in bytes.
    pub end: u64,
    /// Number of the first record in this segment.
    pub first: u64,
    /// The chain's head before that record.
    pub head: Hash,
}

impl Seal {
    /// Bytes of a seal.
    pub const LENGTH: usize = 68;

    /// The seal as bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0..16].copy_from_slice(&self.sale.0);
        bytes[16..20].copy_from_slice(&self.predecessor.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.end.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first.to_le_bytes());
        bytes[36..68].copy_from_slice(&self.head);
        bytes
    }

    /// Reads a seal; `None` when the length is not a seal's.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::LENGTH {
            return None;
        }
        Some(Self {
            sale: SaleId(field(bytes, 0)),
            predecessor: u32::from_le_bytes(field(bytes, 16)),
            end: u64::from_le_bytes(field(bytes, 20)),
            first: u64::from_le_bytes(field(bytes, 28)),
            head: field(bytes, 36),
        })
    }
}

/// XXH3-64 over the frame's blocks with the checksum field (bytes 56 to 63) left out.
fn checksum(frame: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&frame[..56]);
    hasher.update(&frame[FRAME_HEADER..]);
    hasher.digest()
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}
