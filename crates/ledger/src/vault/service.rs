//! The vault at work: one thread that commits the customers of many passes at a time.
//!
//! Group commit by load: while one transaction is synced the next batch gathers. A customer seen lately is answered from memory
//! and costs no write. A full inbox refuses at once; nothing waits unbounded.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use domain::{Pseudonym, SaleOrdinal};
use tokio::sync::oneshot;

use super::{NewCustomer, Secret, VaultError, VaultStore};

/// Customers in one transaction. Their rows are scattered, so a larger batch shares more pages; this one takes tens of milliseconds.
const BATCH_MAX: usize = 2_048;
/// Requests that may wait.
const INBOX_MAX: usize = 8_192;
/// How long one waits: a database server that stands still must not hold every customer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Customers kept in memory, at most twice as many; about 60 bytes each.
const RECENT_MAX: usize = 131_072;

const _: () = assert!(BATCH_MAX < INBOX_MAX);

/// Why no key came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// Too many wait already, or it takes too long. Repeating is safe.
    #[error("the vault has too many requests waiting, or does not answer")]
    Overloaded,
    /// The service has been shut down. Unknown; repeating is safe.
    #[error("the vault is closed")]
    Closed,
    /// The vault failed. As it says; repeating is safe.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

struct Request {
    customer: NewCustomer,
    /// Whether a customer who is new is written.
    may_be_new: bool,
    reply: oneshot::Sender<Result<Option<Secret>, VaultError>>,
}

/// Serves the vault to many tasks.
pub struct VaultService {
    vault: Arc<Mutex<Box<dyn VaultStore>>>,
    recent: Arc<Mutex<Recent>>,
    inbox: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl VaultService {
    /// Starts the thread. Fails only where the system gives no thread.
    pub fn start(vault: Box<dyn VaultStore>) -> io::Result<Self> {
        let vault = Arc::new(Mutex::new(vault));
        let recent = Arc::new(Mutex::new(Recent::default()));
        let (inbox, requests) = mpsc::sync_channel(INBOX_MAX);
        let (thread_vault, thread_recent) = (Arc::clone(&vault), Arc::clone(&recent));
        let thread = thread::Builder::new()
            .name("vault".to_owned())
            .spawn(move || serve(&requests, &thread_vault, &thread_recent))?;
        Ok(Self { vault, recent, inbox: Some(inbox), thread: Some(thread) })
    }

    /// The customer's key; customer and pseudonym are durable in the vault when it returns.
    pub async fn ensure_customer(&self, customer: NewCustomer) -> Result<Secret, CustomerError> {
        self.ask(customer, true).await?.ok_or(CustomerError::Closed)
    }

    /// The customer's key, if the vault knows the customer in that sale; writes nothing.
    pub async fn known_customer(&self, customer: NewCustomer) -> Result<Option<Secret>, CustomerError> {
        self.ask(customer, false).await
    }

    async fn ask(&self, customer: NewCustomer, may_be_new: bool) -> Result<Option<Secret>, CustomerError> {
        if let Some(secret) = lock(&self.recent).get(customer.sale, customer.pseudonym) {
            return Ok(Some(secret));
        }
        let (reply, answer) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or(CustomerError::Closed)?;
        inbox.try_send(Request { customer, may_be_new, reply }).map_err(|error| match error {
            TrySendError::Full(_) => CustomerError::Overloaded,
            TrySendError::Disconnected(_) => CustomerError::Closed,
        })?;
        let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| CustomerError::Overloaded)?;
        Ok(answer.map_err(|_| CustomerError::Closed)??)
    }

    /// Erases a customer from the vault and from this process's memory; see [`VaultStore::erase_customer`]. `pseudonyms` are theirs.
    /// Blocks.
    pub fn erase_customer(
        &self,
        issuer: &str,
        subject: &str,
        pseudonyms: &[(SaleOrdinal, Pseudonym)],
    ) -> Result<bool, VaultError> {
        // Kept until they are forgotten, as by whoever remembers keys.
        let mut vault = lock(&self.vault);
        let was_there = vault.erase_customer(issuer, subject)?;
        let mut recent = lock(&self.recent);
        for key in pseudonyms {
            recent.younger.remove(key);
            recent.older.remove(key);
        }
        Ok(was_there)
    }

    /// Makes a sale's customers unknown, in the vault and in this process's memory; see [`VaultStore::anonymise_sale`]. Blocks.
    pub fn anonymise_sale(&self, sale: SaleOrdinal) -> Result<bool, VaultError> {
        let is_new = lock(&self.vault).anonymise_sale(sale)?;
        self.notice_erasures()?;
        Ok(is_new)
    }

    /// Forgets what this process remembers of customers, if another one has erased some since. Blocks.
    pub fn notice_erasures(&self) -> Result<(), VaultError> {
        // Kept until they are forgotten, as by whoever remembers keys.
        let mut vault = lock(&self.vault);
        let erasures = vault.erasures()?;
        let mut recent = lock(&self.recent);
        if recent.erasures != erasures {
            *recent = Recent { erasures, ..Recent::default() };
        }
        Ok(())
    }

    /// Runs `work` on the vault itself, between two batches. Blocks for their length; not for the hot path.
    pub fn with<T>(&self, work: impl FnOnce(&mut dyn VaultStore) -> T) -> T {
        work(lock(&self.vault).as_mut())
    }

    /// Answers what waits and ends the thread.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by its own hook; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Drop for VaultService {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: take what has gathered, commit it, answer.
fn serve(requests: &Receiver<Request>, vault: &Mutex<Box<dyn VaultStore>>, recent: &Mutex<Recent>) {
    while let Ok(first) = requests.recv() {
        let waiting = std::iter::once(first).chain(requests.try_iter()).take(BATCH_MAX);
        let (waiting, asking): (Vec<_>, Vec<_>) = waiting.partition(|request| request.may_be_new);
        let (customers, replies): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|request| (request.customer, request.reply)).unzip();
        // Kept until the keys are remembered, so that one who is erased just then is not remembered afterwards.
        let mut vault = lock(vault);
        for Request { customer, reply, .. } in asking {
            let known = vault.customer_of(customer.sale, customer.pseudonym).map(|known| Some(known?.key));
            if let Ok(Some(secret)) = known {
                lock(recent).put(customer.sale, customer.pseudonym, secret);
            }
            // Whoever stopped waiting asks again.
            let _ = reply.send(known);
        }
        if customers.is_empty() {
            continue;
        }
        let together = vault.ensure_customers(&customers);
        let results: Vec<_> = match together {
            Ok(secrets) => secrets.into_iter().map(Ok).collect(),
            // One impossible customer must not refuse the others: each alone then.
            Err(VaultError::PseudonymTaken(_)) => {
                customers.iter().map(|customer| alone(vault.as_mut(), customer)).collect()
            }
            Err(error) => customers.iter().map(|_| Err(error.clone())).collect(),
        };
        {
            let mut recent = lock(recent);
            for (customer, result) in customers.iter().zip(&results) {
                if let Ok(secret) = result {
                    recent.put(customer.sale, customer.pseudonym, *secret);
                }
            }
        }
        drop(vault);
        for (reply, result) in replies.into_iter().zip(results) {
            let _ = reply.send(result.map(Some));
        }
    }
}

fn alone(vault: &mut dyn VaultStore, customer: &NewCustomer) -> Result<Secret, VaultError> {
    let secrets = vault.ensure_customers(std::slice::from_ref(customer))?;
    Ok(secrets[0])
}

/// The state behind these locks is whole after every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The customers seen lately, in two generations: when the younger is full, the older is forgotten.
#[derive(Default)]
struct Recent {
    younger: HashMap<(SaleOrdinal, Pseudonym), Secret>,
    older: HashMap<(SaleOrdinal, Pseudonym), Secret>,
    /// How many had been erased before the oldest of them was learnt.
    erasures: u64,
}

impl Recent {
    fn get(&self, sale: SaleOrdinal, pseudonym: Pseudonym) -> Option<Secret> {
        let key = (sale, pseudonym);
        self.younger.get(&key).or_else(|| self.older.get(&key)).copied()
    }

    fn put(&mut self, sale: SaleOrdinal, pseudonym: Pseudonym, secret: Secret) {
        if self.younger.len() >= RECENT_MAX {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert((sale, pseudonym), secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_customers_are_bounded_and_the_latest_stay() {
        let mut recent = Recent::default();
        let pseudonym = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Pseudonym(bytes)
        };
        let last = 3 * RECENT_MAX as u32;
        for number in 0..=last {
            recent.put(SaleOrdinal(1), pseudonym(number), [0; 32]);
            assert!(recent.younger.len() + recent.older.len() <= 2 * RECENT_MAX);
        }
        assert!(recent.get(SaleOrdinal(1), pseudonym(last)).is_some());
        assert!(recent.get(SaleOrdinal(1), pseudonym(0)).is_none());
        assert!(recent.get(SaleOrdinal(2), pseudonym(last)).is_none());
    }
}
