//! The vault in PostgreSQL, for a deployment whose processes share one.
//!
//! What must be made once (the tables, keys, sales, the first token) is made under one advisory lock; customers, of whom there are
//! many, are decided by unique constraints. Nothing is kept in memory: what one process writes, the next call of another sees.

mod admins;
mod blocks;
mod customers;
mod session;
mod showcases;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use domain::{Clock, Pseudonym, Role, SaleId, SaleOrdinal};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Config, GenericClient, Row, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::session::{SCHEMA_VERSION, Session, alone, version_of};
use super::blocks::{KeptBlock, KeptBlocks};
use super::showcase::{KeptShowcases, PictureFile};
use super::tokens::{AdminToken, AdminTokens, NewAdminToken};
use super::{
    DeploymentKeys, KEY_PURPOSES, KeyRow, KnownCustomer, NewCustomer, PassKey, SaleSecrets, Secret, VaultError,
    VaultStore, random_sale_id, random_secret,
};
use crate::store::StoreError;

const TABLES: &str = include_str!("postgres/schema.sql");
const SALE_COLUMNS: &str =
    "ordinal, name, sale_id, slot_secret, pseudonym_key, signing_seed, created_at, anonymised_at";

/// Where the database is and who asks. Without an authority the connection is not encrypted: it belongs on one machine or a network that is
/// trusted.
#[derive(Clone)]
pub struct PostgresOptions {
    /// The server, `host:port`.
    pub address: String,
    /// The database, which the user may create a schema in; or somebody has created the schema `vault` for them.
    pub database: String,
    /// The cluster that the vault belongs to from its first use on; under another name it is refused.
    pub cluster: String,
    /// Name of the user.
    pub user: String,
    /// Their password.
    pub password: String,
    /// The authority that signed the server's certificate, in PEM form; with it the connection is TLS, or there is none.
    pub tls_authority: Option<Vec<u8>>,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresOptions({}@{}/{}, secret)", self.user, self.address, self.database)
    }
}

impl PostgresOptions {
    fn config(&self) -> Result<Config, StoreError> {
        let parts = self.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or_else(|| StoreError::Unwritable(format!("{} is not host:port", self.address)))?;
        let mut config = Config::new();
        config.host(host.trim_start_matches('[').trim_end_matches(']')).port(port);
        config.dbname(&self.database).user(&self.user).password(&self.password).application_name("doorbuster");
        config.ssl_mode(if self.tls_authority.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(config)
    }

    fn encryption(&self) -> Result<Option<MakeRustlsConnect>, StoreError> {
        let Some(authority) = &self.tls_authority else { return Ok(None) };
        let wrong = |reason: &dyn fmt::Display| StoreError::Unwritable(format!("the authority for TLS: {reason}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"it has no certificate"));
        }
        // Said outright, not taken from what the process has chosen: this crate works where nothing was chosen.
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(|error| wrong(&error))?;
        Ok(Some(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// The vault, open. Many per deployment, one in each process; blocking, in a task of a runtime too.
pub struct PostgresVault {
    session: Session,
    clock: Arc<dyn Clock>,
}

impl PostgresVault {
    /// Opens the vault, or creates it with fresh deployment keys. A server that cannot be reached is
    /// [`StoreError::Unreachable`]; one that may lose what it commits, [`StoreError::NotDurable`]. A connection that is lost
    /// later is opened again by the call that misses it. [`VaultError::OtherCluster`] where it belongs to one.
    pub fn open(options: &PostgresOptions, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        let mut vault = Self { session: Session::new(options.config()?, options.encryption()?)?, clock };
        let (now, cluster) = (vault.now(), options.cluster.as_str());
        vault.session.call(async |client| {
            alone(client, async |transaction| create_missing(transaction, cluster, now).await).await
        })?;
        vault.session.expect_vault();
        vault.deployment_keys()?;
        Ok(vault)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.wall_milliseconds()).unwrap_or(i64::MAX)
    }
}

impl VaultStore for PostgresVault {
    fn deployment_keys(&mut self) -> Result<DeploymentKeys, VaultError> {
        self.session.call(async |client| {
            let query = "SELECT purpose, key_id, active, secret FROM vault.deployment_keys ORDER BY purpose, key_id";
            let rows = client.query_typed(query, &[]).await?;
            DeploymentKeys::of_rows(rows.iter().map(key_of_row).collect::<Result<_, _>>()?)
        })
    }

    fn rotate_pass_key(&mut self) -> Result<u8, VaultError> {
        let secret = random_secret()?;
        let now = self.now();
        self.session
            .call(async |client| alone(client, async |transaction| rotate(transaction, &secret, now).await).await)
    }

    fn register_sale(&mut self, name: &str) -> Result<SaleSecrets, VaultError> {
        let fresh = SaleSecrets {
            ordinal: SaleOrdinal(0),
            name: name.to_owned(),
            sale: random_sale_id()?,
            slot_secret: random_secret()?,
            pseudonym_key: random_secret()?,
            signing_seed: random_secret()?,
            created_at: self.clock.wall_milliseconds(),
            anonymised_at: None,
        };
        self.session.call(async |client| alone(client, async |transaction| register(transaction, &fresh).await).await)
    }

    fn sales(&mut self) -> Result<Vec<SaleSecrets>, VaultError> {
        self.session.call(async |client| {
            let query = format!("SELECT {SALE_COLUMNS} FROM vault.sales ORDER BY ordinal");
            client.query_typed(&query, &[]).await?.iter().map(sale_of_row).collect()
        })
    }

    fn ensure_customers(&mut self, batch: &[NewCustomer]) -> Result<Vec<Secret>, VaultError> {
        self.session.call(async |client| customers::ensure(client, batch).await)
    }

    fn customer_of(&mut self, sale: SaleOrdinal, pseudonym: Pseudonym) -> Result<Option<KnownCustomer>, VaultError> {
        self.session.call(async |client| {
            let query = "SELECT issuer, subject, secret FROM vault.map JOIN vault.customers ON customers.id = map.customer \
                         WHERE ordinal = $1 AND pseudonym = $2";
            let key = [(&i64::from(sale.0) as _, Type::INT8), (&&pseudonym.0[..] as _, Type::BYTEA)];
            let row = client.query_typed_opt(query, &key).await?;
            let known = |row: Row| {
                Ok(KnownCustomer { issuer: column(&row, 0)?, subject: column(&row, 1)?, key: bytes(&row, 2)? })
            };
            row.map(known).transpose()
        })
    }

    fn erase_customer(&mut self, issuer: &str, subject: &str) -> Result<bool, VaultError> {
        let mut was_there = false;
        // Stays true if an earlier try was committed and its answer got lost.
        self.session.call(async |client| customers::erase(client, issuer, subject, &mut was_there).await)?;
        Ok(was_there)
    }

    fn anonymise_sale(&mut self, sale: SaleOrdinal) -> Result<bool, VaultError> {
        let (key, now) = (random_secret()?, self.now());
        self.session.call(async |client| customers::anonymise(client, sale, &key, now).await)
    }

    fn erasures(&mut self) -> Result<u64, VaultError> {
        self.session.call(async |client| {
            let row = client.query_typed_one("SELECT count FROM vault.erasures", &[]).await?;
            Ok(number(column(&row, 0)?)?)
        })
    }

    fn showcases(&mut self) -> Result<KeptShowcases, VaultError> {
        self.session.call(async |client| showcases::read(client).await)
    }

    fn showcase_changes(&mut self) -> Result<u64, VaultError> {
        self.session.call(async |client| showcases::changes(client).await)
    }

    fn set_showcase(&mut self, sale: SaleOrdinal, settings: &str) -> Result<(), VaultError> {
        self.session.call(async |client| {
            alone(client, async |transaction| showcases::set(transaction, sale, settings).await).await
        })
    }

    fn set_picture(&mut self, sale: SaleOrdinal, item: u16, id: &str, files: &[PictureFile]) -> Result<(), VaultError> {
        self.session.call(async |client| {
            alone(client, async |transaction| showcases::set_picture(transaction, sale, item, id, files).await).await
        })
    }

    fn set_human_check(&mut self, sale: SaleOrdinal, name: Option<&str>) -> Result<(), VaultError> {
        self.session.call(async |client| {
            alone(client, async |transaction| showcases::set_human_check(transaction, sale, name).await).await
        })
    }

    fn picture(&mut self, id: &str, width: u32, format: &str) -> Result<Option<Vec<u8>>, VaultError> {
        self.session.call(async |client| showcases::picture(client, id, width, format).await)
    }

    fn blocks(&mut self) -> Result<KeptBlocks, VaultError> {
        self.session.call(async |client| blocks::read(client).await)
    }

    fn block_changes(&mut self) -> Result<u64, VaultError> {
        self.session.call(async |client| blocks::changes(client).await)
    }

    fn put_block(&mut self, block: &KeptBlock) -> Result<(), VaultError> {
        self.session.call(async |client| alone(client, async |transaction| blocks::put(transaction, block).await).await)
    }

    fn remove_block(&mut self, id: &str) -> Result<Option<KeptBlock>, VaultError> {
        let mut found = None;
        self.session.call(async |client| {
            let removed = alone(client, async |transaction| blocks::remove(transaction, id).await).await?;
            // Of several tries, the one that was committed and whose answer got lost found it.
            found = removed.or(found.take());
            Ok(())
        })?;
        Ok(found)
    }

    fn admin_tokens(&mut self) -> Result<AdminTokens, VaultError> {
        self.session.call(async |client| admins::read(client).await)
    }

    fn first_admin_token(&mut self, path: &Path) -> Result<bool, VaultError> {
        let first = NewAdminToken::first(self.clock.wall_milliseconds())?;
        self.session.call(async |client| {
            alone(client, async |transaction| admins::first(transaction, path, &first).await).await
        })
    }

    fn create_admin_token(&mut self, label: &str, role: Role, expires_at: u64) -> Result<NewAdminToken, VaultError> {
        let now = self.clock.wall_milliseconds();
        let new = NewAdminToken::draw(label, role, now, Some(expires_at))?;
        self.session.call(async |client| {
            alone(client, async |transaction| admins::add(transaction, &new.kept, now).await).await
        })?;
        Ok(new)
    }

    fn revoke_admin_token(&mut self, id: &str) -> Result<AdminToken, VaultError> {
        let now = self.clock.wall_milliseconds();
        let mut found = None;
        self.session.call(async |client| {
            alone(client, async |transaction| match admins::revoke(transaction, id, now).await {
                // An earlier try was committed, and its answer got lost.
                Err(VaultError::TokenUnknown) if found.is_some() => Ok(()),
                told => told.map(|token| found = Some(token)),
            })
            .await
        })?;
        found.ok_or(VaultError::TokenUnknown)
    }
}

/// The tables and the deployment's keys, where they are not there yet.
async fn create_missing(transaction: &Transaction<'_>, cluster: &str, now: i64) -> Result<(), VaultError> {
    if version_of(transaction).await?.is_none() {
        let query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'vault')";
        // Even IF NOT EXISTS would ask for the right to create one.
        if !column::<bool>(&transaction.query_typed_one(query, &[]).await?, 0)? {
            transaction.batch_execute("CREATE SCHEMA vault").await?;
        }
        transaction.batch_execute(TABLES).await?;
        let insert = "INSERT INTO vault.schema_version (version) VALUES ($1)";
        transaction.execute_typed(insert, &[(&SCHEMA_VERSION, Type::INT8)]).await?;
        let insert = "INSERT INTO vault.cluster (name) VALUES ($1)";
        transaction.execute_typed(insert, &[(&cluster, Type::TEXT)]).await?;
    }
    let row = transaction.query_typed_opt("SELECT name FROM vault.cluster", &[]).await?;
    let row = row.ok_or_else(|| StoreError::Damaged("the cluster's name is missing".to_owned()))?;
    let found: String = column(&row, 0)?;
    if found != cluster {
        return Err(VaultError::OtherCluster { found, ours: cluster.to_owned() });
    }
    let row = transaction.query_typed_one("SELECT EXISTS (SELECT FROM vault.deployment_keys)", &[]).await?;
    if !column::<bool>(&row, 0)? {
        for purpose in KEY_PURPOSES {
            insert_key(transaction, purpose, 0, &random_secret()?, now).await?;
        }
    }
    Ok(())
}

async fn insert_key(
    transaction: &Transaction<'_>,
    purpose: &str,
    id: u8,
    secret: &Secret,
    now: i64,
) -> Result<(), VaultError> {
    let insert = "INSERT INTO vault.deployment_keys (purpose, key_id, active, secret, created_at) \
                  VALUES ($1, $2, true, $3, $4)";
    let key = [
        (&purpose as _, Type::TEXT),
        (&i64::from(id) as _, Type::INT8),
        (&&secret[..] as _, Type::BYTEA),
        (&now as _, Type::INT8),
    ];
    transaction.execute_typed(insert, &key).await?;
    Ok(())
}

async fn rotate(transaction: &Transaction<'_>, secret: &Secret, now: i64) -> Result<u8, VaultError> {
    let query = "SELECT key_id, secret FROM vault.deployment_keys WHERE purpose = 'pass' ORDER BY key_id DESC LIMIT 1";
    let last = transaction.query_typed_opt(query, &[]).await?.ok_or(VaultError::KeysIncomplete)?;
    let id: u8 = number(column(&last, 0)?)?;
    if bytes(&last, 1)? == *secret {
        // An earlier try was committed, and its answer got lost.
        return Ok(id);
    }
    let id = id.checked_add(1).ok_or(VaultError::KeyIdsExhausted)?;
    transaction.execute_typed("UPDATE vault.deployment_keys SET active = false WHERE purpose = 'pass'", &[]).await?;
    insert_key(transaction, "pass", id, secret, now).await?;
    Ok(id)
}

/// The sale of that name, with the next ordinal if it is new. A sequence would leave gaps.
async fn register(transaction: &Transaction<'_>, fresh: &SaleSecrets) -> Result<SaleSecrets, VaultError> {
    if let Some(known) = sale_named(transaction, &fresh.name).await? {
        return Ok(known);
    }
    let insert = format!(
        "INSERT INTO vault.sales ({SALE_COLUMNS}) SELECT coalesce(max(ordinal), 0) + 1, $1, $2, $3, $4, $5, $6, NULL FROM vault.sales"
    );
    let created_at = i64::try_from(fresh.created_at).unwrap_or(i64::MAX);
    let columns = [
        (&fresh.name as _, Type::TEXT),
        (&&fresh.sale.0[..] as _, Type::BYTEA),
        (&&fresh.slot_secret[..] as _, Type::BYTEA),
        (&&fresh.pseudonym_key[..] as _, Type::BYTEA),
        (&&fresh.signing_seed[..] as _, Type::BYTEA),
        (&created_at as _, Type::INT8),
    ];
    transaction.execute_typed(&insert, &columns).await?;
    let written = sale_named(transaction, &fresh.name).await?;
    written.ok_or_else(|| StoreError::Damaged("a sale is not there after it was written".to_owned()).into())
}

async fn sale_named(client: &impl GenericClient, name: &str) -> Result<Option<SaleSecrets>, VaultError> {
    let query = format!("SELECT {SALE_COLUMNS} FROM vault.sales WHERE name = $1");
    client.query_typed_opt(&query, &[(&name, Type::TEXT)]).await?.as_ref().map(sale_of_row).transpose()
}

fn key_of_row(row: &Row) -> Result<KeyRow, VaultError> {
    let key = PassKey { id: number(column(row, 1)?)?, active: column(row, 2)?, secret: bytes(row, 3)? };
    Ok(KeyRow { purpose: column(row, 0)?, key })
}

fn sale_of_row(row: &Row) -> Result<SaleSecrets, VaultError> {
    Ok(SaleSecrets {
        ordinal: SaleOrdinal(number(column(row, 0)?)?),
        name: column(row, 1)?,
        sale: SaleId(bytes(row, 2)?),
        slot_secret: bytes(row, 3)?,
        pseudonym_key: bytes(row, 4)?,
        signing_seed: bytes(row, 5)?,
        created_at: number(column(row, 6)?)?,
        anonymised_at: column::<Option<i64>>(row, 7)?.map(number).transpose()?,
    })
}

fn column<'row, T: FromSql<'row>>(row: &'row Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| StoreError::Damaged(error.to_string()))
}

/// Exactly so many bytes.
fn bytes<const LENGTH: usize>(row: &Row, index: usize) -> Result<[u8; LENGTH], StoreError> {
    let found: &[u8] = column(row, index)?;
    found.try_into().map_err(|_| StoreError::Damaged(format!("{} bytes where {LENGTH} belong", found.len())))
}

fn number<T: TryFrom<i64>>(found: i64) -> Result<T, StoreError> {
    T::try_from(found).map_err(|_| StoreError::Damaged(format!("the number {found} is out of range")))
}
