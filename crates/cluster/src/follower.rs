//! One sale's chain as this process has it: read from JetStream, kept in memory as a replica and on disk as a copy.
//!
//! The copy is what receipts, heads, the books and the audit read, by the same code as in an embedded engine. It is not what makes a
//! record durable: it may be deleted, and is then made again. But should the stream ever lose what it acknowledged, the copies have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admission::{Replaying, Replica};
use bytes::Bytes;
use chain::batch::Batch;
use chain::{CopyFiles, EncodedBatch, Files, Log, LogReader};
use domain::SaleId;
use domain::ids::Hash;
use stream::{AppendError, Place, ReadError, Store, StreamLog};
use tokio::sync::Notify;

use crate::quiet::Quiet;
use crate::relay::RelayError;

/// Where batches are told of that stand in the chain.
const CHAIN: &str = "chain";
/// Between two looks at a stream that cannot be followed now.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Why a sale cannot be followed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The stream.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The copy's folder.
    #[error("{}: {reason}", .folder.display())]
    Copy {
        /// Where.
        folder: PathBuf,
        /// What was said.
        reason: String,
    },
    /// Records are missing from the stream, and what stands there now is not what the copy extends.
    #[error("the stream lost records that the copy in {} has, and cannot be given them back: {reason}", .folder.display())]
    Lost {
        /// Where the copy is.
        folder: PathBuf,
        /// What was said.
        reason: String,
    },
}

/// What the tasks of one sale share.
pub(crate) struct Follower {
    pub(crate) name: String,
    pub(crate) sale: SaleId,
    pub(crate) store: Store,
    pub(crate) folder: PathBuf,
    state: Mutex<State>,
    /// The chain has gone on.
    pub(crate) moved: Notify,
}

pub(crate) struct State {
    pub(crate) replica: Replica,
    /// `None` once it could not be written; the sale goes on without it.
    copy: Option<Log>,
}

impl Follower {
    /// Brings copy and replica to the stream's present end. `None` while the sale has no chain yet.
    pub(crate) async fn open(
        store: &Store,
        folder: &Path,
        (name, sale, slot_secret): (&str, SaleId, Hash),
    ) -> Result<Option<(Self, StreamLog)>, FollowError> {
        let (mut copy, mut replaying) = open_copy(folder, sale)?;
        let mut log = resume(store, name, &copy, folder).await?;
        let read = log
            .catch_up(&mut |bytes, batch| {
                check_sale(sale, batch)?;
                replaying.follow(batch)?;
                copy.append(&encoded(bytes, batch)).map_err(|error| error.to_string())
            })
            .await;
        match read {
            // The copy could not be written: what was read counts all the same, but not to be told twice.
            Err(ReadError::Replay { reason, .. }) => {
                return Err(FollowError::Copy { folder: folder.to_owned(), reason });
            }
            read => drop(read?),
        }
        let Some(replica) = replaying.finish(copy.watermark(), log.head(), slot_secret) else { return Ok(None) };
        let state = Mutex::new(State { replica, copy: Some(copy) });
        let follower = Self {
            name: name.to_owned(),
            sale,
            store: store.clone(),
            folder: folder.to_owned(),
            state,
            moved: Notify::new(),
        };
        Ok(Some((follower, log)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch that stands in the chain; one that is known already changes nothing.
    pub(crate) fn take(&self, bytes: &[u8], batch: &Batch<'_>) -> Result<(), String> {
        let mut state = self.lock();
        if batch.header.first < state.replica.core().next() {
            return Ok(());
        }
        check_sale(self.sale, batch)?;
        state.replica.follow(batch)?;
        if let Some(copy) = &mut state.copy
            && let Err(error) = copy.append(&encoded(bytes, batch))
        {
            tracing::error!(sale = self.name, %error, "the copy of the chain cannot be written; this process goes on without it");
            state.copy = None;
        }
        drop(state);
        self.moved.notify_waiters();
        Ok(())
    }

    /// Reads the stream to its end.
    pub(crate) async fn catch_up(&self, log: &mut StreamLog) -> Result<(), ReadError> {
        log.catch_up(&mut |bytes, batch| self.take(bytes, batch)).await.map(|_| ())
    }

    /// Follows the chain by what its writer tells, and by asking the stream where nobody tells anything. Ends when the chain can be
    /// followed no further.
    pub(crate) async fn follow(&self, mut log: StreamLog) -> ReadError {
        use futures_util::StreamExt as _;
        let (mut told, mut quiet) = (None, Quiet::default());
        loop {
            if told.is_none() {
                told = self.store.client().subscribe(self.store.beside(CHAIN, &self.name)).await.ok();
            }
            let next = async {
                match &mut told {
                    Some(told) => told.next().await,
                    None => std::future::pending().await,
                }
            };
            let outcome = match tokio::time::timeout(TRY_AGAIN, next).await {
                Ok(Some(message)) => self.hear(&mut log, &message.payload).await,
                Ok(None) => {
                    told = None;
                    Ok(())
                }
                Err(_) => self.look(&mut log).await,
            };
            match outcome {
                Ok(()) => {}
                // Whoever has the longest copy has what everybody else may lack.
                Err(ReadError::Shorter { .. }) => match self.put_back().await {
                    Ok(whole) => log = whole,
                    Err(error) => {
                        if quiet.is_due(&error) {
                            tracing::warn!(sale = self.name, %error, "lost records are not put back; it is tried again");
                        }
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                },
                Err(ReadError::Unreachable(_)) => tokio::time::sleep(TRY_AGAIN).await,
                // Records have other numbers in a stream that was restored: find the place again.
                Err(ReadError::Broken { .. }) => match self.find_again().await {
                    Ok(found) => log = found,
                    Err(ReadError::Unreachable(_) | ReadError::Shorter { .. }) => tokio::time::sleep(TRY_AGAIN).await,
                    Err(error) => return error,
                },
                Err(error) => return error,
            }
        }
    }

    /// Asks the stream because nobody told anything for a while.
    async fn look(&self, log: &mut StreamLog) -> Result<(), ReadError> {
        if log.has_more().await? { self.catch_up(log).await } else { Ok(()) }
    }

    /// Gives the stream what it has lost and this process's copy has.
    pub(crate) async fn put_back(&self) -> Result<StreamLog, FollowError> {
        let mut log = put_back(&self.store, &self.name, self.sale, &self.folder).await?;
        self.catch_up(&mut log).await?;
        Ok(log)
    }

    async fn hear(&self, log: &mut StreamLog, message: &[u8]) -> Result<(), ReadError> {
        let Some((sequence, bytes)) = message.split_first_chunk() else { return Ok(()) };
        let sequence = u64::from_le_bytes(*sequence);
        if log.offer(sequence, bytes, &mut |bytes, batch| self.take(bytes, batch))? {
            return Ok(());
        }
        let known = Batch::parse(bytes).is_ok_and(|batch| batch.header.next() <= log.next());
        if known { Ok(()) } else { self.catch_up(log).await }
    }

    pub(crate) async fn find_again(&self) -> Result<StreamLog, ReadError> {
        let place = self.place();
        StreamLog::resume(&self.store, &self.name, &place).await
    }

    /// Where the replica stands.
    fn place(&self) -> Place {
        let state = self.lock();
        let core = state.replica.core();
        Place { sale: self.sale, next: core.next(), head: state.replica.head(), epoch: core.epoch() }
    }

    /// A reader of the copy.
    pub(crate) fn reader(&self) -> Result<LogReader, FollowError> {
        open_reader(&self.folder)
    }

    /// Appends a batch to the chain. It stands there, this process has taken it, and everybody has been told, when this returns `Ok`.
    pub(crate) async fn append(&self, log: &mut StreamLog, batch: &EncodedBatch) -> Result<(), RelayError> {
        log.append(batch).await?;
        let parsed = Batch::parse(&batch.bytes).map_err(|error| RelayError::Replay(error.to_string()))?;
        self.take(&batch.bytes, &parsed).map_err(RelayError::Replay)?;
        self.tell(log.sequence(), &batch.bytes).await;
        Ok(())
    }

    /// Tells everybody of a batch that stands in the chain as message `sequence`.
    async fn tell(&self, sequence: u64, bytes: &[u8]) {
        let message = [&sequence.to_le_bytes()[..], bytes].concat();
        // Whoever does not hear it asks the stream.
        drop(self.store.client().publish(self.store.beside(CHAIN, &self.name), Bytes::from(message)).await);
    }
}

/// A chain of the same name that another deployment has begun is not ours, however well it is made.
fn check_sale(sale: SaleId, batch: &Batch<'_>) -> Result<(), String> {
    if batch.header.sale == sale {
        return Ok(());
    }
    Err("the stream has a sale of this name that another vault's deployment has begun; set cluster.name to a name of its own".to_owned())
}

fn copy_files() -> Arc<dyn Files> {
    Arc::new(CopyFiles)
}

fn open_reader(folder: &Path) -> Result<LogReader, FollowError> {
    LogReader::open(copy_files(), folder)
        .map_err(|error| FollowError::Copy { folder: folder.to_owned(), reason: error.to_string() })
}

fn encoded(bytes: &[u8], batch: &Batch<'_>) -> EncodedBatch {
    EncodedBatch { header: batch.header, previous: batch.previous, head: batch.head, bytes: bytes.to_vec() }
}

/// Opens the copy, or makes a new one where there is none or a damaged one.
fn open_copy(folder: &Path, sale: SaleId) -> Result<(Log, Replaying), FollowError> {
    let told =
        |error: &dyn std::fmt::Display| FollowError::Copy { folder: folder.to_owned(), reason: error.to_string() };
    let mut replaying = Replaying::default();
    match Log::open(copy_files(), folder, Some(sale), &mut |batch| replaying.follow(batch)) {
        Ok(log) => return Ok((log, replaying)),
        Err(chain::OpenError::Missing(_)) => {}
        Err(error @ chain::OpenError::Locked(_)) => return Err(told(&error)),
        Err(error) => tracing::warn!(folder = %folder.display(), %error, "the copy of a chain is made anew"),
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(&error)),
        _ => {}
    }
    let log = Log::create(copy_files(), folder, sale).map_err(|error| told(&error))?;
    Ok((log, Replaying::default()))
}

/// The stream behind what the copy has; what the stream has lost is put back first.
async fn resume(store: &Store, name: &str, copy: &Log, folder: &Path) -> Result<StreamLog, FollowError> {
    if copy.next() == 0 {
        return Ok(StreamLog::at_front(store, name));
    }
    let place = Place { sale: copy.sale(), next: copy.next(), head: copy.head(), epoch: copy.epoch() };
    match StreamLog::resume(store, name, &place).await {
        Err(ReadError::Shorter { .. }) => put_back(store, name, place.sale, folder).await,
        other => Ok(other?),
    }
}

/// Appends to the stream what a copy has and the stream has lost; every batch as it was, so that every receipt stays true.
async fn put_back(store: &Store, name: &str, sale: SaleId, folder: &Path) -> Result<StreamLog, FollowError> {
    let lost = |reason: String| FollowError::Lost { folder: folder.to_owned(), reason };
    let mut reader = open_reader(folder)?;
    let mut log = StreamLog::at_end(store, name, sale).await?;
    let stream = log.next();
    tracing::error!(sale = name, stream, "the stream lost records that it had acknowledged; they are put back");
    reader.seek(log.next()).map_err(|error| lost(error.to_string()))?;
    while let Some(bytes) = reader.next_readable().map_err(|error| lost(error.to_string()))? {
        let batch = Batch::parse(&bytes).map_err(|error| lost(error.to_string()))?;
        if (batch.header.first, batch.previous) != (log.next(), log.head()) {
            return Err(lost("other records stand in their place".to_owned()));
        }
        match log.append(&encoded(&bytes, &batch)).await {
            Ok(()) => {}
            Err(AppendError::Read(error)) => return Err(error.into()),
            Err(error) => return Err(lost(error.to_string())),
        }
    }
    Ok(log)
}
