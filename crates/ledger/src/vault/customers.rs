//! Customers: a key each, and the map from a sale's pseudonyms to them.

use domain::{Pseudonym, SaleOrdinal};
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Secret, Vault, VaultError, random_secret};

/// A customer who takes a pass.
#[derive(Clone, PartialEq, Eq)]
pub struct NewCustomer {
    /// The sale.
    pub sale: SaleOrdinal,
    /// The customer as that sale's chain shows them.
    pub pseudonym: Pseudonym,
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
}

impl Vault {
    /// The customers' keys, in the batch's order. Customers and pseudonyms that are new are written in one transaction and
    /// synced before it returns; a batch of known ones writes nothing.
    pub fn ensure_customers(&mut self, batch: &[NewCustomer]) -> Result<Vec<Secret>, VaultError> {
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

    /// Issuer and subject of the customer behind a pseudonym, if the map has it.
    pub fn customer_of(&self, sale: SaleOrdinal, pseudonym: Pseudonym) -> Result<Option<(String, String)>, VaultError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT issuer, subject FROM map JOIN customers ON customers.id = map.customer WHERE ordinal = ?1 AND pseudonym = ?2",
        )?;
        let found =
            statement.query_row(params![sale.0, pseudonym.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(found)
    }
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
