//! The vault's connection to PostgreSQL: opened when a call needs it, refused unless its commits last, and opened again when it is lost.
//!
//! It knows one table, the schema's version.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, GenericClient, NoTls, Socket, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::column;
use crate::store::StoreError;
use crate::vault::VaultError;

/// The newest version of the schema that this program knows.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// How long a connection may take, until it is ready for the first statement.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a statement may take, and how long a transaction may wait for its next one. The server keeps both, so that a process that
/// stands still does not hold the others for ever.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a call may take, with all its tries.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// How often a call is tried when the connection is lost or another process went before.
const TRIES_MAX: u32 = 5;
/// The lock of the deployment, among the advisory locks of its database.
const LOCK: i64 = i64::from_be_bytes(*b"drbvault");

const _: () = assert!(CONNECT_PATIENCE.as_secs() + STATEMENT_PATIENCE.as_secs() < CALL_PATIENCE.as_secs());

/// A connection, and the runtime that it lives in.
pub(super) struct Session {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    link: Link,
}

struct Link {
    config: Config,
    encryption: Option<MakeRustlsConnect>,
    client: Option<Client>,
    /// Whether the vault has been seen there. From then on a database without it is an accident, not a beginning.
    is_known: bool,
}

impl Session {
    /// Connects to nothing yet.
    pub(super) fn new(config: Config, encryption: Option<MakeRustlsConnect>) -> Result<Self, VaultError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { runtime: Some(runtime), link: Link { config, encryption, client: None, is_known: false } })
    }

    /// From now on the vault has to be there.
    pub(super) fn expect_vault(&mut self) {
        self.link.is_known = true;
    }

    /// Does `work`, which must be safe to repeat; a second time on a new connection if the first is lost on the way.
    pub(super) fn call<T: Send>(
        &mut self,
        work: impl AsyncFnMut(&mut Client) -> Result<T, VaultError> + Send,
    ) -> Result<T, VaultError> {
        let runtime = self.runtime.as_ref().expect("the runtime is there until the session is dropped");
        let link = &mut self.link;
        wait(runtime, async || {
            let outcome = timeout(CALL_PATIENCE, link.tries(work)).await;
            outcome.unwrap_or_else(|_| {
                // Whatever the server still does belongs to nobody.
                link.client = None;
                Err(StoreError::Unreachable(format!("no end after {} s", CALL_PATIENCE.as_secs())).into())
            })
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it would panic where another runtime's task drops the vault, and there is nothing to wait for.
            runtime.shutdown_background();
        }
    }
}

/// Runs `work` to its end on this thread. In a task of another runtime that would panic, so there a thread of its own takes it.
fn wait<T: Send>(runtime: &Runtime, work: impl AsyncFnOnce() -> T + Send) -> T {
    if Handle::try_current().is_err() {
        return runtime.block_on(work());
    }
    thread::scope(|scope| scope.spawn(|| runtime.block_on(work())).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

impl Link {
    async fn tries<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Client) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut tried = 0;
        loop {
            // A server that cannot be reached is not tried again: its caller knows better how long that is of use.
            let client = self.connected().await?;
            let result = work(client).await;
            tried += 1;
            match result {
                Err(VaultError::Store(StoreError::Unreachable(_))) if tried < TRIES_MAX => self.client = None,
                Err(VaultError::Store(StoreError::Busy)) if tried < TRIES_MAX => {}
                result => return result,
            }
        }
    }

    async fn connected(&mut self) -> Result<&mut Client, StoreError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let connecting = timeout(CONNECT_PATIENCE, self.connect()).await;
                connecting.unwrap_or_else(|_| {
                    Err(StoreError::Unreachable(format!("no connection after {} s", CONNECT_PATIENCE.as_secs())))
                })?
            }
        };
        Ok(self.client.insert(client))
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let client = match &self.encryption {
            Some(encryption) => dial(&self.config, encryption.clone()).await,
            None => dial(&self.config, NoTls).await,
        }?;
        prepare(&client).await?;
        if version_of(&client).await?.is_none() && self.is_known {
            return Err(StoreError::Damaged("the vault is gone from the database".to_owned()));
        }
        Ok(client)
    }
}

/// Opens the connection, which then lives in a task of its own; its error reaches whoever uses the client.
async fn dial<T>(config: &Config, encryption: T) -> Result<Client, StoreError>
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static>,
{
    let (client, connection) = config.connect(encryption).await.map_err(|error| match error.as_db_error() {
        Some(told) => told_by_server(told),
        None => StoreError::Unreachable(words(&error)),
    })?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Checks what the server does with a commit, and keeps it from changing that under this session.
async fn prepare(client: &Client) -> Result<(), StoreError> {
    let query = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
                 current_setting('server_encoding'), pg_is_in_recovery()";
    let row = client.query_typed_one(query, &[]).await?;
    let (commit, sync, encoding): (&str, &str, &str) = (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
    if !["on", "remote_apply"].contains(&commit) {
        return Err(StoreError::NotDurable(format!("synchronous_commit is {commit} and has to be on")));
    }
    if sync != "on" {
        return Err(StoreError::NotDurable(format!("fsync is {sync} and has to be on")));
    }
    if encoding != "UTF8" {
        return Err(StoreError::Unwritable(format!("the database's encoding is {encoding} and has to be UTF8")));
    }
    if column(&row, 3)? {
        return Err(StoreError::Unwritable("the server is a standby".to_owned()));
    }
    // Every statement looks rows up by key. The planner takes a batch for a reason to read whole tables.
    let settings = format!(
        "SET synchronous_commit = {commit}; SET default_transaction_isolation = 'read committed'; \
         SET statement_timeout = '{patience}s'; SET idle_in_transaction_session_timeout = '{patience}s'; \
         SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
        patience = STATEMENT_PATIENCE.as_secs(),
    );
    Ok(client.batch_execute(&settings).await?)
}

/// The schema's version, if the vault is there; a newer one than this program knows is refused.
pub(super) async fn version_of(client: &impl GenericClient) -> Result<Option<i64>, StoreError> {
    // Not `to_regclass`: it answers from a cache that does not see what another session made while this one waited for the lock.
    let query = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'vault' AND tablename = 'schema_version')";
    if !column::<bool>(&client.query_typed_one(query, &[]).await?, 0)? {
        return Ok(None);
    }
    let row = client.query_typed_opt("SELECT version FROM vault.schema_version", &[]).await?;
    let row = row.ok_or_else(|| StoreError::Damaged("the schema's version is missing".to_owned()))?;
    let found = column(&row, 0)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
    }
    Ok(Some(found))
}

/// Does `work` in one transaction: committed if it succeeds, undone if not.
pub(super) async fn together<T>(
    client: &mut Client,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    let transaction = client.transaction().await?;
    match work(&transaction).await {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // Now, not at the next call: its locks would stand until then. If it fails, the connection ends, and it with it.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

/// The same, while every other process of the deployment that wants this waits.
pub(super) async fn alone<T>(
    client: &mut Client,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, VaultError>,
) -> Result<T, VaultError> {
    together(client, async |transaction| {
        transaction.execute_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
        work(transaction).await
    })
    .await
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(told) = error.as_db_error() {
            return told_by_server(told);
        }
        let source = std::error::Error::source(&error);
        if error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>()) {
            return Self::Unreachable(words(&error));
        }
        Self::Failed(words(&error))
    }
}

impl From<tokio_postgres::Error> for VaultError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// By the classes of PostgreSQL's documentation, appendix A. The details are left out: they name customers.
fn told_by_server(told: &DbError) -> StoreError {
    let code = told.code();
    let said = format!("{} ({})", told.message(), code.code());
    if *code == SqlState::DISK_FULL {
        return StoreError::Full;
    }
    if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) {
        return StoreError::Damaged(said);
    }
    // A foreign key that leads nowhere: the customer was erased in the same moment, and the next try makes a new one.
    let went_before = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::FOREIGN_KEY_VIOLATION,
    ];
    if went_before.contains(code) {
        return StoreError::Busy;
    }
    match code.code().get(..2) {
        // The connection failed, too much is asked of the server, or its operator intervened.
        Some("08" | "53" | "57") => StoreError::Unreachable(said),
        Some("28") => StoreError::Unwritable(format!(
            "{said}; so nobody is let in: postgres.user and postgres.password have to be those of a role that the server's pg_hba.conf \
             admits from here"
        )),
        Some("3D") => StoreError::Unwritable(format!(
            "{said}; create it for the user, or set postgres.database to the one that has the vault"
        )),
        // A transaction that may not write.
        Some("25") => StoreError::Unwritable(said),
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Unwritable(said),
        _ => StoreError::Failed(said),
    }
}

/// The error with its cause, which the driver's own words leave out.
fn words(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
