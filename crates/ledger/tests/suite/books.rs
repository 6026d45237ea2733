//! What the books promise: every record once, whole or parked, and the same books from the same chain.

use crate::support::{
    BEGIN, Folder, SALE, TestChain, confirmed, counts, digest, held, purchase, released, retaken, unit,
};
use domain::record::ReleaseReason;
use domain::{ChainTime, Currency, PurchaseNumber, Record};
use ledger::books::{OrderCounts, OrderStatus};
use ledger::{Applied, Books, BooksError, Service, StoreError};

/// One of everything: two items, holds of one and of two units, every ending, a stock change and a clock credit.
fn eventful() -> TestChain {
    let mut chain = TestChain::created(&[3, 10]);
    chain.push(&[held(0, 0, &[unit(0, 0)]), held(1, 1, &[unit(0, 0), unit(1, 0)]), held(2, 0, &[unit(1, 0)])]);
    chain.push(&[confirmed(0), released(2, ReleaseReason::Expired), held(3, 0, &[unit(1, 1)])]);
    chain.push(&[Record::ClockCredit(5_000), held(4, 0, &[unit(2, 0)])]);
    chain.push(&[
        released(3, ReleaseReason::CancelledByCustomer),
        released(1, ReleaseReason::CancelledByShop),
        retaken(2, &[unit(1, 2)]),
        Record::StockChanged { item: 1, added: 5, withdrawn: [unit(9, 0)].as_slice().into() },
    ]);
    chain.push(&[digest(&[counts(0, 1, 2, 0), counts(14, 0, 0, 1)])]);
    chain
}

/// Everything that the books hold of a sale, for comparisons.
fn content(books: &Books, sale: &str) -> String {
    format!(
        "{:?} {:?} {:?} {:?}",
        books.offset(Service::Orders, sale).unwrap(),
        books.orders_of_sale(sale, None, u32::MAX).unwrap(),
        books.inventory(sale).unwrap(),
        books.parked(0, u32::MAX).unwrap(),
    )
}

fn inventory(books: &Books, item: usize) -> domain::record::Counts {
    books.inventory(SALE).unwrap()[item].counts
}

#[test]
fn every_kind_of_record_takes_its_effect() {
    let chain = eventful();
    let mut books = Books::in_memory().unwrap();
    let applied = books.apply(Service::Orders, SALE, &chain.batches()).unwrap();
    assert_eq!(applied, Applied { records: chain.next, orders: 5, parked: 0, drift: None });
    assert_eq!(books.offset(Service::Orders, SALE).unwrap(), (chain.next, chain.head));
    assert_eq!((inventory(&books, 0), inventory(&books, 1)), (counts(0, 1, 2, 0), counts(14, 0, 0, 1)));
    assert_eq!(books.counts(SALE).unwrap(), OrderCounts { orders: 5, held: 1, paid: 2, released: 2 });

    let retaken = books.order(SALE, PurchaseNumber(2)).unwrap().unwrap();
    assert_eq!((retaken.status, retaken.release_reason), (OrderStatus::Confirmed, None));
    assert_eq!(retaken.units, [unit(1, 2)]);
    assert_eq!(retaken.ended_at, Some(ChainTime(BEGIN + 5_000)));
    let released = books.order(SALE, PurchaseNumber(1)).unwrap().unwrap();
    assert_eq!(released.status, OrderStatus::Released);
    assert_eq!(released.release_reason, Some(ReleaseReason::CancelledByShop));
    assert_eq!(released.units, [unit(0, 0), unit(1, 0)], "a released order keeps its units for history");
    assert_eq!((released.price, released.currency), (9_800, Currency(*b"EUR")));
    assert_eq!((released.purchase, released.record), (purchase(1), 4));
    assert_eq!(released.held_at, ChainTime(BEGIN + 2_000));
    assert_eq!(books.order(SALE, PurchaseNumber(9)).unwrap(), None);
}

#[test]
fn a_clock_credit_moves_open_deadlines_only() {
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &eventful().batches()).unwrap();
    let pay_by = |number| books.order(SALE, PurchaseNumber(number)).unwrap().unwrap().pay_by.0 - BEGIN - 600_000;
    assert_eq!(pay_by(0), 0, "confirmed before the credit");
    assert_eq!(pay_by(3), 5_003, "open at the credit");
    assert_eq!(pay_by(4), 4, "held after the credit");
}

#[test]
fn orders_are_listed_in_pages() {
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &eventful().batches()).unwrap();
    let page = |after, limit| -> Vec<u32> {
        books.orders_of_sale(SALE, after, limit).unwrap().iter().map(|order| order.number.0).collect()
    };
    assert_eq!(page(None, 2), [0, 1]);
    assert_eq!(page(Some(PurchaseNumber(1)), 2), [2, 3]);
    assert_eq!(page(Some(PurchaseNumber(3)), 2), [4]);
    assert_eq!(page(Some(PurchaseNumber(u32::MAX)), 2), [0; 0]);
}

#[test]
fn a_batch_takes_effect_once_and_a_duplicate_is_refused() {
    let chain = eventful();
    let batches = chain.batches();
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &batches[..3]).unwrap();
    let before = content(&books, SALE);
    let again = books.apply(Service::Orders, SALE, &batches[2..3]).unwrap_err();
    assert_eq!(again, BooksError::NotNext { sale: SALE.to_owned(), expected: 9, found: 6 });
    assert_eq!(content(&books, SALE), before);
    books.apply(Service::Orders, SALE, &batches[3..]).unwrap();
    assert_eq!(books.offset(Service::Orders, SALE).unwrap().0, chain.next);
}

#[test]
fn a_gap_or_a_wrong_order_is_refused_and_nothing_of_the_transaction_stays() {
    let batches = eventful().batches();
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &batches[..1]).unwrap();
    let before = content(&books, SALE);
    let gap = books.apply(Service::Orders, SALE, &batches[2..]).unwrap_err();
    assert_eq!(gap, BooksError::NotNext { sale: SALE.to_owned(), expected: 3, found: 6 });
    let swapped =
        books.apply(Service::Orders, SALE, &[batches[1].clone(), batches[3].clone(), batches[2].clone()]).unwrap_err();
    assert_eq!(swapped, BooksError::NotNext { sale: SALE.to_owned(), expected: 6, found: 9 });
    assert_eq!(content(&books, SALE), before);
}

#[test]
fn a_batch_of_another_history_is_refused() {
    let mut ours = TestChain::created(&[3]);
    let mut theirs = TestChain::created(&[4]);
    ours.push(&[held(0, 0, &[unit(0, 0)])]);
    theirs.push(&[held(0, 0, &[unit(0, 0)])]);
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &ours.batches()[..1]).unwrap();
    let refused = books.apply(Service::Orders, SALE, &theirs.batches()[1..]).unwrap_err();
    assert_eq!(refused, BooksError::OtherHistory { sale: SALE.to_owned(), at: 3 });
    let cut = ours.batches()[1][..100].to_vec();
    assert!(matches!(books.apply(Service::Orders, SALE, &[cut]).unwrap_err(), BooksError::Batch { at: 3, .. }));
}

#[test]
fn a_crash_before_the_commit_leaves_nothing_and_going_on_from_the_offset_loses_nothing() {
    let chain = eventful();
    let batches = chain.batches();
    let mut straight = Books::in_memory().unwrap();
    straight.apply(Service::Orders, SALE, &batches).unwrap();
    // At each batch: the state on disk is that of the last commit; the one in the making is gone.
    for crash in 0..batches.len() {
        let mut books = Books::in_memory().unwrap();
        books.apply(Service::Orders, SALE, &batches[..crash]).unwrap();
        let on_disk = books.snapshot().unwrap();
        books.apply(Service::Orders, SALE, &batches[crash..=crash]).unwrap();
        drop(books);
        let mut books = Books::restore(&on_disk).unwrap();
        let (next, _) = books.offset(Service::Orders, SALE).unwrap();
        let rest: Vec<_> =
            chain.encoded.iter().filter(|batch| batch.header.first >= next).map(|batch| batch.bytes.clone()).collect();
        assert_eq!(rest.len(), batches.len() - crash);
        books.apply(Service::Orders, SALE, &rest).unwrap();
        assert_eq!(content(&books, SALE), content(&straight, SALE));
    }
}

#[test]
fn books_deleted_and_rebuilt_are_equal() {
    let folder = Folder::new("rebuilt");
    let path = folder.path("books.sqlite");
    let batches = eventful().batches();
    let mut books = Books::open(&path).unwrap();
    for batch in &batches {
        books.apply(Service::Orders, SALE, std::slice::from_ref(batch)).unwrap();
    }
    let before = content(&books, SALE);
    drop(books);
    std::fs::remove_file(&path).unwrap();
    let mut books = Books::open(&path).unwrap();
    assert_eq!(books.offset(Service::Orders, SALE).unwrap(), (0, [0; 32]));
    books.apply(Service::Orders, SALE, &batches).unwrap();
    assert_eq!(content(&books, SALE), before);
}

#[test]
fn sales_do_not_see_each_other_and_readers_see_what_is_committed() {
    let folder = Folder::new("sales");
    let path = folder.path("books.sqlite");
    let mut books = Books::open(&path).unwrap();
    let reader = Books::open_reader(&path).unwrap();
    books.apply(Service::Orders, "one", &eventful().batches()).unwrap();
    let one = content(&reader, "one");
    assert_eq!(one, content(&books, "one"));
    books.apply(Service::Orders, "two", &TestChain::created(&[7]).batches()).unwrap();
    assert_eq!(content(&reader, "one"), one);
    assert_eq!(reader.inventory("two").unwrap()[0].counts, counts(7, 0, 0, 0));
    assert_eq!(reader.counts("two").unwrap(), OrderCounts::default());
}

#[test]
fn f06_f07_the_guard_lets_n_units_be_held_and_not_one_more() {
    let mut chain = TestChain::created(&[3]);
    chain.push(&(0..4).map(|number| held(number, 0, &[unit(number, 0)])).collect::<Vec<_>>());
    let mut books = Books::in_memory().unwrap();
    let applied = books.apply(Service::Orders, SALE, &chain.batches()).unwrap();
    assert_eq!((applied.orders, applied.parked), (3, 1));
    assert!(applied.drift.unwrap().contains("1 wanted of 0 free"));
    assert_eq!(inventory(&books, 0), counts(0, 3, 0, 0));
    let parked = books.parked(0, 10).unwrap();
    assert_eq!((parked[0].record, parked[0].kind.as_str()), (6, "held"));
    assert!(!parked[0].evidence.is_empty());

    // The same in a transaction of its own, with a quantity that would go below zero.
    let mut chain = TestChain::created(&[3]);
    chain.push(&[held(0, 0, &[unit(0, 0), unit(1, 0)])]);
    chain.push(&[held(1, 0, &[unit(2, 0), unit(3, 0)])]);
    chain.push(&[held(2, 0, &[unit(2, 0)])]);
    let mut books = Books::in_memory().unwrap();
    for batch in chain.batches() {
        books.apply(Service::Orders, SALE, &[batch]).unwrap();
    }
    assert_eq!(inventory(&books, 0), counts(0, 3, 0, 0));
    assert_eq!(books.counts(SALE).unwrap().orders, 2);
}

#[test]
fn f10_a_poison_record_is_parked_and_the_rest_goes_on() {
    let mut chain = TestChain::created(&[3]);
    // A hold without units has bytes that no writer makes and no reader takes.
    chain.push(&[held(0, 0, &[unit(0, 0)]), held(1, 0, &[]), held(2, 0, &[unit(1, 0)])]);
    chain.push(&[confirmed(2)]);
    let mut books = Books::in_memory().unwrap();
    let applied = books.apply(Service::Orders, SALE, &chain.batches()).unwrap();
    assert_eq!(
        applied,
        Applied { records: 7, orders: 2, parked: 1, drift: None },
        "one unreadable record stops nobody"
    );
    let parked = books.parked(0, 10).unwrap();
    assert_eq!((parked.len(), parked[0].record, parked[0].service.as_str()), (1, 4, "orders"));
    assert_eq!((parked[0].sale.as_str(), parked[0].at), (SALE, ChainTime(BEGIN + 2_000)));
    assert!(parked[0].reason.starts_with("unreadable"));
    assert_eq!(books.parked(parked[0].id, 10).unwrap(), []);
    assert_eq!(books.counts(SALE).unwrap(), OrderCounts { orders: 2, held: 1, paid: 1, released: 0 });
}

#[test]
fn records_that_contradict_the_books_are_parked_whole() {
    let other = Record::Confirmed { number: PurchaseNumber(1), purchase: purchase(2) };
    let table = [
        (held(0, 0, &[unit(2, 0)]), "purchase 0 has an order already"),
        (held(9, 5, &[unit(2, 0)]), "the sale has no item 5"),
        (released(7, ReleaseReason::Expired), "purchase 7 has no order"),
        (released(0, ReleaseReason::Expired), "the order of purchase 0 is released, not held"),
        (confirmed(0), "the order of purchase 0 is released, not held"),
        (other, "purchase 1 has another id in its order"),
        (retaken(1, &[unit(2, 0)]), "the order of purchase 1 is held, not released"),
        (retaken(0, &[unit(2, 0), unit(1, 0)]), "purchase 0 has 1 units, the record 2"),
        (
            Record::StockChanged { item: 0, added: 0, withdrawn: [unit(0, 1); 3].as_slice().into() },
            "item 0: 3 wanted of 2 free",
        ),
        (
            Record::StockChanged { item: 0, added: u32::MAX, withdrawn: [].as_slice().into() },
            "a number is too large to be compared exactly",
        ),
        (crate::support::created(&[3]), "the sale has been created before"),
        (Record::ClockCredit(u64::MAX), "a number is too large to be compared exactly"),
        (Record::Settled(vec![]), "the chain counts [], the books"),
    ];
    for (record, reason) in table {
        let mut chain = TestChain::created(&[3]);
        chain.push(&[held(0, 0, &[unit(0, 0)]), released(0, ReleaseReason::Expired), held(1, 0, &[unit(1, 0)])]);
        chain.push(std::slice::from_ref(&record));
        chain.push(&[confirmed(1)]);
        let batches = chain.batches();
        let mut books = Books::in_memory().unwrap();
        books.apply(Service::Orders, SALE, &batches[..2]).unwrap();
        let before = books.orders_of_sale(SALE, None, 10).unwrap();
        let applied = books.apply(Service::Orders, SALE, &batches[2..3]).unwrap();
        assert_eq!((applied.records, applied.parked), (1, 1), "{record:?}");
        let parked = books.parked(0, 10).unwrap();
        assert!(parked[0].reason.starts_with(reason), "{record:?}: {}", parked[0].reason);
        assert!(applied.drift.unwrap().contains(reason));
        assert_eq!(books.orders_of_sale(SALE, None, 10).unwrap(), before);
        assert_eq!(inventory(&books, 0), counts(2, 1, 0, 0));
        assert_eq!(
            books.apply(Service::Orders, SALE, &batches[3..]).unwrap().parked,
            0,
            "the next record goes on after {record:?}"
        );
        assert_eq!(inventory(&books, 0), counts(2, 0, 1, 0));
    }
}

#[test]
fn a_digest_that_counts_otherwise_is_drift_once() {
    let mut chain = TestChain::created(&[3]);
    chain.push(&[held(0, 0, &[unit(0, 0)]), digest(&[counts(1, 2, 0, 0)])]);
    chain.push(&[digest(&[counts(1, 2, 0, 0)])]);
    let batches = chain.batches();
    let mut books = Books::in_memory().unwrap();
    let applied = books.apply(Service::Orders, SALE, &batches[..2]).unwrap();
    assert_eq!((applied.parked, applied.drift.is_some()), (1, true));
    let applied = books.apply(Service::Orders, SALE, &batches[2..]).unwrap();
    assert_eq!((applied.parked, applied.drift), (0, None));
}

#[test]
fn books_ahead_of_the_log_are_refused() {
    let chain = eventful();
    let mut books = Books::in_memory().unwrap();
    books.apply(Service::Orders, SALE, &chain.batches()).unwrap();
    books.check_not_ahead(Service::Orders, SALE, chain.next, Some(&chain.head)).unwrap();
    let ahead = books.check_not_ahead(Service::Orders, SALE, chain.next - 1, None).unwrap_err();
    assert_eq!(ahead, BooksError::AheadOfLog { sale: SALE.to_owned(), books: chain.next, log: chain.next - 1 });
    for other in [None, Some(&[0; 32])] {
        let forked = books.check_not_ahead(Service::Orders, SALE, chain.next, other).unwrap_err();
        assert_eq!(forked, BooksError::OtherHistory { sale: SALE.to_owned(), at: chain.next });
    }
    books.check_not_ahead(Service::Orders, "new", 0, Some(&[0; 32])).unwrap();
}

#[test]
fn books_of_a_newer_version_are_refused_and_left_alone() {
    let folder = Folder::new("newer");
    let path = folder.path("books.sqlite");
    drop(Books::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    drop(connection);
    let newer = BooksError::Store(StoreError::Newer { found: 3, known: 2 });
    assert_eq!(Books::open(&path).err(), Some(newer.clone()));
    assert_eq!(Books::open_reader(&path).err(), Some(newer));
}

#[test]
fn a_damaged_file_and_a_missing_folder_are_told_apart() {
    let folder = Folder::new("damaged");
    let path = folder.path("books.sqlite");
    std::fs::write(&path, vec![b'x'; 8_192]).unwrap();
    assert!(matches!(Books::open(&path).err(), Some(BooksError::Store(StoreError::Damaged(_)))));
    let missing = folder.path("missing/books.sqlite");
    assert!(matches!(Books::open(&missing).err(), Some(BooksError::Store(StoreError::Unwritable(_)))));
}
