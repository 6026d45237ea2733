//! One sale's chain as the messages of one subject: read from the front, appended at the end that its writer knows.

use std::time::{Duration, Instant};

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use chain::batch::GENESIS_HEAD;
use chain::{Batch, BatchError, EncodedBatch};
use domain::SaleId;
use domain::ids::Hash;

use crate::store::Store;

/// How long an append is tried before its outcome is left unknown.
const APPEND_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries while no server answers.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Why the chain could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The servers do not answer, or not with what was asked for. Trying again may help.
    #[error("the chain cannot be read now: {0}")]
    Unreachable(String),
    /// A message is no batch.
    #[error("message {sequence} is no batch: {source}")]
    Batch {
        /// Its number in the stream.
        sequence: u64,
        /// Why not.
        source: BatchError,
    },
    /// A message does not continue the chain before it. Definite: somebody else wrote to the subject, or the stream was restored.
    #[error("message {sequence} does not continue the chain: {reason}")]
    Broken {
        /// Its number in the stream.
        sequence: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// Whoever follows the chain refused a batch.
    #[error("the batch at record {first} cannot be followed: {reason}")]
    Replay {
        /// Its first record.
        first: u64,
        /// What was said.
        reason: String,
    },
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Definite: a writer of a newer epoch has taken the chain over. This one must stop and answer nobody.
    #[error("epoch {0} has taken the chain over")]
    Superseded(u64),
    /// Definite: another writer of the same epoch has appended at this place. The log stands behind its batch now; what is still to
    /// be written has to be decided anew from there.
    #[error("another writer of this epoch was faster")]
    Moved,
    /// The outcome is unknown: the same batch must be appended again, and nothing else, until it is known.
    #[error("the servers did not say what became of the batch: {0}")]
    Unknown(String),
    /// The chain has something at this place that is no continuation of it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Where a chain ends, as far as this process knows it.
#[derive(Clone, Copy, Debug)]
struct End {
    /// The stream's number of the subject's last message; 0 where there is none.
    sequence: u64,
    head: Hash,
    next: u64,
    epoch: u64,
}

/// One sale's chain. It may be held by several processes; the append decides.
pub struct StreamLog {
    store: Store,
    subject: String,
    sale: Option<SaleId>,
    end: End,
}

impl StreamLog {
    /// Reads the chain of the sale `name` from its front, checking every hash, and gives each batch to `replay` in order.
    pub async fn open(
        store: &Store,
        name: &str,
        replay: &mut (dyn FnMut(&Batch<'_>) -> Result<(), String> + Send),
    ) -> Result<Self, ReadError> {
        let end = End { sequence: 0, head: GENESIS_HEAD, next: 0, epoch: 0 };
        let mut log = Self { store: store.clone(), subject: format!("log.{name}"), sale: None, end };
        log.catch_up(replay).await?;
        Ok(log)
    }

    /// Reads on to the chain's present end; gives how many batches were new.
    pub async fn catch_up(
        &mut self,
        replay: &mut (dyn FnMut(&Batch<'_>) -> Result<(), String> + Send),
    ) -> Result<usize, ReadError> {
        let mut batches = 0;
        while let Some((sequence, bytes)) = self.read_next().await? {
            let batch = Batch::parse(&bytes).map_err(|source| ReadError::Batch { sequence, source })?;
            self.check(sequence, &batch)?;
            let first = batch.header.first;
            replay(&batch).map_err(|reason| ReadError::Replay { first, reason })?;
            self.move_behind(sequence, &batch);
            batches += 1;
        }
        Ok(batches)
    }

    /// Appends a batch; it is durable on a majority of the servers when this returns `Ok`.
    ///
    /// Whatever the servers say or do not say, the chain itself is asked: if the batch stands at its place it was appended, by this
    /// try or an earlier one. A batch that is sent twice is taken once, because its place is free only once.
    ///
    /// # Panics
    /// When the batch does not continue this log: the caller has lost its place.
    pub async fn append(&mut self, batch: &EncodedBatch) -> Result<(), AppendError> {
        assert_eq!(batch.header.first, self.end.next, "record numbers are gapless");
        assert_eq!(batch.previous, self.end.head, "a batch extends the log's head");
        assert!(batch.header.epoch >= self.end.epoch, "epochs do not go back");
        let payload = Bytes::copy_from_slice(&batch.bytes);
        let start = Instant::now();
        loop {
            let said = match self.publish(payload.clone()).await {
                Ok(sequence) => {
                    self.sale = Some(batch.header.sale);
                    self.end =
                        End { sequence, head: batch.head.head, next: batch.header.next(), epoch: batch.header.epoch };
                    return Ok(());
                }
                Err(said) => said,
            };
            match self.find_at_end(batch).await {
                Ok(Some(outcome)) => return outcome,
                // Nothing stands there yet. The message may still be on its way, and may be sent again: one of the two will find the
                // place taken.
                Ok(None) | Err(ReadError::Unreachable(_)) => {}
                Err(broken) => return Err(broken.into()),
            }
            if start.elapsed() > APPEND_PATIENCE {
                return Err(AppendError::Unknown(said));
            }
            tracing::warn!(subject = self.subject, said, "an append is not acknowledged; it is tried again");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// The stream's number of the message, if it was acknowledged.
    async fn publish(&self, payload: Bytes) -> Result<u64, String> {
        let message = PublishMessage::build().payload(payload).expected_last_subject_sequence(self.end.sequence);
        let sent = self.store.context.send_publish(self.subject.clone(), message).await;
        let acknowledged = sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
        Ok(acknowledged.sequence)
    }

    /// What stands where `batch` was to stand: it itself, another one, or (`None`) nothing.
    async fn find_at_end(&mut self, batch: &EncodedBatch) -> Result<Option<Result<(), AppendError>>, ReadError> {
        let Some((sequence, bytes)) = self.read_next().await? else { return Ok(None) };
        let found = Batch::parse(&bytes).map_err(|source| ReadError::Batch { sequence, source })?;
        self.check(sequence, &found)?;
        self.move_behind(sequence, &found);
        Ok(Some(if found.head.head == batch.head.head {
            Ok(())
        } else if found.header.epoch > batch.header.epoch {
            Err(AppendError::Superseded(found.header.epoch))
        } else {
            Err(AppendError::Moved)
        }))
    }

    /// The subject's next message behind the known end, asked of the stream's leader.
    async fn read_next(&self) -> Result<Option<(u64, Bytes)>, ReadError> {
        let from = self.end.sequence + 1;
        match self.store.stream.get_first_raw_message_by_subject(&self.subject, from).await {
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError::Unreachable(error.to_string())),
        }
    }

    fn check(&self, sequence: u64, batch: &Batch<'_>) -> Result<(), ReadError> {
        let broken = |reason| ReadError::Broken { sequence, reason };
        if self.sale.is_some_and(|sale| sale != batch.header.sale) {
            return Err(broken("it belongs to another sale"));
        }
        if batch.header.first != self.end.next || batch.previous != self.end.head {
            return Err(broken("it does not extend the head before it"));
        }
        if batch.header.epoch < self.end.epoch {
            return Err(broken("its epoch is older than the one before"));
        }
        batch.verify().map_err(|source| ReadError::Batch { sequence, source })
    }

    fn move_behind(&mut self, sequence: u64, batch: &Batch<'_>) {
        self.sale = Some(batch.header.sale);
        self.end = End { sequence, head: batch.head.head, next: batch.header.next(), epoch: batch.header.epoch };
    }

    /// The head that the next batch extends.
    pub fn head(&self) -> Hash {
        self.end.head
    }

    /// Number of the next record.
    pub fn next(&self) -> u64 {
        self.end.next
    }

    /// Epoch of the last batch, 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.end.epoch
    }
}
