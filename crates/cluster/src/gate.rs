//! A gate's part in a sale: requests to whoever decides, answers from the chain.
//!
//! Whatever has arrived while the last call was under way is the next call. A verdict waits until the chain has what it rests on; then
//! the replica has the answer. A call without a reply is repeated, since every decision is bound to its key.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admission::core::Verdict;
use admission::postbox::{Reply, deliver};
use admission::redis::{add_request, clock_argument};
use admission::{Answer, Command, PurchaseRequest, Query, Replica, Request, Requests, Standing, Wanted};
use domain::{ChainTime, Clock, Refusal, Stage, fault};

use crate::decider::{Decider, Decision};
use crate::follower::Follower;
use crate::ladder::{Ladder, Rung};
use crate::link::LinkError;

/// Requests in one call: as long as it runs, no other gate is served.
const CALL_REQUESTS_MAX: usize = 64;
/// Verdicts that may wait for the chain; beyond it requests stay in the inbox, which refuses when it is full.
const DUE_MAX: usize = 65_536;
/// How long a decision is asked for before its outcome is left unknown.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long whoever pays, gives back or operates waits while nothing can be decided.
const PAUSED_PATIENCE: Duration = Duration::from_secs(2);
/// How long a read waits for what was decided before it.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// How long a gate waits before it asks again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// How long a process that stops waits for the chain to have what was decided.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A verdict that waits for the chain.
struct Due {
    reply: Reply,
    since: Instant,
    wanted: Wanted,
    asked: Asked,
    verdict: Verdict,
    epoch: u64,
    next: u64,
}

/// What was asked, for whoever may wait no longer.
enum Asked {
    Read(Query),
    /// And how to look for it.
    Purchase(Query),
    Change,
}

impl Asked {
    fn of(request: &Request) -> Self {
        match request {
            Request::Read(query) => Self::Read(*query),
            Request::Decide(Command::Purchase(PurchaseRequest { wish, purchase, .. }), _) => {
                Self::Purchase(Query::Purchase { customer: wish.customer, purchase: *purchase })
            }
            Request::Decide(..) => Self::Change,
        }
    }
}

pub(crate) struct Gate<'a> {
    pub(crate) follower: &'a Follower,
    pub(crate) ladder: &'a Ladder,
    pub(crate) requests: &'a Requests,
    pub(crate) clock: &'a dyn Clock,
    due: Mutex<VecDeque<Due>>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(
        follower: &'a Follower,
        ladder: &'a Ladder,
        requests: &'a Requests,
        clock: &'a dyn Clock,
    ) -> Self {
        Self { follower, ladder, requests, clock, due: Mutex::default() }
    }

    /// Until the process stops.
    pub(crate) async fn run(&self, mut decider: Decider<'_>) {
        tokio::select! {
            () = self.ask(&mut decider) => {}
            () = self.answer() => {}
        }
        // What is decided and only waits for the chain is told yet.
        let rest = async {
            while !self.due().is_empty() {
                self.follower.moved.notified().await;
                self.tell();
            }
        };
        drop(tokio::time::timeout(LAST_ANSWERS, rest).await);
    }

    fn due(&self) -> MutexGuard<'_, VecDeque<Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, decider: &mut Decider<'_>) {
        loop {
            self.requests.arrived().await;
            if self.due().len() >= DUE_MAX {
                self.follower.moved.notified().await;
                continue;
            }
            let batch = self.requests.take(CALL_REQUESTS_MAX);
            if batch.is_empty() && self.requests.stopped() {
                return;
            }
            self.decide(decider, batch).await;
            self.tell();
        }
    }

    /// Has a batch decided, however often that must be asked for.
    async fn decide(&self, decider: &mut Decider<'_>, mut batch: Vec<(Request, Reply)>) {
        let start = Instant::now();
        let (mut pause, mut is_said) = (PAUSE.0, false);
        loop {
            let mut arguments = vec![clock_argument(ChainTime(self.clock.wall_milliseconds()))];
            batch.iter().for_each(|(request, _)| add_request(&mut arguments, request));
            match decider.decide(&arguments, batch.len()).await {
                Ok(decisions) => {
                    fault::reach(Stage::Decided);
                    if decisions.iter().any(|decision| decision.epoch < self.follower.lock().replica.core().epoch()) {
                        // A server that was given up and does not know: another one decides now.
                        decider.look_again();
                    }
                    return self.put_due(batch, decisions);
                }
                Err(LinkError::Full) => return self.without_memory(batch),
                Err(error @ LinkError::Refused(_)) if !is_said => {
                    tracing::error!(sale = self.follower.name, %error, "nothing can be decided by this process");
                    is_said = true;
                }
                Err(error) => tracing::debug!(sale = self.follower.name, %error, "no decision; it is asked for again"),
            }
            batch = self.not_again(batch);
            // Nor need anybody wait who only reads.
            for (request, reply) in self.requests.take_all(|request| matches!(request, Request::Read(_))) {
                if let Request::Read(query) = request {
                    self.read_here(reply, &query);
                }
            }
            if start.elapsed() > PAUSED_PATIENCE && self.ladder.rung() == Rung::Paused {
                batch = self.buyers(batch);
                // Nothing was asked for these yet.
                for (_, reply) in self.requests.take_all(|request| !is_purchase(request)) {
                    self.refuse(reply, Refusal::Overloaded);
                }
            }
            if start.elapsed() > PATIENCE || self.requests.stopped() {
                batch.drain(..).for_each(|(_, reply)| self.refuse(reply, Refusal::OutcomeUnknown));
            }
            if batch.is_empty() {
                return;
            }
            tokio::time::sleep(decider.jitter(pause)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Answers what must not be asked twice, or need not: a change that adds up with itself, and reads, which the replica can serve.
    fn not_again(&self, batch: Vec<(Request, Reply)>) -> Vec<(Request, Reply)> {
        let mut rest = Vec::with_capacity(batch.len());
        for (request, reply) in batch {
            match request {
                Request::Read(query) => self.read_here(reply, &query),
                Request::Decide(Command::ChangeStock { .. }, _) => self.refuse(reply, Refusal::OutcomeUnknown),
                other => rest.push((other, reply)),
            }
        }
        rest
    }

    /// Leaves to those who change something else than their own purchase's beginning that their outcome is unknown; buyers are `pending`.
    fn buyers(&self, batch: Vec<(Request, Reply)>) -> Vec<(Request, Reply)> {
        let (buyers, others) = batch.into_iter().partition(|(request, _)| is_purchase(request));
        for (_, reply) in Vec::from_iter::<Vec<_>>(others) {
            self.refuse(reply, Refusal::OutcomeUnknown);
        }
        buyers
    }

    /// Redis has no memory left, so nothing was decided: winners read what is theirs, everybody else hears that it does not go on.
    fn without_memory(&self, batch: Vec<(Request, Reply)>) {
        for (request, reply) in batch {
            match Asked::of(&request) {
                Asked::Read(query) => self.read_here(reply, &query),
                Asked::Purchase(query) => {
                    let answer = known_or(&self.follower.lock().replica, &query, Refusal::Paused);
                    deliver(&mut vec![(reply, answer)]);
                }
                Asked::Change => self.refuse(reply, Refusal::Overloaded),
            }
        }
    }

    /// Answers a read from the chain alone.
    fn read_here(&self, reply: Reply, query: &Query) {
        let answer = read(&self.follower.lock().replica, query);
        deliver(&mut vec![(reply, answer)]);
    }

    fn put_due(&self, batch: Vec<(Request, Reply)>, decisions: Vec<Decision>) {
        let mut due = self.due();
        for ((request, reply), decision) in batch.into_iter().zip(decisions) {
            let Decision { verdict, epoch, next } = decision;
            if verdict == Verdict::Refused(Refusal::Overloaded, None) {
                // It rests on nothing, least of all on a chain that does not go on.
                self.refuse(reply, Refusal::Overloaded);
                continue;
            }
            let (wanted, asked) = (Wanted::of(&request), Asked::of(&request));
            due.push_back(Due { reply, since: Instant::now(), wanted, asked, verdict, epoch, next });
        }
    }

    fn refuse(&self, reply: Reply, refusal: Refusal) {
        let answer = refused(&self.follower.lock().replica, refusal);
        deliver(&mut vec![(reply, answer)]);
    }

    /// Tells what the chain has, whenever it has gone on; where it does not go on, reads are answered without, and changes not known.
    async fn answer(&self) {
        loop {
            drop(tokio::time::timeout(READ_PATIENCE / 4, self.follower.moved.notified()).await);
            self.tell();
            self.tell_impatient();
        }
    }

    fn tell_impatient(&self) {
        let is_paused = self.ladder.rung() == Rung::Paused;
        let mut due = self.due();
        let waits_too_long = |due: &Due| match due.asked {
            Asked::Read(_) => due.since.elapsed() > READ_PATIENCE,
            Asked::Change => is_paused && due.since.elapsed() > PAUSED_PATIENCE,
            Asked::Purchase(_) => false,
        };
        if due.front().is_none_or(|oldest| oldest.since.elapsed() <= READ_PATIENCE) || !due.iter().any(waits_too_long) {
            return;
        }
        let (impatient, patient) = due.drain(..).partition(waits_too_long);
        *due = patient;
        drop(due);
        for Due { reply, asked, .. } in Vec::from_iter::<VecDeque<Due>>(impatient) {
            match asked {
                Asked::Read(query) => self.read_here(reply, &query),
                Asked::Purchase(_) | Asked::Change => self.refuse(reply, Refusal::OutcomeUnknown),
            }
        }
    }

    fn tell(&self) {
        let mut answers = Vec::new();
        {
            let state = self.follower.lock();
            let mut due = self.due();
            // Verdicts stand in the order in which the chain reaches them.
            while let Some(first) = due.front() {
                let standing = state.replica.standing(first.epoch, first.next);
                if standing == Standing::Waiting {
                    break;
                }
                let Some(first) = due.pop_front() else { break };
                let answer = match standing {
                    Standing::Chained => state.replica.answer(first.wanted, first.verdict, first.next),
                    // Whoever decided it was replaced. What the chain has counts: that a winner read the purchase takes nothing from them.
                    Standing::Interrupted | Standing::Waiting => match first.asked {
                        Asked::Read(query) => read(&state.replica, &query),
                        Asked::Purchase(query) => known_or(&state.replica, &query, Refusal::Interrupted),
                        Asked::Change => refused(&state.replica, Refusal::Interrupted),
                    },
                };
                answers.push((first.reply, answer));
            }
        }
        if !answers.is_empty() {
            fault::reach(Stage::Chained);
            deliver(&mut answers);
        }
    }
}

/// What the chain says. What is not there may yet have been decided: nobody is told that their purchase does not exist.
fn read(replica: &Replica, query: &Query) -> Answer {
    match query {
        Query::Purchase { .. } => known_or(replica, query, Refusal::OutcomeUnknown),
        Query::Order { .. } | Query::Mine { .. } | Query::Sale | Query::Unsettled { .. } => replica.read(query),
    }
}

/// A purchase if the chain has it, else this refusal.
fn known_or(replica: &Replica, query: &Query, refusal: Refusal) -> Answer {
    match replica.read(query) {
        known @ Answer::Granted(..) => known,
        Answer::Refused { .. } | Answer::Grants(_) | Answer::Sale(_) => refused(replica, refusal),
    }
}

fn refused(replica: &Replica, refusal: Refusal) -> Answer {
    Answer::Refused { refusal, position: replica.view().durable_position(), retry_at: None }
}

fn is_purchase(request: &Request) -> bool {
    matches!(request, Request::Decide(Command::Purchase(_), _))
}
