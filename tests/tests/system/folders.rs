//! The data folder: whose it is, what may be lost of it, and what must not be touched.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use system_tests::{Folder, Server, audit_is_complete, doorbuster, open_sale};

/// A sale in which every way to end a hold was gone, and somebody heard `sold_out`.
fn lived_in(server: &Server, sale: &str) {
    server.create(&open_sale(sale, 6));
    let anna = server.customer("anna", sale);
    for number in 0..6 {
        let order = anna.buy("boot", &format!("key-{number}")).is(201, "held").text("order");
        match number % 3 {
            0 => server.confirm(&order).is(200, "confirmed"),
            1 => anna.cancel(&order).is(200, "released"),
            _ => anna.order(&order).is(200, "held"),
        };
    }
    let ben = server.customer("ben", sale);
    ben.attempt("boot", "two", 2).send().is(201, "held");
    ben.buy("boot", "one").is(409, "sold_out");
}

fn forget_books(data: &Path) {
    for name in ["books.sqlite", "books.sqlite-wal", "books.sqlite-shm"] {
        // Only the first is always there.
        let _ = fs::remove_file(data.join(name));
    }
}

#[test]
fn books_deleted_same_audit() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.drained("drop");
    // No open hold is left, so that a restart has no time to give back and the rows are the same to the last byte.
    for order in server.orders("drop").iter().filter(|order| order["status"] == "held") {
        server.confirm(order["order"].as_str().unwrap()).is(200, "confirmed");
    }
    server.drained("drop");
    let orders = server.orders("drop");
    assert_eq!(orders.len(), 7);
    server.terminate();
    let before = audit_is_complete(server.data(), Some(&server.notes()));
    forget_books(server.data());
    server.start_again();
    server.drained("drop");
    assert_eq!(server.orders("drop"), orders, "the books are built again from the chain");
    server.terminate();
    let after = audit_is_complete(server.data(), Some(&server.notes()));
    let ends = |report: &audit::AuditReport| {
        report.sales.iter().map(|sale| (sale.orders, sale.paid, sale.released, sale.books_lag)).collect::<Vec<_>>()
    };
    assert_eq!(ends(&before), ends(&after));
    let verdicts = |report: &audit::AuditReport| {
        report.promises.iter().map(|(id, promise)| (id.clone(), promise.status)).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&before), verdicts(&after));
}

#[test]
fn a_vault_that_is_gone_and_a_chain_that_is_gone_are_refused() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.drained("drop");
    server.terminate();
    let vault = server.data().join("vault.sqlite");
    let aside = server.data().join("aside");
    for gone in [vault, server.data().join("sales/drop")] {
        fs::rename(&gone, &aside).unwrap();
        server.refused(&[]).refused_with(&["drop", "restore", "backup"]);
        fs::rename(&aside, &gone).unwrap();
    }
    server.start_again();
    server.customer("cleo", "drop").buy("boot", "key").is(409, "sold_out");
}

#[test]
fn second_process_refused() {
    let server = Server::start();
    lived_in(&server, "drop");
    server.refused(&[]).refused_with(&["another process is using this data folder", "--data"]);
    server.customer("cleo", "drop").buy("boot", "key").is(409, "sold_out");
}

/// The segments of a sale in order.
fn segments(data: &Path, sale: &str) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(data.join("sales").join(sale))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    segments.sort();
    segments
}

/// Where frames begin in a segment: every one fills whole blocks and starts with the same four letters.
fn frames(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).unwrap();
    let blocks = bytes.chunks(4_096).enumerate().filter(|(_, block)| block.starts_with(b"DBFR"));
    blocks.map(|(index, _)| index as u64 * 4_096).collect()
}

fn flip(segment: &Path, at: u64, mask: u8) {
    let file = File::options().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= mask;
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn bit_flip_in_a_frame_that_anything_names_refuses_to_start() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.kill();
    server.start_again();
    server.customer("cleo", "drop").buy("boot", "key").is(409, "sold_out");
    server.terminate();
    let segments = segments(server.data(), "drop");
    assert_eq!(segments.len(), 2, "every start goes on in a new segment");
    let mut flipped = 0;
    for (number, segment) in segments.iter().enumerate() {
        let frames = frames(segment);
        // The last frame of the last segment is named by nothing: it may be cut, and the next test says so.
        let named = if number + 1 == segments.len() { &frames[..frames.len() - 1] } else { &frames[..] };
        for &frame in named {
            let name = segment.file_name().unwrap().to_str().unwrap();
            for (byte, mask) in [(0, 0x01), (20, 0x80), (60, 0x10), (70, 0x04), (90, 0x40)] {
                flip(segment, frame + byte, mask);
                server.refused(&[]).refused_with(&[name, &format!("offset {frame}")]);
                flip(segment, frame + byte, mask);
                flipped += 1;
            }
        }
    }
    assert!(flipped >= 30, "{flipped} bits were flipped");
    server.start_again();
}

#[test]
fn a_last_frame_that_nothing_names_is_cut_and_nothing_else() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.drained("drop");
    let orders = server.orders("drop");
    server.terminate();
    let segment = segments(server.data(), "drop").pop().unwrap();
    let last = frames(&segment).pop().unwrap();
    flip(&segment, last + 70, 0x04);
    server.start_again();
    server.drained("drop");
    let numbers = |orders: &[Value]| orders.iter().map(|order| order["purchase"].clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&server.orders("drop")), numbers(&orders));
}

#[test]
fn folders_that_are_not_ours_to_use_are_refused_and_left_as_they_are() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.terminate();
    let version = server.data().join("VERSION");
    fs::write(&version, "doorbuster data 2\n").unwrap();
    server.refused(&[]).refused_with(&["doorbuster data 2", "use the version that wrote it"]);
    fs::write(&version, "doorbuster data 1\n").unwrap();

    let books = server.data().join("books.sqlite");
    let mut hidden = server.data().join("hidden");
    fs::rename(&books, &hidden).unwrap();
    fs::create_dir(&books).unwrap();
    server.refused(&[]).refused_with(&["books.sqlite"]);
    fs::remove_dir(&books).unwrap();
    fs::rename(&hidden, &books).unwrap();

    let sales = server.data().join("sales");
    hidden = server.data().join("hidden");
    fs::rename(&sales, &hidden).unwrap();
    fs::write(&sales, "a file where a folder belongs").unwrap();
    server.refused(&[]).refused_with(&["the folder must be readable and writable"]);
    fs::remove_file(&sales).unwrap();
    fs::rename(&hidden, &sales).unwrap();
    server.start_again();
}

#[test]
fn a_data_folder_that_cannot_be_written_is_refused_with_its_path() {
    let folder = Folder::new();
    let file = folder.join("a-file");
    fs::write(&file, "not a folder").unwrap();
    for data in [file.clone(), file.join("inside")] {
        let ended =
            doorbuster(&["serve", "--data", data.to_str().unwrap(), "--set", "identity.dangerous_guest_tokens=true"]);
        ended.refused_with(&["a-file"]);
    }
    let foreign = folder.join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letters.txt"), "mine").unwrap();
    let ended =
        doorbuster(&["serve", "--data", foreign.to_str().unwrap(), "--set", "identity.dangerous_guest_tokens=true"]);
    ended.refused_with(&["is not a data folder", "choose an empty or new one"]);
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "nothing was put there");
}

#[test]
fn books_that_know_more_than_the_log_are_refused() {
    let mut server = Server::start();
    lived_in(&server, "drop");
    server.drained("drop");
    server.terminate();
    let connection = rusqlite::Connection::open(server.data().join("books.sqlite")).unwrap();
    let next: i64 = connection.query_row("SELECT next FROM offsets", [], |row| row.get(0)).unwrap();
    connection.execute("UPDATE offsets SET next = ?1", [next + 1_000]).unwrap();
    server.refused(&[]).refused_with(&["drop"]);
    connection.execute("UPDATE offsets SET next = ?1", [next]).unwrap();
    drop(connection);
    server.start_again();
    server.drained("drop");
}
