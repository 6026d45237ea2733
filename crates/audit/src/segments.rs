//! Walks the segment files of one sale's log, read-only and without its lock, also while a server appends to them.
//!
//! The walk ends at the last whole frame. What may lie behind it is a torn last write, which nothing names; a damaged frame with
//! a whole one behind it, a gap, or a seal that does not fit is damage and is reported, never skipped.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chain::Batch;
use chain::frame::{BLOCK, FrameError, FrameKind, Seal, parse_frame};
use domain::SaleId;
use domain::ids::Hash;

/// A segment is a power of two of at least this many bytes until it is sealed; then it may be cut to its end.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// How often a frame that looks damaged is read again before it counts as damage: a server may be writing it.
const READ_AGAIN_MAX: u32 = 3;

/// Gives every batch of the log in `folder` to `sink`, a stretch at a time, and tells what damage ended the walk before the log
/// did. An `Err` is a file that could not be read.
pub(crate) fn walk(folder: &Path, sink: &mut dyn FnMut(&[Batch<'_>])) -> io::Result<Option<String>> {
    let last = last_segment(folder)?;
    let mut walk = Walk { folder, sale: None, head: chain::batch::GENESIS_HEAD, next: 0, frame: 0 };
    match walk.segments(last, sink) {
        Ok(()) => Ok(None),
        Err(Stop::Damage(damage)) => Ok(Some(damage)),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// The highest number of a segment file in the folder; 0 without any. Other names are not the log's.
pub(crate) fn last_segment(folder: &Path) -> io::Result<u32> {
    let mut last = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".segment")).filter(|number| number.len() == 8);
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            last = last.max(number);
        }
    }
    Ok(last)
}

enum Stop {
    Io(io::Error),
    Damage(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Walk<'a> {
    folder: &'a Path,
    sale: Option<SaleId>,
    /// Head and number of the next record after all batches so far.
    head: Hash,
    next: u64,
    /// Number of the next frame.
    frame: u64,
}

impl Walk<'_> {
    /// Goes through all segments; `last` existed when the walk began, later ones may have come since.
    fn segments(&mut self, last: u32, sink: &mut dyn FnMut(&[Batch<'_>])) -> Result<(), Stop> {
        let mut segment = 1;
        while let Some(start) = self.first_frame(segment)? {
            self.segment(segment, start, sink)?;
            segment += 1;
        }
        if segment <= last {
            return Err(Stop::Damage(format!("segment {segment} is missing, but segment {last} exists")));
        }
        Ok(())
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.folder.join(format!("{segment:08}.segment"))
    }

    /// The seal in the segment's first frame, that frame's number and its length; `None` while there is no such segment.
    ///
    /// A segment gets its name only when its seal is durable, so one that has its name and no seal is damaged.
    fn seal(&self, segment: u32) -> Result<Option<(Seal, u64, u64)>, Stop> {
        let mut block = [0; BLOCK];
        let read = File::open(self.path(segment)).and_then(|mut file| file.read_exact(&mut block));
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Stop::Io(error)),
        }
        let seal = match parse_frame(&block, segment, 0) {
            Ok((header, payload, length)) if header.kind == FrameKind::Segment => {
                Seal::parse(payload).map(|seal| (seal, header.number, length as u64))
            }
            _ => None,
        };
        let damage = || Stop::Damage(format!("segment {segment}, offset 0: the segment does not begin with a seal"));
        seal.map(Some).ok_or_else(damage)
    }

    /// Checks the segment's seal against what was read so far; gives the offset of its second frame, `None` at the log's end.
    fn first_frame(&mut self, segment: u32) -> Result<Option<u64>, Stop> {
        let Some((seal, number, length)) = self.seal(segment)? else { return Ok(None) };
        let sale = *self.sale.get_or_insert(seal.sale);
        // A server that started during the walk may have copied the last frame that was read already.
        let fits = seal.sale == sale
            && seal.predecessor.checked_add(1) == Some(segment)
            && number <= self.frame
            && (seal.first < self.next || (seal.first, seal.head) == (self.next, self.head));
        if !fits {
            return Err(Stop::Damage(format!("segment {segment}: its seal does not continue the segment before it")));
        }
        self.frame = number;
        Ok(Some(length))
    }

    fn segment(&mut self, segment: u32, start: u64, sink: &mut dyn FnMut(&[Batch<'_>])) -> Result<(), Stop> {
        let mut offset = start;
        let mut again = 0;
        loop {
            // The seal is looked for first, so that bytes read afterwards reach at least as far as it says.
            let seal = self.seal(segment + 1);
            let bytes = read_from(&self.path(segment), offset)?;
            let end = seal.as_ref().ok().and_then(|seal| seal.map(|(seal, ..)| seal.end));
            let reached = self.frames(segment, offset, &bytes, end, sink)?;
            let rest = &bytes[(reached - offset) as usize..];
            let length = offset + bytes.len() as u64;
            again = if reached > offset { 0 } else { again };
            offset = reached;
            seal?;
            match end {
                Some(end) if offset >= end => return Ok(()),
                Some(end) => {
                    return Err(Stop::Damage(format!(
                        "segment {segment}, offset {offset}: no whole frame, but the segment is sealed at {end}"
                    )));
                }
                None if self.seal(segment + 1)?.is_some() => {}
                None => {
                    if length < SEGMENT_BYTES_MIN || !length.is_power_of_two() {
                        return Err(Stop::Damage(format!("segment {segment}: the file was cut short at {length}")));
                    }
                    let Some(later) = trace_in(rest, segment, offset, self.frame) else { return Ok(()) };
                    again += 1;
                    if again > READ_AGAIN_MAX {
                        return Err(Stop::Damage(format!(
                            "segment {segment}, offset {offset}: the frame is damaged, but the one at {later} follows it"
                        )));
                    }
                }
            }
        }
    }

    /// Reads frames up to `end`, or to the last whole one; gives the offset behind it.
    fn frames(
        &mut self,
        segment: u32,
        start: u64,
        bytes: &[u8],
        end: Option<u64>,
        sink: &mut dyn FnMut(&[Batch<'_>]),
    ) -> Result<u64, Stop> {
        let mut batches = Vec::new();
        let mut offset = start;
        let mut problem = None;
        while end.is_none_or(|end| offset < end) {
            let rest = &bytes[(offset - start) as usize..];
            let Ok((header, payload, length)) = parse_frame(rest, segment, offset) else { break };
            let batch = match header.kind {
                FrameKind::Batch => Some(Batch::parse(payload).map_err(|error| error.to_string())),
                FrameKind::Empty if header.payload == 0 => None,
                FrameKind::Empty | FrameKind::Segment => Some(Err("a frame that does not belong here".to_owned())),
            };
            let next = match &batch {
                Some(Ok(batch)) => batch.header.next(),
                _ => self.next,
            };
            let fits = header.number == self.frame && header.durable_through <= header.number && header.next == next;
            match batch {
                Some(Err(error)) => problem = Some(error),
                _ if !fits => problem = Some(format!("frame {} does not follow frame {}", header.number, self.frame)),
                Some(Ok(batch)) => {
                    (self.next, self.head) = (next, batch.head.head);
                    batches.push(batch);
                }
                None => {}
            }
            if problem.is_some() {
                break;
            }
            self.frame += 1;
            offset += length as u64;
        }
        if !batches.is_empty() {
            sink(&batches);
        }
        match problem {
            Some(problem) => Err(Stop::Damage(format!("segment {segment}, offset {offset}: {problem}"))),
            None => Ok(offset),
        }
    }
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The offset of a frame in `bytes`, which begin at `offset`, that shows that frame `number` was durable there.
///
/// A torn last write leaves blocks of its own frame only. A whole frame, even one that belongs elsewhere, or a damaged one that
/// states this place and a later number, was written after the one before it was durable.
fn trace_in(bytes: &[u8], segment: u32, offset: u64, number: u64) -> Option<u64> {
    let places = (0..bytes.len()).step_by(BLOCK).map(|at| (&bytes[at..], offset + at as u64));
    places.map(|(rest, place)| (place, parse_frame(rest, segment, place), rest)).find_map(|(place, frame, rest)| {
        let is_trace = match frame {
            Ok(_) | Err(FrameError::Misplaced { .. } | FrameError::Version(_)) => true,
            Err(FrameError::Damaged) => states_later(rest, segment, place, number),
            Err(FrameError::Blank) => false,
        };
        is_trace.then_some(place)
    })
}

/// Whether the header of a damaged frame states this place and a frame number behind `number`.
fn states_later(block: &[u8], segment: u32, place: u64, number: u64) -> bool {
    let field = |range: std::ops::Range<usize>| block.get(range).unwrap_or_default();
    field(0..4) == b"DBFR"
        && field(8..12) == segment.to_le_bytes()
        && field(16..24) == place.to_le_bytes()
        && field(40..48).try_into().is_ok_and(|through| u64::from_le_bytes(through) > number)
}
