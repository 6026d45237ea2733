//! The vault: keys, sale secrets, the customer behind each pseudonym and the admin tokens, in one synced file of mode 0600.
//!
//! What a call has returned is durable. Nothing here is derived from a chain, so nothing here can be rebuilt; a purchase never
//! reads it.

mod customers;
mod service;
mod tokens;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use domain::{Clock, SaleId, SaleOrdinal};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params, params};

pub use self::customers::NewCustomer;
pub use self::service::{CustomerError, VaultService};
pub use self::tokens::AdminTokens;
use crate::store::{self, Schema, StoreError};

const SCHEMA: Schema =
    Schema { version: 1, sql: include_str!("vault/schema.sql"), synchronous: "FULL", checkpoint_pages: 16_384 };

/// 32 secret bytes.
pub type Secret = [u8; 32];

/// Why the vault could not do what it was asked. Every call may be repeated; a [`StoreError`] at a commit leaves unknown
/// whether it took effect, all else is definite and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The file.
    #[error("vault.sqlite: {0}")]
    Store(#[from] StoreError),
    /// The file or its folder, before SQLite saw it; or the file of the first admin token.
    #[error("{0}")]
    File(String),
    /// The system gives no random bytes.
    #[error("the system's random source failed")]
    Random,
    /// The keys in the vault are incomplete; it has been tampered with or restored in part.
    #[error("vault.sqlite: the deployment's keys are incomplete")]
    KeysIncomplete,
    /// All 256 ids of pass keys are taken.
    #[error("no id is left for another pass key")]
    KeyIdsExhausted,
    /// A pseudonym stands for another customer already.
    #[error("a pseudonym of sale {} stands for another customer", .0.0)]
    PseudonymTaken(SaleOrdinal),
}

impl From<rusqlite::Error> for VaultError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A key that signs or verifies passes.
#[derive(Clone, PartialEq, Eq)]
pub struct PassKey {
    /// Stands in every pass that it signed.
    pub id: u8,
    /// Whether new passes are signed with it; true for exactly one.
    pub active: bool,
    /// The key.
    pub secret: Secret,
}

/// The keys of the whole deployment. They have no `Debug` form, so that no log can show them.
#[derive(Clone, PartialEq, Eq)]
pub struct DeploymentKeys {
    /// Keys of passes by ascending id, at least one.
    pub pass_keys: Vec<PassKey>,
    /// Encrypts and authenticates purchase and order ids; never rotates.
    pub id_key: Secret,
    /// Keys the hash of (issuer, subject) in passes.
    pub identity_hash_key: Secret,
}

/// What only the deployment knows about a sale. No `Debug` form either.
#[derive(Clone, PartialEq, Eq)]
pub struct SaleSecrets {
    /// The deployment's number of the sale, from 1.
    pub ordinal: SaleOrdinal,
    /// The shop's name of it.
    pub name: String,
    /// The id in its chain.
    pub sale: SaleId,
    /// Slots are drawn from it.
    pub slot_secret: Secret,
    /// Pseudonyms are made with it.
    pub pseudonym_key: Secret,
    /// Ed25519 seed of the key that signs the chain's heads.
    pub signing_seed: Secret,
    /// When it was registered, Unix milliseconds.
    pub created_at: u64,
}

/// The vault, open. One per deployment; blocking.
pub struct Vault {
    connection: Connection,
    clock: Arc<dyn Clock>,
}

impl Vault {
    /// Opens the vault, or creates it with fresh deployment keys. The file gets mode 0600 whatever it had.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        let told = |error: io::Error| VaultError::File(format!("{}: {error}", path.display()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file.sync_all().and_then(|()| sync_folder_of(path)).map_err(told)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(told)?;
            }
            Err(error) => return Err(told(error)),
        }
        let mut vault = Self { connection: store::open(path, &SCHEMA)?, clock };
        vault.create_missing_keys()?;
        Ok(vault)
    }

    /// The deployment's keys.
    pub fn deployment_keys(&self) -> Result<DeploymentKeys, VaultError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT key_id, active, secret FROM deployment_keys WHERE purpose = 'pass' ORDER BY key_id",
        )?;
        let pass_keys = statement
            .query_map([], |row| Ok(PassKey { id: row.get(0)?, active: row.get(1)?, secret: row.get(2)? }))?
            .collect::<Result<Vec<_>, _>>()?;
        if pass_keys.iter().filter(|key| key.active).count() != 1 {
            return Err(VaultError::KeysIncomplete);
        }
        let single = |purpose: &str| -> Result<Secret, VaultError> {
            let found = self
                .connection
                .prepare_cached("SELECT secret FROM deployment_keys WHERE purpose = ?1")?
                .query_row([purpose], |row| row.get(0))
                .optional()?;
            found.ok_or(VaultError::KeysIncomplete)
        };
        Ok(DeploymentKeys { pass_keys, id_key: single("id")?, identity_hash_key: single("identity_hash")? })
    }

    /// Makes a new pass key the active one; passes of the earlier keys stay valid. Gives its id.
    pub fn rotate_pass_key(&mut self) -> Result<u8, VaultError> {
        let secret = random_secret()?;
        let now = self.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last: u8 =
            transaction
                .query_row("SELECT max(key_id) FROM deployment_keys WHERE purpose = 'pass'", [], |row| row.get(0))?;
        let id = last.checked_add(1).ok_or(VaultError::KeyIdsExhausted)?;
        transaction.execute("UPDATE deployment_keys SET active = 0 WHERE purpose = 'pass'", [])?;
        insert_key(&transaction, "pass", id, &secret, now)?;
        transaction.commit()?;
        Ok(id)
    }

    /// The secrets of the sale of that name, made and synced now if there are none. Whether its chain exists is for the
    /// caller to see: after a crash between the two, the same secrets come back.
    pub fn register_sale(&mut self, name: &str) -> Result<SaleSecrets, VaultError> {
        let mut sale = SaleId([0; 16]);
        fill_random(&mut sale.0)?;
        let (slot_secret, pseudonym_key, signing_seed) = (random_secret()?, random_secret()?, random_secret()?);
        let now = self.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT INTO sales (name, sale_id, slot_secret, pseudonym_key, signing_seed, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
            params![name, sale.0, slot_secret, pseudonym_key, signing_seed, now],
        )?;
        let query = format!("SELECT {SALE_COLUMNS} FROM sales WHERE name = ?1");
        let secrets = transaction.query_row(&query, [name], sale_of_row)?;
        transaction.commit()?;
        Ok(secrets)
    }

    /// The secrets of every registered sale by ascending ordinal.
    pub fn sales(&self) -> Result<Vec<SaleSecrets>, VaultError> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {SALE_COLUMNS} FROM sales ORDER BY ordinal"))?;
        let rows = statement.query_map([], sale_of_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn create_missing_keys(&mut self) -> Result<(), VaultError> {
        let now = self.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let existing: u32 = transaction.query_row("SELECT count(*) FROM deployment_keys", [], |row| row.get(0))?;
        if existing == 0 {
            for purpose in ["pass", "id", "identity_hash"] {
                insert_key(&transaction, purpose, 0, &random_secret()?, now)?;
            }
        }
        transaction.commit()?;
        self.deployment_keys().map(|_| ())
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.wall_milliseconds()).unwrap_or(i64::MAX)
    }
}

const SALE_COLUMNS: &str = "ordinal, name, sale_id, slot_secret, pseudonym_key, signing_seed, created_at";

fn sale_of_row(row: &Row<'_>) -> rusqlite::Result<SaleSecrets> {
    Ok(SaleSecrets {
        ordinal: SaleOrdinal(row.get(0)?),
        name: row.get(1)?,
        sale: SaleId(row.get(2)?),
        slot_secret: row.get(3)?,
        pseudonym_key: row.get(4)?,
        signing_seed: row.get(5)?,
        created_at: row.get(6)?,
    })
}

fn insert_key(connection: &Connection, purpose: &str, id: u8, secret: &Secret, now: i64) -> Result<(), VaultError> {
    connection.execute(
        "INSERT INTO deployment_keys (purpose, key_id, active, secret, created_at) VALUES (:purpose, :id, 1, :secret, :now)",
        named_params! {":purpose": purpose, ":id": id, ":secret": secret, ":now": now},
    )?;
    Ok(())
}

fn fill_random(bytes: &mut [u8]) -> Result<(), VaultError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| VaultError::Random)
}

fn random_secret() -> Result<Secret, VaultError> {
    let mut secret = [0; 32];
    fill_random(&mut secret)?;
    Ok(secret)
}

/// Makes a new file's name durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
