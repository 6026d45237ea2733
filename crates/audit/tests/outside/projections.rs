//! Books that say something else than the chain.

use crate::books;
use crate::sketch::*;

fn audit_of_doctored(sql: &str) -> audit::AuditReport {
    let folder = Sketch::good().data();
    books::doctor(&folder.0, sql);
    audit(&folder.0, None)
}

#[test]
fn an_order_that_is_missing_doubled_or_different_breaks_durable_answer() {
    for sql in [
        "DELETE FROM orders WHERE number = 1",
        "DELETE FROM orders WHERE number = 3",
        "INSERT INTO orders SELECT sale, 9, purchase, customer, item, quantity, units, price, currency, status, NULL, held_at, \
         pay_by, ended_at, record FROM orders WHERE number = 0",
        "UPDATE orders SET status = 'held' WHERE number = 0",
        "UPDATE orders SET release_reason = 'expired' WHERE number = 1",
        "UPDATE orders SET units = x'0000000000000000' WHERE number = 2",
        "UPDATE orders SET customer = x'00' WHERE number = 2",
        "UPDATE orders SET purchase = x'00' WHERE number = 2",
        "UPDATE orders SET price = price + 1 WHERE number = 2",
        "UPDATE orders SET currency = 'USD' WHERE number = 2",
        "UPDATE orders SET pay_by = pay_by + 1 WHERE number = 2",
        "UPDATE orders SET ended_at = NULL WHERE number = 2",
        "UPDATE orders SET record = record + 1 WHERE number = 2",
        "UPDATE offsets SET head = zeroblob(32)",
        "INSERT INTO parked VALUES (1, 'orders', 'winter-drop', 5, 'held', 'unreadable', x'', 0)",
    ] {
        let report = audit_of_doctored(sql);
        assert_eq!(broken(&report.promises, &report.proof), ["INV-4"], "{sql}\n{report}");
        assert!(!report.ok);
    }
}

#[test]
fn inventory_that_differs_breaks_conservation() {
    for sql in [
        "UPDATE inventory SET free = free + 1 WHERE item = 0",
        "UPDATE inventory SET name = 'shoe' WHERE item = 1",
        "DELETE FROM inventory WHERE item = 1",
    ] {
        let report = audit_of_doctored(sql);
        assert_eq!(broken(&report.promises, &report.proof), ["INV-1"], "{sql}\n{report}");
    }
}

#[test]
fn books_ahead_of_the_log_break_durable_answer() {
    let report = audit_of_doctored("UPDATE offsets SET next = next + 1");
    assert_eq!(broken(&report.promises, &report.proof), ["INV-4"], "{report}");
}

#[test]
fn books_that_lag_are_compared_at_their_own_position() {
    let sketch = Sketch::good();
    let batches = sketch.encode();
    for read in 3..=batches.len() {
        let folder = books::lagging(&sketch, read);
        let report = audit(&folder.0, None);
        let lag = batches.last().unwrap().header.next() - batches[read - 1].header.next();
        assert!(report.ok, "{report}");
        assert_eq!(report.sales[0].books_lag, lag);
    }
}

/// A gate of a cluster has books that never read anything; a folder that was copied in part has none.
#[test]
fn a_folder_without_books_is_told_as_that_and_fails() {
    let folder = Sketch::good().data();
    let is_told = || {
        let report = audit(&folder.0, None);
        assert_eq!(broken(&report.promises, &report.proof), [""; 0], "{report}");
        assert_eq!(report.promises["INV-4"].status.name(), "nothing_checked");
        assert!(report.to_string().contains("not enough to check\nthere are no books to audit"), "{report}");
        !report.ok && !report.books_compared
    };
    assert!(audit(&folder.0, None).books_compared);
    for table in ["offsets", "orders", "inventory"] {
        books::doctor(&folder.0, &format!("DELETE FROM {table}"));
    }
    assert!(is_told());
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.0.join(format!("books.sqlite{suffix}")));
    }
    assert!(is_told());
}

#[test]
fn reading_beside_a_writer_sees_one_moment_of_the_books() {
    let folder = Sketch::good().data();
    let writer = books::open(&folder.0);
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM orders").unwrap();
    assert!(audit(&folder.0, None).ok, "an uncommitted change is nobody's business");
    writer.execute_batch("ROLLBACK").unwrap();
}
