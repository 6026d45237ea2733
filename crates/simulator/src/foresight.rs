//! The naive model beside the running owner: what must be on the chain, what may be, and what every answer has to say.

use admission::{Answer, Core, Owner, Request, SaleView, Wish};
use chain::head::resale_offset;
use domain::ids::Hash;
use domain::{ChainTime, Refusal, SaleDefinition, limits};

use crate::naive::{Expected, Naive};

/// What the owner did in one turn, as far as it can be seen from outside.
pub(crate) struct Turned<'a> {
    pub(crate) clocks: (u64, u64),
    pub(crate) storage_full: bool,
    /// The requests that it took.
    pub(crate) requests: &'a [Request],
    pub(crate) answers: &'a [Answer],
    /// Number of the log's next record before and after.
    pub(crate) log: (u64, u64),
    /// A batch waited for room before.
    pub(crate) waited: bool,
    /// It ended with an error.
    pub(crate) failed: bool,
}

/// The states that the chain can be in.
pub(crate) struct Foresight {
    known: Naive,
    /// States with the batches that nobody knows to be durable.
    maybe: Vec<Naive>,
    /// Per item: requests that passed the sold-out mark since the view was published.
    passed: Vec<u64>,
    /// Per item: since when, by chain time, units have been free without a break.
    free_since: Vec<Option<u64>>,
    /// Per item: free units as the view saw them last, and the chain time from which the latest that came back may be had.
    rests: Vec<(u32, u64)>,
    resale_delay: u64,
    slot_secret: Hash,
}

impl Foresight {
    pub(crate) fn create(definition: SaleDefinition, slot_secret: Hash, clocks: (u64, u64)) -> Self {
        let items = definition.items.len();
        let resale_delay = definition.resale_delay_milliseconds;
        let known = Naive::create(definition, clocks);
        let mut foresight = Self {
            known,
            maybe: Vec::new(),
            passed: vec![0; items],
            free_since: vec![None; items],
            rests: vec![(0, 0); items],
            resale_delay,
            slot_secret,
        };
        foresight.published();
        foresight
    }

    /// What is known is what gates see from now on.
    fn published(&mut self) {
        self.passed.fill(0);
        let now = self.known.time();
        for (item, since) in self.free_since.iter_mut().enumerate() {
            *since = Some(since.unwrap_or(now)).filter(|_| self.known.free(item as u16) > 0);
        }
        for (item, (before, until)) in (0..).zip(&mut self.rests) {
            let free = self.known.free(item);
            if free > std::mem::replace(before, free) {
                *until = now + resale_offset(&self.slot_secret, self.known.next(), item, self.resale_delay);
            }
        }
    }

    /// Goes through a turn and compares everything that was answered.
    pub(crate) fn turned(&mut self, turn: &Turned<'_>, core: &Core) -> Result<(), String> {
        let (before, after) = turn.log;
        if turn.waited {
            if after == before {
                return all_unknown(turn);
            }
            self.known = self.maybe.pop().ok_or("a batch was appended that no turn had decided")?;
            self.maybe.clear();
        }
        let mut next = self.known.clone();
        let expected = next.turn(turn.clocks, turn.storage_full, turn.requests);
        // An owner that failed may have stopped half-way; one that waits for room has decided the whole turn.
        let decided = if turn.failed { None } else { next.differs_from(core, after % 16 == 0) };
        if let Some(problem) = decided {
            return Err(problem);
        }
        if turn.failed || after < next.next() {
            // Appended or not: nobody knows, so nobody may be told.
            self.maybe.push(next);
            return all_unknown(turn);
        }
        self.known = next;
        self.published();
        self.compare_answers(&expected, turn)
    }

    fn compare_answers(&self, expected: &[Expected], turn: &Turned<'_>) -> Result<(), String> {
        if expected.len() != turn.answers.len() {
            return Err(format!("{} requests, {} answers", expected.len(), turn.answers.len()));
        }
        for ((expected, answer), request) in expected.iter().zip(turn.answers).zip(turn.requests) {
            if let Some(problem) = self.known.problem_with(expected, answer) {
                return Err(format!("{} was answered wrongly: {problem}", short(request)));
            }
        }
        Ok(())
    }

    /// A process tried to open the log and died over it.
    pub(crate) fn open_failed(&mut self, clocks: (u64, u64)) {
        let reopened: Vec<Naive> =
            std::iter::once(&self.known).chain(&self.maybe).map(|state| state.clone().reopened(clocks)).collect();
        self.maybe.extend(reopened);
    }

    /// A process opened the log: it must stand in one of the states that it can be in.
    pub(crate) fn opened(&mut self, clocks: (u64, u64), core: &Core) -> Result<(), String> {
        let states = std::iter::once(&self.known).chain(&self.maybe);
        let reopened = states.map(|state| state.clone().reopened(clocks));
        let mut nearest = None;
        for state in reopened {
            match state.differs_from(core, true) {
                None => {
                    self.known = state;
                    self.maybe.clear();
                    self.free_since.fill(None);
                    self.rests.fill((0, 0));
                    self.published();
                    return Ok(());
                }
                Some(problem) => nearest = nearest.or(Some(problem)),
            }
        }
        Err(format!("INV-4: the replayed state is none that was possible: {}", nearest.unwrap_or_default()))
    }

    /// Asks a gate's view, and judges what it says. Gives the refusal, if it refuses.
    pub(crate) fn ask_view(
        &mut self,
        view: &SaleView,
        wish: &Wish,
        wall: u64,
    ) -> Result<Option<(Refusal, u64)>, String> {
        let free = u64::from(self.known.free(wish.item));
        let now = wall.max(self.known.time());
        let passed = &mut self.passed[usize::from(wish.item)];
        let Some(early) = view.refuse_early(wish, ChainTime(wall)) else {
            *passed += 1;
            return Ok(None);
        };
        let told = (early.refusal, early.retry_at);
        if self.known.has_orders(wish.customer) {
            return Err(format!("INV-5: a view told {told:?} to a customer with orders"));
        }
        if early.position >= self.known.next() {
            return Err(format!("a view's {told:?} rests on record {}, which is not durable", early.position));
        }
        let right = self.known.refusal(wish, now);
        let late = self.free_since[usize::from(wish.item)].is_some_and(|since| now >= since + self.resale_delay);
        // Units that came back rest for a moment that the view draws, and then have so many permits.
        let rests = now < self.rests[usize::from(wish.item)].1;
        let permits_gone = rests || *passed >= free * limits::PERMITS_PER_FREE_UNIT;
        let reserved = early.refusal == Refusal::SoldOut
            && permits_gone
            && !late
            && right.is_none_or(|(refusal, _)| refusal >= Refusal::StockInsufficient);
        if right != Some(told) && !reserved {
            return Err(format!("INV-10: a view told {told:?} for {wish:?}, right is {right:?}; {free} are free"));
        }
        Ok(Some((early.refusal, early.position)))
    }

    /// Whether the owner has nothing to wait for any more.
    pub(crate) fn compare_all(&self, owner: &Owner) -> Result<(), String> {
        self.known.differs_from(owner.core(), true).map_or(Ok(()), Err)
    }
}

/// Nobody may hear anything that rests on a batch which is not durable.
fn all_unknown(turn: &Turned<'_>) -> Result<(), String> {
    let certain = |answer: &&Answer| !matches!(answer, Answer::Refused { refusal: Refusal::OutcomeUnknown, .. });
    match turn.answers.iter().find(certain) {
        Some(answer) => Err(format!("INV-4: told {answer:?} before its batch was durable")),
        None if turn.answers.len() == turn.requests.len() => Ok(()),
        None => Err(format!("{} requests, {} answers", turn.requests.len(), turn.answers.len())),
    }
}

fn short(request: &Request) -> String {
    match request {
        Request::Decide(command, _) => format!("{command:?}"),
        Request::Read(query) => format!("{query:?}"),
    }
}
