//! Admin tokens in PostgreSQL. Whoever writes holds the deployment's lock, so that the last owner is the last for every process.

use std::path::Path;

use domain::Role;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, Transaction};

use super::{bytes, column, number};
use crate::store::StoreError;
use crate::vault::VaultError;
use crate::vault::tokens::{self, AdminToken, AdminTokens, NewAdminToken};

pub(super) async fn read(client: &impl GenericClient) -> Result<AdminTokens, VaultError> {
    let query = "SELECT hash, label, role, created_at, expires_at FROM vault.admin_tokens";
    let rows = client.query_typed(query, &[]).await?;
    Ok(AdminTokens(rows.iter().map(of_row).collect::<Result<_, _>>()?))
}

fn of_row(row: &Row) -> Result<AdminToken, StoreError> {
    let role: &str = column(row, 2)?;
    Ok(AdminToken {
        hash: bytes(row, 0)?,
        label: column(row, 1)?,
        role: Role::parse(role).ok_or_else(|| StoreError::Damaged(format!("{role:?} is no role")))?,
        created_at: number(column(row, 3)?)?,
        expires_at: column::<Option<i64>>(row, 4)?.map(number).transpose()?,
    })
}

/// Writes the first token, or says that there is an owner's already.
pub(super) async fn first(
    transaction: &Transaction<'_>,
    path: &Path,
    first: &NewAdminToken,
) -> Result<bool, VaultError> {
    let known = read(transaction).await?;
    if known.0.contains(&first.kept) {
        // An earlier try was committed, and its answer got lost.
        return Ok(true);
    }
    if known.has_owner(first.kept.created_at) {
        return Ok(false);
    }
    // The file first: a stored hash without a file would be a token that nobody has.
    tokens::write(path, &first.token)?;
    insert(transaction, &first.kept).await?;
    Ok(true)
}

/// Writes a token and forgets those that have expired at `now`.
pub(super) async fn add(transaction: &Transaction<'_>, token: &AdminToken, now: u64) -> Result<(), VaultError> {
    let delete = "DELETE FROM vault.admin_tokens WHERE expires_at <= $1";
    transaction.execute_typed(delete, &[(&signed(now), Type::INT8)]).await?;
    insert(transaction, token).await
}

/// A second time changes nothing.
async fn insert(transaction: &Transaction<'_>, token: &AdminToken) -> Result<(), VaultError> {
    let insert = "INSERT INTO vault.admin_tokens (hash, label, role, created_at, expires_at) VALUES ($1, $2, $3, $4, $5) \
                  ON CONFLICT (hash) DO NOTHING";
    let columns = [
        (&&token.hash[..] as _, Type::BYTEA),
        (&token.label as _, Type::TEXT),
        (&token.role.name() as _, Type::TEXT),
        (&signed(token.created_at) as _, Type::INT8),
        (&token.expires_at.map(signed) as _, Type::INT8),
    ];
    transaction.execute_typed(insert, &columns).await?;
    Ok(())
}

pub(super) async fn revoke(transaction: &Transaction<'_>, id: &str, now: u64) -> Result<AdminToken, VaultError> {
    let revoked = read(transaction).await?.revocable(id, now)?;
    let delete = "DELETE FROM vault.admin_tokens WHERE hash = $1";
    transaction.execute_typed(delete, &[(&&revoked.hash[..], Type::BYTEA)]).await?;
    Ok(revoked)
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
