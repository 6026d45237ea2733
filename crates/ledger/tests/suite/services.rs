//! What the services beside that of orders keep: payments, coupons, points and products, each for itself.

use domain::record::{Attempt, Held, ReleaseReason};
use domain::{Currency, ParkReason, ParkedPayment, PurchaseNumber, Received, Record};
use ledger::books::{BenefitCounts, MoneyCounts};
use ledger::{Books, Service};
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::support::{
    BEGIN, Folder, SALE, TestChain, confirmed, created_with, held, purchase, released, retaken, unit,
};

/// The tables of every service, with the columns by which their rows are in order.
const TABLES: [(&str, &str); 17] = [
    ("offsets", "service, sale"),
    ("sales", "sale"),
    ("orders", "sale, number"),
    ("inventory", "sale, item"),
    ("payment_sales", "sale"),
    ("payment_orders", "sale, number"),
    ("payments", "sale, number, attempt"),
    ("payments_parked", "sale, record"),
    ("coupons", "sale, coupon"),
    ("coupon_orders", "sale, number"),
    ("point_rules", "sale, item"),
    ("point_orders", "sale, number"),
    ("points", "sale, customer"),
    ("point_postings", "sale, number, posting"),
    ("products", "sale, item"),
    ("product_orders", "sale, number"),
    ("parked", "service, sale, record"),
];

/// Rows as text, without the sale.
fn rows(folder: &Folder, sql: &str) -> Vec<String> {
    let connection = Connection::open(folder.path("books.sqlite")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let count = statement.column_count();
    let row = statement.query_map([], |row| {
        let cell = |index| {
            row.get(index).map(|value| match value {
                Value::Null => "-".to_owned(),
                Value::Integer(number) => number.to_string(),
                Value::Text(text) => text,
                other => format!("{other:?}"),
            })
        };
        Ok((0..count).map(cell).collect::<Result<Vec<_>, _>>()?.join(" "))
    });
    row.unwrap().map(Result::unwrap).collect()
}

/// Everything that all services hold; parked rows without their running number.
fn content(folder: &Folder) -> Vec<Vec<String>> {
    let of_table = |(table, order): (&str, &str)| match table {
        "parked" => {
            rows(folder, "SELECT service, record, kind, reason, evidence, at FROM parked ORDER BY service, record")
        }
        _ => rows(folder, &format!("SELECT * FROM {table} ORDER BY {order}")),
    };
    TABLES.into_iter().map(of_table).collect()
}

/// A sale of boots, which give 7 points each, and socks, with a coupon of 50 % that two orders may use.
fn beginning() -> TestChain {
    let mut chain = TestChain::new();
    let item = |name: &str, stock: u32| serde_json::json!({"item": name, "title": name, "stock": stock, "price": 4900, "limit_per_customer": 2});
    let mut boot = item("boot", 5);
    (boot["points"], boot["sku"], boot["external_id"]) = (7.into(), "B-1".into(), "article 1".into());
    let definition = serde_json::json!({
        "sale": SALE, "title": "Winter", "currency": "EUR", "opens_at": "2026-11-27T20:00:00Z",
        "closes_at": "2026-11-27T21:00:00Z", "limit_per_customer": 2, "items": [boot, item("sock", 9)],
        "coupons": [{"hash": 55, "percent": 50, "uses_max": 2}],
    });
    chain.push(&[created_with(&definition), Record::Epoch(1), Record::Opened]);
    chain
}

fn with_coupon(record: Record, hash: u64) -> Record {
    let Record::Held(held) = record else { unreachable!("a hold") };
    Record::Held(Held { coupon: hash, ..held })
}

fn attempt(number: u32, attempt: u8) -> Attempt {
    Attempt { number: PurchaseNumber(number), purchase: purchase(number), attempt }
}

fn parked(number: u32) -> Record {
    let parked = ParkedPayment {
        reason: ParkReason::WrongAmount,
        evidence: 77,
        amount: 1,
        currency: Currency(*b"USD"),
        reference: b"pay_1".to_vec(),
    };
    Record::PaymentParked { number: PurchaseNumber(number), purchase: purchase(number), parked: Box::new(parked) }
}

/// Boots 0 to 3 and socks 4: 0 is paid at its second attempt and refunded, 1 is paid by hand with a coupon, 2 expires with a coupon and its
/// late money takes a unit again, 3 is given back, 4 is paid by hand.
fn eventful() -> TestChain {
    let mut chain = beginning();
    chain.push(&[
        held(0, 0, &[unit(0, 0), unit(1, 0)]),
        with_coupon(held(1, 0, &[unit(2, 0)]), 55),
        with_coupon(held(2, 0, &[unit(3, 0)]), 55),
        held(3, 0, &[unit(4, 0)]),
        held(4, 1, &[unit(0, 0)]),
    ]);
    chain.push(&[
        Record::PaymentBegun(attempt(0, 0)),
        Record::PaymentEnded(attempt(0, 0)),
        Record::PaymentBegun(attempt(0, 1)),
        Record::PaymentBegun(attempt(2, 0)),
        parked(2),
        confirmed(1),
        confirmed(4),
    ]);
    chain.push(&[
        Record::PaymentReceived(attempt(0, 1), Received::Confirms),
        Record::PaymentReceived(attempt(0, 0), Received::RefundDue),
        Record::PaymentEnded(attempt(2, 0)),
        released(2, ReleaseReason::Expired),
        released(3, ReleaseReason::CancelledByCustomer),
    ]);
    chain.push(&[
        Record::PaymentReceived(attempt(2, 0), Received::Retakes([unit(4, 1)].as_slice().into())),
        Record::Refunded(attempt(0, 0)),
        Record::RefundOrdered(attempt(0, 1)),
        Record::StockChanged { item: 1, added: 3, withdrawn: [unit(8, 0)].as_slice().into() },
    ]);
    chain.push(&[Record::Refunded(attempt(0, 1))]);
    chain
}

fn apply_all(books: &mut Books, batches: &[Vec<u8>]) {
    for service in Service::ALL {
        let applied = books.apply(service, SALE, batches).unwrap();
        assert_eq!((applied.parked, applied.drift), (0, None), "{}", service.name());
    }
}

/// Books in a folder that read the whole of a chain.
fn read(chain: &TestChain) -> (Folder, Books) {
    let folder = Folder::new("services");
    let mut books = Books::open(&folder.path("books.sqlite")).unwrap();
    apply_all(&mut books, &chain.batches());
    (folder, books)
}

#[test]
fn every_service_keeps_what_a_chain_says_of_its_concern() {
    let (folder, books) = read(&eventful());
    let time = |seconds: u64| (BEGIN + seconds * 1_000).to_string();
    let payments = "SELECT number, attempt, status, amount, currency, begun_at, changed_at, record FROM payments";
    assert_eq!(
        rows(&folder, payments),
        [
            format!("0 0 refunded 9800 EUR {} {} 21", time(3), time(5)),
            format!("0 1 refunded 9800 EUR {} {} 24", time(3), time(6)),
            format!("2 0 paid 4900 EUR {} {} 20", time(3), time(5)),
        ]
    );
    assert_eq!(
        rows(&folder, "SELECT record, number, reason, evidence, amount, currency, reference, at FROM payments_parked"),
        [format!("12 2 wrong_amount 77 1 USD pay_1 {}", time(3))]
    );
    let parked = books.payments_parked(SALE, None, 2).unwrap();
    assert_eq!(parked.iter().map(|row| (row.record, row.number.0, row.amount)).collect::<Vec<_>>(), [(12, 2, 1)]);
    assert!(books.payments_parked(SALE, Some(12), 2).unwrap().is_empty());
    let counts = books.payment_counts().unwrap();
    let counts: Vec<_> = counts.iter().map(|(_, status, count)| (status.as_str(), *count)).collect();
    assert_eq!(counts, [("paid", 1), ("refunded", 2), ("parked", 1)]);
    assert_eq!(
        rows(&folder, "SELECT coupon, percent, uses_max, used, used_ever, given_back FROM coupons"),
        ["0 50 2 2 3 1"]
    );
    let points =
        "SELECT o.number, posted, taken_back, shortfall FROM points JOIN point_orders o USING (customer) ORDER BY 1";
    assert_eq!(rows(&folder, points), ["0 14 14 0", "1 7 0 0", "2 7 0 0"]);
    assert_eq!(
        rows(&folder, "SELECT number, posting, points, shortfall, record FROM point_postings ORDER BY record"),
        ["1 posted 7 0 13", "0 posted 14 0 15", "2 posted 7 0 20", "0 taken_back 14 0 24"]
    );
    assert_eq!(
        rows(&folder, "SELECT item, name, sku, external_id, sold, free FROM products"),
        ["0 boot B-1 article 1 4 1", "1 sock - - 1 10"]
    );
    let page = books.payments_of_sale(SALE, None, 2).unwrap();
    assert_eq!(page.iter().map(|row| (row.number.0, row.attempt)).collect::<Vec<_>>(), [(0, 0), (0, 1)]);
    let page = books.payments_of_sale(SALE, Some((PurchaseNumber(0), 1)), 2).unwrap();
    assert_eq!(page.iter().map(|row| (row.number.0, row.status.as_str())).collect::<Vec<_>>(), [(2, "paid")]);
    // Order 2 keeps its money, so only order 0 counts, and once.
    assert_eq!(books.money(SALE).unwrap(), MoneyCounts { refunded: 1, ..MoneyCounts::default() });
    let benefits = BenefitCounts { coupons_used: 2, points_posted: 28, points_taken_back: 14 };
    assert_eq!(books.benefits(SALE).unwrap(), benefits);
}

#[test]
fn money_that_came_too_late_is_unsettled_until_it_went_back() {
    let mut chain = beginning();
    chain.push(&[held(0, 0, &[unit(0, 0)]), held(1, 0, &[unit(1, 0)])]);
    chain.push(&[Record::PaymentBegun(attempt(0, 0)), Record::PaymentBegun(attempt(1, 0))]);
    assert_eq!(read(&chain).1.money(SALE).unwrap(), MoneyCounts { unsettled: 2, ..MoneyCounts::default() });
    chain.push(&[released(0, ReleaseReason::Expired)]);
    chain.push(&[
        Record::PaymentReceived(attempt(0, 0), Received::RefundDue),
        Record::PaymentReceived(attempt(1, 0), Received::Confirms),
    ]);
    assert_eq!(read(&chain).1.money(SALE).unwrap(), MoneyCounts { unsettled: 1, ..MoneyCounts::default() });
    chain.push(&[Record::Refunded(attempt(0, 0))]);
    assert_eq!(read(&chain).1.money(SALE).unwrap(), MoneyCounts { refunded_late: 1, ..MoneyCounts::default() });
    assert_eq!(read(&chain).1.money("another").unwrap(), MoneyCounts::default());
}

#[test]
fn tables_deleted_and_rebuilt_are_equal_however_the_services_took_turns() {
    let chain = eventful();
    let (whole, books) = read(&chain);
    drop(books);
    let folder = Folder::new("rebuilt-services");
    let mut books = Books::open(&folder.path("books.sqlite")).unwrap();
    for service in Service::ALL.into_iter().rev() {
        for batch in chain.batches() {
            books.apply(service, SALE, &[batch]).unwrap();
        }
    }
    assert_eq!(content(&folder), content(&whole));
}

#[test]
fn books_of_the_version_before_get_the_new_tables_from_the_chains_beginning() {
    let chain = eventful();
    let (whole, _books) = read(&chain);
    let folder = Folder::new("older");
    let path = folder.path("books.sqlite");
    Books::open(&path).unwrap().apply(Service::Orders, SALE, &chain.batches()).unwrap();
    let connection = Connection::open(&path).unwrap();
    let kept = ["offsets", "sales", "orders", "inventory", "parked"];
    for (table, _) in TABLES.into_iter().filter(|(table, _)| !kept.contains(table)) {
        connection.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let mut books = Books::open(&path).unwrap();
    for service in &Service::ALL[1..] {
        books.apply(*service, SALE, &chain.batches()).unwrap();
    }
    assert_eq!(content(&folder), content(&whole));
}

#[test]
fn what_does_not_fit_is_parked_by_whom_it_concerns_and_changes_nothing() {
    let other = Attempt { purchase: purchase(9), ..attempt(1, 0) };
    let paid = |number, of| Record::PaymentReceived(attempt(number, of), Received::Confirms);
    let table = [
        (
            Service::Payment,
            Record::PaymentBegun(attempt(0, 3)),
            "attempt 3 of purchase 0 cannot begin: it has 2, 0 of them open",
        ),
        (Service::Payment, Record::PaymentBegun(attempt(9, 0)), "purchase 9 has no order"),
        (Service::Payment, Record::PaymentBegun(other), "purchase 1 has another id in its order"),
        (Service::Payment, Record::PaymentEnded(attempt(1, 0)), "purchase 1 has no attempt 0"),
        (
            Service::Payment,
            Record::Refunded(attempt(0, 1)),
            "attempt 1 of purchase 0 is refunded, so it cannot become refunded",
        ),
        (Service::Payment, paid(2, 0), "purchase 2 is paid already"),
        (Service::Payment, parked(9), "purchase 9 has no order"),
        (
            Service::Coupon,
            with_coupon(held(9, 0, &[unit(9, 0)]), 56),
            "purchase 9 uses a coupon that the sale does not have",
        ),
        (Service::Coupon, with_coupon(held(9, 0, &[unit(9, 0)]), 55), "coupon 0 is used 3 times, 2 at most"),
        (Service::Coupon, confirmed(1), "the order of purchase 1 is confirmed, not held"),
        (Service::Points, confirmed(1), "the order of purchase 1 is confirmed, not held"),
        (Service::Points, retaken(0, &[unit(9, 0)]), "the order of purchase 0 is confirmed, not released"),
        (Service::Points, Record::Refunded(attempt(0, 1)), "the points of purchase 0 have been taken back already"),
        (Service::Product, held(9, 0, &[unit(8, 0), unit(9, 0)]), "item 0: 2 wanted of 1 free"),
        (Service::Product, confirmed(9), "purchase 9 has no order"),
        (Service::Product, held(0, 1, &[unit(9, 0)]), "purchase 0 has an order already"),
    ];
    for (service, record, reason) in table {
        let mut chain = eventful();
        chain.push(std::slice::from_ref(&record));
        chain.push(&[held(10, 1, &[unit(1, 0)])]);
        let batches = chain.batches();
        let (poison, after) = batches[batches.len() - 2..].split_at(1);
        let (folder, mut books) = read(&eventful());
        let before = content(&folder);
        let applied = books.apply(service, SALE, poison).unwrap();
        assert_eq!(applied.parked, 1, "{record:?}");
        assert!(applied.drift.unwrap().contains(reason), "{record:?}");
        let parked = books.parked(0, 10).unwrap();
        assert_eq!((parked[0].service.as_str(), parked[0].reason.as_str()), (service.name(), reason));
        let own = 1..TABLES.len() - 1;
        assert_eq!(content(&folder)[own.clone()], before[own], "{record:?}");
        assert_eq!(books.apply(service, SALE, after).unwrap().parked, 0, "the next record goes on after {record:?}");
    }
}

#[test]
fn what_cannot_be_taken_back_is_a_shortfall() {
    let chain = eventful();
    let batches = chain.batches();
    let folder = Folder::new("shortfall");
    let mut books = Books::open(&folder.path("books.sqlite")).unwrap();
    let (last, before) = batches.split_last().unwrap();
    books.apply(Service::Points, SALE, before).unwrap();
    Connection::open(folder.path("books.sqlite"))
        .unwrap()
        .execute("UPDATE points SET posted = 5 WHERE posted = 14", [])
        .unwrap();
    books.apply(Service::Points, SALE, std::slice::from_ref(last)).unwrap();
    assert_eq!(rows(&folder, "SELECT posted, taken_back, shortfall FROM points WHERE posted = 5"), ["5 5 9"]);
}
