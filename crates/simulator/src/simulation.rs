//! One seed from its first step to its verdict: the real owner, chain and books, with clients, over a disk and clocks that misbehave.
//!
//! Nothing here reads a clock or the machine's disk (the judge at the end does): the same seed gives the same bytes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use admission::{Answer, Command, Guards, Owner, Request};
use chain::batch::hash;
use chain::{Files, SpareTask};
use domain::ids::Hash;
use domain::record::PauseReason;

use crate::bookkeeping::Bookkeeping;
use crate::disk::FakeDisk;
use crate::foresight::{Foresight, Turned};
use crate::judge;
use crate::plan::Plan;
use crate::shoppers::{Shoppers, Ticket};

/// How to simulate.
#[derive(Clone, Copy, Debug)]
pub struct SimulationOptions {
    /// The checks of the real code; all on, except to show that the simulation notices one that is missing.
    pub guards: Guards,
    /// Whether every decision is compared with the naive model. Without it clients, books and the auditor judge alone.
    pub naive: bool,
    /// Steps at most; a seed takes a quarter of them or more.
    pub steps: u32,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self { guards: Guards::ON, naive: true, steps: 400 }
    }
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps taken.
    pub steps: u64,
    /// Ends of the process, with or without the power.
    pub crashes: u64,
    /// Opens that found the disk in the way and were tried again.
    pub failed_opens: u64,
    /// Seeds that ended because the disk had damaged what was durable and the log refused it.
    pub refused: u64,
    /// Records on the chain.
    pub records: u64,
    /// Purchases granted to clients who know it.
    pub wins: u64,
    /// Refusals heard.
    pub refusals: u64,
    /// Orders on the chain.
    pub orders: u64,
    /// Orders that are paid at the end.
    pub paid: u64,
    /// Orders that are released at the end.
    pub released: u64,
    /// Turns whose batch found the disk full.
    pub full: u64,
    /// Seeds that lived to see the sale settled.
    pub settled: u64,
    /// Reports of payments a millisecond before, at and after the pay-by time of their hold, the end of its grace, and that of its
    /// extension.
    pub callbacks_at_ends: [u64; 9],
}

impl Tally {
    /// Adds another seed's numbers.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.failed_opens += other.failed_opens;
        self.refused += other.refused;
        self.records += other.records;
        self.wins += other.wins;
        self.refusals += other.refusals;
        self.orders += other.orders;
        self.paid += other.paid;
        self.released += other.released;
        self.full += other.full;
        self.settled += other.settled;
        for (count, more) in self.callbacks_at_ends.iter_mut().zip(other.callbacks_at_ends) {
            *count += more;
        }
    }
}

/// A seed that kept every promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A hash of all bytes of the log and of every answer.
    pub digest: Hash,
    /// What happened.
    pub tally: Tally,
}

/// A promise that was broken. The same seed breaks it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// What was seen.
    pub what: String,
}

/// Runs one seed.
pub fn simulate(seed: u64, options: SimulationOptions) -> Result<Outcome, Failure> {
    World::new(seed, options, Plan::draw).judged(|world| {
        let end = world.live()?;
        judge::judge(world, end)
    })
}

/// How a seed's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything is answered and durable.
    Peaceful,
    /// The disk damaged something that was durable, and the log says so.
    Refused,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: fastrand::Rng,
    /// The provider's own, so that the seeds of earlier versions still lead to much the same storms.
    pub(crate) provider: fastrand::Rng,
    pub(crate) options: SimulationOptions,
    pub(crate) plan: Plan,
    pub(crate) disk: FakeDisk,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) folder: PathBuf,
    /// The wall and the monotonic clock.
    pub(crate) clocks: (u64, u64),
    pub(crate) owner: Option<Owner>,
    pub(crate) foresight: Option<Foresight>,
    pub(crate) shoppers: Shoppers,
    pub(crate) books: Bookkeeping,
    pub(crate) inbox: VecDeque<(Request, Ticket)>,
    pub(crate) spare: Option<SpareTask>,
    pub(crate) storage_full: bool,
    /// The disk has little room until this step.
    pub(crate) full_until: Option<u64>,
    /// A write may have landed elsewhere: durable bytes may be damaged.
    pub(crate) misdirected: bool,
    /// No more faults.
    pub(crate) calm: bool,
    pub(crate) transcript: Vec<u8>,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        options: SimulationOptions,
        draw: impl FnOnce(&mut fastrand::Rng, u32) -> Plan,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = draw(&mut random, options.steps);
        let disk = FakeDisk::new(random.u64(..));
        let clocks = (plan.begins_at, random.u64(0..1_000_000));
        Self {
            seed,
            random,
            provider: fastrand::Rng::with_seed(!seed),
            options,
            shoppers: Shoppers::new(&plan),
            plan,
            files: Arc::new(disk.clone()),
            disk,
            folder: PathBuf::from("sales/drop"),
            clocks,
            owner: None,
            foresight: None,
            books: Bookkeeping::new(),
            inbox: VecDeque::new(),
            spare: None,
            storage_full: false,
            full_until: None,
            misdirected: false,
            calm: false,
            transcript: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Lives in this world; a panic is a broken promise too.
    pub(crate) fn judged<T>(mut self, live: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, Failure> {
        let judged = catch_unwind(AssertUnwindSafe(|| live(&mut self))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(format!("panicked: {}", text.unwrap_or("without words")))
        });
        judged.map_err(|what| Failure { seed: self.seed, step: self.tally.steps, what })
    }

    fn live(&mut self) -> Result<End, String> {
        self.create()?;
        for _ in 0..self.plan.steps {
            self.tally.steps += 1;
            self.weather();
            if !self.callback_at_an_end() {
                self.move_clocks();
            }
            self.crowd_acts()?;
            self.operator_acts();
            if self.step()? == End::Refused {
                return Ok(End::Refused);
            }
        }
        self.last_days()
    }

    /// One turn of the owner and what happens around it; a crash and a restart where the turn or the weather ends the process.
    pub(crate) fn step(&mut self) -> Result<End, String> {
        let mut alive = self.turn()?;
        alive = alive && self.housekeeping()?;
        let killed = !self.calm && self.random.u32(0..1_000) < self.plan.weather.kill;
        if !alive || killed || self.power_is_gone() { self.crash() } else { Ok(End::Peaceful) }
    }

    pub(crate) fn power_is_gone(&self) -> bool {
        self.files.list(&self.folder).is_err()
    }

    fn turn(&mut self) -> Result<bool, String> {
        let owner = self.owner.as_mut().ok_or("the owner is not running")?;
        let requests: Vec<Request> = self.inbox.iter().map(|(request, _)| request.clone()).collect();
        let before = owner.log().next();
        let waited = owner.core().state().next != before;
        let mut answered = Vec::new();
        let outcome = owner.step(self.clocks.0, self.clocks.1, &mut self.inbox, &mut answered);
        let taken = requests.len() - self.inbox.len();
        let (tickets, answers): (Vec<Ticket>, Vec<Answer>) = answered.into_iter().unzip();
        let after = owner.log().next();
        if outcome.is_ok() && owner.core().state().next != after {
            self.tally.full += 1;
        }
        if let Some(foresight) = &mut self.foresight {
            let turned = Turned {
                clocks: self.clocks,
                storage_full: self.storage_full,
                requests: &requests[..taken],
                answers: &answers,
                log: (before, after),
                waited,
                failed: outcome.is_err(),
            };
            foresight.turned(&turned, owner.core())?;
        }
        let time = owner.log().time().0;
        for (ticket, answer) in tickets.iter().zip(&answers) {
            self.deliver(ticket, answer, time)?;
        }
        Ok(outcome.is_ok())
    }

    fn deliver(&mut self, ticket: &Ticket, answer: &Answer, time: u64) -> Result<(), String> {
        if !self.calm && self.random.u32(0..1_000) < self.plan.weather.reply_lost {
            self.shoppers.lost(ticket, time);
            return Ok(());
        }
        if let Answer::Refused { refusal, position, .. } = answer {
            self.transcript.extend((*refusal as u16).to_le_bytes());
            self.transcript.extend(position.to_le_bytes());
        }
        self.shoppers.hear(ticket, answer, time)
    }

    /// Spare segment, idle tail, books: what threads beside the owner's inbox do.
    fn housekeeping(&mut self) -> Result<bool, String> {
        let Some(owner) = &mut self.owner else { return Ok(false) };
        // Filling a spare takes a while; the machine may die over it.
        if self.spare.is_none() {
            self.spare = owner.spare_wanted();
        }
        if let Some(task) = self.spare.take_if(|_| self.random.u32(0..self.plan.spare_steps) == 0) {
            let outcome = task.run(self.files.as_ref());
            self.storage_full = outcome.is_err();
            owner.spare_finished(outcome);
        }
        if self.random.u8(0..4) == 0 && owner.settle_tail().is_err() {
            return Ok(false);
        }
        if self.random.u8(0..3) == 0 {
            let durable = owner.log().next();
            let may_fail = self.misdirected || self.power_is_gone();
            self.books.follow(&mut self.random, &self.files, &self.folder, durable, may_fail)?;
        }
        Ok(true)
    }

    fn weather(&mut self) {
        let weather = self.plan.weather.clone();
        let mut strikes = |likely: u32| self.random.u32(0..1_000) < likely;
        let (power, error, full, misdirect) =
            (strikes(weather.power), strikes(weather.disk_error), strikes(weather.full), strikes(weather.misdirect));
        if power {
            self.disk.lose_power_after(self.random.u64(0..12));
        }
        if error && self.random.bool() {
            self.disk.fail_sync_once();
        } else if error {
            self.disk.fail_write_once();
        }
        if misdirect {
            self.disk.misdirect_write_once();
            self.misdirected = true;
        }
        if full && self.full_until.is_none() {
            let room = if self.random.bool() { 0 } else { self.random.u64(0..3 << 20) };
            self.disk.leave_room(Some(room));
            self.full_until = Some(self.tally.steps + self.random.u64(1..30));
        }
        if self.full_until.is_some_and(|until| until <= self.tally.steps) {
            self.give_room();
        }
    }

    pub(crate) fn give_room(&mut self) {
        self.disk.leave_room(None);
        self.full_until = None;
    }

    fn move_clocks(&mut self) {
        let (wall, monotonic) = &mut self.clocks;
        let passed = match self.random.u32(0..1_000) {
            draw if draw < self.plan.weather.stall => self.random.u64(2_000..20_000),
            draw if draw < 200 => 0,
            _ => self.random.u64(1..600),
        };
        *monotonic += passed;
        *wall += passed;
        if self.random.u32(0..1_000) < self.plan.weather.jump {
            let by = if self.random.bool() { self.random.u64(0..2_500) } else { self.random.u64(2_000..60_000) };
            *wall = if self.random.bool() { *wall + by } else { *wall - by };
        }
    }

    fn crowd_acts(&mut self) -> Result<(), String> {
        let (wall, _) = self.clocks;
        let time = self.note_time();
        let rush = if self.random.u8(0..64) == 0 { 12 } else { 1 };
        for _ in 0..self.random.u32(self.plan.actions.clone()) * rush {
            if self.random.u8(0..4) == 0 {
                self.inbox.extend(self.shoppers.act(&mut self.random));
                continue;
            }
            let (request, ticket) = self.shoppers.want(&mut self.random, &self.plan, wall, time);
            // A double click, or a hundred.
            let clicks = if self.random.u8(0..24) == 0 { self.random.u32(2..10) } else { 1 };
            for click in 0..clicks {
                let ticket = if click == 0 { ticket.clone() } else { Ticket::Other };
                self.through_gate(request.clone(), ticket, time)?;
            }
        }
        Ok(())
    }

    /// The time in clients' notes: that of the last batch, the only one that outlives a crash.
    pub(crate) fn note_time(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.log().time().0)
    }

    /// Asks the view first, as every gate does; what it does not refuse goes to the owner, or is lost on the way.
    pub(crate) fn through_gate(&mut self, request: Request, ticket: Ticket, time: u64) -> Result<(), String> {
        if let (Some(owner), Some(wish)) = (&self.owner, Shoppers::wish_of(&request)) {
            let wall = self.clocks.0;
            let early = match &mut self.foresight {
                Some(foresight) => foresight.ask_view(owner.view(), wish, wall)?,
                None => owner
                    .view()
                    .refuse_early(wish, domain::ChainTime(wall))
                    .map(|early| (early.refusal, early.position)),
            };
            if let Some(early) = early {
                return self.shoppers.refused_early(&ticket, early, time);
            }
        }
        if !self.calm && self.random.u8(0..64) == 0 {
            self.shoppers.lost(&ticket, time);
        } else {
            self.inbox.push_back((request, ticket));
        }
        Ok(())
    }

    fn operator_acts(&mut self) {
        let paused = self.owner.as_ref().is_some_and(|owner| owner.core().state().paused.is_some());
        if paused && self.random.u8(0..6) == 0 {
            self.operator(Command::Resume);
        }
        if self.random.u32(0..1_000) >= self.plan.weather.operator {
            return;
        }
        // One beyond the last is an item that does not exist.
        let item = self.random.u16(0..=self.plan.definition.items.len() as u16);
        let change = self.random.i64(-4..5);
        let command = match self.random.u8(0..24) {
            0..=5 => Command::Pause(PauseReason::Operator),
            6..=8 => Command::Resume,
            9 => Command::Close,
            10 => Command::Settle,
            _ => Command::ChangeStock { item, change },
        };
        self.operator(command);
    }

    pub(crate) fn operator(&mut self, command: Command) {
        self.inbox.push_back((Request::Decide(command, None), Ticket::Other));
    }

    /// What two runs of a seed have in common, to the bit.
    pub(crate) fn digest(&self, log: &[Vec<u8>]) -> Hash {
        let mut parts: Vec<&[u8]> = log.iter().map(Vec::as_slice).collect();
        parts.extend([&self.transcript[..], self.shoppers.notes.text().as_bytes()]);
        hash(&parts)
    }
}
