//! Damage on a real disk: a torn last write is cut, anything else refuses to start and says where.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::{Folder, Seen, append, batch, create, open, try_open};
use chain::frame::{BLOCK, FrameHeader, FrameKind, encode_frame};
use chain::{Log, OpenError};
use xxhash_rust::xxh3::Xxh3Default;

fn damage(path: &Path, offset: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut block = vec![0; BLOCK];
    file.read_exact_at(&mut block, offset).unwrap();
    change(&mut block);
    file.write_all_at(&block, offset).unwrap();
}

fn refused_at(folder: &Folder, segment: u32, offset: u64) {
    let before = folder.bytes();
    match try_open(&folder.0) {
        Err(OpenError::Damaged { file, offset: found, what }) => {
            assert_eq!((file, found), (folder.segment(segment), offset), "{what}");
        }
        Err(other) => panic!("{other}"),
        Ok((log, _)) => panic!("opened with {} records", log.next()),
    }
    assert_eq!(folder.bytes(), before, "a refusal changes nothing");
}

/// A log with three one-block batches at 4096, 8192 and 12288 of the first segment.
fn three_batches() -> (Folder, Log, Seen) {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    for _ in 0..3 {
        append(&mut log, 2, 0, &mut seen);
    }
    (folder, log, seen)
}

#[test]
fn a_torn_last_frame_is_cut_and_the_log_goes_on() {
    let (folder, log, mut seen) = three_batches();
    drop(log);
    damage(&folder.segment(1), 12288, |block| block[2048..].fill(0xEE));
    seen.pop();
    let (mut log, replayed) = open(&folder.0);
    assert_eq!(replayed, seen);
    append(&mut log, 4, 0, &mut seen);
    drop(log);
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn a_blank_last_frame_is_cut() {
    let (folder, log, mut seen) = three_batches();
    drop(log);
    damage(&folder.segment(1), 12288, |block| block.fill(0));
    seen.pop();
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn a_torn_frame_that_an_empty_frame_names_refuses() {
    let (folder, mut log, _) = three_batches();
    log.settle_tail().unwrap();
    drop(log);
    damage(&folder.segment(1), 12288, |block| block[2048..].fill(0xEE));
    refused_at(&folder, 1, 12288);
}

#[test]
fn a_blank_frame_that_only_a_damaged_frame_names_refuses() {
    let (folder, log, _) = three_batches();
    drop(log);
    damage(&folder.segment(1), 8192, |block| block.fill(0));
    damage(&folder.segment(1), 12288, |block| block[2048..].fill(0xEE));
    refused_at(&folder, 1, 8192);
}

#[test]
fn a_tail_is_named_as_soon_as_the_log_was_opened() {
    let (folder, log, _) = three_batches();
    drop(log);
    open(&folder.0);
    // The copy of the tail is the first frame of the second segment; the original lies behind the seal.
    damage(&folder.segment(2), 4096, |block| block[200] ^= 1);
    refused_at(&folder, 2, 4096);
}

#[test]
fn misdirected_write_refuses() {
    // The third frame went to the place of the second.
    let (folder, log, _) = three_batches();
    drop(log);
    let bytes = std::fs::read(folder.segment(1)).unwrap();
    damage(&folder.segment(1), 8192, |block| block.copy_from_slice(&bytes[12288..16384]));
    damage(&folder.segment(1), 12288, |block| block.fill(0));
    refused_at(&folder, 1, 8192);
    // The third frame went to a place behind its own.
    let (folder, log, _) = three_batches();
    drop(log);
    let bytes = std::fs::read(folder.segment(1)).unwrap();
    damage(&folder.segment(1), 40960, |block| block.copy_from_slice(&bytes[12288..16384]));
    damage(&folder.segment(1), 12288, |block| block.fill(0));
    refused_at(&folder, 1, 12288);
}

#[test]
fn bit_flip_in_a_frame_that_anything_names_refuses_to_start() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    append(&mut log, 1, 3_000, &mut seen);
    append(&mut log, 4, 4_000, &mut seen);
    drop(log);
    let (mut log, _) = open(&folder.0);
    append(&mut log, 2, 0, &mut seen);
    log.settle_tail().unwrap();
    append(&mut log, 3, 4_000, &mut seen);
    append(&mut log, 3, 4_000, &mut seen);
    drop(log);
    let named = seen[..seen.len() - 1].to_vec();
    let mut refused = 0;
    for number in [1, 2] {
        let length = std::fs::metadata(folder.segment(number)).unwrap().len().min(30 * BLOCK as u64);
        for offset in (0..length).step_by(BLOCK) {
            for byte in [0, 7, 63, 64, 2_000, BLOCK - 1] {
                let copy = folder.copy();
                damage(&copy.segment(number), offset, |block| block[byte] ^= 1 << (byte % 8));
                match try_open(&copy.0) {
                    Ok((_, replayed)) => assert!(replayed == named || replayed == seen, "{number} {offset} {byte}"),
                    Err(OpenError::Damaged { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    // Segment 1: seal and 1 block; its tail was copied. Segment 2: seal, 5 blocks of the copy, the frame that names it, 1 block,
    // the frame that names it, 4 blocks; then the last batch, which nothing names, and zeros.
    assert_eq!(refused, 6 * (2 + 1 + 5 + 1 + 1 + 1 + 4));
}

#[test]
fn missing_and_shortened_files_refuse() {
    let (folder, log, _) = three_batches();
    drop(log);
    for _ in 0..3 {
        let (mut log, _) = open(&folder.0);
        append(&mut log, 1, 0, &mut Vec::new());
    }
    for number in [1, 2, 3] {
        let copy = folder.copy();
        std::fs::remove_file(copy.segment(number)).unwrap();
        refused_at(&copy, number, 0);
    }
    let copy = folder.copy();
    std::fs::remove_file(copy.segment(4)).unwrap();
    assert!(matches!(try_open(&copy.0), Err(OpenError::Damaged { .. })), "segment 3 was cut when it was sealed");
    for (number, length) in [(1, 8192), (4, 8192), (4, 0)] {
        let copy = folder.copy();
        let file = std::fs::File::options().write(true).open(copy.segment(number)).unwrap();
        file.set_len(length).unwrap();
        assert!(matches!(try_open(&copy.0), Err(OpenError::Damaged { .. })), "segment {number} cut to {length}");
    }
    let swapped = folder.copy();
    std::fs::rename(swapped.segment(3), swapped.segment(2)).unwrap();
    assert!(matches!(try_open(&swapped.0), Err(OpenError::Damaged { .. })));
}

/// Changes a frame's storage version and makes its checksum right again.
fn as_newer_version(block: &mut [u8]) {
    block[4] += 1;
    let mut hasher = Xxh3Default::new();
    hasher.update(&block[..56]);
    hasher.update(&block[64..]);
    block[56..64].copy_from_slice(&hasher.digest().to_le_bytes());
}

#[test]
fn newer_formats_are_refused_and_never_cut() {
    for offset in [0, 4096, 12288] {
        let (folder, log, _) = three_batches();
        drop(log);
        damage(&folder.segment(1), offset, |block| as_newer_version(block));
        let Err(OpenError::Format { offset: found, .. }) = try_open(&folder.0) else { panic!("not refused") };
        assert_eq!(found, offset);
    }
    let (folder, log, _) = three_batches();
    let mut payload = batch(&log, 1, 0).bytes;
    drop(log);
    payload[0] += 1;
    let header = FrameHeader {
        kind: FrameKind::Batch,
        segment: 1,
        partition: 0,
        offset: 16384,
        next: 7,
        number: 3,
        durable_through: 3,
        payload: payload.len() as u32,
    };
    let mut frame = Vec::new();
    encode_frame(&header, &payload, &mut frame);
    damage(&folder.segment(1), 16384, |block| block.copy_from_slice(&frame));
    assert!(matches!(try_open(&folder.0), Err(OpenError::Format { offset: 16384, .. })));
}

#[test]
fn a_batch_whose_records_do_not_hash_to_its_head_refuses() {
    let (folder, log, _) = three_batches();
    let mut payload = batch(&log, 1, 0).bytes;
    drop(log);
    // A record's bytes, not those of the header or the head; the frame around it is whole.
    payload[100] ^= 1;
    let header = FrameHeader {
        kind: FrameKind::Batch,
        segment: 1,
        partition: 0,
        offset: 16384,
        next: 7,
        number: 3,
        durable_through: 3,
        payload: payload.len() as u32,
    };
    let mut frame = Vec::new();
    encode_frame(&header, &payload, &mut frame);
    damage(&folder.segment(1), 16384, |block| block.copy_from_slice(&frame));
    refused_at(&folder, 1, 16384);
}
