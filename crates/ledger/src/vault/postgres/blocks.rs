//! The block list in PostgreSQL. Whoever changes it holds the deployment's lock.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row, Transaction};

use super::{column, number};
use crate::store::StoreError;
use crate::vault::VaultError;
use crate::vault::blocks::{KeptBlock, KeptBlocks};

const COLUMNS: &str = "id, kind, target, reason, made_by, created_at, expires_at";

pub(super) async fn read(client: &impl GenericClient) -> Result<KeptBlocks, VaultError> {
    // The count first: what changes meanwhile is read again, never missed.
    let changes = changes(client).await?;
    let query = format!("SELECT {COLUMNS} FROM vault.blocks ORDER BY created_at, id");
    let rows = client.query_typed(&query, &[]).await?;
    Ok(KeptBlocks { changes, blocks: rows.iter().map(of_row).collect::<Result<_, _>>()? })
}

pub(super) async fn changes(client: &impl GenericClient) -> Result<u64, VaultError> {
    let row = client.query_typed_one("SELECT count FROM vault.block_changes", &[]).await?;
    Ok(number(column(&row, 0)?)?)
}

/// A second time changes nothing.
pub(super) async fn put(transaction: &Transaction<'_>, block: &KeptBlock) -> Result<(), VaultError> {
    let created_at = signed(block.created_at);
    let delete = "DELETE FROM vault.blocks WHERE expires_at <= $1 OR id = $2";
    transaction.execute_typed(delete, &[(&created_at, Type::INT8), (&block.id, Type::TEXT)]).await?;
    let insert = format!("INSERT INTO vault.blocks ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)");
    let columns = [
        (&block.id as _, Type::TEXT),
        (&block.kind as _, Type::TEXT),
        (&block.target as _, Type::TEXT),
        (&block.reason as _, Type::TEXT),
        (&block.made_by as _, Type::TEXT),
        (&created_at as _, Type::INT8),
        (&block.expires_at.map(signed) as _, Type::INT8),
    ];
    transaction.execute_typed(&insert, &columns).await?;
    count(transaction).await
}

pub(super) async fn remove(transaction: &Transaction<'_>, id: &str) -> Result<Option<KeptBlock>, VaultError> {
    let delete = format!("DELETE FROM vault.blocks WHERE id = $1 RETURNING {COLUMNS}");
    let row = transaction.query_typed_opt(&delete, &[(&id, Type::TEXT)]).await?;
    count(transaction).await?;
    Ok(row.as_ref().map(of_row).transpose()?)
}

async fn count(transaction: &Transaction<'_>) -> Result<(), VaultError> {
    transaction.execute_typed("UPDATE vault.block_changes SET count = count + 1", &[]).await?;
    Ok(())
}

fn of_row(row: &Row) -> Result<KeptBlock, StoreError> {
    Ok(KeptBlock {
        id: column(row, 0)?,
        kind: column(row, 1)?,
        target: column(row, 2)?,
        reason: column(row, 3)?,
        made_by: column(row, 4)?,
        created_at: number(column(row, 5)?)?,
        expires_at: column::<Option<i64>>(row, 6)?.map(number).transpose()?,
    })
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
