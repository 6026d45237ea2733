//! Readers beside a writer, after it, and on what a crash left.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use chain::{Batch, DiskFiles, LogReader, ReadError};

use crate::support::{Folder, SALE, Seen, append, create, make_spare, open};

fn reader(folder: &Folder) -> LogReader {
    LogReader::open(Arc::new(DiskFiles), &folder.0).unwrap()
}

fn name(bytes: &[u8]) -> (u64, [u8; 32]) {
    let batch = Batch::parse(bytes).unwrap();
    batch.verify().unwrap();
    (batch.header.first, batch.head.head)
}

/// A log over several segments and restarts, with batches of many sizes.
fn mixed_log() -> (Folder, Seen) {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    for round in 0..60 {
        append(&mut log, 1 + round * 3, (round as usize * 613) % 4_096, &mut seen);
        if round % 7 == 0 {
            log.settle_tail().unwrap();
        }
        if round % 11 == 10 {
            drop(log);
            log = open(&folder.0).0;
        }
    }
    (folder, seen)
}

#[test]
fn a_reader_follows_a_live_writer_over_rolls() {
    let folder = Folder::new();
    let mut log = create(&folder.0);
    let watermark = log.watermark();
    let mut seen = Vec::new();
    let total: u64 = 400 * 40;
    let read = std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let (mut reader, mut read) = (reader(&folder), Vec::new());
            while reader.next() < total {
                let durable = watermark.wait_beyond(reader.next(), Duration::from_secs(60));
                while let Some(bytes) = reader.next_batch(durable).unwrap() {
                    read.push(name(&bytes));
                }
                assert_eq!(reader.next(), durable, "everything durable is readable");
            }
            read
        });
        for round in 0..400 {
            append(&mut log, 40, 500, &mut seen);
            if round % 90 == 0 && !log.has_spare() {
                make_spare(&mut log);
            }
            if round % 5 == 0 {
                log.settle_tail().unwrap();
            }
        }
        follower.join().unwrap()
    });
    assert!(folder.segment(3).exists());
    assert_eq!(read, seen);
}

#[test]
fn a_reader_gives_nothing_beyond_the_watermark() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    append(&mut log, 10, 0, &mut seen);
    append(&mut log, 10, 0, &mut seen);
    let mut reader = reader(&folder);
    assert_eq!(reader.sale(), SALE);
    for below in [0, 9] {
        assert!(reader.next_batch(below).unwrap().is_none());
    }
    assert_eq!(name(&reader.next_batch(19).unwrap().unwrap()), seen[0]);
    assert!(reader.next_batch(19).unwrap().is_none());
    assert_eq!(name(&reader.next_batch(20).unwrap().unwrap()), seen[1]);
    assert!(matches!(reader.next_batch(21), Err(ReadError::Damaged { .. })), "what is durable must be there");
}

#[test]
fn any_record_can_be_sought_and_fetched() {
    let (folder, seen) = mixed_log();
    let end = open(&folder.0).0.next();
    let (mut seeker, mut fetcher) = (reader(&folder), reader(&folder));
    for record in (0..end).rev().step_by(37).chain([0, end - 1]) {
        let holder = seen[seen.partition_point(|(first, _)| *first <= record) - 1];
        assert_eq!(name(&fetcher.batch_containing(record).unwrap().unwrap()), holder);
        seeker.seek(record).unwrap();
        assert_eq!(seeker.next(), holder.0);
        assert_eq!(name(&seeker.next_batch(end).unwrap().unwrap()), holder);
    }
    assert_eq!(fetcher.next(), 0, "fetching does not move the reader");
    assert!(fetcher.batch_containing(end).unwrap().is_none());
    seeker.seek(end + 5).unwrap();
    assert_eq!(seeker.next(), end);
    assert!(seeker.next_batch(end).unwrap().is_none());
}

#[test]
fn an_auditor_reads_to_the_last_whole_frame() {
    let (folder, mut seen) = mixed_log();
    let mut reader = reader(&folder);
    let mut read = Vec::new();
    while let Some(bytes) = reader.next_readable().unwrap() {
        read.push(name(&bytes));
    }
    assert_eq!(read, seen);
    // The writer comes back; the tail that was read already is passed over in the new segment.
    let (mut log, _) = open(&folder.0);
    assert!(reader.next_readable().unwrap().is_none());
    append(&mut log, 3, 0, &mut seen);
    assert_eq!(name(&reader.next_readable().unwrap().unwrap()), *seen.last().unwrap());
    assert!(reader.next_readable().unwrap().is_none());
}

#[test]
fn an_auditor_stops_at_a_torn_tail_and_reports_other_damage() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    for _ in 0..3 {
        append(&mut log, 1, 0, &mut seen);
    }
    let damage = |offset: u64| {
        let file = std::fs::File::options().write(true).open(folder.segment(1)).unwrap();
        file.write_all_at(&[0xEE; 1_000], offset).unwrap();
    };
    damage(12288 + 2_000);
    let mut auditor = reader(&folder);
    for expected in &seen[..2] {
        assert_eq!(name(&auditor.next_readable().unwrap().unwrap()), *expected);
    }
    assert!(auditor.next_readable().unwrap().is_none());
    damage(4096 + 2_000);
    let mut auditor = reader(&folder);
    assert!(matches!(auditor.next_readable(), Err(ReadError::Damaged { offset: 4096, .. })));
}

#[test]
fn no_log_is_no_reader() {
    let folder = Folder::new();
    assert!(matches!(LogReader::open(Arc::new(DiskFiles), &folder.0), Err(ReadError::Missing(_))));
}
