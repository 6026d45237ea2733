//! Admin tokens: only their hashes are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::Role;
use domain::ids::Hash;

use super::{VaultError, random_secret, sync_folder_of};

const TOKEN_PREFIX: &str = "da_";
/// Bytes of the hash that name a token. Two tokens that share them do not happen.
const ID_BYTES: usize = 8;

/// What the vault keeps of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    pub(super) hash: Hash,
    /// What it is for, in its maker's words.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// When it was made, Unix milliseconds.
    pub created_at: u64,
    /// From when on it is not believed, Unix milliseconds; `None`: always believed.
    pub expires_at: Option<u64>,
}

impl AdminToken {
    /// Names the token to those who may not see it: the beginning of its hash, in 16 hexadecimal digits.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.hash[..ID_BYTES])
    }

    /// The id of a token.
    pub fn id_of(token: &str) -> String {
        HEXLOWER.encode(&hash_of(token)[..ID_BYTES])
    }

    fn is_live(&self, now: u64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// A token that has just been made: the only time that it can be seen.
pub struct NewAdminToken {
    /// The token itself.
    pub token: String,
    /// What the vault keeps of it.
    pub kept: AdminToken,
}

impl NewAdminToken {
    pub(super) fn draw(label: &str, role: Role, created_at: u64, expires_at: Option<u64>) -> Result<Self, VaultError> {
        let token = format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&random_secret()?));
        let kept = AdminToken { hash: hash_of(&token), label: label.to_owned(), role, created_at, expires_at };
        Ok(Self { token, kept })
    }

    /// The first one, for whoever reads the file.
    pub(super) fn first(now: u64) -> Result<Self, VaultError> {
        Self::draw("first", Role::Owner, now, None)
    }
}

/// The tokens of one moment, for checks without the vault.
#[derive(Clone, Default)]
pub struct AdminTokens(pub(super) Vec<AdminToken>);

impl AdminTokens {
    /// The role of `token` if it is one of them and has not expired at `now` (Unix milliseconds). Compares with every token, and
    /// takes as long for a wrong one as for a right one.
    pub fn admit(&self, token: &str, now: u64) -> Option<Role> {
        let presented = hash_of(token);
        self.0.iter().fold(None, |admitted, known| {
            let equal = verify_slices_are_equal(&known.hash, &presented).is_ok();
            if equal & known.is_live(now) { Some(known.role) } else { admitted }
        })
    }

    /// All of them, the oldest first.
    pub fn list(mut self) -> Vec<AdminToken> {
        self.0.sort_by_key(|token| (token.created_at, token.hash));
        self.0
    }

    /// Whether somebody can give out tokens at `now`.
    pub(super) fn has_owner(&self, now: u64) -> bool {
        self.0.iter().any(|token| token.role == Role::Owner && token.is_live(now))
    }

    /// The token of that id, if it may be revoked at `now`: [`VaultError::TokenUnknown`], [`VaultError::LastOwner`].
    pub(super) fn revocable(self, id: &str, now: u64) -> Result<AdminToken, VaultError> {
        let (mut found, others): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|token| token.id() == id);
        let found = found.pop().ok_or(VaultError::TokenUnknown)?;
        let is_owners = found.role == Role::Owner && found.is_live(now);
        if is_owners && !Self(others).has_owner(now) { Err(VaultError::LastOwner) } else { Ok(found) }
    }
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

/// By what the vault knows a token again.
fn hash_of(token: &str) -> Hash {
    chain::batch::hash(&[token.as_bytes()])
}
