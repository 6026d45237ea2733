//! The file operations that the log is built on, few enough that a simulated disk can stand in for the machine's.
//!
//! Nothing here retries, caches or hides an error: what a disk says reaches the log.

use std::any::Any;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The name of the file in a folder whose lock keeps a second writer out.
pub const LOCK_FILE: &str = "LOCK";

/// A lock on a folder; dropping it (or the end of the process) gives the folder free.
pub type FolderLock = Box<dyn Any + Send + Sync>;

/// Folders and names. Creating, renaming and removing are durable after the next [`Files::sync_folder`], not before.
pub trait Files: Send + Sync {
    /// Creates the folder and missing parents, durably; an existing folder is kept.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Locks the folder for one writer; [`ErrorKind::WouldBlock`] when another holds it.
    fn lock(&self, folder: &Path) -> io::Result<FolderLock>;
    /// Creates an empty file for reading and writing, in place of an older one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading; with `writable` for writing too.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn File>>;
    /// Gives a file another name in the same folder, at once and whole, in place of a file that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in the folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// One open file. Writes are durable after the next [`File::sync_data`] that succeeds; after one that fails nothing is known.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes from `offset`; fewer only at the file's end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`, growing the file as needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written to the file durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file to `length` bytes.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The machine's own disk: `flock`, direct writes, `fdatasync`, `fsync` of folders.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create_folder(parent)?;
                fs::create_dir(folder)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
            other => other?,
        }
        self.sync_folder(parent)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // The log makes ASCII names only; a name that is no text is none of its own.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn lock(&self, folder: &Path) -> io::Result<FolderLock> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE))?;
        file.try_lock()?;
        Ok(Box::new(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        Ok(Box::new(DiskFile::new(file, path)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().read(true).write(writable).open(path)?;
        if writable { Ok(Box::new(DiskFile::new(file, path))) } else { Ok(Box::new(file)) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

/// The machine's disk without waiting for it: for a copy of a chain that is durable elsewhere. After power loss such a copy may be
/// damaged, and is made anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyFiles;

impl Files for CopyFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        DiskFiles.list(folder)
    }

    fn lock(&self, folder: &Path) -> io::Result<FolderLock> {
        DiskFiles.lock(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        Ok(Box::new(CopyFile(file)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Box<dyn File>> {
        Ok(Box::new(CopyFile(fs::File::options().read(true).write(writable).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct CopyFile(fs::File);

impl File for CopyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        File::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        File::write_at(&self.0, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        File::length(&self.0)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        File::truncate(&self.0, length)
    }
}

/// A file that is written past the page cache where that goes: the log writes whole blocks and syncs each write, so a copy in the
/// cache would only cost time.
struct DiskFile {
    file: fs::File,
    /// The same file opened for direct writes, and an aligned place to write from; `None` where the file system has no such thing.
    direct: Option<(fs::File, Mutex<Vec<u8>>)>,
}

/// What direct writes must be multiples of, in place, length and memory; the largest that disks ask for.
const ALIGNMENT: usize = 4_096;

impl DiskFile {
    fn new(file: fs::File, path: &Path) -> Self {
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = fs::File::options().write(true).custom_flags(flags).open(path).ok();
        Self { file, direct: direct.map(|direct| (direct, Mutex::default())) }
    }

    /// `None` when this write cannot be direct; nothing of it has happened then.
    fn write_direct(&self, bytes: &[u8], offset: u64) -> Option<io::Result<()>> {
        let (direct, buffer) = self.direct.as_ref()?;
        if !bytes.len().is_multiple_of(ALIGNMENT) || !offset.is_multiple_of(ALIGNMENT as u64) {
            return None;
        }
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() < bytes.len() + ALIGNMENT {
            buffer.resize(bytes.len() + ALIGNMENT, 0);
        }
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        let aligned = buffer.get_mut(start..start.checked_add(bytes.len())?)?;
        aligned.copy_from_slice(bytes);
        match direct.write_all_at(aligned, offset) {
            // The file system opens files for this and does not do it after all.
            Err(error) if error.kind() == ErrorKind::InvalidInput => None,
            written => Some(written),
        }
    }
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        File::read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_direct(bytes, offset).unwrap_or_else(|| File::write_at(&self.file, bytes, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(&self.file)
    }

    fn length(&self) -> io::Result<u64> {
        File::length(&self.file)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        File::truncate(&self.file, length)
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
