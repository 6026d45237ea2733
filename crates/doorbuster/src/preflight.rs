//! `doorbuster preflight`: is this machine fit for a sale? Each check says what it saw, what is wanted, and why. For a process of a cluster
//! `cluster` checks its servers too.

mod cluster;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use crate::config::Settings;
use crate::report;

const SYNCS: usize = 200;
const SYNC_P99_MILLISECONDS_MAX: f64 = 20.0;
const FREE_BYTES_MIN: u64 = 1 << 30;

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    wanted: String,
}

pub(crate) fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let folder = &settings.data.folder;
    let mut checks = vec![folder_writable(folder)];
    if checks[0].ok {
        checks.extend([file_system(folder), sync_time(folder), free_space(folder)]);
    }
    checks.push(open_files(settings));
    if settings.is_cluster() {
        checks.extend(cluster::checks(settings));
    } else {
        checks.push(clock());
    }
    checks.extend([identity(settings), pages(settings)]);
    let ok = checks.iter().all(|check| check.ok);
    if as_json {
        report::json(&serde_json::json!({ "ok": ok, "checks": checks }))?;
    } else {
        for check in &checks {
            let mark = if check.ok { "ok      " } else { "REFUSED " };
            report::say(&format!("{mark}{:<12} {}{}", check.name, check.found, why(check)));
        }
        report::say(if ok { "This machine is fit for a sale." } else { "Not fit for a sale: see the refused lines." });
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn why(check: &Check) -> String {
    if check.ok { String::new() } else { format!("; wanted: {}", check.wanted) }
}

fn folder_writable(folder: &Path) -> Check {
    let probe = folder.join(".preflight");
    let tried =
        std::fs::create_dir_all(folder).and_then(|()| File::create(&probe)).and_then(|_| std::fs::remove_file(&probe));
    Check {
        name: "data folder",
        ok: tried.is_ok(),
        found: match tried {
            Ok(()) => format!("{} is writable", folder.display()),
            Err(error) => format!("{}: {error}", folder.display()),
        },
        wanted: "a folder that this user may write".to_owned(),
    }
}

fn file_system(folder: &Path) -> Check {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6_u32 as i64;
    let kind = rustix::fs::statfs(folder).map(|stat| stat.f_type);
    let volatile = matches!(kind, Ok(TMPFS | RAMFS));
    Check {
        name: "file system",
        ok: kind.is_ok() && !volatile,
        found: if volatile { "lives in memory only".to_owned() } else { "on a block device".to_owned() },
        wanted: "a file system on a disk: a chain in memory is gone with the power".to_owned(),
    }
}

fn sync_time(folder: &Path) -> Check {
    let probe = folder.join(".preflight");
    let measured = time_syncs(&probe);
    // Nothing depends on the probe.
    let _ = std::fs::remove_file(&probe);
    let wanted = format!("p99 of at most {SYNC_P99_MILLISECONDS_MAX} ms: every win waits for one sync");
    match measured {
        Ok((p50, p99)) => {
            let found = format!("p50 {p50:.2} ms, p99 {p99:.2} ms per 8 KiB write and fdatasync");
            Check { name: "fdatasync", ok: p99 <= SYNC_P99_MILLISECONDS_MAX, found, wanted }
        }
        Err(error) => Check { name: "fdatasync", ok: false, found: error.to_string(), wanted },
    }
}

fn time_syncs(probe: &Path) -> std::io::Result<(f64, f64)> {
    use std::os::unix::fs::FileExt as _;
    let mut file = File::create(probe)?;
    file.write_all(&vec![0; 8192 * SYNCS])?;
    file.sync_all()?;
    let mut milliseconds = Vec::with_capacity(SYNCS);
    for index in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&[1; 8192], (index * 8192) as u64)?;
        file.sync_data()?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    milliseconds.sort_by(f64::total_cmp);
    Ok((milliseconds[SYNCS / 2], milliseconds[SYNCS * 99 / 100]))
}

fn free_space(folder: &Path) -> Check {
    let free = rustix::fs::statvfs(folder).map(|stat| stat.f_bavail * stat.f_frsize).unwrap_or(0);
    Check {
        name: "free space",
        ok: free >= FREE_BYTES_MIN,
        found: format!("{} MiB", free >> 20),
        wanted: format!(
            "{} MiB: about 300 bytes a win in the chain, as many in the books, and a spare",
            FREE_BYTES_MIN >> 20
        ),
    }
}

fn open_files(settings: &Settings) -> Check {
    use rustix::process::{Resource, getrlimit};
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let needed = (settings.public.connections_max + settings.admin.connections_max) as u64 + 512;
    Check {
        name: "open files",
        ok: most >= needed,
        found: format!("at most {most}"),
        wanted: format!(
            "{needed} for public.connections_max and the files of the sales; raise `ulimit -Hn` or lower the ceiling"
        ),
    }
}

/// Alone, a clock that drifts harms nobody but who reads the times; it must not jump, and the engine pauses a sale where it does.
fn clock() -> Check {
    let found = match keeper() {
        Some(keeper) => format!("kept by {keeper}"),
        None => "nobody seen who keeps it; make sure that the host does (embedded mode works without)".to_owned(),
    };
    Check { name: "clock", ok: true, found, wanted: "a synchronised clock".to_owned() }
}

/// Who keeps this machine's clock, as far as can be seen from here: in a container it is the host, which cannot be seen.
fn keeper() -> Option<&'static str> {
    let chrony = ["/run/chrony/chronyd.pid", "/run/chronyd.pid"];
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        Some("systemd-timesyncd")
    } else {
        chrony.iter().any(|file| Path::new(file).exists()).then_some("chronyd")
    }
}

fn pages(settings: &Settings) -> Check {
    let made = crate::pages::site(settings);
    Check {
        name: "pages",
        ok: made.is_ok(),
        found: made.err().map_or_else(|| "can be made".to_owned(), |error| format!("{error:#}")),
        wanted: "words and a logo that can be read".to_owned(),
    }
}

fn identity(settings: &Settings) -> Check {
    let checked = settings.check_identity();
    let guests = settings.identity.dangerous_guest_tokens;
    Check {
        name: "identity",
        ok: checked.is_ok() && !guests,
        found: match (&checked, guests) {
            (_, true) => "guest tokens are believed".to_owned(),
            (Ok(()), false) => format!("tokens of {:?} for {:?}", settings.identity.issuer, settings.identity.audience),
            (Err(_), false) => "nobody could sign in".to_owned(),
        },
        wanted: "the shop's issuer and audience, its HS256 secret or public keys, and no guests".to_owned(),
    }
}
