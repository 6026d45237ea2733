//! The vault in one SQLite file, for a deployment of one process.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use domain::{Clock, Pseudonym, Role, SaleId, SaleOrdinal};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};

use super::blocks::{KeptBlock, KeptBlocks};
use super::showcase::{KeptShowcases, PictureFile};
use super::tokens::{self, AdminToken, AdminTokens, NewAdminToken};
use super::{
    DeploymentKeys, KEY_PURPOSES, KeyRow, KnownCustomer, NewCustomer, PassKey, SaleSecrets, Secret, VaultError,
    VaultStore, random_sale_id, random_secret, sync_folder_of,
};
use crate::store::{self, Schema};

const SCHEMA: Schema =
    Schema { version: 1, sql: include_str!("schema.sql"), synchronous: "FULL", checkpoint_pages: 16_384 };

impl From<rusqlite::Error> for VaultError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
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
        // What is deleted is overwritten: a customer's key must not be left in a free page.
        vault.connection.pragma_update(None, "secure_delete", "ON")?;
        vault.create_missing_keys()?;
        Ok(vault)
    }

    fn create_missing_keys(&mut self) -> Result<(), VaultError> {
        let now = self.now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let existing: u32 = transaction.query_row("SELECT count(*) FROM deployment_keys", [], |row| row.get(0))?;
        if existing == 0 {
            for purpose in KEY_PURPOSES {
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

impl VaultStore for Vault {
    fn deployment_keys(&mut self) -> Result<DeploymentKeys, VaultError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT purpose, key_id, active, secret FROM deployment_keys ORDER BY purpose, key_id")?;
        let rows = statement.query_map([], |row| {
            let key = PassKey { id: row.get(1)?, active: row.get(2)?, secret: row.get(3)? };
            Ok(KeyRow { purpose: row.get(0)?, key })
        })?;
        DeploymentKeys::of_rows(rows.collect::<Result<_, _>>()?)
    }

    fn rotate_pass_key(&mut self) -> Result<u8, VaultError> {
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

    fn register_sale(&mut self, name: &str) -> Result<SaleSecrets, VaultError> {
        let sale = random_sale_id()?;
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

    fn sales(&mut self) -> Result<Vec<SaleSecrets>, VaultError> {
        let mut statement =
            self.connection.prepare_cached(&format!("SELECT {SALE_COLUMNS} FROM sales ORDER BY ordinal"))?;
        let rows = statement.query_map([], sale_of_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn ensure_customers(&mut self, batch: &[NewCustomer]) -> Result<Vec<Secret>, VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut keys = Vec::with_capacity(batch.len());
        for customer in batch {
            let (id, secret) = ensure_customer(&transaction, customer)?;
            ensure_pseudonym(&transaction, customer, id)?;
            keys.push(secret);
        }
        transaction.commit()?;
        Ok(keys)
    }

    fn customer_of(&mut self, sale: SaleOrdinal, pseudonym: Pseudonym) -> Result<Option<KnownCustomer>, VaultError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT issuer, subject, secret FROM map JOIN customers ON customers.id = map.customer WHERE ordinal = ?1 AND pseudonym = ?2",
        )?;
        let found = statement.query_row(params![sale.0, pseudonym.0], |row| {
            Ok(KnownCustomer { issuer: row.get(0)?, subject: row.get(1)?, key: row.get(2)? })
        });
        Ok(found.optional()?)
    }

    fn erase_customer(&mut self, issuer: &str, subject: &str) -> Result<bool, VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let query = "SELECT id FROM customers WHERE subject = ?1 AND issuer = ?2";
        let found: Option<i64> = transaction.query_row(query, [subject, issuer], |row| row.get(0)).optional()?;
        if let Some(id) = found {
            transaction.execute("DELETE FROM map WHERE customer = ?1", [id])?;
            transaction.execute("DELETE FROM customers WHERE id = ?1", [id])?;
            transaction.execute("UPDATE erasures SET count = count + 1", [])?;
        }
        transaction.commit()?;
        // The old pages go from the write-ahead log too. A reader may keep them a little longer; the deletion stands.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(found.is_some())
    }

    fn anonymise_sale(&mut self, sale: SaleOrdinal) -> Result<bool, VaultError> {
        let (key, now) = (random_secret()?, self.now());
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let update =
            "UPDATE sales SET pseudonym_key = ?2, anonymised_at = ?3 WHERE ordinal = ?1 AND anonymised_at IS NULL";
        if transaction.execute(update, params![sale.0, key, now])? == 0 {
            return Ok(false);
        }
        transaction.execute("DELETE FROM map WHERE ordinal = ?1", [sale.0])?;
        transaction.execute("DELETE FROM customers WHERE id NOT IN (SELECT customer FROM map)", [])?;
        transaction.execute("UPDATE erasures SET count = count + 1", [])?;
        transaction.commit()?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(true)
    }

    fn erasures(&mut self) -> Result<u64, VaultError> {
        Ok(self.connection.query_row("SELECT count FROM erasures", [], |row| row.get(0))?)
    }

    fn showcases(&mut self) -> Result<KeptShowcases, VaultError> {
        // The count first: what changes meanwhile is read again, never missed.
        let mut found = KeptShowcases { changes: self.showcase_changes()?, ..KeptShowcases::default() };
        let mut statement = self.connection.prepare_cached("SELECT ordinal, settings FROM showcases")?;
        let settings = statement.query_map([], |row| Ok((SaleOrdinal(row.get(0)?), row.get(1)?)))?;
        found.settings = settings.collect::<Result<_, _>>()?;
        let mut statement = self.connection.prepare_cached("SELECT ordinal, name FROM human_checks")?;
        let checks = statement.query_map([], |row| Ok((SaleOrdinal(row.get(0)?), row.get(1)?)))?;
        found.human_checks = checks.collect::<Result<_, _>>()?;
        let query = "SELECT DISTINCT ordinal, item, id, width, height FROM pictures ORDER BY ordinal, item, width";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            found.add((SaleOrdinal(row.get(0)?), row.get(1)?), row.get(2)?, (row.get(3)?, row.get(4)?));
        }
        Ok(found)
    }

    fn showcase_changes(&mut self) -> Result<u64, VaultError> {
        Ok(self.connection.query_row("SELECT count FROM showcase_changes", [], |row| row.get(0))?)
    }

    fn set_showcase(&mut self, sale: SaleOrdinal, settings: &str) -> Result<(), VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let put = "INSERT INTO showcases (ordinal, settings) VALUES (?1, ?2) \
                   ON CONFLICT (ordinal) DO UPDATE SET settings = excluded.settings";
        transaction.execute(put, params![sale.0, settings])?;
        transaction.execute("UPDATE showcase_changes SET count = count + 1", [])?;
        Ok(transaction.commit()?)
    }

    fn set_picture(&mut self, sale: SaleOrdinal, item: u16, id: &str, files: &[PictureFile]) -> Result<(), VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM pictures WHERE ordinal = ?1 AND item = ?2", params![sale.0, item])?;
        for file in files {
            transaction.execute(
                "INSERT INTO pictures (ordinal, item, width, format, id, height, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![sale.0, item, file.width, file.format, id, file.height, file.bytes],
            )?;
        }
        transaction.execute("UPDATE showcase_changes SET count = count + 1", [])?;
        Ok(transaction.commit()?)
    }

    fn set_human_check(&mut self, sale: SaleOrdinal, name: Option<&str>) -> Result<(), VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM human_checks WHERE ordinal = ?1", [sale.0])?;
        if let Some(name) = name {
            transaction.execute("INSERT INTO human_checks (ordinal, name) VALUES (?1, ?2)", params![sale.0, name])?;
        }
        transaction.execute("UPDATE showcase_changes SET count = count + 1", [])?;
        Ok(transaction.commit()?)
    }

    fn picture(&mut self, id: &str, width: u32, format: &str) -> Result<Option<Vec<u8>>, VaultError> {
        let query = "SELECT bytes FROM pictures WHERE id = ?1 AND width = ?2 AND format = ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        Ok(statement.query_row(params![id, width, format], |row| row.get(0)).optional()?)
    }

    fn blocks(&mut self) -> Result<KeptBlocks, VaultError> {
        // The count first: what changes meanwhile is read again, never missed.
        let changes = self.block_changes()?;
        let query = format!("SELECT {BLOCK_COLUMNS} FROM blocks ORDER BY created_at, id");
        let mut statement = self.connection.prepare_cached(&query)?;
        let blocks = statement.query_map([], block_of_row)?.collect::<Result<_, _>>()?;
        Ok(KeptBlocks { changes, blocks })
    }

    fn block_changes(&mut self) -> Result<u64, VaultError> {
        Ok(self.connection.query_row("SELECT count FROM block_changes", [], |row| row.get(0))?)
    }

    fn put_block(&mut self, block: &KeptBlock) -> Result<(), VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM blocks WHERE expires_at <= ?1", [block.created_at])?;
        let put = format!("INSERT OR REPLACE INTO blocks ({BLOCK_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
        let KeptBlock { id, kind, target, reason, made_by, created_at, expires_at } = block;
        transaction.execute(&put, params![id, kind, target, reason, made_by, created_at, expires_at])?;
        transaction.execute("UPDATE block_changes SET count = count + 1", [])?;
        Ok(transaction.commit()?)
    }

    fn remove_block(&mut self, id: &str) -> Result<Option<KeptBlock>, VaultError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let delete = format!("DELETE FROM blocks WHERE id = ?1 RETURNING {BLOCK_COLUMNS}");
        let removed = transaction.query_row(&delete, [id], block_of_row).optional()?;
        transaction.execute("UPDATE block_changes SET count = count + 1", [])?;
        transaction.commit()?;
        Ok(removed)
    }

    fn admin_tokens(&mut self) -> Result<AdminTokens, VaultError> {
        read_tokens(&self.connection)
    }

    fn first_admin_token(&mut self, path: &Path) -> Result<bool, VaultError> {
        let now = self.clock.wall_milliseconds();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if read_tokens(&transaction)?.has_owner(now) {
            return Ok(false);
        }
        let first = NewAdminToken::first(now)?;
        // The file first: a stored hash without a file would be a token that nobody has.
        tokens::write(path, &first.token)?;
        insert_token(&transaction, &first.kept)?;
        transaction.commit()?;
        Ok(true)
    }

    fn create_admin_token(&mut self, label: &str, role: Role, expires_at: u64) -> Result<NewAdminToken, VaultError> {
        let now = self.clock.wall_milliseconds();
        let new = NewAdminToken::draw(label, role, now, Some(expires_at))?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM admin_tokens WHERE expires_at <= ?1", [now])?;
        insert_token(&transaction, &new.kept)?;
        transaction.commit()?;
        Ok(new)
    }

    fn revoke_admin_token(&mut self, id: &str) -> Result<AdminToken, VaultError> {
        let now = self.clock.wall_milliseconds();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let revoked = read_tokens(&transaction)?.revocable(id, now)?;
        transaction.execute("DELETE FROM admin_tokens WHERE hash = ?1", [revoked.hash])?;
        transaction.commit()?;
        Ok(revoked)
    }
}

const BLOCK_COLUMNS: &str = "id, kind, target, reason, made_by, created_at, expires_at";

fn block_of_row(row: &Row<'_>) -> rusqlite::Result<KeptBlock> {
    Ok(KeptBlock {
        id: row.get(0)?,
        kind: row.get(1)?,
        target: row.get(2)?,
        reason: row.get(3)?,
        made_by: row.get(4)?,
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
    })
}

const SALE_COLUMNS: &str =
    "ordinal, name, sale_id, slot_secret, pseudonym_key, signing_seed, created_at, anonymised_at";

fn sale_of_row(row: &Row<'_>) -> rusqlite::Result<SaleSecrets> {
    Ok(SaleSecrets {
        ordinal: SaleOrdinal(row.get(0)?),
        name: row.get(1)?,
        sale: SaleId(row.get(2)?),
        slot_secret: row.get(3)?,
        pseudonym_key: row.get(4)?,
        signing_seed: row.get(5)?,
        created_at: row.get(6)?,
        anonymised_at: row.get(7)?,
    })
}

fn read_tokens(connection: &Connection) -> Result<AdminTokens, VaultError> {
    let query = "SELECT hash, label, role, created_at, expires_at FROM admin_tokens";
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map([], |row| {
        let role = Role::parse(row.get_ref(2)?.as_str()?);
        let unknown = || rusqlite::Error::FromSqlConversionFailure(2, Type::Text, Box::new(FromSqlError::InvalidType));
        Ok(AdminToken {
            hash: row.get(0)?,
            label: row.get(1)?,
            role: role.ok_or_else(unknown)?,
            created_at: row.get(3)?,
            expires_at: row.get(4)?,
        })
    })?;
    Ok(AdminTokens(rows.collect::<Result<_, _>>()?))
}

fn insert_token(connection: &Connection, token: &AdminToken) -> Result<(), VaultError> {
    connection.execute(
        "INSERT INTO admin_tokens (hash, label, role, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![token.hash, token.label, token.role.name(), token.created_at, token.expires_at],
    )?;
    Ok(())
}

fn insert_key(connection: &Connection, purpose: &str, id: u8, secret: &Secret, now: i64) -> Result<(), VaultError> {
    connection.execute(
        "INSERT INTO deployment_keys (purpose, key_id, active, secret, created_at) VALUES (:purpose, :id, 1, :secret, :now)",
        named_params! {":purpose": purpose, ":id": id, ":secret": secret, ":now": now},
    )?;
    Ok(())
}

fn ensure_customer(transaction: &Transaction<'_>, customer: &NewCustomer) -> Result<(i64, Secret), VaultError> {
    let secret = random_secret()?;
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO customers (issuer, subject, secret) VALUES (?1, ?2, ?3) ON CONFLICT (subject, issuer) DO NOTHING",
        )?
        .execute(params![customer.issuer, customer.subject, secret])?;
    if inserted == 1 {
        return Ok((transaction.last_insert_rowid(), secret));
    }
    let known = transaction
        .prepare_cached("SELECT id, secret FROM customers WHERE subject = ?1 AND issuer = ?2")?
        .query_row(params![customer.subject, customer.issuer], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(known)
}

fn ensure_pseudonym(transaction: &Transaction<'_>, customer: &NewCustomer, id: i64) -> Result<(), VaultError> {
    let inserted = transaction
        .prepare_cached("INSERT INTO map (ordinal, pseudonym, customer) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![customer.sale.0, customer.pseudonym.0, id])?;
    if inserted == 1 {
        return Ok(());
    }
    let known: i64 = transaction
        .prepare_cached("SELECT customer FROM map WHERE ordinal = ?1 AND pseudonym = ?2")?
        .query_row(params![customer.sale.0, customer.pseudonym.0], |row| row.get(0))?;
    if known == id { Ok(()) } else { Err(VaultError::PseudonymTaken(customer.sale)) }
}
