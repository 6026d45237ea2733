//! A disk without room: purchases pause, what is held can still be paid and given back, and room makes it go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use system_tests::{Folder, Request, Server, open_sale, until};

/// A small file system of its own; `None`, and a word about it, where that is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "doorbuster-test"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            refused => {
                eprintln!("skipped: a small file system needs the right to mount: {refused:?}");
                None
            }
        }
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let filler = fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        let mut piece = 1 << 20;
        while piece >= 512 {
            use std::io::Write as _;
            if (&filler).write_all(&vec![1; piece]).is_err() {
                piece /= 2;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server of a failed test may still be on it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_pauses_purchases_and_nothing_else_and_room_makes_it_go_on() {
    // They go in the other order: the server, the disk that it lived on, the folder under the disk.
    let place = Folder::new();
    let Some(disk) = SmallDisk::mount(place.path()) else { return };
    let mut server = Server::start_in(Folder::new(), place.join("data"), &[]);
    server.create(&open_sale("drop", 1_000_000));
    let anna = server.customer("anna", "drop");
    let spare = server.data().join("sales/drop/spare");
    until("the spare segment", || spare.exists());
    let early: Vec<_> = (0..4).map(|number| anna.buy("boot", &format!("early-{number}")).is(201, "held")).collect();
    disk.fill();
    let mut taken = 0;
    let refused = loop {
        let reply = anna.buy("boot", &format!("key-{taken}"));
        if reply.status != 201 {
            break reply.is(503, "storage_full");
        }
        taken += 1;
        assert!(taken < 20_000, "the disk is full and purchases go on");
    };
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(server.sale("drop")["storage_full"], true);
    let ready = server.ask(&Request::get("/readyz"));
    assert_eq!(ready.status, 503, "{ready:?}");
    for (number, first) in early.iter().enumerate() {
        let order = first.text("order");
        anna.buy("boot", &format!("early-{number}")).is(200, "held");
        match number % 2 {
            0 => server.confirm(&order).is(200, "confirmed"),
            _ => anna.cancel(&order).is(200, "released"),
        };
    }
    let mine = anna.asks(Request::get("/v1/sales/drop/mine")).json();
    assert_eq!(mine["purchases"].as_array().unwrap().len(), taken + early.len(), "everybody still sees what is theirs");
    server.stranger("ben", "drop").take_pass().is(503, "storage_full");
    let another = serde_json::to_value(open_sale("another", 1)).unwrap();
    server.operate(Request::post("/admin/v1/sales").json(&another)).is(503, "storage_full");
    disk.make_room();
    until("purchases to go on", || anna.buy("boot", "room").code() == "held");
    assert_eq!(server.ask(&Request::get("/readyz")).status, 200);
    server.drained("drop");
    assert_eq!(server.orders("drop").len(), taken + early.len() + 1);

    disk.fill();
    server.kill();
    disk.make_room();
    server.start_again();
    anna.buy("boot", "room").is(200, "held");
}
