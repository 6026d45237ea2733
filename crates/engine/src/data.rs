//! The data folder: its version, its lock, and where everything lies in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const VERSION_FILE: &str = "VERSION";
const VERSION_TEXT: &str = "doorbuster data 1\n";

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another process serves it.
    #[error("{0}: another process is using this data folder; stop it, or choose another folder with --data")]
    Locked(PathBuf),
    /// Written by another version.
    #[error(
        "{path}: the folder's format is {found:?}, this version knows {VERSION_TEXT:?}; use the version that wrote it"
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// What its VERSION file says.
        found: String,
    },
    /// There is something else in the folder.
    #[error("{0}: the folder has files but no VERSION file, so it is not a data folder; choose an empty or new one")]
    Foreign(PathBuf),
    /// What is in it belongs to another deployment; together they would be one set of books.
    #[error(
        "{path}: this data folder belongs to {found}, and this process to {ours}; choose another folder with --data"
    )]
    Elsewhere {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose we are.
        ours: String,
    },
    /// The system refused.
    #[error("{path}: {source}; the folder must be readable and writable for this user")]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An open data folder, locked against other processes while this lives.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, creating it (mode 0700) when it is new.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        let version_path = path.join(VERSION_FILE);
        let found = match fs::read_to_string(&version_path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&version_path)(error)),
        };
        if let Some(found) = found.clone().filter(|found| found != VERSION_TEXT) {
            return Err(DataError::Format { path: path.to_owned(), found });
        }
        let foreign = |name: std::ffi::OsString| name != "LOCK" && name != "VERSION";
        if found.is_none() && fs::read_dir(path).map_err(at(path))?.flatten().any(|entry| foreign(entry.file_name())) {
            return Err(DataError::Foreign(path.to_owned()));
        }
        let lock_path = path.join("LOCK");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| DataError::Locked(path.to_owned()))?;
        if found.is_none() {
            write_durably(&version_path, VERSION_TEXT.as_bytes()).map_err(at(&version_path))?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path.join("sales")).map_err(at(path))?;
        File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Binds the folder to a cluster and its vault, or (`None`) to a process that is alone; refused where it belongs to another.
    pub(crate) fn belong_to(&self, cluster: Option<&str>) -> Result<(), DataError> {
        let marker = self.path.join("CLUSTER");
        let at = |source| DataError::Io { path: marker.clone(), source };
        let alone = "a process that is alone";
        let found = match fs::read_to_string(&marker) {
            Ok(text) => Some(text.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(error)),
        };
        let words = |cluster: Option<&str>| {
            cluster.map_or(alone.to_owned(), |name| format!("the cluster (name, vault) {name}"))
        };
        let foreign = match (&found, cluster) {
            (None, Some(_)) => self.vault().exists(),
            (found, ours) => found.as_deref() != ours,
        };
        if foreign {
            let (found, ours) = (words(found.as_deref()), words(cluster));
            return Err(DataError::Elsewhere { path: self.path.clone(), found, ours });
        }
        match (found, cluster) {
            (None, Some(name)) => write_durably(&marker, format!("{name}\n").as_bytes()).map_err(at),
            _ => Ok(()),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The vault's file.
    pub fn vault(&self) -> PathBuf {
        self.path.join("vault.sqlite")
    }

    /// The books' file.
    pub fn books(&self) -> PathBuf {
        self.path.join("books.sqlite")
    }

    /// The file of the webhooks.
    pub fn webhooks(&self) -> PathBuf {
        self.path.join("webhooks.sqlite")
    }

    /// Where the first admin token is written.
    pub fn admin_token(&self) -> PathBuf {
        self.path.join("admin-token")
    }

    /// The log folder of a sale.
    pub fn sale(&self, name: &str) -> PathBuf {
        self.path.join("sales").join(name)
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
