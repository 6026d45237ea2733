//! Admin tokens: only their hashes are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use domain::ids::Hash;

use super::{VaultError, random_secret, sync_folder_of};

const TOKEN_PREFIX: &str = "da_";

/// The tokens of one moment, for checks without the vault.
#[derive(Clone, Default)]
pub struct AdminTokens(pub(super) Vec<(Hash, Option<u64>)>);

impl AdminTokens {
    /// Whether `token` is one of them and has not expired at `now` (Unix milliseconds). Takes as long for a wrong token as for a
    /// right one.
    pub fn admit(&self, token: &str, now: u64) -> bool {
        let presented = hash_of(token);
        self.0.iter().fold(false, |admitted, (hash, expires_at)| {
            let equal = verify_slices_are_equal(hash, &presented).is_ok();
            admitted | (equal & expires_at.is_none_or(|end| now < end))
        })
    }
}

/// A new token, random.
pub(super) fn new_token() -> Result<String, VaultError> {
    Ok(format!("{TOKEN_PREFIX}{}", data_encoding::BASE64URL_NOPAD.encode(&random_secret()?)))
}

/// Writes the token to a new file of mode 0600, in the place of any that is there; synced when it returns.
pub(super) fn write(path: &Path, token: &str) -> Result<(), VaultError> {
    write_new(path, token).map_err(|error| VaultError::File(format!("{}: {error}", path.display())))
}

fn write_new(path: &Path, token: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// What the vault keeps of a token.
pub(super) fn hash_of(token: &str) -> Hash {
    chain::batch::hash(&[token.as_bytes()])
}
