//! The verdict on a seed: the log's bytes, the books and the clients' notes are laid out as a data folder, and the auditor is asked.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use admission::GrantStatus;
use audit::{AuditReport, PromiseReport, Status};
use domain::PurchaseNumber;

use crate::bookkeeping::{Bookkeeping, SALE};
use crate::simulation::{End, Outcome, World};

/// Judges a life that has ended.
pub(crate) fn judge(world: &mut World, end: End) -> Result<Outcome, String> {
    let log = log_files(world)?;
    world.tally.wins = world.shoppers.wins;
    world.tally.refusals = world.shoppers.refusals;
    match end {
        // What clients know was checked at every start before; this log must not be used, and was not.
        End::Refused => world.tally.refused = 1,
        End::Peaceful => {
            audit(world, &log)?;
            count(world);
        }
    }
    let bytes: Vec<Vec<u8>> = log.into_iter().map(|(_, bytes)| bytes).collect();
    Ok(Outcome { digest: world.digest(&bytes), tally: world.tally })
}

/// The segments with their names, without the zeros behind their content.
fn log_files(world: &World) -> Result<Vec<(String, Vec<u8>)>, String> {
    let disk = world.disk.clone();
    let names = chain::Files::list(&disk, &world.folder).map_err(|error| error.to_string())?;
    let segments = names.into_iter().filter(|name| name.ends_with(".segment"));
    Ok(segments
        .map(|name| {
            let mut bytes = disk.bytes(&world.folder.join(&name)).unwrap_or_default();
            let used = bytes.chunks(4096).rposition(|block| block.iter().any(|byte| *byte != 0));
            let length = bytes.len() as u64;
            bytes.truncate(used.map_or(0, |last| (last + 1) * 4096));
            bytes.extend(length.to_le_bytes());
            (name, bytes)
        })
        .collect())
}

fn audit(world: &mut World, log: &[(String, Vec<u8>)]) -> Result<(), String> {
    let next = world.owner.as_ref().map_or(0, |owner| owner.log().next());
    let rows = |books: &ledger::Books| books.orders_of_sale(SALE, None, u32::MAX).map_err(|error| error.to_string());
    let mut rebuilt = Bookkeeping::new();
    let of_rebuilt = rows(rebuilt.drain(&world.files, &world.folder, next)?)?;
    let books = world.books.drain(&world.files, &world.folder, next)?;
    if rows(books)? != of_rebuilt {
        return Err("INV-4: the books that lived through it differ from books made anew".to_owned());
    }
    let snapshot = books.snapshot().map_err(|error| error.to_string())?;
    let data = DataFolder::write(world.seed, log, &snapshot, world.shoppers.notes.text())
        .map_err(|error| format!("the data folder for the auditor: {error}"))?;
    let report = audit::audit(&data.0, None, Some(&data.0.join("notes.jsonl")), &mut |_| {})
        .map_err(|error| format!("the auditor: {error}"))?;
    match broken(&report) {
        Some(problem) => Err(problem),
        None if world.seed.is_multiple_of(8) => export(&data.0),
        None => Ok(()),
    }
}

/// The chain leaves the house and is verified from its export alone.
fn export(data: &Path) -> Result<(), String> {
    let file = data.join("export");
    audit::export(data, None, &file).map_err(|error| format!("the export: {error}"))?;
    let report = audit::verify(&file, None, &[]).map_err(|error| format!("the export: {error}"))?;
    line_broken(report.promises.iter().chain(&report.proof))
        .map_or(Ok(()), |problem| Err(format!("exported, {problem}")))
}

fn broken(report: &AuditReport) -> Option<String> {
    line_broken(report.promises.iter().chain(&report.proof))
}

fn line_broken<'a>(mut lines: impl Iterator<Item = (&'a String, &'a PromiseReport)>) -> Option<String> {
    lines
        .find(|(_, line)| line.status == Status::Broken)
        .map(|(name, line)| format!("{name} is broken, says the auditor: {}", line.evidence.join("; ")))
}

fn count(world: &mut World) {
    let Some(owner) = &world.owner else { return };
    world.tally.records = owner.log().next();
    for number in 0.. {
        let Some(grant) = owner.core().grant(PurchaseNumber(number)) else { break };
        world.tally.orders += 1;
        match grant.status {
            GrantStatus::Held => {}
            GrantStatus::Confirmed => world.tally.paid += 1,
            GrantStatus::Released(_) => world.tally.released += 1,
        }
    }
}

/// A folder of its own for one audit; removed at the end.
struct DataFolder(PathBuf);

impl DataFolder {
    fn write(seed: u64, log: &[(String, Vec<u8>)], books: &[u8], notes: &str) -> io::Result<Self> {
        static FOLDERS: AtomicU64 = AtomicU64::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("doorbuster-simulation-{}-{seed}-{number}", std::process::id());
        let data = Self(std::env::temp_dir().join(name));
        let sale = data.0.join("sales").join(SALE);
        fs::create_dir_all(&sale)?;
        for (name, bytes) in log {
            let (content, length) = bytes.split_at(bytes.len() - 8);
            let length = u64::from_le_bytes(length.try_into().expect("eight bytes were split off"));
            let mut file = fs::File::create(sale.join(name))?;
            file.write_all(content)?;
            file.set_len(length)?;
        }
        fs::write(data.0.join("books.sqlite"), books)?;
        fs::write(data.0.join("notes.jsonl"), notes)?;
        Ok(data)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
