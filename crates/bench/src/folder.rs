//! Folders of the bench's own: made, copied and removed here, and nothing else is touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The folder of one run of the bench; removed when dropped.
pub(crate) struct Workspace {
    path: PathBuf,
    parent: PathBuf,
    parent_was_made: bool,
}

impl Workspace {
    /// Makes `run-<process id>` under `parent`, and removes what runs that are no more have left there.
    pub(crate) fn create(parent: &Path) -> anyhow::Result<Self> {
        let parent_was_made = !parent.exists();
        let at = || format!("{}: the bench needs a folder that it can write", parent.display());
        fs::create_dir_all(parent).with_context(at)?;
        let parent = parent.canonicalize().with_context(at)?;
        remove_leftovers(&parent);
        let path = parent.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(at)?;
        Ok(Self { path, parent, parent_was_made })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A place in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes everything in it.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            remove(&entry.path());
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.path);
        if self.parent_was_made {
            // Fails, rightly, when somebody else has put something there.
            drop(fs::remove_dir(&self.parent));
        }
    }
}

fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("run-")).and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a file or a folder with all that is in it; what cannot be removed stays.
pub(crate) fn remove(path: &Path) {
    drop(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
}

/// Copies a folder. The copies are synced, so that their way to the disk does not fall into a measurement.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
