//! Customers of a batch in a few statements, whatever its size, and in an order in which no two processes can wait for each other.

use domain::SaleOrdinal;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::session::together;
use super::{bytes, column};
use crate::store::StoreError;
use crate::vault::{NewCustomer, Secret, VaultError, random_secret};

const KNOWN: &str = "
    SELECT customers.id, customers.secret, map.customer
    FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS wanted (ordinal, pseudonym, issuer, subject, place)
    LEFT JOIN vault.customers ON customers.subject = wanted.subject AND customers.issuer = wanted.issuer
    LEFT JOIN vault.map ON map.ordinal = wanted.ordinal AND map.pseudonym = wanted.pseudonym
    ORDER BY place";

const INSERT_CUSTOMERS: &str = "
    INSERT INTO vault.customers (issuer, subject, secret)
    SELECT issuer, subject, secret FROM unnest($1, $2, $3) WITH ORDINALITY AS wanted (issuer, subject, secret, place)
    ORDER BY place ON CONFLICT (subject, issuer) DO NOTHING";

const INSERT_PSEUDONYMS: &str = "
    INSERT INTO vault.map (ordinal, pseudonym, customer)
    SELECT wanted.ordinal, wanted.pseudonym, customers.id
    FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS wanted (ordinal, pseudonym, issuer, subject, place)
    JOIN vault.customers ON customers.subject = wanted.subject AND customers.issuer = wanted.issuer
    ORDER BY place ON CONFLICT (ordinal, pseudonym) DO NOTHING";

/// What the vault knows of one customer.
struct Known {
    customer: Option<(i64, Secret)>,
    /// The customer whose pseudonym it is.
    owner: Option<i64>,
}

impl Known {
    fn of_row(row: &Row) -> Result<Self, VaultError> {
        let customer = match column::<Option<i64>>(row, 0)? {
            Some(id) => Some((id, bytes(row, 1)?)),
            None => None,
        };
        Ok(Self { customer, owner: column(row, 2)? })
    }

    /// The key, if the pseudonym stands for this customer.
    fn key(&self) -> Option<Secret> {
        self.customer.filter(|(id, _)| self.owner == Some(*id)).map(|(_, secret)| secret)
    }
}

/// The keys of the batch's customers, in its order. Known ones are read only: what one session sees, another has committed and
/// therefore synced.
pub(super) async fn ensure(client: &mut Client, batch: &[NewCustomer]) -> Result<Vec<Secret>, VaultError> {
    let everybody: Vec<&NewCustomer> = batch.iter().collect();
    let known = known(client, &everybody).await?;
    let missing = batch.iter().zip(&known).filter(|(_, known)| known.key().is_none());
    let missing: Vec<&NewCustomer> = missing.map(|(customer, _)| customer).collect();
    if missing.is_empty() {
        return Ok(known.iter().filter_map(Known::key).collect());
    }
    together(client, async |transaction| {
        insert(transaction, missing).await?;
        let known = self::known(transaction, &everybody).await?;
        batch.iter().zip(known).map(|(customer, known)| key_or_refusal(customer, &known)).collect()
    })
    .await
}

/// One of a batch that has just been written.
fn key_or_refusal(customer: &NewCustomer, known: &Known) -> Result<Secret, VaultError> {
    match (known.key(), known.owner) {
        (Some(key), _) => Ok(key),
        (None, Some(_)) => Err(VaultError::PseudonymTaken(customer.sale)),
        // Somebody removed a row between two statements.
        (None, None) => Err(StoreError::Busy.into()),
    }
}

/// Deletes the customer and their pseudonyms; notes in `was_there` that there was one.
pub(super) async fn erase(
    client: &mut Client,
    issuer: &str,
    subject: &str,
    was_there: &mut bool,
) -> Result<(), VaultError> {
    together(client, async |transaction| {
        // Locked first: whoever writes a pseudonym of theirs at the same time comes before this or after it.
        let query = "SELECT id FROM vault.customers WHERE subject = $1 AND issuer = $2 FOR UPDATE";
        let found = transaction.query_typed_opt(query, &[(&subject, Type::TEXT), (&issuer, Type::TEXT)]).await?;
        let Some(row) = found else { return Ok(()) };
        let id: i64 = column(&row, 0)?;
        for delete in ["DELETE FROM vault.map WHERE customer = $1", "DELETE FROM vault.customers WHERE id = $1"] {
            transaction.execute_typed(delete, &[(&id, Type::INT8)]).await?;
        }
        transaction.execute_typed("UPDATE vault.erasures SET count = count + 1", &[]).await?;
        *was_there = true;
        Ok(())
    })
    .await
}

/// Rows that one statement deletes: a statement has seconds, a sale may have had a million customers.
const ROWS_AT_ONCE: i64 = 10_000;

/// The key first, since without it the rows lead nowhere; the mark last, so that what was not finished is begun again.
pub(super) async fn anonymise(
    client: &mut Client,
    sale: SaleOrdinal,
    key: &Secret,
    now: i64,
) -> Result<bool, VaultError> {
    let sale = i64::from(sale.0);
    let update = "UPDATE vault.sales SET pseudonym_key = $2 WHERE ordinal = $1 AND anonymised_at IS NULL";
    if client.execute_typed(update, &[(&sale, Type::INT8), (&&key[..], Type::BYTEA)]).await? == 0 {
        return Ok(false);
    }
    let rows = "DELETE FROM vault.map WHERE ordinal = $1 AND pseudonym IN \
                (SELECT pseudonym FROM vault.map WHERE ordinal = $1 LIMIT $2)";
    while client.execute_typed(rows, &[(&sale, Type::INT8), (&ROWS_AT_ONCE, Type::INT8)]).await? > 0 {}
    let rows = "DELETE FROM vault.customers WHERE id IN (SELECT id FROM vault.customers c \
                WHERE NOT EXISTS (SELECT FROM vault.map WHERE customer = c.id) LIMIT $1)";
    while client.execute_typed(rows, &[(&ROWS_AT_ONCE, Type::INT8)]).await? > 0 {}
    together(client, async |transaction| {
        let update = "UPDATE vault.sales SET anonymised_at = $2 WHERE ordinal = $1";
        transaction.execute_typed(update, &[(&sale, Type::INT8), (&now, Type::INT8)]).await?;
        transaction.execute_typed("UPDATE vault.erasures SET count = count + 1", &[]).await?;
        Ok(true)
    })
    .await
}

async fn known(client: &impl GenericClient, customers: &[&NewCustomer]) -> Result<Vec<Known>, VaultError> {
    let columns = Columns::of(customers);
    let rows = client.query_typed(KNOWN, &columns.parameters()).await?;
    rows.iter().map(Known::of_row).collect()
}

/// Every process writes customers before pseudonyms, and each in one order, so that of two that want the same rows one waits for the
/// other and never both.
async fn insert(transaction: &Transaction<'_>, mut missing: Vec<&NewCustomer>) -> Result<(), VaultError> {
    missing.sort_by(|one, other| (&one.subject, &one.issuer).cmp(&(&other.subject, &other.issuer)));
    let secrets = missing.iter().map(|_| random_secret()).collect::<Result<Vec<Secret>, _>>()?;
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| &secret[..]).collect();
    let Columns { issuers, subjects, .. } = Columns::of(&missing);
    let columns: [(&(dyn ToSql + Sync), Type); 3] =
        [(&issuers, Type::TEXT_ARRAY), (&subjects, Type::TEXT_ARRAY), (&secrets, Type::BYTEA_ARRAY)];
    transaction.execute_typed(INSERT_CUSTOMERS, &columns).await?;
    missing.sort_by_key(|customer| (customer.sale, customer.pseudonym.0));
    transaction.execute_typed(INSERT_PSEUDONYMS, &Columns::of(&missing).parameters()).await?;
    Ok(())
}

/// Customers as arrays, one for each column.
struct Columns<'a> {
    ordinals: Vec<i64>,
    pseudonyms: Vec<&'a [u8]>,
    issuers: Vec<&'a str>,
    subjects: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(customers: &[&'a NewCustomer]) -> Self {
        Self {
            ordinals: customers.iter().map(|customer| i64::from(customer.sale.0)).collect(),
            pseudonyms: customers.iter().map(|customer| &customer.pseudonym.0[..]).collect(),
            issuers: customers.iter().map(|customer| customer.issuer.as_str()).collect(),
            subjects: customers.iter().map(|customer| customer.subject.as_str()).collect(),
        }
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        [
            (&self.ordinals, Type::INT8_ARRAY),
            (&self.pseudonyms, Type::BYTEA_ARRAY),
            (&self.issuers, Type::TEXT_ARRAY),
            (&self.subjects, Type::TEXT_ARRAY),
        ]
    }
}
