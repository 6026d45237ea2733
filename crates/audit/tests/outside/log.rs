//! Writes segment files frame by frame, apart from the engine's own writer.

use std::path::Path;

use chain::EncodedBatch;
use chain::batch::GENESIS_HEAD;
use chain::frame::{FrameHeader, FrameKind, Seal, encode_frame};

use crate::sketch::SALE;

pub(crate) const SEGMENT_BYTES: usize = 1 << 20;

/// Builds one segment after the other.
pub(crate) struct Segments {
    segment: u32,
    bytes: Vec<u8>,
    frame: u64,
    next: u64,
    head: [u8; 32],
    /// Where each frame of the current segment begins.
    pub(crate) offsets: Vec<usize>,
    predecessor_end: u64,
}

impl Segments {
    pub(crate) fn begin() -> Self {
        let mut segments = Self {
            segment: 0,
            bytes: Vec::new(),
            frame: 0,
            next: 0,
            head: GENESIS_HEAD,
            offsets: Vec::new(),
            predecessor_end: 0,
        };
        segments.roll();
        segments
    }

    /// Seals the current segment at its end and begins the next.
    pub(crate) fn roll(&mut self) -> Vec<u8> {
        self.roll_at(self.bytes.len() as u64)
    }

    /// Seals the current segment at `end`, whatever stands behind it, and gives its bytes.
    pub(crate) fn roll_at(&mut self, end: u64) -> Vec<u8> {
        self.predecessor_end = end;
        let finished = self.padded();
        self.segment += 1;
        self.bytes.clear();
        self.offsets.clear();
        let seal = Seal {
            sale: SALE,
            predecessor: self.segment - 1,
            end: self.predecessor_end,
            first: self.next,
            head: self.head,
        };
        self.frame(FrameKind::Segment, &seal.encode());
        finished
    }

    pub(crate) fn batch(&mut self, batch: &EncodedBatch) {
        self.next = batch.header.next();
        self.frame(FrameKind::Batch, &batch.bytes);
        self.head = batch.head.head;
    }

    pub(crate) fn empty(&mut self) {
        self.frame(FrameKind::Empty, &[]);
    }

    /// Steps back before the last frame, as a start does that copies it to a new segment.
    pub(crate) fn forget(&mut self, batch: &EncodedBatch) -> u64 {
        (self.next, self.head) = (batch.header.first, batch.previous);
        self.frame -= 1;
        *self.offsets.last().expect("a frame") as u64
    }

    /// The bytes of the segment, filled up as on disk.
    pub(crate) fn padded(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(SEGMENT_BYTES, 0);
        bytes
    }

    fn frame(&mut self, kind: FrameKind, payload: &[u8]) {
        let header = FrameHeader {
            kind,
            segment: self.segment,
            partition: 0,
            offset: self.bytes.len() as u64,
            next: self.next,
            number: self.frame,
            durable_through: self.frame,
            payload: payload.len() as u32,
        };
        let mut frame = Vec::new();
        encode_frame(&header, payload, &mut frame);
        self.offsets.push(self.bytes.len());
        self.bytes.extend(frame);
        self.frame += u64::from(kind != FrameKind::Segment);
    }
}

pub(crate) fn put(folder: &Path, number: u32, bytes: &[u8]) {
    std::fs::write(folder.join(format!("{number:08}.segment")), bytes).unwrap();
}

/// Two segments, an empty frame now and then, and files that are none of the log's business.
pub(crate) fn write(folder: &Path, batches: &[EncodedBatch]) {
    let mut segments = Segments::begin();
    let half = batches.len() / 2;
    for batch in &batches[..half] {
        segments.batch(batch);
    }
    segments.empty();
    put(folder, 1, &segments.roll());
    for batch in &batches[half..] {
        segments.batch(batch);
        segments.empty();
    }
    put(folder, 2, &segments.padded());
    std::fs::write(folder.join("spare"), [0; 8192]).unwrap();
    std::fs::write(folder.join("00000003.segment.tmp"), [1; 8192]).unwrap();
}
