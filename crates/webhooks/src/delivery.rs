//! One endpoint's task: reads events ahead, calls, and notes what came of it. Events of one order are delivered in order; those of other
//! orders do not wait for them. What is not delivered waits in the file, and what it says is read from the chain again.
//!
//! At least once: a note that was lost with the process means one more delivery, under the same id.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::{ChainTime, PurchaseNumber, milliseconds};
use engine::{Engine, Sale};
use ledger::StoreError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::caller::{Call, Caller, Outcome};
use crate::event::Event;
use crate::pace::{GIVE_UP_AFTER, Pace};
use crate::reading::{Found, Readers, Wanted};
use crate::signature::signatures;
use crate::store::{Endpoint, EventKey, LastCall, Note, Store, Waiting};

/// Calls of one endpoint at a time.
pub(crate) const CALLS_MAX: usize = 8;
/// Events read ahead of the calls.
const AHEAD_MAX: usize = 64;
/// Events that wait at most; beyond it nothing new is read, and the endpoint falls behind.
const WAITING_MAX: usize = 1_000;
/// When so many lanes have failed without a success between them, the receiver counts as down: one call at a time, and nothing new but a
/// probe now and then. One order that a receiver does not like holds up no other.
const DOWN_AFTER: usize = 8;
/// While a receiver is down, one new event is tried so often; in the time until the first is parked they are fewer than may wait.
const PROBE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How long a task rests whose file or chain could not be used.
const REST: Duration = Duration::from_secs(5);

const _: () =
    assert!(GIVE_UP_AFTER.as_secs() / PROBE_EVERY.as_secs() + (CALLS_MAX + DOWN_AFTER) as u64 <= WAITING_MAX as u64);

/// What all endpoints share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Mutex<Store>,
    pub(crate) readers: Readers,
    pub(crate) pace: Pace,
}

impl Shared {
    /// A panic elsewhere has ended the process; until then the file is as its last transaction left it.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sales, and for each the first record that the books do not have.
pub(crate) type Ends = Vec<(Arc<Sale>, u64)>;

type Lane = (String, Option<PurchaseNumber>);

/// A call that has ended.
struct Called {
    key: EventKey,
    lane: Option<PurchaseNumber>,
    at: ChainTime,
    outcome: Outcome,
}

/// One endpoint's task.
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    caller: Arc<Caller>,
    ends: watch::Receiver<Ends>,
    random: fastrand::Rng,
    /// Per sale: the first record that was not read.
    read: BTreeMap<String, u64>,
    /// The same as the file has it, with what has been read and not delivered still before it.
    noted: BTreeMap<String, u64>,
    /// Read and not called for yet.
    ahead: VecDeque<Event>,
    /// Called for the first time just now.
    fresh: BTreeSet<EventKey>,
    waiting: BTreeMap<EventKey, Waiting>,
    /// Lanes with a call under way.
    busy: HashSet<Lane>,
    calls: JoinSet<Called>,
    /// Lanes that have failed since the last success, as many as count.
    failed: HashSet<Lane>,
    probe_at: u64,
    /// Which sale is read first next time.
    turn: usize,
    rests_until: u64,
}

impl Delivery {
    pub(crate) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        caller: Caller,
        ends: watch::Receiver<Ends>,
        random: fastrand::Rng,
    ) -> Result<Self, StoreError> {
        let (places, waiting) = {
            let store = shared.store();
            (store.places(&endpoint.id)?, store.waiting(&endpoint.id)?)
        };
        Ok(Self {
            shared,
            endpoint: Arc::new(endpoint),
            caller: Arc::new(caller),
            ends,
            random,
            read: places.clone(),
            noted: places,
            ahead: VecDeque::new(),
            fresh: BTreeSet::new(),
            waiting,
            busy: HashSet::new(),
            calls: JoinSet::new(),
            failed: HashSet::new(),
            probe_at: 0,
            turn: 0,
            rests_until: 0,
        })
    }

    /// Runs until the endpoint wants no more calls, the service ends or the task is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            self.begin_calls().await;
            let pause = self.pause();
            tokio::select! {
                Some(called) = self.calls.join_next() => {
                    // A call that panicked has ended the process.
                    let Ok(called) = called else { return };
                    if self.take(called).is_break() {
                        return;
                    }
                }
                changed = self.ends.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn now(&self) -> u64 {
        self.shared.engine.now()
    }

    fn is_down(&self) -> bool {
        self.failed.len() >= DOWN_AFTER
    }

    fn has_room(&self) -> bool {
        self.calls.len() < if self.is_down() { 1 } else { CALLS_MAX }
    }

    /// How long nothing is due, an hour at most.
    fn pause(&self) -> Duration {
        let now = self.now();
        let waiting = self.first_of_lanes().map(|(_, waiting)| waiting.due_at).min();
        let probe = Some(self.probe_at).filter(|at| self.is_down() && *at > now);
        let due = match self.rests_until {
            until if until > now => Some(until),
            // The end of a call wakes as well.
            _ if !self.has_room() => None,
            _ => [waiting, probe].into_iter().flatten().min(),
        };
        let milliseconds = due.map_or(3_600_000, |due| due.saturating_sub(now)).clamp(1, 3_600_000);
        Duration::from_millis(milliseconds)
    }

    /// What waits and has nothing of its lane before it, neither waiting nor under way.
    fn first_of_lanes(&self) -> impl Iterator<Item = (&EventKey, &Waiting)> {
        let mut seen = HashSet::new();
        self.waiting.iter().filter(move |((sale, _), waiting)| {
            seen.insert((sale, waiting.lane)) && !self.busy.contains(&(sale.clone(), waiting.lane))
        })
    }

    /// Begins as many calls as there is room for: what waits and is due first, then what is new.
    async fn begin_calls(&mut self) {
        while self.rests_until <= self.now() {
            if !self.has_room() {
                return;
            }
            let now = self.now();
            let due = self.first_of_lanes().find(|(_, waiting)| waiting.due_at <= now);
            if let Some((key, waiting)) = due.map(|(key, waiting)| (key.clone(), waiting.clone())) {
                self.call_again(key, &waiting);
                continue;
            }
            let holds_back = self.is_down() && !self.waiting.is_empty() && now < self.probe_at;
            if holds_back || self.waiting.len() >= WAITING_MAX {
                return;
            }
            if let Some(event) = self.next_fresh() {
                self.call_fresh(event);
            } else if !self.read_ahead().await {
                return;
            }
        }
    }

    /// The next new event that may be called for. One behind an event of its order that waits has to wait too.
    fn next_fresh(&mut self) -> Option<Event> {
        let mut index = 0;
        while let Some(event) = self.ahead.get(index) {
            let lane = (event.sale.clone(), event.lane);
            if self.busy.contains(&lane) {
                index += 1;
                continue;
            }
            let event = self.ahead.remove(index)?;
            // It had failed when the process died, with an older one still on its way: it waits already.
            if self.waiting.contains_key(&(event.sale.clone(), event.position)) {
                continue;
            }
            let is_behind = self.waiting.iter().any(|((sale, _), waiting)| (sale, waiting.lane) == (&lane.0, lane.1));
            if !is_behind {
                return Some(event);
            }
            let waiting = Waiting {
                lane: event.lane,
                at: event.timestamp,
                attempts: 0,
                due_at: self.now(),
                failed_at: None,
                reason: "an earlier event of the order waits".to_owned(),
            };
            self.waits((event.sale, event.position), waiting, None);
        }
        None
    }

    fn call_fresh(&mut self, event: Event) {
        let key = (event.sale.clone(), event.position);
        self.fresh.insert(key.clone());
        self.busy.insert((event.sale.clone(), event.lane));
        let (shared, endpoint, caller) = self.parts();
        self.calls.spawn(async move {
            let call = call_of(&shared, &endpoint, &event);
            Called { key, lane: event.lane, at: event.timestamp, outcome: caller.call(&call).await }
        });
    }

    fn call_again(&mut self, key: EventKey, waiting: &Waiting) {
        let (lane, at) = (waiting.lane, waiting.at);
        self.busy.insert((key.0.clone(), lane));
        let (shared, endpoint, caller) = self.parts();
        self.calls.spawn(async move {
            let outcome = match read_one(&shared, &key).await {
                Ok(event) => caller.call(&call_of(&shared, &endpoint, &event)).await,
                Err(reason) => Outcome::Failed(None, reason),
            };
            Called { key, lane, at, outcome }
        });
    }

    fn parts(&self) -> (Arc<Shared>, Arc<Endpoint>, Arc<Caller>) {
        (Arc::clone(&self.shared), Arc::clone(&self.endpoint), Arc::clone(&self.caller))
    }

    /// Reads new events of the next sale that has some. Whether there were any.
    async fn read_ahead(&mut self) -> bool {
        if self.ahead.len() >= AHEAD_MAX {
            return false;
        }
        let ends: Vec<_> = self
            .ends
            .borrow_and_update()
            .iter()
            .filter(|(sale, _)| self.endpoint.wants(sale.name()))
            .cloned()
            .collect();
        for distance in 0..ends.len() {
            let (sale, end) = &ends[(self.turn + distance) % ends.len()];
            let from = self.read.get(sale.name()).copied().unwrap_or_default();
            if from >= *end {
                continue;
            }
            let found = match self.look(sale, from).await {
                Ok(found) => found,
                Err(reason) => {
                    self.turn = (self.turn + distance + 1) % ends.len();
                    tracing::warn!(sale = sale.name(), reason, "events cannot be read now; webhooks of this sale wait");
                    self.rest();
                    return false;
                }
            };
            self.read.insert(sale.name().to_owned(), found.next);
            self.ahead.extend(found.events);
            self.note_place(sale.name());
            if found.next > from {
                self.turn = (self.turn + distance + 1) % ends.len();
                return true;
            }
        }
        false
    }

    async fn look(&self, sale: &Arc<Sale>, from: u64) -> Result<Found, String> {
        let (shared, endpoint, sale) = (Arc::clone(&self.shared), Arc::clone(&self.endpoint), Arc::clone(sale));
        let count_max = AHEAD_MAX - self.ahead.len();
        let looked = tokio::task::spawn_blocking(move || {
            let wanted = Wanted { from, since: endpoint.since, kinds: &endpoint.events, count_max };
            shared.readers.read(&shared.engine, &sale, &wanted)
        });
        looked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Takes a call's outcome. Break: there is nothing more to do for this endpoint.
    fn take(&mut self, called: Called) -> ControlFlow<()> {
        let Called { key, lane, at, outcome } = called;
        self.busy.remove(&(key.0.clone(), lane));
        let is_fresh = self.fresh.remove(&key);
        let now = self.now();
        match outcome {
            Outcome::Accepted(status) => {
                let last = LastCall { status: Some(status), error: None, at: Some(now) };
                let was_down = self.is_down();
                self.failed.clear();
                self.waiting.remove(&key);
                let place = self.place(&key.0);
                self.note(&Note {
                    place,
                    delivered: Some(&key).filter(|_| !is_fresh),
                    last: Some(&last),
                    ..Note::default()
                });
                if was_down {
                    self.wake(now);
                }
            }
            Outcome::Failed(status, reason) => {
                if !self.is_down() {
                    self.failed.insert((key.0.clone(), lane));
                }
                if is_fresh {
                    self.probe_at = now.saturating_add(milliseconds(PROBE_EVERY));
                }
                let last = LastCall { status, error: Some(reason.clone()), at: Some(now) };
                let before = self.waiting.get(&key).cloned();
                let attempts = before.as_ref().map_or(0, |waiting| waiting.attempts).saturating_add(1);
                let failed_at = before.and_then(|waiting| waiting.failed_at).unwrap_or(now);
                let due_at = now.saturating_add(self.shared.pace.pause(attempts, &mut self.random));
                self.waits(
                    key,
                    Waiting { lane, at, attempts, due_at, failed_at: Some(failed_at), reason },
                    Some(&last),
                );
            }
            Outcome::Gone => {
                let reason = "the receiver answered 410: it wants no more calls";
                tracing::warn!(endpoint = self.endpoint.id, "{reason}; the webhook is paused");
                if let Err(error) = self.shared.store().pause(&self.endpoint.id, Some(reason)) {
                    tracing::error!(%error, "webhooks.sqlite cannot be written; the webhook rests until the next start");
                }
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// The receiver is back after it was down: what waits need not wait for its time.
    fn wake(&mut self, now: u64) {
        for waiting in self.waiting.values_mut() {
            waiting.due_at = now;
        }
        let noted = self.shared.store().make_due(&self.endpoint.id, now);
        if let Err(error) = noted {
            self.lost(&error);
        }
    }

    /// Keeps an event for later, or parks it when it has had all its time.
    fn waits(&mut self, key: EventKey, waiting: Waiting, last: Option<&LastCall>) {
        let give_up_after = milliseconds(self.shared.pace.give_up_after);
        let parked = waiting.failed_at.is_some_and(|at| self.now().saturating_sub(at) >= give_up_after);
        let place = self.place(&key.0);
        self.note(&Note { place, waits: Some((&key, &waiting, parked)), last, ..Note::default() });
        if parked {
            let (sale, position) = &key;
            tracing::error!(endpoint = self.endpoint.id, sale, position, reason = waiting.reason, "parked an event");
            self.waiting.remove(&key);
        } else {
            self.waiting.insert(key, waiting);
        }
    }

    /// How far a sale has been told: nothing before it is still ahead or on its way for the first time. `None` where the file says so.
    fn place<'a>(&mut self, sale: &'a str) -> Option<(&'a str, u64)> {
        let read = self.read.get(sale).copied().unwrap_or_default();
        let ahead = self.ahead.iter().find(|event| event.sale == sale).map(|event| event.position);
        let fresh = self.fresh.range((sale.to_owned(), 0)..).next().filter(|(of, _)| of == sale).map(|key| key.1);
        let next = [Some(read), ahead, fresh].into_iter().flatten().min().unwrap_or(read);
        let changed = self.noted.insert(sale.to_owned(), next) != Some(next);
        changed.then_some((sale, next))
    }

    fn note_place(&mut self, sale: &str) {
        if let Some(place) = self.place(sale) {
            self.note(&Note { place: Some(place), ..Note::default() });
        }
    }

    fn note(&mut self, note: &Note<'_>) {
        let noted = self.shared.store().note(&self.endpoint.id, note);
        if let Err(error) = noted {
            self.lost(&error);
        }
    }

    /// A note was not kept. It goes on from memory after a rest; after a restart some events come twice.
    fn lost(&mut self, error: &StoreError) {
        tracing::warn!(endpoint = self.endpoint.id, %error, "webhooks.sqlite cannot be written; some events may be delivered twice");
        self.noted.clear();
        self.rest();
    }

    fn rest(&mut self) {
        self.rests_until = self.now().saturating_add(milliseconds(REST));
    }
}

/// The event of a record, as it was told before.
async fn read_one(shared: &Arc<Shared>, (sale, position): &EventKey) -> Result<Event, String> {
    let found = shared.engine.sale(sale).ok_or("the sale is not here")?;
    let (shared, position) = (Arc::clone(shared), *position);
    let read =
        tokio::task::spawn_blocking(move || shared.readers.read(&shared.engine, &found, &Wanted::from(position, 1)));
    let found = read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let event = found.events.into_iter().next().filter(|event| event.position == position);
    event.ok_or_else(|| "the books have not come to the event again yet".to_owned())
}

fn call_of(shared: &Shared, endpoint: &Endpoint, event: &Event) -> Call {
    let now = shared.engine.now();
    let body = serde_json::to_vec(event).expect("an event has no map with odd keys");
    let former = endpoint.former_secret.as_ref().filter(|_| now < endpoint.former_until);
    let secrets: Vec<_> = [Some(&endpoint.secret), former].into_iter().flatten().collect();
    let timestamp = now / 1_000;
    let signatures = signatures(&secrets, &event.id, timestamp, &body);
    Call { id: event.id.clone(), timestamp, signatures, body: Bytes::from(body) }
}
