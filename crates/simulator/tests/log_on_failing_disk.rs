//! The real log on a disk that fails in every way it may: what was acknowledged is there afterwards, or the log refuses to start.

use std::path::Path;
use std::sync::Arc;

use chain::{
    AppendError, BatchBuilder, BatchHeader, EncodedBatch, Files, HeadSigner, Log, LogReader, OpenError, PrivatePart,
    ReadError,
};
use domain::ids::Hash;
use domain::{ChainTime, Record, SaleId};
use simulator::disk::FakeDisk;

const SALE: SaleId = SaleId([4; 16]);
const FOLDER: &str = "sales/drop";

/// A log on a fake disk beside the list of batches that it must hold: the naive model.
struct Bench {
    disk: FakeDisk,
    files: Arc<dyn Files>,
    signer: HeadSigner,
    log: Option<Log>,
    /// First record and head of every batch whose append returned `Ok` or that a replay has shown.
    acknowledged: Vec<(u64, Hash)>,
    /// The batch whose append did not return.
    unknown: Option<(u64, Hash)>,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let disk = FakeDisk::new(seed);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let signer = HeadSigner::from_seed(&[5; 32]);
        Self { disk, files, signer, log: None, acknowledged: Vec::new(), unknown: None }
    }

    fn created(seed: u64) -> Self {
        let mut bench = Self::new(seed);
        bench.start().unwrap();
        bench
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is open")
    }

    /// Opens the log, or creates it where a crash left none, and compares it with the model.
    fn start(&mut self) -> Result<(), OpenError> {
        self.log = None;
        let mut seen = Vec::new();
        let opened = Log::open(self.files.clone(), Path::new(FOLDER), Some(SALE), &mut |batch| {
            seen.push((batch.header.first, batch.head.head));
            Ok(())
        });
        self.log = Some(match opened {
            Err(OpenError::Missing(_)) => Log::create(self.files.clone(), Path::new(FOLDER), SALE)?,
            other => other?,
        });
        let unknown = self.unknown.take();
        if unknown.is_some() && seen.len() == self.acknowledged.len() + 1 {
            self.acknowledged.extend(unknown);
        }
        assert_eq!(seen, self.acknowledged, "every acknowledged batch, in order, and nothing else");
        self.read_back()
    }

    /// A reader by files finds the same, and no more.
    fn read_back(&mut self) -> Result<(), OpenError> {
        let next = self.log().next();
        let mut reader = match LogReader::open(self.files.clone(), Path::new(FOLDER)) {
            // The power went while the log gave space back, the last and only step of opening whose failure it forgives.
            Err(ReadError::Io { path, source }) => return Err(OpenError::Io { path, source }),
            other => other.unwrap(),
        };
        let mut seen = Vec::new();
        while let Some(bytes) = reader.next_batch(next).unwrap() {
            let batch = chain::Batch::parse(&bytes).unwrap();
            seen.push((batch.header.first, batch.head.head));
        }
        assert_eq!(seen, self.acknowledged);
        assert!(reader.next_readable().unwrap().is_none());
        Ok(())
    }

    fn batch(&mut self, private_kilobytes: u32) -> EncodedBatch {
        let log = self.log.as_ref().expect("the log is open");
        let count = private_kilobytes.div_ceil(4).max(1);
        let header = BatchHeader {
            sale: SALE,
            partition: 0,
            epoch: 1,
            time: ChainTime(log.time().0 + 1),
            first: log.next(),
            count,
        };
        let mut builder = BatchBuilder::new(header, log.head());
        let private = PrivatePart { commitment: [6; 32], sealed: vec![0x5A; 4 * 1024] };
        for number in 0..u64::from(count) {
            builder.push(&Record::ClockCredit(number), (private_kilobytes > 0).then_some(&private));
        }
        builder.finish(&self.signer)
    }

    fn append(&mut self, private_kilobytes: u32) -> Result<(), AppendError> {
        let batch = self.batch(private_kilobytes);
        let name = (batch.header.first, batch.head.head);
        let outcome = self.log().append(&batch);
        match &outcome {
            Ok(()) => self.acknowledged.push(name),
            Err(AppendError::Unknown(_)) => self.unknown = Some(name),
            Err(AppendError::Full(_) | AppendError::Stopped) => {}
        }
        outcome
    }

    fn make_spare(&mut self) {
        if let Some(task) = self.log().spare_wanted() {
            let outcome = task.run(self.files.as_ref());
            self.log().spare_finished(outcome);
        }
    }

    fn lose_power(&mut self) {
        self.disk.lose_power();
        self.log = None;
    }

    fn kill_process(&mut self) {
        self.disk.kill_process();
        self.log = None;
    }
}

/// Everything that changes files once: small and large batches, a spare and its use, a roll without one, a settled tail, restarts.
fn busy_day(bench: &mut Bench) -> Result<(), Box<dyn std::error::Error>> {
    bench.start()?;
    bench.append(0)?;
    bench.append(40)?;
    bench.make_spare();
    bench.log().settle_tail()?;
    bench.append(900)?;
    bench.append(300)?;
    bench.kill_process();
    bench.start()?;
    bench.append(0)?;
    bench.append(1_000)?;
    bench.append(900)?;
    bench.kill_process();
    bench.start()?;
    bench.append(4)?;
    Ok(())
}

#[test]
fn power_lost_at_every_operation_loses_nothing_acknowledged() {
    let mut whole = Bench::new(0);
    busy_day(&mut whole).unwrap();
    let operations = whole.disk.operations();
    assert!(operations > 60, "{operations}");
    for seed in 0..3 {
        for moment in 0..operations {
            let mut bench = Bench::new(seed * 1_000 + moment);
            bench.disk.lose_power_after(moment);
            assert!(busy_day(&mut bench).is_err(), "the power went at operation {moment}");
            bench.lose_power();
            bench.start().unwrap_or_else(|error| panic!("seed {seed}, operation {moment}: {error}"));
            bench.append(12).unwrap();
            bench.lose_power();
            bench.start().unwrap();
        }
    }
}

#[test]
fn power_lost_again_during_every_operation_of_recovery_loses_nothing() {
    for seed in 0..20 {
        for moment in 0..12 {
            let mut bench = Bench::created(seed);
            bench.append(8).unwrap();
            bench.append(16).unwrap();
            bench.disk.lose_power_after(seed % 2);
            let _ = bench.append(30);
            bench.lose_power();
            bench.disk.lose_power_after(moment);
            let unknown = bench.unknown;
            if bench.start().is_err() {
                bench.lose_power();
                bench.unknown = unknown;
                bench.start().unwrap_or_else(|error| panic!("seed {seed}, operation {moment}: {error}"));
            }
            bench.disk.clear_faults();
            bench.append(0).unwrap();
            bench.lose_power();
            bench.start().unwrap();
        }
    }
}

#[test]
fn random_days_agree_with_a_naive_model() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::created(seed);
        for _ in 0..40 {
            random_step(&mut bench, &mut random).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

fn random_step(bench: &mut Bench, random: &mut fastrand::Rng) -> Result<(), OpenError> {
    match random.u8(0..20) {
        0..10 => {
            let size = [0, 3, 30, 500][random.usize(0..4)];
            let _ = bench.append(size);
        }
        10..12 => {
            let _ = bench.log().settle_tail();
        }
        12 => bench.make_spare(),
        13 => bench.disk.leave_room([Some(0), Some(3 << 20), None][random.usize(0..3)]),
        14 => bench.disk.fail_sync_once(),
        15 => bench.disk.fail_write_once(),
        16 => bench.disk.lose_power_after(random.u64(0..12)),
        17 => {
            bench.kill_process();
            start_again(bench, random)?;
        }
        _ => {
            bench.lose_power();
            start_again(bench, random)?;
        }
    }
    Ok(())
}

/// Opens the log; when a fault that is still to strike hits the opening, the machine restarts without it.
fn start_again(bench: &mut Bench, random: &mut fastrand::Rng) -> Result<(), OpenError> {
    let unknown = bench.unknown;
    match bench.start() {
        Err(OpenError::Io { .. }) => {
            bench.unknown = unknown;
            bench.disk.clear_faults();
            if random.bool() {
                bench.lose_power()
            } else {
                bench.kill_process()
            }
            bench.start()
        }
        other => other,
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::created(seed);
        for _ in 0..60 {
            random_step(&mut bench, &mut random).unwrap();
        }
        (bench.disk.fingerprint(), bench.acknowledged)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn a_failed_sync_is_never_retried() {
    let mut bench = Bench::created(1);
    bench.append(8).unwrap();
    bench.disk.fail_sync_once();
    assert!(matches!(bench.append(8), Err(AppendError::Unknown(_))));
    let operations = bench.disk.operations();
    assert!(matches!(bench.append(8), Err(AppendError::Stopped)));
    assert!(matches!(bench.log().settle_tail(), Err(AppendError::Stopped)));
    assert_eq!(bench.disk.operations(), operations, "nothing is written behind a failed sync");
    bench.lose_power();
    bench.start().unwrap();
}

#[test]
fn what_a_failed_sync_left_in_memory_is_durable_before_it_counts() {
    for seed in 0..20 {
        let mut bench = Bench::created(seed);
        bench.append(8).unwrap();
        bench.disk.fail_sync_once();
        assert!(bench.append(20).is_err());
        bench.kill_process();
        bench.start().unwrap();
        assert_eq!(bench.acknowledged.len(), 2, "the page cache still has the batch");
        bench.lose_power();
        bench.start().unwrap();
    }
}

#[test]
fn a_failed_write_or_sync_stops_a_roll_too() {
    for operation in 0..2 {
        let mut bench = Bench::created(3);
        bench.append(900).unwrap();
        bench.make_spare();
        if operation == 0 {
            bench.disk.fail_write_once()
        } else {
            bench.disk.fail_sync_once()
        }
        assert!(matches!(bench.append(900), Err(AppendError::Unknown(_))));
        assert!(matches!(bench.append(0), Err(AppendError::Stopped)));
        bench.lose_power();
        bench.start().unwrap();
        bench.append(900).unwrap();
    }
}

#[test]
fn a_full_disk_is_definite_and_loses_nothing() {
    let mut bench = Bench::created(2);
    bench.append(600).unwrap();
    bench.disk.leave_room(Some(100_000));
    bench.make_spare();
    assert!(!bench.log().has_spare(), "no room for a spare: purchases pause");
    assert!(matches!(bench.append(900), Err(AppendError::Full(_))));
    bench.append(100).unwrap();
    bench.log().settle_tail().unwrap();
    bench.disk.leave_room(None);
    bench.append(900).unwrap();
    bench.lose_power();
    bench.start().unwrap();
}

#[test]
fn payments_go_on_from_the_spare_on_a_full_disk() {
    let mut bench = Bench::created(2);
    bench.make_spare();
    bench.append(900).unwrap();
    bench.disk.leave_room(Some(0));
    assert!(bench.log().has_spare());
    bench.append(900).unwrap();
    bench.make_spare();
    assert!(!bench.log().has_spare());
    bench.append(900).unwrap();
    assert!(matches!(bench.append(900), Err(AppendError::Full(_))));
    bench.lose_power();
    bench.disk.leave_room(None);
    bench.start().unwrap();
}

#[test]
fn a_log_opens_from_its_spare_on_a_full_disk() {
    for moment in 0..8 {
        let mut bench = Bench::created(moment);
        bench.make_spare();
        bench.append(300).unwrap();
        bench.disk.leave_room(Some(0));
        bench.lose_power();
        bench.disk.lose_power_after(moment);
        if bench.start().is_err() {
            bench.lose_power();
            bench.start().unwrap();
        }
        bench.disk.clear_faults();
        bench.append(300).unwrap();
        bench.lose_power();
        bench.start().unwrap();
    }
}

#[test]
fn a_misdirected_write_is_noticed() {
    let mut refused = 0;
    for seed in 0..30 {
        let mut bench = Bench::created(seed);
        for round in 0..6 {
            if round == seed % 6 {
                bench.disk.misdirect_write_once();
            }
            bench.append([0, 30, 90][round as usize % 3]).unwrap();
        }
        bench.lose_power();
        match bench.start() {
            Ok(()) => {}
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    assert!(refused >= 28, "{refused}: a stray write may hit its own place by chance");
}

#[test]
fn a_bit_flipped_behind_the_logs_back_is_noticed() {
    for bit in 0..8 {
        let mut bench = Bench::created(8);
        bench.append(8).unwrap();
        bench.append(8).unwrap();
        bench.kill_process();
        bench.disk.flip_bit(&Path::new(FOLDER).join("00000001.segment"), 4096 + 777 * usize::from(bit), bit);
        assert!(matches!(bench.start(), Err(OpenError::Damaged { offset: 4096, .. })));
    }
}
