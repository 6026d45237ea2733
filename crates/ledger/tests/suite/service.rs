//! What the service promises: it follows every durable record, never beyond, at its pace, and gives up on nobody.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chain::files::{File, FolderLock};
use chain::{DiskFiles, Files, Log, LogReader, Watermark};
use domain::record::ReleaseReason;
use ledger::books::OrderCounts;
use ledger::{Books, BooksError, BooksService, FollowState, Pace, Service, StepError, step};

use crate::support::{Folder, SALE, TestChain, confirmed, held, released, unit, wait_until};

/// The order service's drift calls as (sale, reason).
type Calls = Arc<Mutex<Vec<(String, String)>>>;

fn start(folder: &Folder, files: Arc<dyn Files>, pace: Pace) -> (BooksService, Calls) {
    let calls = Calls::default();
    let heard = Arc::clone(&calls);
    let on_drift = Box::new(move |service: Service, sale: &str, reason: &str| {
        if service == Service::Orders {
            heard.lock().unwrap().push((sale.to_owned(), reason.to_owned()));
        }
    });
    let books = Books::open(&folder.path("books.sqlite")).unwrap();
    (BooksService::start(books, files, pace, on_drift).unwrap(), calls)
}

/// A log in the folder `name` with all batches of the chain so far.
fn log_of(folder: &Folder, name: &str, chain: &TestChain) -> Log {
    let mut log = Log::create(Arc::new(DiskFiles), &folder.path(name), chain.sale()).unwrap();
    append(&mut log, chain);
    log
}

fn append(log: &mut Log, chain: &TestChain) {
    let next = log.next();
    for batch in chain.encoded.iter().filter(|batch| batch.header.first >= next) {
        log.append(batch).unwrap();
    }
}

/// A chain with `holds` holds of one unit each, ten to a batch.
fn busy_chain(holds: u32) -> TestChain {
    let mut chain = TestChain::created(&[holds]);
    for first in (0..holds).step_by(10) {
        chain.push(&(first..holds.min(first + 10)).map(|n| held(n, 0, &[unit(n, 0)])).collect::<Vec<_>>());
    }
    chain
}

#[test]
fn the_service_follows_a_growing_log_and_goes_on_after_a_restart() {
    let folder = Folder::new("follow");
    let mut chain = busy_chain(100);
    let mut log = log_of(&folder, SALE, &chain);
    let (service, calls) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), log.watermark());
    wait_until("the first hundred are drained", || service.drained(Service::Orders, SALE) == chain.next);
    chain.push(&[confirmed(0), released(1, ReleaseReason::Expired)]);
    append(&mut log, &chain);
    wait_until("the endings are drained", || service.drained(Service::Orders, SALE) == chain.next);
    assert_eq!(service.state(Service::Orders, SALE), Some(FollowState::Running));
    assert_eq!(service.state(Service::Orders, "unknown"), None);
    service.shutdown();

    chain.push(&[confirmed(2)]);
    append(&mut log, &chain);
    let (service, _) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), log.watermark());
    wait_until("the restarted service has caught up", || service.drained(Service::Orders, SALE) == chain.next);
    let books = Books::open_reader(&folder.path("books.sqlite")).unwrap();
    assert_eq!(books.counts(SALE).unwrap(), OrderCounts { orders: 100, held: 97, paid: 2, released: 1 });
    assert_eq!(*calls.lock().unwrap(), []);
}

#[test]
fn one_service_follows_many_sales_added_while_it_runs() {
    let folder = Folder::new("many");
    let (service, _) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    let mut sales = Vec::new();
    for number in 0..5 {
        let name = format!("sale-{number}");
        let chain = busy_chain(20 + number);
        let log = log_of(&folder, &name, &chain);
        service.add_sale(&name, folder.path(&name), log.watermark());
        service.add_sale(&name, folder.path(&name), log.watermark());
        sales.push((name, chain, log));
    }
    for (name, chain, log) in &mut sales {
        chain.push(&[confirmed(0)]);
        append(log, chain);
        wait_until("all sales are drained", || service.drained(Service::Orders, name) == chain.next);
    }
    let books = Books::open_reader(&folder.path("books.sqlite")).unwrap();
    for (number, (name, ..)) in sales.iter().enumerate() {
        assert_eq!(books.counts(name).unwrap().orders, 20 + number as u64);
    }
}

#[test]
fn books_never_get_ahead_of_the_durable_end() {
    let folder = Folder::new("durable");
    let chain = busy_chain(30);
    let _log = log_of(&folder, SALE, &chain);
    let (service, _) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    // Batches end at 3, 13, 23 and 33; up to 15 only the first two are wholly durable.
    let watermark = Arc::new(Watermark::new(15));
    service.add_sale(SALE, folder.path(SALE), Arc::clone(&watermark));
    wait_until("the durable batches are drained", || service.drained(Service::Orders, SALE) == 13);
    watermark.publish(23);
    wait_until("the next batch is drained", || service.drained(Service::Orders, SALE) == 23);
    service.shutdown();
    let books = Books::open_reader(&folder.path("books.sqlite")).unwrap();
    assert_eq!(books.offset(Service::Orders, SALE).unwrap().0, 23);
}

#[test]
fn books_ahead_of_the_log_stop_and_say_so() {
    let folder = Folder::new("ahead");
    let chain = busy_chain(30);
    let _log = log_of(&folder, SALE, &chain);
    Books::open(&folder.path("books.sqlite")).unwrap().apply(Service::Orders, SALE, &chain.batches()).unwrap();
    let (service, calls) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), Arc::new(Watermark::new(13)));
    wait_until("the sale is stopped", || matches!(service.state(Service::Orders, SALE), Some(FollowState::Stopped(_))));
    service.shutdown();
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].1.contains("the books stand at record 33, but the log ends at 13"), "{}", calls[0].1);
}

#[test]
fn drift_is_reported_and_the_books_go_on() {
    let folder = Folder::new("drift");
    let mut chain = TestChain::created(&[1]);
    chain.push(&[held(0, 0, &[unit(0, 0)]), held(1, 0, &[unit(1, 0)])]);
    chain.push(&[confirmed(0)]);
    let log = log_of(&folder, SALE, &chain);
    let (service, calls) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), log.watermark());
    wait_until("all is drained", || service.drained(Service::Orders, SALE) == chain.next);
    service.shutdown();
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].0, SALE);
    assert!(calls[0].1.contains("wanted of 0 free"), "{}", calls[0].1);
}

#[test]
fn a_failing_disk_is_tried_again_until_it_works() {
    let folder = Folder::new("failing");
    let chain = busy_chain(30);
    let log = log_of(&folder, SALE, &chain);
    let files = Arc::new(FailingFiles { failing: AtomicBool::new(true) });
    let (service, calls) = start(&folder, Arc::clone(&files) as Arc<dyn Files>, Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), log.watermark());
    wait_until("the error shows", || matches!(service.state(Service::Orders, SALE), Some(FollowState::Retrying(_))));
    assert_eq!(service.drained(Service::Orders, SALE), 0);
    files.failing.store(false, Ordering::SeqCst);
    wait_until("the books have caught up", || service.drained(Service::Orders, SALE) == chain.next);
    assert_eq!(service.state(Service::Orders, SALE), Some(FollowState::Running));
    assert_eq!(*calls.lock().unwrap(), [], "a failing disk is no contradiction");
}

#[test]
fn a_paced_service_keeps_its_pace() {
    let folder = Folder::new("paced");
    let chain = busy_chain(500);
    let log = log_of(&folder, SALE, &chain);
    let (service, _) = start(&folder, Arc::new(DiskFiles), Pace::PerSecond(1_000));
    let begun = Instant::now();
    service.add_sale(SALE, folder.path(SALE), log.watermark());
    wait_until("all is drained", || service.drained(Service::Orders, SALE) == chain.next);
    // 503 records at 1,000 a second, less the first slice and the last, whose cost is waited off afterwards.
    assert!(begun.elapsed() >= Duration::from_millis(350), "drained in {:?}", begun.elapsed());
}

#[test]
fn steps_without_the_thread_take_whole_batches_and_end_with_the_log() {
    let folder = Folder::new("steps");
    let chain = busy_chain(35);
    let _log = log_of(&folder, SALE, &chain);
    let mut books = Books::in_memory().unwrap();
    let mut reader = LogReader::open(Arc::new(DiskFiles), &folder.path(SALE)).unwrap();
    let mut records = Vec::new();
    loop {
        // The reader may have been anywhere; the books' offset decides.
        reader.seek(0).unwrap();
        let applied = step(&mut books, Service::Orders, &mut reader, SALE, chain.next, 11).unwrap();
        if applied.records == 0 {
            break;
        }
        records.push(applied.records);
    }
    assert_eq!(records, [13, 20, 5]);
    assert_eq!(books.offset(Service::Orders, SALE).unwrap(), (chain.next, chain.head));
    let ahead = step(&mut books, Service::Orders, &mut reader, SALE, 13, 11).unwrap_err();
    assert!(matches!(ahead, StepError::Books(BooksError::AheadOfLog { books: 38, log: 13, .. })), "{ahead}");
}

#[test]
fn a_service_that_stops_or_parks_holds_up_no_other() {
    let folder = Folder::new("apart");
    let chain = busy_chain(30);
    let _log = log_of(&folder, SALE, &chain);
    let mut books = Books::open(&folder.path("books.sqlite")).unwrap();
    books.apply(Service::Payment, SALE, &chain.batches()).unwrap();
    drop(books);
    let (service, calls) = start(&folder, Arc::new(DiskFiles), Pace::Unlimited);
    service.add_sale(SALE, folder.path(SALE), Arc::new(Watermark::new(13)));
    for of in Service::ALL {
        let done = || match service.state(of, SALE) {
            Some(FollowState::Stopped(_)) => of == Service::Payment,
            state => state == Some(FollowState::Running) && service.drained(of, SALE) == 13,
        };
        wait_until("the payment service has stopped and the others go on", done);
    }
    assert_eq!(*calls.lock().unwrap(), [], "the orders fit");
}

/// The machine's disk, which can be made to refuse every file.
struct FailingFiles {
    failing: AtomicBool,
}

impl Files for FailingFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        DiskFiles.create_folder(folder)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        DiskFiles.list(folder)
    }
    fn lock(&self, folder: &Path) -> io::Result<FolderLock> {
        DiskFiles.lock(folder)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        DiskFiles.create(path)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn File>> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is away"));
        }
        DiskFiles.open(path, writable)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        DiskFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        DiskFiles.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        DiskFiles.sync_folder(folder)
    }
}
