//! Segment files: what a crash may leave behind is passed over, everything else is damage.

use audit::AuditReport;
use chain::EncodedBatch;
use chain::frame::BLOCK;

use crate::books;
use crate::log::{Segments, put};
use crate::sketch::*;

/// Audits segments that hold the good sale, or as much as `batches` of it, with books that read as much.
fn audit_segments(read: usize, segments: &[Vec<u8>]) -> AuditReport {
    let folder = Folder::new();
    for (index, bytes) in segments.iter().enumerate() {
        put(&folder.sale(), index as u32 + 1, bytes);
    }
    books::write(&folder.0, &good(), read);
    audit(&folder.0, None)
}

fn good() -> Vec<EncodedBatch> {
    Sketch::good().encode()
}

/// One segment with all batches; gives its bytes and where its frames begin.
fn one_segment() -> (Vec<u8>, Vec<usize>) {
    let mut segments = Segments::begin();
    good().iter().for_each(|batch| segments.batch(batch));
    (segments.padded(), segments.offsets)
}

#[test]
fn a_torn_last_frame_is_passed_over() {
    let (mut bytes, offsets) = one_segment();
    let last = *offsets.last().unwrap();
    bytes[last + 100] ^= 1;
    let report = audit_segments(14, &[bytes]);
    assert!(report.ok, "{report}");
    assert_eq!(report.sales[0].batches, 14);
}

#[test]
fn a_damaged_frame_with_a_whole_one_behind_it_is_reported() {
    for block_is_lost in [false, true] {
        let (mut bytes, offsets) = one_segment();
        let at = offsets[offsets.len() - 2];
        if block_is_lost {
            bytes[at..at + BLOCK].fill(0);
        } else {
            bytes[at + 100] ^= 1;
        }
        let report = audit_segments(3, &[bytes]);
        assert_eq!(broken(&report.promises, &report.proof), ["chain"], "{report}");
        assert!(report.proof["chain"].evidence[0].contains(&format!("segment 1, offset {at}")), "{report}");
    }
}

#[test]
fn two_damaged_frames_at_the_end_are_reported_since_only_one_can_be_torn() {
    let (mut bytes, offsets) = one_segment();
    for at in &offsets[offsets.len() - 2..] {
        bytes[at + 100] ^= 1;
    }
    let report = audit_segments(3, &[bytes]);
    assert_eq!(broken(&report.promises, &report.proof), ["chain"], "{report}");
}

#[test]
fn a_frame_in_a_foreign_place_is_reported() {
    let (mut bytes, offsets) = one_segment();
    let (from, to) = (offsets[3], offsets[offsets.len() - 1] + BLOCK);
    bytes.copy_within(from..from + BLOCK, to);
    let report = audit_segments(3, &[bytes]);
    assert_eq!(broken(&report.promises, &report.proof), ["chain"], "{report}");
}

#[test]
fn a_tail_copied_at_a_start_counts_once_and_what_lies_behind_a_seal_is_ignored() {
    let batches = good();
    let mut segments = Segments::begin();
    batches[..4].iter().for_each(|batch| segments.batch(batch));
    let end = segments.forget(&batches[3]);
    let first = segments.roll_at(end);
    batches[3..].iter().for_each(|batch| segments.batch(batch));
    let report = audit_segments(batches.len(), &[first, segments.padded()]);
    assert!(report.ok, "{report}");
    assert_eq!(report.sales[0].batches, batches.len() as u64);
}

#[test]
fn a_torn_frame_behind_a_seal_is_ignored_and_a_sealed_segment_may_be_cut_to_its_end() {
    let batches = good();
    let mut segments = Segments::begin();
    batches[..4].iter().for_each(|batch| segments.batch(batch));
    let end = *segments.offsets.last().unwrap() + BLOCK;
    let mut torn = segments.roll();
    torn[end..end + 200].fill(7);
    batches[4..].iter().for_each(|batch| segments.batch(batch));
    let cut = torn[..end].to_vec();
    for first in [torn, cut] {
        let report = audit_segments(batches.len(), &[first, segments.padded()]);
        assert!(report.ok, "{report}");
    }
}

#[test]
fn a_sealed_segment_that_ends_before_its_seal_is_damage() {
    let batches = good();
    let mut segments = Segments::begin();
    batches[..4].iter().for_each(|batch| segments.batch(batch));
    let last = *segments.offsets.last().unwrap();
    let mut first = segments.roll();
    batches[4..].iter().for_each(|batch| segments.batch(batch));
    first[last + 70] ^= 1;
    let report = audit_segments(3, &[first, segments.padded()]);
    assert_eq!(broken(&report.promises, &report.proof), ["chain"], "{report}");
}

#[test]
fn a_missing_headless_or_shortened_segment_is_damage() {
    let batches = good();
    let mut segments = Segments::begin();
    batches[..4].iter().for_each(|batch| segments.batch(batch));
    let first = segments.roll();
    batches[4..].iter().for_each(|batch| segments.batch(batch));
    let last = segments.padded();
    let mut headless = last.clone();
    headless[70] ^= 1;
    let shortened = last[..3 * BLOCK].to_vec();
    let (single, _) = one_segment();
    for segments in [vec![first.clone(), headless], vec![first.clone(), shortened], vec![single[..8 * BLOCK].to_vec()]]
    {
        let report = audit_segments(3, &segments);
        assert_eq!(broken(&report.promises, &report.proof), ["chain"], "{report}");
    }
    let folder = Folder::new();
    put(&folder.sale(), 1, &first);
    put(&folder.sale(), 3, &last);
    books::write(&folder.0, &batches, 3);
    let report = audit(&folder.0, None);
    assert!(report.proof["chain"].evidence[0].contains("segment 2 is missing"), "{report}");
}

#[test]
fn damage_that_takes_what_the_books_have_read_breaks_durable_answer_too() {
    let (mut bytes, offsets) = one_segment();
    let last = *offsets.last().unwrap();
    bytes[last + 100] ^= 1;
    let report = audit_segments(15, &[bytes]);
    assert_eq!(broken(&report.promises, &report.proof), ["INV-4"], "{report}");
}

#[test]
fn a_log_that_grows_while_it_is_read_ends_at_some_whole_frame() {
    let batches = good();
    let folder = Folder::new();
    let mut segments = Segments::begin();
    batches[..3].iter().for_each(|batch| segments.batch(batch));
    put(&folder.sale(), 1, &segments.padded());
    books::write(&folder.0, &batches, 3);
    let path = folder.sale().join("00000001.segment");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for batch in &batches[3..] {
                use std::os::unix::fs::FileExt;
                segments.batch(batch);
                let from = *segments.offsets.last().unwrap();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                // Block by block and last block first, so that a reader may meet a frame half written.
                let whole = segments.padded();
                let end = (from + batch.bytes.len() + 64).div_ceil(BLOCK) * BLOCK;
                for at in (from..end).step_by(BLOCK).rev() {
                    file.write_all_at(&whole[at..at + BLOCK], at as u64).unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let report = audit(&folder.0, None);
            assert!(report.ok, "{report}");
        }
        writer.join().unwrap();
    });
    assert_eq!(audit(&folder.0, None).sales[0].batches, batches.len() as u64);
}

#[test]
fn a_sale_whose_process_died_at_its_creation_contradicts_nothing() {
    let folder = Folder::new();
    put(&folder.sale(), 1, &Segments::begin().padded());
    books::write(&folder.0, &[], 0);
    let report = audit(&folder.0, None);
    assert_eq!(broken(&report.promises, &report.proof), [""; 0], "{report}");
    assert!(!report.ok, "it shows nothing either");
}
