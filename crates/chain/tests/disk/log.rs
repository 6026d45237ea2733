//! The writer on a real disk: what was appended is there again, in bounded space, and only for one process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, SALE, append, batch, create, make_spare, open, try_open};
use chain::{DiskFiles, Log, OpenError, Watermark};
use domain::SaleId;

#[test]
fn every_batch_is_there_again_after_reopening() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    for count in 1..20 {
        append(&mut log, count, 100, &mut seen);
    }
    let (next, head, time, signed) = (log.next(), log.head(), log.time(), log.last_signed_head());
    assert_eq!(log.watermark().next(), next);
    drop(log);
    let (mut log, replayed) = open(&folder.0);
    assert_eq!(replayed, seen);
    assert_eq!((log.next(), log.head(), log.time(), log.last_signed_head()), (next, head, time, signed));
    assert_eq!((log.sale(), log.epoch(), log.watermark().next()), (SALE, 1, next));
    append(&mut log, 5, 0, &mut seen);
    drop(log);
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn an_empty_log_opens_empty() {
    let folder = Folder::new();
    drop(create(&folder.0));
    for _ in 0..3 {
        let (log, replayed) = open(&folder.0);
        assert!(replayed.is_empty());
        assert_eq!((log.next(), log.head(), log.last_signed_head()), (0, [0; 32], None));
    }
}

#[test]
fn segments_double_when_spares_are_ready() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    while !folder.segment(4).exists() {
        if !log.has_spare() {
            make_spare(&mut log);
        }
        append(&mut log, 200, 3_000, &mut seen);
    }
    let length = |number| std::fs::metadata(folder.segment(number)).unwrap().len() >> 20;
    assert_eq!([length(1), length(2), length(3), length(4)], [1, 2, 4, 8]);
    drop(log);
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn the_log_rolls_without_a_spare_too() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    while !folder.segment(4).exists() {
        append(&mut log, 250, 4_000, &mut seen);
        assert!(!log.has_spare());
    }
    drop(log);
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn the_largest_batch_fits_and_survives_as_a_tail() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    append(&mut log, 252, 4_096, &mut seen);
    assert!(batch(&log, 252, 4_096).bytes.len() > (1 << 20) - 5_000);
    for _ in 0..3 {
        drop(log);
        let (reopened, replayed) = open(&folder.0);
        assert_eq!(replayed, seen);
        log = reopened;
        append(&mut log, 252, 4_096, &mut seen);
    }
}

#[test]
fn a_spare_is_made_once_and_outlives_a_restart() {
    let folder = Folder::new();
    let mut log = create(&folder.0);
    assert!(!log.has_spare());
    let task = log.spare_wanted().unwrap();
    assert!(log.spare_wanted().is_none(), "one is in the making");
    log.spare_finished(Err(std::io::ErrorKind::StorageFull.into()));
    assert!(!log.has_spare());
    assert!(log.spare_wanted().is_some(), "a failed one is asked for again");
    log.spare_finished(task.run(&DiskFiles));
    assert!(log.has_spare() && log.spare_wanted().is_none());
    drop(log);
    assert!(open(&folder.0).0.has_spare());
}

#[test]
fn second_process_refused() {
    let folder = Folder::new();
    let log = create(&folder.0);
    assert!(matches!(try_open(&folder.0), Err(OpenError::Locked(_))));
    assert!(matches!(Log::create(Arc::new(DiskFiles), &folder.0, SALE), Err(OpenError::Locked(_))));
    drop(log);
    open(&folder.0);
}

#[test]
fn wrong_folders_are_refused_by_name() {
    let folder = Folder::new();
    assert!(matches!(try_open(&folder.0), Err(OpenError::Missing(_))));
    std::fs::create_dir_all(&folder.0).unwrap();
    assert!(matches!(try_open(&folder.0), Err(OpenError::Missing(_))), "an empty folder is no log");
    drop(create(&folder.0));
    assert!(matches!(Log::create(Arc::new(DiskFiles), &folder.0, SALE), Err(OpenError::Exists(_))));
    let other = Log::open(Arc::new(DiskFiles), &folder.0, Some(SaleId([8; 16])), &mut |_| Ok(()));
    assert!(matches!(other, Err(OpenError::OtherSale { found: SALE, .. })));
    let file = folder.0.join("file");
    std::fs::write(&file, "no folder").unwrap();
    let error = Log::create(Arc::new(DiskFiles), &file, SALE).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }) && error.to_string().contains("file"), "{error}");
    let unwritable = Log::create(Arc::new(DiskFiles), Path::new("/proc/doorbuster"), SALE).err().unwrap();
    assert!(unwritable.to_string().contains("/proc/doorbuster"), "{unwritable}");
}

#[test]
fn a_refused_replay_changes_nothing() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    let mut log = create(&folder.0);
    append(&mut log, 1, 0, &mut seen);
    append(&mut log, 1, 0, &mut seen);
    drop(log);
    let refused = Log::open(Arc::new(DiskFiles), &folder.0, None, &mut |batch| match batch.header.first {
        0 => Ok(()),
        _ => Err("no such item".to_owned()),
    });
    assert!(matches!(refused, Err(OpenError::Replay { first: 1, .. })));
    assert!(!folder.segment(2).exists());
    assert_eq!(open(&folder.0).1, seen);
}

#[test]
fn many_restarts_take_little_space() {
    let folder = Folder::new();
    let mut seen = Vec::new();
    drop(create(&folder.0));
    for _ in 0..100 {
        let (mut log, replayed) = open(&folder.0);
        assert_eq!(replayed, seen);
        append(&mut log, 1, 0, &mut seen);
    }
    // Per restart: seal, tail, the frame that names it. The new segment keeps its room.
    assert!(folder.bytes() <= (1 << 20) + 102 * 4 * 4096, "{} bytes", folder.bytes());
}

#[test]
fn settling_twice_writes_once() {
    let folder = Folder::new();
    let mut log = create(&folder.0);
    append(&mut log, 1, 0, &mut Vec::new());
    let frames = || {
        let bytes = std::fs::read(folder.segment(1)).unwrap();
        bytes.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count()
    };
    assert_eq!(frames(), 2);
    log.settle_tail().unwrap();
    log.settle_tail().unwrap();
    assert_eq!(frames(), 3);
}

#[test]
fn the_last_batch_of_a_full_segment_can_still_be_named() {
    let folder = Folder::new();
    let mut log = create(&folder.0);
    while !folder.segment(2).exists() {
        append(&mut log, 1, 0, &mut Vec::new());
        log.settle_tail().unwrap();
    }
}

#[test]
#[should_panic(expected = "a batch extends the log's head")]
fn a_batch_of_another_history_is_a_fault() {
    let (folder, other) = (Folder::new(), Folder::new());
    let mut log = create(&folder.0);
    let mut forked = create(&other.0);
    append(&mut log, 1, 0, &mut Vec::new());
    append(&mut forked, 1, 10, &mut Vec::new());
    let stranger = batch(&forked, 1, 0);
    let _ = log.append(&stranger);
}

#[test]
fn a_waiting_reader_is_woken_and_an_impatient_one_gives_up() {
    let watermark = Arc::new(Watermark::new(5));
    assert_eq!(watermark.wait_beyond(4, Duration::from_secs(60)), 5);
    assert_eq!(watermark.wait_beyond(5, Duration::from_millis(1)), 5);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..4).map(|_| scope.spawn(|| watermark.wait_beyond(5, Duration::from_secs(60)))).collect();
        watermark.publish(9);
        assert!(waiting.into_iter().all(|reader| reader.join().unwrap() == 9));
    });
    assert!(start.elapsed() < Duration::from_secs(30));
}
