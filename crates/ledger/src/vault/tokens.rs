//! Admin tokens: only their hashes are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use domain::ids::Hash;
use rusqlite::{TransactionBehavior, params};

use super::{Vault, VaultError, random_secret, sync_folder_of};

const TOKEN_PREFIX: &str = "da_";

/// The tokens of one moment, for checks without the vault.
#[derive(Clone, Default)]
pub struct AdminTokens(Vec<(Hash, Option<u64>)>);

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

impl Vault {
    /// The admin tokens as they stand.
    pub fn admin_tokens(&self) -> Result<AdminTokens, VaultError> {
        let mut statement = self.connection.prepare_cached("SELECT hash, expires_at FROM admin_tokens")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(AdminTokens(rows.collect::<Result<_, _>>()?))
    }

    /// Whether `token` is known and has not expired at `now` (Unix milliseconds).
    pub fn admin_token_is_valid(&self, token: &str, now: u64) -> Result<bool, VaultError> {
        Ok(self.admin_tokens()?.admit(token, now))
    }

    /// Creates the first admin token and writes it to a new file of mode 0600, if no token exists; says whether it did.
    /// The token does not expire. A file that a crash left without its token in the vault is replaced.
    pub fn first_admin_token(&mut self, path: &Path) -> Result<bool, VaultError> {
        let now = self.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let existing: u32 = transaction.query_row("SELECT count(*) FROM admin_tokens", [], |row| row.get(0))?;
        if existing > 0 {
            return Ok(false);
        }
        let token = format!("{TOKEN_PREFIX}{}", data_encoding::BASE64URL_NOPAD.encode(&random_secret()?));
        // The file first: a stored hash without a file would be a token that nobody has.
        write_token(path, &token).map_err(|error| VaultError::File(format!("{}: {error}", path.display())))?;
        transaction.execute(
            "INSERT INTO admin_tokens (hash, label, created_at, expires_at) VALUES (?1, 'first', ?2, NULL)",
            params![hash_of(&token), now],
        )?;
        transaction.commit()?;
        Ok(true)
    }
}

fn write_token(path: &Path, token: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    sync_folder_of(path)
}

fn hash_of(token: &str) -> Hash {
    chain::batch::hash(&[token.as_bytes()])
}
