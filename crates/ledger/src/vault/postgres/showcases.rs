//! What the sales' pages show, in PostgreSQL. Whoever changes it holds the deployment's lock.

use domain::SaleOrdinal;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::{column, number};
use crate::vault::VaultError;
use crate::vault::showcase::{KeptShowcases, PictureFile};

pub(super) async fn read(client: &impl GenericClient) -> Result<KeptShowcases, VaultError> {
    // The count first: what changes meanwhile is read again, never missed.
    let mut found = KeptShowcases { changes: changes(client).await?, ..KeptShowcases::default() };
    for row in client.query_typed("SELECT ordinal, settings FROM vault.showcases", &[]).await? {
        found.settings.insert(SaleOrdinal(number(column(&row, 0)?)?), column(&row, 1)?);
    }
    for row in client.query_typed("SELECT ordinal, name FROM vault.human_checks", &[]).await? {
        found.human_checks.insert(SaleOrdinal(number(column(&row, 0)?)?), column(&row, 1)?);
    }
    let query = "SELECT DISTINCT ordinal, item, id, width, height FROM vault.pictures ORDER BY ordinal, item, width";
    for row in client.query_typed(query, &[]).await? {
        let of = (SaleOrdinal(number(column(&row, 0)?)?), number(column(&row, 1)?)?);
        found.add(of, column(&row, 2)?, (number(column(&row, 3)?)?, number(column(&row, 4)?)?));
    }
    Ok(found)
}

pub(super) async fn changes(client: &impl GenericClient) -> Result<u64, VaultError> {
    let row = client.query_typed_one("SELECT count FROM vault.showcase_changes", &[]).await?;
    Ok(number(column(&row, 0)?)?)
}

pub(super) async fn set(transaction: &Transaction<'_>, sale: SaleOrdinal, settings: &str) -> Result<(), VaultError> {
    let put = "INSERT INTO vault.showcases (ordinal, settings) VALUES ($1, $2) \
               ON CONFLICT (ordinal) DO UPDATE SET settings = excluded.settings";
    let columns = [(&i64::from(sale.0) as _, Type::INT8), (&settings as _, Type::TEXT)];
    transaction.execute_typed(put, &columns).await?;
    count(transaction).await
}

pub(super) async fn set_picture(
    transaction: &Transaction<'_>,
    sale: SaleOrdinal,
    item: u16,
    id: &str,
    files: &[PictureFile],
) -> Result<(), VaultError> {
    let (sale, item) = (i64::from(sale.0), i64::from(item));
    let delete = "DELETE FROM vault.pictures WHERE ordinal = $1 AND item = $2";
    transaction.execute_typed(delete, &[(&sale, Type::INT8), (&item, Type::INT8)]).await?;
    let insert = "INSERT INTO vault.pictures (ordinal, item, width, format, id, height, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    for file in files {
        let columns = [
            (&sale as _, Type::INT8),
            (&item as _, Type::INT8),
            (&i64::from(file.width) as _, Type::INT8),
            (&file.format as _, Type::TEXT),
            (&id as _, Type::TEXT),
            (&i64::from(file.height) as _, Type::INT8),
            (&&file.bytes[..] as _, Type::BYTEA),
        ];
        transaction.execute_typed(insert, &columns).await?;
    }
    count(transaction).await
}

pub(super) async fn set_human_check(
    transaction: &Transaction<'_>,
    sale: SaleOrdinal,
    name: Option<&str>,
) -> Result<(), VaultError> {
    let sale = i64::from(sale.0);
    transaction.execute_typed("DELETE FROM vault.human_checks WHERE ordinal = $1", &[(&sale, Type::INT8)]).await?;
    if let Some(name) = name {
        let insert = "INSERT INTO vault.human_checks (ordinal, name) VALUES ($1, $2)";
        transaction.execute_typed(insert, &[(&sale as _, Type::INT8), (&name as _, Type::TEXT)]).await?;
    }
    count(transaction).await
}

async fn count(transaction: &Transaction<'_>) -> Result<(), VaultError> {
    transaction.execute_typed("UPDATE vault.showcase_changes SET count = count + 1", &[]).await?;
    Ok(())
}

pub(super) async fn picture(
    client: &impl GenericClient,
    id: &str,
    width: u32,
    format: &str,
) -> Result<Option<Vec<u8>>, VaultError> {
    let query = "SELECT bytes FROM vault.pictures WHERE id = $1 AND width = $2 AND format = $3 LIMIT 1";
    let key = [(&id as _, Type::TEXT), (&i64::from(width) as _, Type::INT8), (&format as _, Type::TEXT)];
    let row = client.query_typed_opt(query, &key).await?;
    Ok(row.map(|row| column(&row, 0)).transpose()?)
}
