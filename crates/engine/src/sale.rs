//! One sale as the rest of the process meets it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use admission::{Answer, Grant, OwnerHandle, Request, SaleView};
use chain::batch::{Batch, BatchError};
use chain::disk::ReadError;
use chain::{DiskFiles, HeadSigner, LogReader, PrivatePart, SignedHead};
use cluster::Ladder;
use domain::ids::Hash;
use domain::record::Held;
use domain::{ChainTime, Pseudonym, Record, Refusal, SaleDefinition, SaleId, SaleOrdinal};
use gate::{CustomerSaleKey, PseudonymKey};
use ledger::vault::{SaleSecrets, Secret};

use crate::showcase::Showcase;

/// Places of the chain kept in memory for receipts that are asked for again; about 300 bytes each.
const RECENT_MAX: usize = 4_096;

/// A sale with its owner and what a gate needs to judge its customers.
pub struct Sale {
    /// The deployment's number of it.
    pub ordinal: SaleOrdinal,
    /// Its id in the chain.
    pub id: SaleId,
    /// The Ed25519 public key of its heads.
    pub signing_key: Hash,
    /// Signs hold tokens with the same key.
    pub signer: HeadSigner,
    /// The way to its owner.
    pub owner: Arc<OwnerHandle>,
    /// On which rung it stands, in a cluster.
    pub ladder: Option<Arc<Ladder>>,
    pub(crate) people: RwLock<People>,
    pub(crate) showcase: RwLock<Arc<Showcase>>,
    pub(crate) slot_secret: Hash,
    pub(crate) folder: PathBuf,
    pub(crate) reader: Mutex<Option<LogReader>>,
    /// Places read back lately, so that a winner who keeps asking costs no disk.
    pub(crate) recent: Mutex<HashMap<u64, ChainedRecord>>,
}

/// Who a sale's customers are.
pub(crate) struct People {
    key: PseudonymKey,
    /// When they became unknown.
    anonymised_at: Option<ChainTime>,
}

impl People {
    pub(crate) fn of(secrets: &SaleSecrets) -> Self {
        Self { key: PseudonymKey::new(&secrets.pseudonym_key), anonymised_at: secrets.anonymised_at.map(ChainTime) }
    }
}

/// A place in the chain, read back from disk.
#[derive(Clone, Copy, Debug)]
pub struct ChainedRecord {
    /// The chain's hash after the record.
    pub record_hash: Hash,
    /// The signed head of its batch.
    pub head: SignedHead,
}

/// Why a place of the chain could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ChainReadError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bytes are not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Sale {
    /// The shop's name of it.
    pub fn name(&self) -> &str {
        &self.definition().sale
    }

    /// What it sells and when.
    pub fn definition(&self) -> &SaleDefinition {
        self.view().definition()
    }

    /// What gates may know.
    pub fn view(&self) -> &Arc<SaleView> {
        self.owner.view()
    }

    /// What its page shows beside the definition, and who may embed it. From memory.
    pub fn showcase(&self) -> Arc<Showcase> {
        Arc::clone(&self.showcase.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on its page shows this.
    pub(crate) fn show(&self, showcase: Arc<Showcase>) {
        *self.showcase.write().unwrap_or_else(PoisonError::into_inner) = showcase;
    }

    /// A reader of its chain, at record 0. What it may read ends at the watermark, or where the books are. Blocks.
    pub fn log_reader(&self) -> Result<LogReader, ReadError> {
        LogReader::open(Arc::new(DiskFiles), &self.folder)
    }

    /// What whoever decides the sale says about one grant; or the refusal, and from when another try makes sense.
    pub async fn grant(&self, request: Request) -> Result<Grant, (Refusal, Option<ChainTime>)> {
        match self.owner.ask(request).await {
            Some(Answer::Granted(grant, _)) => Ok(grant),
            Some(Answer::Refused { refusal, retry_at, .. }) => Err((refusal, retry_at)),
            Some(Answer::Grants(_) | Answer::Sale(_)) => Err((Refusal::Internal, None)),
            None => Err((Refusal::Overloaded, None)),
        }
    }

    /// The customer as this sale's chain shows them.
    pub fn pseudonym(&self, issuer: &str, subject: &str) -> Pseudonym {
        self.people().key.pseudonym(issuer, subject)
    }

    /// The customer's key for this sale, by their key in the vault.
    pub fn customer_sale_key(&self, customer_key: &Secret) -> CustomerSaleKey {
        self.people().key.customer_sale_key(customer_key, self.id)
    }

    /// When its customers became unknown, if they have.
    pub fn anonymised_at(&self) -> Option<ChainTime> {
        self.people().anonymised_at
    }

    fn people(&self) -> RwLockReadGuard<'_, People> {
        self.people.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets its customers, where the vault has.
    pub(crate) fn forget(&self, secrets: &SaleSecrets) {
        if secrets.anonymised_at.is_some() && self.anonymised_at().is_none() {
            *self.people.write().unwrap_or_else(PoisonError::into_inner) = People::of(secrets);
        }
    }

    /// The customer's slot in milliseconds after the opening; the same whenever it is asked.
    pub fn slot_offset(&self, customer: Pseudonym) -> u32 {
        chain::head::slot_offset(&self.slot_secret, customer, self.definition().spread_milliseconds)
    }

    /// A record's hash and head, read from disk: for a receipt that is asked for again. Blocks; `None` beyond the durable end.
    pub fn chained_record(&self, position: u64) -> Result<Option<ChainedRecord>, ChainReadError> {
        if let Some(found) = self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(&position) {
            return Ok(Some(*found));
        }
        let Some(bytes) = self.batch_containing(position)? else { return Ok(None) };
        let batch = Batch::parse(&bytes)?;
        let mut running = batch.running_start();
        for record in batch.records() {
            let record = record?;
            running = record.hash(&running);
            if record.number == position {
                let found = ChainedRecord { record_hash: running, head: batch.head };
                let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                if recent.len() >= RECENT_MAX {
                    recent.clear();
                }
                recent.insert(position, found);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A grant's record with its private part, as they lie in the chain; `None` beyond the durable end. Blocks.
    pub(crate) fn sealed_part(&self, position: u64) -> Result<Option<(Held, PrivatePart)>, ChainReadError> {
        let Some(bytes) = self.batch_containing(position)? else { return Ok(None) };
        for record in Batch::parse(&bytes)?.records() {
            let record = record?;
            if record.number != position {
                continue;
            }
            let (Record::Held(held), Some(commitment)) = (record.decode()?, record.commitment) else { return Ok(None) };
            return Ok(Some((held, PrivatePart { commitment: *commitment, sealed: record.sealed.to_vec() })));
        }
        Ok(None)
    }

    /// Signed heads of the batches from the one that holds `position` on, `count_max` at most. Blocks.
    pub fn heads(&self, position: u64, count_max: usize) -> Result<Vec<SignedHead>, ChainReadError> {
        let mut heads = Vec::new();
        let mut position = position;
        while heads.len() < count_max && position < self.view().watermark().next() {
            let Some(bytes) = self.batch_containing(position)? else { break };
            let head = Batch::parse(&bytes)?.head;
            position = head.next;
            heads.push(head);
        }
        Ok(heads)
    }

    fn batch_containing(&self, position: u64) -> Result<Option<Vec<u8>>, ReadError> {
        if position >= self.view().watermark().next() {
            return Ok(None);
        }
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = match slot.take() {
            Some(reader) => reader,
            None => self.log_reader()?,
        };
        // A reader that failed is not put back: the next call starts with a new one.
        let found = reader.batch_containing(position)?;
        *slot = Some(reader);
        Ok(found)
    }
}
