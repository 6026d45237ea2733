//! A disk that keeps its promises and not one bit more: it stands under the real log in place of the machine's.
//!
//! What was not synced may be kept, lost or torn, sector by sector and name by name, as the seed decides; a sync that fails forgets
//! what it should have written, as Linux does; a write may land elsewhere. The same seed and the same calls give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chain::files::{File, Files, FolderLock};

/// The unit that a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// The disk. Clones are the same disk, so that a test keeps one while the log has another.
#[derive(Clone)]
pub struct FakeDisk(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    folders: BTreeSet<PathBuf>,
    names: Names,
    durable_names: Names,
    /// What happened to names since their folder was synced.
    unsynced_names: Vec<NameChange>,
    files: BTreeMap<u64, Contents>,
    files_made: u64,
    locks: BTreeSet<PathBuf>,
    /// Grows with every end of the process; handles of an earlier life are dead.
    life: u64,
    operations: u64,
    faults: Faults,
}

type Names = BTreeMap<PathBuf, u64>;

struct NameChange {
    folder: PathBuf,
    bindings: Vec<(PathBuf, Option<u64>)>,
}

#[derive(Default)]
struct Contents {
    /// What a read gives.
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<Range<u64>>,
}

#[derive(Default)]
struct Faults {
    /// Changing operations until the power goes; the last of them fails half done.
    power_for: Option<u64>,
    power_is_gone: bool,
    fail_write: bool,
    fail_sync: bool,
    misdirect_write: bool,
    /// Bytes of all files together beyond which nothing can grow.
    room: Option<u64>,
}

impl FakeDisk {
    /// An empty disk whose choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            folders: BTreeSet::new(),
            names: Names::new(),
            durable_names: Names::new(),
            unsynced_names: Vec::new(),
            files: BTreeMap::new(),
            files_made: 0,
            locks: BTreeSet::new(),
            life: 0,
            operations: 0,
            faults: Faults::default(),
        })))
    }

    /// Lets the power go during the changing operation after `operations` more. Everything fails from then on until
    /// [`FakeDisk::lose_power`] brings it back.
    pub fn lose_power_after(&self, operations: u64) {
        self.state().faults.power_for = Some(operations);
    }

    /// The power goes and comes back: of what was not synced an arbitrary part is left. Pending faults are gone too.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// The process ends and the machine goes on: locks are free, the page cache is kept.
    pub fn kill_process(&self) {
        self.state().end_process();
    }

    /// The next write fails, having written an arbitrary part.
    pub fn fail_write_once(&self) {
        self.state().faults.fail_write = true;
    }

    /// The next sync of a file or a folder fails. What it should have made durable stays readable, but no later sync writes it.
    pub fn fail_sync_once(&self) {
        self.state().faults.fail_sync = true;
    }

    /// The next write lands elsewhere in its file, at a multiple of 4 KiB, and claims success.
    pub fn misdirect_write_once(&self) {
        self.state().faults.misdirect_write = true;
    }

    /// Takes back the faults that have not struck.
    pub fn clear_faults(&self) {
        self.state().faults = Faults::default();
    }

    /// Leaves room for so many more bytes; `None` for any number.
    pub fn leave_room(&self, bytes: Option<u64>) {
        let mut state = self.state();
        let used = state.used();
        state.faults.room = bytes.map(|bytes| used + bytes);
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// A file's bytes as a read gives them; `None` without such a file.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files[state.names.get(path)?].seen.clone())
    }

    /// Changes one bit on the disk and in the cache.
    ///
    /// # Panics
    /// When there is no such durable byte.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) {
        let mut state = self.state();
        let file = *state.names.get(path).expect("the file exists");
        let contents = state.files.get_mut(&file).expect("names lead to files");
        contents.seen[offset] ^= 1 << bit;
        contents.durable[offset] ^= 1 << bit;
    }

    /// A hash of all names and bytes, seen and durable, to compare two runs.
    pub fn fingerprint(&self) -> [u8; 32] {
        let state = self.state();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for (path, file) in state.names.iter().chain(&state.durable_names) {
            parts.push(path.display().to_string().into_bytes());
            parts.push(file.to_le_bytes().to_vec());
        }
        for contents in state.files.values() {
            parts.extend([contents.seen.clone(), contents.durable.clone()]);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        chain::batch::hash(&parts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins an operation that changes something. `Ok(true)` means that the power goes during it.
    fn begin(&mut self, life: u64) -> io::Result<bool> {
        self.check_alive(life)?;
        self.operations += 1;
        match &mut self.faults.power_for {
            Some(0) => {
                self.faults.power_is_gone = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn check_alive(&self, life: u64) -> io::Result<()> {
        if self.faults.power_is_gone || life != self.life { Err(power_is_gone()) } else { Ok(()) }
    }

    fn change_names(&mut self, folder: &Path, bindings: Vec<(PathBuf, Option<u64>)>) {
        bind(&mut self.names, &bindings);
        self.unsynced_names.push(NameChange { folder: folder.to_owned(), bindings });
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].seen.len() as u64).sum()
    }

    fn end_process(&mut self) {
        self.life += 1;
        self.locks.clear();
    }

    fn lose_power(&mut self) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if self.random.bool() {
                bind(&mut self.durable_names, &change.bindings);
            }
        }
        self.names = self.durable_names.clone();
        for contents in self.files.values_mut() {
            contents.lose_power(&mut self.random);
        }
        self.forget_unnamed();
        self.faults = Faults { room: self.faults.room, ..Faults::default() };
        self.end_process();
    }

    fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }

    fn write(&mut self, file: u64, bytes: &[u8], mut offset: u64) -> io::Result<()> {
        let used = self.used();
        let length = self.files[&file].seen.len() as u64;
        let mut taken = bytes.len() as u64;
        if std::mem::take(&mut self.faults.misdirect_write) {
            let places = length.saturating_sub(taken) / 4096;
            offset = self.random.u64(0..=places) * 4096;
        }
        let mut outcome = Ok(());
        if std::mem::take(&mut self.faults.fail_write) {
            taken = self.random.u64(0..taken.max(1));
            outcome = Err(input_output_error());
        }
        let growth = (offset + taken).saturating_sub(length);
        let room = self.faults.room.map_or(u64::MAX, |room| room.saturating_sub(used));
        if growth > room {
            taken = taken.saturating_sub(growth - room);
            outcome = Err(ErrorKind::StorageFull.into());
        }
        let contents = self.files.get_mut(&file).expect("an open file has contents");
        let end = offset + taken;
        if contents.seen.len() < end as usize {
            contents.seen.resize(end as usize, 0);
        }
        contents.seen[offset as usize..end as usize].copy_from_slice(&bytes[..taken as usize]);
        contents.unsynced.push(offset..end);
        outcome
    }
}

impl Contents {
    fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for range in std::mem::take(&mut self.unsynced) {
            let range = range.start as usize..(range.end as usize).min(self.seen.len());
            if !range.is_empty() {
                self.durable[range.clone()].copy_from_slice(&self.seen[range]);
            }
        }
    }

    /// An arbitrary part of what is not synced reaches the disk; sometimes a sector that was being written is left as rubbish.
    fn persist_some(&mut self, random: &mut fastrand::Rng) {
        if self.seen.len() != self.durable.len() && random.bool() {
            self.durable.resize(self.seen.len(), 0);
        }
        // All, none and every mixture between are equally worth trying.
        let of_three = random.u8(0..=3);
        for range in std::mem::take(&mut self.unsynced) {
            let end = range.end.min(self.seen.len() as u64).min(self.durable.len() as u64);
            for sector in range.start / SECTOR..end.div_ceil(SECTOR) {
                let bytes = (sector * SECTOR).max(range.start) as usize..((sector + 1) * SECTOR).min(end) as usize;
                if random.u8(0..3) < of_three {
                    self.durable[bytes.clone()].copy_from_slice(&self.seen[bytes]);
                } else if random.u8(0..64) == 0 {
                    self.durable[bytes].iter_mut().for_each(|byte| *byte = random.u8(..));
                }
            }
        }
    }

    fn lose_power(&mut self, random: &mut fastrand::Rng) {
        self.persist_some(random);
        self.seen = self.durable.clone();
    }
}

fn bind(names: &mut Names, bindings: &[(PathBuf, Option<u64>)]) {
    for (path, file) in bindings {
        match file {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Files for FakeDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        if state.begin(life)? {
            return Err(power_is_gone());
        }
        state.folders.extend(folder.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_alive(state.life)?;
        if !state.folders.contains(folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| folder_of(path) == folder);
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn lock(&self, folder: &Path) -> io::Result<FolderLock> {
        let mut state = self.state();
        state.check_alive(state.life)?;
        if !state.folders.contains(folder) {
            return Err(ErrorKind::NotFound.into());
        }
        if !state.locks.insert(folder.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), life: state.life, folder: folder.to_owned() }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        let life = state.life;
        let power_goes = state.begin(life)?;
        if !state.folders.contains(folder_of(path)) {
            return Err(ErrorKind::NotFound.into());
        }
        state.files_made += 1;
        let file = state.files_made;
        state.files.insert(file, Contents::default());
        state.change_names(folder_of(path), vec![(path.to_owned(), Some(file))]);
        if power_goes { Err(power_is_gone()) } else { Ok(Box::new(Handle { disk: self.clone(), life, file })) }
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.check_alive(state.life)?;
        let file = *state.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(Handle { disk: self.clone(), life: state.life, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        let power_goes = state.begin(life)?;
        let file = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        state.change_names(folder_of(to), vec![(to.to_owned(), Some(file)), (from.to_owned(), None)]);
        if power_goes { Err(power_is_gone()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        let power_goes = state.begin(life)?;
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_names(folder_of(path), vec![(path.to_owned(), None)]);
        if power_goes { Err(power_is_gone()) } else { Ok(()) }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        if state.begin(life)? {
            return Err(power_is_gone());
        }
        if std::mem::take(&mut state.faults.fail_sync) {
            return Err(input_output_error());
        }
        let (now, later) =
            std::mem::take(&mut state.unsynced_names).into_iter().partition(|change| change.folder == folder);
        state.unsynced_names = later;
        let now: Vec<NameChange> = now;
        for change in &now {
            bind(&mut state.durable_names, &change.bindings);
        }
        Ok(())
    }
}

struct Lock {
    disk: FakeDisk,
    life: u64,
    folder: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.folder);
        }
    }
}

struct Handle {
    disk: FakeDisk,
    life: u64,
    file: u64,
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        state.check_alive(self.life)?;
        let seen = state.files[&self.file].seen.get(offset as usize..).unwrap_or(&[]);
        let length = seen.len().min(buffer.len());
        buffer[..length].copy_from_slice(&seen[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let power_goes = state.begin(self.life)?;
        let outcome = state.write(self.file, bytes, offset);
        if power_goes { Err(power_is_gone()) } else { outcome }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.begin(self.life)? {
            return Err(power_is_gone());
        }
        let fails = std::mem::take(&mut state.faults.fail_sync);
        let State { files, random, .. } = &mut *state;
        let contents = files.get_mut(&self.file).expect("an open file has contents");
        if fails {
            contents.persist_some(random);
            return Err(input_output_error());
        }
        contents.sync();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check_alive(self.life)?;
        Ok(state.files[&self.file].seen.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let power_goes = state.begin(self.life)?;
        let contents = state.files.get_mut(&self.file).expect("an open file has contents");
        contents.seen.truncate(length as usize);
        if power_goes { Err(power_is_gone()) } else { Ok(()) }
    }
}
