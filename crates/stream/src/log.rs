//! One sale's chain as the messages of one subject: read from the front, appended at the end that its writer knows.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind};
use bytes::Bytes;
use chain::batch::GENESIS_HEAD;
use chain::{Batch, BatchError, EncodedBatch};
use domain::SaleId;
use domain::ids::Hash;
use futures_util::StreamExt as _;

use crate::store::Store;

/// How long an append is tried before its outcome is left unknown.
const APPEND_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries while no server answers.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Between two words about an append that is tried again and again.
const WARN_EVERY: Duration = Duration::from_secs(5);
/// So many batches are read one by one; more of them through a consumer.
const FEW: usize = 32;
/// Messages of one fetch, and how long a consumer that nobody asks stays on the server.
const READ_AT_ONCE: usize = 500;
const CONSUMER_LIFE: Duration = Duration::from_secs(10);
/// How long a consumer may stay silent before the leader is asked instead.
const READ_PATIENCE: Duration = Duration::from_secs(2);

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
    /// The stream ends before a record that it had acknowledged: servers were restored from an older copy. Whoever has the records
    /// puts them back.
    #[error("the stream ends at record {stream}, although it had acknowledged all before record {known}")]
    Shorter {
        /// The next record by the stream.
        stream: u64,
        /// The next record by what it acknowledged.
        known: u64,
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

/// A place in a chain, as a copy of it on disk knows it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Whose chain.
    pub sale: SaleId,
    /// Number of the next record.
    pub next: u64,
    /// The head that the next batch extends.
    pub head: Hash,
    /// Epoch of the last batch.
    pub epoch: u64,
}

/// Hears of each batch in order, as bytes and parsed; what it refuses ends the reading.
pub type Follow<'f> = dyn FnMut(&[u8], &Batch<'_>) -> Result<(), String> + Send + 'f;

/// One sale's chain. It may be held by several processes; the append decides.
#[derive(Clone)]
pub struct StreamLog {
    store: Store,
    subject: String,
    sale: Option<SaleId>,
    end: End,
}

impl StreamLog {
    /// Reads the chain of the sale `name` from its front, checking every hash, and gives each batch to `replay` in order.
    pub async fn open(store: &Store, name: &str, replay: &mut Follow<'_>) -> Result<Self, ReadError> {
        let mut log = Self::at_front(store, name);
        log.catch_up(replay).await?;
        Ok(log)
    }

    /// The chain of the sale `name`, before its first record.
    pub fn at_front(store: &Store, name: &str) -> Self {
        let end = End { sequence: 0, head: GENESIS_HEAD, next: 0, epoch: 0 };
        Self { store: store.clone(), subject: store.subject(name), sale: None, end }
    }

    /// The chain behind a place in it that is known already; nothing before is read.
    pub async fn resume(store: &Store, name: &str, place: &Place) -> Result<Self, ReadError> {
        let mut log = Self::at_front(store, name);
        let last = log.read_last().await?;
        let stream = last.as_ref().map_or(0, |end| end.next);
        if stream < place.next {
            return Err(ReadError::Shorter { stream, known: place.next });
        }
        let (mut low, mut high) = (1, last.map_or(0, |end| end.sequence));
        while low <= high {
            let middle = low + (high - low) / 2;
            let Some((sequence, bytes)) = log.read_from(middle).await? else {
                high = middle - 1;
                continue;
            };
            let end = end_of(sequence, &bytes)?;
            if end.next == place.next && end.head == place.head {
                (log.sale, log.end) = (Some(place.sale), end);
                return Ok(log);
            }
            if end.next < place.next { low = sequence + 1 } else { high = middle - 1 }
        }
        Err(ReadError::Broken { sequence: high, reason: "no batch of it ends where the known part ends" })
    }

    /// The chain at its present end, which is believed as it stands: for putting back what is missing behind it.
    pub async fn at_end(store: &Store, name: &str, sale: SaleId) -> Result<Self, ReadError> {
        let mut log = Self::at_front(store, name);
        if let Some(end) = log.read_last().await? {
            (log.sale, log.end) = (Some(sale), end);
        }
        Ok(log)
    }

    /// Reads on to the chain's present end; gives how many batches were new. `replay` gets each as bytes and parsed.
    pub async fn catch_up(&mut self, replay: &mut Follow<'_>) -> Result<usize, ReadError> {
        let mut batches = 0;
        loop {
            // One by one from the leader, who alone knows the end; a long way goes faster by a consumer.
            if batches == FEW {
                batches += self.read_many(replay).await?;
            }
            let Some((sequence, bytes)) = self.read_next().await? else { return Ok(batches) };
            self.follow(sequence, &bytes, replay)?;
            batches += 1;
        }
    }

    /// Takes a batch that somebody else read or appended; `false` when it is not the next one: an older one, or one behind a gap,
    /// which [`StreamLog::catch_up`] closes.
    pub fn offer(&mut self, sequence: u64, bytes: &[u8], replay: &mut Follow<'_>) -> Result<bool, ReadError> {
        let batch = Batch::parse(bytes).map_err(|source| ReadError::Batch { sequence, source })?;
        if batch.header.first != self.end.next {
            return Ok(false);
        }
        self.follow(sequence, bytes, replay)?;
        Ok(true)
    }

    fn follow(&mut self, sequence: u64, bytes: &[u8], replay: &mut Follow<'_>) -> Result<(), ReadError> {
        let batch = Batch::parse(bytes).map_err(|source| ReadError::Batch { sequence, source })?;
        self.check(sequence, &batch)?;
        let first = batch.header.first;
        replay(bytes, &batch).map_err(|reason| ReadError::Replay { first, reason })?;
        self.move_behind(sequence, &batch);
        Ok(())
    }

    /// Reads what a consumer has at once. It may end before the chain does, and where consumers cannot be had, before its beginning:
    /// what is left is read one by one.
    async fn read_many(&mut self, replay: &mut Follow<'_>) -> Result<usize, ReadError> {
        let config = pull::Config {
            filter_subject: self.subject.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.end.sequence + 1 },
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_LIFE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let Ok(consumer) = self.store.stream.create_consumer(config).await else { return Ok(0) };
        let mut batches = 0;
        loop {
            let Ok(mut messages) = consumer.fetch().max_messages(READ_AT_ONCE).messages().await else {
                return Ok(batches);
            };
            let before = batches;
            while let Ok(Some(Ok(message))) = tokio::time::timeout(READ_PATIENCE, messages.next()).await {
                let Ok(info) = message.info() else { return Ok(batches) };
                self.follow(info.stream_sequence, &message.payload, replay)?;
                batches += 1;
            }
            if batches == before {
                return Ok(batches);
            }
        }
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
        let mut warned_at = None;
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
                // Nothing stands there: because the stream ends before it, or not yet. Then the message may still be on its way, and
                // may be sent again: one of the two will find the place taken.
                Ok(None) => {
                    if let Err(shorter @ ReadError::Shorter { .. }) = self.has_more().await {
                        return Err(shorter.into());
                    }
                }
                Err(ReadError::Unreachable(_)) => {}
                Err(broken) => return Err(broken.into()),
            }
            if start.elapsed() > APPEND_PATIENCE {
                return Err(AppendError::Unknown(said));
            }
            if warned_at.is_none_or(|at: Instant| at.elapsed() > WARN_EVERY) {
                warned_at = Some(Instant::now());
                tracing::warn!(
                    subject = self.subject,
                    said,
                    "an append is not acknowledged; it is tried again and again"
                );
            }
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
        self.read_from(self.end.sequence + 1).await
    }

    async fn read_from(&self, sequence: u64) -> Result<Option<(u64, Bytes)>, ReadError> {
        found(self.store.stream.get_first_raw_message_by_subject(&self.subject, sequence).await)
    }

    async fn read_last(&self) -> Result<Option<End>, ReadError> {
        let last = found(self.store.stream.get_last_raw_message_by_subject(&self.subject).await)?;
        last.map(|(sequence, bytes)| end_of(sequence, &bytes)).transpose()
    }

    /// Whether the stream has more than this process knows of; an error where it has less, and so has lost what it acknowledged.
    pub async fn has_more(&self) -> Result<bool, ReadError> {
        let stream = self.read_last().await?.map_or(0, |end| end.next);
        let known = self.end.next;
        if stream < known { Err(ReadError::Shorter { stream, known }) } else { Ok(stream > known) }
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

    /// The stream's number of the last message.
    pub fn sequence(&self) -> u64 {
        self.end.sequence
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

fn found(answer: Result<StreamMessage, LastRawMessageError>) -> Result<Option<(u64, Bytes)>, ReadError> {
    match answer {
        Ok(message) => Ok(Some((message.sequence, message.payload))),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(ReadError::Unreachable(error.to_string())),
    }
}

fn end_of(sequence: u64, bytes: &[u8]) -> Result<End, ReadError> {
    let wrong = |source| ReadError::Batch { sequence, source };
    let batch = Batch::parse(bytes).map_err(wrong)?;
    batch.verify().map_err(wrong)?;
    Ok(End { sequence, head: batch.head.head, next: batch.header.next(), epoch: batch.header.epoch })
}
