//! A folder for one test, removed when the test has not failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::binary::build_folder;

static MADE: AtomicU64 = AtomicU64::new(0);

/// A folder that goes with the test; a failed test leaves it for whoever looks for the reason.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty folder on the disk that the build lies on, since logs are to be synced to something real.
    pub fn new() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = build_folder().join("system-tests").join(format!("{}-{number}", std::process::id()));
        // What a process of the same number left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the build's folder is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            // A folder that stays behind harms nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
