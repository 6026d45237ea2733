//! What the gates of a cluster keep together in Redis, beside the sales: how often everybody has asked, what may be used only once, and
//! counts. None of it is in a chain; lost, it begins anew, and away, each gate goes on by itself.
//!
//! Keys are hashes under a secret of the deployment, spread over a few slots, each with a connection of its own. Whatever has gathered while
//! the last call was under way is the next call: so a thousand requests are some calls, and Redis is asked as fast as it answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use limiter::{Asked, GATES_MAX, Gates, Lot};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::link::{Link, LinkError};
use crate::options::{ClusterOptions, RedisOptions};
use crate::quiet::Quiet;

/// The library, for `FUNCTION LOAD`.
const FUNCTIONS: &str = include_str!("shared.lua");
const FUNCTION: &str = "doorbuster_shared_1";
/// Slots over which the keys are spread, by the first bits of their hash.
const PARTS: usize = 16;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Questions of a part that wait; further ones are answered as if Redis were away.
const WAITING_MAX: usize = 4_096;
/// Keys of one call: a server that serves sales too is not kept longer than a fraction of a millisecond.
const KEYS_PER_CALL_MAX: usize = 256;
/// So long after a failure Redis is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Gates are counted so often, and one that has not been heard of for so long is none.
const MEET_EVERY: Duration = Duration::from_secs(1);
const AWAY_AFTER: Duration = Duration::from_secs(4);
/// A gate whose clock is so far behind believes for longer what is good once.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(2);
const FIELDS: usize = 5;

/// What is asked of a key.
#[derive(Clone, Debug)]
enum Operation {
    Take(Asked),
    Spend(Duration),
    Restore,
    Count(Duration, u32),
    Meet(Option<u64>),
    Tell(String),
    Look,
}

impl Operation {
    /// Its name and fields, as the library takes them. `asking` is how many want the same.
    fn fields(&self, asking: usize) -> [Vec<u8>; FIELDS] {
        let number = |number: u64| number.to_string().into_bytes();
        let milliseconds = |time: &Duration| number(domain::milliseconds(*time).max(1));
        let fields = |name: &str, fields: [Vec<u8>; FIELDS - 1]| {
            let [a, b, c, d] = fields;
            [name.as_bytes().to_vec(), a, b, c, d]
        };
        let none = Vec::new;
        match self {
            Self::Take(asked) => {
                let [rate, burst, extra] = [asked.per_second, asked.burst, asked.extra_max].map(u64::from);
                fields("take", [number(rate), number(burst), number(asking as u64), number(extra)])
            }
            Self::Spend(time) => fields("spend", [milliseconds(time), none(), none(), none()]),
            Self::Restore => fields("restore", [none(), none(), none(), none()]),
            Self::Count(time, more) => fields("count", [milliseconds(time), number((*more).into()), none(), none()]),
            Self::Meet(member) => {
                let member = member.map_or(none(), |member| format!("{member:016x}").into_bytes());
                fields("meet", [milliseconds(&AWAY_AFTER), member, none(), none()])
            }
            Self::Tell(text) => fields("tell", [text.clone().into_bytes(), none(), none(), none()]),
            Self::Look => fields("look", [none(), none(), none(), none()]),
        }
    }
}

/// A question to a part.
struct Ask {
    /// Behind the part's prefix.
    key: String,
    operation: Operation,
    /// Two numbers as the library says them; of a take, the permits for whoever asked.
    answer: oneshot::Sender<(u64, u64)>,
}

/// What has been asked and said, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedCounts {
    /// Requests for which Redis was asked about a limit.
    pub asked: u64,
    /// Permits that it gave.
    pub permits: u64,
    /// Of those requests, the ones that it refused.
    pub refused: u64,
    /// Requests that were judged without Redis: it was away or slow.
    pub without: u64,
}

#[derive(Default)]
struct Counters {
    asked: AtomicU64,
    permits: AtomicU64,
    refused: AtomicU64,
    without: AtomicU64,
}

struct Part {
    asks: mpsc::Sender<Ask>,
    /// Whether Redis answered last time, and in time.
    is_well: Arc<AtomicBool>,
}

/// What the gates of a cluster share.
pub struct Shared {
    parts: Vec<Part>,
    patience: Duration,
    gates: AtomicU32,
    counters: Counters,
}

/// The prefix of a part's keys.
pub(crate) fn prefix(options: &RedisOptions, part: usize) -> String {
    format!("doorbuster:{{{}/shared/{part}}}:", options.name)
}

impl Shared {
    /// Begins to ask, on that runtime and until it ends.
    pub(crate) fn start(options: &ClusterOptions, runtime: &Handle) -> Arc<Self> {
        let start = |number| {
            let (asks, waiting) = mpsc::channel(WAITING_MAX);
            let is_well = Arc::new(AtomicBool::new(false));
            let prefix = prefix(&options.redis, number);
            let worker = Worker {
                number,
                link: Link::to(&options.redis, vec![format!("{prefix}look")]),
                prefix,
                waiting,
                is_well: Arc::clone(&is_well),
                patience: options.shared_patience,
            };
            runtime.spawn(worker.run());
            Part { asks, is_well }
        };
        // Whoever judges nobody only tells news, which is the first part's.
        let parts = if options.roles.gate { PARTS } else { 1 };
        let shared = Arc::new(Self {
            parts: (0..parts).map(start).collect(),
            patience: options.shared_patience,
            gates: AtomicU32::new(options.gates_expected.clamp(1, GATES_MAX)),
            counters: Counters::default(),
        });
        let member = options.roles.gate.then_some(options.process);
        runtime.spawn(meet(Arc::clone(&shared), member));
        shared
    }

    /// Asks for a permit of the key with that hash, under a limit that has a name of its own. `None`: judge without.
    pub async fn take(&self, limit: &str, hash: u64, asked: Asked) -> Option<Lot> {
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.ask(hash, format!("{limit}:{hash:016x}"), Operation::Take(asked)).await;
        let Some((permits, wait)) = answer else {
            self.judged_without();
            return None;
        };
        let counter = if permits > 0 { &self.counters.permits } else { &self.counters.refused };
        counter.fetch_add(permits.max(1), Ordering::Relaxed);
        let extra = u32::try_from(permits.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(Lot { is_granted: permits > 0, extra, wait_milliseconds: wait.max(1) })
    }

    /// Uses what is good once and for so long more: whether nobody had, at any gate. `None`: nobody knows.
    pub async fn spend(&self, kind: &str, hash: u64, within: Duration) -> Option<bool> {
        let answer = self.ask(hash, format!("{kind}:{hash:016x}"), Operation::Spend(within + CLOCKS_APART_MAX)).await;
        answer.map(|(is_first, _)| is_first == 1)
    }

    /// Takes a spending back, where what it was spent for did not come about.
    pub async fn restore(&self, kind: &str, hash: u64) {
        // Where nobody knows, it stays spent until its time is over.
        let _ = self.ask(hash, format!("{kind}:{hash:016x}"), Operation::Restore).await;
    }

    /// Counts so many more at all gates together, and gives how many there have been since the first of them; all are forgotten that time
    /// after it. With 0 it only looks. `None`: nobody knows.
    pub async fn count(&self, kind: &str, hash: u64, more: u32, within: Duration) -> Option<u64> {
        let answer = self.ask(hash, format!("{kind}:{hash:016x}"), Operation::Count(within, more)).await;
        answer.map(|(count, _)| count)
    }

    /// Tells every process of the cluster. Who does not hear it has to learn it in another way.
    pub(crate) fn tell(&self, text: String) {
        let (answer, _) = oneshot::channel();
        // Redis may be away, and then nobody hears it.
        let _ = self.parts[0].asks.try_send(Ask { key: NEWS.to_owned(), operation: Operation::Tell(text), answer });
    }

    /// The gates, and whether they can be asked together about the key with that hash.
    pub fn gates(&self, hash: u64) -> Gates {
        let can_ask = self.part(hash).is_well.load(Ordering::Relaxed);
        Gates { count: self.gates.load(Ordering::Relaxed), can_ask }
    }

    /// Counts a request that was judged without Redis.
    pub fn judged_without(&self) {
        self.counters.without.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been asked and said.
    pub fn counts(&self) -> SharedCounts {
        let Counters { asked, permits, refused, without } = &self.counters;
        let [asked, permits, refused, without] =
            [asked, permits, refused, without].map(|counter| counter.load(Ordering::Relaxed));
        SharedCounts { asked, permits, refused, without }
    }

    /// Gates that are known of.
    pub fn gate_count(&self) -> u32 {
        self.gates.load(Ordering::Relaxed)
    }

    /// Parts of the keys that can be asked about now, in hundredths.
    pub fn well_hundredths(&self) -> u64 {
        let well = self.parts.iter().filter(|part| part.is_well.load(Ordering::Relaxed)).count();
        (well * 100 / self.parts.len()) as u64
    }

    fn part(&self, hash: u64) -> &Part {
        let part = (hash >> (u64::BITS - PART_BITS)) as usize;
        &self.parts[part.min(self.parts.len() - 1)]
    }

    async fn ask(&self, hash: u64, key: String, operation: Operation) -> Option<(u64, u64)> {
        let part = self.part(hash);
        if !part.is_well.load(Ordering::Relaxed) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        part.asks.try_send(Ask { key, operation, answer }).ok()?;
        tokio::time::timeout(self.patience, answered).await.ok()?.ok()
    }
}

/// Where processes tell each other something, in the first part.
pub(crate) const NEWS: &str = "news";

/// Counts the gates now and then, this one among them if it is one.
async fn meet(shared: Arc<Shared>, member: Option<u64>) {
    let (mut is_first, mut fewer_since) = (true, None);
    loop {
        let answer = shared.ask(0, "gates".to_owned(), Operation::Meet(member)).await;
        if let Some((count, _)) = answer {
            let count = (count as u32).clamp(1, GATES_MAX);
            let are_fewer = !is_first && count < shared.gate_count();
            // A Redis that has just come back has not heard of the others yet, and they are still there.
            if !are_fewer || fewer_since.get_or_insert_with(Instant::now).elapsed() >= AWAY_AFTER {
                shared.gates.store(count, Ordering::Relaxed);
                fewer_since = None;
            }
            is_first = false;
        }
        // A part that is well again is asked soon.
        tokio::time::sleep(if answer.is_some() { MEET_EVERY } else { RETRY_AFTER }).await;
    }
}

/// Carries one part's questions to Redis, a call at a time.
struct Worker {
    number: usize,
    link: Link,
    prefix: String,
    waiting: mpsc::Receiver<Ask>,
    is_well: Arc<AtomicBool>,
    patience: Duration,
}

impl Worker {
    async fn run(mut self) {
        let mut quiet = Quiet::default();
        loop {
            let mut asks = Vec::new();
            if self.is_well.load(Ordering::Relaxed) {
                if self.waiting.recv_many(&mut asks, KEYS_PER_CALL_MAX).await == 0 {
                    return;
                }
            } else if let Err(error) = self.try_again().await {
                if quiet.is_due(&error) {
                    tracing::warn!(part = self.number, %error, "what gates share cannot be asked for: each has its part of the limits");
                }
                if self.waiting.is_closed() {
                    return;
                }
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            quiet.is_over();
            let gathered = gather(asks);
            if !gathered.is_empty()
                && let Err(error) = self.carry(gathered).await
            {
                self.is_well.store(false, Ordering::Relaxed);
                // Said when the next try fails as well: one call may fail because a server was replaced.
                tracing::debug!(part = self.number, %error, "a call about what gates share failed");
            }
        }
    }

    /// Whether Redis is there again.
    async fn try_again(&mut self) -> Result<(), LinkError> {
        let look = [(format!("{}look", self.prefix), Operation::Look.fields(0))];
        call(&mut self.link, &look).await?;
        self.is_well.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn carry(&mut self, gathered: Vec<Gathered>) -> Result<(), LinkError> {
        let operations: Vec<_> = gathered
            .iter()
            .map(|of| (format!("{}{}", self.prefix, of.key), of.operation.fields(of.answers.len())))
            .collect();
        let mut calling = std::pin::pin!(call(&mut self.link, &operations));
        let replies = match tokio::time::timeout(self.patience, &mut calling).await {
            Ok(replies) => replies?,
            Err(_) => {
                // Whoever waits for this has gone; nobody else has to wait as long.
                self.is_well.store(false, Ordering::Relaxed);
                let replies = calling.await?;
                self.is_well.store(true, Ordering::Relaxed);
                replies
            }
        };
        for (of, reply) in gathered.into_iter().zip(replies.chunks_exact(2)) {
            of.answer(reply[0], reply[1]);
        }
        Ok(())
    }
}

/// One operation, and everybody who wants it.
struct Gathered {
    key: String,
    operation: Operation,
    answers: Vec<oneshot::Sender<(u64, u64)>>,
}

impl Gathered {
    fn answer(self, first: u64, second: u64) {
        let is_take = matches!(self.operation, Operation::Take(_));
        let asking = self.answers.len() as u64;
        for (place, answer) in (0_u64..).zip(self.answers) {
            // One permit each, as far as they go, and what is beyond to the first.
            let permits = u64::from(place < first) + if place == 0 { first.saturating_sub(asking) } else { 0 };
            // Who no longer waits was judged without; the permit is void.
            let _ = answer.send((if is_take { permits } else { first }, second));
        }
    }
}

/// Takes of one key are one operation, so that nobody who asks a thousand times at once is lent something a thousand times.
fn gather(asks: Vec<Ask>) -> Vec<Gathered> {
    let mut gathered: Vec<Gathered> = Vec::with_capacity(asks.len());
    let mut taking = HashMap::new();
    for Ask { key, operation, answer } in asks {
        if matches!(operation, Operation::Take(_)) {
            // Nobody waits for it any more, so nothing is taken.
            if answer.is_closed() {
                continue;
            }
            match taking.entry(key.clone()) {
                Entry::Occupied(place) => {
                    let of: &mut Gathered = &mut gathered[*place.get()];
                    of.answers.push(answer);
                    continue;
                }
                Entry::Vacant(free) => drop(free.insert(gathered.len())),
            }
        }
        gathered.push(Gathered { key, operation, answers: vec![answer] });
    }
    gathered
}

/// Calls the library, which is loaded first where it is not known.
async fn call(link: &mut Link, operations: &[(String, [Vec<u8>; FIELDS])]) -> Result<Vec<u64>, LinkError> {
    let mut call = redis::cmd("FCALL");
    call.arg(FUNCTION).arg(operations.len());
    for (key, _) in operations {
        call.arg(key);
    }
    for (_, fields) in operations {
        call.arg(&fields[..]);
    }
    match link.query(&call).await {
        Err(LinkError::Fenced(_)) => {
            link.load(FUNCTIONS).await?;
            link.query(&call).await
        }
        replied => replied,
    }
}

#[cfg(test)]
mod tests;
